#include "cache/redis_cache.h"
#include "base/clock.h"
#include "cache/redis_cache_private.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define TIMEOUT_US 50000
#define WRITING_MAX ((size_t)16 * 1024 * 1024)
#define LOADING_MAX ((size_t)32 * 1024 * 1024)
#define SKIP_US 250000 /* how long a server that was late is left alone */

/* In the order in which they fire. */
static void on_epochs(struct redis_command *command, const redisReply *reply, enum redis_failure why);
static void on_head(struct redis_command *command, const redisReply *reply, enum redis_failure why);
static void on_exists(struct redis_command *command, const redisReply *reply, enum redis_failure why);
static void on_first_piece(struct redis_command *command, const redisReply *reply, enum redis_failure why);
static void on_late(struct deadline *deadline);

/* An answer of which the head was read: what is needed until its first piece is here. */
struct redis_lookup_pieces {
    struct redis_value_head head; /* without its spans */
    struct cache_entry *entry;
    bool all_there;
    struct redis_replay **replay; /* where redis_lookup_replay puts it, during on_done */
};

/* ---- life ---- */

struct redis_cache *redis_cache_create(const struct redis_cache_settings *settings)
{
    struct redis_cache *store = h2o_mem_alloc(sizeof(*store));
    assert(settings->prefix.len <= REDIS_PURGE_PREFIX_MAX);
    memset(store, 0, sizeof(*store));
    store->settings = *settings;
    if (store->settings.timeout_us == 0)
        store->settings.timeout_us = TIMEOUT_US;
    if (store->settings.max_writing == 0)
        store->settings.max_writing = WRITING_MAX;
    if (store->settings.max_loading == 0)
        store->settings.max_loading = LOADING_MAX;
    strbuf_init(&store->value, REDIS_VALUE_MAX);
    return store;
}

void redis_cache_set_ttl(struct redis_cache *store, uint64_t ttl_us)
{
    store->settings.ttl_us = ttl_us;
}

void redis_cache_close(struct redis_cache *store)
{
    if (store == NULL)
        return;
    redis_replay_end_all(store);
    redis_write_end_all(store);
    strbuf_dispose(&store->value);
}

void redis_cache_destroy(struct redis_cache *store)
{
    free(store);
}

uint64_t redis_cache_count(const struct redis_cache *store, enum redis_cache_event event)
{
    return atomic_load_explicit(&store->counts[event], memory_order_relaxed);
}

const char *redis_cache_event_name(enum redis_cache_event event)
{
    static const char *const names[REDIS_CACHE_EVENTS] = {
        [REDIS_CACHE_HIT] = "hit",
        [REDIS_CACHE_MISS] = "miss",
        [REDIS_CACHE_EXPIRED] = "expired",
        [REDIS_CACHE_PURGED] = "purged",
        [REDIS_CACHE_CORRUPT] = "corrupt",
        [REDIS_CACHE_FAILED] = "failed",
        [REDIS_CACHE_WRITTEN] = "written",
        [REDIS_CACHE_NOT_WRITTEN] = "not_written",
        [REDIS_CACHE_PASSED_BY] = "passed_by",
        [REDIS_CACHE_BROKEN] = "broken",
    };
    return names[event];
}

/* ---- keys and commands ---- */

static struct span with_prefix(const struct redis_cache *store, const char *key, size_t len,
                               char room[REDIS_CACHE_KEY_SIZE])
{
    struct span prefix = store->settings.prefix;
    memcpy(room, prefix.base, prefix.len);
    memcpy(room + prefix.len, key, len);
    return (struct span){room, prefix.len + len};
}

struct span redis_cache_head_key(const struct redis_cache *store, const struct cache_key *key,
                                 char room[REDIS_CACHE_KEY_SIZE])
{
    char text[REDIS_VALUE_KEY_SIZE];
    return with_prefix(store, text, redis_value_head_key(key, text), room);
}

struct span redis_cache_piece_key(const struct redis_cache *store, const struct redis_value_head *head, size_t index,
                                  char room[REDIS_CACHE_KEY_SIZE])
{
    char text[REDIS_VALUE_KEY_SIZE];
    return with_prefix(store, text, redis_value_piece_key(head, index, text), room);
}

bool redis_cache_get(struct redis_cache *store, struct redis_command *command, struct span key)
{
    char last[24];
    enum redis_failure why;
    snprintf(last, sizeof(last), "%zu", REDIS_VALUE_MAX); /* one byte more than good values have, so that longer show */
    const struct span pieces[] = {SPAN("GETRANGE"), key, SPAN("0"), span_of(last)};
    return redis_link_send(store->settings.link, command, pieces, 4, &why);
}

static struct span string_of(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING ? (struct span){reply->str, (size_t)reply->len} : SPAN_NONE;
}

/* ---- ends of a lookup ---- */

/* Lets go of what the lookup holds. */
static void stop(struct redis_lookup *lookup)
{
    redis_command_cancel(&lookup->_first);
    redis_command_cancel(&lookup->_second);
    deadline_disarm(lookup->_store->settings.deadlines, &lookup->_deadline);
    if (lookup->_pieces != NULL && lookup->_pieces->entry != NULL)
        cache_entry_release(lookup->_pieces->entry);
    free(lookup->_pieces);
    lookup->_pieces = NULL;
}

static void finish_without(struct redis_lookup *lookup, enum redis_cache_event what)
{
    redis_cache_note(lookup->_store, what);
    stop(lookup);
    lookup->on_done(lookup, NULL, false);
}

static void fail(struct redis_lookup *lookup, enum redis_failure why)
{
    if (why == REDIS_LATE)
        lookup->_store->skip_until_us = clock_us() + SKIP_US;
    finish_without(lookup, REDIS_CACHE_FAILED);
}

static void on_late(struct deadline *deadline)
{
    fail(H2O_STRUCT_FROM_MEMBER(struct redis_lookup, _deadline, deadline), REDIS_LATE);
}

void redis_lookup_cancel(struct redis_lookup *lookup)
{
    if (lookup->_store != NULL)
        stop(lookup);
}

/* ---- asking ---- */

static bool ask_epochs(struct redis_lookup *lookup, const struct redis_purge_target *of)
{
    char keys[REDIS_PURGE_EPOCHS][REDIS_PURGE_KEY_MAX], rooms[REDIS_PURGE_EPOCHS][REDIS_CACHE_KEY_SIZE];
    struct span pieces[1 + REDIS_PURGE_EPOCHS] = {SPAN("MGET")};
    enum redis_failure why;
    redis_purge_epoch_keys(of, keys);
    for (size_t i = 0; i < REDIS_PURGE_EPOCHS; i++)
        pieces[1 + i] = with_prefix(lookup->_store, keys[i], strlen(keys[i]), rooms[i]);
    return redis_link_send(lookup->_store->settings.link, &lookup->_first, pieces, 1 + REDIS_PURGE_EPOCHS, &why);
}

bool redis_lookup_start(struct redis_lookup *lookup, struct redis_cache *store,
                        const struct redis_lookup_question *question)
{
    char room[REDIS_CACHE_KEY_SIZE];
    uint64_t now = clock_us();
    lookup->_store = store;
    lookup->_key = *question->key;
    lookup->_started_us = now;
    lookup->_only_epochs = question->only_epochs;
    lookup->_first.on_reply = on_epochs;
    lookup->_second.on_reply = on_head;
    lookup->_deadline.cb = on_late;
    lookup->birth = (struct cache_birth){.purges = cache_memory_purges(store->settings.memory)};
    /* Replies come in the order of their commands: with the head's the epochs are known. */
    if (now < store->skip_until_us || !ask_epochs(lookup, &question->of)) {
        redis_cache_note(store, REDIS_CACHE_FAILED);
        return false;
    }
    if (!question->only_epochs &&
        !redis_cache_get(store, &lookup->_second, redis_cache_head_key(store, question->key, room))) {
        redis_command_cancel(&lookup->_first);
        redis_cache_note(store, REDIS_CACHE_FAILED);
        return false;
    }
    return true;
}

static void on_epochs(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct redis_lookup *lookup = H2O_STRUCT_FROM_MEMBER(struct redis_lookup, _first, command);
    lookup->birth.has_epoch = redis_purge_epoch(reply, lookup->birth.epoch);
    if (!lookup->birth.has_epoch) {
        fail(lookup, why);
    } else if (lookup->_only_epochs) {
        stop(lookup);
        lookup->on_done(lookup, NULL, false);
    }
}

/* ---- the head ---- */

static struct cache_entry *make_entry(const struct redis_value_head *head, uint64_t age_us)
{
    uint64_t now = clock_us();
    struct cache_entry_parts parts = {
        .key = head->key,
        .status = head->status,
        .sse = head->sse,
        .dialect = dialect_get(head->dialect),
        .headers = head->headers,
        .header_count = head->header_count,
        .scope_name = head->scope_name,
        .model = head->model,
        .facts = head->facts,
        .created_us = now - age_us,
        .expires_us = now - age_us + head->ttl_us,
        .judged = true, /* by whoever stored it */
        .etag = head->etag,
    };
    struct chunk *chunk = NULL;
    if (head->body.len != 0) {
        char *memory = h2o_mem_alloc(head->body.len);
        memcpy(memory, head->body.base, head->body.len);
        chunk = chunk_adopt(memory, head->body.len, head->body.len);
        parts.chunks = &chunk;
        parts.chunk_count = 1;
    }
    return cache_entry_create(&parts);
}

/* Clocks of machines differ: Redis says that the answer has not expired, so it is never older than its ttl, and never
 * from the future. */
static uint64_t age_of(const struct redis_value_head *head)
{
    uint64_t now = clock_wall_us();
    uint64_t age = now > head->created_wall_us ? now - head->created_wall_us : 0;
    return age < head->ttl_us ? age : head->ttl_us;
}

static void finish_whole(struct redis_lookup *lookup, const struct redis_value_head *head, uint64_t age_us)
{
    struct cache_memory *memory = lookup->_store->settings.memory;
    struct cache_entry *entry = make_entry(head, age_us);
    cache_entry_retain(entry);
    cache_memory_insert(memory, entry, lookup->birth.purges, clock_us());
    redis_cache_note(lookup->_store, REDIS_CACHE_HIT);
    stop(lookup);
    lookup->on_done(lookup, entry, true);
}

/* Asks for the first piece, and whether all others are there: one that is missing should be found out now, while there
 * is another way to answer. */
static bool ask_pieces(struct redis_lookup *lookup)
{
    struct redis_cache *store = lookup->_store;
    const struct redis_value_head *head = &lookup->_pieces->head;
    size_t count = head->piece_count;
    char(*rooms)[REDIS_CACHE_KEY_SIZE] = h2o_mem_alloc(count * sizeof(*rooms));
    struct span *pieces = h2o_mem_alloc((count + 1) * sizeof(*pieces));
    enum redis_failure why;
    pieces[0] = SPAN("EXISTS");
    for (size_t i = 0; i < count; i++)
        pieces[1 + i] = redis_cache_piece_key(store, head, i, rooms[i]);
    lookup->_first.on_reply = on_exists;
    lookup->_second.on_reply = on_first_piece;
    bool sent = redis_link_send(store->settings.link, &lookup->_first, pieces, count + 1, &why) &&
                redis_cache_get(store, &lookup->_second, pieces[1]);
    free(pieces);
    free(rooms);
    return sent;
}

static void on_head(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct redis_lookup *lookup = H2O_STRUCT_FROM_MEMBER(struct redis_lookup, _second, command);
    struct redis_cache *store = lookup->_store;
    struct redis_value_head head;
    if (reply == NULL) {
        fail(lookup, why);
        return;
    }
    struct span value = string_of(reply);
    if (reply->type == REDIS_REPLY_STRING && value.len == 0) {
        finish_without(lookup, REDIS_CACHE_MISS);
        return;
    }
    if (!redis_value_read_head(value, &lookup->_key, &head)) {
        finish_without(lookup, REDIS_CACHE_CORRUPT);
        return;
    }
    uint64_t age_us = age_of(&head);
    if (memcmp(head.epoch, lookup->birth.epoch, CACHE_EPOCH_LEN) != 0) {
        finish_without(lookup, REDIS_CACHE_PURGED);
    } else if (age_us > store->settings.ttl_us) {
        finish_without(lookup, REDIS_CACHE_EXPIRED);
    } else if (head.piece_count == 0) {
        finish_whole(lookup, &head, age_us);
    } else {
        lookup->_pieces = h2o_mem_alloc(sizeof(*lookup->_pieces));
        *lookup->_pieces = (struct redis_lookup_pieces){.head = head, .entry = make_entry(&head, age_us)};
        if (!ask_pieces(lookup))
            fail(lookup, REDIS_DOWN);
        else
            deadline_arm(store->settings.deadlines, &lookup->_deadline,
                         lookup->_started_us + store->settings.timeout_us);
    }
}

/* ---- answers in pieces ---- */

static void on_exists(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct redis_lookup *lookup = H2O_STRUCT_FROM_MEMBER(struct redis_lookup, _first, command);
    struct redis_lookup_pieces *pieces = lookup->_pieces;
    if (reply == NULL)
        fail(lookup, why);
    else
        pieces->all_there = reply->type == REDIS_REPLY_INTEGER && reply->integer == (long long)pieces->head.piece_count;
}

static void on_first_piece(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct redis_lookup *lookup = H2O_STRUCT_FROM_MEMBER(struct redis_lookup, _second, command);
    struct redis_lookup_pieces *pieces = lookup->_pieces;
    struct redis_replay *replay = NULL;
    struct span bytes;
    if (reply == NULL) {
        fail(lookup, why);
        return;
    }
    if (!pieces->all_there || !redis_value_read_piece(string_of(reply), &pieces->head, 0, &bytes)) {
        finish_without(lookup, pieces->all_there ? REDIS_CACHE_CORRUPT : REDIS_CACHE_MISS);
        return;
    }
    redis_cache_note(lookup->_store, REDIS_CACHE_HIT);
    deadline_disarm(lookup->_store->settings.deadlines, &lookup->_deadline);
    /* The owner may free the lookup in on_done. */
    lookup->_pieces = NULL;
    lookup->_replaying = pieces;
    pieces->replay = &replay;
    lookup->on_done(lookup, pieces->entry, false);
    free(pieces);
    if (replay != NULL)
        redis_replay_begin(replay, bytes);
}

struct stream *redis_lookup_replay(struct redis_lookup *lookup)
{
    struct redis_lookup_pieces *pieces = lookup->_replaying;
    *pieces->replay = redis_replay_create(lookup->_store, &pieces->head, pieces->entry, &lookup->birth);
    return redis_replay_stream(*pieces->replay);
}
