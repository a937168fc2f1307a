#include "base/clock.h"
#include "base/strbuf.h"
#include "gateway/limit_round.h"

/* "6m0s", "1h2m3.5s", "12ms": as Go prints durations, which is what OpenAI sends. */
static void print_go_duration(uint64_t us, struct strbuf *out)
{
    uint64_t ms = (us + 999) / 1000, s = ms / 1000;
    if (s == 0) {
        strbuf_u64(out, ms);
        strbuf_add(out, SPAN("ms"));
        return;
    }
    if (s >= 3600) {
        strbuf_u64(out, s / 3600);
        strbuf_putc(out, 'h');
    }
    if (s >= 60) {
        strbuf_u64(out, s / 60 % 60);
        strbuf_putc(out, 'm');
    }
    strbuf_u64(out, s % 60);
    if (ms % 1000 != 0) {
        char part[] = {'.', (char)('0' + ms / 100 % 10), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10)};
        strbuf_add(out, (struct span){part, sizeof(part)});
    }
    strbuf_putc(out, 's');
}

void limit_headers(const struct call *call, char text[LIMIT_HEADERS_TEXT],
                   void (*add)(void *ctx, struct span name, struct span value), void *ctx)
{
    static const struct span names[2][3] = {
        [LIMIT_REQUESTS] = {SPAN("x-ratelimit-limit-requests"), SPAN("x-ratelimit-remaining-requests"),
                            SPAN("x-ratelimit-reset-requests")},
        [LIMIT_TOKENS] = {SPAN("x-ratelimit-limit-tokens"), SPAN("x-ratelimit-remaining-tokens"),
                          SPAN("x-ratelimit-reset-tokens")},
    };
    const struct call_limits *limits = call->limits;
    struct span amounts[2], remaining[2];
    struct strbuf buf;
    size_t from;
    strbuf_init_fixed(&buf, text, LIMIT_HEADERS_TEXT);
#define PRINT(...) (from = buf.len, __VA_ARGS__, (struct span){text + from, buf.len - from})
    for (size_t unit = 0; unit < 2; unit++) {
        const struct limit_standing *standing = &limits->standing[unit];
        if (standing->limit == NULL)
            continue;
        amounts[unit] = PRINT(strbuf_u64(&buf, standing->limit->amount));
        remaining[unit] = PRINT(strbuf_u64(&buf, standing->numbers.remaining));
    }
    size_t first = limits->standing[LIMIT_REQUESTS].limit != NULL ? LIMIT_REQUESTS : LIMIT_TOKENS;
    uint64_t now = limits->now_us, wall = clock_wall_us() - (clock_us() - now);
    uint64_t reset = limits->standing[first].numbers.reset_us;
    add(ctx, SPAN("x-ratelimit-limit"), amounts[first]);
    add(ctx, SPAN("x-ratelimit-remaining"), remaining[first]);
    reset = wall + (reset > now ? reset - now : 0);
    add(ctx, SPAN("x-ratelimit-reset"), PRINT(strbuf_u64(&buf, (reset + 999999) / 1000000)));
    for (size_t unit = 0; unit < 2; unit++) {
        const struct limit_standing *standing = &limits->standing[unit];
        if (standing->limit == NULL)
            continue;
        uint64_t full = standing->numbers.full_us > now ? standing->numbers.full_us - now : 0;
        add(ctx, names[unit][0], amounts[unit]);
        add(ctx, names[unit][1], remaining[unit]);
        add(ctx, names[unit][2], PRINT(print_go_duration(full, &buf)));
    }
#undef PRINT
}

bool limit_has_headers(const struct call *call)
{
    return call->limits != NULL && call->limits->headers;
}
