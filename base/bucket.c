#include "base/bucket.h"

static uint64_t token_us(const struct bucket_rate *rate)
{
    return 1000000 / rate->per_second;
}

uint64_t bucket_wait_us(const struct bucket *bucket, const struct bucket_rate *rate, uint64_t now_us)
{
    uint64_t full = bucket->_full_at_us > now_us ? bucket->_full_at_us - now_us : 0;
    uint64_t last = token_us(rate) * (rate->burst - 1); /* so far from full there is still one token */
    return full > last ? full - last : 0;
}

bool bucket_take(struct bucket *bucket, const struct bucket_rate *rate, uint64_t now_us)
{
    if (bucket_wait_us(bucket, rate, now_us) != 0)
        return false;
    if (bucket->_full_at_us < now_us)
        bucket->_full_at_us = now_us;
    bucket->_full_at_us += token_us(rate);
    return true;
}

void bucket_give(struct bucket *bucket, const struct bucket_rate *rate)
{
    uint64_t token = token_us(rate);
    bucket->_full_at_us -= bucket->_full_at_us < token ? bucket->_full_at_us : token;
}
