#include "gateway/config_refusals.h"

#define SHA "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define BACKEND "backends:\n  - url: http://a\n"
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
};

START_TEST(refuses_bad_files)
{
    check_bad(&bad_yaml[_i]);
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

int main(void)
{
    TCase *tests = tcase_create("config_refusals");
    tcase_add_unchecked_fixture(tests, prepare, clean_up);
    tcase_add_loop_test(tests, refuses_bad_files, 0, COUNT(bad_yaml));
    tcase_add_test(tests, aliases_do_not_multiply);
    tcase_add_test(tests, survives_any_prefix);
    return run_suite("config_refusals", tests);
}
