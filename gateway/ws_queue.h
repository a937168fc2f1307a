/* Messages that wait until libwebsockets takes them, towards a client (ws_session.c) or a backend (ws_backend.c). It is
 * full from so many bytes on until half of them are gone: who sends is told, and pauses. How much may be queued beyond
 * that is for the owner to see to, with `bytes`, before it adds. One thread; the messages are its own. */
#ifndef WEIR_GATEWAY_WS_QUEUE_H
#define WEIR_GATEWAY_WS_QUEUE_H

#include "gateway/ws_bridge.h"
#include <libwebsockets.h>

struct ws_queued;

struct ws_queue {
    size_t bytes; /* of all messages, with what they cost beside their text */
    bool is_full;
    size_t _high;
    struct ws_queued *_first, **_last;
};

/* An empty queue, full from `high` bytes on. It must not move afterwards. */
void ws_queue_init(struct ws_queue *queue, size_t high);

static inline bool ws_queue_is_empty(const struct ws_queue *queue)
{
    return queue->_first == NULL;
}

/* Adds a message or a fragment of `len` bytes, put together from pieces and copied. */
void ws_queue_add(struct ws_queue *queue, enum ws_kind kind, const struct span *pieces, size_t count, size_t len);

/* Writes until libwebsockets has to hold something back, or the queue is empty. `sent` (may be NULL) is called before
 * each write. False if a write failed: the connection is dead. */
bool ws_queue_flush(struct ws_queue *queue, struct lws *wsi, void (*sent)(void *ctx, enum ws_kind kind, size_t len),
                    void *ctx);

/* True once after it was full and has gone down to half of that: who paused may go on. */
bool ws_queue_has_drained(struct ws_queue *queue);

/* Drops all messages. A queue that was full has drained then. */
void ws_queue_drop(struct ws_queue *queue);

/* Writes one message at once, past the queue, which must be empty. Its `len` bytes begin LWS_PRE bytes behind `memory`.
 * False if that failed. */
bool ws_queue_write(struct lws *wsi, enum ws_kind kind, unsigned char *memory, size_t len);

/* Puts pieces together, LWS_PRE bytes behind `memory`. */
void ws_queue_gather(unsigned char *memory, const struct span *pieces, size_t count);

#endif
