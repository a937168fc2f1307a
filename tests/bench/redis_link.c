/* What a command through the link to Redis costs: SET and GET, or a script, so many at a time, on one thread. Starts a
 * redis-server of its own on a unix socket, or uses the one at URL.
 *
 *   cc -O2 -D_GNU_SOURCE -I. -Itests/unit -o /tmp/redis-bench tests/bench/redis_link.c base/redis_?*.c base/deadline.c
 * \
 *       base/ids.c base/strbuf.c base/units.c $(pkg-config --cflags --libs libh2o-evloop hiredis) -lcrypto -lssl \
 *       -lpthread -DH2O_USE_EPOLL=1
 *   redis-bench [AT_ONCE [SECONDS [URL]]]        default 100 2, its own
 *
 * Prints, for plain commands and for a script, commands per second, processor time of this process per command, and
 * the time to a reply. */
#include "base/redis_link.h"
#include "redis_server.h"
#include <sys/resource.h>

#define AT_ONCE_MAX 4096
#define TIMES_MAX 1000000

static const char script[] = "local n = redis.call('INCRBY', KEYS[1], ARGV[1]) return {n, redis.call('TIME')}";
static const char *const scripts[] = {script};

static struct redis_link *redis;
static bool up, scripted, over;
static uint64_t sent, answered, failed, end_us;
static uint32_t times[TIMES_MAX];
static struct bench_command {
    struct redis_command command;
    uint64_t sent_us;
} commands[AT_ONCE_MAX];

static void on_reply(struct redis_command *command, const redisReply *reply, enum redis_failure why);

static void on_state(void *ctx, bool is_up, const char *why)
{
    (void)ctx;
    up = is_up;
    if (!is_up)
        fprintf(stderr, "down: %s\n", why);
}

static void send_one(struct bench_command *bench)
{
    char key[32];
    enum redis_failure why;
    bench->command.on_reply = on_reply;
    bench->sent_us = clock_us();
    struct span name = {
        key, (size_t)snprintf(key, sizeof(key), scripted ? "count:%u" : "bench:%u", (unsigned)(sent++ % 1000))};
    const struct span args[] = {name, SPAN("1")};
    const struct span set[] = {SPAN("SET"), name, SPAN("a value of sixteen")}, get[] = {SPAN("GET"), name};
    bool ok = scripted        ? redis_link_run(redis, &bench->command, 0, args, 1, 2, &why)
              : sent % 2 == 0 ? redis_link_send(redis, &bench->command, set, 3, &why)
                              : redis_link_send(redis, &bench->command, get, 2, &why);
    if (!ok)
        failed++;
}

static void on_reply(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct bench_command *bench = H2O_STRUCT_FROM_MEMBER(struct bench_command, command, command);
    uint64_t now = clock_us();
    (void)why;
    if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
        failed++;
    else if (answered < TIMES_MAX)
        times[answered] = (uint32_t)(now - bench->sent_us);
    answered++;
    if (now >= end_us)
        over = true;
    else
        send_one(bench);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double used_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void measure(struct redis_loop *loop, const char *title, unsigned long at_once, double seconds)
{
    uint64_t start = clock_us();
    double used = used_us();
    sent = answered = failed = 0;
    over = false;
    end_us = start + (uint64_t)(seconds * 1e6);
    for (unsigned long i = 0; i < at_once; i++)
        send_one(&commands[i]);
    redis_loop_run(loop, &over, (unsigned)(seconds * 1000) + 5000);
    used = used_us() - used;
    double took = (double)(clock_us() - start);
    size_t count = answered < TIMES_MAX ? answered : TIMES_MAX;
    qsort(times, count, sizeof(times[0]), compare);
    printf("%-8s %4lu at once: %7.0f commands/s, %5.2f us of processor time each, reply after %u us (p50) %u us (p99), "
           "%llu failed\n",
           title, at_once, (double)answered / took * 1e6, used / (double)answered, count != 0 ? times[count / 2] : 0,
           count != 0 ? times[count * 99 / 100] : 0, (unsigned long long)failed);
    redis_loop_run(loop, NULL, 100); /* the rest of the replies */
}

int main(int argc, char **argv)
{
    unsigned long at_once = argc > 1 ? strtoul(argv[1], NULL, 10) : 100;
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 2;
    struct redis_server server;
    struct redis_loop loop;
    struct redis_url url;
    char error[512];
    if (at_once == 0 || at_once > AT_ONCE_MAX || seconds <= 0)
        return 2;
    redis_server_prepare(&server);
    if (argc <= 3)
        redis_server_start(&server, NULL);
    if (!redis_url_parse(span_of(argc > 3 ? argv[3] : server.path), &url, error, sizeof(error))) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    redis_loop_init(&loop);
    struct redis_link_settings settings = {.url = &url,
                                           .scripts = scripts,
                                           .script_count = 1,
                                           .timeout_us = 1000000,
                                           .name = "bench",
                                           .on_state = on_state};
    redis = redis_link_create(&settings, &loop.ctx, &loop.deadlines);
    if (redis_loop_run(&loop, &up, 5000)) {
        measure(&loop, "commands", at_once, seconds);
        scripted = true;
        measure(&loop, "script", at_once, seconds);
        scripted = false;
        measure(&loop, "commands", 1, seconds);
        scripted = true;
        measure(&loop, "script", 1, seconds);
    }
    redis_link_destroy(redis);
    redis_url_dispose(&url);
    redis_loop_dispose(&loop);
    redis_server_dispose(&server);
    return up ? 0 : 1;
}
