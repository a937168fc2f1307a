/* What a route's request body looks like: const descriptors that drive validation now and may drive schemas and
 * documentation. Fields that are not named pass. */
#ifndef WEIR_GATEWAY_BODY_H
#define WEIR_GATEWAY_BODY_H

#include "base/json_scan.h"

#define BODY_FIELDS_MAX 8

struct body_field {
    struct span name;
    enum json_type type; /* JSON_MISSING: any */
    bool required;
    bool nullable;
    bool non_empty; /* an array must have an element, a string a character */
    const char *description;
};

/* By convention field 0 is `model` and field 1 is `stream`. */
struct body_descriptor {
    const char *title;
    bool from_query; /* there is no body: weir makes it from the query, see chat.h */
    struct body_field fields[BODY_FIELDS_MAX];
    size_t field_count;
};

enum { BODY_MODEL = 0, BODY_STREAM = 1 };

extern const struct body_descriptor body_chat, body_completions, body_embeddings, body_responses, body_messages,
    body_chat_query;

/* For routes that pass bodies on unread: only finds the model. */
extern const struct body_descriptor body_any;

/* What is wrong with a body. */
struct body_problem {
    const char *param; /* the field; NULL: the whole */
    char message[160];
    char detail[256]; /* the same as FastAPI's list of errors, as JSON, without the input that it would echo */
};

/* Checks scanned values against the descriptor (values[i] belongs to fields[i]). False fills `problem`. */
bool body_check(const struct body_descriptor *body, const struct json_value *root, const struct json_value *values,
                struct body_problem *problem);

#endif
