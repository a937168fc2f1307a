/* A text message of a client's on /ws/chat: what it asks for, and the request body that it becomes. Pure: no I/O, no
 * clock. One thread. Members that weir does not know go on to the model's server as they are. */
#ifndef WEIR_GATEWAY_CHAT_REQUEST_H
#define WEIR_GATEWAY_CHAT_REQUEST_H

#include "base/json_scan.h"
#include "base/strbuf.h"
#include "gateway/chat_history.h"

#define CHAT_ID_MAX 128 /* bytes, as written */

enum chat_request_kind {
    CHAT_NO_JSON, /* it is no JSON object at all */
    CHAT_INVALID, /* it is, but asks for nothing that makes sense */
    CHAT_CANCEL,  /* {"id", "cancel": true} */
    CHAT_BODY,    /* {"id", "messages", …}: a request of /v1/chat/completions */
    CHAT_MESSAGE, /* {"id", "message", …}: goes on with the conversation that weir keeps */
};

/* Members that weir reads. */
enum chat_member {
    CHAT_ID,
    CHAT_MEMBER_CANCEL,
    CHAT_MEMBER_MESSAGE,
    CHAT_MEMBER_MESSAGES,
    CHAT_MEMBER_MODEL,
    CHAT_MEMBER_STREAM,
    CHAT_MEMBER_STREAM_OPTIONS,
    CHAT_MEMBERS,
};

/* Spans point into the text that was read. */
struct chat_request {
    enum chat_request_kind kind;
    struct span id;      /* as written, a string or a number; empty if there is none that can be repeated */
    struct span message; /* CHAT_MESSAGE: as written, with its quotes */
    const char *param;   /* CHAT_INVALID: the member that is wrong */
    const char *problem; /* CHAT_NO_JSON, CHAT_INVALID: static text */
    struct span _text;   /* all of it */
    struct json_value _members[CHAT_MEMBERS];
};

/* What the configuration adds. */
struct chat_defaults {
    struct span model;  /* where the client names none; empty: nothing is added */
    struct span system; /* what a conversation begins with; empty: nothing */
};

/* Reads a message. */
void chat_request_read(struct span text, struct chat_request *request);

/* Appends the body for POST /v1/chat/completions: always streamed, without weir's own members, with the default model,
 * and for a CHAT_MESSAGE with the conversation so far. The rest stays as the client wrote it. */
void chat_request_body(const struct chat_request *request, const struct chat_defaults *defaults,
                       const struct chat_history *history, struct strbuf *out);

/* Appends what a chunk of a chat completion adds to the answer's text: the inside of the JSON string at
 * choices[0].delta.content, still escaped, so that such pieces one after the other are a JSON string's inside again.
 * False if the text is not JSON. *error receives its `error` member if it is the news of a failure, else empty. */
bool chat_chunk_read(struct span chunk, struct strbuf *text, struct span *error);

#endif
