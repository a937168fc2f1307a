/* What differs between the protocols whose answers are streamed: the event that ends a stream properly, where usage
 * stands, how an error is told in a stream and as a body. One const table; everything else treats all dialects alike.
 * Pure. */
#ifndef WEIR_STREAM_DIALECT_H
#define WEIR_STREAM_DIALECT_H

#include "base/strbuf.h"
#include "stream/sse.h"

enum dialect_id {
    DIALECT_NONE,        /* bytes that weir does not understand: nothing terminal, no usage */
    DIALECT_CHAT,        /* /v1/chat/completions: `data: [DONE]` */
    DIALECT_COMPLETIONS, /* /v1/completions: `data: [DONE]` */
    DIALECT_RESPONSES,   /* /v1/responses: event response.completed | .incomplete | .failed, or error */
    DIALECT_MESSAGES,    /* /v1/messages (Anthropic): event message_stop, or error */
    DIALECT_EMBEDDINGS,  /* /v1/embeddings: JSON only, with usage */
    DIALECT_EVENTS,      /* /chat: what weir makes of chat completions: event done, or error */
};

/* Tokens as the backend reported them. Starts zeroed; a later report replaces an earlier one field by field. */
struct usage {
    uint64_t prompt; /* Anthropic: input + cache_creation + cache_read; Responses: input_tokens */
    uint64_t completion;
    uint64_t cached;                  /* of prompt, read from the backend's cache */
    bool known;                       /* a usage object was seen */
    uint64_t _input, _cache_creation; /* Anthropic: prompt's parts, which may be reported apart */
};

/* What one event means; a combination of flags. */
enum {
    EVENT_TERMINAL = 1, /* the stream has properly ended with this event */
    EVENT_ERROR = 2,    /* the backend told of an error: never cached, even if a terminal event follows */
    EVENT_USAGE = 4,    /* it carried usage, which was merged into *usage */
    EVENT_EXTRA = 8,    /* and nothing else: OpenAI's extra event of `include_usage`, whose `choices` are empty */
};

/* An error as weir tells it. Strings are NUL-terminated, not owned. */
struct dialect_error {
    int status;        /* HTTP status it has, or would have had */
    const char *type;  /* OpenAI's error.type, such as "invalid_request_error"; NULL: derived from the status, as
                          Anthropic's always is */
    const char *code;  /* OpenAI's error.code, such as "invalid_api_key"; NULL: JSON null */
    const char *param; /* NULL: JSON null */
    const char *message;
    const char *detail_json; /* what FastAPI or slowapi would have put under "detail", as JSON; NULL: the message */
    const char *request_id;  /* Anthropic bodies show it; NULL: JSON null */
};

struct dialect;

/* The table's row; never NULL. */
const struct dialect *dialect_get(enum dialect_id id);

/* Looks at one complete event and returns EVENT_ flags. Costs a search through its data, no parsing, unless it carries
 * usage. `usage` must not be NULL. */
unsigned dialect_event(const struct dialect *dialect, const struct sse_event *event, struct usage *usage);

/* Reads usage from the end of a JSON answer (`tail` may be just its last few KiB). */
void dialect_json_usage(const struct dialect *dialect, struct span tail, struct usage *usage);

/* Appends the dialect's error body (application/json): Anthropic's error object for messages, else OpenAI's with
 * "detail" beside it, where clients of FastAPI look. */
void dialect_error_body(const struct dialect *dialect, const struct dialect_error *error, struct strbuf *out);

/* Appends the dialect's in-stream error event, blank line included: an OpenAI error object, Responses' `error` event,
 * or Anthropic's. It is one that dialect_event recognises. `sequence` is the number of events sent so far (Responses
 * numbers its events). */
void dialect_error_event(const struct dialect *dialect, const struct dialect_error *error, uint64_t sequence,
                         struct strbuf *out);

/* Whether a proper stream of this dialect ends with a terminal event; if so, an end without one is a broken stream. */
bool dialect_has_terminal(const struct dialect *dialect);

#endif
