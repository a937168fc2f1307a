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

/* What the headers say. */
struct values {
    struct span amount[2], remaining[2], full[2]; /* by enum limit_unit */
    struct span reset;
    size_t first; /* the unit that the headers without one are about */
};

static void print(const struct call_limits *limits, char text[LIMIT_HEADERS_TEXT], struct values *values)
{
    struct strbuf buf;
    size_t from;
    uint64_t now = limits->now_us, wall = clock_wall_us() - (clock_us() - now);
    strbuf_init_fixed(&buf, text, LIMIT_HEADERS_TEXT);
#define PRINT(...) (from = buf.len, __VA_ARGS__, (struct span){text + from, buf.len - from})
    for (size_t unit = 0; unit < 2; unit++) {
        const struct limit_standing *standing = &limits->standing[unit];
        if (standing->limit == NULL)
            continue;
        uint64_t full = standing->numbers.full_us > now ? standing->numbers.full_us - now : 0;
        values->amount[unit] = PRINT(strbuf_u64(&buf, standing->limit->amount));
        values->remaining[unit] = PRINT(strbuf_u64(&buf, standing->numbers.remaining));
        values->full[unit] = PRINT(print_go_duration(full, &buf));
    }
    values->first = limits->standing[LIMIT_REQUESTS].limit != NULL ? LIMIT_REQUESTS : LIMIT_TOKENS;
    uint64_t reset = limits->standing[values->first].numbers.reset_us;
    reset = wall + (reset > now ? reset - now : 0);
    values->reset = PRINT(strbuf_u64(&buf, (reset + 999999) / 1000000));
#undef PRINT
}

#define LIMIT "x-ratelimit-limit"
#define REMAINING "x-ratelimit-remaining"
#define RESET "x-ratelimit-reset"

void limit_headers(const struct call *call, char text[LIMIT_HEADERS_TEXT],
                   void (*add)(void *ctx, struct span name, struct span value), void *ctx)
{
    static const struct span names[2][3] = {
        [LIMIT_REQUESTS] = {SPAN(LIMIT "-requests"), SPAN(REMAINING "-requests"), SPAN(RESET "-requests")},
        [LIMIT_TOKENS] = {SPAN(LIMIT "-tokens"), SPAN(REMAINING "-tokens"), SPAN(RESET "-tokens")},
    };
    struct values values;
    print(call->limits, text, &values);
    add(ctx, SPAN(LIMIT), values.amount[values.first]);
    add(ctx, SPAN(REMAINING), values.remaining[values.first]);
    add(ctx, SPAN(RESET), values.reset);
    for (size_t unit = 0; unit < 2; unit++) {
        if (call->limits->standing[unit].limit == NULL)
            continue;
        add(ctx, names[unit][0], values.amount[unit]);
        add(ctx, names[unit][1], values.remaining[unit]);
        add(ctx, names[unit][2], values.full[unit]);
    }
}

struct span limit_header_lines(const struct call *call, char lines[LIMIT_HEADERS_LINES])
{
    char text[LIMIT_HEADERS_TEXT], *at = lines;
    struct values values;
    print(call->limits, text, &values);
#define LINE(name, value)                                                                                              \
    (at = mempcpy(at, name ": ", sizeof(name ": ") - 1), at = mempcpy(at, (value).base, (value).len),                  \
     at = mempcpy(at, "\r\n", 2))
    LINE(LIMIT, values.amount[values.first]);
    LINE(REMAINING, values.remaining[values.first]);
    LINE(RESET, values.reset);
    if (call->limits->standing[LIMIT_REQUESTS].limit != NULL) {
        LINE(LIMIT "-requests", values.amount[LIMIT_REQUESTS]);
        LINE(REMAINING "-requests", values.remaining[LIMIT_REQUESTS]);
        LINE(RESET "-requests", values.full[LIMIT_REQUESTS]);
    }
    if (call->limits->standing[LIMIT_TOKENS].limit != NULL) {
        LINE(LIMIT "-tokens", values.amount[LIMIT_TOKENS]);
        LINE(REMAINING "-tokens", values.remaining[LIMIT_TOKENS]);
        LINE(RESET "-tokens", values.full[LIMIT_TOKENS]);
    }
#undef LINE
    return (struct span){lines, (size_t)(at - lines)};
}

bool limit_has_headers(const struct call *call)
{
    return call->limits != NULL && call->limits->headers;
}
