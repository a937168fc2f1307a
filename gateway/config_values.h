/* Single values of the configuration, whatever source they come from: how each is written and what is said about a bad
 * one. Internal to gateway/config*. Pure but for config_read_whole; one thread. */
#ifndef WEIR_GATEWAY_CONFIG_VALUES_H
#define WEIR_GATEWAY_CONFIG_VALUES_H

#include "gateway/config.h"

/* Where the one message of a failed load goes. */
struct config_report {
    char *text;
    size_t size;
};

/* Writes the message, on one line whatever the values in it hold, and returns false. */
bool config_fail(struct config_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A value with its origin. Every config_value_* function returns false after "SUBJECT is "SHOWN", expected …". */
struct config_value {
    struct config_report *report;
    const char *subject; /* `--workers`, `WEIR_WORKERS` or `weir.yaml:3: "workers"` */
    struct span text;
    struct span shown; /* what a message may quote: never an expanded variable */
};

/* Durations of at least `min_us`, sizes from `min` to `max` bytes, "true", "false", "on" or "off". */
bool config_value_duration(const struct config_value *value, uint64_t min_us, uint64_t *us);
bool config_value_size(const struct config_value *value, uint64_t min, uint64_t max, uint64_t *bytes);
bool config_value_bool(const struct config_value *value, bool *truth);
/* A whole number from `min` to `max`. */
bool config_value_number(const struct config_value *value, uint64_t min, uint64_t max, uint64_t *number);

/* The other options' words; see config.h. */
bool config_value_workers(const struct config_value *value, unsigned *workers);
bool config_value_log_level(const struct config_value *value, enum log_level *level);
bool config_value_log_format(const struct config_value *value, enum log_format *format);

/* A list of limits as limit_parse reads it, into an array of LIMIT_LIST_MAX. */
bool config_value_limits(const struct config_value *value, struct limit *limits, size_t *count);

/* What a limit counts by, and its strategy. */
bool config_value_limit_by(const struct config_value *value, enum limit_by *by);
bool config_value_strategy(const struct config_value *value, enum limit_strategy *strategy);

/* An address to listen on; *host receives its host part, SPAN_NONE for a unix socket. */
bool config_value_listen(const struct config_value *value, struct span *host);

/* A network, or a single address. Bits beyond the prefix are dropped. */
bool config_value_network(const struct config_value *value, struct config_network *network);

/* A backend's url, into settings->url (and settings->demo). */
bool config_value_url(const struct config_value *value, struct backend_settings *settings);

/* The address of a Redis into *url, which is disposed of first. Never quoted: passwords stand in it. In
 * config_fields_redis.c. */
bool config_value_redis(const struct config_value *value, struct redis_url *url);

/* A name for logs and metrics: 1 to 64 printable ASCII characters without blanks and quotes. */
bool config_value_name(const struct config_value *value);

/* A plain API key into its SHA-256. Never quoted. Refused: fewer than 8 or more than 512 bytes, blanks, control
 * characters. */
bool config_value_key(const struct config_value *value, unsigned char hash[32]);

/* "sha256:" and 64 hexadecimal digits. */
bool config_value_hash(const struct config_value *value, unsigned char hash[32]);

/* YYYY-MM-DD (the start of that day, UTC) or a date and time as in RFC 3339 §5.6, into epoch seconds. */
bool config_value_expires(const struct config_value *value, int64_t *seconds);

/* Whether a host, as config_value_listen gives it, can be reached from this machine only. */
bool config_host_is_loopback(struct span host);

/* Makes room for one more item, zeroed, at the end of a list of *count items made by this function (NULL when empty),
 * and counts it. Returns the new item; *list is moved. */
void *config_append(void *list, size_t *count, size_t item_size);

/* Overwrites and frees a string that may be secret; NULL is fine. */
void config_free_secret(char *secret);

/* The whole content of a file of at most `max` bytes, malloc'ed, with a NUL behind it. On failure returns NULL and
 * errno: EFBIG if it is longer. */
char *config_read_whole(const char *path, size_t max, size_t *len);

#endif
