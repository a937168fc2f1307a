/* The parameters of GET /chat, and the chat completions request that they make: what a browser's EventSource, which can
 * send nothing but a URL, asks with.
 *
 *     message      required, 1 to CHAT_MESSAGE_MAX characters
 *     model        default: the configured one; an empty one counts as none
 *     system       default: the configured one; an empty one means no system message
 *     temperature  0 to 2           top_p  0 to 1
 *     max_tokens   1 or more        seed   a whole number
 *
 * Others are passed over, as FastAPI does. Pure; the output is bounded by a few times the input. */
#ifndef WEIR_GATEWAY_CHAT_QUERY_H
#define WEIR_GATEWAY_CHAT_QUERY_H

#include "base/strbuf.h"
#include "gateway/chat_request.h"

#define CHAT_MESSAGE_MAX 32768 /* characters */
#define CHAT_MODEL_MAX 256     /* bytes */

/* What is wrong with a query. */
struct chat_problem {
    const char *param;    /* the first parameter that is wrong; static */
    char message[200];    /* about that one, for people */
    struct strbuf detail; /* FastAPI's list of all that is wrong, as JSON */
};

/* Appends the request's body to `body`, which must hold nothing and is initialised in here (to be disposed of by the
 * caller in any case). It asks for a stream with usage at its end. False fills *problem, whose `detail` is the caller's
 * to dispose of. */
bool chat_query_read(struct span query, const struct chat_defaults *defaults, struct strbuf *body,
                     struct chat_problem *problem);

#endif
