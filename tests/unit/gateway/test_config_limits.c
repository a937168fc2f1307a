#include "gateway/config_loader.h"

static void check_limit(const struct limit *limit, uint64_t amount, uint64_t window_us, enum limit_unit unit)
{
    ck_assert_uint_eq(limit->amount, amount);
    ck_assert_uint_eq(limit->window_us, window_us);
    ck_assert_int_eq(limit->unit, unit);
}

START_TEST(reads_limits)
{
    static const struct given given = {
        .yaml =
            "keys:\n"
            "  - {name: alice, key: secret-1, limit: \"100/minute, 5 tokens per 2 hours\", max_streams: 8}\n"
            "  - {name: bob, key: secret-2}\n"
            "limits:\n"
            "  per_key: {limit: \"${RATE}\"}\n"
            "  per-ip.2:\n"
            "    limit: \"10/second; 20 per 3 days\"\n"
            "    by: address\n"
            "    strategy: sliding-window-counter\n"
            "    routes: [/v1/chat/completions, \"/v1/audio/*\", /tools/*]\n"
            "    cost: 10\n"
            "    message: Slow down.\n"
            "    headers: off\n"
            "    exempt: {keys: [bob, alice], addresses: [10.1.2.3/8, \"fd00::/8\"]}\n"
            "  r: {limit: 1/day, by: route, strategy: fixed_window, headers: on}\n"
            "  m: {limit: 0/day, by: model, headers: false, cost: 7}\n"
            "  u: {limit: 1 token/day, by: user, headers: true, on_redis_failure: deny}\n"
            "  c: {limit: 1/day, by: constant, on_redis_failure: allow}\n"
            "backends: [{name: b, url: http://b}]\n"
            "routes:\n"
            "  - {path: /v1/chat/completions, depends: [\"limit:per-ip.2\", api_key, \"limit:per_key\", validate]}\n"
            "  - {path: /v1/completions, depends: [api_key, \"limit:per-ip.2\", limit]}\n"
            "  - {path: /v1/embeddings, depends: [public, \"limit:c\"]}\n"
            "  - {path: /tools/*, proxy: b, depends: [\"limit:per-ip.2\", api_key]}\n"
            "limit_memory: 1MiB\nmax_streams: 1000\ncount_hits: off\n",
        .env = {"RATE", "60/minute;1000/hour"},
    };
    struct config *config = load_ok(&given);
    const struct config_limit *limit = config->limits;

    ck_assert_uint_eq(config->keys[0].limit_count, 2);
    check_limit(&config->keys[0].limits[0], 100, 60 * SECOND, LIMIT_REQUESTS);
    check_limit(&config->keys[0].limits[1], 5, 7200 * SECOND, LIMIT_TOKENS);
    ck_assert_uint_eq(config->keys[0].max_streams, 8);
    ck_assert_uint_eq(config->keys[1].limit_count, 0);
    ck_assert_uint_eq(config->keys[1].max_streams, 0);

    ck_assert_uint_eq(config->limit_count, 6);
    ck_assert_str_eq(limit->name, "per_key");
    ck_assert_uint_eq(limit->count, 2);
    check_limit(&limit->limits[1], 1000, 3600 * SECOND, LIMIT_REQUESTS);
    ck_assert_int_eq(limit->by, LIMIT_BY_API_KEY);
    ck_assert_int_eq(limit->strategy, LIMIT_MOVING_WINDOW);
    ck_assert_uint_eq(limit->route_count, 0);
    ck_assert_uint_eq(limit->cost, 1);
    ck_assert_ptr_null(limit->message);
    ck_assert(limit->headers);
    ck_assert_uint_eq(limit->exempt_key_count + limit->exempt_network_count, 0);
    ck_assert_int_eq(limit->line, 5);
    ck_assert(config_limit_applies(limit, SPAN("/v1/completions")));

    limit++;
    ck_assert_str_eq(limit->name, "per-ip.2");
    check_limit(&limit->limits[1], 20, 3 * 86400 * SECOND, LIMIT_REQUESTS);
    ck_assert_int_eq(limit->by, LIMIT_BY_ADDRESS);
    ck_assert_int_eq(limit->strategy, LIMIT_SLIDING_WINDOW_COUNTER);
    ck_assert_uint_eq(limit->route_count, 3);
    ck_assert_uint_eq(limit->cost, 10);
    ck_assert_str_eq(limit->message, "Slow down.");
    ck_assert(!limit->headers);
    ck_assert_uint_eq(limit->exempt_key_count, 2);
    ck_assert_str_eq(limit->exempt_keys[1], "alice");
    ck_assert_uint_eq(limit->exempt_network_count, 2);
    ck_assert_uint_eq(limit->exempt_networks[0].prefix, 104);
    ck_assert_int_eq(limit->line, 6);
    ck_assert(config_limit_applies(limit, SPAN("/v1/audio/*")));
    ck_assert(!config_limit_applies(limit, SPAN("/v1/completions")));

    static const enum limit_by others[] = {LIMIT_BY_ROUTE, LIMIT_BY_MODEL, LIMIT_BY_USER, LIMIT_BY_CONSTANT};
    static const bool headers[] = {true, false, true, true};
    for (size_t i = 0; i < COUNT(others); i++) {
        ck_assert_int_eq(limit[i + 1].by, others[i]);
        ck_assert_int_eq(limit[i + 1].headers, headers[i]);
    }
    ck_assert_int_eq(limit[1].strategy, LIMIT_FIXED_WINDOW);
    ck_assert_int_eq(limit[2].on_redis_failure, LIMIT_FAILURE_MEMORY);
    ck_assert_int_eq(limit[3].on_redis_failure, LIMIT_FAILURE_DENY);
    ck_assert_int_eq(limit[4].on_redis_failure, LIMIT_FAILURE_ALLOW);
    ck_assert_str_eq(config_limit_by_name(LIMIT_BY_API_KEY), "api_key");
    ck_assert_str_eq(config_limit_by_name(LIMIT_BY_CONSTANT), "constant");

    ck_assert_uint_eq(config->routes[0].depend_count, 4);
    ck_assert_int_eq(config->routes[0].depends[0], DEPEND_LIMIT);
    ck_assert_str_eq(config->routes[0].depend_limit[0], "per-ip.2");
    ck_assert_ptr_null(config->routes[0].depend_limit[1]);
    ck_assert_str_eq(config->routes[0].depend_limit[2], "per_key");
    ck_assert_int_eq(config->routes[1].depends[2], DEPEND_LIMIT);
    ck_assert_ptr_null(config->routes[1].depend_limit[2]);
    ck_assert_uint_eq(config->limit_memory, 1 << 20);
    ck_assert_uint_eq(config->max_streams, 1000);
    ck_assert(!config->count_hits);
    config_release(config);
}
END_TEST

START_TEST(limits_are_by_key_where_there_are_keys)
{
    const struct given open = {.yaml = LIMIT};
    struct config *config = load_ok(&open);

    ck_assert_int_eq(config->limits[0].by, LIMIT_BY_ADDRESS);
    config_release(config);
    /* Wherever the keys come from. */
    const struct given keyed = {.yaml = LIMIT, .env = {"WEIR_API_KEY", "secret-1"}};
    config = load_ok(&keyed);
    ck_assert_int_eq(config->limits[0].by, LIMIT_BY_API_KEY);
    config_release(config);

    const struct given option = {.yaml = LIMIT "    by: user\n",
                                 .env = {"WEIR_LIMIT", "x"},
                                 .options = {KEYS("secret-1"), .limit = "5/minute, 10/hour"}};
    config = load_ok(&option);
    ck_assert_uint_eq(config->limit_count, 1);
    ck_assert_str_eq(config->limits[0].name, "default");
    ck_assert_uint_eq(config->limits[0].count, 2);
    ck_assert_int_eq(config->limits[0].by, LIMIT_BY_API_KEY);
    ck_assert_int_eq(config->limits[0].strategy, LIMIT_MOVING_WINDOW);
    ck_assert_uint_eq(config->limits[0].cost, 1);
    ck_assert(config->limits[0].headers);
    ck_assert_int_eq(config->limits[0].line, 0);
    config_release(config);
    const struct given variable = {.env = {"WEIR_LIMIT", "5/minute, 10/hour"}};
    config = load_ok(&variable);
    ck_assert_uint_eq(config->limits[0].count, 2);
    ck_assert_int_eq(config->limits[0].by, LIMIT_BY_ADDRESS);
    config_release(config);
}
END_TEST

START_TEST(usage_is_asked_for_where_tokens_are_counted)
{
    static const struct {
        const char *yaml;
        enum backend_usage usage;
    } cases[] = {
        {"", BACKEND_USAGE_READ},
        {"limits: {a: {limit: 5/minute}}\n", BACKEND_USAGE_READ},
        {"limits: {a: {limit: 5/minute}, b: {limit: 9/hour; 5 tokens/minute}}\n", BACKEND_USAGE_ASK},
        {"keys: [{name: a, key: 0123456789abcdef, limit: 5 tokens/day}]\n", BACKEND_USAGE_ASK},
        {"keys: [{name: a, key: 0123456789abcdef, limit: 5/day}]\n", BACKEND_USAGE_READ},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char yaml[400];
        snprintf(yaml, sizeof(yaml),
                 "%sbackends: [{url: http://a}, {url: http://b, usage: read}, {url: http://c, usage: ask}]\n",
                 cases[i].yaml);
        struct config *config = load_yaml(yaml);
        ck_assert_int_eq(config->backends[0].usage, cases[i].usage);
        ck_assert_int_eq(config->backends[1].usage, BACKEND_USAGE_READ);
        ck_assert_int_eq(config->backends[2].usage, BACKEND_USAGE_ASK);
        config_release(config);
    }
    static const struct given option = {.options = {.limit = "5 tokens/minute"}};
    struct config *config = load_ok(&option);
    ck_assert_int_eq(config->backends[0].usage, BACKEND_USAGE_ASK);
    config_release(config);
}
END_TEST

START_TEST(at_most_64_limits)
{
    char *text = NULL, error[256];
    size_t size;
    static const char *const none[] = {NULL};
    const struct config_options options = {0};

    environment = none;
    for (int limits = 64; limits <= 65; limits++) {
        FILE *stream = open_memstream(&text, &size);
        fputs("limits:\n", stream);
        for (int i = 0; i < limits; i++)
            fprintf(stream, "  l%d: {limit: 1/day, routes: [%s]}\n", i, i % 2 != 0 ? "/v1/models" : "/v1/images/*");
        fclose(stream);
        write_file("weir.yaml", text, size);
        struct config *config = config_load(&options, fake_getenv, error, sizeof(error));
        ck_assert_msg((config != NULL) == (limits == 64), "%s", error);
        config_release(config);
        free(text);
    }
    ck_assert_str_eq(error, "weir.yaml:2: \"limits\" has too many limits, expected at most 64");
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("config_limits");
    tcase_add_unchecked_fixture(tests, prepare, clean_up);
    tcase_add_test(tests, reads_limits);
    tcase_add_test(tests, limits_are_by_key_where_there_are_keys);
    tcase_add_test(tests, usage_is_asked_for_where_tokens_are_counted);
    tcase_add_test(tests, at_most_64_limits);
    return run_suite("config_limits", tests);
}
