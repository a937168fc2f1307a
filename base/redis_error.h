/* What the error replies of a Redis server mean to a client of it. Pure; any thread. */
#ifndef WEIR_BASE_REDIS_ERROR_H
#define WEIR_BASE_REDIS_ERROR_H

#include "base/span.h"

enum redis_error {
    REDIS_ERROR_COMMAND, /* the command's own fault */
    REDIS_ERROR_SCRIPT,  /* NOSCRIPT: the server does not know the script (any more) */
    REDIS_ERROR_REFUSED, /* it will not serve this now, and may serve others: OOM, MISCONF, BUSY, NOREPLICAS, NOPERM */
    REDIS_ERROR_UNFIT,   /* it will not serve at all: LOADING, READONLY, NOAUTH, MASTERDOWN, MOVED, CLUSTERDOWN … */
};

/* `text` is an error reply without its "-". Errors from within a script count as what they are. */
enum redis_error redis_error_of(struct span text);

/* Writes what a person needs to know of an error reply: its first line, printable, never with `secret` in it (NULL:
 * none). */
void redis_error_print(struct span text, const char *secret, char *out, size_t size);

#endif
