/* The fields of the file and how each is read. The table is in config_file.c; readers that belong together stand in
 * config_fields_*.c. Internal to gateway/config*. */
#ifndef WEIR_GATEWAY_CONFIG_FIELDS_H
#define WEIR_GATEWAY_CONFIG_FIELDS_H

#include "gateway/yaml_reader.h"

/* Which mapping of the file a field stands in; each is read into the struct named here. */
enum section {
    SECTION_TOP,         /* struct config */
    SECTION_LISTEN,      /* struct config_listen */
    SECTION_TLS,         /* struct config_listen: "tls" of an address */
    SECTION_CORS,        /* struct config */
    SECTION_BACKEND,     /* struct backend_settings */
    SECTION_UPSTREAM,    /* struct backend_settings: "tls" of a backend */
    SECTION_TIMEOUTS,    /* struct backend_timeouts */
    SECTION_KEY,         /* struct fields_key */
    SECTION_ROUTE,       /* struct config_route */
    SECTION_LIMIT,       /* struct config_limit */
    SECTION_EXEMPT,      /* struct config_limit */
    SECTION_CACHE,       /* struct config */
    SECTION_WEBSOCKET,   /* struct config */
    SECTION_CHAT,        /* struct config */
    SECTION_REDIS,       /* struct config */
    SECTION_ADMIN,       /* struct config */
    SECTION_ADMIN_KEY,   /* struct fields_key */
    SECTION_BALANCE,     /* struct fleet_settings */
    SECTION_QUEUE,       /* struct fleet_settings */
    SECTION_RETRIES,     /* struct retry_settings */
    SECTION_HEALTH,      /* struct health_settings */
    SECTION_CONNECTIONS, /* struct config */
};

/* A key and the two ways to give it. */
struct fields_key {
    struct config_key *key;
    bool has_key, has_hash;
};

/* Reads a node into `target`: a member or the whole of the section's struct, as the table says. False after a failure.
 */
typedef bool (*fields_read)(struct yaml_reader *reader, const yaml_node_t *node, void *target);

/* A limit whose `by` the file does not tell; the default depends on keys that may come from elsewhere. */
#define FIELDS_BY_DEFAULT ((enum limit_by) - 1)

/* What consistent_hash goes by where the file does not tell. */
#define FIELDS_BALANCE_BY_DEFAULT ((enum balance_by) - 1)

/* A word that a field takes. */
struct fields_word {
    const char *text;
    bool later; /* known, but not available in this version */
};

/* Reads a mapping field by field into `object`. */
bool fields_section(struct yaml_reader *reader, const yaml_node_t *node, enum section section, void *object);

/* A list, each item read by `read` into `ctx`. */
bool fields_items(struct yaml_reader *reader, const yaml_node_t *node, fields_read read, void *ctx);

/* Refuses an empty list: to some readers it would mean "all", to others "none". */
bool fields_not_empty(struct yaml_reader *reader, const yaml_node_t *node, size_t count, const char *expected);

/* A list of strings such as names and globs, never empty; `left_out` says what that would mean ("all"). */
bool fields_patterns(struct yaml_reader *reader, const yaml_node_t *node, char ***items, size_t *count,
                     const char *left_out);

/* A list of networks, which may be empty. */
bool fields_networks(struct yaml_reader *reader, const yaml_node_t *node, struct config_network **networks,
                     size_t *count);

/* Reads a scalar and hands it to one of the config_value_* functions. */
#define FIELDS_READ_VALUE(reader, node, value, call)                                                                   \
    do {                                                                                                               \
        struct config_value value;                                                                                     \
        char subject[512];                                                                                             \
        char *text = yaml_reader_value(reader, node, &value, subject);                                                 \
        bool ok = text != NULL && (call);                                                                              \
        config_free_secret(text);                                                                                      \
        return ok;                                                                                                     \
    } while (0)

/* One of a few words; *which receives its index. */
bool fields_word(struct yaml_reader *reader, const yaml_node_t *node, const struct fields_word *words, size_t count,
                 size_t *which);

/* Into a char * that is NULL so far; an empty one is refused. */
bool fields_string(struct yaml_reader *reader, const yaml_node_t *node, void *target);
bool fields_name(struct yaml_reader *reader, const yaml_node_t *node, void *target);
bool fields_bool(struct yaml_reader *reader, const yaml_node_t *node, void *target);

/* Into a size_t of bytes. */
bool fields_size(struct yaml_reader *reader, const yaml_node_t *node, uint64_t min, uint64_t max, void *target);

/* Into an unsigned; 0 would be taken for "none" by some and for "no bound" by others, and is refused. */
bool fields_max_streams(struct yaml_reader *reader, const yaml_node_t *node, void *target);

/* Readers of whole structs. */
bool fields_connections(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_listen(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_listen_address(struct yaml_reader *reader, const yaml_node_t *node, void *listen_address);
bool fields_listen_tls(struct yaml_reader *reader, const yaml_node_t *node, void *listen);
bool fields_trusted_proxies(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_cors(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_websocket(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_websocket_origins(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_websocket_max_message(struct yaml_reader *reader, const yaml_node_t *node, void *bytes);
bool fields_websocket_generations(struct yaml_reader *reader, const yaml_node_t *node, void *number);
bool fields_chat(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_chat_history(struct yaml_reader *reader, const yaml_node_t *node, void *bytes);
bool fields_cors_origins(struct yaml_reader *reader, const yaml_node_t *node, void *config);

bool fields_backends(struct yaml_reader *reader, const yaml_node_t *node, void *config);
/* One item of them, added to the struct config's. */
bool fields_backend(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_backend_url(struct yaml_reader *reader, const yaml_node_t *node, void *backend);
bool fields_backend_models(struct yaml_reader *reader, const yaml_node_t *node, void *backend);
bool fields_backend_auth(struct yaml_reader *reader, const yaml_node_t *node, void *auth);
bool fields_backend_headers(struct yaml_reader *reader, const yaml_node_t *node, void *backend);
bool fields_backend_tls(struct yaml_reader *reader, const yaml_node_t *node, void *backend);
bool fields_backend_usage(struct yaml_reader *reader, const yaml_node_t *node, void *usage);
bool fields_backend_timeouts(struct yaml_reader *reader, const yaml_node_t *node, void *timeouts);
bool fields_backend_weight(struct yaml_reader *reader, const yaml_node_t *node, void *weight);
bool fields_backend_max_concurrent(struct yaml_reader *reader, const yaml_node_t *node, void *max_concurrent);

bool fields_balance(struct yaml_reader *reader, const yaml_node_t *node, void *fleet);
bool fields_balance_policy(struct yaml_reader *reader, const yaml_node_t *node, void *policy);
bool fields_balance_by(struct yaml_reader *reader, const yaml_node_t *node, void *fleet);
bool fields_balance_header(struct yaml_reader *reader, const yaml_node_t *node, void *header);
bool fields_health(struct yaml_reader *reader, const yaml_node_t *node, void *health);
bool fields_health_failures(struct yaml_reader *reader, const yaml_node_t *node, void *number);
bool fields_resolve(struct yaml_reader *reader, const yaml_node_t *node, void *us);
bool fields_health_path(struct yaml_reader *reader, const yaml_node_t *node, void *path);
bool fields_health_series(struct yaml_reader *reader, const yaml_node_t *node, void *number);
bool fields_probe_interval(struct yaml_reader *reader, const yaml_node_t *node, void *us);
bool fields_health_error_rate(struct yaml_reader *reader, const yaml_node_t *node, void *percent);
bool fields_retries(struct yaml_reader *reader, const yaml_node_t *node, void *retries);
bool fields_retries_attempts(struct yaml_reader *reader, const yaml_node_t *node, void *attempts);
bool fields_retries_budget(struct yaml_reader *reader, const yaml_node_t *node, void *percent);
bool fields_queue(struct yaml_reader *reader, const yaml_node_t *node, void *fleet);
bool fields_queue_max(struct yaml_reader *reader, const yaml_node_t *node, void *max);
bool fields_key_priority(struct yaml_reader *reader, const yaml_node_t *node, void *fields_key);
bool fields_models(struct yaml_reader *reader, const yaml_node_t *node, void *fleet);
bool fields_route_timeouts(struct yaml_reader *reader, const yaml_node_t *node, void *route);

bool fields_keys(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_key_name(struct yaml_reader *reader, const yaml_node_t *node, void *fields_key);
bool fields_key_key(struct yaml_reader *reader, const yaml_node_t *node, void *fields_key);
bool fields_key_hash(struct yaml_reader *reader, const yaml_node_t *node, void *fields_key);
bool fields_key_models(struct yaml_reader *reader, const yaml_node_t *node, void *fields_key);
bool fields_key_routes(struct yaml_reader *reader, const yaml_node_t *node, void *fields_key);
bool fields_key_expires(struct yaml_reader *reader, const yaml_node_t *node, void *fields_key);
bool fields_key_limit(struct yaml_reader *reader, const yaml_node_t *node, void *fields_key);
bool fields_key_max_streams(struct yaml_reader *reader, const yaml_node_t *node, void *fields_key);

bool fields_routes(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_route_depends(struct yaml_reader *reader, const yaml_node_t *node, void *route);

/* Gives a zeroed limit its name and its defaults. */
void fields_limit_init(struct config_limit *limit, struct span name);
bool fields_limits(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_limit_list(struct yaml_reader *reader, const yaml_node_t *node, void *limit);
bool fields_limit_by(struct yaml_reader *reader, const yaml_node_t *node, void *by);
bool fields_limit_strategy(struct yaml_reader *reader, const yaml_node_t *node, void *strategy);
bool fields_limit_routes(struct yaml_reader *reader, const yaml_node_t *node, void *limit);
bool fields_limit_per(struct yaml_reader *reader, const yaml_node_t *node, void *per_message);
bool fields_limit_failure(struct yaml_reader *reader, const yaml_node_t *node, void *failure);
bool fields_limit_cost(struct yaml_reader *reader, const yaml_node_t *node, void *cost);
bool fields_limit_message(struct yaml_reader *reader, const yaml_node_t *node, void *message);
bool fields_limit_exempt(struct yaml_reader *reader, const yaml_node_t *node, void *limit);
bool fields_exempt_keys(struct yaml_reader *reader, const yaml_node_t *node, void *limit);
bool fields_exempt_addresses(struct yaml_reader *reader, const yaml_node_t *node, void *limit);
bool fields_limit_memory(struct yaml_reader *reader, const yaml_node_t *node, void *bytes);

bool fields_cache(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_cache_max_bytes(struct yaml_reader *reader, const yaml_node_t *node, void *bytes);
bool fields_cache_max_entry(struct yaml_reader *reader, const yaml_node_t *node, void *bytes);
bool fields_cache_scope(struct yaml_reader *reader, const yaml_node_t *node, void *shared);
bool fields_cache_for(struct yaml_reader *reader, const yaml_node_t *node, void *deterministic);
bool fields_cache_mode(struct yaml_reader *reader, const yaml_node_t *node, void *opt_in);

bool fields_redis(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_redis_url(struct yaml_reader *reader, const yaml_node_t *node, void *url);
bool fields_redis_prefix(struct yaml_reader *reader, const yaml_node_t *node, void *prefix);
bool fields_redis_timeout(struct yaml_reader *reader, const yaml_node_t *node, void *us);
bool fields_admin(struct yaml_reader *reader, const yaml_node_t *node, void *config);
bool fields_admin_keys(struct yaml_reader *reader, const yaml_node_t *node, void *config);

#endif
