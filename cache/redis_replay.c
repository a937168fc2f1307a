/* A stored answer as a stream: pieces are asked for a few ahead and appended as they come, in order. */
#include "base/clock.h"
#include "cache/redis_cache_private.h"
#include "cache/writer.h"
#include <stdlib.h>

#define ASKS 2 /* pieces on their way at a time */
#define HIGH_WATER ((size_t)64 * 1024)
#define MAX_BYTES ((size_t)4 * 1024 * 1024) /* never reached: HIGH_WATER and what was asked for before */
#define AGAIN_US 50000
#define PATIENCE_US 5000000 /* a reader would rather wait than lose its answer */

struct redis_replay {
    struct redis_cache *store;
    struct redis_replay *next, **slot;
    struct stream *stream;
    struct redis_value_head head; /* without its spans */
    size_t asked, had;            /* pieces */
    struct ask {
        struct redis_command command;
        struct redis_replay *replay;
        bool waiting;
    } asks[ASKS];       /* piece n in n % ASKS */
    struct strbuf rest; /* of events: what the last piece had of an event that goes on in the next */
    struct deadline again;
    uint64_t stuck_since_us; /* 0: all is well */
    size_t loading;          /* bytes of the store's `loading` */
    bool begun, paused, cancelled, appending;
};

static void fetch(struct redis_replay *replay);
static void on_piece(struct redis_command *command, const redisReply *reply, enum redis_failure why);
static void on_again(struct deadline *deadline);

/* ---- life ---- */

static void forget_asks(struct redis_replay *replay)
{
    for (size_t i = 0; i < ASKS; i++) {
        if (replay->asks[i].waiting)
            redis_command_cancel(&replay->asks[i].command);
        replay->asks[i].waiting = false;
    }
    replay->asked = replay->had;
}

static void destroy(struct redis_replay *replay)
{
    forget_asks(replay);
    deadline_disarm(replay->store->settings.deadlines, &replay->again);
    replay->store->loading -= replay->loading;
    *replay->slot = replay->next;
    if (replay->next != NULL)
        replay->next->slot = replay->slot;
    strbuf_dispose(&replay->rest);
    free(replay);
}

static void break_off(struct redis_replay *replay, enum stream_failure why, const char *message)
{
    struct stream *stream = replay->stream;
    if (why != STREAM_CANCELLED)
        redis_cache_note(replay->store, REDIS_CACHE_BROKEN);
    stream_break(stream, why, message); /* those who watch are done with the replay after this */
    destroy(replay);
}

static void on_resume(void *ctx)
{
    struct redis_replay *replay = ctx;
    replay->paused = false;
    fetch(replay);
}

static void on_cancel(void *ctx)
{
    struct redis_replay *replay = ctx;
    if (replay->appending || !replay->begun)
        replay->cancelled = true; /* seen to when that is over */
    else
        break_off(replay, STREAM_CANCELLED, NULL);
}

/* ---- into memory ---- */

static void on_loaded(void *ctx, enum cache_outcome outcome)
{
    struct redis_replay *replay = ctx;
    (void)outcome;
    replay->store->loading -= replay->loading;
    replay->loading = 0;
}

/* What is replayed is put together again for the memory level, unless too much is already. */
static void load(struct redis_replay *replay, const struct cache_entry *entry, const struct cache_birth *birth)
{
    struct redis_cache *store = replay->store;
    size_t bytes = (size_t)replay->head.facts.bytes;
    if (bytes > cache_memory_max_entry(store->settings.memory) || store->loading + bytes > store->settings.max_loading)
        return;
    struct cache_writer_settings settings = {
        .memory = store->settings.memory,
        .key = entry->key,
        .created_us = entry->created_us,
        .ttl_us = entry->expires_us - entry->created_us,
        .birth = *birth,
        .scope_name = cache_entry_scope_name(entry),
        .model = cache_entry_model(entry),
        .status = entry->status,
        .headers = cache_entry_headers(entry),
        .header_count = entry->header_count,
        .on_done = on_loaded,
        .ctx = replay,
    };
    if (!cache_writer_start(&settings, replay->stream))
        return;
    replay->loading = bytes;
    store->loading += bytes;
}

struct redis_replay *redis_replay_create(struct redis_cache *store, const struct redis_value_head *head,
                                         const struct cache_entry *entry, const struct cache_birth *birth)
{
    struct redis_replay *replay = h2o_mem_alloc(sizeof(*replay));
    struct stream_producer producer = {on_resume, on_cancel, replay};
    struct stream_settings settings = {.dialect = entry->dialect,
                                       .sse = entry->sse,
                                       .json = !entry->sse,
                                       .high_water = HIGH_WATER,
                                       .max_bytes = MAX_BYTES};
    *replay = (struct redis_replay){.store = store, .head = *head, .again.cb = on_again, .next = store->replays};
    replay->head.scope_name = replay->head.model = replay->head.etag = replay->head.body = SPAN_NONE;
    replay->head.header_count = 0;
    for (size_t i = 0; i < ASKS; i++) {
        replay->asks[i].replay = replay;
        replay->asks[i].command.on_reply = on_piece;
    }
    strbuf_init(&replay->rest, REDIS_VALUE_PIECE);
    replay->slot = &store->replays;
    if (replay->next != NULL)
        replay->next->slot = &replay->next;
    store->replays = replay;
    replay->stream = stream_create(&settings, &producer);
    load(replay, entry, birth);
    return replay;
}

struct stream *redis_replay_stream(struct redis_replay *replay)
{
    return replay->stream;
}

void redis_replay_end_all(struct redis_cache *store)
{
    while (store->replays != NULL)
        break_off(store->replays, STREAM_CANCELLED, NULL);
}

/* ---- pieces ---- */

/* How much of a piece may be given to readers of events before the next is here: up to its last blank line, so that a
 * stream that must break does so between two events, where its client can be told. All of it if there is none. */
static size_t whole_events(const struct redis_replay *replay, struct span bytes)
{
    if (!stream_is_sse(replay->stream) || replay->had == replay->head.piece_count)
        return bytes.len;
    for (size_t n = bytes.len; n >= 2; n--) {
        const char *end = bytes.base + n;
        if (end[-1] == '\n' && (end[-2] == '\n' || (n >= 3 && end[-2] == '\r' && end[-3] == '\n')))
            return n;
    }
    return bytes.len;
}

static enum stream_demand append_events(struct redis_replay *replay, struct span bytes)
{
    size_t n = whole_events(replay, bytes);
    enum stream_demand demand = stream_append(replay->stream, strbuf_span(&replay->rest));
    strbuf_reset(&replay->rest);
    if (demand == STREAM_GO_ON || demand == STREAM_PAUSE)
        demand = stream_append(replay->stream, (struct span){bytes.base, n});
    strbuf_add(&replay->rest, span_skip(bytes, n));
    return demand;
}

/* Gives a piece to the readers. False if the replay is over. */
static bool append(struct redis_replay *replay, struct span bytes)
{
    replay->had++;
    replay->stuck_since_us = 0;
    replay->appending = true;
    enum stream_demand demand = append_events(replay, bytes);
    replay->appending = false;
    if (replay->cancelled || demand == STREAM_UNWANTED) {
        break_off(replay, STREAM_CANCELLED, NULL);
        return false;
    }
    if (demand == STREAM_FULL) {
        break_off(replay, STREAM_OVERFLOW, NULL);
        return false;
    }
    replay->paused = demand == STREAM_PAUSE;
    if (replay->had < replay->head.piece_count)
        return true;
    stream_end(replay->stream);
    destroy(replay);
    return false;
}

void redis_replay_begin(struct redis_replay *replay, struct span first)
{
    replay->begun = true;
    replay->asked = 1;
    if (replay->cancelled || !stream_is_wanted(replay->stream))
        break_off(replay, STREAM_CANCELLED, NULL);
    else if (append(replay, first))
        fetch(replay);
}

/* Redis stumbles: what is missing is asked for again in a moment. */
static void stumble(struct redis_replay *replay)
{
    uint64_t now = clock_us();
    forget_asks(replay);
    if (replay->stuck_since_us == 0)
        replay->stuck_since_us = now;
    deadline_arm(replay->store->settings.deadlines, &replay->again, now + AGAIN_US);
}

static void on_again(struct deadline *deadline)
{
    struct redis_replay *replay = H2O_STRUCT_FROM_MEMBER(struct redis_replay, again, deadline);
    if (clock_us() - replay->stuck_since_us > PATIENCE_US)
        break_off(replay, STREAM_RESET, "the rest of the stored answer cannot be read");
    else
        fetch(replay);
}

static void fetch(struct redis_replay *replay)
{
    char room[REDIS_CACHE_KEY_SIZE];
    if (deadline_armed(&replay->again))
        return;
    while (!replay->paused && replay->asked < replay->head.piece_count && !replay->asks[replay->asked % ASKS].waiting) {
        struct ask *ask = &replay->asks[replay->asked % ASKS];
        struct span key = redis_cache_piece_key(replay->store, &replay->head, replay->asked, room);
        if (!redis_cache_get(replay->store, &ask->command, key)) {
            if (replay->asked == replay->had) /* else what is on its way will tell */
                stumble(replay);
            return;
        }
        ask->waiting = true;
        replay->asked++;
    }
}

static void on_piece(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct ask *ask = H2O_STRUCT_FROM_MEMBER(struct ask, command, command);
    struct redis_replay *replay = ask->replay;
    struct span bytes;
    (void)why;
    ask->waiting = false;
    if (reply == NULL || &replay->asks[replay->had % ASKS] != ask) {
        stumble(replay);
        return;
    }
    struct span value = reply->type == REDIS_REPLY_STRING ? (struct span){reply->str, (size_t)reply->len} : SPAN_NONE;
    if (!redis_value_read_piece(value, &replay->head, replay->had, &bytes))
        break_off(replay, STREAM_RESET, "a piece of the stored answer is gone");
    else if (append(replay, bytes))
        fetch(replay);
}
