/* Answers on their way to Redis: one after the other, each value a command of its own, a bounded number of bytes at a
 * time. The reader has had its answer long before. */
#include "base/clock.h"
#include "cache/redis_cache_private.h"
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>

#define WINDOW ((size_t)512 * 1024) /* bytes of values on their way */
/* Who begins to read when the head is about to go has this long. */
#define PIECES_OUTLIVE_US ((uint64_t)600 * 1000000)

/* An answer. Its head goes once all of its pieces stand. */
struct redis_write {
    struct redis_write *next;
    struct cache_entry *entry;
    struct redis_value_head head;
    char etag[CACHE_ETAG_SIZE];
    size_t cost, sent, waiting; /* bytes; pieces; values on their way */
    size_t chunk, chunk_done;   /* of the entry: where the next piece begins */
    bool head_sent, queued, failed;
};

/* A value on its way. */
struct redis_put {
    struct redis_command command;
    struct redis_cache *store;
    struct redis_write *write;
    struct redis_put *next, **slot;
    size_t bytes;
};

static void on_put(struct redis_command *command, const redisReply *reply, enum redis_failure why);

/* ---- life ---- */

static struct redis_write *create(struct cache_entry *entry, const unsigned char epoch[CACHE_EPOCH_LEN])
{
    struct redis_write *write = h2o_mem_alloc(sizeof(*write));
    uint64_t now = clock_us();
    *write = (struct redis_write){.entry = entry, .cost = entry->allocated, .queued = true};
    struct redis_value_head *head = &write->head;
    *head = (struct redis_value_head){
        .key = entry->key,
        .created_wall_us = clock_wall_us() - (now - entry->created_us),
        .ttl_us = entry->expires_us - entry->created_us,
        .status = entry->status,
        .sse = entry->sse,
        .facts = cache_entry_facts(entry),
        .scope_name = cache_entry_scope_name(entry),
        .model = cache_entry_model(entry),
        .etag = span_of(cache_entry_etag(entry, write->etag)),
        .header_count = entry->header_count,
    };
    memcpy(head->epoch, epoch, CACHE_EPOCH_LEN);
    for (int id = 0; id <= DIALECT_EMBEDDINGS; id++)
        if (dialect_get((enum dialect_id)id) == entry->dialect)
            head->dialect = (enum dialect_id)id;
    for (size_t i = 0; i < entry->header_count && i < REDIS_VALUE_HEADERS_MAX; i++)
        head->headers[i] = cache_entry_headers(entry)[i];
    head->facts.bytes = 0;
    for (size_t i = 0; i < entry->chunk_count; i++)
        head->facts.bytes += chunk_bytes(cache_entry_chunks(entry)[i]).len;
    head->piece_count = redis_value_pieces(head->facts.bytes);
    if (RAND_bytes(head->generation, sizeof(head->generation)) != 1)
        h2o_fatal("no random bytes");
    cache_entry_retain(entry);
    return write;
}

/* Frees an answer that nothing refers to any more. */
static void release(struct redis_cache *store, struct redis_write *write)
{
    if (write->queued || write->waiting != 0)
        return;
    redis_cache_note(store, write->failed ? REDIS_CACHE_NOT_WRITTEN : REDIS_CACHE_WRITTEN);
    store->writing -= write->cost;
    cache_entry_release(write->entry);
    free(write);
}

static void dequeue(struct redis_cache *store)
{
    struct redis_write *write = store->first_write;
    store->first_write = write->next;
    if (store->first_write == NULL)
        store->last_write = NULL;
    write->queued = false;
    release(store, write);
}

static void destroy_put(struct redis_put *put)
{
    put->store->on_their_way -= put->bytes;
    put->write->waiting--;
    *put->slot = put->next;
    if (put->next != NULL)
        put->next->slot = put->slot;
    free(put);
}

void redis_write_end_all(struct redis_cache *store)
{
    while (store->puts != NULL) {
        struct redis_put *put = store->puts;
        struct redis_write *write = put->write;
        redis_command_cancel(&put->command);
        destroy_put(put);
        write->failed = true;
        release(store, write);
    }
    while (store->first_write != NULL) {
        store->first_write->failed = true;
        dequeue(store);
    }
}

/* ---- sending ---- */

/* SET key value PX: the value is the store's scratch. False if it cannot be sent. */
static bool put_value(struct redis_cache *store, struct redis_write *write, struct span key, uint64_t outlive_us)
{
    char ttl[24];
    enum redis_failure why;
    int64_t left = (int64_t)(write->entry->expires_us - clock_us());
    if (left < 1000)
        return false;
    snprintf(ttl, sizeof(ttl), "%llu", (unsigned long long)(((uint64_t)left + outlive_us) / 1000));
    const struct span pieces[] = {SPAN("SET"), key, strbuf_span(&store->value), SPAN("PX"), span_of(ttl)};
    struct redis_put *put = h2o_mem_alloc(sizeof(*put));
    *put = (struct redis_put){.command.on_reply = on_put, .store = store, .write = write, .bytes = store->value.len};
    if (!redis_link_send(store->settings.link, &put->command, pieces, 5, &why)) {
        free(put);
        return false;
    }
    put->next = store->puts;
    put->slot = &store->puts;
    if (put->next != NULL)
        put->next->slot = &put->next;
    store->puts = put;
    store->on_their_way += put->bytes;
    write->waiting++;
    return true;
}

/* Copies the next bytes of the body, at most `max`. */
static size_t gather(struct redis_write *write, char *out, size_t max)
{
    size_t n = 0;
    while (n < max && write->chunk < write->entry->chunk_count) {
        struct span rest = span_skip(chunk_bytes(cache_entry_chunks(write->entry)[write->chunk]), write->chunk_done);
        size_t take = rest.len < max - n ? rest.len : max - n;
        if (take != 0)
            memcpy(out + n, rest.base, take);
        n += take;
        write->chunk_done += take;
        if (take == rest.len) {
            write->chunk++;
            write->chunk_done = 0;
        }
    }
    return n;
}

static bool send_piece(struct redis_cache *store, struct redis_write *write)
{
    char room[REDIS_CACHE_KEY_SIZE], bytes[REDIS_VALUE_PIECE];
    size_t n = gather(write, bytes, sizeof(bytes));
    strbuf_reset(&store->value);
    redis_value_write_piece(&write->head, write->sent, (struct span){bytes, n}, &store->value);
    return put_value(store, write, redis_cache_piece_key(store, &write->head, write->sent++, room), PIECES_OUTLIVE_US);
}

static bool send_head(struct redis_cache *store, struct redis_write *write)
{
    char room[REDIS_CACHE_KEY_SIZE], bytes[REDIS_VALUE_INLINE_MAX];
    struct redis_value_head *head = &write->head;
    if (head->piece_count == 0)
        head->body = (struct span){bytes, gather(write, bytes, sizeof(bytes))};
    strbuf_reset(&store->value);
    write->head_sent = true;
    return redis_value_write_head(head, &store->value) &&
           put_value(store, write, redis_cache_head_key(store, &head->key, room), 0);
}

/* Sends as much as may be on its way. */
static void pump(struct redis_cache *store)
{
    while (store->first_write != NULL && store->on_their_way < WINDOW) {
        struct redis_write *write = store->first_write;
        if (!write->failed && write->sent < write->head.piece_count) {
            write->failed = !send_piece(store, write);
            continue;
        }
        if (!write->failed && write->waiting != 0)
            return;
        if (!write->failed)
            write->failed = !send_head(store, write);
        dequeue(store);
    }
}

static void on_put(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct redis_put *put = H2O_STRUCT_FROM_MEMBER(struct redis_put, command, command);
    struct redis_cache *store = put->store;
    struct redis_write *write = put->write;
    (void)why;
    if (reply == NULL || reply->type != REDIS_REPLY_STATUS)
        write->failed = true;
    destroy_put(put);
    release(store, write);
    pump(store);
}

void redis_cache_put(struct redis_cache *store, struct cache_entry *entry, const struct cache_birth *birth)
{
    if (!birth->has_epoch)
        return;
    if (store->writing + entry->allocated > store->settings.max_writing ||
        redis_value_pieces(entry->bytes) > REDIS_VALUE_PIECES_MAX) {
        redis_cache_note(store, REDIS_CACHE_PASSED_BY);
        return;
    }
    struct redis_write *write = create(entry, birth->epoch);
    store->writing += write->cost;
    *(store->last_write != NULL ? &store->last_write->next : &store->first_write) = write;
    store->last_write = write;
    pump(store);
}
