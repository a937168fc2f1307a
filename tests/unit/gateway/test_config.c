#include "gateway/config.h"
#include "gateway/config_values.h"
#include "gateway/nearest.h"
#include "gateway/processors.h"
#include <arpa/inet.h>
#include <check.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* What a load starts from: the text of ./weir.yaml, variables as NAME, VALUE, …, and options. */
struct given {
    const char *yaml;
    const char *env[7];
    struct config_options options;
};

static const char *const *environment;
static char folder[] = "/tmp/weir-config-XXXXXX";

static char *fake_getenv(const char *name)
{
    for (size_t i = 0; environment[i] != NULL; i += 2) {
        if (strcmp(environment[i], name) == 0)
            return (char *)(uintptr_t)environment[i + 1];
    }
    return NULL;
}

static void write_file(const char *name, const char *text, size_t len)
{
    FILE *file = fopen(name, "w");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, len, file), len);
    ck_assert_int_eq(fclose(file), 0);
}

static struct config *load(const struct given *given, char error[1024])
{
    const char *yaml = given->yaml != NULL ? given->yaml : "";

    environment = given->env;
    error[0] = '\0';
    write_file("weir.yaml", yaml, strlen(yaml));
    return config_load(&given->options, fake_getenv, error, 1024);
}

static struct config *load_ok(const struct given *given)
{
    char error[1024];
    struct config *config = load(given, error);

    ck_assert_msg(config != NULL, "%s", error);
    ck_assert_str_eq(error, "");
    return config;
}

static struct config *load_yaml(const char *yaml)
{
    const struct given given = {.yaml = yaml};

    return load_ok(&given);
}

/* ---- every way to be wrong, and the exact message ---- */

struct bad {
    struct given given;
    const char *error;
};

/* A file alone. */
#define YAML(text, message)                                                                                            \
    {                                                                                                                  \
        {.yaml = (text)}, (message)                                                                                    \
    }
/* Options alone. */
#define OPTIONS(message, ...)                                                                                          \
    {                                                                                                                  \
        {.options = {__VA_ARGS__}}, (message)                                                                          \
    }
#define LISTEN(...) .listen = (const char *[]){__VA_ARGS__}, .listen_count = COUNT(((const char *[]){__VA_ARGS__}))
#define BACKENDS(...) .backends = (const char *[]){__VA_ARGS__}, .backend_count = COUNT(((const char *[]){__VA_ARGS__}))
#define KEYS(...) .api_keys = (const char *[]){__VA_ARGS__}, .api_key_count = COUNT(((const char *[]){__VA_ARGS__}))
#define ENV(message, ...)                                                                                              \
    {                                                                                                                  \
        {.env = {__VA_ARGS__}}, (message)                                                                              \
    }

#define DURATION "expected a duration such as 300ms, 15s, 10m, 1h or 1d"
#define ADDRESS "expected [HOST]:PORT or unix:PATH, such as 127.0.0.1:8080"
#define NO_KEY(address)                                                                                                \
    "no API key is set and " address                                                                                   \
    " can be reached from other machines; require a key with --api-key (WEIR_API_KEY, \"keys\" in the file), or "      \
    "serve everybody with --open (WEIR_OPEN=true)"
#define SHA "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define KEY "keys: [{name: a, key: secret-1}]\n"
#define BACKEND "backends:\n  - url: http://a\n"
#define LIMIT "limits:\n  a:\n    limit: 60/minute\n"
#define CACHE "cache: {ttl: 10m}\n"
#define TEN "1/day;1/day;1/day;1/day;1/day;1/day;1/day;1/day;1/day;1/day"
#define LONG_SHOWN "a23456789-123456789-123456789-123456789-123456789-123456789-1234"
#define LONG LONG_SHOWN "5"
#define LIMIT_NAME(name)                                                                                               \
    "weir.yaml:2: \"limits." name "\" has no usable name, expected 1 to 64 letters, digits, \"_\", \"-\" and \".\""
#define TOP_FIELDS                                                                                                     \
    "listen, trusted_proxies, max_body, body_memory, connections, cors, backends, balance, health, retries, queue, "   \
    "resolve, models, keys, open, "                                                                                    \
    "supervise, routes, workers, log_level, log_format, drain_timeout, sse_ping, early_head, send_timeout, "           \
    "request_timeout, limits, limit_memory, count_hits, max_streams, cache, redis, admin, websocket, "                 \
    "chat"

static const struct bad bad_yaml[] = {
    YAML("- a\n", "weir.yaml:1: the file is a list, expected a mapping (\"key: value\")"),
    YAML("\nhello\n", "weir.yaml:2: the file is a single value, expected a mapping (\"key: value\")"),
    YAML("a: b\n---\nc: d\n", "weir.yaml:2: a second document begins, expected only one"),
    YAML("workers: 1\nlisten: [\n",
         "weir.yaml:3: not YAML: did not find expected node content while parsing a flow node"),
    YAML("a: *b\n", "weir.yaml:1: not YAML: found undefined alias"),
    YAML("workers: 1\n\tlisten: 2\n", "weir.yaml:2: not YAML: a tab, expected blanks"),
    YAML("workers: 1\n\nlisten:\n  -\t- x\n", "weir.yaml:4: not YAML: a tab, expected blanks"),
    YAML("workers: @1\n",
         "weir.yaml:1: not YAML: found character that cannot start any token while scanning for the next token"),
    YAML("keys:\n  - name: a\n   key: \"${KEY}\"\n",
         "weir.yaml:3: not YAML: did not find expected '-' indicator while parsing a block collection"),
    YAML("keys: [{name: a, key: ${KEY}}]\n", "weir.yaml:1: not YAML: did not find expected ',' or '}' while parsing a "
                                             "flow mapping (inside { } and [ ], put a "
                                             "value with ${NAME} in quotes)"),
    YAML("workers: 1\na: \xff\xfe\n", "weir.yaml:2: not YAML: invalid leading UTF-8 octet"),
    YAML("[a]: b\n", "weir.yaml:1: a key that is not a plain string"),
    YAML("\"a\\0b\": b\n", "weir.yaml:1: a key that is not a plain string"),
    YAML("workers: 1\nopen: true\nworkers: 2\n", "weir.yaml:3: \"workers\" stands here again, first in line 1"),
    YAML("lisen: []\n", "weir.yaml:1: unknown key \"lisen\"; did you mean \"listen\"?"),
    YAML("# top\nwrokers: 1\n", "weir.yaml:2: unknown key \"wrokers\"; did you mean \"workers\"?"),
    YAML("something: 1\n", "weir.yaml:1: unknown key \"something\", expected one of " TOP_FIELDS),
    YAML("api_keys: [abcdefgh]\n", "weir.yaml:1: unknown key \"api_keys\", expected one of " TOP_FIELDS),
    YAML("<<: {}\n", "weir.yaml:1: unknown key \"<<\", expected one of " TOP_FIELDS),
    YAML("backends:\n  - name: a\n    ulr: http://a\n",
         "weir.yaml:3: unknown key \"ulr\" in \"backends[0]\"; did you mean \"url\"?"),
    YAML("backends:\n  - url: http://a\n    timeouts: {total: 1s, whole: 1s}\n",
         "weir.yaml:3: unknown key \"whole\" in \"backends[0].timeouts\", expected one of connect, first_token, idle, "
         "total"),
    YAML("listen:\n  - {address: \":1\", port: 1}\n",
         "weir.yaml:2: unknown key \"port\" in \"listen[0]\", expected one of address, tls"),
    YAML("keys:\n  - {nmae: a}\n", "weir.yaml:2: unknown key \"nmae\" in \"keys[0]\"; did you mean \"name\"?"),
    YAML("routes:\n  - {paht: a}\n", "weir.yaml:2: unknown key \"paht\" in \"routes[0]\"; did you mean \"path\"?"),

    /* of later versions */
    YAML("oversee: {}\n", "weir.yaml:1: unknown key \"oversee\", expected one of " TOP_FIELDS),
    YAML("redis: {prefix: a}\n", "weir.yaml:1: \"redis\" has no \"url\", expected such as "
                                 "redis://127.0.0.1:6379/0 (or --redis, WEIR_REDIS)"),
    YAML("redis: {url: /a, prefix: 'a b'}\n",
         "weir.yaml:1: \"redis.prefix\" is no prefix for keys, expected at most 64 printable characters without "
         "blanks, quotes and braces, such as weir:"),
    YAML("redis: {url: /a, timeout: 11s}\n",
         "weir.yaml:1: \"redis.timeout\" is longer than 10s, expected such as 50ms: requests wait for it"),
    YAML("\nredis: [a]\n", "weir.yaml:2: \"redis\" is a list, expected a single value"),
    YAML("redis: {url: /a, db: 1}\n", "weir.yaml:1: unknown key \"db\" in \"redis\", expected one of url, prefix, "
                                      "timeout"),
    YAML("balance: fair\n",
         "weir.yaml:1: \"balance\" is \"fair\", expected round_robin or least_requests or power_of_two or "
         "consistent_hash or prefix or latency"),
    YAML("balance: {policy: prefix, by: user}\n",
         "weir.yaml:1: \"balance\" has \"by\" or \"header\", which mean something to the policy consistent_hash only"),
    YAML("balance: {policy: consistent_hash, by: header}\n",
         "weir.yaml:1: \"balance\" needs \"by: header\" and \"header\" together, expected such as { policy: "
         "consistent_hash, by: header, header: x-session }"),
    YAML("balance: {policy: consistent_hash, header: \"a b\"}\n",
         "weir.yaml:1: \"balance.header\" has no valid header name, expected letters, digits and dashes"),
    YAML(BACKEND "    weight: 0\n", "weir.yaml:3: \"backends[0].weight\" is \"0\", expected a number from 1 to 1000"),
    YAML(BACKEND "    max_concurrent: 0\n",
         "weir.yaml:3: \"backends[0].max_concurrent\" is \"0\", expected a number from 1 to 1000000"),
    YAML(BACKEND "    health: {ejection: 0s}\n",
         "weir.yaml:3: \"backends[0].health.ejection\" is \"0s\", expected a duration longer than 0"),
    YAML("health: {error_rate: 101%}\n",
         "weir.yaml:1: \"health.error_rate\" is \"101%\", expected a number from 0 to 100"),
    YAML("retries: {attempts: 0}\n", "weir.yaml:1: \"retries.attempts\" is \"0\", expected a number from 1 to 100"),
    YAML("queue: {max: many}\n", "weir.yaml:1: \"queue.max\" is \"many\", expected a number from 0 to 1000000"),
    YAML("keys: [{name: a, key: abcdefgh, priority: urgent}]\n",
         "weir.yaml:1: \"keys[0].priority\" is \"urgent\", expected high or normal or low"),
    YAML("models: {best: []}\n", "weir.yaml:1: \"models.best\" is empty, expected at least one model"),
    YAML("models: {best: [\"@b\"]}\n", "weir.yaml:1: \"models.best[0]\" is \"@b\", expected MODEL or MODEL@BACKEND"),
    YAML(BACKEND "models: {best: [m@nobody]}\n",
         "weir.yaml:3: \"models.best\" names the backend \"nobody\", which does not exist, expected the name of one of "
         "\"backends\""),
    YAML(BACKEND "    name: b\n    models: [n]\nmodels: {best: [m@b]}\n",
         "weir.yaml:5: \"models.best\" names \"m\", which that backend never serves, expected one of its \"models\""),
    YAML(BACKEND "    usage: no\n", "weir.yaml:3: \"backends[0].usage\" is \"no\", expected read or ask"),

    /* kinds of values */
    YAML("listen: 127.0.0.1:8080\n", "weir.yaml:1: \"listen\" is a single value, expected a list"),
    YAML("listen: {}\n", "weir.yaml:1: \"listen\" is a mapping, expected a list"),
    YAML("listen:\nopen: true\n", "weir.yaml:1: \"listen\" has no value, expected a list"),
    YAML("listen: []\n", "weir.yaml:1: \"listen\" is empty, expected at least one address"),
    YAML("workers: [1]\n", "weir.yaml:1: \"workers\" is a list, expected a single value"),
    YAML("workers: ~\n", "weir.yaml:1: \"workers\" has no value, expected a single value"),
    YAML("cors: x\n", "weir.yaml:1: \"cors\" is a single value, expected a mapping (\"key: value\")"),
    YAML("log_level: \"a\\0b\"\n", "weir.yaml:1: \"log_level\" holds a NUL character, expected none"),
    YAML("workers: \"\"\n", "weir.yaml:1: \"workers\" is empty, expected a number from 1 to 64"),
    YAML("workers: 0\n", "weir.yaml:1: \"workers\" is \"0\", expected a number from 1 to 64"),
    YAML("workers: 65\n", "weir.yaml:1: \"workers\" is \"65\", expected a number from 1 to 64"),
    YAML("workers: -1\n", "weir.yaml:1: \"workers\" is \"-1\", expected a number from 1 to 64"),
    YAML("open: maybe\n", "weir.yaml:1: \"open\" is \"maybe\", expected true or false"),
    YAML("log_level: loud\n", "weir.yaml:1: \"log_level\" is \"loud\", expected debug, info, warn or error"),
    YAML("log_level: \"a\\nb\"\n", "weir.yaml:1: \"log_level\" is \"a?b\", expected debug, info, warn or error"),
    YAML("log_format: xml\n", "weir.yaml:1: \"log_format\" is \"xml\", expected json or text"),
    YAML("drain_timeout: 30\n", "weir.yaml:1: \"drain_timeout\" is \"30\", " DURATION),
    YAML("sse_ping: -1s\n", "weir.yaml:1: \"sse_ping\" is \"-1s\", " DURATION),
    YAML("early_head: 1.5s\n", "weir.yaml:1: \"early_head\" is \"1.5s\", " DURATION),
    YAML("send_timeout: 0s\n", "weir.yaml:1: \"send_timeout\" is \"0s\", expected a duration longer than 0"),
    YAML("request_timeout: 0s\n", "weir.yaml:1: \"request_timeout\" is \"0s\", expected a duration longer than 0"),
    YAML("max_body: 12 pigs\n",
         "weir.yaml:1: \"max_body\" is \"12 pigs\", expected a size such as 512, 64KiB, 32MiB or 1GiB"),
    YAML("body_memory: 1MiB\n", "\"body_memory\" is less than \"max_body\", expected at least as much"),
    YAML("body_memory: 1KiB\n", "weir.yaml:1: \"body_memory\" is \"1KiB\", expected a size from 1MiB to 1024GiB"),
    YAML("connections: 5\n", "weir.yaml:1: \"connections\" is a single value, expected a mapping (\"key: value\")"),
    YAML("connections: {max: 0}\n", "weir.yaml:1: \"connections.max\" is \"0\", expected a number from 1 to 100000000"),
    YAML("connections: {per_adress: 5}\n",
         "weir.yaml:1: unknown key \"per_adress\" in \"connections\"; did you mean \"per_address\"?"),
    YAML("max_body: 1\n", "weir.yaml:1: \"max_body\" is \"1\", expected a size from 1KiB to 1GiB"),
    YAML("max_body: 2GiB\n", "weir.yaml:1: \"max_body\" is \"2GiB\", expected a size from 1KiB to 1GiB"),

    /* listen */
    YAML("listen: [8080]\n", "weir.yaml:1: \"listen[0]\" is \"8080\", " ADDRESS),
    YAML("listen: [\"a b:1\"]\n", "weir.yaml:1: \"listen[0]\" is \"a b:1\", " ADDRESS),
    YAML("listen: [\"[1.2.3.4]:80\"]\n", "weir.yaml:1: \"listen[0]\" is \"[1.2.3.4]:80\", " ADDRESS),
    YAML("listen: [\"::1:80\"]\n",
         "weir.yaml:1: \"listen[0]\" is \"::1:80\", expected an IPv6 address in brackets, such as [::1]:8080"),
    YAML("listen: [\":0\"]\n",
         "weir.yaml:1: \"listen[0]\" is \":0\", expected [HOST]:PORT with a port from 1 to 65535, or unix:PATH"),
    YAML("listen: [\"a:65536\"]\n",
         "weir.yaml:1: \"listen[0]\" is \"a:65536\", expected [HOST]:PORT with a port from 1 to 65535, or unix:PATH"),
    YAML("listen: [\"unix:\"]\n",
         "weir.yaml:1: \"listen[0]\" is \"unix:\", expected unix: and a path of at most 107 characters"),
    YAML("listen:\n  - \"127.0.0.1:1\"\n  - \"127.0.0.1:1\"\n",
         "weir.yaml:3: \"listen[1]\" is the address of \"listen[0]\" again, expected another one"),
    YAML("listen: [{tls: {cert: a, key: b}}]\n",
         "weir.yaml:1: \"listen[0]\" has no \"address\", expected such as 127.0.0.1:8080"),
    YAML("listen: [{address: \"localhost:1\", tls: {cert: a}}]\n",
         "weir.yaml:1: \"listen[0].tls\" has no \"key\", expected both \"cert\" and \"key\""),
    YAML("listen: [{address: \"localhost:1\", tls: {key: a}}]\n",
         "weir.yaml:1: \"listen[0].tls\" has no \"cert\", expected both \"cert\" and \"key\""),
    YAML("listen: [{address: \"localhost:1\", tls: {cert: \"\", key: b}}]\n",
         "weir.yaml:1: \"listen[0].tls.cert\" is empty, expected a value"),
    YAML("listen: [\"0.0.0.0:8080\"]\n", "weir.yaml:1: " NO_KEY("0.0.0.0:8080")),
    YAML("workers: 1\nlisten:\n  - 127.0.0.1:1\n  - address: 0.0.0.0:8080\n", "weir.yaml:4: " NO_KEY("0.0.0.0:8080")),
    YAML("listen: [\":8080\"]\n", "weir.yaml:1: " NO_KEY(":8080")),
    YAML("listen: [\"127.0.0.1:1\", \"[::]:8080\"]\n", "weir.yaml:1: " NO_KEY("[::]:8080")),
    YAML("listen: [\"127.0.0.1.example.com:1\"]\n", "weir.yaml:1: " NO_KEY("127.0.0.1.example.com:1")),
    YAML("listen: [\"128.0.0.1:1\"]\n", "weir.yaml:1: " NO_KEY("128.0.0.1:1")),

    /* trusted_proxies, cors */
    YAML("trusted_proxies: [10.0.0.0/33]\n",
         "weir.yaml:1: \"trusted_proxies[0]\" is \"10.0.0.0/33\", expected a prefix length from 0 to 32"),
    YAML("trusted_proxies: [\"fd00::/129\"]\n",
         "weir.yaml:1: \"trusted_proxies[0]\" is \"fd00::/129\", expected a prefix length from 0 to 128"),
    YAML("trusted_proxies: [10.0.0.0/8, lan]\n", "weir.yaml:1: \"trusted_proxies[1]\" is \"lan\", expected a network "
                                                 "such as 10.0.0.0/8 or fd00::/8, or an address"),
    YAML("websocket: {origins: []}\n",
         "weir.yaml:1: \"websocket.origins\" is empty, expected at least one origin, or \"*\""),
    YAML("websocket: {ping: 20}\n",
         "weir.yaml:1: \"websocket.ping\" is \"20\", expected a duration such as 300ms, 15s, 10m, 1h or 1d"),
    YAML("websocket: {generations: 0}\n",
         "weir.yaml:1: \"websocket.generations\" is \"0\", expected a number from 1 to 1000"),
    YAML("websocket: {max_message: 1}\n",
         "weir.yaml:1: \"websocket.max_message\" is \"1\", expected a size from 1KiB to 64MiB"),
    YAML("chat: {modle: x}\n", "weir.yaml:1: unknown key \"modle\" in \"chat\"; did you mean \"model\"?"),
    YAML("routes: [{path: /v1/models, query_key: true}]\n",
         "weir.yaml:1: the route \"/v1/models\" may not have \"query_key\", expected it for /ws/chat and its like "
         "alone"),
    YAML("cors: {}\n", "weir.yaml:1: \"cors\" has no \"origins\", expected a list of origins"),
    YAML("cors: {origins: []}\n", "weir.yaml:1: \"cors.origins\" is empty, expected at least one origin, or \"*\""),
    YAML("cors: {origins: [\"https://a/\"]}\n", "weir.yaml:1: \"cors.origins[0]\" is not an origin, expected such as "
                                                "\"https://chat.example.com\" or \"*\""),
    YAML("cors: {origins: [a.example.com]}\n", "weir.yaml:1: \"cors.origins[0]\" is not an origin, expected such as "
                                               "\"https://chat.example.com\" or \"*\""),

    /* backends */
    YAML("backends: []\n",
         "weir.yaml:1: \"backends\" is empty, expected at least one backend (leave it out for the demo "
         "model)"),
    YAML("backends: [{name: a}]\n", "weir.yaml:1: \"backends[0]\" has no \"url\", expected http://, https:// or demo:"),
    YAML("backends: [http://a]\n",
         "weir.yaml:1: \"backends[0]\" is a single value, expected a mapping (\"key: value\")"),
    YAML("backends:\n  - url: ftp://a\n",
         "weir.yaml:2: \"backends[0].url\": unknown scheme \"ftp\", expected http://, https:// or demo:"),
    YAML("backends:\n  - {name: a, url: http://a}\n  - {name: a, url: http://b}\n",
         "weir.yaml:3: \"backends[1]\" has the name \"a\" of \"backends[0]\", expected another one"),
    YAML("backends:\n  - {default: true, url: http://a}\n  - {default: true, url: http://b}\n",
         "weir.yaml:3: \"backends[1]\" is a second default after \"backends[0]\", expected one"),
    YAML("backends: [{name: a b, url: http://a}]\n", "weir.yaml:1: \"backends[0].name\" is \"a b\", expected 1 to 64 "
                                                     "printable ASCII characters without blanks, quotes "
                                                     "and backslashes"),
    YAML(BACKEND "    models: a\n", "weir.yaml:3: \"backends[0].models\" is a single value, expected a list"),
    YAML(BACKEND "    models: []\n",
         "weir.yaml:3: \"backends[0].models\" is empty, expected at least one model (leave it out for all)"),
    YAML(BACKEND "    models: {}\n",
         "weir.yaml:3: \"backends[0].models\" is empty, expected at least one model (leave it out for all)"),
    YAML(BACKEND "    models: [\"\"]\n", "weir.yaml:3: \"backends[0].models[0]\" is empty, expected a value"),
    YAML(BACKEND "    models: [~]\n", "weir.yaml:3: \"backends[0].models[0]\" has no value, expected a single value"),
    YAML(BACKEND "    models:\n      a: \"b*\"\n",
         "weir.yaml:4: \"backends[0].models.a\" is \"b*\", expected the name of one model, without \"*\""),
    YAML(BACKEND "    models: {\"\": b}\n",
         "weir.yaml:3: \"backends[0].models.\" has an empty name, expected the name that clients use"),
    YAML(BACKEND "    models: {a: b, a: c}\n", "weir.yaml:3: \"a\" stands here again, first in line 3"),
    YAML(BACKEND "    api_key: \"\"\n", "weir.yaml:3: \"backends[0].api_key\" is empty, expected a value"),
    YAML(BACKEND "    api_key: \"a\\r\\nb\"\n",
         "weir.yaml:2: \"backends[0]\" has an \"api_key\" with a blank or control character"),
    YAML(BACKEND "    api_key: ${NOT_SET}\n",
         "weir.yaml:3: \"backends[0].api_key\" needs the environment variable NOT_SET, which is not set"),
    YAML(BACKEND "    auth: bearer\n",
         "weir.yaml:3: \"backends[0]\" has \"auth\" but no \"api_key\", expected both or none"),
    YAML(BACKEND "    auth: basic\n",
         "weir.yaml:3: \"backends[0].auth\" is something else, expected bearer, x-api-key or api-key"),
    YAML(BACKEND "    headers: {\"a b\": c}\n",
         "weir.yaml:3: \"backends[0].headers.a b\" has no valid header name, expected letters, digits and dashes"),
    YAML(BACKEND "    headers: {A: \"b\\r\\nC: d\"}\n",
         "weir.yaml:3: \"backends[0].headers.A\" holds a control character, expected one line of text"),
    YAML(BACKEND "    headers: {Host: b}\n",
         "weir.yaml:3: \"backends[0].headers.Host\" cannot be set here, expected another header"),
    YAML(BACKEND "    headers: {A: b, a: c}\n",
         "weir.yaml:3: \"backends[0].headers.a\" is the header \"A\" again, expected it once"),
    YAML(BACKEND "    api_key: k\n    headers: {Authorization: b}\n",
         "weir.yaml:2: \"backends[0]\" sends its \"api_key\" in the header \"authorization\", which \"headers\" sets "
         "too"),
    YAML(BACKEND "    tls: {ca: a}\n",
         "weir.yaml:3: \"backends[0]\" has \"tls\" but its url is clear text, expected https://"),
    YAML("backends: [{url: https://a, tls: {cert: a}}]\n",
         "weir.yaml:1: \"backends[0].tls\" has no \"key\", expected both \"cert\" and \"key\""),
    YAML("backends: [{url: \"demo:\", api_key: a}]\n",
         "weir.yaml:1: \"backends[0]\" has \"api_key\", which means nothing to the demo model"),
    YAML(BACKEND "    timeouts: {connect: 5}\n", "weir.yaml:3: \"backends[0].timeouts.connect\" is \"5\", " DURATION),

    /* variables */
    YAML("workers: ${\n",
         "weir.yaml:1: \"workers\" has a \"${\" that no variable follows, expected ${NAME} ($${ stands for "
         "\"${\" itself)"),
    YAML("workers: ${A:-1}\n",
         "weir.yaml:1: \"workers\" has a \"${\" that no variable follows, expected ${NAME} ($${ stands "
         "for \"${\" itself)"),
    YAML("workers: ${1}\n",
         "weir.yaml:1: \"workers\" has a \"${\" that no variable follows, expected ${NAME} ($${ stands for "
         "\"${\" itself)"),
    YAML("workers: $${A}\n", "weir.yaml:1: \"workers\" is \"$${A}\", expected a number from 1 to 64"),

    /* keys */
    YAML("keys: []\n", "weir.yaml:1: \"keys\" is empty, expected at least one key"),
    YAML("keys: [{key: secret-1}]\n", "weir.yaml:1: \"keys[0]\" has no \"name\", expected one for logs and metrics"),
    YAML("keys: [{name: a}]\n", "weir.yaml:1: \"keys[0]\" has neither \"key\" nor \"hash\", expected one of them"),
    YAML("keys: [{name: a, key: secret-1, hash: \"" SHA "\"}]\n",
         "weir.yaml:1: \"keys[0]\" has both \"key\" and \"hash\", expected one of them"),
    YAML("keys: [{name: a, key: \"\"}]\n",
         "weir.yaml:1: \"keys[0].key\" is an empty key, expected at least 8 characters"),
    YAML("keys: [{name: a, key: short-1}]\n",
         "weir.yaml:1: \"keys[0].key\" is too short for a key, expected at least 8 characters"),
    YAML("keys: [{name: a, key: \"with blank\"}]\n",
         "weir.yaml:1: \"keys[0].key\" holds a blank or control character, expected a key without"),
    YAML("keys: [{name: a, key: \"control\\x7f\"}]\n",
         "weir.yaml:1: \"keys[0].key\" holds a blank or control character, expected a key without"),
    YAML("keys: [{name: a, hash: \"sha256:9f\"}]\n", "weir.yaml:1: \"keys[0].hash\" is not a hash, expected "
                                                     "\"sha256:\" and 64 hexadecimal digits (make one with `weir "
                                                     "keys hash`)"),
    YAML("keys: [{name: a, key: \"${NOT_SET}\"}]\n",
         "weir.yaml:1: \"keys[0].key\" needs the environment variable NOT_SET, which is not set"),
    YAML("keys:\n  - {name: a, key: secret-1}\n  - {name: a, key: secret-2}\n",
         "weir.yaml:3: the key \"a\" has the same name as the key \"a\" in line 2, expected another one"),
    YAML("keys:\n  - {name: b, key: secret-1}\n  - {name: a, key: secret-1}\n",
         "weir.yaml:3: the key \"a\" has the same secret as the key \"b\" in line 2, expected another one"),

    /* administration */
    YAML("admin: {}\n", "weir.yaml:1: \"admin\" has no \"keys\", expected at least one key"),
    YAML("admin: {listen: \":1\"}\n", "weir.yaml:1: \"admin\" has no \"keys\", expected at least one key"),
    YAML("admin: {keys: []}\n", "weir.yaml:1: \"admin.keys\" is empty, expected at least one key"),
    YAML("admin: {listen: 8080, keys: [{name: a, key: abcdefgh}]}\n",
         "weir.yaml:1: \"admin.listen\" is \"8080\", " ADDRESS),
    YAML("admin: {keys: [{name: a}]}\n",
         "weir.yaml:1: \"admin.keys[0]\" has neither \"key\" nor \"hash\", expected one of them"),
    YAML("admin: {keys: [{key: abcdefgh}]}\n", "weir.yaml:1: \"admin.keys[0]\" has no \"name\", expected one for logs"),
    YAML("admin: {keys: [{name: a, key: abcdefgh, models: [b]}]}\n",
         "weir.yaml:1: unknown key \"models\" in \"admin.keys[0]\", expected one of name, key, hash"),
    YAML("admin:\n  keys:\n  - {name: a, key: abcdefgh}\n  - {name: a, key: abcdefgi}\n",
         "weir.yaml:4: the admin key \"a\" has the same name as the one in line 3, expected another"),
    YAML("admin:\n  keys:\n  - {name: a, key: abcdefgh}\n  - {name: b, key: abcdefgh}\n",
         "weir.yaml:4: the admin key \"b\" has the same secret as the one in line 3, expected another"),
    YAML("keys: [{name: k, key: abcdefgh}]\nadmin: {keys: [{name: a, key: abcdefgh}]}\n",
         "weir.yaml:2: the admin key \"a\" is the API key \"k\" too, expected another secret"),
    YAML("listen: [\"127.0.0.1:9\"]\nadmin: {listen: \"127.0.0.1:9\", keys: [{name: a, key: abcdefgh}]}\n",
         "weir.yaml:2: admin's address 127.0.0.1:9 is listened on for clients too, expected another"),
    YAML("admin: {keys: [{name: a, key: abcdefgh}]}\nroutes: [{path: /admin/cache/purge, depends: [public]}]\n",
         "weir.yaml:2: the route \"/admin/cache/purge\" is for admin keys and cannot be changed, expected another "
         "route"),
    YAML("keys: [{name: a, key: secret-1, models: []}]\n",
         "weir.yaml:1: \"keys[0].models\" is empty, expected at least one item (leave it out for all)"),
    YAML("keys:\n  - {name: a, key: secret-1, routes: [/v1/chat]}\n",
         "weir.yaml:2: the key \"a\" names the route \"/v1/chat\", which does not exist, expected such as "
         "/v1/chat/completions or /v1/*"),
    YAML("keys: [{name: a, key: secret-1, expires: tomorrow}]\n",
         "weir.yaml:1: \"keys[0].expires\" is \"tomorrow\", expected a date such as 2027-01-31 or a time such as "
         "2027-01-31T12:00:00Z"),
    YAML("keys: [{name: a, key: secret-1, expires: 2027-02-29}]\n",
         "weir.yaml:1: \"keys[0].expires\" is \"2027-02-29\", expected a date such as 2027-01-31 or a time such as "
         "2027-01-31T12:00:00Z"),

    /* routes */
    YAML("routes: [{depends: [public]}]\n",
         "weir.yaml:1: \"routes[0]\" has no \"path\", expected such as /v1/chat/completions"),
    YAML("routes: [{path: /v1/models}]\n",
         "weir.yaml:1: \"routes[0]\" says nothing about its path, expected \"depends\", \"proxy\" or \"timeouts\""),
    YAML("routes:\n  - {path: /v1/models, depends: [public]}\n  - {path: /v1/models, depends: [api_key]}\n",
         "weir.yaml:3: \"routes[1]\" has the path of \"routes[0]\", expected another one"),
    YAML("\nroutes: [{path: /v1/chat/completion, depends: [public]}]\n",
         "weir.yaml:2: the route \"/v1/chat/completion\" does not exist; did you mean /v1/chat/completions, expected a "
         "built-in one, or a prefix with \"proxy\""),
    YAML("routes: [{path: /entirely/elsewhere, depends: [public]}]\n",
         "weir.yaml:1: the route \"/entirely/elsewhere\" does not exist, expected a built-in one, or a prefix with "
         "\"proxy\""),
    YAML("routes: [{path: /v1/models, depends: [apikey]}]\n",
         "weir.yaml:1: \"routes[0].depends[0]\" is \"apikey\", expected public or api_key or validate or limit or "
         "cache"),
    YAML("routes: [{path: /v1/models, depends: [api_key, api_key]}]\n",
         "weir.yaml:1: \"routes[0].depends[1]\" is \"api_key\" again, expected each dependency once"),
    YAML("routes: [{path: /v1/models, depends: [public, api_key]}]\n",
         "weir.yaml:1: the route \"/v1/models\" depends on \"public\" and \"api_key\", expected one of them"),
    YAML("routes: [{path: /v1/messages, depends: [validate, api_key]}]\n",
         "weir.yaml:1: the route \"/v1/messages\" has something before \"api_key\", expected \"api_key\" first"),
    YAML("routes: [{path: /v1/models, depends: [validate]}]\n",
         "weir.yaml:1: the route \"/v1/models\" has no body that \"validate\" knows, expected no \"validate\""),
    YAML("routes: [{path: /v1/audio/*, depends: [api_key, validate]}]\n",
         "weir.yaml:1: the route \"/v1/audio/*\" has no body that \"validate\" knows, expected no \"validate\""),
    YAML(KEY "routes: [{path: /v1/messages, depends: [validate]}]\n",
         "weir.yaml:2: the route \"/v1/messages\" needs no key although keys are configured, expected \"api_key\", or "
         "\"public\" if that is meant"),
    YAML(KEY "routes: [{path: /livez, depends: []}]\n", "weir.yaml:2: the route \"/livez\" needs no key although keys "
                                                        "are configured, expected \"api_key\", or \"public\" if "
                                                        "that is meant"),
    YAML(KEY "backends: [{url: http://a}]\nroutes:\n  - {path: /tools/*, proxy: a, depends: []}\n",
         "weir.yaml:4: the route \"/tools/*\" needs no key although keys are configured, expected \"api_key\", or "
         "\"public\" "
         "if that is meant"),
    YAML("routes: [{path: /tools/*, proxy: a, depends: [validate]}]\nbackends: [{url: http://a}]\n",
         "weir.yaml:1: the route \"/tools/*\" has no body that \"validate\" knows, expected no \"validate\""),
    YAML("routes: [{path: /tools, proxy: demo}]\n",
         "weir.yaml:1: the route \"/tools\" has a \"proxy\", expected a prefix that ends in /*, such as /tools/*"),
    YAML("routes: [{path: /*, proxy: demo}]\n",
         "weir.yaml:1: the route \"/*\" has a \"proxy\", expected a prefix that ends in /*, such as /tools/*"),
    YAML("routes: [{path: tools/*, proxy: demo}]\n", "weir.yaml:1: the route \"tools/*\" has a \"proxy\", expected a "
                                                     "prefix that ends in /*, such as /tools/*"),
    YAML("routes: [{path: /v1/models, proxy: demo}]\n", "weir.yaml:1: the route \"/v1/models\" has a \"proxy\", "
                                                        "expected a prefix that ends in /*, such as /tools/*"),
    YAML(
        "routes: [{path: /v1/*, proxy: demo}]\n",
        "weir.yaml:1: the route \"/v1/*\" would hide the built-in route /v1/chat/completions, expected another prefix"),
    YAML("routes: [{path: /v1/audio/*, proxy: demo}]\n",
         "weir.yaml:1: the route \"/v1/audio/*\" would hide the built-in route /v1/audio/*, expected another prefix"),
    YAML("routes: [{path: /v1/audio/x/*, proxy: demo}]\n",
         "weir.yaml:1: the route \"/v1/audio/x/*\" would hide the built-in route /v1/audio/*, expected another prefix"),
    YAML("routes: [{path: /chat/*, proxy: demo}]\n", "weir.yaml:1: the route \"/chat/*\" would hide the built-in route "
                                                     "/v1/chat/completions, expected another prefix"),
    YAML("routes: [{path: /a/../*, proxy: demo}]\n",
         "weir.yaml:1: the route \"/a/../*\" is not a plain prefix, expected such as /tools/*"),
    YAML("routes: [{path: /a*/*, proxy: demo}]\n",
         "weir.yaml:1: the route \"/a*/*\" is not a plain prefix, expected such as /tools/*"),
    YAML("routes: [{path: /tools/*, proxy: vllm}]\nbackends: [{url: http://a}, {url: http://b}]\n",
         "weir.yaml:1: the route \"/tools/*\" goes to the backend \"vllm\", which does not exist, expected a or b"),
    YAML("routes: [{path: /tools/*, proxy: demo}]\n", "weir.yaml:1: the route \"/tools/*\" goes to the demo model, "
                                                      "which has nothing to proxy, expected another backend"),

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

static const struct bad bad_inputs[] = {
    OPTIONS("cannot read nowhere.yaml: No such file or directory", .file = "nowhere.yaml"),
    OPTIONS("cannot read /: Is a directory", .file = "/"),
    OPTIONS("--listen is \"8080\", " ADDRESS, LISTEN("8080")),
    OPTIONS(NO_KEY("0.0.0.0:8080"), LISTEN("127.0.0.1:1", "0.0.0.0:8080")),
    OPTIONS("the address [::1]:1 is listened on twice, expected once", LISTEN("[::1]:1", "[::1]:1")),
    OPTIONS("--tls-cert is given without --tls-key, expected both", .tls_cert = "a"),
    OPTIONS("--tls-key is given without --tls-cert, expected both", .tls_key = "a"),
    OPTIONS("--tls-key is empty, expected a file", .tls_cert = "a", .tls_key = ""),
    {{.yaml = "listen: [\"localhost:1\"]\n", .options = {.tls_cert = "a", .tls_key = "b"}},
     "--tls-cert applies to --listen addresses and none is given, expected --listen, or \"tls\" under \"listen\" in "
     "the file"},
    OPTIONS("--backend: unknown scheme \"ftp\", expected http://, https:// or demo:", BACKENDS("http://a", "ftp://b")),
    OPTIONS("--api-key is too short for a key, expected at least 8 characters", KEYS("short")),
    OPTIONS("--api-key is an empty key, expected at least 8 characters", KEYS("")),
    OPTIONS(
        "the keys \"key-1\" and \"key-3\" of --api-key (or WEIR_API_KEY) are the same secret, expected different ones",
        KEYS("secret-1", "secret-2", "secret-1")),
    OPTIONS("--workers is \"many\", expected a number from 1 to 64", .workers = "many"),
    OPTIONS("--workers is empty, expected a number from 1 to 64", .workers = ""),
    OPTIONS("--log-level is \"loud\", expected debug, info, warn or error", .log_level = "loud"),
    OPTIONS("--log-format is \"xml\", expected json or text", .log_format = "xml"),
    OPTIONS("--drain-timeout is \"30\", " DURATION, .drain_timeout = "30"),
    OPTIONS("--cache-ttl is \"30\", " DURATION, .cache_ttl = "30"),
    OPTIONS("--cache-ttl is \"0s\", expected a duration longer than 0", .cache_ttl = "0s"),
    OPTIONS("--redis is no address of a Redis: the database is not a number, expected such as 0",
            .redis = "redis://:hush@a/x"),
    ENV("WEIR_REDIS is no address of a Redis: the database is not a number, expected such as 0", "WEIR_REDIS",
        "redis://:hush@a/x"),
    ENV("WEIR_REDIS and WEIR_REDIS_FILE are both set, expected one of them", "WEIR_REDIS", "/a", "WEIR_REDIS_FILE",
        "/b"),
    ENV("WEIR_REDIS_FILE: nothing in no-keys.txt, expected one value a line", "WEIR_REDIS_FILE", "no-keys.txt"),
    ENV("WEIR_REDIS_FILE holds 2 addresses, expected one", "WEIR_REDIS_FILE", "two-redis.txt"),

    ENV("WEIR_LISTEN is \"x\", " ADDRESS, "WEIR_LISTEN", "127.0.0.1:1,x"),
    ENV("WEIR_LISTEN has an empty item, expected values separated by commas", "WEIR_LISTEN", "127.0.0.1:1,"),
    ENV("WEIR_LISTEN is set but empty, expected a value (unset it for the default)", "WEIR_LISTEN", ""),
    ENV(NO_KEY("0.0.0.0:8080"), "WEIR_LISTEN", "0.0.0.0:8080", "WEIR_OPEN", "false"),
    ENV("WEIR_API_KEY is set but empty, expected a value (unset it for the default)", "WEIR_API_KEY", ""),
    ENV("WEIR_API_KEY_FILE is set but empty, expected a value (unset it for the default)", "WEIR_API_KEY_FILE", ""),
    ENV("WEIR_API_KEY is too short for a key, expected at least 8 characters", "WEIR_API_KEY", "secret-1,short"),
    ENV("WEIR_API_KEY and WEIR_API_KEY_FILE are both set, expected one of them", "WEIR_API_KEY", "secret-1",
        "WEIR_API_KEY_FILE", "keys.txt"),
    ENV("WEIR_API_KEY_FILE: cannot read what it names (is it the secret, not a file?): No such file or directory",
        "WEIR_API_KEY_FILE", "nowhere.txt"),
    ENV("WEIR_API_KEY_FILE: nothing in no-keys.txt, expected one value a line", "WEIR_API_KEY_FILE", "no-keys.txt"),
    ENV("WEIR_API_KEY_FILE is too short for a key, expected at least 8 characters", "WEIR_API_KEY_FILE",
        "short-key.txt"),
    ENV("WEIR_API_KEY_FILE: binary-key.txt holds a NUL character, expected text", "WEIR_API_KEY_FILE",
        "binary-key.txt"),
    ENV("WEIR_API_KEY_FILE: cannot read large.txt: it is larger than 1 MiB", "WEIR_API_KEY_FILE", "large.txt"),
    ENV("WEIR_TLS_CERT is given without WEIR_TLS_KEY, expected both", "WEIR_TLS_CERT", "a"),
    ENV("WEIR_BACKEND: no scheme in the url, expected http://, https:// or demo:", "WEIR_BACKEND", "vllm"),
    ENV("WEIR_OPEN is \"maybe\", expected true or false", "WEIR_OPEN", "maybe"),
    ENV("WEIR_WORKERS is \"0\", expected a number from 1 to 64", "WEIR_WORKERS", "0"),
    ENV("WEIR_LOG_LEVEL is \"x\", expected debug, info, warn or error", "WEIR_LOG_LEVEL", "x"),
    ENV("WEIR_LOG_FORMAT is \"x\", expected json or text", "WEIR_LOG_FORMAT", "x"),
    ENV("WEIR_DRAIN_TIMEOUT is \"1\", " DURATION, "WEIR_DRAIN_TIMEOUT", "1"),
    ENV("WEIR_CACHE_TTL is \"x\", " DURATION, "WEIR_CACHE_TTL", "x"),
    ENV("WEIR_LIMIT is set but empty, expected a value (unset it for the default)", "WEIR_LIMIT", ""),
    ENV("WEIR_CONFIG: cannot read nowhere.yaml: No such file or directory", "WEIR_CONFIG", "nowhere.yaml"),
    ENV("WEIR_CONFIG: cannot read large.txt: it is larger than 1 MiB", "WEIR_CONFIG", "large.txt"),

    /* A message never shows what a variable holds. */
    {{.yaml = "workers: ${SECRET}\n", .env = {"SECRET", "hunter2"}},
     "weir.yaml:1: \"workers\" is \"${SECRET}\", expected a number from 1 to 64"},
    {{.yaml = "backends: [{url: \"http://u:${SECRET}@a\"}]\n", .env = {"SECRET", "hunter2"}},
     "weir.yaml:1: \"backends[0].url\": a user name in the url is refused, expected http://HOST:PORT (credentials go "
     "into "
     "\"api_key\" or \"headers\")"},
    /* An option that replaces the file's backends leaves its routes without them. */
    {{.yaml = "backends: [{url: http://a}]\nroutes: [{path: /t/*, proxy: a}]\n", .options = {BACKENDS("http://b")}},
     "weir.yaml:2: the route \"/t/*\" goes to the backend \"a\", which does not exist, expected b"},
    /* The keys may come from elsewhere: the routes still fail closed. */
    {{.yaml = "routes: [{path: /livez, depends: []}]\n", .options = {KEYS("secret-1")}},
     "weir.yaml:1: the route \"/livez\" needs no key although keys are configured, expected \"api_key\", or \"public\" "
     "if that "
     "is meant"},
    {{.yaml = "limits: {a: {limit: \"${SECRET}\"}}\n", .env = {"SECRET", "hunter2"}},
     "weir.yaml:1: \"limits.a.limit\" is \"${SECRET}\", expected limits such as 60/minute;1000/hour"},
    /* --limit replaces all limits of the file, and is by key where there are keys. */
    {{.yaml = LIMIT "routes: [{path: /v1/messages, depends: [\"limit:a\"]}]\n", .options = {.limit = "1/second"}},
     "weir.yaml:4: the route \"/v1/messages\" depends on \"limit:a\", which does not exist, expected limit:default"},
    {{.yaml = "routes: [{path: /v1/messages, depends: [public, limit]}]\n",
      .options = {KEYS("secret-1"), .limit = "1/second"}},
     "weir.yaml:1: the route \"/v1/messages\" runs the limit \"default\", which is by api_key, without \"api_key\", "
     "expected another \"by\""},
    /* What is replaced must be right all the same. */
    {{.yaml = "workers: x\n", .options = {.workers = "2"}},
     "weir.yaml:1: \"workers\" is \"x\", expected a number from 1 to 64"},
};

static void check_bad(const struct bad *bad)
{
    char error[1024];
    struct config *config = load(&bad->given, error);

    ck_assert_msg(config == NULL, "accepted, expected: %s", bad->error);
    ck_assert_str_eq(error, bad->error);
}

START_TEST(refuses_bad_files)
{
    check_bad(&bad_yaml[_i]);
}
END_TEST

START_TEST(refuses_bad_inputs)
{
    check_bad(&bad_inputs[_i]);
}
END_TEST

/* ---- what a good configuration means ---- */

static void check_hash(const unsigned char hash[32], const char *key)
{
    unsigned char want[32];
    unsigned len = sizeof(want);

    EVP_Digest(key, strlen(key), want, &len, EVP_sha256(), NULL);
    ck_assert_mem_eq(hash, want, sizeof(want));
}

START_TEST(has_defaults)
{
    struct config *config = load_yaml("");

    ck_assert_uint_eq(config->listen_count, 1);
    ck_assert_str_eq(config->listen[0].address, "127.0.0.1:8080");
    ck_assert_ptr_null(config->listen[0].tls_cert);
    ck_assert_uint_eq(config->max_body, 32 << 20);
    ck_assert_uint_eq(config->body_memory, 1 << 30);
    ck_assert_uint_eq(config->connections.max, 100000);
    ck_assert_uint_eq(config->connections.per_address, 20000);
    ck_assert_uint_eq(config->backend_count, 1);
    ck_assert_str_eq(config->backends[0].name, "demo");
    ck_assert_int_eq(config->backends[0].url.kind, BACKEND_DEMO);
    ck_assert_uint_eq(config->key_count, 0);
    ck_assert(!config->open);
    ck_assert_uint_eq(config->route_count, 0);
    ck_assert_uint_eq(config->trusted_proxy_count, 0);
    ck_assert_uint_eq(config->cors.count, 0);
    ck_assert_uint_ge(config->workers, 1);
    ck_assert_uint_le(config->workers, CONFIG_WORKERS_MAX);
    ck_assert_int_eq(config->log_level, LOG_INFO);
    ck_assert_uint_eq(config->drain_timeout_us, 30 * SECOND);
    ck_assert_uint_eq(config->sse_ping_us, 15 * SECOND);
    ck_assert_uint_eq(config->early_head_us, 0);
    ck_assert_uint_eq(config->send_timeout_us, 60 * SECOND);
    ck_assert_uint_eq(config->request_timeout_us, 60 * SECOND);
    ck_assert_uint_eq(config->limit_count, 0);
    ck_assert_uint_eq(config->limit_memory, 64 << 20);
    ck_assert(config->count_hits);
    ck_assert_uint_eq(config->max_streams, 0);
    ck_assert(!config->cache.on);
    ck_assert(config->admin.key_count == 0 && config->admin.listen.address == NULL);
    ck_assert_uint_eq(config->cache.max_bytes, 256 << 20);
    ck_assert_uint_eq(config->cache.max_entry, 8 << 20);
    /* Two references, two releases. */
    config_release(config_retain(config));
    ck_assert_uint_eq(config->listen_count, 1);
    config_release(config);
    config_release(NULL);
}
END_TEST

START_TEST(reads_administration_and_the_levels_of_the_cache)
{
    struct config *config = load_yaml("admin:\n"
                                      "  listen: \"0.0.0.0:9090\"\n"
                                      "  keys: [{name: root, key: abcdefgh}]\n"
                                      "cache: {ttl: 30s}\n");
    ck_assert_uint_eq(config->admin.key_count, 1);
    ck_assert_str_eq(config->admin.keys[0].name, "root");
    ck_assert_str_eq(config->admin.listen.address, "0.0.0.0:9090");
    ck_assert(config->admin.listen.admin && !config->listen[0].admin);
    ck_assert_uint_eq(config->key_count, 0);
    ck_assert_uint_eq(config->cache.memory_ttl_us, 30 * SECOND);
    config_release(config);
    config = load_yaml("cache: {ttl: 10m}\n");
    ck_assert_uint_eq(config->cache.memory_ttl_us, 60 * SECOND);
    config_release(config);
    config = load_yaml("cache: {ttl: 10m, memory_ttl: 5m}\n");
    ck_assert_uint_eq(config->cache.memory_ttl_us, 300 * SECOND);
    config_release(config);
}
END_TEST

START_TEST(reads_the_front)
{
    struct config *config =
        load_yaml("listen:\n"
                  "  - 127.0.0.1:8081\n"
                  "  - address: \"[::1]:8443\"\n"
                  "    tls: {cert: /etc/weir/tls.crt, key: /etc/weir/tls.key}\n"
                  "  - unix:/run/weir.sock\n"
                  "  - LocalHost:1\n"
                  "trusted_proxies: [10.1.2.3/8, \"fd00::/8\", 192.0.2.1]\n"
                  "max_body: 64KiB\nbody_memory: 2GiB\nconnections: {max: 5000, per_address: 50}\n"
                  "cors: {origins: [\"https://chat.example.com\", \"http://localhost:3000\", \"*\"]}\n"
                  "balance: round_robin\n"
                  "workers: 3\nlog_level: debug\nlog_format: json\ndrain_timeout: 1m\n"
                  "sse_ping: 0s\nearly_head: 20s\nsend_timeout: 500ms\nrequest_timeout: 10s\n");

    ck_assert_uint_eq(config->listen_count, 4);
    ck_assert_str_eq(config->listen[0].address, "127.0.0.1:8081");
    ck_assert_ptr_null(config->listen[0].tls_key);
    ck_assert_str_eq(config->listen[1].address, "[::1]:8443");
    ck_assert_str_eq(config->listen[1].tls_cert, "/etc/weir/tls.crt");
    ck_assert_str_eq(config->listen[1].tls_key, "/etc/weir/tls.key");
    ck_assert_str_eq(config->listen[2].address, "unix:/run/weir.sock");
    ck_assert_uint_eq(config->trusted_proxy_count, 3);
    ck_assert_uint_eq(config->trusted_proxies[0].prefix, 104);
    ck_assert_uint_eq(config->trusted_proxies[1].prefix, 8);
    ck_assert_uint_eq(config->trusted_proxies[2].prefix, 128);
    ck_assert_uint_eq(config->max_body, 64 << 10);
    ck_assert_uint_eq(config->body_memory, (size_t)2 << 30);
    ck_assert_uint_eq(config->connections.max, 5000);
    ck_assert_uint_eq(config->connections.per_address, 50);
    ck_assert_uint_eq(config->cors.count, 3);
    ck_assert_str_eq(config->cors.origins[1], "http://localhost:3000");
    ck_assert_uint_eq(config->workers, 3);
    ck_assert_int_eq(config->log_level, LOG_DEBUG);
    ck_assert_int_eq(config->log_format, LOG_JSON);
    ck_assert_uint_eq(config->drain_timeout_us, 60 * SECOND);
    ck_assert_uint_eq(config->sse_ping_us, 0);
    ck_assert_uint_eq(config->early_head_us, 20 * SECOND);
    ck_assert_uint_eq(config->send_timeout_us, SECOND / 2);
    ck_assert_uint_eq(config->request_timeout_us, 10 * SECOND);
    config_release(config);
}
END_TEST

START_TEST(reads_backends)
{
    static const struct given given = {
        .yaml = "backends:\n"
                "  - name: vllm-a\n"
                "    url: https://${HOST}:8000/v1\n"
                "    models: [llama-3.1-8b, \"qwen*\"]\n"
                "    default: true\n"
                "    api_key: ${VLLM_KEY}\n"
                "    auth: x-api-key\n"
                "    headers: {OpenAI-Organization: org-1, X-Price: \"$5 $${x}\"}\n"
                "    tls: {ca: ca.pem, cert: c.pem, key: k.pem, verify: false}\n"
                "    usage: read\n"
                "    timeouts: {connect: 1s, first_token: 2s, idle: 0s, total: 1h}\n"
                "  - url: http://a\n"
                "    models: {gpt-4o: llama-3.1-8b, \"gpt-*\": other}\n",
        .env = {"VLLM_KEY", "k-${HOST}", "HOST", "gpu.example.com"},
    };
    struct config *config = load_ok(&given);
    struct backend_settings *backend = &config->backends[0];

    ck_assert_uint_eq(config->backend_count, 2);
    ck_assert_str_eq(backend->name, "vllm-a");
    ck_assert_str_eq(backend->url.authority, "gpu.example.com:8000");
    ck_assert_str_eq(backend->url.path, "/v1");
    ck_assert_uint_eq(backend->model_count, 2);
    ck_assert_str_eq(backend->models[1].pattern, "qwen*");
    ck_assert_ptr_null(backend->models[1].upstream);
    ck_assert(backend->is_default);
    ck_assert_str_eq(backend->api_key, "k-${HOST}"); /* what a variable holds is not expanded again */
    ck_assert_int_eq(backend->auth, BACKEND_AUTH_X_API_KEY);
    ck_assert_uint_eq(backend->header_count, 2);
    ck_assert_str_eq(backend->headers[0].name, "OpenAI-Organization");
    ck_assert_str_eq(backend->headers[0].value, "org-1");
    ck_assert_str_eq(backend->headers[1].value, "$5 ${x}");
    ck_assert_str_eq(backend->tls.ca, "ca.pem");
    ck_assert_str_eq(backend->tls.cert, "c.pem");
    ck_assert_str_eq(backend->tls.key, "k.pem");
    ck_assert(!backend->tls.verify);
    ck_assert_uint_eq(backend->timeouts.connect, 1 * SECOND);
    ck_assert_uint_eq(backend->timeouts.first_token, 2 * SECOND);
    ck_assert_uint_eq(backend->timeouts.idle, 0);
    ck_assert_uint_eq(backend->timeouts.total, 3600 * SECOND);
    backend = &config->backends[1];
    ck_assert_str_eq(backend->name, "a");
    ck_assert(!backend->is_default);
    ck_assert(backend->tls.verify);
    ck_assert_uint_eq(backend->timeouts.connect, 5 * SECOND);
    ck_assert_uint_eq(backend->weight, 1);
    ck_assert_uint_eq(backend->model_count, 2);
    ck_assert_str_eq(backend->models[0].pattern, "gpt-4o");
    ck_assert_str_eq(backend->models[0].upstream, "llama-3.1-8b");
    config_release(config);
}
END_TEST

START_TEST(reads_the_fleets_settings)
{
    struct config *config = load_yaml(
        "backends:\n"
        "  - {name: cloud, url: http://a, models: [gpt-x], weight: 3, max_concurrent: 64}\n"
        "  - {name: local, url: http://b, health: {failures: 9, slow_start: 0s}}\n"
        "balance: {policy: consistent_hash, by: header, header: X-Session}\n"
        "health: {failures: 5, error_rate: 30%, window: 20s, min_requests: 7, ejection: 2s, max_ejection: 1m, "
        "pause: 3s, max_pause: 4s, slow_start: 6s}\n"
        "retries: {attempts: 2, budget: 10%, backoff: 50ms}\n"
        "queue: {max: 5, timeout: 7s}\n"
        "models: {best: [gpt-x@cloud, \"llama@local\", m]}\n"
        "keys: [{name: a, key: abcdefgh, priority: high}, {name: b, key: bbcdefgh}]\n"
        "routes: [{path: /v1/embeddings, timeouts: {total: 9s}}]\n");
    const struct fleet_settings *fleet = &config->fleet;

    ck_assert_uint_eq(config->backends[0].weight, 3);
    ck_assert_uint_eq(config->backends[0].max_concurrent, 64);
    ck_assert_uint_eq(config->backends[0].health.failures, 5);
    ck_assert_uint_eq(config->backends[1].health.failures, 9);
    ck_assert_uint_eq(config->backends[1].health.slow_start_us, 0);
    ck_assert_uint_eq(config->backends[1].health.error_rate, 30);
    ck_assert_uint_eq(config->backends[1].health.window_us, 20 * SECOND);
    ck_assert_uint_eq(config->backends[1].health.min_requests, 7);
    ck_assert_uint_eq(config->backends[1].health.ejection_us, 2 * SECOND);
    ck_assert_uint_eq(config->backends[1].health.ejection_max_us, 60 * SECOND);
    ck_assert_uint_eq(config->backends[1].health.pause_us, 3 * SECOND);
    ck_assert_uint_eq(config->backends[1].health.pause_max_us, 4 * SECOND);
    ck_assert_uint_eq(config->backends[0].health.slow_start_us, 6 * SECOND);
    ck_assert_int_eq(fleet->policy, BALANCE_CONSISTENT_HASH);
    ck_assert_int_eq(fleet->by, BALANCE_BY_HEADER);
    ck_assert_str_eq(fleet->header, "x-session");
    ck_assert_uint_eq(fleet->retries.attempts, 2);
    ck_assert_uint_eq(fleet->retries.budget, 10);
    ck_assert_uint_eq(fleet->retries.backoff_us, SECOND / 20);
    ck_assert_uint_eq(fleet->queue_max, 5);
    ck_assert_uint_eq(fleet->queue_timeout_us, 7 * SECOND);
    ck_assert_uint_eq(fleet->alias_count, 1);
    ck_assert_str_eq(fleet->aliases[0].name, "best");
    ck_assert_uint_eq(fleet->aliases[0].step_count, 3);
    ck_assert_str_eq(fleet->aliases[0].steps[0].model, "gpt-x");
    ck_assert_str_eq(fleet->aliases[0].steps[0].backend, "cloud");
    ck_assert_str_eq(fleet->aliases[0].steps[1].backend, "local");
    ck_assert_ptr_null(fleet->aliases[0].steps[2].backend);
    ck_assert_int_eq(config->keys[0].priority, QUEUE_HIGH);
    ck_assert_int_eq(config->keys[1].priority, QUEUE_NORMAL);
    ck_assert_uint_eq(config->routes[0].timeouts.total, 9 * SECOND);
    ck_assert_uint_eq(config->routes[0].timeouts.idle, CONFIG_TIMEOUT_UNSET);
    config_release(config);
    config = load_yaml("balance: least_requests\n");
    ck_assert_int_eq(config->fleet.policy, BALANCE_LEAST_REQUESTS);
    ck_assert_uint_eq(config->backends[0].health.failures, 3);
    config_release(config);
    config = load_yaml("balance: {policy: consistent_hash}\n");
    ck_assert_int_eq(config->fleet.by, BALANCE_BY_KEY);
    config_release(config);
}
END_TEST

START_TEST(reads_keys_and_routes)
{
    static const struct given given = {
        .yaml = "listen: [\"0.0.0.0:8080\"]\n"
                "backends: [{name: b, url: http://a}]\n"
                "keys:\n"
                "  - {name: alice, hash: \"sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef\", "
                "models: [\"*\"]}\n"
                "  - {name: bob, key: \"${BOB_KEY}\", routes: [/v1/chat/completions, \"/v1/*\", /tools/*], "
                "expires: 2027-01-01}\n"
                "routes:\n"
                "  - path: /v1/chat/completions\n"
                "    depends: [api_key, validate]\n"
                "  - {path: /v1/completions, depends: [public, validate]}\n"
                "  - {path: /health, depends: [public]}\n"
                "  - {path: /tools/*, proxy: b}\n"
                "  - {path: /v1/extra/*, proxy: b, depends: [public]}\n",
        .env = {"BOB_KEY", "bobs-secret"},
    };
    struct config *config = load_ok(&given);

    ck_assert_uint_eq(config->key_count, 2);
    ck_assert_str_eq(config->keys[0].name, "alice");
    ck_assert_uint_eq(config->keys[0].hash[0], 0x01);
    ck_assert_uint_eq(config->keys[0].hash[5], 0xab);
    ck_assert_uint_eq(config->keys[0].hash[31], 0xef);
    ck_assert_uint_eq(config->keys[0].model_count, 1);
    ck_assert_int_eq(config->keys[0].expires, 0);
    ck_assert_int_eq(config->keys[0].line, 4);
    check_hash(config->keys[1].hash, "bobs-secret");
    ck_assert_uint_eq(config->keys[1].route_count, 3);
    ck_assert_str_eq(config->keys[1].routes[1], "/v1/*");
    ck_assert_int_eq(config->keys[1].expires, 1798761600);
    ck_assert_uint_eq(config->route_count, 5);
    ck_assert(config->routes[0].has_depends);
    ck_assert_uint_eq(config->routes[0].depend_count, 2);
    ck_assert_int_eq(config->routes[0].depends[0], DEPEND_API_KEY);
    ck_assert_int_eq(config->routes[0].depends[1], DEPEND_VALIDATE);
    ck_assert_int_eq(config->routes[0].line, 7);
    ck_assert_int_eq(config->routes[2].depends[0], DEPEND_PUBLIC);
    ck_assert_str_eq(config->routes[3].proxy, "b");
    ck_assert(!config->routes[3].has_depends);
    ck_assert_ptr_null(config->routes[0].proxy);
    config_release(config);
}
END_TEST

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

/* limit_parse's own words, after the place. */
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

START_TEST(reads_the_cache)
{
    struct config *config = load_yaml("cache: {ttl: 10m}\n");

    ck_assert(config->cache.on);
    ck_assert_uint_eq(config->cache.ttl_us, 600 * SECOND);
    ck_assert_uint_eq(config->cache.max_bytes, 256 << 20);
    ck_assert_uint_eq(config->cache.max_entry, 8 << 20);
    ck_assert(!config->cache.shared && !config->cache.deterministic && !config->cache.opt_in);
    config_release(config);

    static const char all[] =
        "cache: {max_entry: 1MiB, ttl: 1s, max_bytes: 2MiB, scope: shared, for: deterministic, mode: opt_in}\n" KEY
        "limits: {a: {limit: 1/day, by: address}}\n"
        "routes:\n  - {path: /v1/messages, depends: [cache, api_key]}\n"
        "  - {path: /v1/embeddings, depends: [public, limit, validate, cache]}\n";
    const struct given with_option = {.yaml = all, .options = {.cache_ttl = "1h"}};
    config = load_ok(&with_option);
    ck_assert_uint_eq(config->cache.ttl_us, 3600 * SECOND);
    ck_assert_uint_eq(config->cache.max_bytes, 2 << 20);
    ck_assert_uint_eq(config->cache.max_entry, 1 << 20);
    ck_assert(config->cache.shared && config->cache.deterministic && config->cache.opt_in);
    ck_assert_int_eq(config->routes[0].depends[0], DEPEND_CACHE);
    ck_assert_int_eq(config->routes[1].depends[3], DEPEND_CACHE);
    config_release(config);

    const struct given variable = {.env = {"WEIR_CACHE_TTL", "250ms"}};
    config = load_ok(&variable);
    ck_assert(config->cache.on);
    ck_assert_uint_eq(config->cache.ttl_us, SECOND / 4);
    config_release(config);

    config = load_yaml("cache: {ttl: 1s, max_bytes: 1MiB, scope: key, for: all, mode: on}\n"
                       "routes: [{path: /v1/chat/completions, depends: [api_key, limit, validate, cache]}]\n");
    ck_assert_uint_eq(config->cache.max_entry, 1 << 20);
    ck_assert(!config->cache.shared && !config->cache.deterministic && !config->cache.opt_in);
    config_release(config);
}
END_TEST

START_TEST(reads_redis)
{
    struct config *config = load_yaml("workers: 1\n");
    ck_assert(!config->redis.on);
    config_release(config);

    config = load_yaml("redis: redis://127.0.0.1:6380/2\n");
    ck_assert(config->redis.on);
    ck_assert_uint_eq(config->redis.url.hosts[0].port, 6380);
    ck_assert_uint_eq(config->redis.url.db, 2);
    ck_assert_str_eq(config->redis.prefix, "weir:");
    ck_assert_uint_eq(config->redis.timeout_us, SECOND / 20);
    config_release(config);

    static const char all[] = "redis: {prefix: 'shop:', timeout: 20ms, url: 'redis://:${PASS}@a'}\n";
    const struct given expanded = {.yaml = all, .env = {"PASS", "hush"}};
    config = load_ok(&expanded);
    ck_assert_str_eq(config->redis.url.password, "hush");
    ck_assert_str_eq(config->redis.prefix, "shop:");
    ck_assert_uint_eq(config->redis.timeout_us, SECOND / 50);
    config_release(config);

    const struct given file = {.yaml = "redis: {prefix: 'p'}\n", .env = {"WEIR_REDIS_FILE", "redis.txt"}};
    config = load_ok(&file);
    ck_assert(config->redis.on);
    ck_assert_str_eq(config->redis.url.master, "m");
    ck_assert_str_eq(config->redis.url.password, "p@");
    ck_assert_str_eq(config->redis.prefix, "p");
    config_release(config);

    const struct given option = {.yaml = all, .env = {"PASS", "x", "WEIR_REDIS", "/y"}, .options = {.redis = "/z"}};
    config = load_ok(&option);
    ck_assert_str_eq(config->redis.url.unix_path, "/z");
    ck_assert_ptr_null(config->redis.url.password);
    ck_assert_str_eq(config->redis.prefix, "shop:");
    config_release(config);
}
END_TEST

START_TEST(aliases_and_tags_are_fine)
{
    struct config *config = load_yaml("%YAML 1.1\n---\n"
                                      "backends:\n"
                                      "  - {url: http://a, models: &m [x, y], timeouts: &t {connect: 1s}}\n"
                                      "  - {url: http://b, models: *m, timeouts: *t}\n"
                                      "workers: !!str 2\n...\n");

    ck_assert_str_eq(config->backends[1].models[1].pattern, "y");
    ck_assert_uint_eq(config->backends[1].timeouts.connect, SECOND);
    ck_assert_uint_eq(config->workers, 2);
    config_release(config);
}
END_TEST

START_TEST(options_beat_environment_beats_file)
{
    static const char yaml[] = "listen: [\"127.0.0.1:1\", {address: \"127.0.0.1:2\", tls: {cert: a, key: b}}]\n"
                               "backends: [{name: file, url: http://file}]\n"
                               "keys: [{name: file, key: file-key-1}]\n"
                               "open: true\nworkers: 1\nlog_level: error\nlog_format: json\ndrain_timeout: 1s\n";
    const struct given from_env = {
        .yaml = yaml,
        .env = {"WEIR_LISTEN", " 127.0.0.1:3 , unix:w.sock", "WEIR_BACKEND", "http://env:1,http://env:2,http://env"},
    };
    struct config *config = load_ok(&from_env);

    ck_assert_uint_eq(config->listen_count, 2);
    ck_assert_str_eq(config->listen[0].address, "127.0.0.1:3");
    ck_assert_str_eq(config->listen[1].address, "unix:w.sock");
    ck_assert_ptr_null(config->listen[1].tls_cert);
    ck_assert_uint_eq(config->backend_count, 3);
    ck_assert_str_eq(config->backends[0].name, "env");
    ck_assert_str_eq(config->backends[1].name, "env:2");
    ck_assert_str_eq(config->backends[2].name, "env:80");
    ck_assert_str_eq(config->keys[0].name, "file");
    ck_assert(config->open);
    config_release(config);

    const struct given values_from_env = {.yaml = yaml,
                                          .env = {"WEIR_OPEN", "false", "WEIR_WORKERS", "2", "WEIR_LOG_LEVEL", "warn"}};
    config = load_ok(&values_from_env);
    ck_assert(!config->open);
    ck_assert_uint_eq(config->workers, 2);
    ck_assert_int_eq(config->log_level, LOG_WARN);
    config_release(config);

    const struct given from_options = {
        .yaml = yaml,
        .env = {"WEIR_WORKERS", "x", "WEIR_LISTEN", "x", "WEIR_API_KEY_FILE", "nowhere.txt"},
        .options = {LISTEN("0.0.0.0:4", ":5"),
                    BACKENDS("http://vllm:8000", "http://127.0.0.1:8000", "demo:", "http://[::1]", "demo:"),
                    KEYS("option-key-1", "option-key-2"), .tls_cert = "c", .tls_key = "k", .workers = "64",
                    .log_level = "info", .log_format = "text", .drain_timeout = "0s"},
    };
    config = load_ok(&from_options);
    ck_assert_uint_eq(config->listen_count, 2);
    ck_assert_str_eq(config->listen[1].address, ":5");
    ck_assert_str_eq(config->listen[1].tls_cert, "c");
    ck_assert_str_eq(config->listen[1].tls_key, "k");
    ck_assert_uint_eq(config->backend_count, 5);
    ck_assert_str_eq(config->backends[0].name, "vllm");
    ck_assert_str_eq(config->backends[1].name, "127.0.0.1:8000");
    ck_assert_str_eq(config->backends[2].name, "demo");
    ck_assert_str_eq(config->backends[3].name, "[::1]:80");
    ck_assert_str_eq(config->backends[4].name, "demo-2");
    ck_assert_uint_eq(config->key_count, 2);
    ck_assert_str_eq(config->keys[1].name, "key-2");
    check_hash(config->keys[1].hash, "option-key-2");
    ck_assert_uint_eq(config->workers, 64);
    ck_assert_int_eq(config->log_level, LOG_INFO);
    ck_assert_int_eq(config->log_format, LOG_TEXT);
    ck_assert_uint_eq(config->drain_timeout_us, 0);
    config_release(config);
}
END_TEST

START_TEST(reads_the_rest_of_the_environment)
{
    const struct given tls = {.env = {"WEIR_TLS_CERT", "c", "WEIR_TLS_KEY", "k", "WEIR_DRAIN_TIMEOUT", "2h"}};
    struct config *config = load_ok(&tls);

    ck_assert_str_eq(config->listen[0].address, "127.0.0.1:8080");
    ck_assert_str_eq(config->listen[0].tls_cert, "c");
    ck_assert_uint_eq(config->drain_timeout_us, 7200 * SECOND);
    config_release(config);

    const struct given open = {.env = {"WEIR_LISTEN", ":1", "WEIR_OPEN", "1", "WEIR_LOG_FORMAT", "json"}};
    config = load_ok(&open);
    ck_assert(config->open);
    config_release(config);

    const struct given keys = {.env = {"WEIR_API_KEY", "secret-1, secret-2", "WEIR_LISTEN", "0.0.0.0:1"}};
    config = load_ok(&keys);
    ck_assert_uint_eq(config->key_count, 2);
    ck_assert_str_eq(config->keys[0].name, "key-1");
    check_hash(config->keys[1].hash, "secret-2");
    config_release(config);

    const struct given key_file = {.env = {"WEIR_API_KEY_FILE", "keys.txt"}};
    config = load_ok(&key_file);
    ck_assert_uint_eq(config->key_count, 2);
    check_hash(config->keys[0].hash, "secret-1");
    check_hash(config->keys[1].hash, "with,comma#inside");
    config_release(config);

    /* A file that is named is read in place of ./weir.yaml; the option names it before the variable. */
    write_file("other.yaml", "workers: 5\n", 11);
    const struct given by_variable = {.yaml = "workers: 4\n", .env = {"WEIR_CONFIG", "other.yaml"}};
    config = load_ok(&by_variable);
    ck_assert_uint_eq(config->workers, 5);
    config_release(config);
    const struct given by_option = {.env = {"WEIR_CONFIG", "nowhere.yaml"}, .options = {.file = "other.yaml"}};
    config = load_ok(&by_option);
    ck_assert_uint_eq(config->workers, 5);
    config_release(config);
}
END_TEST

START_TEST(unix_backends_are_named_after_their_file)
{
    const struct given given = {.options = {BACKENDS("http://unix:/run/vllm.sock", "http://unix:/tmp/vllm.sock")}};
    struct config *config = load_ok(&given);

    ck_assert_str_eq(config->backends[0].name, "vllm.sock");
    ck_assert_str_eq(config->backends[1].name, "vllm.sock-2");
    config_release(config);
}
END_TEST

static const struct environment_case {
    char *entries[4];
    const char *error; /* NULL: fine */
} environments[] = {
    {{"PATH=/bin", "WEIRD_THING=1"}, NULL},
    {{"WEIR_LISTEN=x", "WEIR_API_KEY_FILE=x", "WEIR_CONFIG=x", "WEIR_URL=x"}, NULL},
    {{"WEIR_PORT=tcp://10.0.0.1:80", "WEIR_SERVICE_HOST=10.0.0.1", "WEIR_PORT_8080_TCP_ADDR=x"}, NULL},
    {{"WEIR_REDIS_SERVICE_HOST=10.0.0.1", "WEIR_REDIS_PORT=x", "WEIR_REDIS_SERVICE_PORT=1"}, NULL},
    {{"WEIR_LISTEN_PORT=8080"}, "unknown environment variable WEIR_LISTEN_PORT; did you mean WEIR_LISTEN?"},
    {{"WEIR_LISTN=x"}, "unknown environment variable WEIR_LISTN; did you mean WEIR_LISTEN?"},
    {{"WEIR_API_KEYS=x"}, "unknown environment variable WEIR_API_KEYS; did you mean WEIR_API_KEY?"},
    {{"WEIR_=x"}, "unknown environment variable WEIR_ (`weir --help` lists the known ones)"},
    {{"WEIR_SOMETHING_ELSE_ENTIRELY=x"},
     "unknown environment variable WEIR_SOMETHING_ELSE_ENTIRELY (`weir --help` lists the known ones)"},
    {{"WEIR_LIMIT=1/minute", "WEIR_CACHE_TTL=1m"}, NULL},
    {{"WEIR_REDIS=x", "WEIR_REDIS_FILE=x"}, NULL},
};

/* The TLS files themselves are tried against real ones end to end. */
START_TEST(tls_files_are_looked_for)
{
    static const struct {
        struct given given;
        const char *error;
    } cases[] = {
        {{.yaml = "listen:\n  - address: 127.0.0.1:1\n    tls: {cert: no.crt, key: no.key}\n"},
         "weir.yaml:3: \"listen[0].tls\": cannot read the certificate no.crt: No such file or directory"},
        {{.yaml = "listen:\n  - address: 127.0.0.1:1\n    tls: {cert: weir.yaml, key: no.key}\n"},
         "weir.yaml:3: \"listen[0].tls\": weir.yaml holds no certificate, expected one in PEM form"},
        {{.yaml = "backends:\n  - url: https://a\n    tls:\n      ca: no.pem\n"},
         "weir.yaml:4: \"backends[0].tls\": cannot read the certificate authority no.pem: No such file or directory"},
        {{.options = {.tls_cert = "no.crt", .tls_key = "no.key"}},
         "cannot read the certificate no.crt: No such file or directory"},
        {{.yaml = "backends: [{url: https://a}]\n"}, ""},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        char error[1024] = "";
        struct config *config = load_ok(&cases[i].given);
        ck_assert_int_eq(config_tls_check(config, error, sizeof(error)), cases[i].error[0] == '\0');
        ck_assert_str_eq(error, cases[i].error);
        config_release(config);
    }
}
END_TEST

START_TEST(unknown_variables_are_errors)
{
    const struct environment_case *want = &environments[_i];
    char error[256] = "";

    ck_assert_int_eq(config_environment_check(want->entries, error, sizeof(error)), want->error == NULL);
    ck_assert_str_eq(error, want->error != NULL ? want->error : "");
}
END_TEST

START_TEST(the_real_environment_is_checked)
{
    const struct config_options options = {0};
    char error[256];

    write_file("weir.yaml", "", 0);
    setenv("WEIR_LOGLEVEL", "debug", 1);
    ck_assert_ptr_null(config_load(&options, getenv, error, sizeof(error)));
    ck_assert_str_eq(error, "unknown environment variable WEIR_LOGLEVEL; did you mean WEIR_LOG_LEVEL?");
    unsetenv("WEIR_LOGLEVEL");
}
END_TEST

START_TEST(large_files_are_refused)
{
    char *text = malloc((1 << 20) + 1);
    static const char *const none[] = {NULL};
    const struct config_options options = {0};
    char error[256];

    memset(text, '#', (1 << 20) + 1);
    environment = none;
    write_file("weir.yaml", text, (1 << 20) + 1);
    ck_assert_ptr_null(config_load(&options, fake_getenv, error, sizeof(error)));
    ck_assert_str_eq(error, "cannot read weir.yaml: it is larger than 1 MiB");
    write_file("weir.yaml", text, 1 << 20);
    struct config *config = config_load(&options, fake_getenv, error, sizeof(error));
    ck_assert_ptr_nonnull(config);
    config_release(config);
    free(text);
}
END_TEST

/* Aliases must not make a small file cost much. */
START_TEST(aliases_do_not_multiply)
{
    char *text = NULL, error[256];
    size_t size;
    static const char *const none[] = {NULL};
    const struct config_options options = {0};
    FILE *stream = open_memstream(&text, &size);

    fputs("backends:\n  - {url: http://a, models: &m [", stream);
    for (int i = 0; i < 10000; i++)
        fprintf(stream, "m%d, ", i);
    fputs("]}\n", stream);
    for (int i = 0; i < 200; i++)
        fprintf(stream, "  - {url: http://a, models: *m}\n");
    fclose(stream);
    environment = none;
    write_file("weir.yaml", text, size);
    ck_assert_ptr_null(config_load(&options, fake_getenv, error, sizeof(error)));
    ck_assert_msg(strstr(error, "the aliases of this file multiply to too many values") != NULL, "%s", error);
    free(text);
}
END_TEST

/* Each prefix of a file that uses everything: an error or a configuration, never a crash or a leak. */
START_TEST(survives_any_prefix)
{
    static const char yaml[] =
        "listen: [{address: \"127.0.0.1:1\", tls: {cert: a, key: b}}]\n"
        "backends: &b\n- {url: \"demo:\", name: &n x, models: {a: b}}\n- url: http://a\n"
        "  headers: {A: \"$${x} ${HOME}\"}\nkeys: [{name: k, key: secret-1, expires: 2027-01-01}]\n"
        "routes: [{path: /t/*, proxy: a, depends: [api_key, \"limit:l\"]}]\ntrusted_proxies: [10.0.0.0/8]\n"
        "limits: {l: {limit: 1/day, by: user, routes: [/t/*], message: m, exempt: {keys: [k], addresses: [::1]}}}\n"
        "cache: {ttl: 1s, scope: shared}\n";
    static const char *const none[] = {"HOME", "/root", NULL};
    const struct config_options options = {0};
    char error[256];

    environment = none;
    for (size_t len = 0; len < sizeof(yaml); len++) {
        write_file("weir.yaml", yaml, len);
        struct config *config = config_load(&options, fake_getenv, error, sizeof(error));
        if (config == NULL)
            ck_assert_ptr_null(strchr(error, '\n'));
        config_release(config);
    }
}
END_TEST

/* ---- values by themselves ---- */

START_TEST(parses_durations)
{
    static const struct {
        const char *text;
        uint64_t us;
    } good[] = {{"300ms", 300000},
                {"0s", 0},
                {"15s", 15 * SECOND},
                {"10m", 600 * SECOND},
                {"1h", 3600 * SECOND},
                {"1d", 86400 * SECOND},
                {"3650d", 3650 * 86400 * SECOND}};
    static const char *const bad[] = {
        "", "15", "s", "1.5s", "-1s", "1 s", "1S", "1w", "3651d", "99999999999999999999s", "1s "};
    uint64_t us;

    for (size_t i = 0; i < COUNT(good); i++) {
        ck_assert_msg(config_parse_duration(span_of(good[i].text), &us), "%s", good[i].text);
        ck_assert_uint_eq(us, good[i].us);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        ck_assert_msg(!config_parse_duration(span_of(bad[i]), &us), "%s", bad[i]);
}
END_TEST

START_TEST(parses_sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},          {"512", 512},  {"512B", 512},    {"64KiB", 65536},    {"32MiB", 32 << 20},
        {"1GiB", 1 << 30}, {"1KB", 1000}, {"2MB", 2000000}, {"3GB", 3000000000}, {"9223372036854775807", INT64_MAX}};
    static const char *const bad[] = {
        "", "KiB", "1.5MiB", "-1", "1 KiB", "1kib", "1K", "9223372036854775808", "8589934592GiB"};
    uint64_t bytes;

    for (size_t i = 0; i < COUNT(good); i++) {
        ck_assert_msg(config_parse_size(span_of(good[i].text), &bytes), "%s", good[i].text);
        ck_assert_uint_eq(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        ck_assert_msg(!config_parse_size(span_of(bad[i]), &bytes), "%s", bad[i]);
}
END_TEST

START_TEST(networks_contain_addresses)
{
    static const struct {
        const char *network, *address;
        bool inside;
    } cases[] = {
        {"10.0.0.0/8", "::ffff:10.255.0.1", true},
        {"10.0.0.0/8", "::ffff:11.0.0.1", false},
        {"10.9.9.9/8", "::ffff:10.0.0.1", true},
        {"0.0.0.0/0", "::ffff:1.2.3.4", true},
        {"0.0.0.0/0", "fd00::1", false},
        {"192.0.2.1", "::ffff:192.0.2.1", true},
        {"192.0.2.1", "::ffff:192.0.2.2", false},
        {"10.0.0.128/25", "::ffff:10.0.0.127", false},
        {"10.0.0.128/25", "::ffff:10.0.0.129", true},
        {"fd00::/7", "fdff::1", true},
        {"fd00::/9", "fdff::1", false},
        {"::/0", "::ffff:1.2.3.4", true},
        {"2001:db8::1", "2001:db8::1", true},
        {"2001:db8::1", "2001:db8::2", false},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        char error[256] = "";
        struct config_report report = {error, sizeof(error)};
        struct span text = span_of(cases[i].network);
        struct config_value value = {&report, "network", text, text};
        struct config_network network;
        struct in6_addr address;
        ck_assert_msg(config_value_network(&value, &network), "%s", error);
        ck_assert_int_eq(inet_pton(AF_INET6, cases[i].address, &address), 1);
        ck_assert_msg(config_network_contains(&network, &address) == cases[i].inside, "%s in %s", cases[i].address,
                      cases[i].network);
    }
}
END_TEST

START_TEST(parses_expiry)
{
    static const struct {
        const char *text;
        int64_t seconds; /* 0: refused */
    } cases[] = {
        {"2027-01-01", 1798761600},
        {"2027-01-01T00:00:00Z", 1798761600},
        {"2027-01-01 01:30:00.25+01:30", 1798761600},
        {"2026-12-31t22:00:00-02:00", 1798761600},
        {"2026-12-31T23:59:60Z", 1798761600},
        {"2028-02-29", 1835395200},
        {"2027-1-1", 0},
        {"2027-02-30", 0},
        {"2027-13-01", 0},
        {"2027-00-01", 0},
        {"2027-01-00", 0},
        {"1969-01-01", 0},
        {"2027-01-01T", 0},
        {"2027-01-01T00:00:00", 0},
        {"2027-01-01T24:00:00Z", 0},
        {"2027-01-01T00:00:00.Z", 0},
        {"2027-01-01T00:00:00+1:00", 0},
        {"2027-01-01T00:00:00Zx", 0},
        {"", 0},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        char error[256];
        struct config_report report = {error, sizeof(error)};
        struct span text = span_of(cases[i].text);
        struct config_value value = {&report, "expires", text, text};
        int64_t seconds = 0;
        ck_assert_msg(config_value_expires(&value, &seconds) == (cases[i].seconds != 0), "%s", cases[i].text);
        if (cases[i].seconds != 0)
            ck_assert_int_eq(seconds, cases[i].seconds);
    }
}
END_TEST

START_TEST(knows_loopback)
{
    static const char *const inside[] = {"127.0.0.1", "127.255.0.9", "::1", "localhost", "LOCALHOST"};
    static const char *const outside[] = {
        "", "0.0.0.0", "::", "128.0.0.1", "127.0.0.1.nip.example", "127", "::ffff:10.0.0.1", "localhost.example"};

    for (size_t i = 0; i < COUNT(inside); i++)
        ck_assert_msg(config_host_is_loopback(span_of(inside[i])), "%s", inside[i]);
    for (size_t i = 0; i < COUNT(outside); i++)
        ck_assert_msg(!config_host_is_loopback(span_of(outside[i])), "%s", outside[i]);
}
END_TEST

START_TEST(knows_the_built_in_routes)
{
    static const char *const known[] = {"/",
                                        "/v1/chat/completions",
                                        "/v1/messages/count_tokens",
                                        "/v1/responses",
                                        "/v1/responses/*",
                                        "/v1/rerank/*",
                                        "/v1/models",
                                        "/v1/realtime",
                                        "/chat",
                                        "/livez",
                                        "/metrics",
                                        "/version"};
    static const char *const unknown[] = {"", "/v1", "/v1/*", "/v1/rerank", "/v1/chat", "/livez/", "/chat/", "livez"};

    for (size_t i = 0; i < COUNT(known); i++)
        ck_assert_msg(config_route_known(span_of(known[i])), "%s", known[i]);
    for (size_t i = 0; i < COUNT(unknown); i++)
        ck_assert_msg(!config_route_known(span_of(unknown[i])), "%s", unknown[i]);
}
END_TEST

START_TEST(finds_the_nearest_name)
{
    static const char *const names[] = {"listen", "log_level", "log_format", "url"};

    ck_assert_str_eq(nearest_name(SPAN("lsiten"), names, COUNT(names)), "listen");
    ck_assert_str_eq(nearest_name(SPAN("loglevel"), names, COUNT(names)), "log_level");
    ck_assert_str_eq(nearest_name(SPAN("uri"), names, COUNT(names)), "url");
    ck_assert_ptr_null(nearest_name(SPAN("xyz"), names, COUNT(names)));
    ck_assert_ptr_null(nearest_name(SPAN(""), names, COUNT(names)));
    ck_assert_ptr_null(nearest_name(SPAN("log_levellog_levellog_levellog_level"), names, COUNT(names)));
}
END_TEST

/* ---- processors ---- */

static void write_group(const char *root, const char *name, const char *text)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", root, name);
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    write_file(path, text, strlen(text));
}

START_TEST(quotas_limit_processors)
{
    ck_assert_uint_eq(processors_quota("nothing-here"), 0);

    write_group("v2", "proc/self/cgroup", "0::/a/b\n");
    write_group("v2", "sys/fs/cgroup/cpu.max", "max 100000\n");
    ck_assert_uint_eq(processors_quota("v2"), 0);
    write_group("v2", "sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
    ck_assert_uint_eq(processors_quota("v2"), 3);
    write_group("v2", "sys/fs/cgroup/a/cpu.max", "50000 100000\n"); /* the group above counts too */
    ck_assert_uint_eq(processors_quota("v2"), 1);

    /* In a container: the path is the host's, the files are at the top. */
    write_group("inside", "proc/self/cgroup", "0::/docker/1234\n");
    write_group("inside", "sys/fs/cgroup/cpu.max", "200000 100000\n");
    ck_assert_uint_eq(processors_quota("inside"), 2);

    write_group("v1", "proc/self/cgroup", "9:cpuset:/\n4:cpu,cpuacct:/x\n0::/\n");
    write_group("v1", "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "150000\n");
    ck_assert_uint_eq(processors_quota("v1"), 0);
    write_group("v1", "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
    ck_assert_uint_eq(processors_quota("v1"), 2);
    write_group("v1", "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n");
    ck_assert_uint_eq(processors_quota("v1"), 0);

    write_group("bad", "proc/self/cgroup", "nonsense\n0::/\n");
    write_group("bad", "sys/fs/cgroup/cpu.max", "many few\n");
    ck_assert_uint_eq(processors_quota("bad"), 0);
    ck_assert_uint_ge(processors_usable(), 1);
}
END_TEST

static void prepare(void)
{
    static const char keys[] = "# for the two\n\nsecret-1\r\n  with,comma#inside  \n";
    char *large = malloc((1 << 20) + 1);

    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
    write_file("keys.txt", keys, sizeof(keys) - 1);
    write_file("no-keys.txt", "# none\n\n", 8);
    write_file("redis.txt", "# ours\nredis+sentinel://u:p%40@a,b:2/m/3\n", 41);
    write_file("two-redis.txt", "/a\n/b\n", 6);
    write_file("short-key.txt", "short\n", 6);
    write_file("binary-key.txt", "secret-1\0more\n", 14);
    memset(large, '\n', (1 << 20) + 1);
    write_file("large.txt", large, (1 << 20) + 1);
    free(large);
}

static void clean_up(void)
{
    char command[sizeof(folder) + 16];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    ck_assert_int_eq(chdir("/"), 0);
    ck_assert_int_eq(system(command), 0);
}

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *files = tcase_create("files"), *values = tcase_create("values");
    SRunner *runner = srunner_create(suite);

    suite_add_tcase(suite, files);
    suite_add_tcase(suite, values);
    tcase_add_unchecked_fixture(files, prepare, clean_up);
    tcase_add_loop_test(files, refuses_bad_files, 0, COUNT(bad_yaml));
    tcase_add_loop_test(files, refuses_bad_inputs, 0, COUNT(bad_inputs));
    tcase_add_test(files, has_defaults);
    tcase_add_test(files, reads_the_front);
    tcase_add_test(files, reads_administration_and_the_levels_of_the_cache);
    tcase_add_test(files, reads_backends);
    tcase_add_test(files, reads_the_fleets_settings);
    tcase_add_test(files, reads_keys_and_routes);
    tcase_add_test(files, reads_limits);
    tcase_add_test(files, limits_are_by_key_where_there_are_keys);
    tcase_add_test(files, tells_where_a_limit_does_not_parse);
    tcase_add_test(files, at_most_64_limits);
    tcase_add_test(files, usage_is_asked_for_where_tokens_are_counted);
    tcase_add_test(files, reads_the_cache);
    tcase_add_test(files, reads_redis);
    tcase_add_test(files, aliases_and_tags_are_fine);
    tcase_add_test(files, options_beat_environment_beats_file);
    tcase_add_test(files, reads_the_rest_of_the_environment);
    tcase_add_test(files, unix_backends_are_named_after_their_file);
    tcase_add_test(files, the_real_environment_is_checked);
    tcase_add_test(files, large_files_are_refused);
    tcase_add_test(files, aliases_do_not_multiply);
    tcase_add_test(files, survives_any_prefix);
    tcase_add_test(files, quotas_limit_processors);
    tcase_add_test(values, tls_files_are_looked_for);
    tcase_add_loop_test(values, unknown_variables_are_errors, 0, COUNT(environments));
    tcase_add_test(values, parses_durations);
    tcase_add_test(values, parses_sizes);
    tcase_add_test(values, networks_contain_addresses);
    tcase_add_test(values, parses_expiry);
    tcase_add_test(values, knows_loopback);
    tcase_add_test(values, knows_the_built_in_routes);
    tcase_add_test(values, finds_the_nearest_name);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
