#include "gateway/config.h"
#include "gateway/config_check.h"
#include "gateway/config_env.h"
#include "gateway/config_fields.h"
#include "gateway/config_file.h"
#include "gateway/processors.h"
#include "ratelimit/store.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000)
#define CACHE_ENTRY_DEFAULT ((size_t)8 << 20)
#define CACHE_MEMORY_TTL_DEFAULT (60 * SECOND)

static struct config *create(void)
{
    struct config *config = calloc(1, sizeof(*config));

    if (config == NULL)
        abort();
    atomic_init(&config->_refs, 1);
    config->max_body = 32 << 20;
    config->body_memory = 1 << 30;
    config->connections.max = 100000;
    config->connections.per_address = 20000;
    unsigned processors = processors_usable();
    config->workers = processors < CONFIG_WORKERS_MAX ? processors : CONFIG_WORKERS_MAX;
    config->log_level = LOG_INFO;
    config->log_format = isatty(STDERR_FILENO) ? LOG_TEXT : LOG_JSON;
    config->drain_timeout_us = 30 * SECOND;
    config->sse_ping_us = 15 * SECOND;
    config->send_timeout_us = 60 * SECOND;
    config->request_timeout_us = 60 * SECOND;
    fleet_settings_init(&config->fleet);
    health_settings_init(&config->health);
    config->limit_memory = STORE_BYTES_DEFAULT;
    config->count_hits = true;
    config->websocket.ping_us = 20 * SECOND;
    config->websocket.max_message = 1 << 20;
    config->websocket.generations = 16;
    config->chat.history = 256 << 10;
    config->cache.max_bytes = (size_t)256 << 20;
    config->redis.timeout_us = 50000;
    return config;
}

static void free_list(char **items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(items[i]);
    free(items);
}

static void clear_listen(struct config *config)
{
    for (size_t i = 0; i < config->listen_count; i++) {
        free(config->listen[i].address);
        free(config->listen[i].tls_cert);
        free(config->listen[i].tls_key);
    }
    free(config->listen);
    config->listen = NULL;
    config->listen_count = 0;
}

static void clear_backends(struct config *config)
{
    for (size_t i = 0; i < config->backend_count; i++)
        backend_settings_dispose(&config->backends[i]);
    free(config->backends);
    config->backends = NULL;
    config->backend_count = 0;
}

static void clear_fleet(struct config *config)
{
    for (size_t i = 0; i < config->fleet.alias_count; i++) {
        struct fleet_alias *alias = &config->fleet.aliases[i];
        for (size_t j = 0; j < alias->step_count; j++) {
            free(alias->steps[j].model);
            free(alias->steps[j].backend);
        }
        free(alias->steps);
        free(alias->name);
    }
    free(config->fleet.aliases);
    free(config->fleet.header);
}

static void clear_key_list(struct config_key **keys, size_t *count)
{
    for (size_t i = 0; i < *count; i++) {
        struct config_key *key = &(*keys)[i];
        free(key->name);
        free_list(key->models, key->model_count);
        free_list(key->routes, key->route_count);
        OPENSSL_cleanse(key->hash, sizeof(key->hash));
    }
    free(*keys);
    *keys = NULL;
    *count = 0;
}

static void clear_keys(struct config *config)
{
    clear_key_list(&config->keys, &config->key_count);
}

static void clear_limits(struct config *config)
{
    for (size_t i = 0; i < config->limit_count; i++) {
        struct config_limit *limit = &config->limits[i];
        free(limit->name);
        free(limit->message);
        free_list(limit->routes, limit->route_count);
        free_list(limit->exempt_keys, limit->exempt_key_count);
        free(limit->exempt_networks);
    }
    free(config->limits);
    config->limits = NULL;
    config->limit_count = 0;
}

static void clear_routes(struct config *config)
{
    for (size_t i = 0; i < config->route_count; i++) {
        struct config_route *route = &config->routes[i];
        free(route->path);
        free(route->proxy);
        for (size_t j = 0; j < route->depend_count; j++)
            free(route->depend_limit[j]);
    }
    free(config->routes);
}

static void destroy(struct config *config)
{
    clear_listen(config);
    clear_backends(config);
    health_settings_dispose(&config->health);
    clear_fleet(config);
    clear_keys(config);
    clear_limits(config);
    clear_routes(config);
    redis_url_dispose(&config->redis.url);
    free(config->redis.prefix);
    clear_key_list(&config->admin.keys, &config->admin.key_count);
    free(config->admin.listen.address);
    free(config->trusted_proxies);
    free_list(config->cors.origins, config->cors.count);
    free_list(config->websocket.origins, config->websocket.origin_count);
    free(config->chat.model);
    free(config->chat.system);
    free(config->file);
    free(config);
}

struct config *config_retain(struct config *config)
{
    atomic_fetch_add_explicit(&config->_refs, 1, memory_order_relaxed);
    return config;
}

void config_release(struct config *config)
{
    if (config != NULL && atomic_fetch_sub_explicit(&config->_refs, 1, memory_order_acq_rel) == 1)
        destroy(config);
}

static struct config_value value_of(const struct config_input *input, size_t i, struct config_report *report)
{
    struct span text = span_of(input->items[i]);

    return (struct config_value){report, input->source, text, text};
}

/* The addresses of options and environment replace the file's; certificate and key are theirs only. */
static bool apply_listen(struct config *config, const struct config_input *inputs, struct config_report *report)
{
    const struct config_input *listen = &inputs[INPUT_LISTEN];
    const struct config_input *cert = &inputs[INPUT_TLS_CERT], *key = &inputs[INPUT_TLS_KEY];
    static char default_address[] = "127.0.0.1:8080";
    char *default_items[] = {default_address};
    const struct config_input by_default = {default_items, 1, "the default address"};

    if ((cert->count != 0) != (key->count != 0)) {
        const char *given = cert->count != 0 ? cert->source : key->source;
        const char *option = cert->count != 0 ? "--tls-key" : "--tls-cert";
        const char *variable = cert->count != 0 ? "WEIR_TLS_KEY" : "WEIR_TLS_CERT";
        return config_fail(report, "%s is given without %s, expected both", given, given[0] == '-' ? option : variable);
    }
    if (cert->count != 0 && (cert->items[0][0] == '\0' || key->items[0][0] == '\0'))
        return config_fail(report, "%s is empty, expected a file",
                           cert->items[0][0] == '\0' ? cert->source : key->source);
    if (listen->count == 0 && config->listen_count != 0) {
        if (cert->count != 0)
            return config_fail(
                report,
                "%s applies to --listen addresses and none is given, expected --listen, or \"tls\" under "
                "\"listen\" in the file",
                cert->source);
        return true;
    }
    if (listen->count == 0)
        listen = &by_default;
    clear_listen(config);
    for (size_t i = 0; i < listen->count; i++) {
        struct config_value value = value_of(listen, i, report);
        struct span host;
        if (!config_value_listen(&value, &host))
            return false;
        struct config_listen *entry = config_append(&config->listen, &config->listen_count, sizeof(*entry));
        entry->address = span_dup(value.text);
        if (cert->count != 0) {
            entry->tls_cert = span_dup(span_of(cert->items[0]));
            entry->tls_key = span_dup(span_of(key->items[0]));
        }
    }
    return true;
}

static bool backend_name_taken(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->backend_count; i++) {
        if (config->backends[i].name != NULL && strcmp(config->backends[i].name, name) == 0)
            return true;
    }
    return false;
}

/* Names the backends that were given none after their host: "vllm", else "vllm:8001", else "vllm:8001-2"; an address
 * always with its port, a unix socket after its file. */
static void name_backends(struct config *config)
{
    for (size_t i = 0; i < config->backend_count; i++) {
        struct backend_settings *backend = &config->backends[i];
        const struct backend_url *url = &backend->url;
        char name[512], stem[512];
        if (backend->name != NULL)
            continue;
        if (url->kind == BACKEND_DEMO)
            snprintf(stem, sizeof(stem), "demo");
        else if (url->unix_path != NULL)
            snprintf(stem, sizeof(stem), "%s", strrchr(url->unix_path, '/') + 1);
        else
            snprintf(stem, sizeof(stem), strchr(url->host, ':') != NULL ? "[%s]:%u" : "%s:%u", url->host, url->port);
        bool has_name = url->kind == BACKEND_HTTP && url->unix_path == NULL && !url->host_is_ip;
        snprintf(name, sizeof(name), "%s", has_name ? url->host : stem);
        if (backend_name_taken(config, name))
            snprintf(name, sizeof(name), "%s", stem);
        for (unsigned n = 2; backend_name_taken(config, name); n++)
            snprintf(name, sizeof(name), "%.480s-%u", stem, n);
        backend->name = span_dup(span_of(name));
    }
}

static bool apply_backends(struct config *config, const struct config_input *input, struct config_report *report)
{
    static char demo[] = "demo:";
    char *default_items[] = {demo};
    const struct config_input by_default = {default_items, 1, "the default backend"};

    if (input->count == 0 && config->backend_count == 0)
        input = &by_default;
    if (input->count != 0)
        clear_backends(config);
    for (size_t i = 0; i < input->count; i++) {
        struct config_value value = value_of(input, i, report);
        struct backend_settings *backend = config_append(&config->backends, &config->backend_count, sizeof(*backend));
        backend_settings_init(backend);
        if (!config_value_url(&value, backend))
            return false;
    }
    name_backends(config);
    return true;
}

static bool apply_keys(struct config *config, const struct config_input *input, struct config_report *report)
{
    if (input->count == 0)
        return true;
    clear_keys(config);
    for (size_t i = 0; i < input->count; i++) {
        struct config_value value = value_of(input, i, report);
        struct config_key *key = config_append(&config->keys, &config->key_count, sizeof(*key));
        char name[32];
        snprintf(name, sizeof(name), "key-%zu", i + 1);
        key->name = span_dup(span_of(name));
        key->priority = QUEUE_NORMAL;
        if (!config_value_key(&value, key->hash))
            return false;
    }
    return true;
}

static bool apply_limits(struct config *config, const struct config_input *input, struct config_report *report)
{
    if (input->count != 0) {
        struct config_value value = value_of(input, 0, report);
        clear_limits(config);
        struct config_limit *limit = config_append(&config->limits, &config->limit_count, sizeof(*limit));
        fields_limit_init(limit, SPAN("default"));
        if (!config_value_limits(&value, limit->limits, &limit->count))
            return false;
    }
    for (size_t i = 0; i < config->limit_count; i++) {
        if (config->limits[i].by == FIELDS_BY_DEFAULT)
            config->limits[i].by = config->key_count != 0 ? LIMIT_BY_API_KEY : LIMIT_BY_ADDRESS;
    }
    return true;
}

static bool has_token_limit(const struct limit *limits, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (limits[i].unit == LIMIT_TOKENS)
            return true;
    return false;
}

static bool counts_tokens(const struct config *config)
{
    bool counted = false;
    for (size_t i = 0; i < config->limit_count; i++)
        counted |= has_token_limit(config->limits[i].limits, config->limits[i].count);
    for (size_t i = 0; i < config->key_count; i++)
        counted |= has_token_limit(config->keys[i].limits, config->keys[i].limit_count);
    return counted;
}

void config_complete_backend(const struct config *config, struct backend_settings *backend)
{
    /* Where tokens are counted, the count had better be right. */
    if (backend->usage == BACKEND_USAGE_DEFAULT)
        backend->usage = counts_tokens(config) ? BACKEND_USAGE_ASK : BACKEND_USAGE_READ;
    health_settings_inherit(&backend->health, &config->health);
}

static bool complete_backends(struct config *config)
{
    for (size_t i = 0; i < config->backend_count; i++)
        config_complete_backend(config, &config->backends[i]);
    return true;
}

static bool apply_cache(struct config *config, const struct config_input *ttl, struct config_report *report)
{
    if (ttl->count != 0) {
        struct config_value value = value_of(ttl, 0, report);
        if (!config_value_duration(&value, 1, &config->cache.ttl_us))
            return false;
        config->cache.on = true;
    }
    if (config->cache.memory_ttl_us == 0)
        config->cache.memory_ttl_us = CACHE_MEMORY_TTL_DEFAULT;
    if (config->cache.memory_ttl_us > config->cache.ttl_us)
        config->cache.memory_ttl_us = config->cache.ttl_us;
    if (config->cache.max_entry == 0)
        config->cache.max_entry =
            config->cache.max_bytes < CACHE_ENTRY_DEFAULT ? config->cache.max_bytes : CACHE_ENTRY_DEFAULT;
    return true;
}

static bool apply_redis(struct config *config, const struct config_input *input, struct config_report *report)
{
    if (config->redis.prefix == NULL)
        config->redis.prefix = span_dup(SPAN("weir:"));
    if (input->count == 0 && config->redis.line != 0 && !config->redis.on)
        return config_fail(report,
                           "%s:%d: \"redis\" has no \"url\", expected such as redis://127.0.0.1:6379/0 (or --redis, "
                           "WEIR_REDIS)",
                           config->file, config->redis.line);
    if (input->count == 0)
        return true;
    struct config_value value = value_of(input, 0, report);
    if (input->count != 1)
        return config_fail(report, "%s holds %zu addresses, expected one", input->source, input->count);
    return config->redis.on = config_value_redis(&value, &config->redis.url);
}

static bool apply_values(struct config *config, const struct config_input *inputs, struct config_report *report)
{
    for (size_t id = 0; id < INPUT_COUNT; id++) {
        if (inputs[id].count == 0)
            continue;
        struct config_value value = value_of(&inputs[id], 0, report);
        bool ok = true;
        switch ((enum input_id)id) {
        case INPUT_OPEN:
            ok = config_value_bool(&value, &config->open);
            break;
        case INPUT_SUPERVISE:
            ok = config_value_bool(&value, &config->supervise);
            break;
        case INPUT_WORKERS:
            ok = config_value_workers(&value, &config->workers);
            break;
        case INPUT_LOG_LEVEL:
            ok = config_value_log_level(&value, &config->log_level);
            break;
        case INPUT_LOG_FORMAT:
            ok = config_value_log_format(&value, &config->log_format);
            break;
        case INPUT_DRAIN_TIMEOUT:
            ok = config_value_duration(&value, 0, &config->drain_timeout_us);
            break;
        default: /* told in the other apply functions */
            break;
        }
        if (!ok)
            return false;
    }
    return true;
}

const char *const config_usual[CONFIG_USUAL_COUNT] = {"weir.yaml", "/etc/weir/weir.yaml"};

/* Reads the file that was asked for, or the first of the usual places where there is one. */
static bool read_file(struct config *config, const struct config_input *asked, char *(*getenv_fn)(const char *),
                      struct config_report *report)
{
    const char *path = asked->count != 0 ? asked->items[0] : config_usual[0];
    size_t len;
    char *text = config_read_whole(path, CONFIG_FILE_MAX_BYTES, &len);

    if (text == NULL && asked->count == 0 && errno == ENOENT) {
        path = config_usual[1];
        text = config_read_whole(path, CONFIG_FILE_MAX_BYTES, &len);
        if (text == NULL && errno == ENOENT)
            return true;
    }
    if (text == NULL) {
        const char *why = errno == EFBIG ? "it is larger than 1 MiB" : strerror(errno);
        /* Which option gave the name is plain to see, and `weir check FILE` takes it without one. */
        bool from_variable = asked->count != 0 && strcmp(asked->source, "WEIR_CONFIG") == 0;
        return config_fail(report, "%scannot read %s: %s", from_variable ? "WEIR_CONFIG: " : "", path, why);
    }
    config->file = span_dup(span_of(path));
    bool ok = config_file_parse(config, path, (struct span){text, len}, getenv_fn, report);
    OPENSSL_cleanse(text, len);
    free(text);
    return ok;
}

struct config *config_load(const struct config_options *options, char *(*getenv_fn)(const char *), char *error,
                           size_t error_size)
{
    struct config_report report = {error, error_size};
    struct config_input inputs[INPUT_COUNT] = {0};
    struct config *config = create();

    bool ok = (getenv_fn != getenv || config_environment_check(environ, error, error_size)) &&
              config_inputs_read(inputs, options, getenv_fn, &report) &&
              read_file(config, &inputs[INPUT_CONFIG], getenv_fn, &report) && apply_listen(config, inputs, &report) &&
              apply_backends(config, &inputs[INPUT_BACKEND], &report) &&
              apply_keys(config, &inputs[INPUT_API_KEY], &report) &&
              apply_limits(config, &inputs[INPUT_LIMIT], &report) && complete_backends(config) &&
              apply_cache(config, &inputs[INPUT_CACHE_TTL], &report) &&
              apply_redis(config, &inputs[INPUT_REDIS], &report) && apply_values(config, inputs, &report) &&
              config_check(config, &report);
    config_inputs_dispose(inputs);
    if (ok)
        return config;
    config_release(config);
    return NULL;
}
