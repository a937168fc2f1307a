/* A YAML document for reading: positions for messages, variables expanded, the path to the value in hand. Internal to
 * gateway/config_file.c. libyaml's nodes stay as they are; a node is valid until yaml_reader_close. */
#ifndef WEIR_GATEWAY_YAML_READER_H
#define WEIR_GATEWAY_YAML_READER_H

#include "gateway/config_values.h"
#include <yaml.h>

#define YAML_READER_ITEMS_MAX 10000 /* in one list or mapping */

struct yaml_reader {
    struct config_report *report;
    const char *_name;
    char *(*_getenv)(const char *);
    yaml_document_t _document;
    char _path[256]; /* such as "backends[0].tls" */
    size_t _visits;  /* nodes read so far: aliases must not multiply a small file into a large one */
};

/* Parses the only document in `text`. On success *root is its root, NULL for an empty file; close the reader
 * afterwards. On failure nothing is left to close. */
bool yaml_reader_open(struct yaml_reader *reader, const char *name, struct span text, char *(*getenv_fn)(const char *),
                      struct config_report *report, yaml_node_t **root);

/* Overwrites (they may be keys) and frees the nodes. */
void yaml_reader_close(struct yaml_reader *reader);

/* Fails with "FILE:LINE: " and the message. */
bool yaml_reader_fail(struct yaml_reader *reader, const yaml_node_t *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Fails with `FILE:LINE: "PATH" …`. */
bool yaml_reader_fail_value(struct yaml_reader *reader, const yaml_node_t *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Enters a member of the mapping, or with key NULL an item of the list, in hand; returns what yaml_reader_leave needs.
 */
size_t yaml_reader_enter(struct yaml_reader *reader, const char *key, size_t index);
void yaml_reader_leave(struct yaml_reader *reader, size_t mark);
const char *yaml_reader_path(const struct yaml_reader *reader);

int yaml_reader_line(const yaml_node_t *node);

/* Checks the kind of the node and the number of its items, then gives them by index. */
bool yaml_reader_list(struct yaml_reader *reader, const yaml_node_t *node, size_t *count);
yaml_node_t *yaml_reader_item(struct yaml_reader *reader, const yaml_node_t *list, size_t i);

/* The same for a mapping; also checks that all keys are plain strings and none stands twice. */
bool yaml_reader_mapping(struct yaml_reader *reader, const yaml_node_t *node, size_t *count);
yaml_node_t *yaml_reader_member(struct yaml_reader *reader, const yaml_node_t *mapping, size_t i, const char **key,
                                const yaml_node_t **key_node);

bool yaml_reader_is_scalar(const yaml_node_t *node);
bool yaml_reader_is_mapping(const yaml_node_t *node);

/* The text of a scalar with ${VAR} expanded, malloc'ed; free it with config_free_secret. NULL after a failure. */
char *yaml_reader_scalar(struct yaml_reader *reader, const yaml_node_t *node);

/* yaml_reader_scalar for the config_value_* functions: fills `value`, whose subject is written to `subject`. */
char *yaml_reader_value(struct yaml_reader *reader, const yaml_node_t *node, struct config_value *value,
                        char subject[512]);

#endif
