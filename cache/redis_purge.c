#include "cache/redis_purge.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/strbuf.h"
#include "cache/redis_value.h"
#include <openssl/rand.h>
#include <stdio.h>

#define NAME_DIGITS 32
#define TOKEN_DIGITS 32
#define LOG_KEY "p:log"
#define LOG_MAX 64 /* purges that the list holds */
#define EPOCH_TTL_MIN_MS (UINT64_C(30) * 24 * 3600 * 1000)
#define LOOK_US 400000
#define ITEM_MAX (TOKEN_DIGITS + REDIS_PURGE_ORIGIN_LEN + 2 * (2 + REDIS_VALUE_TEXT_MAX))

static void random_digits(char *out, size_t digits)
{
    unsigned char bytes[(TOKEN_DIGITS + 1) / 2];
    if (RAND_bytes(bytes, sizeof(bytes)) != 1)
        h2o_fatal("no random bytes");
    for (size_t i = 0; i < digits; i++)
        out[i] = "0123456789abcdef"[bytes[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15];
    out[digits] = '\0';
}

/* ---- epochs ---- */

static void epoch_key(char kind, const unsigned char digest[DIGEST_SHA256_LEN], char out[REDIS_PURGE_KEY_MAX])
{
    size_t n = (size_t)snprintf(out, REDIS_PURGE_KEY_MAX, "p:%c:", kind);
    for (size_t i = 0; i < NAME_DIGITS / 2; i++)
        n += (size_t)snprintf(out + n, REDIS_PURGE_KEY_MAX - n, "%02x", digest[i]);
}

void redis_purge_epoch_keys(const struct redis_purge_target *of, char out[REDIS_PURGE_EPOCHS][REDIS_PURGE_KEY_MAX])
{
    unsigned char names[2][DIGEST_SHA256_LEN], both[DIGEST_SHA256_LEN];
    digest_sha256(of->scope_name, names[0]);
    digest_sha256(of->model, names[1]);
    digest_sha256((struct span){(const char *)names, sizeof(names)}, both);
    snprintf(out[0], REDIS_PURGE_KEY_MAX, "p:all");
    epoch_key('k', names[0], out[1]);
    epoch_key('m', names[1], out[2]);
    epoch_key('b', both, out[3]);
}

bool redis_purge_epoch(const redisReply *mget, unsigned char epoch[CACHE_EPOCH_LEN])
{
    unsigned char digests[REDIS_PURGE_EPOCHS][DIGEST_SHA256_LEN] = {{0}}, all[DIGEST_SHA256_LEN];
    bool any = false;
    if (mget == NULL || mget->type != REDIS_REPLY_ARRAY || mget->elements != REDIS_PURGE_EPOCHS)
        return false;
    for (size_t i = 0; i < REDIS_PURGE_EPOCHS; i++) {
        const redisReply *value = mget->element[i];
        if (value->type == REDIS_REPLY_NIL)
            continue;
        if (value->type != REDIS_REPLY_STRING)
            return false;
        digest_sha256((struct span){value->str, (size_t)value->len}, digests[i]);
        any = true;
    }
    memset(epoch, 0, CACHE_EPOCH_LEN);
    if (!any)
        return true; /* most often: nothing was ever purged */
    digest_sha256((struct span){(const char *)digests, sizeof(digests)}, all);
    memcpy(epoch, all, CACHE_EPOCH_LEN);
    return true;
}

/* ---- purging ---- */

void redis_purge_origin_init(struct redis_purge_origin *origin)
{
    random_digits(origin->id, REDIS_PURGE_ORIGIN_LEN);
}

static void put_name(struct strbuf *item, struct span name)
{
    strbuf_putc(item, (char)(name.len & 255));
    strbuf_putc(item, (char)(name.len >> 8));
    strbuf_add(item, name);
}

static bool take_name(struct span *item, struct span *name)
{
    if (item->len < 2)
        return false;
    size_t len = (unsigned char)item->base[0] | (size_t)(unsigned char)item->base[1] << 8;
    if (len > REDIS_VALUE_TEXT_MAX || item->len - 2 < len)
        return false;
    *name = (struct span){item->base + 2, len};
    *item = span_skip(*item, 2 + len);
    return true;
}

static void on_purged(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct redis_purge *purge = H2O_STRUCT_FROM_MEMBER(struct redis_purge, _command, command);
    purge->on_done(purge, reply != NULL && reply->type == REDIS_REPLY_INTEGER, why);
}

bool redis_purge_send(struct redis_purge *purge, struct redis_link *link, struct span prefix,
                      const struct redis_purge_origin *origin, const struct redis_purge_target *target, uint64_t ttl_us,
                      enum redis_failure *why)
{
    /* One script, so that no other gateway sees half of it. */
    static const char script[] = "if redis.call('TYPE', KEYS[2]).ok ~= 'list' then redis.call('DEL', KEYS[2]) end "
                                 "redis.call('LPUSH', KEYS[2], ARGV[3]) "
                                 "redis.call('LTRIM', KEYS[2], 0, ARGV[4]) "
                                 "redis.call('PEXPIRE', KEYS[2], ARGV[2]) "
                                 "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) "
                                 "return 1";
    char keys[REDIS_PURGE_EPOCHS][REDIS_PURGE_KEY_MAX], token[TOKEN_DIGITS + 1], ttl[24], last[12];
    char epoch_room[REDIS_PURGE_PREFIX_MAX + REDIS_PURGE_KEY_MAX], log_room[REDIS_PURGE_PREFIX_MAX + 16];
    char item_room[ITEM_MAX + 1];
    struct strbuf epoch, log, item;
    uint64_t ms = ttl_us / 1000 * 2;
    random_digits(token, TOKEN_DIGITS);
    redis_purge_epoch_keys(target, keys);
    strbuf_init_fixed(&epoch, epoch_room, sizeof(epoch_room));
    strbuf_add(&epoch, prefix);
    strbuf_puts(&epoch, keys[(target->scope_name.len != 0 ? 1 : 0) + (target->model.len != 0 ? 2 : 0)]);
    strbuf_init_fixed(&log, log_room, sizeof(log_room));
    strbuf_add(&log, prefix);
    strbuf_puts(&log, LOG_KEY);
    strbuf_init_fixed(&item, item_room, sizeof(item_room));
    strbuf_puts(&item, token);
    strbuf_puts(&item, origin->id);
    put_name(&item, target->scope_name);
    put_name(&item, target->model);
    snprintf(ttl, sizeof(ttl), "%llu", (unsigned long long)(ms > EPOCH_TTL_MIN_MS ? ms : EPOCH_TTL_MIN_MS));
    snprintf(last, sizeof(last), "%d", LOG_MAX - 1);
    const struct span pieces[] = {SPAN("EVAL"),        span_of(script),    SPAN("2"),
                                  strbuf_span(&epoch), strbuf_span(&log),  span_of(token),
                                  span_of(ttl),        strbuf_span(&item), span_of(last)};
    purge->_command.on_reply = on_purged;
    return redis_link_send(link, &purge->_command, pieces, sizeof(pieces) / sizeof(pieces[0]), why);
}

void redis_purge_cancel(struct redis_purge *purge)
{
    redis_command_cancel(&purge->_command);
}

static bool is_target(void *ctx, const struct cache_entry *entry)
{
    const struct redis_purge_target *target = ctx;
    return (target->scope_name.len == 0 || span_eq(target->scope_name, cache_entry_scope_name(entry))) &&
           (target->model.len == 0 || span_eq(target->model, cache_entry_model(entry)));
}

size_t redis_purge_memory(struct cache_memory *memory, const struct redis_purge_target *target)
{
    struct redis_purge_target copy = *target;
    return cache_memory_purge(memory, is_target, &copy);
}

/* ---- hearing of others' purges ---- */

struct redis_purge_watch {
    struct redis_link *link;
    struct deadlines *deadlines;
    struct cache_memory *memory;
    const struct redis_purge_origin *origin;
    struct redis_command command;
    struct deadline look;
    char key[REDIS_PURGE_PREFIX_MAX + 16];
    char seen[TOKEN_DIGITS + 1]; /* the last purge that was carried out; empty: none */
    bool whole;                  /* the whole list was asked for */
};

static void on_look(struct deadline *deadline);
static void on_list(struct redis_command *command, const redisReply *reply, enum redis_failure why);

static void ask(struct redis_purge_watch *watch, bool whole)
{
    enum redis_failure why;
    const struct span pieces[] = {SPAN("LRANGE"), span_of(watch->key), SPAN("0"), whole ? SPAN("-1") : SPAN("0")};
    watch->whole = whole;
    watch->command.on_reply = on_list;
    if (!redis_link_send(watch->link, &watch->command, pieces, 4, &why))
        deadline_arm(watch->deadlines, &watch->look, clock_us() + LOOK_US);
}

static void on_look(struct deadline *deadline)
{
    ask(H2O_STRUCT_FROM_MEMBER(struct redis_purge_watch, look, deadline), false);
}

static struct span item_of(const redisReply *list, size_t i)
{
    const redisReply *item = list->element[i];
    return item->type == REDIS_REPLY_STRING ? (struct span){item->str, (size_t)item->len} : SPAN_NONE;
}

static bool is_seen(const struct redis_purge_watch *watch, struct span item)
{
    return watch->seen[0] != '\0' && span_starts(item, span_of(watch->seen));
}

/* Carries out one purge of the list. What cannot be read may have meant anything: all of it. */
static void carry_out(struct redis_purge_watch *watch, struct span item)
{
    struct redis_purge_target target = {SPAN_NONE, SPAN_NONE};
    item = span_skip(item, TOKEN_DIGITS);
    if (span_starts(item, span_of(watch->origin->id)))
        return;
    item = span_skip(item, REDIS_PURGE_ORIGIN_LEN);
    if (!take_name(&item, &target.scope_name) || !take_name(&item, &target.model) || item.len != 0)
        target = (struct redis_purge_target){SPAN_NONE, SPAN_NONE};
    redis_purge_memory(watch->memory, &target);
}

/* Newest first. Returns whether the list was read as far as it is needed. What was there before this process first saw
 * the list is carried out too: Redis may not have been there when the process began. */
static bool read_list(struct redis_purge_watch *watch, const redisReply *list)
{
    struct span newest = list->elements != 0 ? item_of(list, 0) : SPAN_NONE;
    size_t count = 0;
    if (newest.len < TOKEN_DIGITS || is_seen(watch, newest))
        return true;
    if (!watch->whole)
        return false;
    while (count < list->elements && !is_seen(watch, item_of(list, count)))
        count++;
    for (size_t i = 0; i < count && count < LOG_MAX; i++)
        carry_out(watch, item_of(list, i));
    if (count >= LOG_MAX) /* it had no room for all that has happened since */
        redis_purge_memory(watch->memory, &(struct redis_purge_target){SPAN_NONE, SPAN_NONE});
    memcpy(watch->seen, newest.base, TOKEN_DIGITS);
    watch->seen[TOKEN_DIGITS] = '\0';
    return true;
}

static void on_list(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct redis_purge_watch *watch = H2O_STRUCT_FROM_MEMBER(struct redis_purge_watch, command, command);
    (void)why;
    if (reply != NULL && reply->type == REDIS_REPLY_ARRAY && !read_list(watch, reply))
        ask(watch, true);
    else
        deadline_arm(watch->deadlines, &watch->look, clock_us() + LOOK_US);
}

struct redis_purge_watch *redis_purge_watch_create(struct redis_link *link, struct deadlines *deadlines,
                                                   struct cache_memory *memory, struct span prefix,
                                                   const struct redis_purge_origin *origin)
{
    struct redis_purge_watch *watch = h2o_mem_alloc(sizeof(*watch));
    *watch = (struct redis_purge_watch){
        .link = link, .deadlines = deadlines, .memory = memory, .origin = origin, .look.cb = on_look};
    snprintf(watch->key, sizeof(watch->key), "%.*s%s", (int)prefix.len, prefix.base, LOG_KEY);
    deadline_arm(deadlines, &watch->look, clock_us());
    return watch;
}

void redis_purge_watch_destroy(struct redis_purge_watch *watch)
{
    if (watch == NULL)
        return;
    deadline_disarm(watch->deadlines, &watch->look);
    redis_command_cancel(&watch->command);
    free(watch);
}
