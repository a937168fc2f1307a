/* Identifiers that strangers cannot guess: from the kernel's random numbers, fetched in batches per thread. */
#ifndef WEIR_BASE_IDS_H
#define WEIR_BASE_IDS_H

#include "base/span.h"
#include <stdint.h>

#define REQUEST_ID_LEN 28 /* "req_" and 24 hexadecimal digits */
#define TRACE_ID_LEN 32   /* W3C trace context §3.2.2.3 */
#define SPAN_ID_LEN 16    /* §3.2.2.4 */

/* Fills `out` with random bytes. Aborts if the kernel has none to give. Any thread. */
void ids_random(void *out, size_t len);

/* Writes `digits` lower-case hexadecimal digits, no NUL. */
void ids_hex(char *out, size_t digits);

/* Writes a request id (REQUEST_ID_LEN bytes and a NUL). */
void ids_request(char out[REQUEST_ID_LEN + 1]);

/* Whether a client's x-request-id may be taken over: 1 to 128 of A-Z a-z 0-9 - _ . : / + = @ */
bool ids_request_is_sane(struct span id);

/* Reads a `traceparent` header (W3C trace context §3.2). True, and the trace id and flags, if it is valid and of a
 * version that may be read; false means that a new trace must be started and tracestate dropped, and leaves both
 * untouched. Only the flags that may be sent on are kept: 1 sampled, 2 random trace id. */
bool ids_traceparent_parse(struct span header, char trace_id[TRACE_ID_LEN + 1], uint8_t *flags);

#endif
