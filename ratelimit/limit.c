#include "ratelimit/limit.h"

#define SECOND_US UINT64_C(1000000)
#define WINDOW_MAX_US (UINT64_C(31104000) * LIMIT_WINDOW_YEARS_MAX * SECOND_US)
#define SHOWN_MAX 32 /* bytes of an offending text that a message repeats */

static const struct {
    const char *name;
    uint64_t seconds;
} granularities[] = {
    [LIMIT_SECOND] = {"second", 1},   [LIMIT_MINUTE] = {"minute", 60},    [LIMIT_HOUR] = {"hour", 3600},
    [LIMIT_DAY] = {"day", 24 * 3600}, [LIMIT_MONTH] = {"month", 2592000}, [LIMIT_YEAR] = {"year", 31104000},
};
#define GRANULARITIES (sizeof(granularities) / sizeof(granularities[0]))

static const char *const strategies[] = {
    [LIMIT_FIXED_WINDOW] = "fixed_window",
    [LIMIT_MOVING_WINDOW] = "moving_window",
    [LIMIT_SLIDING_WINDOW_COUNTER] = "sliding_window_counter",
};

struct reader {
    struct span text;
    size_t at;
    struct limit_error *error;
};

/* ---- characters; ASCII whatever the locale says ---- */

static bool is_space(char c)
{
    /* Python's \s, with the four separators that it counts in. */
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_separator(char c)
{
    return c == ',' || c == ';' || c == '|';
}

/* The character at the reader's place, NUL at the end; a NUL within the text matches nothing either. */
static char peek(const struct reader *in)
{
    return in->at < in->text.len ? in->text.base[in->at] : '\0';
}

static void skip_spaces(struct reader *in)
{
    while (is_space(peek(in)))
        in->at++;
}

static struct span take(struct reader *in, bool (*belongs)(char))
{
    struct span taken = {in->text.base + in->at, 0};
    while (belongs(peek(in))) {
        in->at++;
        taken.len++;
    }
    return taken;
}

/* ---- errors ---- */

/* Always false. `offset` is the place; what stands there up to `len` bytes (0: up to the next white space or separator)
 * is quoted after `what`. */
static bool fail(struct reader *in, size_t offset, size_t len, const char *what, const char *expected)
{
    struct span rest = span_skip(in->text, offset);
    struct strbuf out;

    if (len == 0) {
        while (len < rest.len && !is_space(rest.base[len]) && !is_separator(rest.base[len]))
            len++;
        if (len == 0)
            len = rest.len != 0;
    }
    bool cut = len > SHOWN_MAX;
    /* The message is made where nothing overflows: escaping makes at most six bytes of one. */
    strbuf_init_fixed(&out, in->error->message, sizeof(in->error->message));
    strbuf_puts(&out, what);
    strbuf_putc(&out, ' ');
    if (rest.len == 0)
        strbuf_puts(&out, "the end of the text");
    else
        strbuf_json(&out, (struct span){rest.base, cut ? SHOWN_MAX : len});
    if (cut)
        strbuf_puts(&out, "...");
    strbuf_puts(&out, ", expected ");
    strbuf_puts(&out, expected);
    strbuf_cstr(&out);
    in->error->offset = offset;
    return false;
}

/* ---- the grammar ---- */

/* Reads decimal digits; false if there are none or the value is above `max`. */
static bool read_number(struct reader *in, uint64_t max, uint64_t *number)
{
    struct span digits = take(in, is_digit);
    *number = 0;
    for (size_t i = 0; i < digits.len; i++) {
        *number = *number * 10 + (uint64_t)(digits.base[i] - '0');
        if (*number > max)
            return false;
    }
    return digits.len != 0;
}

/* Whether the reader stands at this word (lower case), which is then passed. */
static bool pass_word(struct reader *in, struct span word)
{
    struct span rest = span_skip(in->text, in->at);
    if (rest.len < word.len || !span_ieq((struct span){rest.base, word.len}, word))
        return false;
    in->at += word.len;
    return true;
}

static bool read_amount(struct reader *in, struct limit *limit)
{
    size_t start = in->at;
    if (!is_digit(peek(in)))
        return fail(in, start, 0, "found", "a limit such as 5/minute, 100 per 2 hours or 100000 tokens/minute");
    if (!read_number(in, LIMIT_AMOUNT_MAX, &limit->amount))
        return fail(in, start, 0, "the amount is too large:", "at most 10^15");
    return true;
}

static bool read_unit(struct reader *in, struct limit *limit)
{
    static const struct {
        struct span word;
        enum limit_unit unit;
    } words[] = {
        /* The plurals first: after "token" an "s" would be left over. */
        {SPAN("requests"), LIMIT_REQUESTS},
        {SPAN("request"), LIMIT_REQUESTS},
        {SPAN("tokens"), LIMIT_TOKENS},
        {SPAN("token"), LIMIT_TOKENS},
    };

    limit->unit = LIMIT_REQUESTS;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (pass_word(in, words[i].word)) {
            limit->unit = words[i].unit;
            skip_spaces(in);
            break;
        }
    }
    if (peek(in) == '/') {
        in->at++;
        return true;
    }
    if (pass_word(in, SPAN("per")))
        return true;
    return fail(in, in->at, 0, "found", "\"/\" or \"per\" after the amount");
}

static bool read_granularity(struct reader *in, struct limit *limit)
{
    size_t start = in->at;
    struct span word = take(in, is_letter);
    size_t i;

    for (i = 0; i < GRANULARITIES; i++) {
        struct span singular = span_of(granularities[i].name);
        struct span stem = {word.base,
                            word.len - (word.len == singular.len + 1 && (word.base[singular.len] | 0x20) == 's')};
        if (span_ieq(stem, singular))
            break;
    }
    if (i == GRANULARITIES)
        return fail(in, start, word.len, word.len != 0 ? "no granularity matched for" : "found",
                    "second, minute, hour, day, month or year");
    limit->granularity = (enum limit_granularity)i;
    return true;
}

static bool read_item(struct reader *in, struct limit *limit)
{
    skip_spaces(in);
    if (!read_amount(in, limit))
        return false;
    skip_spaces(in);
    if (!read_unit(in, limit))
        return false;
    skip_spaces(in);

    size_t window = in->at;
    bool fits = !is_digit(peek(in)) || read_number(in, WINDOW_MAX_US / SECOND_US, &limit->multiple);
    if (!fits)
        take(in, is_digit);
    else if (limit->multiple == 0)
        limit->multiple = 1;
    skip_spaces(in);
    if (!read_granularity(in, limit))
        return false;

    uint64_t unit_us = granularities[limit->granularity].seconds * SECOND_US;
    if (!fits || limit->multiple > WINDOW_MAX_US / unit_us)
        return fail(in, window, in->at - window, "the window is too long:", "at most 100 years");
    limit->window_us = limit->multiple * unit_us;
    skip_spaces(in);
    return true;
}

bool limit_parse(struct span text, struct limit *limits, size_t max, size_t *count, struct limit_error *error)
{
    struct reader in = {.text = text.len != 0 ? text : SPAN(""), .error = error};
    size_t found = 0;

    *count = 0;
    error->offset = 0;
    error->message[0] = '\0';
    for (;;) {
        struct limit limit = {0};
        size_t start = in.at;
        if (!read_item(&in, &limit))
            return false;
        if (found == max) {
            char expected[48];
            struct strbuf out;
            strbuf_init_fixed(&out, expected, sizeof(expected));
            strbuf_printf(&out, "at most %zu in one text", max);
            return fail(&in, start, 0, "too many limits, from", strbuf_cstr(&out));
        }
        limits[found++] = limit;
        if (in.at == in.text.len)
            break;
        /* The colon is an accident of the expression that `limits` uses; what relies on it goes on working. */
        bool colon = peek(&in) == ':' && in.at + 1 < in.text.len && is_separator(in.text.base[in.at + 1]);
        if (!colon && !is_separator(peek(&in)))
            return fail(&in, in.at, 0, "found", "\",\", \";\" or \"|\" between limits, or the end");
        in.at += colon ? 2 : 1;
    }
    *count = found;
    return true;
}

/* ---- names ---- */

void limit_print(const struct limit *limit, struct strbuf *out)
{
    strbuf_u64(out, limit->amount);
    strbuf_puts(out, limit->unit == LIMIT_TOKENS ? " tokens per " : " per ");
    strbuf_u64(out, limit->multiple);
    strbuf_putc(out, ' ');
    strbuf_puts(out, granularities[limit->granularity].name);
}

const char *limit_granularity_name(enum limit_granularity granularity)
{
    return granularities[granularity].name;
}

const char *limit_unit_name(enum limit_unit unit)
{
    return unit == LIMIT_TOKENS ? "tokens" : "requests";
}

const char *limit_strategy_name(enum limit_strategy strategy)
{
    return strategies[strategy];
}

bool limit_strategy_parse(struct span name, enum limit_strategy *strategy)
{
    for (size_t i = 0; i < sizeof(strategies) / sizeof(strategies[0]); i++) {
        struct span known = span_of(strategies[i]);
        size_t at = 0;
        if (name.len != known.len)
            continue;
        while (at < known.len && (name.base[at] == known.base[at] || (known.base[at] == '_' && name.base[at] == '-')))
            at++;
        if (at == known.len) {
            *strategy = (enum limit_strategy)i;
            return true;
        }
    }
    return false;
}
