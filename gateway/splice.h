/* A request's body as a backend gets it: where it must change it is spliced, so that all the rest stays as the client
 * wrote it. Pure: no copy, no allocation. */
#ifndef WEIR_GATEWAY_SPLICE_H
#define WEIR_GATEWAY_SPLICE_H

#include "backends/exchange.h"
#include "base/json_scan.h"

#define SPLICES_MAX ((EXCHANGE_BODY_PIECES - 1) / 2)

/* One change. */
struct splice {
    struct span old;  /* of the body; empty, but with its place: an insertion */
    struct span text; /* in its stead; must live for as long as the pieces */
};

/* Cuts a body into pieces with its changes, which must not overlap and are put in order; `count` <= SPLICES_MAX. */
void splice_body(struct span body, struct splice *splices, size_t count, struct span pieces[EXCHANGE_BODY_PIECES]);

/* Makes a request for a stream ask for its usage (OpenAI's `stream_options: {include_usage: true}`). `root` is the
 * whole body, an object with members; `options` its member of that name. False, and no change, if it asks already, or
 * if what it says is for the backend to complain of. */
bool splice_usage(const struct json_value *root, const struct json_value *options, struct splice *splice);

#endif
