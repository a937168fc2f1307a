/* Limits, the cache, and the order of what a route depends on. */
#include "gateway/config_refusals.h"

#define CACHE "cache: {ttl: 10m}\n"
#define TEN "1/day;1/day;1/day;1/day;1/day;1/day;1/day;1/day;1/day;1/day"
#define LONG_SHOWN "a23456789-123456789-123456789-123456789-123456789-123456789-1234"
#define LONG LONG_SHOWN "5"
#define LIMIT_NAME(name)                                                                                               \
    "weir.yaml:2: \"limits." name "\" has no usable name, expected 1 to 64 letters, digits, \"_\", \"-\" and \".\""

static const struct bad bad_yaml[] = {
    /* limits */
    YAML("limits: {}\n", "weir.yaml:1: \"limits\" is empty, expected at least one limit (leave it out for none)"),
    YAML("limits: 60/minute\n", "weir.yaml:1: \"limits\" is a single value, expected a mapping (\"key: value\")"),
    YAML("limits:\n  a: 60/minute\n",
         "weir.yaml:2: \"limits.a\" is a single value, expected a mapping (\"key: value\")"),
    YAML("limits:\n  a b: {limit: 60/minute}\n", LIMIT_NAME("a b")),
    YAML("limits:\n  \"\": {limit: 60/minute}\n", LIMIT_NAME("")),
    YAML("limits:\n  a:b: {limit: 60/minute}\n", LIMIT_NAME("a:b")),
    YAML("limits:\n  " LONG ": {limit: 60/minute}\n", LIMIT_NAME(LONG_SHOWN)),
    YAML("limits:\n  a: {limit: 1/minute}\n  a: {limit: 1/minute}\n",
         "weir.yaml:3: \"a\" stands here again, first in line 2"),
    YAML("limits:\n  a: {by: address}\n",
         "weir.yaml:2: \"limits.a\" has no \"limit\", expected such as 60/minute;1000/hour"),
    YAML("limits:\n  a:\n    limti: 1/minute\n",
         "weir.yaml:3: unknown key \"limti\" in \"limits.a\"; did you mean \"limit\"?"),
    YAML("limits:\n  a:\n    something: 1\n", "weir.yaml:3: unknown key \"something\" in \"limits.a\", expected one of "
                                              "limit, by, strategy, routes, per, cost, "
                                              "message, headers, on_redis_failure, exempt"),
    YAML(LIMIT "    on_redis_failure: open\n",
         "weir.yaml:4: \"limits.a.on_redis_failure\" is \"open\", expected memory or allow or deny"),
    YAML(LIMIT "    by: key\n",
         "weir.yaml:4: \"limits.a.by\" is \"key\", expected api_key, address, route, model, user "
         "or constant"),
    YAML(LIMIT "    strategy: leaky\n", "weir.yaml:4: \"limits.a.strategy\" is \"leaky\", expected "
                                        "fixed_window, moving_window or sliding_window_counter"),
    YAML(LIMIT "    headers: never\n", "weir.yaml:4: \"limits.a.headers\" is \"never\", expected true or false"),
    YAML(LIMIT "    cost: 0\n", "weir.yaml:4: \"limits.a.cost\" is \"0\", expected a number from 1 to "
                                "1000000000000000"),
    YAML(LIMIT "    cost: 61\n",
         "weir.yaml:2: the limit \"a\" has a cost of 61, which 60 can never pay for, expected at most 60"),
    YAML(LIMIT "    message: \"\"\n", "weir.yaml:4: \"limits.a.message\" is empty, expected a value"),
    YAML("limits:\n  a: {limit: 60 tokens/minute, cost: 2}\n",
         "weir.yaml:2: the limit \"a\" counts tokens, and its \"cost\" means something for requests only, expected "
         "none"),
    YAML("limits:\n  a: {limit: 60 tokens/minute, message: No}\n",
         "weir.yaml:2: the limit \"a\" counts tokens, and its \"message\" means something for requests only, expected "
         "none"),
    YAML(LIMIT "    routes: []\n",
         "weir.yaml:4: \"limits.a.routes\" is empty, expected at least one item (leave it out "
         "for every model route)"),
    YAML(LIMIT "    routes: [/v1/*, /v1/caht]\n",
         "weir.yaml:2: the limit \"a\" names the route \"/v1/caht\", which does not exist, expected such as "
         "/v1/chat/completions or /v1/*"),
    YAML(LIMIT "    routes: [/v1/embeddings]\nroutes:\n  - {path: /v1/embeddings, depends: [api_key, validate]}\n",
         "weir.yaml:2: the limit \"a\" names the route \"/v1/embeddings\", whose \"depends\" in line 6 have no "
         "\"limit\", expected it there"),
    YAML(LIMIT "    routes: [/v1/embeddings]\n  b: {limit: 1/day}\nroutes:\n  - {path: /v1/embeddings, depends: "
               "[\"limit:b\"]}\n",
         "weir.yaml:2: the limit \"a\" names the route \"/v1/embeddings\", whose \"depends\" in line 7 have no "
         "\"limit\", expected it there"),
    YAML(KEY "limits:\n  a: {limit: 1/day, routes: [/metrics]}\n",
         "weir.yaml:3: the limit \"a\" is by api_key and names the public route \"/metrics\", expected another \"by\""),
    YAML(LIMIT "    exempt: {}\n", "weir.yaml:4: \"limits.a.exempt\" is empty, expected \"keys\" or \"addresses\""),
    YAML(LIMIT "    exempt: {keys: []}\n",
         "weir.yaml:4: \"limits.a.exempt.keys\" is empty, expected at least one item (leave it out for none)"),
    YAML(LIMIT "    exempt: {addresses: []}\n",
         "weir.yaml:4: \"limits.a.exempt.addresses\" is empty, expected at least one item (leave it out for none)"),
    YAML(LIMIT "    exempt: {addresses: [10.0.0.0/8, lan]}\n",
         "weir.yaml:4: \"limits.a.exempt.addresses[1]\" is \"lan\", expected a network such as 10.0.0.0/8 or fd00::/8, "
         "or "
         "an address"),
    YAML(LIMIT "    exempt: {routes: [/]}\n",
         "weir.yaml:4: unknown key \"routes\" in \"limits.a.exempt\", expected one of keys, addresses"),
    YAML(LIMIT "    exempt: {keys: [a, b]}\n" KEY,
         "weir.yaml:2: the limit \"a\" exempts the key \"b\", which does not exist, expected the name of a key"),
    YAML("limits:\n  a: {limit: " TEN "}\n  b: {limit: " TEN "}\n  c: {limit: " TEN "}\n  d: {limit: " TEN "}\n",
         "weir.yaml:5: the limit \"d\" is one too many: a request to \"/v1/chat/completions\" would have to pass 40 "
         "limits, expected at most 32"),
    /* With a key's own in place of those by key. */
    YAML("limits:\n  a: {limit: " TEN "}\n  b: {limit: " TEN ", by: route}\n  c: {limit: " TEN ", by: user}\n"
         "keys: [{name: a, key: secret-1, limit: " TEN ";1/day;1/day;1/day}]\n",
         "weir.yaml:4: the limit \"c\" is one too many: a request to \"/v1/chat/completions\" would have to pass 33 "
         "limits, expected at most 32"),
    YAML("limit_memory: 1KiB\n", "weir.yaml:1: \"limit_memory\" is \"1KiB\", expected a size from 128KiB to 64GiB"),
    YAML("max_streams: 0\n", "weir.yaml:1: \"max_streams\" is \"0\", expected a number from 1 to 100000000"),
    YAML("max_streams: many\n", "weir.yaml:1: \"max_streams\" is \"many\", expected a number from 1 to 100000000"),
    YAML("count_hits: 2\n", "weir.yaml:1: \"count_hits\" is \"2\", expected true or false"),
    YAML("keys: [{name: a, key: secret-1, max_streams: -1}]\n",
         "weir.yaml:1: \"keys[0].max_streams\" is \"-1\", expected a number from 1 to 100000000"),

    /* cache */
    YAML("cache: {}\n", "weir.yaml:1: \"cache\" has no \"ttl\", expected such as 10m"),
    YAML("\ncache: on\n", "weir.yaml:2: \"cache\" is a single value, expected a mapping (\"key: value\")"),
    YAML("cache: {ttl: 0s}\n", "weir.yaml:1: \"cache.ttl\" is \"0s\", expected a duration longer than 0"),
    YAML("cache: {ttl: 10}\n", "weir.yaml:1: \"cache.ttl\" is \"10\", " DURATION),
    YAML("cache: {tll: 1s}\n", "weir.yaml:1: unknown key \"tll\" in \"cache\"; did you mean \"ttl\"?"),
    YAML("cache: {something: 1s}\n", "weir.yaml:1: unknown key \"something\" in \"cache\", expected one of ttl, "
                                     "max_bytes, max_entry, scope, for, mode, memory_ttl"),
    YAML("cache: {max_bytes: 1KiB}\n",
         "weir.yaml:1: \"cache.max_bytes\" is \"1KiB\", expected a size from 1MiB to 1024GiB"),
    YAML("cache: {max_entry: 1}\n", "weir.yaml:1: \"cache.max_entry\" is \"1\", expected a size from 1KiB to 1GiB"),
    YAML("cache: {ttl: 1s, max_entry: 3MiB, max_bytes: 2MiB}\n",
         "weir.yaml:1: \"cache\" has a \"max_entry\" above \"max_bytes\", expected at most that"),
    YAML("cache: {ttl: 10s, memory_ttl: 11s}\n",
         "weir.yaml:1: \"cache\" has a \"memory_ttl\" above \"ttl\", expected at most that"),
    YAML("cache: {ttl: 10s, memory_ttl: 0s}\n",
         "weir.yaml:1: \"cache.memory_ttl\" is \"0s\", expected a duration longer than 0"),
    YAML("cache: {scope: all}\n", "weir.yaml:1: \"cache.scope\" is \"all\", expected key or shared"),
    YAML("cache: {for: me}\n", "weir.yaml:1: \"cache.for\" is \"me\", expected all or deterministic"),
    YAML("cache: {mode: off}\n", "weir.yaml:1: \"cache.mode\" is \"off\", expected on or opt_in"),

    /* the order of dependencies */
    YAML("routes: [{path: /v1/messages, depends: [limit, limit]}]\n",
         "weir.yaml:1: \"routes[0].depends[1]\" is \"limit\" again, expected each dependency once"),
    YAML(LIMIT "routes: [{path: /v1/messages, depends: [\"limit:a\", \"limit:a\"]}]\n",
         "weir.yaml:4: \"routes[0].depends[1]\" is \"limit:a\" again, expected each dependency once"),
    YAML("routes: [{path: /v1/messages, depends: [\"limit:1\", \"limit:2\", \"limit:3\", \"limit:4\", \"limit:5\", "
         "\"limit:6\", \"limit:7\", \"limit:8\", \"limit:9\"]}]\n",
         "weir.yaml:1: \"routes[0].depends[8]\" is one too many, expected at most 8"),
    YAML("routes: [{path: /v1/messages, depends: [\"limit:a\"]}]\n",
         "weir.yaml:1: the route \"/v1/messages\" depends on \"limit:a\", which does not exist, expected no \"limit:\" "
         "without \"limits\""),
    YAML(LIMIT "  b: {limit: 1/day}\nroutes: [{path: /v1/messages, depends: [\"limit:\"]}]\n",
         "weir.yaml:5: the route \"/v1/messages\" depends on \"limit:\", which does not exist, expected limit:a or "
         "limit:b"),
    YAML(LIMIT "routes: [{path: /v1/messages, depends: [limit, \"limit:a\"]}]\n",
         "weir.yaml:4: the route \"/v1/messages\" depends on \"limit:a\", which \"limit\" runs there too, expected one "
         "of "
         "them"),
    YAML(KEY LIMIT "routes: [{path: /v1/messages, depends: [limit, api_key]}]\n",
         "weir.yaml:5: the route \"/v1/messages\" runs the limit \"a\", which is by api_key, before \"api_key\", "
         "expected "
         "\"api_key\" first"),
    YAML(KEY LIMIT "routes: [{path: /v1/messages, depends: [\"limit:a\", api_key]}]\n",
         "weir.yaml:5: the route \"/v1/messages\" runs the limit \"a\", which is by api_key, before \"api_key\", "
         "expected "
         "\"api_key\" first"),
    YAML(KEY LIMIT "routes: [{path: /v1/messages, depends: [public, limit]}]\n",
         "weir.yaml:5: the route \"/v1/messages\" runs the limit \"a\", which is by api_key, without \"api_key\", "
         "expected "
         "another \"by\""),
    YAML(LIMIT "    by: api_key\nroutes: [{path: /v1/messages, depends: [limit]}]\n",
         "weir.yaml:5: the route \"/v1/messages\" runs the limit \"a\", which is by api_key, without \"api_key\", "
         "expected "
         "another \"by\""),
    YAML("keys: [{name: a, key: secret-1, limit: 1/day}]\nroutes: [{path: /v1/messages, depends: [limit, api_key]}]\n",
         "weir.yaml:2: the route \"/v1/messages\" has \"limit\" before \"api_key\" although the key \"a\" has a limit "
         "of "
         "its own, expected \"api_key\" first"),
    YAML("keys: [{name: a, key: secret-1, max_streams: 1}]\nlimits: {ip: {limit: 1/day, by: address}}\n"
         "routes: [{path: /v1/messages, depends: [\"limit:ip\", api_key]}]\n",
         "weir.yaml:3: the route \"/v1/messages\" has no \"limit\" behind \"api_key\" although the key \"a\" has "
         "\"max_streams\", expected \"api_key\" first"),
    YAML(LIMIT "routes: [{path: /v1/messages, depends: [limit, validate, api_key]}]\n",
         "weir.yaml:4: the route \"/v1/messages\" has something before \"api_key\", expected \"api_key\" first"),
    YAML(CACHE KEY "routes: [{path: /v1/messages, depends: [cache, api_key]}]\n",
         "weir.yaml:3: the route \"/v1/messages\" has \"cache\" before \"api_key\", expected \"api_key\" first (or the "
         "cache's scope: shared)"),
    YAML(CACHE "routes: [{path: /v1/messages, depends: [cache, validate]}]\n",
         "weir.yaml:2: the route \"/v1/messages\" has \"cache\" before \"validate\", expected \"cache\" behind it"),
    YAML(CACHE "routes: [{path: /v1/messages, depends: [validate, cache, limit]}]\n",
         "weir.yaml:2: the route \"/v1/messages\" has \"cache\" before a limit, expected \"cache\" behind it"),
    YAML(LIMIT CACHE "routes: [{path: /v1/messages, depends: [cache, \"limit:a\"]}]\n",
         "weir.yaml:5: the route \"/v1/messages\" has \"cache\" before a limit, expected \"cache\" behind it"),
    YAML(CACHE "routes: [{path: /v1/models, depends: [cache]}]\n",
         "weir.yaml:2: the route \"/v1/models\" has no answers that \"cache\" could keep, expected no \"cache\""),
    YAML(CACHE "routes: [{path: /v1/audio/*, depends: [cache]}]\n",
         "weir.yaml:2: the route \"/v1/audio/*\" has no answers that \"cache\" could keep, expected no \"cache\""),
    YAML(CACHE "backends: [{url: http://a}]\nroutes: [{path: /tools/*, proxy: a, depends: [cache]}]\n",
         "weir.yaml:3: the route \"/tools/*\" has no answers that \"cache\" could keep, expected no \"cache\""),
};

START_TEST(refuses_bad_policies)
{
    check_bad(&bad_yaml[_i]);
}
END_TEST

/* limit_parse's own words, after the place. */
START_TEST(tells_where_a_limit_does_not_parse)
{
    static const struct bad cases[] = {
        YAML("limits:\n  a:\n    limit: often\n", "weir.yaml:3: \"limits.a.limit\": "),
        YAML("limits:\n  a:\n    limit: 5/minute; 6/minut\n", "weir.yaml:3: \"limits.a.limit\": "),
        YAML("limits:\n  a:\n    limit: \"\"\n", "weir.yaml:3: \"limits.a.limit\": "),
        YAML("keys:\n  - name: a\n    limit: 5\n", "weir.yaml:3: \"keys[0].limit\": "),
        OPTIONS("--limit: ", .limit = "5/fortnight"),
        OPTIONS("--limit: ", .limit = ""),
        ENV("WEIR_LIMIT: ", "WEIR_LIMIT", "5/minute,"),
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        char error[1024], want[1024], text[64] = "";
        struct limit limits[LIMIT_LIST_MAX];
        struct limit_error why;
        size_t count;
        const struct given *given = &cases[i].given;
        ck_assert_ptr_null(load(given, error));
        const char *source = given->options.limit != NULL ? given->options.limit : given->env[1];
        if (given->yaml != NULL) {
            source = strchr(strstr(given->yaml, "limit: "), ' ') + 1;
            source += *source == '"';
            snprintf(text, sizeof(text), "%.*s", (int)strcspn(source, "\"\n"), source);
            source = text;
        }
        ck_assert(!limit_parse(span_of(source), limits, LIMIT_LIST_MAX, &count, &why));
        snprintf(want, sizeof(want), "%s%s", cases[i].error, why.message);
        ck_assert_str_eq(error, want);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("config_refusals_policies");
    tcase_add_unchecked_fixture(tests, prepare, clean_up);
    tcase_add_loop_test(tests, refuses_bad_policies, 0, COUNT(bad_yaml));
    tcase_add_test(tests, tells_where_a_limit_does_not_parse);
    return run_suite("config_refusals_policies", tests);
}
