/* Reads a gateway's HTTP/1.1 answer as `weir ask` needs it: head, chunked or sized body, the events of a chat stream,
 * an error body. Bytes come in whatever pieces the network made; text goes out as soon as it stands there. Pure: no
 * I/O, no clock. One thread.
 *
 * Limits: head and trailers 64 KiB together (1xx heads count), an event 1 MiB, a body that is not a stream 8 MiB. */
#ifndef WEIR_GATEWAY_ASK_REPLY_H
#define WEIR_GATEWAY_ASK_REPLY_H

#include "base/strbuf.h"
#include "stream/dialect.h"
#include "stream/sse.h"

#define ASK_HEAD_MAX 65536
#define ASK_EVENT_MAX (1024 * 1024)
#define ASK_BODY_MAX (8 * 1024 * 1024)

enum ask_text { ASK_CONTENT, ASK_REASONING };

/* A piece of the answer, UTF-8 as the model wrote it: not yet fit for a terminal, see ask_clean. */
typedef void (*ask_text_cb)(void *ctx, enum ask_text kind, struct span text);

enum ask_progress {
    ASK_MORE, /* give more bytes, or ask_reply_end */
    ASK_DONE, /* all is there; further bytes are ignored */
    ASK_BAD,  /* it failed: `error` says how; further bytes are ignored */
};

enum ask_state {
    ASK_HEAD,
    ASK_BODY_SIZED,
    ASK_BODY_UNTIL_CLOSE,
    ASK_CHUNK_SIZE,
    ASK_CHUNK_DATA,
    ASK_CHUNK_CRLF,
    ASK_TRAILER,
    ASK_OVER,
};

struct ask_reply {
    int status;         /* of HTTP; 0 until the head is there */
    uint64_t pieces;    /* pieces of text handed out */
    struct usage usage; /* what the gateway told of tokens */
    char finish_reason[32];
    struct strbuf error; /* ASK_BAD: what is wrong, fit for a terminal */
    struct strbuf body;  /* ASK_DONE without a text callback: the body */

    ask_text_cb _on_text;
    void *_ctx;
    enum ask_state _state;
    enum ask_progress _progress;
    bool _events; /* the body is an event stream */
    bool _chunked;
    bool _has_length;
    uint64_t _left;   /* bytes of the sized body or chunk still to come */
    unsigned _digits; /* of the chunk's size, so far */
    bool _in_extension;
    size_t _head_seen; /* bytes of heads and trailers, against ASK_HEAD_MAX */
    struct strbuf _line;
    bool _status_line_seen;
    char _reason[64], _request_id[129];
    struct sse_scanner _scanner;
};

/* Prepares to read one answer. With `on_text` NULL the answer to any request: its body is collected. Otherwise that to
 * a chat completion, streamed or not. */
void ask_reply_init(struct ask_reply *reply, ask_text_cb on_text, void *ctx);
void ask_reply_dispose(struct ask_reply *reply);

/* Looks at the next bytes of the connection. */
enum ask_progress ask_reply_feed(struct ask_reply *reply, struct span bytes);

/* The connection has ended. Never returns ASK_MORE. */
enum ask_progress ask_reply_end(struct ask_reply *reply);

/* The connection has broken: `reason` is told, unless the answer has failed before or is a refusal, of which then what
 * has come is told. Returns ASK_BAD. */
enum ask_progress ask_reply_broken(struct ask_reply *reply, const char *reason);

/* Appends text as a terminal may have it: escape sequences and all other control
 * characters (C0 but for line feed and tab, DEL, C1) and whatever is not UTF-8 are replaced by U+FFFD; carriage returns
 * are dropped. */
void ask_clean(struct span text, struct strbuf *out);

/* The id of the first model in the body of GET /v1/models, into `out`; false if there is none, or it does not fit. */
bool ask_first_model(struct span body, char *out, size_t size);

#endif
