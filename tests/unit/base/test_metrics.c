#include "base/metrics.h"
#include "run_suite.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

enum { REQUESTS, ACTIVE, LATENCY, TTFT };

static const double bounds[] = {0.005, 0.1, 2.5, 1000};
static const struct metric_family families[] = {
    [REQUESTS] = {.name = "weir_requests_total",
                  .help = "Requests\\ served,\nby \"status\"",
                  .type = METRIC_COUNTER,
                  .labels = {"route", "status"},
                  .max_series = 4},
    [ACTIVE] = {.name = "weir_active", .help = "Open streams", .type = METRIC_GAUGE},
    [LATENCY] = {.name = "weir_latency_seconds",
                 .help = "Latency",
                 .type = METRIC_HISTOGRAM,
                 .labels = {"route"},
                 .buckets = bounds,
                 .bucket_count = 4},
    [TTFT] = {.name = "weir_ttft_seconds",
              .help = "First token",
              .type = METRIC_HISTOGRAM,
              .buckets = bounds,
              .bucket_count = 1},
};
#define FAMILIES (sizeof(families) / sizeof(families[0]))

static struct metrics_shard *shards[2];
static struct strbuf out;

static void setup(void)
{
    for (int i = 0; i < 2; i++)
        shards[i] = metrics_shard_create(families, FAMILIES);
    strbuf_init(&out, 1 << 20);
}

static void teardown(void)
{
    for (int i = 0; i < 2; i++)
        metrics_shard_destroy(shards[i]);
    strbuf_dispose(&out);
}

static struct metric_series *requests(int shard, struct span route, struct span status)
{
    return metrics_series(shards[shard], REQUESTS, (struct span[]){route, status});
}

#define REQUESTS_HEAD                                                                                                  \
    "# HELP weir_requests_total Requests\\\\ served,\\nby \"status\"\n# TYPE weir_requests_total counter\n"
#define ACTIVE_HEAD "# HELP weir_active Open streams\n# TYPE weir_active gauge\n"
#define LATENCY_HEAD "# HELP weir_latency_seconds Latency\n# TYPE weir_latency_seconds histogram\n"
#define TTFT_HEAD "# HELP weir_ttft_seconds First token\n# TYPE weir_ttft_seconds histogram\n"

START_TEST(families_without_series)
{
    metrics_write(shards, 2, &out);
    ck_assert_str_eq(strbuf_cstr(&out), REQUESTS_HEAD ACTIVE_HEAD LATENCY_HEAD TTFT_HEAD);
    strbuf_reset(&out);
    metrics_write(shards, 0, &out);
    ck_assert_uint_eq(out.len, 0);
}
END_TEST

START_TEST(shards_are_added_up)
{
    metric_add(requests(0, SPAN("/a"), SPAN("200")), 2);
    metric_add(requests(0, SPAN("/b"), SPAN("200")), 1);
    metric_add(requests(1, SPAN("/b"), SPAN("200")), 40);
    metric_add(requests(1, SPAN("/a"), SPAN("500")), 7);
    metric_add(metrics_series(shards[0], ACTIVE, NULL), 3);
    metric_add(metrics_series(shards[1], ACTIVE, NULL), 2);
    metric_add(metrics_series(shards[1], ACTIVE, NULL), -6);
    ck_assert_int_eq(metric_value(metrics_series(shards[1], ACTIVE, NULL)), -4);
    metrics_write(shards, 2, &out);
    ck_assert_str_eq(strbuf_cstr(&out), REQUESTS_HEAD "weir_requests_total{route=\"/a\",status=\"200\"} 2\n"
                                                      "weir_requests_total{route=\"/b\",status=\"200\"} 41\n"
                                                      "weir_requests_total{route=\"/a\",status=\"500\"} 7\n" ACTIVE_HEAD
                                                      "weir_active -1\n" LATENCY_HEAD TTFT_HEAD);
}
END_TEST

START_TEST(label_values_are_escaped)
{
    metric_add(requests(0, SPAN("a\"b\\c\nd{}=,"), SPAN("")), 1);
    metric_add(requests(0, SPAN("\xC3\xBC\xFF"), SPAN("x")), 1);
    metric_add(requests(1, SPAN("\xC3\xBC\xFE"), SPAN("x")), 1); /* reads the same: one series */
    metrics_write(shards, 2, &out);
    ck_assert_str_eq(
        strbuf_cstr(&out), REQUESTS_HEAD
        "weir_requests_total{route=\"a\\\"b\\\\c\\nd{}=,\",status=\"\"} 1\n"
        "weir_requests_total{route=\"\xC3\xBC\xEF\xBF\xBD\",status=\"x\"} 2\n" ACTIVE_HEAD LATENCY_HEAD TTFT_HEAD);
}
END_TEST

START_TEST(series_are_told_apart_and_found_again)
{
    struct metric_series *a = requests(0, SPAN("ab"), SPAN("c")), *b = requests(0, SPAN("a"), SPAN("bc"));
    ck_assert_ptr_ne(a, b);
    ck_assert_ptr_eq(a, requests(0, SPAN("ab"), SPAN("c")));
    ck_assert_ptr_ne(a, requests(1, SPAN("ab"), SPAN("c")));
    char value[] = "copied";
    struct metric_series *c = requests(0, span_of(value), SPAN("x"));
    value[0] = 'X';
    ck_assert_ptr_eq(c, requests(0, SPAN("copied"), SPAN("x")));
}
END_TEST

START_TEST(too_many_series_become_other)
{
    for (int i = 0; i < 10; i++) {
        char route[16];
        snprintf(route, sizeof(route), "/%d", i);
        metric_add(requests(0, span_of(route), SPAN("200")), 1);
        metric_add(requests(0, SPAN("/0"), SPAN("200")), 1); /* those there are stay */
    }
    ck_assert_ptr_eq(requests(0, SPAN("new"), SPAN("1")), requests(0, SPAN("newer"), SPAN("2")));
    ck_assert_ptr_eq(requests(0, SPAN("other"), SPAN("other")), requests(0, SPAN("newer"), SPAN("2")));
    metrics_write(shards, 2, &out);
    ck_assert_str_eq(strbuf_cstr(&out), REQUESTS_HEAD
                     "weir_requests_total{route=\"/0\",status=\"200\"} 11\n"
                     "weir_requests_total{route=\"/1\",status=\"200\"} 1\n"
                     "weir_requests_total{route=\"/2\",status=\"200\"} 1\n"
                     "weir_requests_total{route=\"/3\",status=\"200\"} 1\n"
                     "weir_requests_total{route=\"other\",status=\"other\"} 6\n" ACTIVE_HEAD LATENCY_HEAD TTFT_HEAD);
}
END_TEST

START_TEST(a_thousand_series_unless_told_otherwise)
{
    for (int i = 0; i < 1500; i++) {
        char route[16];
        snprintf(route, sizeof(route), "/%d", i);
        metric_observe_us(metrics_series(shards[0], LATENCY, (struct span[]){span_of(route)}), 1);
    }
    ck_assert_int_eq(metric_value(metrics_series(shards[0], LATENCY, (struct span[]){SPAN("/999")})), 1);
    ck_assert_int_eq(metric_value(metrics_series(shards[0], LATENCY, (struct span[]){SPAN("/1000")})), 500);
}
END_TEST

START_TEST(long_values_are_cut_at_a_character)
{
    char value[METRIC_VALUE_MAX + 50];
    memset(value, 'v', sizeof(value));
    memcpy(value + METRIC_VALUE_MAX - 1, "\xC3\xBC", 2);
    struct metric_series *series = requests(0, (struct span){value, sizeof(value)}, SPAN("1"));
    ck_assert_ptr_eq(series, requests(0, (struct span){value, METRIC_VALUE_MAX - 1}, SPAN("1")));
}
END_TEST

START_TEST(histogram)
{
    static const uint64_t first[] = {0, 5000, 5001, 100000}, second[] = {100001, 2500001, 1000000000, 1000000001};
    for (int i = 0; i < 4; i++) {
        metric_observe_us(metrics_series(shards[0], LATENCY, (struct span[]){SPAN("/")}), first[i]);
        metric_observe_us(metrics_series(shards[1], LATENCY, (struct span[]){SPAN("/")}), second[i]);
    }
    metric_observe_us(metrics_series(shards[1], TTFT, NULL), 1500);
    ck_assert_int_eq(metric_value(metrics_series(shards[0], LATENCY, (struct span[]){SPAN("/")})), 4);
    metrics_write(shards, 2, &out);
    ck_assert_str_eq(strbuf_cstr(&out),
                     REQUESTS_HEAD ACTIVE_HEAD LATENCY_HEAD "weir_latency_seconds_bucket{route=\"/\",le=\"0.005\"} 2\n"
                                                            "weir_latency_seconds_bucket{route=\"/\",le=\"0.1\"} 4\n"
                                                            "weir_latency_seconds_bucket{route=\"/\",le=\"2.5\"} 5\n"
                                                            "weir_latency_seconds_bucket{route=\"/\",le=\"1000\"} 7\n"
                                                            "weir_latency_seconds_bucket{route=\"/\",le=\"+Inf\"} 8\n"
                                                            "weir_latency_seconds_sum{route=\"/\"} 2002.710004\n"
                                                            "weir_latency_seconds_count{route=\"/\"} 8\n" TTFT_HEAD
                                                            "weir_ttft_seconds_bucket{le=\"0.005\"} 1\n"
                                                            "weir_ttft_seconds_bucket{le=\"+Inf\"} 1\n"
                                                            "weir_ttft_seconds_sum 0.001500\n"
                                                            "weir_ttft_seconds_count 1\n");
}
END_TEST

static atomic_bool done;

static void *write_values(void *arg)
{
    for (int i = 0; i < 20000; i++) {
        char route[16];
        snprintf(route, sizeof(route), "/%d", i % 1200);
        metric_observe_us(metrics_series(arg, LATENCY, (struct span[]){span_of(route)}), (uint64_t)i);
        metric_add(metrics_series(arg, ACTIVE, NULL), 1);
    }
    atomic_store(&done, true);
    return NULL;
}

START_TEST(scrapes_while_others_write)
{
    pthread_t thread;
    struct metric_series *active = metrics_series(shards[0], ACTIVE, NULL);
    int64_t last = 0;
    ck_assert_int_eq(pthread_create(&thread, NULL, write_values, shards[0]), 0);
    for (bool last_round = false;;) {
        last_round = atomic_load(&done);
        strbuf_reset(&out);
        metrics_write(shards, 2, &out);
        long long seen = 0;
        const char *at = strstr(strbuf_cstr(&out), "\nweir_active ");
        ck_assert_ptr_nonnull(at);
        ck_assert_int_eq(sscanf(at, "\nweir_active %lld", &seen), 1);
        ck_assert_int_ge(seen, last);
        last = seen;
        if (last_round)
            break;
    }
    pthread_join(thread, NULL);
    ck_assert_int_eq(last, 20000);
    ck_assert_int_eq(metric_value(active), 20000);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("metrics");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, families_without_series);
    tcase_add_test(tc, shards_are_added_up);
    tcase_add_test(tc, label_values_are_escaped);
    tcase_add_test(tc, series_are_told_apart_and_found_again);
    tcase_add_test(tc, too_many_series_become_other);
    tcase_add_test(tc, a_thousand_series_unless_told_otherwise);
    tcase_add_test(tc, long_values_are_cut_at_a_character);
    tcase_add_test(tc, histogram);
    tcase_add_test(tc, scrapes_while_others_write);
    return run_suite("metrics", tc);
}
