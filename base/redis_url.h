/* Where a Redis server is, as people write it. Plain data; all threads may read it. */
#ifndef WEIR_BASE_REDIS_URL_H
#define WEIR_BASE_REDIS_URL_H

#include "base/span.h"
#include <stdint.h>

#define REDIS_HOSTS_MAX 16

struct redis_url {
    struct redis_host {
        char *name; /* without brackets */
        uint16_t port;
    } hosts[REDIS_HOSTS_MAX]; /* one, or the Sentinels */
    size_t host_count;        /* 0 for a unix socket */
    char *unix_path;          /* NULL: TCP */
    char *master;             /* the name that Sentinels know the master by; NULL: no Sentinels */
    char *user, *password;    /* percent-decoded; NULL: none. A user needs a password */
    unsigned db;
};

/* Parses "redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]", "redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],…/MASTER[/DB]",
 * "unix://[[USER]:PASSWORD@]/PATH[?db=N]", "redis+unix://…" (the same) or a bare absolute path. Ports default to 6379,
 * Sentinels' to 26379. On failure returns false, leaves *url empty and writes what is wrong and what was expected to
 * `error`, never the password; rediss:// is refused with the remedy. Strings are malloc'ed; see redis_url_dispose. */
bool redis_url_parse(struct span text, struct redis_url *url, char *error, size_t error_size);

/* Writes it without secrets, for logs: "redis://127.0.0.1:6379/0". Always ends in NUL. */
void redis_url_print(const struct redis_url *url, char *out, size_t size);

/* Whether two mean the same server with the same credentials. */
bool redis_url_equal(const struct redis_url *a, const struct redis_url *b);

/* Frees the strings and empties *url. */
void redis_url_dispose(struct redis_url *url);

#endif
