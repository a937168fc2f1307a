/* Private to the stream: what its files share. */
#ifndef WEIR_STREAM_STREAM_OWN_H
#define WEIR_STREAM_STREAM_OWN_H

#include "stream/stream.h"
#include "stream/withhold.h"

struct stream {
    unsigned refs; /* producer, subscribers, and whoever is inside a call */
    enum stream_state state;
    enum stream_failure failure;
    char *message;
    struct stream_settings settings;
    struct stream_producer producer;
    struct stream_subscriber *subscribers;
    unsigned reader_count; /* of those that are not passive */
    struct chunk *head, *tail;
    size_t held; /* allocated bytes of all chunks in the list */
    bool keeping;
    bool appending;
    bool paused;
    struct sse_scanner sse;
    struct withhold *withhold; /* NULL: readers get everything */
    struct stream_facts facts;
    char *json_tail; /* the last bytes of a JSON document */
    size_t json_tail_len, json_tail_cap;
};

/* Gives up a reference; the stream goes with the last. */
void stream_unref(struct stream *stream);

/* Calls everybody who waits for a change. The stream must be pinned by the caller. */
void stream_notify(struct stream *stream);

/* How far the slowest of those who still read is behind: what back-pressure goes by. */
static inline uint64_t stream_lag(const struct stream *stream)
{
    uint64_t slowest = stream->facts.bytes;
    for (const struct stream_subscriber *s = stream->subscribers; s != NULL; s = s->_next)
        if (!s->_stopped && s->_cursor < slowest)
            slowest = s->_cursor;
    return stream->facts.bytes - slowest;
}

/* stream_drop_consumed, once it is known that the stream does not keep everything. */
void stream_drop_left(struct stream *stream);

/* Lets go of the chunks that every cursor has left, unless the stream keeps everything. */
static inline void stream_drop_consumed(struct stream *stream)
{
    if (!stream->keeping)
        stream_drop_left(stream);
}

#endif
