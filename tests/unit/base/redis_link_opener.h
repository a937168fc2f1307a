/* A link to a Redis of the tests' own, and commands over it, for the tests of base/redis_link. */
#ifndef WEIR_TESTS_REDIS_LINK_OPENER_H
#define WEIR_TESTS_REDIS_LINK_OPENER_H

#include "base/redis_link.h"
#include "redis_server.h"
#include "run_suite.h"

#define LONG_MS 60000 /* a busy machine; nothing here should need it */

static struct redis_server server;
static struct redis_loop loop;
static struct redis_link *up_link;
static struct redis_url url;
static bool is_up, is_down;
static unsigned ups, downs;
static char why[512];

static void on_state(void *ctx, bool up, const char *text)
{
    ck_assert_ptr_eq(ctx, &server);
    ck_assert(up || (text != NULL && text[0] != '\0'));
    is_up = up;
    is_down = !up;
    up ? ups++ : downs++;
    snprintf(why, sizeof(why), "%s", up ? "" : text);
}

static const char *const scripts[] = {
    "return redis.call('INCRBY', KEYS[1], ARGV[1])",
    "return {KEYS[1], KEYS[2], ARGV[1]}",
    "return redis.call('SET', KEYS[1], ARGV[1])",
};

static inline void open_url(const char *text, uint64_t timeout_us, size_t max_waiting)
{
    char error[512];
    ck_assert_msg(redis_url_parse(span_of(text), &url, error, sizeof(error)), "%s", error);
    struct redis_link_settings settings = {.url = &url,
                                           .scripts = scripts,
                                           .script_count = 3,
                                           .timeout_us = timeout_us,
                                           .max_waiting = max_waiting,
                                           .max_bytes = 4 << 20,
                                           .name = "weir-test",
                                           .on_state = on_state,
                                           .ctx = &server};
    up_link = redis_link_create(&settings, &loop.ctx, &loop.deadlines);
    ck_assert(!redis_link_up(up_link));
}

static inline void open_link(const char *user, uint64_t timeout_us)
{
    char text[256];
    snprintf(text, sizeof(text), "unix://%s%s?db=3", user, server.path);
    open_url(text, timeout_us, 0);
}

static inline void must_come_up(void)
{
    ck_assert_msg(redis_loop_run(&loop, &is_up, LONG_MS), "down: %s", why);
    ck_assert(redis_link_up(up_link));
}

static inline void must_go_down(const char *part)
{
    ck_assert(redis_loop_run(&loop, &is_down, LONG_MS));
    ck_assert_msg(strstr(why, part) != NULL, "\"%s\" does not say \"%s\"", why, part);
}

static inline void setup(void)
{
    redis_server_prepare(&server);
    redis_loop_init(&loop);
    up_link = NULL;
    is_up = is_down = false;
    ups = downs = 0;
}

static inline void teardown(void)
{
    if (up_link != NULL)
        redis_link_destroy(up_link);
    redis_url_dispose(&url);
    redis_loop_dispose(&loop);
    redis_server_dispose(&server);
}

/* A command of the tests; keeps what came. */
struct ask {
    struct redis_command command;
    bool done;
    unsigned calls;
    int type;
    long long integer;
    size_t elements;
    char text[8192];
    enum redis_failure failure;
};

static void on_reply(struct redis_command *command, const redisReply *reply, enum redis_failure failure)
{
    struct ask *ask = H2O_STRUCT_FROM_MEMBER(struct ask, command, command);
    ask->done = true;
    ask->calls++;
    ask->failure = failure;
    ck_assert((reply == NULL) == (failure != REDIS_ANSWERED));
    if (reply == NULL)
        return;
    ask->type = reply->type;
    ask->integer = reply->integer;
    ask->elements = reply->elements;
    if (reply->str != NULL)
        snprintf(ask->text, sizeof(ask->text), "%s", reply->str);
}

static inline bool send_words(struct ask *ask, const char *line, enum redis_failure *failure)
{
    struct span pieces[16];
    size_t count = 0;
    *ask = (struct ask){.command.on_reply = on_reply};
    for (struct span rest = span_of(line); rest.len != 0;) {
        const char *blank = memchr(rest.base, ' ', rest.len);
        pieces[count] = (struct span){rest.base, blank != NULL ? (size_t)(blank - rest.base) : rest.len};
        rest = span_skip(rest, pieces[count++].len + 1);
    }
    return redis_link_send(up_link, &ask->command, pieces, count, failure);
}

static inline void ask_words(struct ask *ask, const char *line)
{
    enum redis_failure failure;
    ck_assert_msg(send_words(ask, line, &failure), "%s: not sent: %s", line, redis_failure_name(failure));
    ck_assert(!ask->done);
    ck_assert_msg(redis_loop_run(&loop, &ask->done, LONG_MS), "%s: no reply", line);
    ck_assert_uint_eq(ask->calls, 1);
}

static inline void run_script(struct ask *ask, size_t script, const char *key, const char *arg)
{
    enum redis_failure failure;
    *ask = (struct ask){.command.on_reply = on_reply};
    const struct span args[] = {span_of(key), span_of(arg)};
    ck_assert(redis_link_run(up_link, &ask->command, script, args, 1, 2, &failure));
}

#endif
