#include "backends/retry.h"

#define RETRY 100 /* of credit */

void retry_settings_init(struct retry_settings *settings)
{
    *settings = (struct retry_settings){.attempts = 3, .budget = 20, .backoff_us = 25000};
}

void retry_budget_init(struct retry_budget *budget, uint64_t now_us)
{
    *budget = (struct retry_budget){._credit = RETRY_MINIMUM * RETRY, ._since_us = now_us};
}

void retry_budget_fill(struct retry_budget *budget, const struct retry_settings *settings)
{
    if (budget->_credit < RETRY_MAXIMUM * RETRY)
        budget->_credit += settings->budget;
}

bool retry_budget_take(struct retry_budget *budget, const struct retry_settings *settings, uint64_t now_us)
{
    if (settings->budget == 0)
        return false;
    uint64_t seconds = now_us > budget->_since_us ? (now_us - budget->_since_us) / 1000000 : 0;
    budget->_since_us += seconds * 1000000;
    if (seconds > RETRY_MINIMUM)
        seconds = RETRY_MINIMUM;
    if (budget->_credit < RETRY_MINIMUM * RETRY) {
        budget->_credit += seconds * RETRY;
        if (budget->_credit > RETRY_MINIMUM * RETRY)
            budget->_credit = RETRY_MINIMUM * RETRY;
    }
    if (budget->_credit < RETRY)
        return false;
    budget->_credit -= RETRY;
    return true;
}

uint64_t retry_backoff_us(const struct retry_settings *settings, unsigned attempt, uint64_t random)
{
    uint64_t us = settings->backoff_us;
    for (unsigned i = 2; i < attempt && us < RETRY_BACKOFF_MAX_US; i++)
        us *= 2;
    if (us > RETRY_BACKOFF_MAX_US)
        us = RETRY_BACKOFF_MAX_US;
    return us / 2 + (uint64_t)((__uint128_t)random * (us / 2 + 1) >> 64);
}
