#include "cache/writer.h"
#include "base/clock.h"
#include <h2o/memory.h>
#include <stdlib.h>

#define BLOCK_FIRST ((size_t)1024) /* malloc has these at hand */
#define CHUNKS_FIRST 4
#define BLOCK_SIZE ((size_t)16384) /* what a replay hands out at a time is a few of these */
#define SLICES_MAX 8

struct writer {
    struct stream_subscriber subscriber;
    struct cache_writer_settings settings; /* whose spans point into `strings` */
    char *block;                           /* the last one, not full yet */
    size_t block_len, block_cap;
    struct chunk **chunks; /* the full ones */
    size_t chunk_count, chunk_cap;
    struct chunk *first_chunks[CHUNKS_FIRST];
    size_t held; /* allocated by all of them */
    char strings[];
};

static void on_data(struct stream_subscriber *subscriber);

/* ---- start ---- */

static struct span header_value(const struct cache_writer_settings *settings, struct span name)
{
    for (size_t i = 0; i < settings->header_count; i++)
        if (span_eq(settings->headers[i].name, name))
            return settings->headers[i].value;
    return SPAN_NONE;
}

static struct span put(char **to, struct span bytes)
{
    struct span copy = {*to, bytes.len};
    if (bytes.len != 0)
        memcpy(*to, bytes.base, bytes.len);
    *to += bytes.len;
    return copy;
}

static struct writer *create(const struct cache_writer_settings *settings)
{
    size_t count = 0, size = settings->scope_name.len + settings->model.len;
    for (size_t i = 0; i < settings->header_count; i++) {
        if (cache_entry_keeps(settings->headers[i].name) == NULL)
            continue;
        size += sizeof(struct cache_header) + settings->headers[i].value.len;
        count++;
    }
    struct writer *writer = h2o_mem_alloc(sizeof(*writer) + size);
    *writer = (struct writer){
        .subscriber = {.on_data = on_data, .passive = true}, .settings = *settings, .chunk_cap = CHUNKS_FIRST};
    writer->chunks = writer->first_chunks;
    struct cache_header *header = (struct cache_header *)writer->strings, *next = header;
    char *at = (char *)(header + count);
    for (size_t i = 0; i < settings->header_count; i++) {
        const struct span *name = cache_entry_keeps(settings->headers[i].name);
        if (name != NULL)
            *next++ = (struct cache_header){*name, put(&at, settings->headers[i].value)};
    }
    writer->settings.header_count = count;
    writer->settings.headers = header;
    writer->settings.scope_name = put(&at, settings->scope_name);
    writer->settings.model = put(&at, settings->model);
    return writer;
}

bool cache_writer_start(const struct cache_writer_settings *settings, struct stream *stream)
{
    struct span encoding = header_value(settings, SPAN("content-encoding"));
    if (settings->status != 200 || (encoding.len != 0 && !span_ieq(span_trim(encoding), SPAN("identity"))))
        return false;
    struct writer *writer = create(settings);
    if (!stream_subscribe(stream, &writer->subscriber, 0)) {
        free(writer);
        return false;
    }
    if (stream_unread(&writer->subscriber) != 0 || stream_state(stream) != STREAM_OPEN)
        stream_ready(&writer->subscriber);
    return true;
}

/* ---- bytes ---- */

static void add_chunk(struct writer *writer, struct chunk *chunk)
{
    if (writer->chunk_count == writer->chunk_cap) {
        struct chunk **old = writer->chunks == writer->first_chunks ? NULL : writer->chunks;
        writer->chunk_cap *= 2;
        writer->chunks = h2o_mem_realloc(old, writer->chunk_cap * sizeof(struct chunk *));
        if (old == NULL)
            memcpy(writer->chunks, writer->first_chunks, sizeof(writer->first_chunks));
    }
    writer->chunks[writer->chunk_count++] = chunk;
    writer->held += chunk_allocated(chunk);
    writer->block_len = 0;
}

/* The block is full: it becomes a chunk as it is. */
static void seal_block(struct writer *writer)
{
    add_chunk(writer, chunk_adopt(writer->block, writer->block_len, writer->block_cap));
    writer->block = NULL;
    writer->block_cap = 0;
}

static void collect(struct writer *writer, struct span bytes)
{
    while (bytes.len != 0) {
        if (writer->block_len == writer->block_cap) {
            if (writer->block_cap == BLOCK_SIZE)
                seal_block(writer);
            /* A short answer fits into one small block; one that is longer gets full ones at once. */
            size_t cap = writer->chunk_count != 0 ? BLOCK_SIZE
                         : writer->block_cap == 0 ? BLOCK_FIRST
                                                  : writer->block_cap * 2;
            writer->block = h2o_mem_realloc(writer->block, cap);
            writer->block_cap = cap;
        }
        size_t n = writer->block_cap - writer->block_len;
        if (n > bytes.len)
            n = bytes.len;
        memcpy(writer->block + writer->block_len, bytes.base, n);
        writer->block_len += n;
        bytes = span_skip(bytes, n);
    }
}

/* ---- the end ---- */

/* What the stream's end says. */
static enum cache_outcome judge_end(const struct stream *stream)
{
    const struct stream_facts *facts = stream_facts(stream);
    /* Many clients leave at the last event, before the body's own end: the answer is whole all the same. */
    bool left_at_the_end = stream_failure(stream) == STREAM_CANCELLED && stream_is_sse(stream) && facts->terminal &&
                           stream_ends_at_boundary(stream);
    if (stream_state(stream) != STREAM_ENDED && !left_at_the_end)
        return CACHE_BROKEN;
    if (facts->error_event)
        return CACHE_ERROR;
    return stream_is_sse(stream) && !facts->terminal ? CACHE_BROKEN : CACHE_STORED;
}

/* `rest`: what is in no full block. */
static enum cache_outcome store(struct writer *writer, struct span rest)
{
    const struct stream *stream = writer->subscriber._stream;
    const struct cache_writer_settings *settings = &writer->settings;
    uint64_t now = clock_us();
    struct cache_entry_parts parts = {
        .key = settings->key,
        .status = settings->status,
        .sse = stream_is_sse(stream),
        .dialect = stream_dialect(stream),
        .headers = settings->headers,
        .header_count = settings->header_count,
        .scope_name = settings->scope_name,
        .model = settings->model,
        .chunks = writer->chunks,
        .chunk_count = writer->chunk_count,
        .rest = rest, /* copied to where there is just enough room, away from malloc's other blocks */
        .facts = *stream_facts(stream),
        .created_us = settings->created_us != 0 ? settings->created_us : now,
    };
    parts.expires_us = parts.created_us + settings->ttl_us;
    struct cache_entry *entry = cache_entry_create(&parts);
    writer->chunk_count = 0; /* they are the entry's now */

    if (settings->on_entry != NULL) { /* the memory store judges by itself */
        enum cache_verdict verdict = cache_entry_judge(entry);
        if (verdict != CACHE_GOOD) {
            cache_entry_release(entry);
            return verdict == CACHE_TELLS_ERROR ? CACHE_ERROR : CACHE_UNCLEAR;
        }
        settings->on_entry(settings->ctx, entry, &settings->birth);
    }
    return cache_memory_insert(settings->memory, entry, settings->birth.purges, now) ? CACHE_STORED : CACHE_TOO_LARGE;
}

static void finish(struct writer *writer, enum cache_outcome outcome)
{
    stream_unsubscribe(&writer->subscriber);
    if (writer->settings.on_done != NULL)
        writer->settings.on_done(writer->settings.ctx, outcome);
    for (size_t i = 0; i < writer->chunk_count; i++)
        chunk_release(writer->chunks[i]);
    if (writer->chunks != writer->first_chunks)
        free(writer->chunks);
    free(writer->block);
    free(writer);
}

static void on_data(struct stream_subscriber *subscriber)
{
    struct writer *writer = H2O_STRUCT_FROM_MEMBER(struct writer, subscriber, subscriber);
    struct slice slices[SLICES_MAX];
    size_t count, max = cache_memory_max_entry(writer->settings.memory);
    struct stream *stream = subscriber->_stream;
    struct span rest = SPAN_NONE;
    while ((count = stream_peek(subscriber, slices, SLICES_MAX)) != 0) {
        size_t bytes = 0;
        if (count == 1 && stream_state(stream) != STREAM_OPEN && writer->block_len == 0 &&
            slices[0].bytes.len <= BLOCK_SIZE && writer->held + slices[0].bytes.len <= max) {
            rest = slices[0].bytes; /* all that there will be: it need not stand anywhere in between */
            break;
        }
        for (size_t i = 0; i < count; i++) {
            collect(writer, slices[i].bytes);
            bytes += slices[i].bytes.len;
            if (writer->held + writer->block_len > max) {
                finish(writer, CACHE_TOO_LARGE);
                return;
            }
        }
        stream_consume(subscriber, bytes);
    }
    if (stream_state(stream) == STREAM_OPEN) {
        stream_ready(subscriber);
        return;
    }
    enum cache_outcome outcome = judge_end(stream);
    if (outcome == CACHE_STORED) {
        cache_memory_prefetch(writer->settings.memory, &writer->settings.key); /* while the entry is made */
        if (writer->block_len == BLOCK_SIZE)
            seal_block(writer);
        outcome = store(writer, rest.len != 0 ? rest : (struct span){writer->block, writer->block_len});
    }
    finish(writer, outcome);
}

const char *cache_outcome_name(enum cache_outcome outcome)
{
    static const char *const names[CACHE_OUTCOMES] = {
        [CACHE_STORED] = "stored", [CACHE_TOO_LARGE] = "too_large", [CACHE_BROKEN] = "broken",
        [CACHE_ERROR] = "error",   [CACHE_UNCLEAR] = "unclear",
    };
    return names[outcome];
}
