#include "gateway/config_fields.h"
#include <stdio.h>

#define PREFIX_MAX 64
#define TIMEOUT_MIN_US 1000
#define TIMEOUT_MAX_US 10000000

bool config_value_redis(const struct config_value *value, struct redis_url *url)
{
    char error[512];

    redis_url_dispose(url);
    /* Not quoted: it may hold a password. */
    if (!redis_url_parse(value->text, url, error, sizeof(error)))
        return config_fail(value->report, "%s is no address of a Redis: %s", value->subject, error);
    return true;
}

bool fields_redis_url(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_redis(&value, target));
}

/* It starts every key in Redis: no blanks, and no braces, which mean something in keys. */
bool fields_redis_prefix(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    bool ok = true;

    if (!fields_string(reader, node, target))
        return false;
    struct span prefix = span_of(*(char **)target);
    for (size_t i = 0; i < prefix.len; i++)
        ok = ok && prefix.base[i] > ' ' && prefix.base[i] < 0x7f && strchr("{}\"'\\", prefix.base[i]) == NULL;
    if (!ok || prefix.len > PREFIX_MAX)
        return yaml_reader_fail_value(reader, node,
                                      "is no prefix for keys, expected at most %d printable characters without "
                                      "blanks, quotes and braces, such as weir:",
                                      PREFIX_MAX);
    return true;
}

bool fields_redis_timeout(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    uint64_t us = 0;
    struct config_value value;
    char subject[512];
    char *text = yaml_reader_value(reader, node, &value, subject);
    bool ok = text != NULL && config_value_duration(&value, TIMEOUT_MIN_US, &us);

    config_free_secret(text);
    if (!ok)
        return false;
    if (us > TIMEOUT_MAX_US)
        return yaml_reader_fail_value(reader, node, "is longer than 10s, expected such as 50ms: requests wait for it");
    *(uint64_t *)target = us;
    return true;
}

/* An address, or a mapping with one and more. */
bool fields_redis(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config *config = target;

    config->redis.line = yaml_reader_line(node);
    if (!yaml_reader_is_mapping(node))
        return config->redis.on = fields_redis_url(reader, node, &config->redis.url);
    if (!fields_section(reader, node, SECTION_REDIS, config))
        return false;
    /* The address may come from an option or a variable. */
    config->redis.on = config->redis.url.host_count != 0 || config->redis.url.unix_path != NULL;
    return true;
}
