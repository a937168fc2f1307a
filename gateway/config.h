/* The configuration: made once from options, environment and file, then immutable and counted; all threads may read it.
 * Only this module knows YAML. */
#ifndef WEIR_GATEWAY_CONFIG_H
#define WEIR_GATEWAY_CONFIG_H

#include "backends/backend.h"
#include "backends/fleet.h"
#include "base/log.h"
#include "base/redis_url.h"
#include "ratelimit/limit.h"
#include <netinet/in.h>
#include <stdatomic.h>

enum depend_id {
    DEPEND_PUBLIC = 1,
    DEPEND_API_KEY = 2,
    DEPEND_VALIDATE = 3,
    DEPEND_LIMIT = 4, /* every limit that applies, or one by its name */
    DEPEND_CACHE = 5,
    DEPEND_ADMIN_KEY = 6, /* of /admin alone; no configuration can name or drop it */
};
#define DEPENDS_MAX 8
#define CONFIG_WORKERS_MAX 64
#define CONFIG_LIMITS_MAX 64         /* entries under `limits:` */
#define CONFIG_LIMITS_PER_ROUTE 32   /* single limits that one request may have to pass, a key's own among them */
#define CONFIG_STREAMS_MAX 100000000 /* of every max_streams */

struct config_listen {
    char *address;            /* "127.0.0.1:8080", "[::1]:8080", ":8080" or "unix:/path" */
    char *tls_cert, *tls_key; /* NULL: clear text */
    int line, tls_line;       /* in the file, for messages; 0: from an option or the environment */
    bool admin;               /* for /admin, /metrics and what is public; nothing else */
};

/* A network in CIDR form; IPv4 as the mapped IPv6 address. */
struct config_network {
    struct in6_addr address;
    unsigned prefix; /* 0..128 */
};

struct config_key {
    char *name;             /* for logs and metrics */
    unsigned char hash[32]; /* SHA-256 of the key */
    char **models;          /* globs; none: all */
    size_t model_count;
    char **routes; /* route paths as in the table, globs; none: all */
    size_t route_count;
    int64_t expires;                     /* epoch seconds, from which on it is refused; 0: never */
    struct limit limits[LIMIT_LIST_MAX]; /* its own, in place of the limits by api_key; none: those */
    size_t limit_count;
    unsigned max_streams;      /* at once; 0: no bound */
    enum queue_class priority; /* of its requests where they must wait; default: normal */
    int line;                  /* in the file, for messages; 0: from an option or the environment */
};

/* What a limit counts by: who has the same value shares a count. */
enum limit_by { LIMIT_BY_API_KEY, LIMIT_BY_ADDRESS, LIMIT_BY_ROUTE, LIMIT_BY_MODEL, LIMIT_BY_USER, LIMIT_BY_CONSTANT };

/* What a limit does while Redis does not answer: it counts in memory its part of the amount, lets all pass, or none. */
enum limit_failure { LIMIT_FAILURE_MEMORY, LIMIT_FAILURE_ALLOW, LIMIT_FAILURE_DENY };

/* An entry of `limits:`; several limits that are counted alike. */
struct config_limit {
    char *name; /* letters, digits, '_', '-' and '.'; "default" for --limit */
    struct limit limits[LIMIT_LIST_MAX];
    size_t count;                 /* at least 1 */
    enum limit_by by;             /* default: api_key when keys are configured, else address */
    enum limit_strategy strategy; /* default: moving_window */
    char **routes;                /* route paths as in the table, globs; none: every route that depends on `limit` */
    size_t route_count;
    uint64_t cost; /* of a request, for limits on requests; at least 1, the default */
    char *message; /* stands in the 429's message in place of the limit; NULL: the limit */
    bool headers;  /* default true */
    enum limit_failure on_redis_failure;
    bool per_message;   /* counts the messages of a client's WebSocket, not its requests */
    char **exempt_keys; /* names of configured keys */
    size_t exempt_key_count;
    struct config_network *exempt_networks;
    size_t exempt_network_count;
    int line; /* in the file, for messages; 0: from an option or the environment */
};

#define CONFIG_TIMEOUT_UNSET UINT64_MAX

/* What `routes:` says about one path. */
struct config_route {
    char *path;                          /* a built-in route's path, or PREFIX/\* with `proxy` */
    enum depend_id depends[DEPENDS_MAX]; /* in order */
    char *depend_limit[DEPENDS_MAX];     /* parallel: for `limit:NAME` the name, else NULL */
    size_t depend_count;
    bool has_depends;
    char *proxy;    /* name of the backend that everything under the prefix goes to; NULL: none */
    bool query_key; /* the key may also come as ?api_key=: for clients that can set no header */
    bool has_timeouts;
    struct backend_timeouts timeouts; /* in place of the backends'; CONFIG_TIMEOUT_UNSET: those hold */
    int line;                         /* in the file, for messages */
};

struct config {
    atomic_uint _refs;
    char *file; /* that was read, for messages; NULL: none */
    struct config_listen *listen;
    size_t listen_count;
    struct config_network *trusted_proxies;
    size_t trusted_proxy_count;
    size_t max_body; /* bytes; default 32 MiB */
    struct {
        char **origins; /* "*" stands for all */
        size_t count;
    } cors;
    struct backend_settings *backends; /* at least one: demo: if none was given */
    size_t backend_count;
    struct fleet_settings fleet;   /* balance, retries, queue, models */
    struct health_settings health; /* what backends leave open */
    struct config_key *keys;
    size_t key_count;
    bool open;      /* --open: serve without keys where others can connect */
    bool supervise; /* --supervise: a parent process starts the serving one again if it dies */
    struct config_route *routes;
    size_t route_count;
    struct config_limit *limits; /* in the order of the file */
    size_t limit_count;
    size_t limit_memory;  /* bytes for all counts; default 64 MiB */
    bool count_hits;      /* whether a cache hit counts as a request; default true */
    unsigned max_streams; /* at once, all together; 0: no bound */
    struct {
        unsigned max;         /* at once; default 100,000 */
        unsigned per_address; /* of these, from one address or IPv6 /64; default 20,000 */
    } connections;
    size_t body_memory; /* for the bodies of all requests at once; default 1 GiB */
    struct {
        bool on;
        uint64_t ttl_us;        /* above 0 where on */
        size_t max_bytes;       /* default 256 MiB */
        size_t max_entry;       /* default 8 MiB, or max_bytes if that is less */
        bool shared;            /* scope: across API keys */
        bool deterministic;     /* for: only where temperature is 0 or there is a seed */
        bool opt_in;            /* mode: only what asks for it */
        uint64_t memory_ttl_us; /* with Redis: of the copies in memory; default 60 s, or ttl if that is less */
    } cache;
    struct {
        char **origins; /* that browsers may connect from; "*" stands for all; none: all */
        size_t origin_count;
        uint64_t ping_us;     /* default 20 s; 0: never */
        size_t max_message;   /* bytes of a client's message; default 1 MiB */
        unsigned generations; /* at once on one socket of /ws/chat; default 16 */
    } websocket;
    struct {
        char *model;    /* where a message names none; NULL: it must */
        char *system;   /* what conversations begin with; NULL: nothing */
        size_t history; /* bytes of a conversation that the gateway keeps; default 256 KiB */
    } chat;
    struct {
        bool on;
        struct redis_url url;
        char *prefix;        /* of every key; default "weir:" */
        uint64_t timeout_us; /* of every command; default 50 ms */
        int line;            /* in the file, for messages; 0: not there */
    } redis;
    struct {
        struct config_key *keys; /* name, hash and line alone; none: there is no /admin */
        size_t key_count;
        struct config_listen listen; /* where /admin is, and only there; address NULL: where all else is */
    } admin;
    unsigned workers; /* 1..CONFIG_WORKERS_MAX; default: processors_usable() */
    enum log_level log_level;
    enum log_format log_format;  /* default: text where stderr is a terminal, else JSON */
    uint64_t drain_timeout_us;   /* default 30 s */
    uint64_t sse_ping_us;        /* default 15 s; 0: never */
    uint64_t early_head_us;      /* default 0: never */
    uint64_t send_timeout_us;    /* a client that takes nothing for this long is cut off; default 60 s */
    uint64_t request_timeout_us; /* for the head and body of a request, and idle keep-alive; default 60 s */
};

/* Takes and drops a reference. */
struct config *config_retain(struct config *config);
void config_release(struct config *config);

/* Everything that a command line may set; NULL and 0 mean "not given". Lists end at their count. */
struct config_options {
    const char *file; /* --config; NULL: ./weir.yaml, then /etc/weir/weir.yaml, if there */
    const char **listen;
    size_t listen_count;
    const char *tls_cert, *tls_key;
    const char **backends;
    size_t backend_count;
    const char **api_keys;
    size_t api_key_count;
    bool open, supervise;
    const char *workers, *log_level, *log_format, *drain_timeout;
    const char *limit, *cache_ttl, *redis;
};

/* Makes the configuration: options beat environment beats file beats defaults; a list replaces the list that it beats.
 * On failure returns NULL and writes one message that says where (FILE:LINE, the option, the variable), what is wrong
 * and what was expected. Opens no port. `getenv_fn` is getenv, or a test's; with getenv itself,
 * config_environment_check is part of it. */
struct config *config_load(const struct config_options *options, char *(*getenv_fn)(const char *), char *error,
                           size_t error_size);

/* Fills in what a backend's settings leave to the rest of the configuration. */
void config_complete_backend(const struct config *config, struct backend_settings *backend);

/* Reads one item of `backends:`, written as JSON, with its name; TLS files are tried. On failure returns NULL and
 * writes what is wrong; *member receives which member, "" for the whole, as far as it fits. The result is the caller's:
 * config_backend_free. In config_backend.c. */
struct backend_settings *config_backend_read(const struct config *config, struct span json, char member[64],
                                             char *error, size_t error_size);
void config_backend_free(void *settings);

/* Whether the TLS files that the configuration names can be read and fit together. Returns false with one message in
 * `error`, with FILE:LINE where the file names them. */
bool config_tls_check(const struct config *config, char *error, size_t error_size);

/* Finds variables that start with WEIR_ and mean nothing (Kubernetes' service links aside): a misspelt one would be
 * ignored in silence. `environment` is environ, or a test's. Returns false with one message in `error` that names the
 * nearest known. */
bool config_environment_check(char *const *environment, char *error, size_t error_size);

/* Whether a path (as in the route table, with its final "/\*" where it has one) is one of the built-in routes'. */
bool config_route_known(struct span path);

/* Whether `limit` among a route's dependencies runs this limit; `path` as in the route table. Where `limit` stands is
 * the routes' business. */
bool config_limit_applies(const struct config_limit *limit, struct span path);

/* "api_key" to "constant". */
const char *config_limit_by_name(enum limit_by by);

/* "300ms", "15s", "10m", "1h", "1d" into microseconds. A number without a unit is refused. */
bool config_parse_duration(struct span text, uint64_t *us);

/* "512", "64KiB", "32MiB", "1GiB" (also KB, MB, GB: powers of ten) into bytes. */
bool config_parse_size(struct span text, uint64_t *bytes);

/* Whether the address is one of `trusted_proxies`. */
bool config_is_trusted_proxy(const struct config *config, const struct in6_addr *address);

/* Whether the address lies in the network. */
bool config_network_contains(const struct config_network *network, const struct in6_addr *address);

#endif
