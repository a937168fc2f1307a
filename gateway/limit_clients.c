#include "gateway/limit_clients.h"

static struct key make(const struct key_kind *kind, enum limit_by by, struct span value)
{
    return kind != NULL ? key_of_kind(kind, value) : key_of_client(NULL, span_of(config_limit_by_name(by)), value);
}

/* By all of a short value and the end of a longer one, which is where most differ. */
static size_t place_of(unsigned char kind, struct span value)
{
    uint64_t word = 0;
    if (value.len >= sizeof(word)) {
        memcpy(&word, value.base + value.len - sizeof(word), sizeof(word));
    } else {
        for (size_t i = 0; i < value.len; i++)
            word = word << 8 | (unsigned char)value.base[i];
    }
    return (size_t)((word + kind) * 0x9E3779B97F4A7C15 >> 32) & (LIMIT_CLIENTS - 1);
}

struct key limit_client_key(struct limit_clients *clients, const struct key_kind *kind, enum limit_by by,
                            struct span value)
{
    if (value.len > LIMIT_CLIENT_MAX)
        return make(kind, by, value);
    unsigned char which = (unsigned char)(2 * (unsigned)by + (kind != NULL) + 1);
    struct limit_client *client = &clients->recent[place_of(which, value)];
    if (client->kind == which && client->len == value.len &&
        (value.len == 0 || memcmp(client->value, value.base, value.len) == 0))
        return client->digest;
    client->digest = make(kind, by, value);
    client->kind = which;
    client->len = (unsigned char)value.len;
    if (value.len != 0)
        memcpy(client->value, value.base, value.len);
    return client->digest;
}
