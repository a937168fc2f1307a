#include "gateway/chat_request.h"

static const struct span names[CHAT_MEMBERS] = {
    [CHAT_ID] = SPAN("id"),
    [CHAT_MEMBER_CANCEL] = SPAN("cancel"),
    [CHAT_MEMBER_MESSAGE] = SPAN("message"),
    [CHAT_MEMBER_MESSAGES] = SPAN("messages"),
    [CHAT_MEMBER_MODEL] = SPAN("model"),
    [CHAT_MEMBER_STREAM] = SPAN("stream"),
    [CHAT_MEMBER_STREAM_OPTIONS] = SPAN("stream_options"),
};

/* ---- reading ---- */

static void invalid(struct chat_request *request, enum chat_member member, const char *problem)
{
    request->kind = CHAT_INVALID;
    request->param = names[member].base;
    request->problem = problem;
}

static bool is_set(const struct json_value *value)
{
    return value->type != JSON_MISSING && value->type != JSON_NULL;
}

static void decide(struct chat_request *request)
{
    const struct json_value *members = request->_members;
    const struct json_value *id = &members[CHAT_ID], *cancel = &members[CHAT_MEMBER_CANCEL];
    const struct json_value *message = &members[CHAT_MEMBER_MESSAGE];
    if ((id->type != JSON_STRING && id->type != JSON_NUMBER) || id->raw.len > CHAT_ID_MAX) {
        invalid(request, CHAT_ID, "'id' must be a string or a number of at most 128 bytes.");
        return;
    }
    request->id = id->raw;
    for (size_t i = 0; i < CHAT_MEMBERS; i++) {
        if (members[i].duplicate) {
            invalid(request, (enum chat_member)i, "The same member stands twice.");
            return;
        }
    }
    if (is_set(cancel) && cancel->type != JSON_BOOL)
        invalid(request, CHAT_MEMBER_CANCEL, "'cancel' must be a boolean.");
    else if (cancel->type == JSON_BOOL && cancel->truth)
        request->kind = CHAT_CANCEL;
    else if (is_set(message) && is_set(&members[CHAT_MEMBER_MESSAGES]))
        invalid(request, CHAT_MEMBER_MESSAGE, "'message' and 'messages' exclude each other.");
    else if (is_set(message) && message->type != JSON_STRING)
        invalid(request, CHAT_MEMBER_MESSAGE, "'message' must be a string.");
    else if (is_set(message))
        request->kind = CHAT_MESSAGE;
    else if (is_set(&members[CHAT_MEMBER_MESSAGES]))
        request->kind = CHAT_BODY;
    else
        invalid(request, CHAT_MEMBER_MESSAGE, "Expected 'message', 'messages' or 'cancel'.");
    request->message = message->raw;
}

void chat_request_read(struct span text, struct chat_request *request)
{
    struct json_value root;
    struct json_error error;
    *request = (struct chat_request){.kind = CHAT_NO_JSON, ._text = text};
    if (!json_scan(text, names, CHAT_MEMBERS, request->_members, &root, &error)) {
        request->problem = error.message;
        return;
    }
    if (root.type != JSON_OBJECT) {
        request->problem = "Expected a JSON object.";
        return;
    }
    request->_text = root.raw;
    decide(request);
}

/* ---- the body ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* A member's place in the object, from its name's first quote to behind the comma that follows it, if one does. */
static struct span member_place(struct span object, struct span value)
{
    const char *start = value.base, *end = value.base + value.len, *last = object.base + object.len;
    while (*--start != ':')
        ;
    while (*--start != '"')
        ;
    /* Members that are looked for have no quotes in their names, however these are escaped. */
    start = memrchr(object.base, '"', (size_t)(start - object.base));
    while (end < last && is_blank(*end))
        end++;
    if (end < last && *end == ',')
        end++;
    return (struct span){start, (size_t)(end - start)};
}

/* Appends the object's members without braces, and without the `count` places; *after receives whether anything was
 * left. */
static void add_rest(struct span object, const struct span *places, size_t count, struct strbuf *out)
{
    const char *at = object.base + 1, *last = object.base + object.len - 1;
    size_t before = out->len;
    strbuf_putc(out, ',');
    size_t first = out->len;
    while (at < last) {
        const struct span *next = NULL;
        for (size_t i = 0; i < count; i++)
            if (places[i].base >= at && (next == NULL || places[i].base < next->base))
                next = &places[i];
        const char *until = next != NULL ? next->base : last;
        strbuf_add(out, (struct span){at, (size_t)(until - at)});
        at = next != NULL ? next->base + next->len : last;
    }
    while (out->len > first && (is_blank(out->base[out->len - 1])))
        out->len--;
    if (out->len > first && out->base[out->len - 1] == ',')
        out->len--;
    for (size_t i = first; i <= out->len; i++) {
        if (i == out->len) {
            out->len = before; /* nothing but blanks */
            break;
        }
        if (!is_blank(out->base[i]))
            break;
    }
}

static void add_conversation(const struct chat_request *request, const struct chat_defaults *defaults,
                             const struct chat_history *history, struct strbuf *out)
{
    strbuf_puts(out, ",\"messages\":[");
    if (defaults->system.len != 0) {
        strbuf_puts(out, "{\"role\":\"system\",\"content\":");
        strbuf_json(out, defaults->system);
        strbuf_puts(out, "},");
    }
    chat_history_write(history, out);
    strbuf_puts(out, "{\"role\":\"user\",\"content\":");
    strbuf_add(out, request->message);
    strbuf_puts(out, "}]");
    if (!is_set(&request->_members[CHAT_MEMBER_STREAM_OPTIONS]))
        strbuf_puts(out, ",\"stream_options\":{\"include_usage\":true}");
}

void chat_request_body(const struct chat_request *request, const struct chat_defaults *defaults,
                       const struct chat_history *history, struct strbuf *out)
{
    const struct json_value *members = request->_members;
    struct span places[CHAT_MEMBERS];
    size_t count = 0;
    bool default_model = !is_set(&members[CHAT_MEMBER_MODEL]) && defaults->model.len != 0;
    for (size_t i = 0; i < CHAT_MEMBERS; i++) {
        bool stays = (i == CHAT_MEMBER_MODEL && !default_model) ||
                     (i == CHAT_MEMBER_MESSAGES && request->kind == CHAT_BODY) ||
                     (i == CHAT_MEMBER_STREAM_OPTIONS && (request->kind == CHAT_BODY || is_set(&members[i])));
        if (members[i].type != JSON_MISSING && !stays)
            places[count++] = member_place(request->_text, members[i].raw);
    }
    strbuf_puts(out, "{\"stream\":true");
    if (default_model) {
        strbuf_puts(out, ",\"model\":");
        strbuf_json(out, defaults->model);
    }
    if (request->kind == CHAT_MESSAGE)
        add_conversation(request, defaults, history, out);
    add_rest(request->_text, places, count, out);
    strbuf_putc(out, '}');
}

/* ---- chunks ---- */

static bool object_member(struct span object, struct span name, struct json_value *value)
{
    struct json_error error;
    return json_scan(object, &name, 1, value, NULL, &error) && value->type != JSON_MISSING;
}

bool chat_chunk_read(struct span chunk, struct strbuf *text, struct span *error)
{
    static const struct span top[] = {SPAN("choices"), SPAN("error")};
    struct json_value values[2], first, delta, content;
    struct json_error bad;
    size_t cursor = 0;
    *error = SPAN_NONE;
    if (!json_scan(chunk, top, 2, values, NULL, &bad))
        return false;
    if (values[1].type == JSON_OBJECT || values[1].type == JSON_STRING)
        *error = values[1].raw;
    if (text != NULL && json_array_next(&values[0], &cursor, &first) &&
        object_member(first.raw, SPAN("delta"), &delta) && object_member(delta.raw, SPAN("content"), &content) &&
        content.type == JSON_STRING)
        strbuf_add(text, (struct span){content.raw.base + 1, content.raw.len - 2});
    return true;
}
