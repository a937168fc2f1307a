/* The logs of one shard of the memory store, within its bytes. Small ones, which are most, lie in pages of their size;
 * a page goes back when its last log does. No locks: store.c has the shard's.
 *
 *   page:  [ what it holds ][ log ][ log ][  -  ][ log ] ... */
#ifndef WEIR_RATELIMIT_STORE_LOGS_H
#define WEIR_RATELIMIT_STORE_LOGS_H

#include "ratelimit/store_memory.h"
#include "ratelimit/strategy_log.h"

#define STORE_LOGS_SIZES 4 /* of small logs: 4 to 32 entries */

struct store_logs {
    struct store_memory *_memory;
    size_t _bytes;                                     /* in use by logs */
    struct store_logs_page *_partly[STORE_LOGS_SIZES]; /* pages with room */
};

/* Empty, with what `memory` has left to give, which must live as long. */
void store_logs_init(struct store_logs *logs, struct store_memory *memory);

/* An empty log; NULL if the bytes do not allow it. Logs have half of them, so that there is room for entries whatever
 * they do, and one of them a third. */
struct strategy_log *store_logs_create(struct store_logs *logs, uint32_t cap);
void store_logs_destroy(struct store_logs *logs, struct strategy_log *log);

#endif
