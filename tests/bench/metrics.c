/* What weir's metrics cost by themselves, since they cannot be switched off: the look-ups and additions that
 * gateway/telemetry.c makes for one small plain answer, and for one event of a stream. The shard holds the series of
 * 20 routes' worth of traffic, all label sets are used in turn, and reading the clock for events is included.
 *
 *   cc -O2 -D_GNU_SOURCE -I. -o /tmp/metrics-bench tests/bench/metrics.c base/metrics.c base/strbuf.c -lm
 *
 * Prints us_per_request=N us_per_event=N, of processor time. */
#include "base/metrics.h"
#include "base/clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUTES 20
#define REQUESTS_MADE 1000000
#define EVENTS_MADE 10000000

enum family { REQUESTS, DURATION, BYTES, TOKENS, IN_FLIGHT, BACKEND_IN_FLIGHT, BETWEEN_EVENTS, FAMILIES };

static const double buckets[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                 0.2,   0.3,    0.4,   0.5,  0.75,  1,    2.5,   10,  30};
#define BUCKETS .buckets = buckets, .bucket_count = sizeof(buckets) / sizeof(buckets[0])

static const struct metric_family families[FAMILIES] = {
    [REQUESTS] = {.name = "requests_total",
                  .help = "",
                  .type = METRIC_COUNTER,
                  .labels = {"route", "backend", "status"}},
    [DURATION] = {.name = "duration_seconds", .help = "", .type = METRIC_HISTOGRAM, .labels = {"route"}, BUCKETS},
    [BYTES] = {.name = "bytes_total", .help = "", .type = METRIC_COUNTER, .labels = {"route"}},
    [TOKENS] = {.name = "tokens_total", .help = "", .type = METRIC_COUNTER, .labels = {"key", "model", "kind"}},
    [IN_FLIGHT] = {.name = "in_flight", .help = "", .type = METRIC_GAUGE},
    [BACKEND_IN_FLIGHT] = {.name = "backend_in_flight",
                           .help = "",
                           .type = METRIC_GAUGE,
                           .labels = {"backend", "model"}},
    [BETWEEN_EVENTS] = {.name = "between_events_seconds", .help = "", .type = METRIC_HISTOGRAM, BUCKETS},
};

static double used_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void count_request(struct metrics_shard *shard, struct metric_series *in_flight, struct span route, uint64_t us)
{
    struct span backend = SPAN("local"), model = SPAN("fake-1");
    struct span request[] = {route, backend, SPAN("200")}, place[] = {backend, model};
    struct span tokens[] = {SPAN("key-1"), model, SPAN("prompt")};
    metric_add(in_flight, 1);
    metric_add(metrics_series(shard, BACKEND_IN_FLIGHT, place), 1);
    metric_add(metrics_series(shard, REQUESTS, request), 1);
    metric_observe_us(metrics_series(shard, DURATION, &route), us);
    metric_add(metrics_series(shard, BYTES, &route), 254);
    metric_add(metrics_series(shard, TOKENS, tokens), 25);
    tokens[2] = SPAN("completion");
    metric_add(metrics_series(shard, TOKENS, tokens), 5);
    tokens[2] = SPAN("cached");
    metric_add(metrics_series(shard, TOKENS, tokens), 0);
    metric_add(metrics_series(shard, BACKEND_IN_FLIGHT, place), -1);
    metric_add(in_flight, -1);
}

int main(void)
{
    struct metrics_shard *shard = metrics_shard_create(families, FAMILIES);
    struct metric_series *in_flight = metrics_series(shard, IN_FLIGHT, NULL);
    struct metric_series *between = metrics_series(shard, BETWEEN_EVENTS, NULL);
    char names[ROUTES][32];
    struct span routes[ROUTES];
    for (int i = 0; i < ROUTES; i++) {
        int len = snprintf(names[i], sizeof(names[i]), "/v1/chat/completions%d", i);
        routes[i] = (struct span){names[i], (size_t)len};
    }
    double start = used_us();
    for (unsigned i = 0; i < REQUESTS_MADE; i++)
        count_request(shard, in_flight, routes[i % ROUTES], 1000 + i % 4096);
    double requests = used_us() - start;
    uint64_t last = clock_us();
    start = used_us();
    for (unsigned i = 0; i < EVENTS_MADE; i++) {
        uint64_t now = clock_us();
        metric_observe_us(between, now - last + 20000);
        last = now;
    }
    double events = used_us() - start;
    if (metric_value(between) != EVENTS_MADE || metric_value(in_flight) != 0) {
        fprintf(stderr, "metrics: the counts are wrong\n");
        return 1;
    }
    printf("us_per_request=%.3f us_per_event=%.4f\n", requests / REQUESTS_MADE, events / EVENTS_MADE);
    metrics_shard_destroy(shard);
    return 0;
}
