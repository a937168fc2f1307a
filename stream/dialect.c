#include "stream/dialect.h"

enum { TERMINALS = 4, USAGE_TRIES = 4 };

/* Members of a usage object, the way a family of protocols names them. */
struct usage_names {
    struct span prompt, completion, details,
        cached;                 /* `details`: the object in which `cached` stands; empty: this one */
    struct span cache_creation; /* if not empty, prompt does not include this nor `cached` */
};

struct dialect {
    enum dialect_id id;
    struct span terminal_data;             /* the data of the terminal event; empty: told by its name */
    struct span terminal_names[TERMINALS]; /* the terminal events' names */
    struct span error_names[2];
    struct span
        usage_events[TERMINALS];     /* only events of these names carry usage; none: any event without a name may */
    const struct usage_names *usage; /* NULL: no usage */
    void (*error_body)(const struct dialect_error *error, struct strbuf *out);
    void (*error_event)(const struct dialect_error *error, uint64_t sequence, struct strbuf *out);
};

static const struct usage_names chat_usage = {
    .prompt = {"prompt_tokens", 13},
    .completion = {"completion_tokens", 17},
    .details = {"prompt_tokens_details", 21},
    .cached = {"cached_tokens", 13},
};
static const struct usage_names responses_usage = {
    .prompt = {"input_tokens", 12},
    .completion = {"output_tokens", 13},
    .details = {"input_tokens_details", 20},
    .cached = {"cached_tokens", 13},
};
static const struct usage_names messages_usage = {
    .prompt = {"input_tokens", 12},
    .completion = {"output_tokens", 13},
    .cached = {"cache_read_input_tokens", 23},
    .cache_creation = {"cache_creation_input_tokens", 27},
};

static void openai_error_body(const struct dialect_error *error, struct strbuf *out);
static void openai_error_event(const struct dialect_error *error, uint64_t sequence, struct strbuf *out);
static void responses_error_event(const struct dialect_error *error, uint64_t sequence, struct strbuf *out);
static void messages_error_body(const struct dialect_error *error, struct strbuf *out);
static void events_error_event(const struct dialect_error *error, uint64_t sequence, struct strbuf *out);
static void messages_error_event(const struct dialect_error *error, uint64_t sequence, struct strbuf *out);

#define NAME(literal)                                                                                                  \
    {                                                                                                                  \
        (literal), sizeof(literal) - 1                                                                                 \
    }

static const struct dialect dialects[] = {
    [DIALECT_NONE] = {.id = DIALECT_NONE, .error_body = openai_error_body, .error_event = openai_error_event},
    [DIALECT_CHAT] = {.id = DIALECT_CHAT,
                      .terminal_data = NAME("[DONE]"),
                      .error_names = {NAME("error")},
                      .usage = &chat_usage,
                      .error_body = openai_error_body,
                      .error_event = openai_error_event},
    [DIALECT_COMPLETIONS] = {.id = DIALECT_COMPLETIONS,
                             .terminal_data = NAME("[DONE]"),
                             .error_names = {NAME("error")},
                             .usage = &chat_usage,
                             .error_body = openai_error_body,
                             .error_event = openai_error_event},
    [DIALECT_RESPONSES] = {.id = DIALECT_RESPONSES,
                           .terminal_names = {NAME("response.completed"), NAME("response.incomplete"),
                                              NAME("response.failed"), NAME("error")},
                           .error_names = {NAME("response.failed"), NAME("error")},
                           .usage_events = {NAME("response.completed"), NAME("response.incomplete"),
                                            NAME("response.failed")},
                           .usage = &responses_usage,
                           .error_body = openai_error_body,
                           .error_event = responses_error_event},
    [DIALECT_MESSAGES] = {.id = DIALECT_MESSAGES,
                          .terminal_names = {NAME("message_stop"), NAME("error")},
                          .error_names = {NAME("error")},
                          .usage_events = {NAME("message_start"), NAME("message_delta")},
                          .usage = &messages_usage,
                          .error_body = messages_error_body,
                          .error_event = messages_error_event},
    [DIALECT_EMBEDDINGS] = {.id = DIALECT_EMBEDDINGS,
                            .usage = &chat_usage,
                            .error_body = openai_error_body,
                            .error_event = openai_error_event},
    [DIALECT_EVENTS] = {.id = DIALECT_EVENTS,
                        .terminal_names = {NAME("done"), NAME("error")},
                        .error_names = {NAME("error")},
                        .usage_events = {NAME("done"), NAME("delta")},
                        .usage = &chat_usage,
                        .error_body = openai_error_body,
                        .error_event = events_error_event},
};

const struct dialect *dialect_get(enum dialect_id id)
{
    return &dialects[(size_t)id < sizeof(dialects) / sizeof(dialects[0]) ? id : DIALECT_NONE];
}

bool dialect_has_terminal(const struct dialect *dialect)
{
    return dialect->terminal_data.len != 0 || dialect->terminal_names[0].len != 0;
}

static bool listed(const struct span *names, size_t max, struct span name)
{
    for (size_t i = 0; i != max && names[i].len != 0; ++i)
        if (span_eq(names[i], name))
            return true;
    return false;
}

/* ---- A reader of JSON that may be cut off anywhere and is believed rather than validated ---- */

static struct span skip_blanks(struct span text)
{
    while (text.len != 0 && (*text.base == ' ' || *text.base == '\n' || *text.base == '\r' || *text.base == '\t'))
        text = (struct span){text.base + 1, text.len - 1};
    return text;
}

/* The length of the string that `text` starts with, quotes included; all of it if it does not end. */
static size_t string_length(struct span text)
{
    for (size_t i = 1; i < text.len; ++i) {
        if (text.base[i] == '\\')
            ++i;
        else if (text.base[i] == '"')
            return i + 1;
    }
    return text.len;
}

/* The length of the value that `text` starts with. */
static size_t value_length(struct span text)
{
    size_t depth = 0, i = 0;

    while (i < text.len) {
        char c = text.base[i];
        if (c == '"') {
            i += string_length((struct span){text.base + i, text.len - i});
            if (depth == 0)
                return i;
            continue;
        }
        if (c == '{' || c == '[') {
            ++depth;
        } else if (c == '}' || c == ']') {
            if (depth == 0)
                return i;
            if (--depth == 0)
                return i + 1;
        } else if (c == ',' && depth == 0) {
            return i;
        }
        ++i;
    }
    return i;
}

/* The next member of the object that *object stands in; starts at its opening brace. Names are compared as written:
 * none of those looked for is ever escaped. False at the end, or where it makes no sense. */
static bool next_member(struct span *object, struct span *name, struct span *value)
{
    struct span text = skip_blanks(*object);

    if (text.len == 0 || (*text.base != '{' && *text.base != ','))
        return false;
    text = skip_blanks(span_skip(text, 1));
    if (text.len == 0 || *text.base != '"')
        return false;
    size_t len = string_length(text);
    if (len < 2)
        return false;
    *name = (struct span){text.base + 1, len - 2};
    text = skip_blanks(span_skip(text, len));
    if (text.len == 0 || *text.base != ':')
        return false;
    text = skip_blanks(span_skip(text, 1));
    *value = (struct span){text.base, value_length(text)};
    *object = span_skip(text, value->len);
    return true;
}

/* A whole number that is not negative, not null, and that a token count can be: under 10^15. */
static bool read_count(struct span value, uint64_t *out)
{
    uint64_t count = 0;
    size_t i = 0;

    while (i != value.len && i != 15 && value.base[i] >= '0' && value.base[i] <= '9')
        count = count * 10 + (uint64_t)(value.base[i++] - '0');
    if (i == 0 || (i != value.len && value.base[i] >= '0' && value.base[i] <= '9'))
        return false;
    *out = count;
    return true;
}

/* ---- Usage ---- */

/* Merges a usage object. False, with *usage untouched, if it has none of the members. */
static bool merge_usage(const struct usage_names *names, struct span object, struct usage *usage)
{
    struct usage merged = *usage;
    struct span name, value, member;
    bool found = false;

    while (next_member(&object, &name, &value)) {
        if (span_eq(name, names->prompt))
            found |= read_count(value, &merged._input);
        else if (span_eq(name, names->completion))
            found |= read_count(value, &merged.completion);
        else if (names->cache_creation.len != 0 && span_eq(name, names->cache_creation))
            found |= read_count(value, &merged._cache_creation);
        else if (names->details.len == 0 && span_eq(name, names->cached))
            found |= read_count(value, &merged.cached);
        else if (names->details.len != 0 && span_eq(name, names->details))
            for (struct span details = value; next_member(&details, &member, &value);)
                if (span_eq(member, names->cached))
                    read_count(value, &merged.cached);
    }
    if (!found)
        return false;
    merged.prompt = merged._input;
    if (names->cache_creation.len != 0)
        merged.prompt += merged._cache_creation + merged.cached;
    merged.known = true;
    *usage = merged;
    return true;
}

/* The right-most `"usage"` in text, or NULL. Looked for by its 'g', which is rarer in JSON than the quotes. */
static const char *find_usage(struct span text)
{
    static const char needle[] = "\"usage\"";
    const size_t len = sizeof(needle) - 1, g = 4;

    while (text.len >= len) {
        const char *at = memrchr(text.base + g, 'g', text.len - len + 1);
        if (at == NULL)
            return NULL;
        if (memcmp(at - g, needle, len) == 0)
            return at - g;
        text.len = (size_t)(at - text.base) + len - g - 1;
    }
    return NULL;
}

/* Merges the right-most usage object in text. Something else of that name, such as a property in a schema, is passed
 * over, but only a few times, so that hostile text cannot make this slow. */
static bool read_usage(const struct usage_names *names, struct span text, struct usage *usage)
{
    const char *end = text.base + text.len, *at;

    for (int i = 0; i != USAGE_TRIES && (at = find_usage(text)) != NULL; ++i) {
        struct span rest = skip_blanks((struct span){at + 7, (size_t)(end - at) - 7});
        if (rest.len != 0 && *rest.base == ':') {
            rest = skip_blanks(span_skip(rest, 1));
            if (rest.len != 0 && *rest.base == '{' && merge_usage(names, rest, usage))
                return true;
        }
        text.len = (size_t)(at - text.base);
    }
    return false;
}

void dialect_json_usage(const struct dialect *dialect, struct span tail, struct usage *usage)
{
    if (dialect->usage != NULL && tail.len != 0)
        read_usage(dialect->usage, tail, usage);
}

/* ---- Events ---- */

/* Whether the data is an error object: {"error": ...} as all send it, or SGLang's {"object": "error", ...}. */
static bool is_error_object(struct span data)
{
    struct span name, value;

    if (!next_member(&data, &name, &value))
        return false;
    if (span_eq(name, SPAN("error")))
        return value.len != 0 && !span_starts(value, SPAN("null"));
    return span_eq(name, SPAN("object")) && span_eq(value, SPAN("\"error\""));
}

/* The string that stands under "type", for servers that leave the event's name out. */
static struct span type_member(struct span data)
{
    struct span name, value;

    while (next_member(&data, &name, &value))
        if (span_eq(name, SPAN("type")))
            return value.len >= 2 && *value.base == '"' ? (struct span){value.base + 1, value.len - 2} : SPAN_NONE;
    return SPAN_NONE;
}

/* Whether `choices` is there and has no elements. */
static bool has_no_choices(struct span data)
{
    struct span name, value;

    while (next_member(&data, &name, &value)) {
        if (span_eq(name, SPAN("choices"))) {
            struct span rest = skip_blanks(span_skip(value, 1));
            return span_starts(value, SPAN("[")) && span_starts(rest, SPAN("]"));
        }
    }
    return false;
}

unsigned dialect_event(const struct dialect *dialect, const struct sse_event *event, struct usage *usage)
{
    struct span head = skip_blanks(event->cut ? event->head : event->data), name = event->name;
    unsigned flags = 0;

    if (!event->has_data || dialect->id == DIALECT_NONE)
        return 0;
    if (dialect->terminal_data.len != 0 && !event->cut && span_eq(span_trim(event->data), dialect->terminal_data))
        return EVENT_TERMINAL;
    if (name.len == 0 && dialect->usage_events[0].len != 0)
        name = type_member(head);

    if (listed(dialect->terminal_names, TERMINALS, name))
        flags |= EVENT_TERMINAL;
    if (listed(dialect->error_names, 2, name) || is_error_object(head))
        flags |= EVENT_ERROR;
    if (dialect->usage == NULL || event->data.len == 0)
        return flags;
    if (dialect->usage_events[0].len == 0 || listed(dialect->usage_events, TERMINALS, name))
        if (read_usage(dialect->usage, event->data, usage))
            flags |= EVENT_USAGE | (!event->cut && has_no_choices(head) ? EVENT_EXTRA : 0);
    return flags;
}

/* ---- Errors ---- */

static const char *openai_error_type(const struct dialect_error *error)
{
    if (error->type != NULL)
        return error->type;
    switch (error->status) {
    case 403:
        return "permission_error";
    case 408:
    case 504:
        return "timeout_error";
    case 429:
        return "rate_limit_error";
    case 503:
    case 529:
        return "service_unavailable_error";
    default:
        return error->status >= 400 && error->status < 500 ? "invalid_request_error" : "server_error";
    }
}

static const char *messages_error_type(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 402:
        return "billing_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 408:
    case 504:
        return "timeout_error";
    case 409:
        return "conflict_error";
    case 413:
        return "request_too_large";
    case 429:
        return "rate_limit_error";
    case 503:
    case 529:
        return "overloaded_error";
    default:
        return status >= 400 && status < 500 ? "invalid_request_error" : "api_error";
    }
}

/* Appends `key`, which brings its own punctuation, and a string or null. */
static void put_member(struct strbuf *out, const char *key, const char *value)
{
    strbuf_puts(out, key);
    strbuf_json_or_null(out, value);
}

static const char *message_of(const struct dialect_error *error)
{
    return error->message != NULL ? error->message : "";
}

/* `"error":{...}`: all four members are always there (openai-node and openai-python read them unasked). */
static void put_openai_error(const struct dialect_error *error, struct strbuf *out)
{
    put_member(out, "\"error\":{\"message\":", message_of(error));
    put_member(out, ",\"type\":", openai_error_type(error));
    put_member(out, ",\"param\":", error->param);
    put_member(out, ",\"code\":", error->code);
    strbuf_putc(out, '}');
}

static void openai_error_body(const struct dialect_error *error, struct strbuf *out)
{
    strbuf_putc(out, '{');
    put_openai_error(error, out);
    if (error->detail_json != NULL) {
        strbuf_puts(out, ",\"detail\":");
        strbuf_puts(out, error->detail_json);
    } else {
        put_member(out, ",\"detail\":", message_of(error));
    }
    strbuf_putc(out, '}');
}

static void openai_error_event(const struct dialect_error *error, uint64_t sequence, struct strbuf *out)
{
    (void)sequence;
    strbuf_puts(out, "data: {");
    put_openai_error(error, out);
    strbuf_puts(out, "}\n\n");
}

static void responses_error_event(const struct dialect_error *error, uint64_t sequence, struct strbuf *out)
{
    strbuf_puts(out, "event: error\ndata: {\"type\":\"error\"");
    put_member(out, ",\"code\":", error->code);
    put_member(out, ",\"message\":", message_of(error));
    put_member(out, ",\"param\":", error->param);
    strbuf_puts(out, ",\"sequence_number\":");
    strbuf_u64(out, sequence);
    strbuf_puts(out, "}\n\n");
}

/* Its id keeps an EventSource, which comes back whatever the end, from asking again. */
static void events_error_event(const struct dialect_error *error, uint64_t sequence, struct strbuf *out)
{
    (void)sequence;
    strbuf_puts(out, "event: error\n");
    if (error->request_id != NULL) {
        strbuf_puts(out, "id: ");
        strbuf_puts(out, error->request_id);
        strbuf_puts(out, ".error\n");
    }
    strbuf_puts(out, "data: {");
    put_openai_error(error, out);
    strbuf_puts(out, "}\n\n");
}

static void messages_error_body(const struct dialect_error *error, struct strbuf *out)
{
    put_member(out, "{\"type\":\"error\",\"error\":{\"type\":", messages_error_type(error->status));
    put_member(out, ",\"message\":", message_of(error));
    put_member(out, "},\"request_id\":", error->request_id);
    strbuf_putc(out, '}');
}

static void messages_error_event(const struct dialect_error *error, uint64_t sequence, struct strbuf *out)
{
    (void)sequence;
    strbuf_puts(out, "event: error\ndata: ");
    messages_error_body(error, out);
    strbuf_puts(out, "\n\n");
}

void dialect_error_body(const struct dialect *dialect, const struct dialect_error *error, struct strbuf *out)
{
    dialect->error_body(error, out);
}

void dialect_error_event(const struct dialect *dialect, const struct dialect_error *error, uint64_t sequence,
                         struct strbuf *out)
{
    dialect->error_event(error, sequence, out);
}
