#include "ratelimit/key.h"
#include "base/digest.h"
#include "base/ids.h"
#include <assert.h>
#include <endian.h>

struct sip {
    uint64_t v0, v1, v2, v3;
    uint64_t len; /* bytes so far */
};

void key_secret_random(struct key_secret *secret)
{
    ids_random(secret, sizeof(*secret));
}

/* ---- SipHash-2-4 with 128 bits of output (Aumasson, Bernstein 2012; the reference implementation's variant) ---- */

static inline uint64_t rotate(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

static inline void rounds(struct sip *s, int count)
{
    while (count-- != 0) {
        s->v0 += s->v1;
        s->v2 += s->v3;
        s->v1 = rotate(s->v1, 13) ^ s->v0;
        s->v3 = rotate(s->v3, 16) ^ s->v2;
        s->v0 = rotate(s->v0, 32) + s->v3;
        s->v2 += s->v1;
        s->v1 = rotate(s->v1, 17) ^ s->v2;
        s->v3 = rotate(s->v3, 21) ^ s->v0;
        s->v2 = rotate(s->v2, 32);
    }
}

static void start(struct sip *s, const struct key_secret *secret)
{
    uint64_t k0 = secret->word[0], k1 = secret->word[1];
    *s = (struct sip){.v0 = UINT64_C(0x736f6d6570736575) ^ k0,
                      .v1 = UINT64_C(0x646f72616e646f6d) ^ k1 ^ 0xee,
                      .v2 = UINT64_C(0x6c7967656e657261) ^ k0,
                      .v3 = UINT64_C(0x7465646279746573) ^ k1};
}

static inline void add_word(struct sip *s, uint64_t word)
{
    s->v3 ^= word;
    rounds(s, 2);
    s->v0 ^= word;
    s->len += 8;
}

/* Always: most parts are of a length that the compiler then knows, which shows in a decision. */
static inline __attribute__((always_inline)) void add_part(struct sip *s, struct span part)
{
    uint64_t word;
    add_word(s, part.len);
    while (part.len >= sizeof(word)) {
        memcpy(&word, part.base, sizeof(word));
        add_word(s, le64toh(word));
        part = (struct span){part.base + sizeof(word), part.len - sizeof(word)};
    }
    if (part.len != 0) {
        word = 0;
        memcpy(&word, part.base, part.len);
        add_word(s, le64toh(word));
    }
}

static inline struct key finish(struct sip *s)
{
    struct key key;
    add_word(s, s->len << 56);
    s->v2 ^= 0xee;
    rounds(s, 4);
    key.word[0] = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
    s->v1 ^= 0xdd;
    rounds(s, 4);
    key.word[1] = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
    return key;
}

/* ---- SHA-256 ---- */

#define PART_MAX 256

static size_t put_word(unsigned char *to, uint64_t word)
{
    word = htole64(word);
    memcpy(to, &word, sizeof(word));
    return sizeof(word);
}

static struct key digest_public(const struct span *parts, size_t count)
{
    unsigned char text[8 + KEY_PARTS_MAX * (8 + PART_MAX)], digest[DIGEST_SHA256_LEN];
    size_t len = put_word(text, count);
    struct key key;
    assert(count <= KEY_PARTS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct span part = parts[i];
        len += put_word(text + len, part.len);
        if (part.len > PART_MAX) {
            digest_sha256(part, text + len);
            len += DIGEST_SHA256_LEN;
            continue;
        }
        if (part.len != 0)
            memcpy(text + len, part.base, part.len);
        len += part.len;
        for (; len % 8 != 0; len++)
            text[len] = 0;
    }
    digest_sha256((struct span){(const char *)text, len}, digest);
    memcpy(key.word, digest, sizeof(key.word));
    key.word[0] = be64toh(key.word[0]);
    key.word[1] = be64toh(key.word[1]);
    return key;
}

/* ---- keys ---- */

struct key key_make(const struct key_secret *secret, const struct span *parts, size_t count)
{
    struct sip s;
    if (secret == NULL)
        return digest_public(parts, count);
    start(&s, secret);
    add_word(&s, count);
    for (size_t i = 0; i < count; i++)
        add_part(&s, parts[i]);
    return finish(&s);
}

/* What a limit means, under a word that says what the digest is for. */
static struct key digest_limit(const struct key_secret *secret, struct span purpose, struct span name,
                               const struct limit *limit, enum limit_strategy strategy)
{
    uint64_t rule[4] = {htole64(limit->amount), htole64(limit->window_us), htole64((uint64_t)limit->unit),
                        htole64((uint64_t)strategy)};
    struct span parts[] = {purpose, name, {(const char *)rule, sizeof(rule)}};
    return key_make(secret, parts, 3);
}

struct key key_of_limit(const struct key_secret *secret, struct span name, const struct limit *limit,
                        enum limit_strategy strategy)
{
    struct key key = digest_limit(secret, SPAN("limit"), name, limit, strategy);
    if (secret != NULL) /* key_place is the client's alone */
        key.word[1] &= ~(uint64_t)UINT32_MAX;
    return key;
}

struct key key_of_share(const struct key_secret *secret, struct span name, const struct limit *limit,
                        enum limit_strategy strategy)
{
    return digest_limit(secret, SPAN("share"), name, limit, strategy);
}

struct key key_of_client(const struct key_secret *secret, struct span kind, struct span value)
{
    struct span parts[] = {SPAN("client"), kind, value};
    return key_make(secret, parts, 3);
}

struct key_kind key_kind_of(const struct key_secret *secret, struct span kind)
{
    struct sip s;
    start(&s, secret);
    add_word(&s, 3);
    add_part(&s, SPAN("client"));
    add_part(&s, kind);
    return (struct key_kind){{s.v0, s.v1, s.v2, s.v3}, s.len};
}

struct key key_of_kind(const struct key_kind *kind, struct span value)
{
    struct sip s = {kind->_state[0], kind->_state[1], kind->_state[2], kind->_state[3], kind->_len};
    add_part(&s, value);
    return finish(&s);
}
