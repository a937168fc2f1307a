/* A token stream: an append-only, bounded sequence of immutable chunks with one producer and any number of subscribers,
 * each with its own cursor.
 *
 *      producer ──append──▶ [chunk][chunk][chunk]─▶ end | break
 *                             ▲          ▲
 *                        cursor A    cursor B        (a chunk goes when the slowest cursor has left it,
 *                                                     unless the stream keeps everything for late joiners)
 *
 * Thread: producer and subscribers live on one thread. Chunks own their memory and have atomic counts, so a subscriber
 * may retain one and hand it to another thread.
 *
 * Cost: with one subscriber that is ready and nothing to keep, the producer's buffer itself becomes the chunk (no copy,
 * no allocation: chunk heads come from a free list). Bytes are packed by copying only when they have to wait or to
 * stay, so that the limits, which count allocated bytes, are not used up by air.
 *
 * Ownership: stream_create gives one reference, the producer's; each subscriber's is implied by its subscription. The
 * stream goes when the producer has let go (stream_end, stream_break) and no subscriber is left. */
#ifndef WEIR_STREAM_STREAM_H
#define WEIR_STREAM_STREAM_H

#include "stream/chunk.h"
#include "stream/dialect.h"

enum stream_state {
    STREAM_OPEN,
    STREAM_ENDED,  /* properly: all bytes are there, with the terminal event if the dialect has one */
    STREAM_BROKEN, /* not: see stream_failure */
};

/* Why a stream broke; also the word in logs and metrics. */
enum stream_failure {
    STREAM_NOT_FAILED,
    STREAM_CONNECT,      /* no connection to the backend */
    STREAM_RESET,        /* the backend closed or reset the connection in the middle */
    STREAM_PROTOCOL,     /* the backend sent what is not HTTP */
    STREAM_UNTERMINATED, /* the body ended cleanly but without the terminal event */
    STREAM_TIMEOUT_CONNECT,
    STREAM_TIMEOUT_FIRST, /* no first token in time */
    STREAM_TIMEOUT_IDLE,
    STREAM_TIMEOUT_TOTAL,
    STREAM_OVERFLOW,  /* more waited than the stream may hold */
    STREAM_CANCELLED, /* nobody reads any more, or the gateway is ending */
    STREAM_FAILURES,
};

/* What the stream asks of its producer. None is called from within stream_append*, stream_end or stream_break, which
 * tell the producer by what they return. */
struct stream_producer {
    void (*resume)(void *ctx); /* go on after STREAM_PAUSE */
    /* The last subscriber that is not passive has left: stop at once, then call stream_break(STREAM_CANCELLED). */
    void (*cancel)(void *ctx);
    void *ctx;
};

/* What the producer does after it has appended something. */
enum stream_demand {
    STREAM_GO_ON,
    STREAM_PAUSE,    /* stop reading until `resume`: too much waits */
    STREAM_UNWANTED, /* nobody reads any more: stop, then call stream_break(STREAM_CANCELLED) */
    STREAM_FULL,     /* the hard maximum is exceeded: stop, then call stream_break(STREAM_OVERFLOW) */
};

struct stream_settings {
    const struct dialect *dialect;
    bool sse;          /* the bytes are server-sent events */
    bool json;         /* the bytes are one JSON document, whose usage is wanted */
    bool hide_usage;   /* sse: no reader gets events that carry usage and nothing else, nor are they among the facts but
                          for the usage; an event that comes in pieces waits until it is complete, see WITHHOLD_MAX */
    size_t high_water; /* pause the producer when the slowest subscriber is this far behind; 0: 65536 */
    size_t max_bytes;  /* hard maximum of memory held for waiting bytes; beyond it the stream breaks; 0: 8 MiB */
    size_t
        keep_bytes; /* keep everything from the start, up to this much allocated memory, for late joiners; 0: nothing */
};

/* What the stream knows about itself. Read-only for all but stream.c. */
struct stream_facts {
    uint64_t bytes;          /* appended so far, as far as readers get them */
    uint64_t events;         /* complete events with data */
    uint64_t first_event_us; /* clock_us() when the first of them was complete; 0: none yet */
    uint64_t last_event_us;
    bool terminal;    /* the dialect's last event was seen */
    bool error_event; /* an error event was seen */
    struct usage usage;
};

struct stream_subscriber {
    /* Something changed: more bytes, an end. Not called again until the subscriber calls stream_ready. May unsubscribe,
     * peek, consume, and call stream_ready. */
    void (*on_data)(struct stream_subscriber *subscriber);
    /* Set before stream_subscribe: it watches, but nothing is generated for its sake. Once the last subscriber that is
     * not passive has left an open stream, the producer is cancelled, and the passive ones hear of the broken stream.
     */
    bool passive;
    struct stream *_stream;
    struct stream_subscriber *_next;
    struct chunk *_chunk; /* the chunk that the cursor stands in or just behind; NULL: the next to come */
    uint64_t _cursor;
    bool _stopped; /* by stream_stop_reading */
    bool _waiting; /* on_data may be called */
    bool _pending; /* and is about to be, in this round */
};

/* A new, open stream. `producer` is copied. */
struct stream *stream_create(const struct stream_settings *settings, const struct stream_producer *producer);

/* A stream that is over already, STREAM_ENDED, whose bytes are those of `chunks`, one after the other: the chunks are
 * counted, not copied, so that many such streams, on many threads, share them. Nothing is scanned: what is known about
 * the bytes comes from `facts` (copied; the number of bytes is counted anew, and all events are as of now). The chunks
 * must be of memory that crosses threads, as those of chunk_retain and chunk_adopt are. A subscriber calls stream_ready
 * to begin. The caller has a reference, which it gives up with stream_release, after subscribing for instance. */
struct stream *stream_create_ended(const struct stream_settings *settings, const struct stream_facts *facts,
                                   struct chunk *const *chunks, size_t count);

/* Gives up the reference that stream_create_ended gave; the stream lives on for as long as it has subscribers. */
void stream_release(struct stream *stream);

/* Appends all of *input and takes the buffer over, or copies, see above; leaves an empty buffer of the same prototype.
 */
enum stream_demand stream_append_buffer(struct stream *stream, h2o_buffer_t **input);

/* The same for the last bytes, which stream_end must follow before anything else happens to the stream: readers hear of
 * both at once. */
void stream_append_last(struct stream *stream, h2o_buffer_t **input);

/* Appends a copy of the bytes. */
enum stream_demand stream_append(struct stream *stream, struct span bytes);

/* The body is complete. Becomes STREAM_ENDED, or STREAM_BROKEN with STREAM_UNTERMINATED where the dialect's terminal
 * event is missing. The producer must not use the stream afterwards. */
void stream_end(struct stream *stream);

/* The body will not be completed. `message` (copied, may be NULL) is for logs and error bodies. The producer must not
 * use the stream afterwards. */
void stream_break(struct stream *stream, enum stream_failure why, const char *message);

/* Subscribes from byte `from` (0: the start). False if those bytes are gone already. on_data is not called from within.
 */
bool stream_subscribe(struct stream *stream, struct stream_subscriber *subscriber, uint64_t from);

/* Ends a subscription; nothing happens if there is none. The last one to leave, passive ones aside, cancels the
 * producer. */
void stream_unsubscribe(struct stream_subscriber *subscriber);

/* The subscriber will read no more, but what it has peeked must stay where it is until it unsubscribes: it no longer
 * counts as a reader, and on_data is not called again. The last reader to stop cancels the producer. */
void stream_stop_reading(struct stream_subscriber *subscriber);

/* The next unread pieces, at most `max` of them, without moving the cursor. Returns their number. They stay where they
 * are until consumed. */
size_t stream_peek(struct stream_subscriber *subscriber, struct slice *slices, size_t max);

/* Moves the cursor past `bytes` bytes that were peeked, and lets go of them. */
void stream_consume(struct stream_subscriber *subscriber, size_t bytes);

/* The subscriber wants to hear of changes again. If it has unread bytes, or the stream is over, on_data is called at
 * once. */
void stream_ready(struct stream_subscriber *subscriber);

/* The subscriber has unread bytes that it leaves for now, and wants to hear when there are more. */
void stream_wait(struct stream_subscriber *subscriber);

/* Bytes that this subscriber has not consumed yet. */
uint64_t stream_unread(const struct stream_subscriber *subscriber);

/* Whether this subscriber has read everything there is and that ends between two events: a comment may be put in. */
bool stream_at_boundary(const struct stream_subscriber *subscriber);

/* Whether the stream's bytes so far end between two events (true for what is not SSE only when it is empty). */
bool stream_ends_at_boundary(const struct stream *stream);

/* Whether anybody reads the stream; passive subscribers do not count. */
bool stream_is_wanted(const struct stream *stream);

enum stream_state stream_state(const struct stream *stream);
enum stream_failure stream_failure(const struct stream *stream);
const char *stream_failure_message(const struct stream *stream); /* never NULL */
const struct stream_facts *stream_facts(const struct stream *stream);
const struct dialect *stream_dialect(const struct stream *stream);
bool stream_is_sse(const struct stream *stream);

/* "connect", "reset", …: for logs and metric labels. */
const char *stream_failure_name(enum stream_failure failure);

#endif
