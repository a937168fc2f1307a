#include "base/clock.h"
#include "base/strbuf.h"
#include "gateway/limit_round.h"

/* "6m0s", "1h2m3.5s", "12ms": as Go prints durations, which is what OpenAI sends. */
static void print_go_duration(uint64_t us, struct strbuf *out)
{
    uint64_t ms = (us + 999) / 1000, s = ms / 1000;
    if (s == 0) {
        strbuf_printf(out, "%llums", (unsigned long long)ms);
        return;
    }
    if (s >= 3600)
        strbuf_printf(out, "%lluh", (unsigned long long)(s / 3600));
    if (s >= 60)
        strbuf_printf(out, "%llum", (unsigned long long)(s / 60 % 60));
    if (ms % 1000 == 0)
        strbuf_printf(out, "%llus", (unsigned long long)(s % 60));
    else
        strbuf_printf(out, "%llu.%03llus", (unsigned long long)(s % 60), (unsigned long long)(ms % 1000));
}

void limit_headers(const struct call *call, void (*add)(void *ctx, struct span name, struct span value), void *ctx)
{
    static const struct span names[2][3] = {
        [LIMIT_REQUESTS] = {SPAN("x-ratelimit-limit-requests"), SPAN("x-ratelimit-remaining-requests"),
                            SPAN("x-ratelimit-reset-requests")},
        [LIMIT_TOKENS] = {SPAN("x-ratelimit-limit-tokens"), SPAN("x-ratelimit-remaining-tokens"),
                          SPAN("x-ratelimit-reset-tokens")},
    };
    const struct call_limits *limits = call->limits;
    if (limits == NULL || !limits->headers)
        return;
    char text[64];
    struct strbuf buf;
    strbuf_init_fixed(&buf, text, sizeof(text));
#define ADD(name, ...)                                                                                                 \
    do {                                                                                                               \
        strbuf_reset(&buf);                                                                                            \
        __VA_ARGS__;                                                                                                   \
        add(ctx, (name), strbuf_span(&buf));                                                                           \
    } while (0)
    const struct limit_standing *first = limits->standing[LIMIT_REQUESTS].limit != NULL
                                             ? &limits->standing[LIMIT_REQUESTS]
                                             : &limits->standing[LIMIT_TOKENS];
    uint64_t now = limits->now_us, wall = clock_wall_us() - (clock_us() - now);
    ADD(SPAN("x-ratelimit-limit"), strbuf_u64(&buf, first->limit->amount));
    ADD(SPAN("x-ratelimit-remaining"), strbuf_u64(&buf, first->numbers.remaining));
    uint64_t reset = wall + (first->numbers.reset_us > now ? first->numbers.reset_us - now : 0);
    ADD(SPAN("x-ratelimit-reset"), strbuf_u64(&buf, (reset + 999999) / 1000000));
    for (size_t unit = 0; unit < 2; unit++) {
        const struct limit_standing *standing = &limits->standing[unit];
        if (standing->limit == NULL)
            continue;
        uint64_t full = standing->numbers.full_us > now ? standing->numbers.full_us - now : 0;
        ADD(names[unit][0], strbuf_u64(&buf, standing->limit->amount));
        ADD(names[unit][1], strbuf_u64(&buf, standing->numbers.remaining));
        ADD(names[unit][2], print_go_duration(full, &buf));
    }
#undef ADD
}
