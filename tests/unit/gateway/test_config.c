#include "gateway/config_loader.h"
#include <openssl/evp.h>

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

int main(void)
{
    TCase *tests = tcase_create("config");
    tcase_add_unchecked_fixture(tests, prepare, clean_up);
    tcase_add_test(tests, has_defaults);
    tcase_add_test(tests, reads_administration_and_the_levels_of_the_cache);
    tcase_add_test(tests, reads_the_front);
    tcase_add_test(tests, reads_backends);
    tcase_add_test(tests, reads_the_fleets_settings);
    tcase_add_test(tests, reads_keys_and_routes);
    tcase_add_test(tests, reads_the_cache);
    tcase_add_test(tests, reads_redis);
    tcase_add_test(tests, aliases_and_tags_are_fine);
    tcase_add_test(tests, options_beat_environment_beats_file);
    tcase_add_test(tests, reads_the_rest_of_the_environment);
    tcase_add_test(tests, unix_backends_are_named_after_their_file);
    return run_suite("config", tests);
}
