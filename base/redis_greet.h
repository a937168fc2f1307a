/* What is said on a fresh connection to Redis before it may serve: AUTH, CLIENT SETNAME, SELECT, whether this is a
 * master that stands alone, and the scripts. All in one write. Internal to base/redis_*; one thread. */
#ifndef WEIR_BASE_REDIS_GREET_H
#define WEIR_BASE_REDIS_GREET_H

#include "base/redis_conn.h"
#include "base/redis_url.h"

/* `why` NULL: the server will serve; otherwise what is wrong with it, without secrets. Once; not if the connection
 * is lost first. */
typedef void (*redis_greet_cb)(void *owner, const char *why);

struct redis_greet_settings {
    const struct redis_url *url;
    const char *name; /* for CLIENT SETNAME; NULL: none */
    const char *const *scripts;
    size_t script_count;
    redis_greet_cb on_done;
    void *owner;
};

/* Greets on an open connection. What it needs is freed when all its replies are there or the connection has gone; it
 * calls nobody after its connection was closed. */
void redis_greet(struct redis_conn *conn, const struct redis_greet_settings *settings);

#endif
