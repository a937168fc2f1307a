#include "base/units.h"
#include <stdio.h>

#define DURATION_MAX_US (UINT64_C(3650) * 24 * 3600 * 1000000)
#define SIZE_MAX_BYTES ((uint64_t)INT64_MAX)

struct unit {
    struct span name;
    uint64_t factor;
};

/* Reads the digits at the start of `text` and moves it behind them. False without digits, and above `max`. */
static bool take_number(struct span *text, uint64_t max, uint64_t *number)
{
    size_t i = 0;
    uint64_t value = 0;

    for (; i < text->len && text->base[i] >= '0' && text->base[i] <= '9'; i++) {
        uint64_t digit = (uint64_t)(text->base[i] - '0');
        if (value > (max - digit) / 10 || digit > max)
            return false;
        value = value * 10 + digit;
    }
    if (i == 0)
        return false;
    *text = span_skip(*text, i);
    *number = value;
    return true;
}

static bool parse(struct span text, const struct unit *units, size_t count, uint64_t max, uint64_t *result)
{
    uint64_t number;

    if (!take_number(&text, max, &number))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!span_eq(text, units[i].name))
            continue;
        if (number > max / units[i].factor)
            return false;
        *result = number * units[i].factor;
        return true;
    }
    return false;
}

/* From the smallest up. */
static const struct unit durations[] = {
    {SPAN("ms"), 1000},
    {SPAN("s"), 1000000},
    {SPAN("m"), UINT64_C(60) * 1000000},
    {SPAN("h"), UINT64_C(3600) * 1000000},
    {SPAN("d"), UINT64_C(24) * 3600 * 1000000},
};

/* The binary ones first, from the smallest up. */
#define BINARY_SIZES 4
static const struct unit sizes[] = {
    {SPAN(""), 1},  {SPAN("KiB"), 1 << 10}, {SPAN("MiB"), 1 << 20}, {SPAN("GiB"), 1 << 30},
    {SPAN("B"), 1}, {SPAN("KB"), 1000},     {SPAN("MB"), 1000000},  {SPAN("GB"), 1000000000},
};

bool units_duration(struct span text, uint64_t *us)
{
    return parse(text, durations, sizeof(durations) / sizeof(durations[0]), DURATION_MAX_US, us);
}

bool units_size(struct span text, uint64_t *bytes)
{
    return parse(text, sizes, sizeof(sizes) / sizeof(sizes[0]), SIZE_MAX_BYTES, bytes);
}

static const char *print(uint64_t value, const struct unit *units, size_t count, char text[UNITS_TEXT_MAX])
{
    const struct unit *unit = units;
    for (size_t i = 1; i < count && value != 0; i++)
        if (value % units[i].factor == 0)
            unit = &units[i];
    snprintf(text, UNITS_TEXT_MAX, "%llu%.*s", (unsigned long long)(value / unit->factor), (int)unit->name.len,
             unit->name.base);
    return text;
}

const char *units_print_duration(uint64_t us, char text[UNITS_TEXT_MAX])
{
    return print(us, durations, sizeof(durations) / sizeof(durations[0]), text);
}

const char *units_print_size(uint64_t bytes, char text[UNITS_TEXT_MAX])
{
    return print(bytes, sizes, BINARY_SIZES, text);
}

bool units_number(struct span text, uint64_t max, uint64_t *number)
{
    static const struct unit one = {SPAN(""), 1};

    return parse(text, &one, 1, max, number);
}
