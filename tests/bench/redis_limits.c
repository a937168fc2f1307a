/* What a decision over Redis costs: one loop that decides on requests of random clients, so many at a time.
 *
 *   tests/bench_redis_limits URL [SECONDS [CLIENTS [LIMITS (1-8) [AT_ONCE]]]]      default: 3 10000 1, and 1, 16, 256
 *
 * Prints for each strategy, of requests and of tokens (which are settled too, each by a command that is written at
 * once): decisions in a second, half and 99 % of them answered within, processor time of this thread for each. The
 * keys' digests are included. Everything under "weir-bench:" in that database is its own; it lapses by itself. */
#include "base/clock.h"
#include "ratelimit/limit_scripts.h"
#include "ratelimit/redis_store.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>

#define LIMITS_MAX 8
#define AT_ONCE_MAX 4096
#define BUCKETS 200000 /* of a microsecond */

static const char *const texts[LIMITS_MAX] = {"1000000/minute", "1000000/hour", "16000/minute", "5000000/day",
                                              "900000/minute",  "900000/hour",  "15000/minute", "4000000/day"};

static struct bench {
    h2o_globalconf_t globalconf;
    h2o_context_t ctx;
    struct deadlines deadlines;
    struct redis_link *link;
    struct redis_store *store;
    struct limit limits[LIMITS_MAX];
    struct key rules[LIMITS_MAX];
    unsigned long limit_count, clients, at_once;
    enum limit_strategy strategy;
    bool up, going, tokens;
    uint64_t decisions, admitted, failures, in_flight;
    uint32_t took[BUCKETS];
} bench;

static struct asker {
    struct redis_hit hit;
    struct store_ask asks[LIMITS_MAX];
    struct store_answer answers[LIMITS_MAX];
    uint64_t asked_us;
    struct asker *again;
} askers[AT_ONCE_MAX], *again;

static uint64_t next_random(void)
{
    static uint64_t seed = 88172645463325252u;
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void on_answer(struct redis_hit *hit, enum redis_failure why)
{
    struct asker *asker = (struct asker *)hit;
    uint64_t took = clock_us() - asker->asked_us;
    bench.in_flight--;
    bench.decisions++;
    bench.failures += why != REDIS_ANSWERED;
    bench.took[took < BUCKETS ? took : BUCKETS - 1]++;
    if (why == REDIS_ANSWERED && hit->verdict.admitted) {
        static const int64_t deltas[LIMITS_MAX];
        bench.admitted++;
        redis_store_settle(bench.store, hit, deltas);
    }
    asker->again = again;
    again = asker;
}

static void ask(struct asker *asker)
{
    char value[24];
    enum redis_failure why;
    int len = snprintf(value, sizeof(value), "client-%llu", (unsigned long long)(next_random() % bench.clients));
    struct key client = key_of_client(NULL, SPAN("api_key"), (struct span){value, (size_t)len});
    for (unsigned long i = 0; i < bench.limit_count; i++)
        asker->asks[i] = (struct store_ask){
            .key = key_for(&bench.rules[i], &client), .limit = &bench.limits[i], .strategy = bench.strategy, .cost = 1};
    asker->hit.question = (struct redis_question){.asks = asker->asks, .count = bench.limit_count};
    asker->hit.answers = asker->answers;
    asker->hit.on_answer = on_answer;
    asker->asked_us = clock_us();
    if (redis_store_hit(bench.store, &asker->hit, &why)) {
        bench.in_flight++;
    } else {
        fprintf(stderr, "cannot ask: %s\n", redis_failure_name(why));
        exit(1);
    }
}

static void turn(void)
{
    h2o_evloop_run(bench.ctx.loop, deadlines_wait_ms(&bench.deadlines, clock_us(), 10));
    deadlines_run(&bench.deadlines, clock_us());
    while (bench.going && again != NULL) {
        struct asker *asker = again;
        again = asker->again;
        ask(asker);
    }
}

static uint64_t cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static unsigned took_within(double part)
{
    uint64_t sum = 0;
    for (unsigned us = 0; us < BUCKETS; us++)
        if ((sum += bench.took[us]) >= (uint64_t)(part * (double)bench.decisions))
            return us;
    return BUCKETS;
}

static void measure(unsigned long seconds)
{
    again = NULL;
    memset(bench.took, 0, sizeof(bench.took));
    bench.decisions = bench.admitted = bench.failures = 0;
    bench.going = true;
    for (unsigned long i = 0; i < bench.at_once; i++) {
        askers[i].again = again;
        again = &askers[i];
    }
    uint64_t start = clock_us(), cpu = cpu_us(), end = start + seconds * 1000000;
    while (clock_us() < end)
        turn();
    double wall = (double)(clock_us() - start) / 1e6;
    bench.going = false;
    while (bench.in_flight != 0)
        turn();
    cpu = cpu_us() - cpu;
    printf("%-24s %s %lu limits %4lu at once  %7.0f decisions/s  p50 %5u us  p99 %5u us  %5.2f us of processor time  "
           "%3.0f %% admitted%s\n",
           limit_strategy_name(bench.strategy), bench.tokens ? "tokens  " : "requests", bench.limit_count,
           bench.at_once, (double)bench.decisions / wall, took_within(0.5), took_within(0.99),
           (double)cpu / (double)bench.decisions, 100.0 * (double)bench.admitted / (double)bench.decisions,
           bench.failures != 0 ? "  FAILURES" : "");
}

static void on_state(void *ctx, bool up, const char *why)
{
    (void)ctx;
    if (!up)
        fprintf(stderr, "Redis: %s\n", why);
    bench.up = up;
}

int main(int argc, char **argv)
{
    static struct redis_url url;
    static atomic_uint gateways;
    unsigned long values[4] = {3, 10000, 1, 0};
    char error[512];
    struct limit_error limit_error;
    size_t count;
    for (int i = 2; i < argc && i <= 5; i++)
        values[i - 2] = strtoul(argv[i], NULL, 10);
    if (argc < 2 || values[0] == 0 || values[1] == 0 || values[2] == 0 || values[2] > LIMITS_MAX ||
        values[3] > AT_ONCE_MAX) {
        fprintf(stderr, "usage: %s URL [SECONDS [CLIENTS [LIMITS (1-8) [AT_ONCE]]]]\n", argv[0]);
        return 2;
    }
    if (!redis_url_parse(span_of(argv[1]), &url, error, sizeof(error))) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    bench.clients = values[1];
    bench.limit_count = values[2];
    h2o_config_init(&bench.globalconf);
    h2o_config_register_host(&bench.globalconf, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    h2o_context_init(&bench.ctx, h2o_evloop_create(), &bench.globalconf);
    deadlines_init(&bench.deadlines);
    static const char *const scripts[] = {limit_script_hit, limit_script_settle, limit_script_tend};
    struct redis_link_settings settings = {.url = &url,
                                           .scripts = scripts,
                                           .script_count = LIMIT_SCRIPTS,
                                           .timeout_us = 5000000,
                                           .name = "weir-bench",
                                           .on_state = on_state};
    bench.link = redis_link_create(&settings, &bench.ctx, &bench.deadlines);
    for (int i = 0; i < 500 && !bench.up; i++)
        turn();
    if (!bench.up)
        return 1;
    bench.store = redis_store_create(&(struct redis_store_settings){.link = bench.link,
                                                                    .deadlines = &bench.deadlines,
                                                                    .prefix = SPAN("weir-bench:"),
                                                                    .gateway = 1,
                                                                    .gateways = &gateways});
    static const unsigned long depths[] = {1, 16, 256};
    for (int tokens = 0; tokens < 2; tokens++) {
        for (int strategy = LIMIT_FIXED_WINDOW; strategy <= LIMIT_SLIDING_WINDOW_COUNTER; strategy++) {
            bench.tokens = tokens;
            bench.strategy = (enum limit_strategy)strategy;
            for (unsigned long i = 0; i < bench.limit_count; i++) {
                limit_parse(span_of(texts[i]), &bench.limits[i], 1, &count, &limit_error);
                bench.limits[i].unit = tokens ? LIMIT_TOKENS : LIMIT_REQUESTS;
                bench.rules[i] = key_of_limit(NULL, SPAN("bench"), &bench.limits[i], bench.strategy);
            }
            for (size_t i = 0; i < 3; i++) {
                bench.at_once = values[3] != 0 ? values[3] : depths[i];
                measure(values[0]);
                if (values[3] != 0)
                    break;
            }
        }
    }
    return 0;
}
