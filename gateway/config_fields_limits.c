#include "gateway/config_fields.h"
#include "ratelimit/store.h"
#include <stdio.h>
#include <stdlib.h>

#define NAME_MAX_LEN 64
#define MESSAGE_MAX 512
#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

void fields_limit_init(struct config_limit *limit, struct span name)
{
    limit->name = span_dup(name);
    limit->by = FIELDS_BY_DEFAULT;
    limit->strategy = LIMIT_MOVING_WINDOW;
    limit->cost = 1;
    limit->headers = true;
}

bool fields_limit_list(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config_limit *limit = target;

    FIELDS_READ_VALUE(reader, node, value, config_value_limits(&value, limit->limits, &limit->count));
}

bool fields_limit_by(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_limit_by(&value, target));
}

bool fields_limit_strategy(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_strategy(&value, target));
}

bool fields_limit_routes(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config_limit *limit = target;

    return fields_patterns(reader, node, &limit->routes, &limit->route_count, "every model route");
}

bool fields_limit_per(struct yaml_reader *reader, const yaml_node_t *node, void *per_message)
{
    static const struct fields_word words[] = {{"request", false}, {"message", false}};
    size_t which;

    if (!fields_word(reader, node, words, 2, &which))
        return false;
    *(bool *)per_message = which == 1;
    return true;
}

bool fields_limit_failure(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    static const struct fields_word words[] = {
        [LIMIT_FAILURE_MEMORY] = {"memory", false},
        [LIMIT_FAILURE_ALLOW] = {"allow", false},
        [LIMIT_FAILURE_DENY] = {"deny", false},
    };
    enum limit_failure *failure = target;
    size_t which;

    if (!fields_word(reader, node, words, 3, &which))
        return false;
    *failure = (enum limit_failure)which;
    return true;
}

bool fields_limit_cost(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_number(&value, 1, LIMIT_AMOUNT_MAX, target));
}

bool fields_limit_message(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    if (!fields_string(reader, node, target))
        return false;
    if (strlen(*(char **)target) > MESSAGE_MAX)
        return yaml_reader_fail_value(reader, node, "is too long, expected at most %d bytes", MESSAGE_MAX);
    return true;
}

bool fields_exempt_keys(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config_limit *limit = target;

    return fields_patterns(reader, node, &limit->exempt_keys, &limit->exempt_key_count, "none");
}

bool fields_exempt_addresses(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config_limit *limit = target;

    return fields_networks(reader, node, &limit->exempt_networks, &limit->exempt_network_count) &&
           fields_not_empty(reader, node, limit->exempt_network_count, "at least one item (leave it out for none)");
}

bool fields_limit_exempt(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    const struct config_limit *limit = target;

    return fields_section(reader, node, SECTION_EXEMPT, target) &&
           fields_not_empty(reader, node, limit->exempt_key_count + limit->exempt_network_count,
                            "\"keys\" or \"addresses\"");
}

/* The names stand in `limit:NAME`, logs and metrics. */
static bool name_is_valid(struct span name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.base[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
              c == '.'))
            return false;
    }
    return name.len != 0 && name.len <= NAME_MAX_LEN;
}

static bool read_limit(struct yaml_reader *reader, const yaml_node_t *key_node, const yaml_node_t *node,
                       struct config_limit *limit)
{
    if (!name_is_valid(span_of(limit->name)))
        return yaml_reader_fail_value(reader, key_node,
                                      "has no usable name, expected 1 to %d letters, digits, "
                                      "\"_\", \"-\" and \".\"",
                                      NAME_MAX_LEN);
    if (!fields_section(reader, node, SECTION_LIMIT, limit))
        return false;
    if (limit->count == 0)
        return yaml_reader_fail_value(reader, key_node, "has no \"limit\", expected such as 60/minute;1000/hour");
    return true;
}

bool fields_limits(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;
    size_t count;

    if (!yaml_reader_mapping(reader, node, &count))
        return false;
    if (count > CONFIG_LIMITS_MAX)
        return yaml_reader_fail_value(reader, node, "has too many limits, expected at most %d", CONFIG_LIMITS_MAX);
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *key_node;
        const char *name;
        const yaml_node_t *item = yaml_reader_member(reader, node, i, &name, &key_node);
        struct config_limit *limit = config_append(&config->limits, &config->limit_count, sizeof(*limit));
        fields_limit_init(limit, span_of(name));
        limit->line = yaml_reader_line(key_node);
        size_t mark = yaml_reader_enter(reader, name, 0);
        if (!read_limit(reader, key_node, item, limit))
            return false;
        yaml_reader_leave(reader, mark);
    }
    return fields_not_empty(reader, node, count, "at least one limit (leave it out for none)");
}

bool fields_limit_memory(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return fields_size(reader, node, STORE_BYTES_MIN, 64 * GIB, target);
}

/* ---- the cache ---- */

bool fields_cache_max_bytes(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return fields_size(reader, node, MIB, 1024 * GIB, target);
}

bool fields_cache_max_entry(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return fields_size(reader, node, KIB, GIB, target);
}

/* One of two words, the second of which is true. */
static bool read_either(struct yaml_reader *reader, const yaml_node_t *node, const struct fields_word words[2],
                        bool *second)
{
    size_t which;

    if (!fields_word(reader, node, words, 2, &which))
        return false;
    *second = which == 1;
    return true;
}

bool fields_cache_scope(struct yaml_reader *reader, const yaml_node_t *node, void *shared)
{
    static const struct fields_word words[] = {{"key", false}, {"shared", false}};

    return read_either(reader, node, words, shared);
}

bool fields_cache_for(struct yaml_reader *reader, const yaml_node_t *node, void *deterministic)
{
    static const struct fields_word words[] = {{"all", false}, {"deterministic", false}};

    return read_either(reader, node, words, deterministic);
}

bool fields_cache_mode(struct yaml_reader *reader, const yaml_node_t *node, void *opt_in)
{
    static const struct fields_word words[] = {{"on", false}, {"opt_in", false}};

    return read_either(reader, node, words, opt_in);
}

bool fields_cache(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;

    if (!fields_section(reader, node, SECTION_CACHE, config))
        return false;
    if (config->cache.ttl_us == 0)
        return yaml_reader_fail_value(reader, node, "has no \"ttl\", expected such as 10m");
    if (config->cache.max_entry > config->cache.max_bytes)
        return yaml_reader_fail_value(reader, node, "has a \"max_entry\" above \"max_bytes\", expected at most that");
    if (config->cache.memory_ttl_us > config->cache.ttl_us)
        return yaml_reader_fail_value(reader, node, "has a \"memory_ttl\" above \"ttl\", expected at most that");
    config->cache.on = true;
    return true;
}
