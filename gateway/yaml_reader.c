#include "gateway/yaml_reader.h"
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define VISITS_MAX 200000
#define VALUE_MAX (64 << 10)
#define VARIABLE_MAX 128

int yaml_reader_line(const yaml_node_t *node)
{
    return (int)node->start_mark.line + 1;
}

bool yaml_reader_fail(struct yaml_reader *reader, const yaml_node_t *node, const char *format, ...)
{
    char message[768];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return config_fail(reader->report, "%s:%d: %s", reader->_name, yaml_reader_line(node), message);
}

bool yaml_reader_fail_value(struct yaml_reader *reader, const yaml_node_t *node, const char *format, ...)
{
    char message[768];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return yaml_reader_fail(reader, node, "\"%s\" %s", reader->_path, message);
}

/* The line of a problem that is known by its byte only. */
static int line_at(struct span text, size_t offset)
{
    int line = 1;

    for (size_t i = 0; i < text.len && i < offset; i++)
        line += text.base[i] == '\n';
    return line;
}

/* A line of the text, counted from 1, without its end. */
static struct span line_of(struct span text, int line)
{
    for (;;) {
        const char *end = text.len != 0 ? memchr(text.base, '\n', text.len) : NULL;
        size_t len = end != NULL ? (size_t)(end - text.base) : text.len;
        if (--line == 0 || text.len == 0)
            return (struct span){text.base, len};
        text = span_skip(text, len + 1);
    }
}

/* Whether "${" stands in the line outside quotes. */
static bool has_bare_variable(struct span line)
{
    char quote = '\0';

    for (size_t i = 0; i + 1 < line.len; i++) {
        char c = line.base[i];
        if (quote == '\0' && c == '$' && line.base[i + 1] == '{')
            return true;
        if (quote != '\0' ? c == quote : c == '"' || c == '\'')
            quote = quote != '\0' ? '\0' : c;
    }
    return false;
}

static bool syntax_error(const yaml_parser_t *parser, const char *name, struct span text, struct config_report *report)
{
    const char *problem = parser->problem != NULL ? parser->problem : "it cannot be read";
    int line = (int)parser->problem_mark.line + 1;

    if (parser->error == YAML_READER_ERROR)
        line = line_at(text, parser->problem_offset);
    struct span bad = line_of(text, line);
    size_t column = parser->problem_mark.column;
    if (parser->error == YAML_SCANNER_ERROR && column < bad.len && bad.base[column] == '\t')
        return config_fail(report, "%s:%d: not YAML: a tab, expected blanks", name, line);
    /* `{ key: ${KEY} }`: the brace opens a mapping inside the mapping. */
    const char *hint = has_bare_variable(bad) ? " (inside { } and [ ], put a value with ${NAME} in quotes)" : "";
    if (parser->context != NULL)
        return config_fail(report, "%s:%d: not YAML: %s %s%s", name, line, problem, parser->context, hint);
    return config_fail(report, "%s:%d: not YAML: %s%s", name, line, problem, hint);
}

/* Parsing copies the text: what is left of it in the parser goes too. */
static void delete_parser(yaml_parser_t *parser)
{
    if (parser->raw_buffer.start != NULL)
        OPENSSL_cleanse(parser->raw_buffer.start, (size_t)(parser->raw_buffer.end - parser->raw_buffer.start));
    if (parser->buffer.start != NULL)
        OPENSSL_cleanse(parser->buffer.start, (size_t)(parser->buffer.end - parser->buffer.start));
    yaml_parser_delete(parser);
}

/* Whether nothing but the end follows the first document. */
static bool at_end(yaml_parser_t *parser, struct yaml_reader *reader, struct span text)
{
    yaml_document_t second;

    if (!yaml_parser_load(parser, &second))
        return syntax_error(parser, reader->_name, text, reader->report);
    const yaml_node_t *root = yaml_document_get_root_node(&second);
    if (root != NULL)
        config_fail(reader->report, "%s:%d: a second document begins, expected only one", reader->_name,
                    (int)second.start_mark.line + 1);
    yaml_document_delete(&second);
    return root == NULL;
}

bool yaml_reader_open(struct yaml_reader *reader, const char *name, struct span text, char *(*getenv_fn)(const char *),
                      struct config_report *report, yaml_node_t **root)
{
    yaml_parser_t parser;
    bool ok;

    memset(reader, 0, sizeof(*reader));
    reader->report = report;
    reader->_name = name;
    reader->_getenv = getenv_fn;
    if (!yaml_parser_initialize(&parser))
        abort();
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.base, text.len);
    if (!yaml_parser_load(&parser, &reader->_document)) {
        ok = syntax_error(&parser, name, text, report);
    } else {
        *root = yaml_document_get_root_node(&reader->_document);
        ok = *root == NULL || at_end(&parser, reader, text);
        if (!ok)
            yaml_reader_close(reader);
    }
    delete_parser(&parser);
    return ok;
}

void yaml_reader_close(struct yaml_reader *reader)
{
    for (yaml_node_t *node = reader->_document.nodes.start; node < reader->_document.nodes.top; node++) {
        if (node->type == YAML_SCALAR_NODE)
            OPENSSL_cleanse(node->data.scalar.value, node->data.scalar.length);
    }
    yaml_document_delete(&reader->_document);
}

size_t yaml_reader_enter(struct yaml_reader *reader, const char *key, size_t index)
{
    size_t mark = strlen(reader->_path), room = sizeof(reader->_path) - mark;

    if (key == NULL)
        snprintf(reader->_path + mark, room, "[%zu]", index);
    else
        snprintf(reader->_path + mark, room, "%s%.64s", mark != 0 ? "." : "", key);
    return mark;
}

void yaml_reader_leave(struct yaml_reader *reader, size_t mark)
{
    reader->_path[mark] = '\0';
}

const char *yaml_reader_path(const struct yaml_reader *reader)
{
    return reader->_path;
}

static bool visit(struct yaml_reader *reader, const yaml_node_t *node)
{
    if (++reader->_visits > VISITS_MAX)
        return yaml_reader_fail(
            reader, node, "the aliases of this file multiply to too many values, expected at most %d", VISITS_MAX);
    return true;
}

static bool is_null(const yaml_node_t *node)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};

    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < sizeof(nulls) / sizeof(nulls[0]); i++) {
        if (strcmp((const char *)node->data.scalar.value, nulls[i]) == 0)
            return true;
    }
    return false;
}

static bool wrong_kind(struct yaml_reader *reader, const yaml_node_t *node, const char *expected)
{
    static const char *const kinds[] = {
        [YAML_NO_NODE] = "nothing",
        [YAML_SCALAR_NODE] = "a single value",
        [YAML_SEQUENCE_NODE] = "a list",
        [YAML_MAPPING_NODE] = "a mapping",
    };

    if (is_null(node))
        return yaml_reader_fail_value(reader, node, "has no value, expected %s", expected);
    return yaml_reader_fail_value(reader, node, "is %s, expected %s", kinds[node->type], expected);
}

bool yaml_reader_list(struct yaml_reader *reader, const yaml_node_t *node, size_t *count)
{
    if (node->type != YAML_SEQUENCE_NODE)
        return wrong_kind(reader, node, "a list");
    *count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (*count > YAML_READER_ITEMS_MAX)
        return yaml_reader_fail_value(reader, node, "has too many items, expected at most %d", YAML_READER_ITEMS_MAX);
    return visit(reader, node);
}

yaml_node_t *yaml_reader_item(struct yaml_reader *reader, const yaml_node_t *list, size_t i)
{
    return yaml_document_get_node(&reader->_document, list->data.sequence.items.start[i]);
}

static bool check_key(struct yaml_reader *reader, const yaml_node_t *mapping, size_t i)
{
    const yaml_node_t *key_node, *other_node;
    const char *key, *other;

    yaml_reader_member(reader, mapping, i, &key, &key_node);
    if (key == NULL || strlen(key) != key_node->data.scalar.length)
        return yaml_reader_fail(reader, key_node, "a key that is not a plain string");
    for (size_t j = 0; j < i; j++) {
        yaml_reader_member(reader, mapping, j, &other, &other_node);
        if (strcmp(key, other) == 0)
            return yaml_reader_fail(reader, key_node, "\"%.64s\" stands here again, first in line %d", key,
                                    yaml_reader_line(other_node));
    }
    return true;
}

bool yaml_reader_mapping(struct yaml_reader *reader, const yaml_node_t *node, size_t *count)
{
    if (node->type != YAML_MAPPING_NODE)
        return wrong_kind(reader, node, "a mapping (\"key: value\")");
    *count = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    /* Far fewer than in a list: looking for doubles costs the square of it. */
    if (*count > YAML_READER_ITEMS_MAX / 10)
        return yaml_reader_fail_value(reader, node, "has too many keys, expected at most %d",
                                      YAML_READER_ITEMS_MAX / 10);
    for (size_t i = 0; i < *count; i++) {
        if (!check_key(reader, node, i))
            return false;
        reader->_visits += i / 100;
    }
    return visit(reader, node);
}

yaml_node_t *yaml_reader_member(struct yaml_reader *reader, const yaml_node_t *mapping, size_t i, const char **key,
                                const yaml_node_t **key_node)
{
    const yaml_node_pair_t *pair = &mapping->data.mapping.pairs.start[i];

    *key_node = yaml_document_get_node(&reader->_document, pair->key);
    *key = (*key_node)->type == YAML_SCALAR_NODE ? (const char *)(*key_node)->data.scalar.value : NULL;
    return yaml_document_get_node(&reader->_document, pair->value);
}

bool yaml_reader_is_scalar(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && !is_null(node);
}

bool yaml_reader_is_mapping(const yaml_node_t *node)
{
    return node->type == YAML_MAPPING_NODE;
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The value of the variable at `at`, which stands behind "${"; *end receives the place behind "}". */
static const char *variable(struct yaml_reader *reader, const yaml_node_t *node, const char *at, const char **end)
{
    char name[VARIABLE_MAX];
    size_t len = 0;

    while (is_name_char(at[len]))
        len++;
    if (at[len] != '}' || len == 0 || len >= sizeof(name) || (at[0] >= '0' && at[0] <= '9')) {
        yaml_reader_fail_value(
            reader, node, "has a \"${\" that no variable follows, expected ${NAME} ($${ stands for \"${\" itself)");
        return NULL;
    }
    memcpy(name, at, len);
    name[len] = '\0';
    *end = at + len + 1;
    const char *value = reader->_getenv(name);
    if (value == NULL)
        yaml_reader_fail_value(reader, node, "needs the environment variable %s, which is not set", name);
    return value;
}

struct text {
    char *base;
    size_t len;
};

/* Appends to a buffer of VALUE_MAX bytes and a NUL. */
static bool put(struct yaml_reader *reader, const yaml_node_t *node, struct text *text, const char *bytes, size_t len)
{
    if (len > VALUE_MAX - text->len)
        return yaml_reader_fail_value(reader, node, "is too long, expected at most %d bytes", VALUE_MAX);
    memcpy(text->base + text->len, bytes, len);
    text->len += len;
    text->base[text->len] = '\0';
    return true;
}

static bool expand(struct yaml_reader *reader, const yaml_node_t *node, struct text *out)
{
    const char *at = (const char *)node->data.scalar.value;

    for (;;) {
        const char *dollar = strchrnul(at, '$');
        if (!put(reader, node, out, at, (size_t)(dollar - at)))
            return false;
        at = dollar;
        if (*at == '\0')
            return true;
        if (strncmp(at, "$${", 3) == 0) {
            if (!put(reader, node, out, "${", 2))
                return false;
            at += 3;
        } else if (at[1] == '{') {
            const char *value = variable(reader, node, at + 2, &at);
            if (value == NULL || !put(reader, node, out, value, strlen(value)))
                return false;
        } else {
            if (!put(reader, node, out, at++, 1))
                return false;
        }
    }
}

char *yaml_reader_scalar(struct yaml_reader *reader, const yaml_node_t *node)
{
    struct text out = {NULL, 0};

    if (!visit(reader, node))
        return NULL;
    if (!yaml_reader_is_scalar(node)) {
        wrong_kind(reader, node, "a single value");
        return NULL;
    }
    if (strlen((const char *)node->data.scalar.value) != node->data.scalar.length) {
        yaml_reader_fail_value(reader, node, "holds a NUL character, expected none");
        return NULL;
    }
    if (strchr((const char *)node->data.scalar.value, '$') == NULL && node->data.scalar.length <= VALUE_MAX)
        return span_dup(span_of((const char *)node->data.scalar.value));
    out.base = malloc(VALUE_MAX + 1);
    if (out.base == NULL)
        abort();
    out.base[0] = '\0';
    char *string = expand(reader, node, &out) ? span_dup((struct span){out.base, out.len}) : NULL;
    OPENSSL_cleanse(out.base, out.len);
    free(out.base);
    return string;
}

char *yaml_reader_value(struct yaml_reader *reader, const yaml_node_t *node, struct config_value *value,
                        char subject[512])
{
    char *text = yaml_reader_scalar(reader, node);

    snprintf(subject, 512, "%.200s:%d: \"%s\"", reader->_name, yaml_reader_line(node), reader->_path);
    if (text != NULL)
        *value = (struct config_value){
            .report = reader->report,
            .subject = subject,
            .text = span_of(text),
            .shown = {(const char *)node->data.scalar.value, node->data.scalar.length},
        };
    return text;
}
