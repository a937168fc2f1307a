/* The Lua scripts in a real Redis, for tests that have each test in a process and an empty Redis of their own. */
#ifndef WEIR_TESTS_SCRIPTS_IN_REDIS_H
#define WEIR_TESTS_SCRIPTS_IN_REDIS_H

#include "ratelimit/limit_scripts.h"
#include "ratelimit/redis_wire.h"
#include "redis_server.h"
#include "run_suite.h"
#include <hiredis/hiredis.h>
#include <inttypes.h>

#define PREFIX SPAN("t:")

static struct redis_server server;
static redisContext *redis;
static const char *const scripts[LIMIT_SCRIPTS] = {limit_script_hit, limit_script_settle, limit_script_tend};
static char shas[LIMIT_SCRIPTS][41];

static inline void connect_and_load(void)
{
    redis_server_prepare(&server);
    redis_server_start(&server, NULL);
    redis = redisConnectUnix(server.path);
    ck_assert(redis != NULL && redis->err == 0);
    for (int i = 0; i < LIMIT_SCRIPTS; i++) {
        redisReply *reply = redisCommand(redis, "SCRIPT LOAD %s", scripts[i]);
        ck_assert_msg(reply != NULL && reply->type == REDIS_REPLY_STRING, "script %d: %s", i,
                      reply != NULL ? reply->str : redis->errstr);
        strcpy(shas[i], reply->str);
        freeReplyObject(reply);
    }
}

static inline void disconnect(void)
{
    redisFree(redis);
    redis_server_dispose(&server);
}

static inline redisReply *run(enum limit_script script, const struct redis_wire *wire)
{
    const char *args[300];
    size_t lens[300];
    char count[16];
    snprintf(count, sizeof(count), "%zu", wire->key_count);
    args[0] = "EVALSHA";
    args[1] = shas[script];
    args[2] = count;
    for (size_t i = 0; i < 3; i++)
        lens[i] = strlen(args[i]);
    for (size_t i = 0; i < wire->count; i++) {
        args[3 + i] = wire->args[i].base;
        lens[3 + i] = wire->args[i].len;
    }
    redisReply *reply = redisCommandArgv(redis, (int)(3 + wire->count), args, lens);
    ck_assert_msg(reply != NULL && reply->type != REDIS_REPLY_ERROR, "%s", reply != NULL ? reply->str : redis->errstr);
    return reply;
}

/* A new id for each question, as the store makes them. */
static inline struct redis_question question_of(const struct store_ask *asks, size_t count)
{
    static uint64_t ids;
    struct redis_question question = {.asks = asks, .count = count};
    ids++;
    memcpy(question.id, &ids, sizeof(ids));
    return question;
}

static inline bool hit(const struct redis_question *question, const uint64_t *now, struct store_answer *answers,
                       struct redis_verdict *verdict)
{
    struct redis_wire wire;
    redis_wire_hit(&wire, PREFIX, question, now);
    redisReply *reply = run(LIMIT_SCRIPT_HIT, &wire);
    ck_assert(
        redis_wire_answer((struct span){reply->str, reply->len}, question, now != NULL ? *now : 0, answers, verdict));
    freeReplyObject(reply);
    return verdict->admitted;
}

static inline void settle(const struct redis_question *question, const struct store_answer *answers,
                          const int64_t *deltas, bool end, const uint64_t *now)
{
    struct redis_wire wire;
    if (redis_wire_settle(&wire, PREFIX, question, answers, deltas, end, now))
        freeReplyObject(run(LIMIT_SCRIPT_SETTLE, &wire));
}

static inline long long ask_redis(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    redisReply *reply = redisvCommand(redis, format, args);
    va_end(args);
    ck_assert(reply != NULL && reply->type != REDIS_REPLY_ERROR);
    long long value = reply->integer;
    freeReplyObject(reply);
    return value;
}

static inline void forget_all(void)
{
    ask_redis("FLUSHALL");
}

static inline struct key next_key(void)
{
    static uint64_t keys;
    return (struct key){{0x6b, ++keys}};
}

#define SECOND UINT64_C(1000000)
#define START UINT64_C(1795250030000000)

static uint64_t seed = 88172645463325252u;

static inline uint64_t random_below(uint64_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % limit;
}

/* Runs the case in a Redis of its own; the exit status. */
static inline int run_in_redis(const char *name, TCase *tcase)
{
    if (system("command -v redis-server >/dev/null 2>&1") != 0) {
        fprintf(stderr, "SKIPPED: redis-server is not installed; the scripts were not tested\n");
        return 0;
    }
    tcase_add_unchecked_fixture(tcase, connect_and_load, disconnect);
    tcase_add_checked_fixture(tcase, forget_all, NULL);
    tcase_set_timeout(tcase, 120);
    return run_suite(name, tcase);
}

#endif
