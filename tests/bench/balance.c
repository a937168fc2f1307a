/* What choosing a server costs: every policy over 100 servers, from the model's name to the taken place, and what the
 * prefix policy makes of a prompt of 100 KB.
 *
 *   sh tests/bench/balance.sh        builds and runs it
 *
 * Prints microseconds of processor time per choice, the median of some rounds. */
#include "backends/pool.h"
#include "base/clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SERVERS 100
#define ROUNDS 9
#define CHOICES 20000
#define PROMPT 100000

static struct backend_settings settings[SERVERS];
static char prompt[PROMPT];

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof(values[0]), compare);
    return values[ROUNDS / 2];
}

/* A busy machine takes away wall time, not processor time. */
static double cpu_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static double choose(struct pool *pool, bool with_prompt)
{
    double rounds[ROUNDS];
    unsigned choices = with_prompt ? CHOICES / 20 : CHOICES;
    for (size_t round = 0; round < ROUNDS; round++) {
        uint64_t now = clock_us();
        double begun = cpu_us();
        for (uint64_t i = 0; i < choices; i++) {
            struct pool_walk walk;
            struct pool_lease lease;
            struct pool_hint hint = {.key = i * 0x9e3779b97f4a7c15, .has_key = true};
            if (with_prompt) {
                /* a conversation that is new in its second half */
                memcpy(&prompt[PROMPT / 2], &i, sizeof(i));
                hint.prompt = (struct span){prompt, PROMPT};
            }
            pool_walk_start(pool, &walk, SPAN("llama-3.1-8b"), NULL);
            if (pool_walk_next(pool, &walk, &hint, &lease, now) != POOL_CHOSEN)
                abort();
            pool_walk_end(pool, &walk);
            pool_lease_end(&lease);
        }
        rounds[round] = (cpu_us() - begun) / choices;
    }
    return median(rounds);
}

int main(void)
{
    static const struct {
        const char *name;
        enum balance_policy policy;
    } policies[] = {
        {"round_robin", BALANCE_ROUND_ROBIN},         {"least_requests", BALANCE_LEAST_REQUESTS},
        {"power_of_two", BALANCE_POWER_OF_TWO},       {"latency", BALANCE_LATENCY},
        {"consistent_hash", BALANCE_CONSISTENT_HASH}, {"prefix", BALANCE_PREFIX},
    };
    for (size_t i = 0; i < SERVERS; i++) {
        char name[16];
        backend_settings_init(&settings[i]);
        health_settings_init(&settings[i].health);
        snprintf(name, sizeof(name), "server-%zu", i);
        settings[i].name = strdup(name);
        settings[i].url.kind = BACKEND_DEMO;
        settings[i].weight = 1 + (unsigned)(i % 3);
    }
    for (size_t i = 0; i < PROMPT; i++)
        prompt[i] = (char)(' ' + i * 31 % 90);
    for (size_t p = 0; p < sizeof(policies) / sizeof(policies[0]); p++) {
        struct fleet_settings fleet_options;
        struct deadlines deadlines;
        char error[256];
        fleet_settings_init(&fleet_options);
        fleet_options.policy = policies[p].policy;
        deadlines_init(&deadlines);
        struct fleet *fleet = fleet_create(&fleet_options);
        for (size_t i = 0; i < SERVERS; i++) {
            struct fleet_server *server = fleet_add(fleet, &settings[i], NULL, NULL, NULL);
            fleet_answered(server, 20000 + i * 1000, clock_us());
        }
        struct pool *pool = pool_create(fleet, NULL, &deadlines, NULL, error, sizeof(error));
        printf("%-28s %6.2f us\n", policies[p].name, choose(pool, false));
        if (policies[p].policy == BALANCE_PREFIX)
            printf("%-28s %6.2f us\n", "prefix, prompt of 100 KB", choose(pool, true));
        pool_release(pool);
        deadlines_run(&deadlines, UINT64_MAX);
        fleet_destroy(fleet);
        deadlines_dispose(&deadlines);
    }
    return 0;
}
