#include "gateway/config_fields.h"
#include <stdio.h>
#include <stdlib.h>

bool fields_listen_address(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config_value value;
    char subject[512];
    struct span host;
    char *text = yaml_reader_value(reader, node, &value, subject);

    *(char **)target = text;
    return text != NULL && config_value_listen(&value, &host);
}

bool fields_listen_tls(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config_listen *listen = target;

    listen->tls_line = yaml_reader_line(node);
    if (!fields_section(reader, node, SECTION_TLS, target))
        return false;
    if (listen->tls_cert == NULL || listen->tls_key == NULL)
        return yaml_reader_fail_value(reader, node, "has no \"%s\", expected both \"cert\" and \"key\"",
                                      listen->tls_cert == NULL ? "cert" : "key");
    return true;
}

static bool read_listen_item(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;
    struct config_listen *listen = config_append(&config->listen, &config->listen_count, sizeof(*listen));

    listen->line = yaml_reader_line(node);
    if (!yaml_reader_is_mapping(node)) {
        if (!fields_listen_address(reader, node, &listen->address))
            return false;
    } else if (!fields_section(reader, node, SECTION_LISTEN, listen)) {
        return false;
    }
    if (listen->address == NULL)
        return yaml_reader_fail_value(reader, node, "has no \"address\", expected such as 127.0.0.1:8080");
    for (size_t i = 0; i + 1 < config->listen_count; i++) {
        if (strcasecmp(config->listen[i].address, listen->address) == 0)
            return yaml_reader_fail_value(reader, node, "is the address of \"listen[%zu]\" again, expected another one",
                                          i);
    }
    return true;
}

bool fields_listen(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;

    return fields_items(reader, node, read_listen_item, target) &&
           fields_not_empty(reader, node, config->listen_count, "at least one address");
}

/* A list of networks that grows. */
struct networks {
    struct config_network **items;
    size_t *count;
};

static bool read_network_item(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct networks *networks = target;
    struct config_network *network = config_append(networks->items, networks->count, sizeof(*network));

    FIELDS_READ_VALUE(reader, node, value, config_value_network(&value, network));
}

bool fields_networks(struct yaml_reader *reader, const yaml_node_t *node, struct config_network **networks,
                     size_t *count)
{
    struct networks list = {networks, count};

    return fields_items(reader, node, read_network_item, &list);
}

bool fields_trusted_proxies(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;

    return fields_networks(reader, node, &config->trusted_proxies, &config->trusted_proxy_count);
}

struct origins {
    char ***list;
    size_t *count;
};

/* An origin as browsers send it (RFC 6454 §6.2), or "*". */
static bool read_origin_item(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    const struct origins *origins = target;
    char **origin = config_append(origins->list, origins->count, sizeof(*origin));

    if (!fields_string(reader, node, origin))
        return false;
    if (strcmp(*origin, "*") == 0 || strcmp(*origin, "null") == 0)
        return true;
    const char *host = strstr(*origin, "://");
    bool valid = host != NULL && host != *origin && host[3] != '\0' && strpbrk(host + 3, "/?#@*") == NULL;
    for (const char *c = *origin; valid && *c != '\0'; c++)
        valid = *c > ' ' && *c <= '~';
    if (!valid)
        return yaml_reader_fail_value(reader, node,
                                      "is not an origin, expected such as \"https://chat.example.com\" or \"*\"");
    return true;
}

static bool read_origins(struct yaml_reader *reader, const yaml_node_t *node, char ***list, size_t *count)
{
    struct origins origins = {list, count};

    return fields_items(reader, node, read_origin_item, &origins) &&
           fields_not_empty(reader, node, *count, "at least one origin, or \"*\"");
}

bool fields_cors_origins(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;

    return read_origins(reader, node, &config->cors.origins, &config->cors.count);
}

bool fields_websocket_origins(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;

    return read_origins(reader, node, &config->websocket.origins, &config->websocket.origin_count);
}

bool fields_websocket_max_message(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return fields_size(reader, node, 1 << 10, 64 << 20, target);
}

static bool read_generations(struct yaml_reader *reader, const yaml_node_t *node, uint64_t *number)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_number(&value, 1, 1000, number));
}

bool fields_websocket_generations(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    uint64_t number = 0;

    if (!read_generations(reader, node, &number))
        return false;
    *(unsigned *)target = (unsigned)number;
    return true;
}

bool fields_websocket(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return fields_section(reader, node, SECTION_WEBSOCKET, target);
}

bool fields_chat_history(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return fields_size(reader, node, 1 << 10, 16 << 20, target);
}

bool fields_chat(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return fields_section(reader, node, SECTION_CHAT, target);
}

bool fields_connections(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return fields_section(reader, node, SECTION_CONNECTIONS, target);
}

bool fields_cors(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    const struct config *config = target;

    if (!fields_section(reader, node, SECTION_CORS, target))
        return false;
    if (config->cors.count == 0)
        return yaml_reader_fail_value(reader, node, "has no \"origins\", expected a list of origins");
    return true;
}
