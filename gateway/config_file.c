#include "gateway/config_file.h"
#include "gateway/config_fields.h"
#include "gateway/nearest.h"
#include <stdio.h>
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

bool fields_string(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    char *text = yaml_reader_scalar(reader, node);

    if (text == NULL)
        return false;
    config_free_secret(*(char **)target);
    *(char **)target = text;
    if (text[0] == '\0')
        return yaml_reader_fail_value(reader, node, "is empty, expected a value");
    return true;
}

bool fields_bool(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_bool(&value, target));
}

static bool read_duration(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_duration(&value, 0, target));
}

/* Where 0 would not mean "never" but "at once". */
static bool read_positive_duration(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_duration(&value, 1, target));
}

bool fields_size(struct yaml_reader *reader, const yaml_node_t *node, uint64_t min, uint64_t max, void *target)
{
    uint64_t bytes = 0;
    struct config_value value;
    char subject[512];
    char *text = yaml_reader_value(reader, node, &value, subject);
    bool ok = text != NULL && config_value_size(&value, min, max, &bytes);

    config_free_secret(text);
    if (ok)
        *(size_t *)target = (size_t)bytes;
    return ok;
}

static bool read_max_body(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return fields_size(reader, node, 1 << 10, 1 << 30, target);
}

static bool read_body_memory(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return fields_size(reader, node, 1 << 20, (uint64_t)1 << 40, target);
}

static bool read_max_streams(struct yaml_reader *reader, const yaml_node_t *node, uint64_t *number)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_number(&value, 1, CONFIG_STREAMS_MAX, number));
}

bool fields_max_streams(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    uint64_t number = 0;

    if (!read_max_streams(reader, node, &number))
        return false;
    *(unsigned *)target = (unsigned)number;
    return true;
}

static bool read_workers(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_workers(&value, target));
}

static bool read_log_level(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_log_level(&value, target));
}

static bool read_log_format(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_log_format(&value, target));
}

bool fields_name(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config_value value;
    char subject[512];
    char *text = yaml_reader_value(reader, node, &value, subject);

    *(char **)target = text;
    return text != NULL && config_value_name(&value);
}

bool fields_items(struct yaml_reader *reader, const yaml_node_t *node, fields_read read, void *ctx)
{
    size_t count;

    if (!yaml_reader_list(reader, node, &count))
        return false;
    for (size_t i = 0; i < count; i++) {
        size_t mark = yaml_reader_enter(reader, NULL, i);
        if (!read(reader, yaml_reader_item(reader, node, i), ctx))
            return false;
        yaml_reader_leave(reader, mark);
    }
    return true;
}

bool fields_not_empty(struct yaml_reader *reader, const yaml_node_t *node, size_t count, const char *otherwise)
{
    if (count == 0)
        return yaml_reader_fail_value(reader, node, "is empty, expected %s", otherwise);
    return true;
}

bool fields_word(struct yaml_reader *reader, const yaml_node_t *node, const struct fields_word *words, size_t count,
                 size_t *which)
{
    char expected[256] = "";
    char *text = yaml_reader_scalar(reader, node);

    if (text == NULL)
        return false;
    for (*which = 0; *which < count && strcmp(words[*which].text, text) != 0; ++*which)
        ;
    config_free_secret(text);
    if (*which < count && words[*which].later)
        return yaml_reader_fail_value(reader, node, "is \"%s\", which is not available in this version",
                                      words[*which].text);
    if (*which < count)
        return true;
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(expected);
        if (!words[i].later)
            snprintf(expected + len, sizeof(expected) - len, "%s%s", len != 0 ? " or " : "", words[i].text);
    }
    return yaml_reader_fail_value(reader, node, "is \"%.64s\", expected %s", (const char *)node->data.scalar.value,
                                  expected);
}

/* Everything that may stand in the file. */
struct field {
    enum section section;
    const char *name;
    fields_read read; /* NULL: of a later version */
    size_t offset;    /* of the target in the section's struct */
} fields[] = {
    {SECTION_TOP, "listen", fields_listen, 0},
    {SECTION_TOP, "trusted_proxies", fields_trusted_proxies, 0},
    {SECTION_TOP, "max_body", read_max_body, offsetof(struct config, max_body)},
    {SECTION_TOP, "body_memory", read_body_memory, offsetof(struct config, body_memory)},
    {SECTION_TOP, "connections", fields_connections, 0},
    {SECTION_TOP, "cors", fields_cors, 0},
    {SECTION_TOP, "backends", fields_backends, 0},
    {SECTION_TOP, "balance", fields_balance, offsetof(struct config, fleet)},
    {SECTION_TOP, "health", fields_health, offsetof(struct config, health)},
    {SECTION_TOP, "retries", fields_retries, offsetof(struct config, fleet.retries)},
    {SECTION_TOP, "queue", fields_queue, offsetof(struct config, fleet)},
    {SECTION_TOP, "resolve", fields_resolve, offsetof(struct config, fleet.resolve_us)},
    {SECTION_TOP, "models", fields_models, offsetof(struct config, fleet)},
    {SECTION_TOP, "keys", fields_keys, 0},
    {SECTION_TOP, "open", fields_bool, offsetof(struct config, open)},
    {SECTION_TOP, "supervise", fields_bool, offsetof(struct config, supervise)},
    {SECTION_TOP, "routes", fields_routes, 0},
    {SECTION_TOP, "workers", read_workers, offsetof(struct config, workers)},
    {SECTION_TOP, "log_level", read_log_level, offsetof(struct config, log_level)},
    {SECTION_TOP, "log_format", read_log_format, offsetof(struct config, log_format)},
    {SECTION_TOP, "drain_timeout", read_duration, offsetof(struct config, drain_timeout_us)},
    {SECTION_TOP, "sse_ping", read_duration, offsetof(struct config, sse_ping_us)},
    {SECTION_TOP, "early_head", read_duration, offsetof(struct config, early_head_us)},
    {SECTION_TOP, "send_timeout", read_positive_duration, offsetof(struct config, send_timeout_us)},
    {SECTION_TOP, "request_timeout", read_positive_duration, offsetof(struct config, request_timeout_us)},
    {SECTION_TOP, "limits", fields_limits, 0},
    {SECTION_TOP, "limit_memory", fields_limit_memory, offsetof(struct config, limit_memory)},
    {SECTION_TOP, "count_hits", fields_bool, offsetof(struct config, count_hits)},
    {SECTION_TOP, "max_streams", fields_max_streams, offsetof(struct config, max_streams)},
    {SECTION_TOP, "cache", fields_cache, 0},
    {SECTION_TOP, "redis", fields_redis, 0},
    {SECTION_TOP, "admin", fields_admin, 0},
    {SECTION_TOP, "websocket", fields_websocket, 0},
    {SECTION_TOP, "chat", fields_chat, 0},

    {SECTION_LISTEN, "address", fields_listen_address, offsetof(struct config_listen, address)},
    {SECTION_LISTEN, "tls", fields_listen_tls, 0},
    {SECTION_TLS, "cert", fields_string, offsetof(struct config_listen, tls_cert)},
    {SECTION_TLS, "key", fields_string, offsetof(struct config_listen, tls_key)},
    {SECTION_CORS, "origins", fields_cors_origins, 0},

    {SECTION_CONNECTIONS, "max", fields_max_streams, offsetof(struct config, connections.max)},
    {SECTION_CONNECTIONS, "per_address", fields_max_streams, offsetof(struct config, connections.per_address)},

    {SECTION_BACKEND, "name", fields_name, offsetof(struct backend_settings, name)},
    {SECTION_BACKEND, "url", fields_backend_url, 0},
    {SECTION_BACKEND, "models", fields_backend_models, 0},
    {SECTION_BACKEND, "discover", fields_probe_interval, offsetof(struct backend_settings, discover_us)},
    {SECTION_BACKEND, "default", fields_bool, offsetof(struct backend_settings, is_default)},
    {SECTION_BACKEND, "api_key", fields_string, offsetof(struct backend_settings, api_key)},
    {SECTION_BACKEND, "auth", fields_backend_auth, offsetof(struct backend_settings, auth)},
    {SECTION_BACKEND, "headers", fields_backend_headers, 0},
    {SECTION_BACKEND, "tls", fields_backend_tls, 0},
    {SECTION_BACKEND, "usage", fields_backend_usage, offsetof(struct backend_settings, usage)},
    {SECTION_BACKEND, "timeouts", fields_backend_timeouts, offsetof(struct backend_settings, timeouts)},
    {SECTION_BACKEND, "weight", fields_backend_weight, offsetof(struct backend_settings, weight)},
    {SECTION_BACKEND, "max_concurrent", fields_backend_max_concurrent,
     offsetof(struct backend_settings, max_concurrent)},
    {SECTION_BACKEND, "health", fields_health, offsetof(struct backend_settings, health)},
    {SECTION_UPSTREAM, "ca", fields_string, offsetof(struct backend_settings, tls.ca)},
    {SECTION_UPSTREAM, "cert", fields_string, offsetof(struct backend_settings, tls.cert)},
    {SECTION_UPSTREAM, "key", fields_string, offsetof(struct backend_settings, tls.key)},
    {SECTION_UPSTREAM, "verify", fields_bool, offsetof(struct backend_settings, tls.verify)},
    {SECTION_TIMEOUTS, "connect", read_duration, offsetof(struct backend_timeouts, connect)},
    {SECTION_TIMEOUTS, "first_token", read_duration, offsetof(struct backend_timeouts, first_token)},
    {SECTION_TIMEOUTS, "idle", read_duration, offsetof(struct backend_timeouts, idle)},
    {SECTION_TIMEOUTS, "total", read_duration, offsetof(struct backend_timeouts, total)},

    {SECTION_BALANCE, "policy", fields_balance_policy, offsetof(struct fleet_settings, policy)},
    {SECTION_BALANCE, "by", fields_balance_by, 0},
    {SECTION_BALANCE, "header", fields_balance_header, offsetof(struct fleet_settings, header)},
    {SECTION_HEALTH, "failures", fields_health_failures, offsetof(struct health_settings, failures)},
    {SECTION_HEALTH, "error_rate", fields_health_error_rate, offsetof(struct health_settings, error_rate)},
    {SECTION_HEALTH, "window", read_positive_duration, offsetof(struct health_settings, window_us)},
    {SECTION_HEALTH, "min_requests", fields_health_failures, offsetof(struct health_settings, min_requests)},
    {SECTION_HEALTH, "ejection", read_positive_duration, offsetof(struct health_settings, ejection_us)},
    {SECTION_HEALTH, "max_ejection", read_positive_duration, offsetof(struct health_settings, ejection_max_us)},
    {SECTION_HEALTH, "pause", read_positive_duration, offsetof(struct health_settings, pause_us)},
    {SECTION_HEALTH, "max_pause", read_positive_duration, offsetof(struct health_settings, pause_max_us)},
    {SECTION_HEALTH, "slow_start", read_duration, offsetof(struct health_settings, slow_start_us)},
    {SECTION_HEALTH, "path", fields_health_path, offsetof(struct health_settings, probe_path)},
    {SECTION_HEALTH, "interval", fields_probe_interval, offsetof(struct health_settings, probe_interval_us)},
    {SECTION_HEALTH, "timeout", read_positive_duration, offsetof(struct health_settings, probe_timeout_us)},
    {SECTION_HEALTH, "rise", fields_health_series, offsetof(struct health_settings, probe_rise)},
    {SECTION_HEALTH, "fall", fields_health_series, offsetof(struct health_settings, probe_fall)},
    {SECTION_RETRIES, "attempts", fields_retries_attempts, offsetof(struct retry_settings, attempts)},
    {SECTION_RETRIES, "budget", fields_retries_budget, offsetof(struct retry_settings, budget)},
    {SECTION_RETRIES, "backoff", read_duration, offsetof(struct retry_settings, backoff_us)},
    {SECTION_QUEUE, "max", fields_queue_max, offsetof(struct fleet_settings, queue_max)},
    {SECTION_QUEUE, "timeout", read_positive_duration, offsetof(struct fleet_settings, queue_timeout_us)},

    {SECTION_KEY, "name", fields_key_name, 0},
    {SECTION_KEY, "key", fields_key_key, 0},
    {SECTION_KEY, "hash", fields_key_hash, 0},
    {SECTION_KEY, "models", fields_key_models, 0},
    {SECTION_KEY, "routes", fields_key_routes, 0},
    {SECTION_KEY, "expires", fields_key_expires, 0},
    {SECTION_KEY, "limit", fields_key_limit, 0},
    {SECTION_KEY, "max_streams", fields_key_max_streams, 0},
    {SECTION_KEY, "priority", fields_key_priority, 0},

    {SECTION_ROUTE, "path", fields_string, offsetof(struct config_route, path)},
    {SECTION_ROUTE, "depends", fields_route_depends, 0},
    {SECTION_ROUTE, "proxy", fields_string, offsetof(struct config_route, proxy)},
    {SECTION_ROUTE, "query_key", fields_bool, offsetof(struct config_route, query_key)},
    {SECTION_ROUTE, "timeouts", fields_route_timeouts, 0},

    {SECTION_LIMIT, "limit", fields_limit_list, 0},
    {SECTION_LIMIT, "by", fields_limit_by, offsetof(struct config_limit, by)},
    {SECTION_LIMIT, "strategy", fields_limit_strategy, offsetof(struct config_limit, strategy)},
    {SECTION_LIMIT, "routes", fields_limit_routes, 0},
    {SECTION_LIMIT, "per", fields_limit_per, offsetof(struct config_limit, per_message)},
    {SECTION_LIMIT, "cost", fields_limit_cost, offsetof(struct config_limit, cost)},
    {SECTION_LIMIT, "message", fields_limit_message, offsetof(struct config_limit, message)},
    {SECTION_LIMIT, "headers", fields_bool, offsetof(struct config_limit, headers)},
    {SECTION_LIMIT, "on_redis_failure", fields_limit_failure, offsetof(struct config_limit, on_redis_failure)},
    {SECTION_LIMIT, "exempt", fields_limit_exempt, 0},
    {SECTION_EXEMPT, "keys", fields_exempt_keys, 0},
    {SECTION_EXEMPT, "addresses", fields_exempt_addresses, 0},

    {SECTION_CACHE, "ttl", read_positive_duration, offsetof(struct config, cache.ttl_us)},
    {SECTION_CACHE, "max_bytes", fields_cache_max_bytes, offsetof(struct config, cache.max_bytes)},
    {SECTION_CACHE, "max_entry", fields_cache_max_entry, offsetof(struct config, cache.max_entry)},
    {SECTION_CACHE, "scope", fields_cache_scope, offsetof(struct config, cache.shared)},
    {SECTION_CACHE, "for", fields_cache_for, offsetof(struct config, cache.deterministic)},
    {SECTION_CACHE, "mode", fields_cache_mode, offsetof(struct config, cache.opt_in)},

    {SECTION_REDIS, "url", fields_redis_url, offsetof(struct config, redis.url)},
    {SECTION_REDIS, "prefix", fields_redis_prefix, offsetof(struct config, redis.prefix)},
    {SECTION_REDIS, "timeout", fields_redis_timeout, offsetof(struct config, redis.timeout_us)},
    {SECTION_CACHE, "memory_ttl", read_positive_duration, offsetof(struct config, cache.memory_ttl_us)},

    {SECTION_ADMIN, "keys", fields_admin_keys, 0},
    {SECTION_ADMIN, "listen", fields_listen_address, offsetof(struct config, admin.listen.address)},
    {SECTION_ADMIN_KEY, "name", fields_key_name, 0},
    {SECTION_ADMIN_KEY, "key", fields_key_key, 0},
    {SECTION_ADMIN_KEY, "hash", fields_key_hash, 0},

    {SECTION_WEBSOCKET, "origins", fields_websocket_origins, 0},
    {SECTION_WEBSOCKET, "ping", read_duration, offsetof(struct config, websocket.ping_us)},
    {SECTION_WEBSOCKET, "max_message", fields_websocket_max_message, offsetof(struct config, websocket.max_message)},
    {SECTION_WEBSOCKET, "generations", fields_websocket_generations, offsetof(struct config, websocket.generations)},
    {SECTION_CHAT, "model", fields_string, offsetof(struct config, chat.model)},
    {SECTION_CHAT, "system", fields_string, offsetof(struct config, chat.system)},
    {SECTION_CHAT, "history", fields_chat_history, offsetof(struct config, chat.history)},
};

static bool unknown_key(struct yaml_reader *reader, const yaml_node_t *node, const char *key, enum section section)
{
    const char *names[COUNT(fields)];
    char where[280] = "", expected[512] = "";
    size_t count = 0;

    for (size_t i = 0; i < COUNT(fields); i++) {
        if (fields[i].section != section)
            continue;
        names[count++] = fields[i].name;
        size_t len = strlen(expected);
        if (fields[i].read != NULL)
            snprintf(expected + len, sizeof(expected) - len, "%s%s", len != 0 ? ", " : "", fields[i].name);
    }
    if (yaml_reader_path(reader)[0] != '\0')
        snprintf(where, sizeof(where), " in \"%s\"", yaml_reader_path(reader));
    const char *nearest = nearest_name(span_of(key), names, count);
    if (nearest != NULL)
        return yaml_reader_fail(reader, node, "unknown key \"%.64s\"%s; did you mean \"%s\"?", key, where, nearest);
    return yaml_reader_fail(reader, node, "unknown key \"%.64s\"%s, expected one of %s", key, where, expected);
}

static const struct field *find_field(enum section section, const char *name)
{
    for (size_t i = 0; i < COUNT(fields); i++) {
        if (fields[i].section == section && strcmp(fields[i].name, name) == 0)
            return &fields[i];
    }
    return NULL;
}

bool fields_section(struct yaml_reader *reader, const yaml_node_t *node, enum section section, void *object)
{
    size_t count;

    if (!yaml_reader_mapping(reader, node, &count))
        return false;
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *key_node;
        const char *key;
        const yaml_node_t *value = yaml_reader_member(reader, node, i, &key, &key_node);
        const struct field *field = find_field(section, key);
        if (field == NULL)
            return unknown_key(reader, key_node, key, section);
        size_t mark = yaml_reader_enter(reader, key, 0);
        if (field->read == NULL)
            return yaml_reader_fail_value(reader, key_node, "is not available in this version");
        if (!field->read(reader, value, (char *)object + field->offset))
            return false;
        yaml_reader_leave(reader, mark);
    }
    return true;
}

bool config_file_parse(struct config *config, const char *name, struct span text, char *(*getenv_fn)(const char *),
                       struct config_report *report)
{
    struct yaml_reader reader;
    yaml_node_t *root;

    if (!yaml_reader_open(&reader, name, text, getenv_fn, report, &root))
        return false;
    bool ok = true;
    if (root != NULL && !yaml_reader_is_scalar(root) && !yaml_reader_is_mapping(root))
        ok = yaml_reader_fail(&reader, root, "the file is a list, expected a mapping (\"key: value\")");
    else if (root != NULL && yaml_reader_is_scalar(root))
        ok = yaml_reader_fail(&reader, root, "the file is a single value, expected a mapping (\"key: value\")");
    else if (root != NULL)
        ok = fields_section(&reader, root, SECTION_TOP, config);
    yaml_reader_close(&reader);
    return ok;
}
