#include "gateway/config_fields.h"
#include <stdio.h>
#include <stdlib.h>

#define PATTERN_MAX 256
#define PATTERNS_MAX 256
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

bool fields_key_name(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct fields_key *fields = target;

    return fields_name(reader, node, &fields->key->name);
}

bool fields_key_key(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct fields_key *fields = target;

    fields->has_key = true;
    FIELDS_READ_VALUE(reader, node, value, config_value_key(&value, fields->key->hash));
}

bool fields_key_hash(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct fields_key *fields = target;

    fields->has_hash = true;
    FIELDS_READ_VALUE(reader, node, value, config_value_hash(&value, fields->key->hash));
}

bool fields_key_expires(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct fields_key *fields = target;

    FIELDS_READ_VALUE(reader, node, value, config_value_expires(&value, &fields->key->expires));
}

/* A list of names or globs that grows. */
struct patterns {
    char **items;
    size_t count;
};

static bool read_pattern(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct patterns *patterns = target;

    if (patterns->count == PATTERNS_MAX)
        return yaml_reader_fail_value(reader, node, "is one too many, expected at most %d", PATTERNS_MAX);
    char **item = config_append(&patterns->items, &patterns->count, sizeof(*item));
    if (!fields_string(reader, node, item))
        return false;
    if (strlen(*item) > PATTERN_MAX)
        return yaml_reader_fail_value(reader, node, "is too long, expected at most %d characters", PATTERN_MAX);
    return true;
}

bool fields_patterns(struct yaml_reader *reader, const yaml_node_t *node, char ***items, size_t *count,
                     const char *left_out)
{
    struct patterns patterns = {NULL, 0};
    char expected[64];

    snprintf(expected, sizeof(expected), "at least one item (leave it out for %s)", left_out);
    bool ok =
        fields_items(reader, node, read_pattern, &patterns) && fields_not_empty(reader, node, patterns.count, expected);
    *items = patterns.items;
    *count = patterns.count;
    return ok;
}

bool fields_key_models(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct fields_key *fields = target;

    return fields_patterns(reader, node, &fields->key->models, &fields->key->model_count, "all");
}

bool fields_key_routes(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct fields_key *fields = target;

    return fields_patterns(reader, node, &fields->key->routes, &fields->key->route_count, "all");
}

bool fields_key_limit(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct fields_key *fields = target;

    FIELDS_READ_VALUE(reader, node, value, config_value_limits(&value, fields->key->limits, &fields->key->limit_count));
}

bool fields_key_max_streams(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct fields_key *fields = target;

    return fields_max_streams(reader, node, &fields->key->max_streams);
}

static bool read_key(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;
    struct config_key *key = config_append(&config->keys, &config->key_count, sizeof(*key));
    struct fields_key fields = {.key = key};

    key->line = yaml_reader_line(node);
    key->priority = QUEUE_NORMAL;
    if (!fields_section(reader, node, SECTION_KEY, &fields))
        return false;
    if (key->name == NULL)
        return yaml_reader_fail_value(reader, node, "has no \"name\", expected one for logs and metrics");
    if (fields.has_key == fields.has_hash)
        return yaml_reader_fail_value(reader, node, "has %s, expected one of them",
                                      fields.has_key ? "both \"key\" and \"hash\"" : "neither \"key\" nor \"hash\"");
    return true;
}

bool fields_keys(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;

    return fields_items(reader, node, read_key, config) &&
           fields_not_empty(reader, node, config->key_count, "at least one key");
}

/* `limit:NAME` into its name, anything else into *id. */
static bool read_depend_word(struct yaml_reader *reader, const yaml_node_t *node, enum depend_id *id, char **limit)
{
    static const char prefix[] = "limit:";
    static const struct fields_word words[] = {
        {"public", false}, {"api_key", false}, {"validate", false}, {"limit", false}, {"cache", false}};
    static const enum depend_id ids[] = {DEPEND_PUBLIC, DEPEND_API_KEY, DEPEND_VALIDATE, DEPEND_LIMIT, DEPEND_CACHE};
    size_t which;

    if (node->type != YAML_SCALAR_NODE ||
        strncmp((const char *)node->data.scalar.value, prefix, sizeof(prefix) - 1) != 0) {
        if (!fields_word(reader, node, words, COUNT(words), &which))
            return false;
        *id = ids[which];
        return true;
    }
    char *text = yaml_reader_scalar(reader, node);
    if (text == NULL)
        return false;
    *id = DEPEND_LIMIT;
    *limit = span_dup(span_of(text + sizeof(prefix) - 1));
    config_free_secret(text);
    return true;
}

static bool read_depend(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config_route *route = target;
    size_t at = route->depend_count;

    if (at == DEPENDS_MAX)
        return yaml_reader_fail_value(reader, node, "is one too many, expected at most %d", DEPENDS_MAX);
    route->depend_count++;
    char **limit = &route->depend_limit[at];
    if (!read_depend_word(reader, node, &route->depends[at], limit))
        return false;
    for (size_t i = 0; i < at; i++) {
        const char *other = route->depend_limit[i];
        if (route->depends[i] == route->depends[at] &&
            (other == NULL ? *limit == NULL : *limit != NULL && strcmp(other, *limit) == 0))
            return yaml_reader_fail_value(reader, node, "is \"%.64s\" again, expected each dependency once",
                                          (const char *)node->data.scalar.value);
    }
    return true;
}

bool fields_route_depends(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config_route *route = target;

    route->has_depends = true;
    return fields_items(reader, node, read_depend, route);
}

static bool read_route(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;
    struct config_route *route = config_append(&config->routes, &config->route_count, sizeof(*route));

    route->line = yaml_reader_line(node);
    route->timeouts = (struct backend_timeouts){CONFIG_TIMEOUT_UNSET, CONFIG_TIMEOUT_UNSET, CONFIG_TIMEOUT_UNSET,
                                                CONFIG_TIMEOUT_UNSET};
    if (!fields_section(reader, node, SECTION_ROUTE, route))
        return false;
    if (route->path == NULL)
        return yaml_reader_fail_value(reader, node, "has no \"path\", expected such as /v1/chat/completions");
    if (!route->has_depends && route->proxy == NULL && !route->has_timeouts && !route->query_key)
        return yaml_reader_fail_value(reader, node,
                                      "says nothing about its path, expected \"depends\", \"proxy\" or \"timeouts\"");
    for (size_t i = 0; i + 1 < config->route_count; i++) {
        if (strcmp(config->routes[i].path, route->path) == 0)
            return yaml_reader_fail_value(reader, node, "has the path of \"routes[%zu]\", expected another one", i);
    }
    return true;
}

bool fields_routes(struct yaml_reader *reader, const yaml_node_t *node, void *config)
{
    return fields_items(reader, node, read_route, config);
}
