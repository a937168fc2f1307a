/* A backend: one model server (or the built-in demo model) as the configuration describes it. Settings are plain data,
 * made once and never changed; all threads may read them. */
#ifndef WEIR_BACKENDS_BACKEND_H
#define WEIR_BACKENDS_BACKEND_H

#include "backends/health.h"
#include "base/span.h"
#include <stdint.h>

enum backend_kind { BACKEND_HTTP, BACKEND_DEMO };

/* How a backend's own key is sent. */
enum backend_auth { BACKEND_AUTH_BEARER, BACKEND_AUTH_X_API_KEY, BACKEND_AUTH_API_KEY };

struct backend_url {
    enum backend_kind kind;
    bool tls;
    char *host;      /* without brackets; NULL for unix sockets and demo */
    bool host_is_ip; /* host is a numeric address */
    uint16_t port;
    char *unix_path; /* http://unix:…: see backend_url_parse; NULL otherwise */
    char *authority; /* for the Host header: host[:port], the port only where it is not the scheme's own; "localhost"
                        for a unix socket */
    char *path;      /* "" or "/api/v1", no trailing slash */
    char *query;     /* without '?'; NULL if none */
};

/* Where the tokens of a streamed chat or completion come from. */
enum backend_usage {
    BACKEND_USAGE_DEFAULT, /* BACKEND_USAGE_ASK where token limits apply; the configuration settles it */
    BACKEND_USAGE_READ,    /* from what clients ask for */
    BACKEND_USAGE_ASK,     /* asked for in their place */
};

/* The demo model's manners. */
struct demo_settings {
    uint64_t delay_us; /* before the first token; default 100 ms */
    uint64_t pace_us;  /* between tokens; default 25 ms */
    unsigned tokens;   /* at most this many tokens in an answer; default 1000 */
};

/* A rule of `models:`. */
struct backend_model {
    char *pattern;  /* a name, or a glob with '*' */
    char *upstream; /* what the backend calls it; NULL: the same */
};

struct backend_timeouts { /* microseconds; 0: none */
    uint64_t connect;     /* default 5 s */
    uint64_t first_token; /* default 600 s */
    uint64_t idle;        /* default 300 s */
    uint64_t total;       /* default 1 h */
};

#define BACKEND_WEIGHT_MAX 1000
#define BACKEND_NAME_MAX 127 /* what is longer is cut where it is shown */

struct backend_settings {
    char *name;
    struct backend_url url;
    struct backend_model *models; /* none: serves all */
    size_t model_count;
    uint64_t discover_us; /* how often it is asked for its models, which then are those that it serves; 0: never */
    bool is_default;      /* takes what names no model */
    char *api_key;        /* NULL: none */
    enum backend_auth auth;
    struct backend_header {
        char *name, *value;
    } * headers;
    size_t header_count;
    struct {
        char *ca, *cert, *key; /* files; NULL: the system's authorities, no client certificate */
        bool verify;           /* default true */
        int line;              /* in the file, for messages */
    } tls;
    enum backend_usage usage;
    unsigned weight;               /* default 1; at most BACKEND_WEIGHT_MAX */
    unsigned max_concurrent;       /* requests at once; 0: no bound */
    struct health_settings health; /* what is HEALTH_INHERIT comes from the common settings */
    struct backend_timeouts timeouts;
    struct demo_settings demo;
};

/* Parses "http://host[:port][/path][?query]", "https://…", "http://unix:/path/to.sock[:/path]", "demo:" or
 * "demo:?delay=100ms&pace=25ms&tokens=50" (the query sets settings->demo). On failure returns false, leaves
 * settings->url zero and writes what is wrong and what was expected to `error`, never the whole url, which may hold
 * secrets. `settings` must have been initialised. Strings in *settings are malloc'ed; see backend_settings_dispose.
 * User names in URLs are refused. */
bool backend_url_parse(struct span text, struct backend_settings *settings, char *error, size_t error_size);

/* Copies a backend's name, cut to what fits. */
void backend_name_copy(char to[BACKEND_NAME_MAX + 1], const char *name);

/* Sets every default (kind and url stay zero). */
void backend_settings_init(struct backend_settings *settings);

/* Frees all strings and lists. */
void backend_settings_dispose(struct backend_settings *settings);

/* Whether two backends are the same one, asked in the same way, so that what is known of one holds for the other: name,
 * url, credentials, headers, TLS, timeouts and health settings. Models, weight and places may differ. */
bool backend_settings_alike(const struct backend_settings *a, const struct backend_settings *b);

/* Whether the backend serves `model`; *upstream receives the name to send in its place (the same span if not renamed).
 * Of several rules that match, the exact name wins, then the first glob. */
bool backend_serves(const struct backend_settings *settings, struct span model, struct span *upstream);

/* Whether `text` matches a pattern in which '*' stands for any run of bytes. */
bool glob_match(struct span pattern, struct span text);

#endif
