/* Answers as they stand in Redis: bytes that another process, version or hand may have written, so nothing of them is
 * believed unchecked. Every value names its version, the whole key that it answers and carries a SHA-256 of all the
 * rest; what is cut short, changed, from elsewhere or moved to another key does not parse, and counts as not there.
 *
 *      PREFIX c:KEY           head: facts, headers, and the body if it is at most REDIS_VALUE_INLINE_MAX
 *      PREFIX c:KEY:GEN:n     else the n-th piece of the body; GEN is new for each time that an answer is stored
 *
 * KEY and GEN are hexadecimal digits of digests and random bytes: nothing that a client chose is part of a Redis key.
 * Numbers are little-endian. Pure; any thread. */
#ifndef WEIR_CACHE_REDIS_VALUE_H
#define WEIR_CACHE_REDIS_VALUE_H

#include "base/strbuf.h"
#include "cache/entry.h"

#define REDIS_VALUE_GENERATION_LEN 16
#define REDIS_VALUE_PIECE ((size_t)64 * 1024) /* bytes of a body in one value; the last may have fewer */
#define REDIS_VALUE_INLINE_MAX REDIS_VALUE_PIECE
#define REDIS_VALUE_PIECES_MAX 1024 /* of an answer: 64 MiB */
#define REDIS_VALUE_HEADERS_MAX 16
#define REDIS_VALUE_TEXT_MAX 1024 /* of a header's name, its value, a model's name … */

/* No value is longer; what is, is not weir's. */
#define REDIS_VALUE_MAX (REDIS_VALUE_INLINE_MAX + (size_t)40 * REDIS_VALUE_TEXT_MAX)

/* Everything about an answer but the pieces of a long body. Spans point into the value that was parsed, or belong to
 * whoever filled it in. */
struct redis_value_head {
    struct cache_key key;
    unsigned char generation[REDIS_VALUE_GENERATION_LEN];
    unsigned char epoch[CACHE_EPOCH_LEN];
    uint64_t created_wall_us; /* clock_wall_us() of the process that stored it */
    uint64_t ttl_us;          /* from then on */
    int status;
    bool sse;
    enum dialect_id dialect;
    struct stream_facts facts; /* bytes, events, usage; `terminal` is that of every stored stream */
    struct span scope_name, model, etag;
    struct cache_header headers[REDIS_VALUE_HEADERS_MAX];
    size_t header_count;
    size_t piece_count; /* 0: the body is here */
    struct span body;
};

/* How many pieces a body of this length has; 0: it stands in the head. */
size_t redis_value_pieces(uint64_t bytes);

/* Appends a head to an empty buffer that may hold REDIS_VALUE_MAX bytes; `piece_count` follows from facts.bytes. False
 * if it does not fit the format: too long a text, too many headers or pieces. */
bool redis_value_write_head(const struct redis_value_head *head, struct strbuf *out);

/* Reads the head of the answer with this key. False if it is anything else. */
bool redis_value_read_head(struct span value, const struct cache_key *key, struct redis_value_head *head);

/* Appends piece number `index` to an empty buffer. */
void redis_value_write_piece(const struct redis_value_head *head, size_t index, struct span bytes, struct strbuf *out);

/* The bytes of piece number `index` of this answer. False if the value is anything else. */
bool redis_value_read_piece(struct span value, const struct redis_value_head *head, size_t index, struct span *bytes);

/* Longest key, with its NUL, behind the prefix. */
#define REDIS_VALUE_KEY_SIZE (2 + 2 * CACHE_KEY_LEN + 1 + 2 * REDIS_VALUE_GENERATION_LEN + 1 + 20 + 1)

/* Writes "c:KEY", or "c:KEY:GEN:index", and returns its length. */
size_t redis_value_head_key(const struct cache_key *key, char out[REDIS_VALUE_KEY_SIZE]);
size_t redis_value_piece_key(const struct redis_value_head *head, size_t index, char out[REDIS_VALUE_KEY_SIZE]);

#endif
