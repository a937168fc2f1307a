#include "gateway/config_origin.h"
#include "gateway/config_file.h"
#include "gateway/yaml_reader.h"
#include <openssl/crypto.h>
#include <stdlib.h>
#include <unistd.h>

const char *config_origin_usual(void)
{
    for (size_t i = 0; i < CONFIG_USUAL_COUNT; i++)
        if (access(config_usual[i], F_OK) == 0)
            return config_usual[i];
    return NULL;
}

static char *no_variables(const char *name)
{
    (void)name;
    return NULL;
}

static const yaml_node_t *member(struct yaml_reader *reader, const yaml_node_t *mapping, struct span name)
{
    size_t count;
    if (mapping == NULL || !yaml_reader_is_mapping(mapping) || !yaml_reader_mapping(reader, mapping, &count))
        return NULL;
    for (size_t i = 0; i < count; i++) {
        const char *key;
        const yaml_node_t *key_node, *value = yaml_reader_member(reader, mapping, i, &key, &key_node);
        if (span_eq(span_of(key), name))
            return value;
    }
    return NULL;
}

static void show(const yaml_node_t *node, struct strbuf *out)
{
    size_t count;
    if (yaml_reader_is_scalar(node)) {
        strbuf_add(out, (struct span){(const char *)node->data.scalar.value, node->data.scalar.length});
        return;
    }
    if (yaml_reader_is_mapping(node))
        count = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    else
        count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    strbuf_printf(out, "%zu entr%s", count, count == 1 ? "y" : "ies");
}

int config_origin_find(const char *file, const char *key, struct strbuf *shown, bool *is_list)
{
    char ignored[1024];
    struct config_report report = {ignored, sizeof(ignored)};
    struct yaml_reader reader;
    yaml_node_t *root;
    size_t len;
    char *text = config_read_whole(file, CONFIG_FILE_MAX_BYTES, &len);
    int line = 0;

    if (text == NULL)
        return 0;
    if (yaml_reader_open(&reader, file, (struct span){text, len}, no_variables, &report, &root)) {
        const yaml_node_t *node = root;
        const char *rest = key;
        do {
            const char *dot = strchrnul(rest, '.');
            node = member(&reader, node, (struct span){rest, (size_t)(dot - rest)});
            rest = *dot != '\0' ? dot + 1 : NULL;
        } while (node != NULL && rest != NULL);
        if (node != NULL) {
            line = yaml_reader_line(node);
            *is_list = !yaml_reader_is_scalar(node);
            show(node, shown);
        }
        yaml_reader_close(&reader);
    }
    OPENSSL_cleanse(text, len);
    free(text);
    return line;
}
