#include "gateway/config_fields.h"
#include <stdio.h>
#include <stdlib.h>

#define BACKENDS_MAX 256
#define HEADERS_MAX 64
#define MODEL_NAME_MAX 256
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

bool fields_backend_usage(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    static const struct fields_word words[] = {{"read", false}, {"ask", false}};
    size_t which;

    if (!fields_word(reader, node, words, COUNT(words), &which))
        return false;
    *(enum backend_usage *)target = which == 0 ? BACKEND_USAGE_READ : BACKEND_USAGE_ASK;
    return true;
}

/* What stands here by mistake may well be the key, so it is not repeated. */
bool fields_backend_auth(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    static const char *const words[] = {
        [BACKEND_AUTH_BEARER] = "bearer", [BACKEND_AUTH_X_API_KEY] = "x-api-key", [BACKEND_AUTH_API_KEY] = "api-key"};
    struct config_value value;
    char subject[512];
    size_t which = 0;
    char *text = yaml_reader_value(reader, node, &value, subject);

    if (text == NULL)
        return false;
    while (which < COUNT(words) && !span_eq(value.text, span_of(words[which])))
        which++;
    config_free_secret(text);
    if (which == COUNT(words))
        return yaml_reader_fail_value(reader, node, "is something else, expected bearer, x-api-key or api-key");
    *(enum backend_auth *)target = (enum backend_auth)which;
    return true;
}

bool fields_backend_url(struct yaml_reader *reader, const yaml_node_t *node, void *backend)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_url(&value, backend));
}

static bool check_model(struct yaml_reader *reader, const yaml_node_t *node, const char *name)
{
    if (strlen(name) > MODEL_NAME_MAX)
        return yaml_reader_fail_value(reader, node, "is too long, expected at most %d characters", MODEL_NAME_MAX);
    return true;
}

static bool read_model_item(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct backend_settings *backend = target;
    struct backend_model *model = config_append(&backend->models, &backend->model_count, sizeof(*model));

    return fields_string(reader, node, &model->pattern) && check_model(reader, node, model->pattern);
}

static bool read_renamed_model(struct yaml_reader *reader, const yaml_node_t *node, const char *name,
                               struct backend_settings *backend)
{
    struct backend_model *model = config_append(&backend->models, &backend->model_count, sizeof(*model));

    model->pattern = span_dup(span_of(name));
    if (name[0] == '\0')
        return yaml_reader_fail_value(reader, node, "has an empty name, expected the name that clients use");
    if (!fields_string(reader, node, &model->upstream) || !check_model(reader, node, model->pattern) ||
        !check_model(reader, node, model->upstream))
        return false;
    if (strchr(model->upstream, '*') != NULL)
        return yaml_reader_fail_value(reader, node, "is \"%.64s\", expected the name of one model, without \"*\"",
                                      (const char *)node->data.scalar.value);
    return true;
}

bool fields_backend_models(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct backend_settings *backend = target;
    size_t count;

    if (!yaml_reader_is_mapping(node))
        return fields_items(reader, node, read_model_item, backend) &&
               fields_not_empty(reader, node, backend->model_count, "at least one model (leave it out for all)");
    if (!yaml_reader_mapping(reader, node, &count))
        return false;
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *key_node;
        const char *key;
        const yaml_node_t *value = yaml_reader_member(reader, node, i, &key, &key_node);
        size_t mark = yaml_reader_enter(reader, key, 0);
        if (!read_renamed_model(reader, value, key, backend))
            return false;
        yaml_reader_leave(reader, mark);
    }
    return fields_not_empty(reader, node, count, "at least one model (leave it out for all)");
}

/* What the connection itself or the url decides. */
static const char *const reserved_headers[] = {
    "host",    "content-length", "transfer-encoding", "connection",   "keep-alive",       "te", "trailer",
    "upgrade", "expect",         "accept-encoding",   "content-type", "proxy-connection",
};

static bool check_header(struct yaml_reader *reader, const yaml_node_t *node, const struct backend_header *header)
{
    static const char token[] = /* RFC 9110 §5.6.2 */
        "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

    if (header->name[0] == '\0' || header->name[strspn(header->name, token)] != '\0')
        return yaml_reader_fail_value(reader, node, "has no valid header name, expected letters, digits and dashes");
    for (size_t i = 0; i < COUNT(reserved_headers); i++) {
        if (strcasecmp(header->name, reserved_headers[i]) == 0)
            return yaml_reader_fail_value(reader, node, "cannot be set here, expected another header");
    }
    for (const char *c = header->value; *c != '\0'; c++) {
        if (((unsigned char)*c < ' ' && *c != '\t') || *c == '\x7f')
            return yaml_reader_fail_value(reader, node, "holds a control character, expected one line of text");
    }
    return true;
}

bool fields_backend_headers(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct backend_settings *backend = target;
    size_t count;

    if (!yaml_reader_mapping(reader, node, &count))
        return false;
    if (count > HEADERS_MAX)
        return yaml_reader_fail_value(reader, node, "has too many headers, expected at most %d", HEADERS_MAX);
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *key_node;
        const char *key;
        const yaml_node_t *value = yaml_reader_member(reader, node, i, &key, &key_node);
        size_t mark = yaml_reader_enter(reader, key, 0);
        for (size_t j = 0; j < backend->header_count; j++) {
            if (strcasecmp(backend->headers[j].name, key) == 0)
                return yaml_reader_fail_value(reader, key_node, "is the header \"%.64s\" again, expected it once",
                                              backend->headers[j].name);
        }
        struct backend_header *header = config_append(&backend->headers, &backend->header_count, sizeof(*header));
        header->name = span_dup(span_of(key));
        if (!fields_string(reader, value, &header->value) || !check_header(reader, value, header))
            return false;
        yaml_reader_leave(reader, mark);
    }
    return true;
}

bool fields_backend_tls(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct backend_settings *backend = target;

    backend->tls.line = yaml_reader_line(node);
    if (!fields_section(reader, node, SECTION_UPSTREAM, target))
        return false;
    if ((backend->tls.cert != NULL) != (backend->tls.key != NULL))
        return yaml_reader_fail_value(reader, node, "has no \"%s\", expected both \"cert\" and \"key\"",
                                      backend->tls.cert == NULL ? "cert" : "key");
    return true;
}

bool fields_backend_timeouts(struct yaml_reader *reader, const yaml_node_t *node, void *timeouts)
{
    return fields_section(reader, node, SECTION_TIMEOUTS, timeouts);
}

/* The node of a member, for messages and to know whether it was given. */
static const yaml_node_t *member(struct yaml_reader *reader, const yaml_node_t *mapping, const char *name)
{
    size_t count = 0;

    yaml_reader_mapping(reader, mapping, &count);
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *key_node;
        const char *key;
        yaml_reader_member(reader, mapping, i, &key, &key_node);
        if (strcmp(key, name) == 0)
            return key_node;
    }
    return NULL;
}

/* A setting that could do nothing is an error, not a shrug. */
static bool check_useful(struct yaml_reader *reader, const yaml_node_t *node, const struct backend_settings *backend)
{
    static const char *const not_demo[] = {"api_key", "auth", "headers", "tls", "timeouts", "discover"};
    static const char *const auth_headers[] = {
        [BACKEND_AUTH_BEARER] = "authorization",
        [BACKEND_AUTH_X_API_KEY] = "x-api-key",
        [BACKEND_AUTH_API_KEY] = "api-key",
    };
    const yaml_node_t *found;

    for (size_t i = 0; backend->url.kind == BACKEND_DEMO && i < COUNT(not_demo); i++) {
        if ((found = member(reader, node, not_demo[i])) != NULL)
            return yaml_reader_fail_value(reader, found, "has \"%s\", which means nothing to the demo model",
                                          not_demo[i]);
    }
    if (backend->model_count != 0 && (found = member(reader, node, "discover")) != NULL)
        return yaml_reader_fail_value(reader, found, "has \"discover\" and \"models\", expected one of them");
    if (!backend->url.tls && (found = member(reader, node, "tls")) != NULL)
        return yaml_reader_fail_value(reader, found, "has \"tls\" but its url is clear text, expected https://");
    if (backend->api_key == NULL && (found = member(reader, node, "auth")) != NULL)
        return yaml_reader_fail_value(reader, found, "has \"auth\" but no \"api_key\", expected both or none");
    for (size_t i = 0; backend->api_key != NULL && i < backend->header_count; i++) {
        if (strcasecmp(backend->headers[i].name, auth_headers[backend->auth]) == 0)
            return yaml_reader_fail_value(reader, node,
                                          "sends its \"api_key\" in the header \"%s\", which \"headers\" sets too",
                                          auth_headers[backend->auth]);
    }
    for (const char *c = backend->api_key; c != NULL && *c != '\0'; c++) {
        if ((unsigned char)*c <= ' ' || *c == '\x7f')
            return yaml_reader_fail_value(reader, node, "has an \"api_key\" with a blank or control character");
    }
    return true;
}

bool fields_backend(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;
    struct backend_settings *backend = config_append(&config->backends, &config->backend_count, sizeof(*backend));

    backend_settings_init(backend);
    if (!fields_section(reader, node, SECTION_BACKEND, backend))
        return false;
    if (backend->url.authority == NULL)
        return yaml_reader_fail_value(reader, node, "has no \"url\", expected http://, https:// or demo:");
    if (!check_useful(reader, node, backend))
        return false;
    for (size_t i = 0; i + 1 < config->backend_count; i++) {
        const struct backend_settings *other = &config->backends[i];
        if (backend->name != NULL && other->name != NULL && strcmp(backend->name, other->name) == 0)
            return yaml_reader_fail_value(
                reader, node, "has the name \"%s\" of \"backends[%zu]\", expected another one", backend->name, i);
        if (backend->is_default && other->is_default)
            return yaml_reader_fail_value(reader, node, "is a second default after \"backends[%zu]\", expected one", i);
    }
    return true;
}

bool fields_backends(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;
    size_t count;

    if (!yaml_reader_list(reader, node, &count))
        return false;
    if (count > BACKENDS_MAX)
        return yaml_reader_fail_value(reader, node, "has too many items, expected at most %d", BACKENDS_MAX);
    return fields_items(reader, node, fields_backend, config) &&
           fields_not_empty(reader, node, config->backend_count,
                            "at least one backend (leave it out for the demo model)");
}
