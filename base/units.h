/* Durations and sizes as people write them in options, files and URLs. Pure; any thread. */
#ifndef WEIR_BASE_UNITS_H
#define WEIR_BASE_UNITS_H

#include "base/span.h"
#include <stdint.h>

#define UNITS_DURATION_EXPECTED "a duration such as 300ms, 15s, 10m, 1h or 1d"
#define UNITS_SIZE_EXPECTED "a size such as 512, 64KiB, 32MiB or 1GiB"

/* "300ms", "15s", "10m", "1h", "1d" into microseconds: a whole number and its unit, nothing between. False for anything
 * else, also for a number without a unit and for more than ten years (so that adding one to a clock never overflows).
 */
bool units_duration(struct span text, uint64_t *us);

/* "512", "64KiB", "32MiB", "1GiB" (also KB, MB, GB: powers of ten; B) into bytes. False for anything else and for 2^63
 * or more. */
bool units_size(struct span text, uint64_t *bytes);

/* Room for either of the two texts below, with their NUL. */
#define UNITS_TEXT_MAX 32

/* Microseconds as units_duration reads them, with the largest unit that leaves a whole number: "10m". What is below one
 * millisecond is left out. Returns `text`. */
const char *units_print_duration(uint64_t us, char text[UNITS_TEXT_MAX]);

/* Bytes as units_size reads them, with the largest power of two that leaves a whole number: "256MiB". Returns `text`.
 */
const char *units_print_size(uint64_t bytes, char text[UNITS_TEXT_MAX]);

/* A whole number in decimal digits only, at most `max`. */
bool units_number(struct span text, uint64_t max, uint64_t *number);

#endif
