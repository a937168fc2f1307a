#include "gateway/body.h"
#include <stdio.h>

#define FIELD(n, t, ...)                                                                                               \
    {                                                                                                                  \
        .name = {(n), sizeof(n) - 1}, .type = (t), __VA_ARGS__                                                         \
    }
#define MODEL_FIELD                                                                                                    \
    FIELD("model", JSON_STRING, .required = true, .non_empty = true, .description = "which model answers")
#define STREAM_FIELD                                                                                                   \
    FIELD("stream", JSON_BOOL, .nullable = true, .description = "true: the answer comes as server-sent events")

#define USER_FIELD FIELD("user", JSON_MISSING, .description = "who asks, for limits by user")
#define MAX_TOKENS_FIELD FIELD("max_tokens", JSON_MISSING, .description = "the longest answer wanted")
#define STREAM_OPTIONS_FIELD                                                                                           \
    FIELD("stream_options", JSON_MISSING, .description = "include_usage: true asks for a last event with token counts")

#define CHAT_FIELDS                                                                                                    \
    {                                                                                                                  \
        MODEL_FIELD, STREAM_FIELD,                                                                                     \
            FIELD("messages", JSON_ARRAY, .required = true, .non_empty = true,                                         \
                  .description = "the conversation so far"),                                                           \
            USER_FIELD, MAX_TOKENS_FIELD,                                                                              \
            FIELD("max_completion_tokens", JSON_MISSING, .description = "the longest answer wanted"),                  \
            STREAM_OPTIONS_FIELD                                                                                       \
    }

const struct body_descriptor body_chat = {
    .title = "ChatCompletionRequest",
    .fields = CHAT_FIELDS,
    .field_count = 7,
};

const struct body_descriptor body_chat_query = {
    .title = "ChatQuery",
    .from_query = true,
    .fields = CHAT_FIELDS,
    .field_count = 7,
};

const struct body_descriptor body_completions = {
    .title = "CompletionRequest",
    .fields = {MODEL_FIELD, STREAM_FIELD, FIELD("prompt", JSON_MISSING, .description = "the text to go on with"),
               USER_FIELD, MAX_TOKENS_FIELD, STREAM_OPTIONS_FIELD},
    .field_count = 6,
};

const struct body_descriptor body_embeddings = {
    .title = "EmbeddingRequest",
    .fields = {MODEL_FIELD, STREAM_FIELD,
               FIELD("input", JSON_MISSING, .required = true, .description = "text or texts to embed"), USER_FIELD},
    .field_count = 4,
};

const struct body_descriptor body_responses = {
    .title = "ResponseRequest",
    .fields = {MODEL_FIELD, STREAM_FIELD, FIELD("input", JSON_MISSING, .description = "text or items"), USER_FIELD,
               FIELD("max_output_tokens", JSON_MISSING, .description = "the longest answer wanted")},
    .field_count = 5,
};

const struct body_descriptor body_messages = {
    .title = "MessageRequest",
    .fields = {MODEL_FIELD, STREAM_FIELD,
               FIELD("messages", JSON_ARRAY, .required = true, .non_empty = true,
                     .description = "the conversation so far"),
               MAX_TOKENS_FIELD,
               FIELD("metadata", JSON_MISSING, .description = "user_id: who asks, for limits by user")},
    .field_count = 5,
};

const struct body_descriptor body_any = {
    .title = "AnyRequest",
    .fields = {FIELD("model", JSON_MISSING, .description = "which model answers"), STREAM_FIELD},
    .field_count = 2,
};

static const char *type_words(enum json_type type)
{
    switch (type) {
    case JSON_BOOL:
        return "a boolean";
    case JSON_NUMBER:
        return "a number";
    case JSON_STRING:
        return "a string";
    case JSON_ARRAY:
        return "an array";
    case JSON_OBJECT:
        return "an object";
    case JSON_NULL:
        return "null";
    case JSON_MISSING:
        break;
    }
    return "missing";
}

static const char *pydantic_type(enum json_type type)
{
    return type == JSON_BOOL     ? "bool_type"
           : type == JSON_STRING ? "string_type"
           : type == JSON_ARRAY  ? "list_type"
                                 : "value_error";
}

static const char *pydantic_message(enum json_type type)
{
    return type == JSON_BOOL     ? "Input should be a valid boolean"
           : type == JSON_STRING ? "Input should be a valid string"
           : type == JSON_ARRAY  ? "Input should be a valid list"
                                 : "Input should be valid";
}

/* `format` has one %s, the field's name, and may have a second, `word`. */
static bool wrong(struct body_problem *problem, const struct body_field *field, const char *format, const char *word,
                  const char *type, const char *msg)
{
    problem->param = field->name.base;
    snprintf(problem->message, sizeof(problem->message), format, field->name.base, word);
    snprintf(problem->detail, sizeof(problem->detail), "[{\"type\":\"%s\",\"loc\":[\"body\",\"%s\"],\"msg\":\"%s\"}]",
             type, field->name.base, msg);
    return false;
}

static bool check_field(const struct body_field *field, const struct json_value *value, struct body_problem *problem)
{
    /* Which of the two a backend would take is anybody's guess, so a key's rights could not be checked. */
    if (value->duplicate && (field->required || field->type != JSON_MISSING))
        return wrong(problem, field, "'%s' stands more than once in the request body%s.", "", "value_error",
                     "Value error, the field stands more than once");
    if (value->type == JSON_MISSING)
        return !field->required ||
               wrong(problem, field, "Missing required parameter: '%s'%s.", "", "missing", "Field required");
    if (value->type == JSON_NULL && field->nullable)
        return true;
    if (field->type != JSON_MISSING && value->type != field->type)
        return wrong(problem, field, "Invalid type for '%s': expected %s.", type_words(field->type),
                     pydantic_type(field->type), pydantic_message(field->type));
    if (field->non_empty && value->type == JSON_ARRAY && value->count == 0)
        return wrong(problem, field, "'%s' must not be empty%s.", "", "too_short",
                     "List should have at least 1 item after validation, not 0");
    if (field->non_empty && value->type == JSON_STRING && value->raw.len == 2)
        return wrong(problem, field, "'%s' must not be empty%s.", "", "string_too_short",
                     "String should have at least 1 character");
    return true;
}

bool body_check(const struct body_descriptor *body, const struct json_value *root, const struct json_value *values,
                struct body_problem *problem)
{
    if (root->type != JSON_OBJECT) {
        problem->param = NULL;
        snprintf(problem->message, sizeof(problem->message), "The request body must be a JSON object, not %s.",
                 type_words(root->type));
        snprintf(
            problem->detail, sizeof(problem->detail),
            "[{\"type\":\"model_attributes_type\",\"loc\":[\"body\"],\"msg\":\"Input should be a valid dictionary or "
            "object to extract fields from\"}]");
        return false;
    }
    for (size_t i = 0; i < body->field_count; i++)
        if (!check_field(&body->fields[i], &values[i], problem))
            return false;
    return true;
}
