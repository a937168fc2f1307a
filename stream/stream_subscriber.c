/* The subscribers' side of a stream: who is told, where each one stands, and what none of them needs any more. */
#include "stream/stream_own.h"
#include <assert.h>

static struct stream_subscriber *next_to_tell(const struct stream *stream)
{
    struct stream_subscriber *found = NULL;
    for (struct stream_subscriber *s = stream->subscribers; s != NULL; s = s->_next) {
        if (!s->_pending)
            continue;
        /* Of the end those who only watch hear first: a reader who has the last byte may count on what they do with it.
         */
        if (stream->state != STREAM_OPEN && s->passive)
            return s;
        if (found == NULL)
            found = s;
    }
    return found;
}

void stream_notify(struct stream *stream)
{
    /* on_data may take out any subscriber, so each round starts from the front; a subscriber that was called no longer
     * waits, unless it called stream_ready or stream_wait, and then it has seen everything there is. */
    uint64_t bytes = stream->facts.bytes;
    enum stream_state state = stream->state;
    for (struct stream_subscriber *s = stream->subscribers; s != NULL; s = s->_next)
        s->_pending = s->_waiting;
    struct stream_subscriber *s;
    while ((s = next_to_tell(stream)) != NULL) {
        s->_pending = false;
        s->_waiting = false;
        s->on_data(s);
        if (stream->facts.bytes != bytes || stream->state != state)
            return; /* a nested change has told everybody */
    }
}

static uint64_t slowest_cursor(const struct stream *stream)
{
    uint64_t slowest = stream->facts.bytes;
    for (const struct stream_subscriber *s = stream->subscribers; s != NULL; s = s->_next)
        if (s->_cursor < slowest)
            slowest = s->_cursor;
    return slowest;
}

void stream_drop_left(struct stream *stream)
{
    uint64_t slowest = slowest_cursor(stream);
    struct chunk *chunk;
    while ((chunk = stream->head) != NULL && chunk->_start + chunk->_bytes.len <= slowest) {
        stream->head = chunk->_next;
        if (stream->head == NULL)
            stream->tail = NULL;
        for (struct stream_subscriber *s = stream->subscribers; s != NULL; s = s->_next)
            if (s->_chunk == chunk)
                s->_chunk = chunk->_next;
        stream->held -= chunk->_cap;
        chunk_release(chunk);
    }
}

bool stream_subscribe(struct stream *stream, struct stream_subscriber *subscriber, uint64_t from)
{
    uint64_t first = stream->head != NULL ? stream->head->_start : stream->facts.bytes;
    if (from < first || from > stream->facts.bytes)
        return false;
    subscriber->_stream = stream;
    subscriber->_cursor = from;
    subscriber->_waiting = true;
    subscriber->_pending = subscriber->_stopped = false;
    subscriber->_chunk = stream->head;
    while (subscriber->_chunk != NULL && subscriber->_chunk->_next != NULL &&
           subscriber->_chunk->_start + subscriber->_chunk->_bytes.len <= from)
        subscriber->_chunk = subscriber->_chunk->_next;
    subscriber->_next = stream->subscribers;
    stream->subscribers = subscriber;
    stream->reader_count += !subscriber->passive;
    stream->refs++;
    return true;
}

void stream_unsubscribe(struct stream_subscriber *subscriber)
{
    struct stream *stream = subscriber->_stream;
    if (stream == NULL)
        return;
    subscriber->_stream = NULL;
    struct stream_subscriber **slot = &stream->subscribers;
    while (*slot != subscriber)
        slot = &(*slot)->_next;
    *slot = subscriber->_next;
    stream->reader_count -= !subscriber->passive;
    if (stream->state == STREAM_OPEN && !stream->appending) {
        if (stream->reader_count == 0) {
            if (!subscriber->passive)
                stream->producer.cancel(stream->producer.ctx);
        } else {
            stream_drop_consumed(stream);
            if (stream->paused && stream_lag(stream) <= stream->settings.high_water / 2) {
                stream->paused = false;
                stream->producer.resume(stream->producer.ctx);
            }
        }
    }
    stream_unref(stream);
}

void stream_stop_reading(struct stream_subscriber *subscriber)
{
    struct stream *stream = subscriber->_stream;
    if (stream == NULL || subscriber->passive)
        return;
    subscriber->passive = subscriber->_stopped = true;
    subscriber->_waiting = subscriber->_pending = false;
    if (--stream->reader_count == 0 && stream->state == STREAM_OPEN && !stream->appending)
        stream->producer.cancel(stream->producer.ctx);
}

size_t stream_peek(struct stream_subscriber *subscriber, struct slice *slices, size_t max)
{
    size_t count = 0;
    uint64_t cursor = subscriber->_cursor;
    for (struct chunk *chunk = subscriber->_chunk; chunk != NULL && count < max; chunk = chunk->_next) {
        struct span rest = span_skip(chunk->_bytes, (size_t)(cursor - chunk->_start));
        if (rest.len == 0)
            continue;
        slices[count++] = (struct slice){rest, chunk};
        cursor += rest.len;
    }
    return count;
}

void stream_consume(struct stream_subscriber *subscriber, size_t bytes)
{
    struct stream *stream = subscriber->_stream;
    subscriber->_cursor += bytes;
    assert(subscriber->_cursor <= stream->facts.bytes);
    while (subscriber->_chunk != NULL && subscriber->_chunk->_next != NULL &&
           subscriber->_chunk->_start + subscriber->_chunk->_bytes.len <= subscriber->_cursor)
        subscriber->_chunk = subscriber->_chunk->_next;
    stream_drop_consumed(stream);
    if (stream->paused && !stream->appending && stream->state == STREAM_OPEN &&
        stream_lag(stream) <= stream->settings.high_water / 2) {
        stream->paused = false;
        stream->producer.resume(stream->producer.ctx);
    }
}

void stream_ready(struct stream_subscriber *subscriber)
{
    struct stream *stream = subscriber->_stream;
    if (subscriber->_cursor == stream->facts.bytes && stream->state == STREAM_OPEN) {
        subscriber->_waiting = true;
        return;
    }
    subscriber->_waiting = false;
    subscriber->on_data(subscriber);
}

void stream_wait(struct stream_subscriber *subscriber)
{
    subscriber->_waiting = true;
}

bool stream_is_wanted(const struct stream *stream)
{
    return stream->reader_count != 0;
}

uint64_t stream_unread(const struct stream_subscriber *subscriber)
{
    return subscriber->_stream->facts.bytes - subscriber->_cursor;
}

bool stream_at_boundary(const struct stream_subscriber *subscriber)
{
    return stream_unread(subscriber) == 0 && stream_ends_at_boundary(subscriber->_stream);
}
