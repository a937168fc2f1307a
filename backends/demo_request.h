/* What the demo model reads in a request, and the answer it thinks of. Pure: no I/O, no clock, one thread. The answer
 * follows from the last user message alone, so that tests and tours can rely on it. Every part is bounded: a body
 * beyond DEMO_BODY_MAX is not read but gets a canned answer, what is repeated of a message ends after DEMO_ECHO_MAX
 * bytes. */
#ifndef WEIR_BACKENDS_DEMO_REQUEST_H
#define WEIR_BACKENDS_DEMO_REQUEST_H

#include "backends/exchange.h"

#define DEMO_BODY_MAX (1024 * 1024)
#define DEMO_ECHO_MAX 16384
#define DEMO_MODEL_MAX 256      /* of a model's name, which every event repeats */
#define DEMO_INPUTS_MAX 2048    /* inputs of one embeddings request, as OpenAI has it */
#define DEMO_DIMENSIONS 8       /* of an embedding */
#define DEMO_ID_LEN 24          /* hexadecimal digits */
#define DEMO_CREATED 1700000000 /* epoch seconds; a constant, or answers would not be reproducible */

struct demo_vector {
    float at[DEMO_DIMENSIONS]; /* of length 1 */
};

struct demo_request {
    enum dialect_id dialect;
    bool stream;
    bool include_usage; /* stream_options.include_usage */
    bool base64;        /* encoding_format */
    bool count_only;    /* /v1/messages/count_tokens */
    bool cut;           /* the answer ends before its end, at the token limit */
    char id[DEMO_ID_LEN + 1];
    struct strbuf model;  /* as a JSON string, with its quotes */
    struct strbuf answer; /* cut already */
    size_t tokens;        /* words in the answer */
    uint64_t prompt;      /* words in all messages */
    struct demo_vector *vectors;
    size_t vector_count;
    int status; /* 200, or why the request is refused: */
    const char *code, *param;
    char message[256];
};

/* Reads `from`, whose spans need not outlive the call. Never fails: what cannot be answered has its `status` set.
 * Dispose of it with demo_request_dispose. */
void demo_request_read(struct demo_request *request, const struct demo_settings *settings,
                       const struct exchange_request *from);

void demo_request_dispose(struct demo_request *request);

/* Takes the next token, a word with the blanks before it, off *rest; empty at the end. */
struct span demo_token(struct span *rest);

#endif
