/* A token bucket in eight bytes: holds `burst` tokens, refilled at `per_second`. Kept as the time at which it would be
 * full again, so that an idle one needs no upkeep. Pure: the time is an argument. Whoever shares one between threads
 * locks it. */
#ifndef WEIR_BASE_BUCKET_H
#define WEIR_BASE_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

/* Both at least 1; per_second at most a million. */
struct bucket_rate {
    uint32_t burst, per_second;
};

/* Zero-initialised means full. */
struct bucket {
    uint64_t _full_at_us;
};

/* Takes a token; false, taking nothing, if there is none. `now_us` is clock_us() time and may stand still. */
bool bucket_take(struct bucket *bucket, const struct bucket_rate *rate, uint64_t now_us);

/* Puts back a token that was taken. */
void bucket_give(struct bucket *bucket, const struct bucket_rate *rate);

/* Microseconds until there will be a token; 0: there is one. */
uint64_t bucket_wait_us(const struct bucket *bucket, const struct bucket_rate *rate, uint64_t now_us);

#endif
