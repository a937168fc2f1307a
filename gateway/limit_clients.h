/* The digests of the clients that a worker's limits counted last. A digest costs as much as the rest of a decision, and
 * a client asks again and again. What is remembered holds as long as the process: a digest depends on nothing but the
 * process's secret and what is compared here. One thread. */
#ifndef WEIR_GATEWAY_LIMIT_CLIENTS_H
#define WEIR_GATEWAY_LIMIT_CLIENTS_H

#include "gateway/config.h"
#include "ratelimit/key.h"

#define LIMIT_CLIENTS 256   /* a power of two */
#define LIMIT_CLIENT_MAX 46 /* bytes of a value that is remembered: most are shorter */

/* Zero-initialised: none yet. */
struct limit_clients {
    struct limit_client {
        struct key digest;
        unsigned char kind, len; /* kind 0: none */
        char value[LIMIT_CLIENT_MAX];
    } recent[LIMIT_CLIENTS];
};

/* The digest of the client that `value` tells from others counted `by` the same: key_of_kind's, or, if `kind` is NULL,
 * that of key_of_client without a secret. */
struct key limit_client_key(struct limit_clients *clients, const struct key_kind *kind, enum limit_by by,
                            struct span value);

#endif
