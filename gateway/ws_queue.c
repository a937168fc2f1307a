#include "gateway/ws_queue.h"
#include <stdlib.h>

struct ws_queued {
    struct ws_queued *next;
    size_t len;
    enum ws_kind kind;
    unsigned char memory[]; /* LWS_PRE, then the message */
};

void ws_queue_init(struct ws_queue *queue, size_t high)
{
    *queue = (struct ws_queue){._high = high, ._last = &queue->_first};
}

void ws_queue_add(struct ws_queue *queue, enum ws_kind kind, const struct span *pieces, size_t count, size_t len)
{
    struct ws_queued *message = h2o_mem_alloc(sizeof(*message) + LWS_PRE + len);
    message->next = NULL;
    message->len = len;
    message->kind = kind;
    ws_queue_gather(message->memory, pieces, count);
    *queue->_last = message;
    queue->_last = &message->next;
    queue->bytes += len + sizeof(*message);
    if (queue->bytes >= queue->_high)
        queue->is_full = true;
}

/* Takes the first message out. */
static struct ws_queued *take(struct ws_queue *queue)
{
    struct ws_queued *message = queue->_first;
    queue->_first = message->next;
    if (queue->_first == NULL)
        queue->_last = &queue->_first;
    queue->bytes -= message->len + sizeof(*message);
    return message;
}

bool ws_queue_flush(struct ws_queue *queue, struct lws *wsi, void (*sent)(void *ctx, enum ws_kind kind, size_t len),
                    void *ctx)
{
    bool ok = true;
    while (ok && queue->_first != NULL && !lws_partial_buffered(wsi)) {
        struct ws_queued *message = take(queue);
        if (sent != NULL)
            sent(ctx, message->kind, message->len);
        ok = ws_queue_write(wsi, message->kind, message->memory, message->len);
        free(message);
    }
    return ok;
}

bool ws_queue_has_drained(struct ws_queue *queue)
{
    if (!queue->is_full || queue->bytes >= queue->_high / 2)
        return false;
    queue->is_full = false;
    return true;
}

void ws_queue_drop(struct ws_queue *queue)
{
    while (queue->_first != NULL)
        free(take(queue));
}

bool ws_queue_write(struct lws *wsi, enum ws_kind kind, unsigned char *memory, size_t len)
{
    static const enum lws_write_protocol kinds[] = {
        [WS_TEXT] = LWS_WRITE_TEXT,
        [WS_BINARY] = LWS_WRITE_BINARY,
        [WS_TEXT_BEGIN] = LWS_WRITE_TEXT | LWS_WRITE_NO_FIN,
        [WS_BINARY_BEGIN] = LWS_WRITE_BINARY | LWS_WRITE_NO_FIN,
        [WS_MORE] = LWS_WRITE_CONTINUATION | LWS_WRITE_NO_FIN,
        [WS_END] = LWS_WRITE_CONTINUATION,
    };
    return lws_write(wsi, memory + LWS_PRE, len, kinds[kind]) >= 0;
}

void ws_queue_gather(unsigned char *memory, const struct span *pieces, size_t count)
{
    unsigned char *to = memory + LWS_PRE;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].len != 0)
            memcpy(to, pieces[i].base, pieces[i].len);
        to += pieces[i].len;
    }
}
