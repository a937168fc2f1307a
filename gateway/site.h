/* What follows from a configuration and never changes: the routes with their dependencies resolved, the identities of
 * its keys. Counted; a reload makes a new one and running calls keep the old. All threads may read it. */
#ifndef WEIR_GATEWAY_SITE_H
#define WEIR_GATEWAY_SITE_H

#include "backends/fleet.h"
#include "gateway/config.h"
#include "gateway/identity.h"
#include "gateway/routes.h"
#include <openssl/ssl.h>

struct site_route {
    struct route route; /* a row of the table, or a proxy route of the configuration */
    enum depend_id depends[DEPENDS_MAX];
    const char *depend_limit[DEPENDS_MAX]; /* of DEPEND_LIMIT: the one limit to run; NULL: all that apply */
    size_t depend_count;
    const char *proxy;                       /* the backend that takes everything; NULL: chosen by model */
    const struct backend_timeouts *timeouts; /* what is not CONFIG_TIMEOUT_UNSET holds; NULL: the backends' own */
    bool query_key;                          /* the key may also come as ?api_key= */
};

struct site {
    atomic_uint _refs;
    uint64_t number; /* from 1 on; no two sites of a process have the same */
    struct config *config;
    struct site_route *routes;
    size_t route_count;
    struct fleet *fleet;           /* of its backends */
    struct identity **identities;  /* in the order of config->keys */
    SSL_CTX **tls;                 /* in the order of config->listen, admin's behind; NULL: clear text */
    struct identity **admins;      /* in the order of config->admin.keys */
    struct limit_keys *limit_keys; /* set once the server's secret is known; see limit.h */
};

/* Takes over the caller's reference to `config`. */
struct site *site_create(struct config *config);

/* Loads the certificates of the addresses. False with a message if one cannot be used. Once, before others see it. */
bool site_load_tls(struct site *site, char *error, size_t error_size);

struct site *site_retain(struct site *site);
void site_release(struct site *site);

/* The route for a path (without query); NULL if there is none. Exact paths go before prefixes, long prefixes before
 * short. */
const struct site_route *site_route_find(const struct site *site, struct span path);

/* The TLS context of an address, as the configuration writes it; NULL: clear text, or an address that it does not have
 * (*known says which). */
SSL_CTX *site_tls(const struct site *site, const char *address, bool *known);
/* Whether a route is to be found at the admin address, or at the others: with an address of its own, /admin is there
 * and nowhere else, together with what is public. */
bool site_route_is_at(const struct site *site, const struct site_route *route, bool admin_address);

/* Keys are looked up by their SHA-256, so that one wrong byte changes all that is compared, and every byte is compared
 * with every key's: the time that a wrong key takes depends on its length and on the number of keys, on nothing in them
 * (tests/unit/gateway/test_key_timing.c counts the instructions).
 *
 * The admin whose key has this SHA-256; NULL if none. Not counted. */
struct identity *site_admin_find(const struct site *site, const unsigned char hash[32]);

/* The identity whose key has this SHA-256, in the same way; NULL if none. Not counted. */
struct identity *site_identity_find(const struct site *site, const unsigned char hash[32]);

#endif
