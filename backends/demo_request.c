#include "backends/demo_request.h"
#include <jansson.h>
#include <math.h>
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define CLOSING " This answer comes from weir's built-in demo model, one word at a time."

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct span demo_token(struct span *rest)
{
    size_t len = 0;
    while (len < rest->len && is_blank(rest->base[len]))
        len++;
    bool has_word = len < rest->len;
    while (len < rest->len && !is_blank(rest->base[len]))
        len++;
    struct span token = has_word ? (struct span){rest->base, len} : SPAN_NONE;
    *rest = span_skip(*rest, len);
    return token;
}

static size_t count_words(struct span text)
{
    size_t words = 0;
    while (demo_token(&text).len != 0)
        words++;
    return words;
}

static struct span string_span(const json_t *string)
{
    return (struct span){json_string_value(string), json_string_length(string)};
}

static void refuse(struct demo_request *request, int status, const char *code, const char *param, const char *format,
                   ...) __attribute__((format(printf, 5, 6)));

/* The first reason stays. */
static void refuse(struct demo_request *request, int status, const char *code, const char *param, const char *format,
                   ...)
{
    if (request->status != 200)
        return;
    request->status = status;
    request->code = code;
    request->param = param;
    va_list args;
    va_start(args, format);
    vsnprintf(request->message, sizeof(request->message), format, args);
    va_end(args);
}

/* The texts in a message's content: a string, or an array of strings and of parts with a "text". */
static void read_content(const json_t *content, struct strbuf *out, uint64_t *words)
{
    if (json_is_object(content))
        content = json_object_get(content, "text");
    if (json_is_string(content)) {
        if (words != NULL)
            *words += count_words(string_span(content));
        if (out != NULL) {
            struct span text = string_span(content);
            if (out->len != 0 && out->len <= DEMO_ECHO_MAX)
                strbuf_putc(out, ' ');
            size_t room = DEMO_ECHO_MAX + 1 - out->len;
            strbuf_add(out, text.len > room ? (struct span){text.base, room} : text);
        }
    } else if (json_is_array(content)) {
        size_t i;
        json_t *part;
        json_array_foreach(content, i, part)
        {
            if (!json_is_array(part))
                read_content(part, out, words);
        }
    }
}

/* Counts the words of all messages and takes the text of the user's last one (of the last of all, if no user spoke). */
static void read_messages(struct demo_request *request, const json_t *messages, const char *param, struct strbuf *text)
{
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        refuse(request, 400, NULL, param, "'%s' must be an array with at least one message.", param);
        return;
    }
    size_t i;
    json_t *message;
    const json_t *last = NULL;
    bool by_user = false;
    json_array_foreach(messages, i, message)
    {
        const json_t *content = json_object_get(message, "content");
        const char *role = json_string_value(json_object_get(message, "role"));
        bool user = role != NULL && strcmp(role, "user") == 0;
        read_content(content, NULL, &request->prompt);
        if (user || !by_user)
            last = content;
        by_user |= user;
    }
    read_content(last, text, NULL);
}

/* A token limit, if it is there; *limit becomes the smaller of both. */
static void read_limit(struct demo_request *request, const json_t *body, const char *name, size_t *limit)
{
    const json_t *value = json_object_get(body, name);
    if (value == NULL || json_is_null(value))
        return;
    double number = json_is_number(value) ? json_number_value(value) : 0;
    if (!(number >= 1)) {
        refuse(request, 400, "invalid_value", name, "'%s' must be a number of at least 1.", name);
        return;
    }
    if (number < (double)*limit)
        *limit = (size_t)number;
}

/* A vector of length 1 that depends on nothing but the text. */
static void embed(struct demo_vector *vector, struct span text)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256((const uint8_t *)text.base, text.len, digest);
    double sum = 0, at[DEMO_DIMENSIONS];
    for (int i = 0; i < DEMO_DIMENSIONS; i++) {
        const uint8_t *p = digest + (size_t)i * 4;
        at[i] = (double)(p[0] | p[1] << 8 | p[2] << 16) / 0x800000 - 1 + 1e-9;
        sum += at[i] * at[i];
    }
    for (int i = 0; i < DEMO_DIMENSIONS; i++)
        vector->at[i] = (float)(at[i] / sqrt(sum));
}

static void embed_json(struct demo_request *request, const json_t *input)
{
    struct demo_vector *vector = &request->vectors[request->vector_count++];
    if (json_is_string(input)) {
        request->prompt += count_words(string_span(input));
        embed(vector, string_span(input));
        return;
    }
    /* a list of token numbers */
    char *text = json_dumps(input, JSON_COMPACT | JSON_ENCODE_ANY);
    request->prompt += json_is_array(input) ? json_array_size(input) : 1;
    embed(vector, text != NULL ? span_of(text) : SPAN(""));
    free(text);
}

static void read_embeddings(struct demo_request *request, const json_t *body)
{
    const json_t *input = json_object_get(body, "input");
    const json_t *format = json_object_get(body, "encoding_format");
    const json_t *dimensions = json_object_get(body, "dimensions");
    const json_t *first = json_array_get(input, 0);
    bool list = json_is_string(first) || json_is_array(first);
    size_t count = list ? json_array_size(input) : 1;

    if (json_is_string(format) && strcmp(json_string_value(format), "base64") == 0)
        request->base64 = true;
    else if (format != NULL && !json_is_null(format) &&
             !(json_is_string(format) && strcmp(json_string_value(format), "float") == 0))
        refuse(request, 400, "invalid_value", "encoding_format", "'encoding_format' must be 'float' or 'base64'.");
    if (dimensions != NULL && !json_is_null(dimensions) && json_number_value(dimensions) != DEMO_DIMENSIONS)
        refuse(request, 400, "invalid_value", "dimensions", "The demo model's embeddings have %d dimensions.",
               DEMO_DIMENSIONS);
    if (!json_is_string(input) && first == NULL)
        refuse(request, 400, NULL, "input", "'input' must be a string or an array that is not empty.");
    if (count > DEMO_INPUTS_MAX)
        refuse(request, 400, "invalid_value", "input", "'input' must not have more than %d elements.", DEMO_INPUTS_MAX);
    if (request->status != 200)
        return;
    request->vectors = h2o_mem_alloc(count * sizeof(*request->vectors));
    for (size_t i = 0; i < count; i++)
        embed_json(request, list ? json_array_get(input, i) : input);
}

/* Reads the body's fields; `text` receives what the user said. */
static void read_fields(struct demo_request *request, const json_t *body, struct strbuf *text, size_t *limit)
{
    const json_t *n = json_object_get(body, "n");
    switch (request->dialect) {
    case DIALECT_COMPLETIONS: {
        const json_t *prompt = json_object_get(body, "prompt");
        if (!json_is_string(prompt) && !(json_is_array(prompt) && json_array_size(prompt) != 0))
            refuse(request, 400, NULL, "prompt", "'prompt' must be a string or an array that is not empty.");
        read_content(prompt, text, &request->prompt);
        read_limit(request, body, "max_tokens", limit);
        break;
    }
    case DIALECT_RESPONSES: {
        const json_t *input = json_object_get(body, "input");
        if (json_is_string(input))
            read_content(input, text, &request->prompt);
        else
            read_messages(request, input, "input", text);
        read_content(json_object_get(body, "instructions"), NULL, &request->prompt);
        read_limit(request, body, "max_output_tokens", limit);
        break;
    }
    case DIALECT_EMBEDDINGS:
        read_embeddings(request, body);
        break;
    default:
        read_messages(request, json_object_get(body, "messages"), "messages", text);
        read_content(json_object_get(body, "system"), NULL, &request->prompt);
        read_limit(request, body, "max_tokens", limit);
        if (request->dialect == DIALECT_CHAT)
            read_limit(request, body, "max_completion_tokens", limit);
        break;
    }
    if (json_is_number(n) && json_number_value(n) != 1)
        refuse(request, 400, "invalid_value", "n", "The demo model gives one answer: 'n' must be 1.");
    request->include_usage = json_is_true(json_object_get(json_object_get(body, "stream_options"), "include_usage"));
}

/* What was cut may end inside a UTF-8 character. */
static struct span whole_characters(struct span text)
{
    size_t len = text.len;
    while (len != 0 && text.len - len < 4 && ((uint8_t)text.base[len - 1] & 0xc0) == 0x80)
        len--;
    if (len != 0 && (uint8_t)text.base[len - 1] >= 0xc0)
        len--;
    return (struct span){text.base, len};
}

static void compose(struct demo_request *request, struct strbuf *text, size_t limit)
{
    struct strbuf *answer = &request->answer;
    bool long_text = text->len > DEMO_ECHO_MAX;
    struct span said = strbuf_span(text);
    if (long_text)
        said = whole_characters((struct span){said.base, DEMO_ECHO_MAX});
    while (said.len != 0 && is_blank(said.base[said.len - 1]))
        said.len--;
    while (said.len != 0 && is_blank(said.base[0]))
        said = span_skip(said, 1);
    if (said.len == 0) {
        strbuf_puts(answer, "You said nothing that can be repeated.");
    } else {
        strbuf_puts(answer, "You said: ");
        strbuf_add(answer, said);
        if (long_text)
            strbuf_puts(answer, "…");
        else if (memchr(".!?", said.base[said.len - 1], 3) == NULL)
            strbuf_putc(answer, '.');
    }
    strbuf_puts(answer, CLOSING);

    struct span rest = strbuf_span(answer);
    while (request->tokens < limit && demo_token(&rest).len != 0)
        request->tokens++;
    request->cut = rest.len != 0;
    answer->len -= rest.len;
}

static void read_body(struct demo_request *request, const struct demo_settings *settings,
                      const struct exchange_request *from, size_t len)
{
    char *joined = h2o_mem_alloc(len + 1);
    size_t at = 0;
    for (int i = 0; i < EXCHANGE_BODY_PIECES; i++) {
        if (from->body[i].len != 0)
            memcpy(joined + at, from->body[i].base, from->body[i].len);
        at += from->body[i].len;
    }
    struct strbuf text;
    strbuf_init(&text, DEMO_ECHO_MAX + 1); /* the one byte more tells that it was longer */
    size_t limit = settings->tokens;
    json_error_t error;
    json_t *body = json_loadb(joined, len, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
    if (body == NULL)
        refuse(request, 400, NULL, NULL,
               "The body is not JSON that the demo model can read: %.*s (line %d, column %d).", 120, error.text,
               error.line, error.column);
    else if (!json_is_object(body))
        refuse(request, 400, NULL, NULL, "The body must be a JSON object.");
    else
        read_fields(request, body, &text, &limit);
    if (request->status == 200 && request->dialect != DIALECT_EMBEDDINGS && !request->count_only)
        compose(request, &text, limit);
    json_decref(body);
    strbuf_dispose(&text);
    free(joined);
}

/* A body too long to be read: its words are counted, no more. */
static void answer_unread(struct demo_request *request, const struct demo_settings *settings,
                          const struct exchange_request *from)
{
    for (int i = 0; i < EXCHANGE_BODY_PIECES; i++)
        request->prompt += count_words(from->body[i]);
    if (request->dialect == DIALECT_EMBEDDINGS) {
        refuse(request, 413, NULL, "input", "The demo model reads no more than %d bytes.", DEMO_BODY_MAX);
        return;
    }
    struct strbuf text;
    strbuf_init(&text, DEMO_ECHO_MAX);
    strbuf_puts(&text, "more than the demo model reads.");
    if (!request->count_only)
        compose(request, &text, settings->tokens);
    strbuf_dispose(&text);
}

/* The id says nothing but which body it answers: length and at most DEMO_BODY_MAX bytes of it. */
static void make_id(struct demo_request *request, const struct exchange_request *from, size_t len)
{
    uint64_t hash[2] = {0xcbf29ce484222325 ^ len, 0x9ae16a3b2f90404f};
    size_t left = DEMO_BODY_MAX;
    for (int i = 0; i < EXCHANGE_BODY_PIECES; i++) {
        for (size_t k = 0; k < from->body[i].len && left != 0; k++, left--) {
            hash[0] = (hash[0] ^ (uint8_t)from->body[i].base[k]) * 0x100000001b3;
            hash[1] = (hash[1] + hash[0]) * 0x9e3779b97f4a7c15;
        }
    }
    snprintf(request->id, sizeof(request->id), "%016llx%08llx", (unsigned long long)hash[0],
             (unsigned long long)hash[1] >> 32);
}

void demo_request_read(struct demo_request *request, const struct demo_settings *settings,
                       const struct exchange_request *from)
{
    size_t len = 0;
    for (int i = 0; i < EXCHANGE_BODY_PIECES; i++)
        len += from->body[i].len;
    struct span model = from->model.len != 0 ? from->model : SPAN("demo");
    struct span count = SPAN("/count_tokens");
    *request = (struct demo_request){.dialect = from->dialect, .status = 200};
    request->count_only = from->dialect == DIALECT_MESSAGES && from->path.len >= count.len &&
                          span_eq(span_skip(from->path, from->path.len - count.len), count);
    request->stream = from->wants_stream && from->dialect != DIALECT_EMBEDDINGS && !request->count_only;
    make_id(request, from, len);
    /* each byte of a JSON string may take six */
    strbuf_init(&request->model, DEMO_MODEL_MAX * 6 + 2);
    strbuf_init(&request->answer, DEMO_ECHO_MAX + 256);
    if (model.len > DEMO_MODEL_MAX) {
        refuse(request, 400, "invalid_value", "model", "'model' must not be longer than %d bytes.", DEMO_MODEL_MAX);
        return;
    }
    strbuf_json(&request->model, model);
    if (!span_eq(from->method, SPAN("POST")))
        refuse(request, 404, NULL, NULL, "The demo model answers no such request.");
    else if (len > DEMO_BODY_MAX)
        answer_unread(request, settings, from);
    else
        read_body(request, settings, from, len);
}

void demo_request_dispose(struct demo_request *request)
{
    strbuf_dispose(&request->model);
    strbuf_dispose(&request->answer);
    free(request->vectors);
    request->vectors = NULL;
}
