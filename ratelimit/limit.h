/* Limits as people write them: the whole grammar of Python's `limits` ("5/minute", "100 per 2 hours; 10/second"), and
 * limits on tokens besides ("100000 tokens/minute"). Pure: no I/O, no allocation, any thread. */
#ifndef WEIR_RATELIMIT_LIMIT_H
#define WEIR_RATELIMIT_LIMIT_H

#include "base/span.h"
#include "base/strbuf.h"
#include <stdint.h>

#define LIMIT_AMOUNT_MAX UINT64_C(1000000000000000) /* 10^15: sums stay exact in a double, so in Lua too */
#define LIMIT_WINDOW_YEARS_MAX 100                  /* so that twice a window added to a clock stays below 2^53 */
#define LIMIT_LIST_MAX 16                           /* limits in one string */
#define LIMIT_ERROR_MAX 320                         /* bytes of a message with its NUL */

enum limit_unit { LIMIT_REQUESTS, LIMIT_TOKENS };

/* Ascending, so that limits order by it as `limits` orders them (multiples do not matter). */
enum limit_granularity { LIMIT_SECOND, LIMIT_MINUTE, LIMIT_HOUR, LIMIT_DAY, LIMIT_MONTH, LIMIT_YEAR };

enum limit_strategy { LIMIT_FIXED_WINDOW, LIMIT_MOVING_WINDOW, LIMIT_SLIDING_WINDOW_COUNTER };

#define LIMIT_STRATEGY_EXPECTED "fixed_window, moving_window or sliding_window_counter"

struct limit {
    uint64_t amount;    /* 0 refuses everything */
    uint64_t window_us; /* granularity times multiple; a month has 30 days, a year 12 such months */
    uint64_t multiple;  /* at least 1 */
    enum limit_granularity granularity;
    enum limit_unit unit;
};

/* What is wrong with a text. */
struct limit_error {
    size_t offset;                 /* in bytes, of the place where it stopped making sense */
    char message[LIMIT_ERROR_MAX]; /* names the offending text, escaped, and what was expected; no offset, no newline */
};

/* Reads a list of limits:
 *
 *   limits = item *( sep item )                sep = [":"] ( "," / ";" / "|" )
 *   item   = *WS 1*DIGIT [ *WS unit ] *WS ( "/" / "per" ) *WS [ 1*DIGIT ] *WS granularity *WS
 *   unit   = "token" / "tokens" / "request" / "requests"
 *   granularity = "second" / "minute" / "hour" / "day" / "month" / "year", each also with an "s"
 *
 * whatever the case of the letters; WS is ASCII white space. A missing or zero multiple is 1. Without a unit requests
 * are meant. False, with `error` filled and `*count` 0, for anything else, for an amount above LIMIT_AMOUNT_MAX, a
 * window above LIMIT_WINDOW_YEARS_MAX, and more than `max` limits. */
bool limit_parse(struct span text, struct limit *limits, size_t max, size_t *count, struct limit_error *error);

/* Appends a limit as `limits` prints it: "5 per 1 minute"; of tokens: "5 tokens per 1 minute". */
void limit_print(const struct limit *limit, struct strbuf *out);

/* "second" to "year"; "requests" or "tokens"; "fixed_window" and so on. */
const char *limit_granularity_name(enum limit_granularity granularity);
const char *limit_unit_name(enum limit_unit unit);
const char *limit_strategy_name(enum limit_strategy strategy);

/* The strategy of this name, written in lower case with underscores or, as in slowapi, hyphens. False for anything
 * else, also for fixed-window-elastic-expiry, which `limits` 5 removed. */
bool limit_strategy_parse(struct span name, enum limit_strategy *strategy);

#endif
