/* Keys of the stores: 128-bit digests of a list of parts. Every part goes in with its length, so that no text a client
 * chooses can end one part and begin the next. Keys have one size whatever a client sends. Pure but for
 * key_secret_random; any thread.
 *
 * - Under a secret: SipHash-2-4. For the memory store: the secret keeps strangers from finding two texts with one
 *   digest, or texts that fall into one shard.
 * - Without one (NULL): SHA-256, cut to 128 bits. For Redis: all gateways must come to the same keys, also one that
 *   starts after the others or after Redis has lost what it had, and there is no secret that they surely share. To be
 *   counted as somebody else a stranger would have to find a second preimage (2^128 tries); two texts of his own with
 *   one digest (2^64) would gain him nothing. Whoever reads the keys in Redis can guess short texts, such as addresses.
 */
#ifndef WEIR_RATELIMIT_KEY_H
#define WEIR_RATELIMIT_KEY_H

#include "ratelimit/limit.h"

struct key {
    uint64_t word[2];
};

struct key_secret {
    uint64_t word[2];
};

/* A new secret from the kernel's random numbers. Digests of different secrets have nothing in common. */
void key_secret_random(struct key_secret *secret);

#define KEY_PARTS_MAX 4

/* The digest of `count` <= KEY_PARTS_MAX parts, in their order; each may hold any bytes, and be empty. It is that of
 * the bytes: count and then, for each part, its length and the part padded with zeros to a multiple of 8; numbers are 8
 * bytes, little-endian. Without a secret the SHA-256 of a part of more than 256 bytes stands for the part. */
struct key key_make(const struct key_secret *secret, const struct span *parts, size_t count);

/* Where a store keeps a key: it is the client's, so that the counts of a client's limits are found under one lock and
 * in one place. (For keys of key_for with a secret; for others it is any part of the digest.) */
static inline uint32_t key_place(const struct key *key)
{
    return (uint32_t)key->word[1];
}

/* The digest of a limit, worked out once: with a secret 96 bits, and zeros where key_place looks. `name` is its name in
 * the configuration (what shares a count shares the name; a route's own limit has the route in it). A limit that
 * changes its amount, window, unit or strategy starts afresh. */
struct key key_of_limit(const struct key_secret *secret, struct span name, const struct limit *limit,
                        enum limit_strategy strategy);

/* The digest of a client, worked out once for all the limits that count by the same: `kind` is what they count by, such
 * as "address", `value` the client's. */
struct key key_of_client(const struct key_secret *secret, struct span kind, struct span value);

/* The same in two steps, for who has many clients of one kind. Under a secret only. */
struct key_kind {
    uint64_t _state[4], _len;
};

/* The first step, for a kind. */
struct key_kind key_kind_of(const struct key_secret *secret, struct span kind);
/* The second, for a client of it: the digest that key_of_client would give. */
struct key key_of_kind(const struct key_kind *kind, struct span value);

/* The key of a limit for a client. The exclusive or of a digest that is given with one that a stranger may choose the
 * text of is as hard to meet again as the latter. */
static inline struct key key_for(const struct key *limit, const struct key *client)
{
    return (struct key){{limit->word[0] ^ client->word[0], limit->word[1] ^ client->word[1]}};
}

/* The key of the state that clients share for whom the store has no room. */
struct key key_of_share(const struct key_secret *secret, struct span name, const struct limit *limit,
                        enum limit_strategy strategy);

static inline bool key_eq(const struct key *a, const struct key *b)
{
    return a->word[0] == b->word[0] && a->word[1] == b->word[1];
}

#endif
