/* The memory of the logs of one shard of the memory store, within its bytes. Small ones, which are most, lie in pages
 * of their size; a page goes back when its last log does. No locks: store.c has the shard's.
 *
 *   page:  [ what it holds ][ log ][ log ][  -  ][ log ] ... */
#ifndef WEIR_RATELIMIT_STORE_LOGS_H
#define WEIR_RATELIMIT_STORE_LOGS_H

#include "ratelimit/store_memory.h"
#include "ratelimit/strategy_log.h"

#define STORE_LOGS_SIZES 4 /* of small logs: 64 to 512 bytes */

struct store_logs {
    struct store_memory *_memory;
    size_t _bytes;                                     /* in use by logs */
    struct store_logs_page *_partly[STORE_LOGS_SIZES]; /* pages with room */
};

/* Empty, with what `memory` has left to give, which must live as long. */
void store_logs_init(struct store_logs *logs, struct store_memory *memory);

/* Memory for a log of `*bytes`, a power of two from STRATEGY_LOG_BYTES_MIN on, and aligned to that; of any content. A
 * small log may get more than it asked for, where there is no room of its size. NULL if the bytes do not allow it. Logs
 * have half of them, so that there is room for entries whatever they do, and one of them a third. */
void *store_logs_create(struct store_logs *logs, size_t *bytes);
void store_logs_destroy(struct store_logs *logs, void *slots, size_t bytes);

#endif
