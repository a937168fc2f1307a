/* What the model-server fake says, in each protocol: events are prebuilt once for each shape and get their number
 * patched in, so that sending one costs a write and nothing else. */
#ifndef WEIR_TESTS_FAKE_DIALECT_H
#define WEIR_TESTS_FAKE_DIALECT_H

#include "fake_behave.h"
#include <stdio.h>

enum dialect { CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS, MODELS, COUNT_TOKENS, ECHO, CONTROL };

#define CREATED "1700000000"
#define NUMBER_DIGITS 8

/* One content event, with the framing of one chunk around it: [size CRLF] event [CRLF]. */
struct template
{
    enum dialect dialect;
    long size;
    bool crlf, comments;
    char *bytes;
    size_t len;              /* with framing */
    size_t event, event_len; /* the event alone */
    size_t number, sequence; /* where its number stands: in the text, and as a JSON number (0: not there) */
    struct template *next;
};

/* Text under construction, owned by the caller. */
struct text {
    char *base;
    size_t len, cap;
};

static void text_reserve(struct text *text, size_t len)
{
    if (text->len + len + 1 > text->cap) {
        text->cap = (text->len + len + 1) * 2;
        if ((text->base = realloc(text->base, text->cap)) == NULL)
            abort();
    }
}

static void text_add(struct text *text, const char *bytes, size_t len)
{
    text_reserve(text, len);
    memcpy(text->base + text->len, bytes, len);
    text->len += len;
    text->base[text->len] = '\0';
}

static void text_puts(struct text *text, const char *string)
{
    text_add(text, string, strlen(string));
}

static void text_fill(struct text *text, char c, long count)
{
    text_reserve(text, (size_t)count);
    memset(text->base + text->len, c, (size_t)count);
    text->len += (size_t)count;
    text->base[text->len] = '\0';
}

/* One line of an event; `nl` is LF or CRLF. */
static void text_line(struct text *text, const char *line, const char *nl)
{
    text_puts(text, line);
    text_puts(text, nl);
}

static void text_event(struct text *text, const char *name, const char *data, const char *nl)
{
    if (name != NULL) {
        text_puts(text, "event: ");
        text_line(text, name, nl);
    }
    text_puts(text, "data: ");
    text_line(text, data, nl);
    text_puts(text, nl);
}

#define CHAT_CHUNK(delta, finish)                                                                                      \
    "{\"id\":\"chatcmpl-fake\",\"object\":\"chat.completion.chunk\",\"created\":" CREATED                              \
    ",\"model\":\"fake-1\",\"choices\":[{\"index\":0,\"delta\":" delta ",\"finish_reason\":" finish "}]}"
#define TEXT_CHUNK(text, finish)                                                                                       \
    "{\"id\":\"cmpl-fake\",\"object\":\"text_completion\",\"created\":" CREATED                                        \
    ",\"model\":\"fake-1\",\"choices\":[{\"index\":0,\"text\":\"" text "\",\"finish_reason\":" finish "}]}"
#define RESPONSE_OBJECT(status, usage)                                                                                 \
    "{\"id\":\"resp_fake\",\"object\":\"response\",\"created_at\":" CREATED ",\"status\":\"" status                    \
    "\",\"model\":\"fake-1\",\"output\":[],\"usage\":" usage "}"
#define OPENAI_USAGE(events)                                                                                           \
    "{\"prompt_tokens\":7,\"completion_tokens\":" events ",\"total_tokens\":" events                                   \
    ",\"prompt_tokens_details\":{\"cached_tokens\":3}}"

/* What stands before and after the text of a content event. */
static const struct content {
    const char *name, *before, *after;
} contents[] = {
    [CHAT] = {NULL,
              "{\"id\":\"chatcmpl-fake\",\"object\":\"chat.completion.chunk\",\"created\":" CREATED
              ",\"model\":\"fake-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
              "\"},\"finish_reason\":null}]}"},
    [COMPLETIONS] = {NULL,
                     "{\"id\":\"cmpl-fake\",\"object\":\"text_completion\",\"created\":" CREATED
                     ",\"model\":\"fake-1\",\"choices\":[{\"index\":0,\"text\":\"",
                     "\",\"finish_reason\":null}]}"},
    [RESPONSES] = {"response.output_text.delta",
                   "{\"type\":\"response.output_text.delta\",\"item_id\":\"msg_fake\",\"output_index\":0,"
                   "\"content_index\":0,\"logprobs\":[],\"delta\":\"",
                   "\",\"sequence_number\":        }"},
    [MESSAGES] = {"content_block_delta",
                  "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"",
                  "\"}}"},
};

static const char *newline_of(const struct behave *behave)
{
    return behave->crlf ? "\r\n" : "\n";
}

static struct template *template_make(enum dialect dialect, const struct behave *behave, long size)
{
    const struct content *content = &contents[dialect];
    const char *nl = newline_of(behave);
    struct text event = {0}, framed = {0};
    struct template *made = calloc(1, sizeof(*made));
    if (made == NULL)
        abort();
    if (behave->comments) {
        text_line(&event, ": comment", nl);
        text_puts(&event, nl);
    }
    if (content->name != NULL) {
        text_puts(&event, "event: ");
        text_line(&event, content->name, nl);
    }
    text_puts(&event, "data: ");
    text_puts(&event, content->before);
    made->number = event.len;
    text_fill(&event, '0', NUMBER_DIGITS);
    text_puts(&event, " ");
    text_fill(&event, 'x', size);
    text_puts(&event, content->after);
    if (dialect == RESPONSES)
        made->sequence = event.len - 1 - NUMBER_DIGITS;
    text_puts(&event, nl);
    text_puts(&event, nl);

    char head[24];
    int head_len = snprintf(head, sizeof(head), "%zx\r\n", event.len);
    text_add(&framed, head, (size_t)head_len);
    text_add(&framed, event.base, event.len);
    text_puts(&framed, "\r\n");
    free(event.base);
    made->dialect = dialect;
    made->size = size;
    made->crlf = behave->crlf != 0;
    made->comments = behave->comments != 0;
    made->event = (size_t)head_len;
    made->event_len = event.len;
    made->number += (size_t)head_len;
    made->sequence += made->sequence != 0 ? (size_t)head_len : 0;
    made->bytes = framed.base;
    made->len = framed.len;
    return made;
}

/* The shared template of this shape; kept for ever, since tests use few shapes. */
static struct template *template_get(enum dialect dialect, const struct behave *behave, long size)
{
    static struct template *all;
    for (struct template *t = all; t != NULL; t = t->next) {
        if (t->dialect == dialect && t->size == size && t->crlf == (behave->crlf != 0) &&
            t->comments == (behave->comments != 0))
            return t;
    }
    struct template *made = template_make(dialect, behave, size);
    made->next = all;
    return all = made;
}

/* Writes the event's number into the template's bytes, which are good until the next call. */
static void template_patch(struct template *t, long number)
{
    char *zeros = t->bytes + t->number, *blanks = t->sequence != 0 ? t->bytes + t->sequence : NULL;
    for (int i = NUMBER_DIGITS - 1; i >= 0; i--, number /= 10) {
        zeros[i] = (char)('0' + number % 10);
        if (blanks != NULL)
            blanks[i] = number != 0 || i == NUMBER_DIGITS - 1 ? zeros[i] : ' ';
    }
}

/* The events that come before the first text. */
static void dialect_opening(enum dialect dialect, const char *nl, struct text *out)
{
    switch (dialect) {
    case CHAT:
        text_event(out, NULL, CHAT_CHUNK("{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}", "null"), nl);
        break;
    case RESPONSES:
        text_event(out, "response.created",
                   "{\"type\":\"response.created\",\"sequence_number\":0,\"response\":" RESPONSE_OBJECT("in_progress",
                                                                                                        "null") "}",
                   nl);
        break;
    case MESSAGES:
        text_event(
            out, "message_start",
            "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_fake\",\"type\":\"message\",\"role\":\"assistant\","
            "\"model\":\"fake-1\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"
            "\"usage\":{\"input_tokens\":4,\"cache_read_input_tokens\":3,\"output_tokens\":1}}}",
            nl);
        text_event(out, "content_block_start",
                   "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}",
                   nl);
        break;
    default:
        break;
    }
}

/* The events that end a stream properly. */
static void dialect_closing(enum dialect dialect, const char *nl, long events, bool usage, struct text *out)
{
    char data[512];
    if (dialect == CHAT || dialect == COMPLETIONS) {
        bool chat = dialect == CHAT;
        text_event(out, NULL, chat ? CHAT_CHUNK("{}", "\"stop\"") : TEXT_CHUNK("", "\"stop\""), nl);
        snprintf(data, sizeof(data),
                 "{\"id\":\"%s\",\"object\":\"%s\",\"created\":" CREATED
                 ",\"model\":\"fake-1\",\"choices\":[],\"usage\":" OPENAI_USAGE("%ld") "}",
                 chat ? "chatcmpl-fake" : "cmpl-fake", chat ? "chat.completion.chunk" : "text_completion", events,
                 events + 7);
        if (usage)
            text_event(out, NULL, data, nl);
        text_event(out, NULL, "[DONE]", nl);
    } else if (dialect == RESPONSES) {
        snprintf(data, sizeof(data),
                 "{\"type\":\"response.completed\",\"sequence_number\":%ld,\"response\":" RESPONSE_OBJECT(
                     "completed",
                     "{\"input_tokens\":7,\"input_tokens_details\":{\"cached_tokens\":3},\"output_tokens\":%ld,"
                     "\"total_tokens\":%ld}") "}",
                 events + 1, events, events + 7);
        text_event(out, "response.completed", data, nl);
    } else if (dialect == MESSAGES) {
        text_event(out, "content_block_stop", "{\"type\":\"content_block_stop\",\"index\":0}", nl);
        snprintf(data, sizeof(data),
                 "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},"
                 "\"usage\":{\"output_tokens\":%ld}}",
                 events);
        text_event(out, "message_delta", data, nl);
        text_event(out, "message_stop", "{\"type\":\"message_stop\"}", nl);
    }
}

/* An error told inside a stream. */
static void dialect_error(enum dialect dialect, const char *nl, struct text *out)
{
    if (dialect == MESSAGES)
        text_event(out, "error",
                   "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"fake trouble\"}}", nl);
    else if (dialect == RESPONSES)
        text_event(out, "error",
                   "{\"type\":\"error\",\"code\":\"server_error\",\"message\":\"fake trouble\",\"param\":null,"
                   "\"sequence_number\":1}",
                   nl);
    else
        text_event(
            out, NULL,
            "{\"error\":{\"message\":\"fake trouble\",\"type\":\"server_error\",\"param\":null,\"code\":\"fake\"}}",
            nl);
}

/* The body of an answer that is not streamed. */
static void dialect_json(enum dialect dialect, long size, bool base64, struct text *out)
{
    switch (dialect) {
    case CHAT:
        text_puts(out,
                  "{\"id\":\"chatcmpl-fake\",\"object\":\"chat.completion\",\"created\":" CREATED
                  ",\"model\":\"fake-1\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"");
        text_fill(out, 'x', size);
        text_puts(out, "\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,"
                       "\"total_tokens\":12}}");
        break;
    case COMPLETIONS:
        text_puts(out, "{\"id\":\"cmpl-fake\",\"object\":\"text_completion\",\"created\":" CREATED
                       ",\"model\":\"fake-1\",\"choices\":[{\"index\":0,\"text\":\"");
        text_fill(out, 'x', size);
        text_puts(out, "\",\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,"
                       "\"total_tokens\":12}}");
        break;
    case EMBEDDINGS: /* 0.5 and -1.0 as little-endian floats, where base64 was asked for */
        text_puts(out, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":");
        text_puts(out, base64 ? "\"AAAAPwAAgL8=\"" : "[0.5,-1.0]");
        text_puts(out, "}],\"model\":\"fake-1\",\"usage\":{\"prompt_tokens\":7,\"total_tokens\":7}}");
        break;
    case RESPONSES:
        text_puts(
            out, "{\"id\":\"resp_fake\",\"object\":\"response\",\"created_at\":" CREATED
                 ",\"status\":\"completed\",\"model\":\"fake-1\",\"output\":[{\"type\":\"message\",\"id\":\"msg_fake\","
                 "\"role\":\"assistant\",\"status\":\"completed\",\"content\":[{\"type\":\"output_text\","
                 "\"annotations\":[],\"text\":\"");
        text_fill(out, 'x', size);
        text_puts(out, "\"}]}],\"usage\":{\"input_tokens\":7,\"output_tokens\":5,\"total_tokens\":12}}");
        break;
    case MESSAGES:
        text_puts(out, "{\"id\":\"msg_fake\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"fake-1\","
                       "\"content\":[{\"type\":\"text\",\"text\":\"");
        text_fill(out, 'x', size);
        text_puts(out, "\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":4,"
                       "\"cache_read_input_tokens\":3,\"output_tokens\":5}}");
        break;
    case COUNT_TOKENS:
        text_puts(out, "{\"input_tokens\":7}");
        break;
    default:
        break;
    }
}

#endif
