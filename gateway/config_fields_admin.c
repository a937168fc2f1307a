#include "gateway/config_fields.h"

static bool read_key(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;
    struct config_key *key = config_append(&config->admin.keys, &config->admin.key_count, sizeof(*key));
    struct fields_key fields = {.key = key};

    key->line = yaml_reader_line(node);
    if (!fields_section(reader, node, SECTION_ADMIN_KEY, &fields))
        return false;
    if (key->name == NULL)
        return yaml_reader_fail_value(reader, node, "has no \"name\", expected one for logs");
    if (fields.has_key == fields.has_hash)
        return yaml_reader_fail_value(reader, node, "has %s, expected one of them",
                                      fields.has_key ? "both \"key\" and \"hash\"" : "neither \"key\" nor \"hash\"");
    return true;
}

bool fields_admin_keys(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;

    return fields_items(reader, node, read_key, config) &&
           fields_not_empty(reader, node, config->admin.key_count, "at least one key");
}

bool fields_admin(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;

    config->admin.listen.admin = true;
    config->admin.listen.line = yaml_reader_line(node);
    if (!fields_section(reader, node, SECTION_ADMIN, config))
        return false;
    if (config->admin.key_count == 0)
        return yaml_reader_fail_value(reader, node, "has no \"keys\", expected at least one key");
    return true;
}
