#include "base/clock.h"
#include "base/recycle.h"
#include "stream/stream_own.h"
#include <assert.h>
#include <stdlib.h>

#define HIGH_WATER_DEFAULT ((size_t)64 * 1024)
#define MAX_BYTES_DEFAULT ((size_t)8 * 1024 * 1024)
#define BLOCK_SMALL ((size_t)4096)
#define BLOCK_LARGE ((size_t)16384)
#define JSON_TAIL ((size_t)8192)
#define JSON_TAIL_SMALL ((size_t)1024) /* what small documents get, and what is kept for the next */

/* ---- life ---- */

static __thread struct recycle recycled, tails;

struct stream *stream_create(const struct stream_settings *settings, const struct stream_producer *producer)
{
    struct stream *stream = recycle_take(&recycled, sizeof(*stream));
    *stream = (struct stream){.refs = 1, .settings = *settings, .producer = *producer};
    if (stream->settings.dialect == NULL)
        stream->settings.dialect = dialect_get(DIALECT_NONE);
    if (stream->settings.high_water == 0)
        stream->settings.high_water = HIGH_WATER_DEFAULT;
    if (stream->settings.max_bytes == 0)
        stream->settings.max_bytes = MAX_BYTES_DEFAULT;
    stream->keeping = settings->keep_bytes != 0;
    if (settings->sse)
        sse_scanner_init(&stream->sse, 0);
    if (settings->sse && settings->hide_usage) {
        stream->withhold = h2o_mem_alloc(sizeof(*stream->withhold));
        *stream->withhold = (struct withhold){._seen = 0};
    }
    return stream;
}

static void free_json_tail(struct stream *stream)
{
    if (stream->json_tail_cap == JSON_TAIL_SMALL)
        recycle_give(&tails, stream->json_tail);
    else
        free(stream->json_tail);
}

void stream_unref(struct stream *stream)
{
    assert(stream->refs != 0);
    if (--stream->refs != 0)
        return;
    assert(stream->subscribers == NULL);
    while (stream->head != NULL) {
        struct chunk *chunk = stream->head;
        stream->head = chunk->_next;
        chunk_release(chunk);
    }
    if (stream->settings.sse)
        sse_scanner_dispose(&stream->sse);
    if (stream->withhold != NULL) {
        withhold_dispose(stream->withhold);
        free(stream->withhold);
    }
    free_json_tail(stream);
    free(stream->message);
    recycle_give(&recycled, stream);
}

/* ---- the list ---- */

static void push_chunk(struct stream *stream, struct chunk *chunk, uint64_t start)
{
    chunk->_start = start;
    chunk->_next = NULL;
    if (stream->tail != NULL)
        stream->tail->_next = chunk;
    else
        stream->head = chunk;
    stream->tail = chunk;
    stream->held += chunk->_cap;
    for (struct stream_subscriber *s = stream->subscribers; s != NULL; s = s->_next)
        if (s->_chunk == NULL)
            s->_chunk = chunk;
}

/* Copies bytes to the end, filling up the last block first. */
static void pack(struct stream *stream, struct span bytes)
{
    uint64_t start = stream->facts.bytes;
    stream->facts.bytes += bytes.len;
    while (bytes.len != 0) {
        struct chunk *tail = stream->tail;
        if (tail == NULL || tail->_buffer != NULL || tail->_bytes.len == tail->_cap) {
            size_t cap = stream->held < BLOCK_LARGE ? BLOCK_SMALL : BLOCK_LARGE;
            tail = chunk_create_block(bytes.len > cap ? bytes.len : cap);
            push_chunk(stream, tail, start);
        }
        size_t n = tail->_cap - tail->_bytes.len;
        if (n > bytes.len)
            n = bytes.len;
        memcpy((char *)tail->_bytes.base + tail->_bytes.len, bytes.base, n);
        tail->_bytes.len += n;
        start += n;
        bytes = span_skip(bytes, n);
    }
}

/* ---- streams that are over ---- */

struct stream *stream_create_ended(const struct stream_settings *settings, const struct stream_facts *facts,
                                   struct chunk *const *chunks, size_t count)
{
    static const struct stream_producer nobody; /* an ended stream asks for nothing */
    struct stream *stream = stream_create(settings, &nobody);
    stream->state = STREAM_ENDED;
    stream->facts = *facts;
    stream->facts.bytes = 0;
    if (facts->events != 0)
        stream->facts.first_event_us = stream->facts.last_event_us = clock_us();
    for (size_t i = 0; i < count; i++) {
        if (chunks[i]->_bytes.len == 0)
            continue;
        push_chunk(stream, chunk_share(chunks[i]), stream->facts.bytes);
        stream->facts.bytes += chunks[i]->_bytes.len;
    }
    return stream;
}

void stream_release(struct stream *stream)
{
    assert(stream->state == STREAM_ENDED);
    stream_unref(stream);
}

/* ---- the producer's side ---- */

static void remember_json_tail(struct stream *stream, struct span bytes)
{
    /* Most documents come in one piece. */
    size_t most = stream->json_tail_len + bytes.len;
    if (most > stream->json_tail_cap && stream->json_tail_cap < JSON_TAIL) {
        size_t cap = stream->json_tail == NULL && most < JSON_TAIL ? most : JSON_TAIL;
        if (cap < JSON_TAIL_SMALL)
            cap = JSON_TAIL_SMALL;
        char *tail = cap == JSON_TAIL_SMALL ? recycle_take(&tails, cap) : h2o_mem_alloc(cap);
        if (stream->json_tail_len != 0)
            memcpy(tail, stream->json_tail, stream->json_tail_len);
        free_json_tail(stream);
        stream->json_tail = tail;
        stream->json_tail_cap = cap;
    }
    if (bytes.len >= JSON_TAIL) {
        memcpy(stream->json_tail, bytes.base + bytes.len - JSON_TAIL, JSON_TAIL);
        stream->json_tail_len = JSON_TAIL;
        return;
    }
    size_t keep = stream->json_tail_len;
    if (keep + bytes.len > JSON_TAIL) {
        keep = JSON_TAIL - bytes.len;
        memmove(stream->json_tail, stream->json_tail + stream->json_tail_len - keep, keep);
    }
    memcpy(stream->json_tail + keep, bytes.base, bytes.len);
    stream->json_tail_len = keep + bytes.len;
}

static void on_event(void *ctx, const struct sse_event *event)
{
    struct stream *stream = ctx;
    if (!event->has_data)
        return;
    struct stream_facts *facts = &stream->facts;
    facts->last_event_us = clock_us();
    unsigned flags = dialect_event(stream->settings.dialect, event, &facts->usage);
    if ((flags & EVENT_EXTRA) != 0 && stream->withhold != NULL && withhold_event(stream->withhold, event))
        return;
    if (facts->events++ == 0)
        facts->first_event_us = facts->last_event_us;
    if ((flags & EVENT_TERMINAL) != 0)
        facts->terminal = true;
    if ((flags & EVENT_ERROR) != 0)
        facts->error_event = true;
}

static void look_at(struct stream *stream, struct span bytes)
{
    if (stream->settings.sse)
        sse_scan(&stream->sse, bytes, on_event, stream);
    else if (stream->settings.json)
        remember_json_tail(stream, bytes);
}

/* Whether the producer's buffer can go to the readers as it is: one reader, who waits for just these bytes, as do the
 * passive subscribers, if any. */
static bool is_direct(const struct stream *stream)
{
    if (stream->reader_count != 1 || stream->keeping)
        return false;
    for (const struct stream_subscriber *s = stream->subscribers; s != NULL; s = s->_next)
        if (!s->_waiting || s->_cursor != stream->facts.bytes)
            return false;
    return true;
}

/* What every append ends with: tell the readers of what is more than `before`, then tell the producer what they want.
 */
static enum stream_demand appended(struct stream *stream, uint64_t before)
{
    stream->refs++;
    stream->appending = true;
    if (stream->facts.bytes != before)
        stream_notify(stream);
    stream->appending = false;
    enum stream_demand demand = STREAM_GO_ON;
    stream->paused = false; /* whatever is answered now is what holds */
    if (stream->reader_count == 0) {
        demand = STREAM_UNWANTED;
    } else {
        if (stream->keeping && stream->held > stream->settings.keep_bytes)
            stream->keeping = false;
        stream_drop_consumed(stream); /* a reader may have left */
        if (stream->held > stream->settings.max_bytes) {
            demand = STREAM_FULL;
        } else if (stream_lag(stream) >= stream->settings.high_water) {
            stream->paused = true;
            demand = STREAM_PAUSE;
        }
    }
    stream_unref(stream);
    return demand;
}

/* Keeps back what readers do not get, and adds what had to wait and is to go before the rest. Returns how much of the
 * piece is left, at its front. */
static size_t sort(struct stream *stream, char *bytes, size_t len)
{
    pack(stream, withhold_waited(stream->withhold, &stream->sse, len));
    return withhold_sort(stream->withhold, &stream->sse, bytes, len);
}

/* All of *input, without a word to anybody. */
static void take_buffer(struct stream *stream, h2o_buffer_t **input)
{
    assert(stream->state == STREAM_OPEN && !stream->appending);
    size_t len = (*input)->size;
    struct span bytes = {(*input)->bytes, len};
    bool direct = is_direct(stream);
    look_at(stream, bytes);
    if (stream->withhold != NULL)
        bytes.len = sort(stream, (*input)->bytes, len);
    if (direct && bytes.len != 0) {
        struct chunk *chunk = chunk_create();
        chunk->_buffer = *input;
        chunk->_bytes = bytes;
        chunk->_cap = (*input)->capacity;
        h2o_buffer_init(input, chunk->_buffer->_prototype);
        push_chunk(stream, chunk, stream->facts.bytes);
        stream->facts.bytes += bytes.len;
    } else {
        pack(stream, bytes);
        h2o_buffer_consume(input, len);
    }
}

enum stream_demand stream_append_buffer(struct stream *stream, h2o_buffer_t **input)
{
    uint64_t before = stream->facts.bytes;
    if ((*input)->size == 0)
        return STREAM_GO_ON;
    take_buffer(stream, input);
    return appended(stream, before);
}

void stream_append_last(struct stream *stream, h2o_buffer_t **input)
{
    if ((*input)->size != 0)
        take_buffer(stream, input);
}

enum stream_demand stream_append(struct stream *stream, struct span bytes)
{
    assert(stream->state == STREAM_OPEN && !stream->appending);
    if (bytes.len == 0)
        return STREAM_GO_ON;
    uint64_t before = stream->facts.bytes;
    char *copy = NULL;
    look_at(stream, bytes);
    if (stream->withhold != NULL) {
        copy = h2o_mem_alloc(bytes.len);
        memcpy(copy, bytes.base, bytes.len);
        bytes = (struct span){copy, sort(stream, copy, bytes.len)};
    }
    pack(stream, bytes);
    free(copy);
    return appended(stream, before);
}

static void finish(struct stream *stream, enum stream_state state, enum stream_failure why, const char *message)
{
    assert(stream->state == STREAM_OPEN);
    stream->state = state;
    stream->failure = why;
    if (message != NULL)
        stream->message = strdup(message);
    if (stream->withhold != NULL)
        pack(stream, withhold_end(stream->withhold));
    /* The producer's reference becomes this call's. */
    stream_notify(stream);
    stream_unref(stream);
}

void stream_end(struct stream *stream)
{
    if (stream->settings.json && stream->json_tail != NULL) {
        struct span tail = {stream->json_tail, stream->json_tail_len};
        dialect_json_usage(stream->settings.dialect, tail, &stream->facts.usage);
    }
    if (stream->settings.sse && !stream->facts.terminal && dialect_has_terminal(stream->settings.dialect))
        finish(stream, STREAM_BROKEN, STREAM_UNTERMINATED, "the backend ended the stream before it was complete");
    else
        finish(stream, STREAM_ENDED, STREAM_NOT_FAILED, NULL);
}

void stream_break(struct stream *stream, enum stream_failure why, const char *message)
{
    finish(stream, STREAM_BROKEN, why, message);
}

/* ---- what is known ---- */

bool stream_ends_at_boundary(const struct stream *stream)
{
    if (stream->withhold != NULL && withhold_waits(stream->withhold))
        return true; /* what waits has begun behind one */
    return stream->settings.sse ? sse_at_boundary(&stream->sse) : stream->facts.bytes == 0;
}

enum stream_state stream_state(const struct stream *stream)
{
    return stream->state;
}

enum stream_failure stream_failure(const struct stream *stream)
{
    return stream->failure;
}

const char *stream_failure_message(const struct stream *stream)
{
    return stream->message != NULL ? stream->message : stream_failure_name(stream->failure);
}

const struct stream_facts *stream_facts(const struct stream *stream)
{
    return &stream->facts;
}

const struct dialect *stream_dialect(const struct stream *stream)
{
    return stream->settings.dialect;
}

bool stream_is_sse(const struct stream *stream)
{
    return stream->settings.sse;
}

const char *stream_failure_name(enum stream_failure failure)
{
    static const char *const names[STREAM_FAILURES] = {
        [STREAM_NOT_FAILED] = "none",
        [STREAM_CONNECT] = "connect",
        [STREAM_RESET] = "reset",
        [STREAM_PROTOCOL] = "protocol",
        [STREAM_UNTERMINATED] = "unterminated",
        [STREAM_TIMEOUT_CONNECT] = "connect_timeout",
        [STREAM_TIMEOUT_FIRST] = "first_token_timeout",
        [STREAM_TIMEOUT_IDLE] = "idle_timeout",
        [STREAM_TIMEOUT_TOTAL] = "total_timeout",
        [STREAM_OVERFLOW] = "overflow",
        [STREAM_CANCELLED] = "cancelled",
    };
    return names[failure];
}
