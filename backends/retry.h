/* How often, and how soon, a request may be tried again. Pure: no clock, no lock. The budget is a token bucket that
 * requests fill: in an outage, retries add a fifth to the load, not a multiple of it. Each worker has a bucket of its
 * own, which only its own requests fill; together they keep to the share. */
#ifndef WEIR_BACKENDS_RETRY_H
#define WEIR_BACKENDS_RETRY_H

#include <stdbool.h>
#include <stdint.h>

struct retry_settings {
    unsigned attempts;   /* requests sent for one request, the first among them; default 3 */
    unsigned budget;     /* retries in percent of requests; default 20 */
    uint64_t backoff_us; /* before the second attempt; doubles; default 25 ms */
};

#define RETRY_BACKOFF_MAX_US 1000000
#define RETRY_MINIMUM 10  /* retries that a quiet gateway always has, and gets one of back per second */
#define RETRY_MAXIMUM 500 /* that a busy one can have saved up */

void retry_settings_init(struct retry_settings *settings);

struct retry_budget {
    uint64_t _credit; /* hundredths of a retry */
    uint64_t _since_us;
};

/* A bucket with the minimum in it. */
void retry_budget_init(struct retry_budget *budget, uint64_t now_us);

/* A request has come. */
void retry_budget_fill(struct retry_budget *budget, const struct retry_settings *settings);

/* Takes a retry out. False if there is none left. With a budget of 0 percent there never is. */
bool retry_budget_take(struct retry_budget *budget, const struct retry_settings *settings, uint64_t now_us);

/* How long to wait before attempt number `attempt` (2 and up): half of it is fixed, half is chance, so that requests
 * that failed together do not come back together. */
uint64_t retry_backoff_us(const struct retry_settings *settings, unsigned attempt, uint64_t random);

#endif
