/* Which server has seen how much of a prompt. A prompt's bytes are cut into blocks from the start, small ones first,
 * and each block's hash covers all before it: two prompts share their first n hashes if they share those bytes. A
 * bounded table remembers which server was given each. A server's KV cache works the same way, only in tokens.
 *
 *     prompt   |64|64|…16 of them|256|…|1024|…|8192|…        at most PREFIX_BLOCKS_MAX; what follows is not looked at
 *
 * The table is a set-associative cache of atomic words, eight to a cache line, the oldest of which gives way: any
 * thread may look and write without a lock. What a race loses is a hint. */
#ifndef WEIR_BACKENDS_PREFIX_H
#define WEIR_BACKENDS_PREFIX_H

#include "base/span.h"
#include <stdint.h>

#define PREFIX_BLOCKS_MAX 128
#define PREFIX_NOBODY UINT32_MAX
#define PREFIX_ID_MAX 4095 /* ids are told apart modulo this */

/* The hashes of a prompt's blocks, shortest prefix first. */
struct prefix {
    size_t count;
    uint64_t hashes[PREFIX_BLOCKS_MAX];
};

struct prefix_table;

/* A table for about `entries` hashes (rounded up to a power of two, at least 64), 8 bytes each. */
struct prefix_table *prefix_table_create(size_t entries);
void prefix_table_destroy(struct prefix_table *table);

/* Cuts and hashes. `seed` keeps apart what never shares a cache, such as models. A last block that is not full does not
 * count, but for a prompt shorter than the first. */
void prefix_hash(struct prefix *prefix, struct span prompt, uint64_t seed);

/* The id of the server that was given the longest known part, and in *blocks how many blocks that is; PREFIX_NOBODY if
 * none was. `now_s` in seconds keeps what is found from growing old. */
uint32_t prefix_find(struct prefix_table *table, const struct prefix *prefix, uint32_t now_s, size_t *blocks);

/* The server `id` is given this prompt. `known` is the number of blocks that prefix_find found for this very server, 0
 * if it is another. */
void prefix_remember(struct prefix_table *table, const struct prefix *prefix, uint32_t id, size_t known,
                     uint32_t now_s);

#endif
