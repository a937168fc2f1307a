/* What people write in one line: limits, durations, sizes, numbers, Redis URLs. What was read and is printed again must
 * be read as the same. Input: the text. */
#include "base/redis_url.h"
#include "base/units.h"
#include "fuzz.h"
#include "ratelimit/limit.h"

static void check_limits(struct span text)
{
    struct limit limits[LIMIT_LIST_MAX], again[LIMIT_LIST_MAX];
    struct limit_error error;
    struct strbuf out;
    size_t count, count_again;
    if (!limit_parse(text, limits, LIMIT_LIST_MAX, &count, &error)) {
        MUST(count == 0 && error.offset <= text.len && error.message[0] != '\0');
        MUST(strlen(error.message) < LIMIT_ERROR_MAX && strchr(error.message, '\n') == NULL);
        return;
    }
    MUST(count >= 1 && count <= LIMIT_LIST_MAX);
    strbuf_init(&out, 4096);
    for (size_t i = 0; i < count; i++) {
        MUST(limits[i].amount <= LIMIT_AMOUNT_MAX && limits[i].multiple >= 1 && limits[i].window_us != 0);
        strbuf_puts(&out, i != 0 ? "; " : "");
        limit_print(&limits[i], &out);
    }
    MUST(limit_parse(strbuf_span(&out), again, LIMIT_LIST_MAX, &count_again, &error) && count_again == count);
    for (size_t i = 0; i < count; i++)
        MUST(limits[i].amount == again[i].amount && limits[i].window_us == again[i].window_us &&
             limits[i].multiple == again[i].multiple && limits[i].granularity == again[i].granularity &&
             limits[i].unit == again[i].unit);
    strbuf_dispose(&out);
}

static void check_units(struct span text)
{
    char digits[32];
    uint64_t us, bytes, number, again;
    if (units_duration(text, &us))
        MUST(us <= UINT64_C(3660) * 86400 * 1000000);
    if (units_size(text, &bytes))
        MUST(bytes < UINT64_C(1) << 63);
    if (units_number(text, UINT64_MAX, &number)) {
        snprintf(digits, sizeof(digits), "%llu", (unsigned long long)number);
        MUST(units_number(span_of(digits), number, &again) && again == number);
        MUST(number == 0 || !units_number(text, number - 1, &again));
    }
}

static void check_strategy(struct span text)
{
    enum limit_strategy strategy, again;
    if (limit_strategy_parse(text, &strategy))
        MUST(limit_strategy_parse(span_of(limit_strategy_name(strategy)), &again) && again == strategy);
}

static void check_url(struct span text)
{
    struct redis_url url, again;
    char error[512] = "", print[512];
    if (!redis_url_parse(text, &url, error, sizeof(error))) {
        MUST(error[0] != '\0' && url.host_count == 0 && url.unix_path == NULL && url.password == NULL);
        return;
    }
    MUST((url.unix_path != NULL) == (url.host_count == 0) && url.host_count <= REDIS_HOSTS_MAX);
    for (size_t i = 0; i < url.host_count; i++)
        MUST(url.hosts[i].name[0] != '\0' && url.hosts[i].port != 0);
    redis_url_print(&url, print, sizeof(print));
    MUST(strlen(print) < sizeof(print));
    MUST(redis_url_parse(text, &again, error, sizeof(error)) && redis_url_equal(&url, &again));
    redis_url_dispose(&url);
    redis_url_dispose(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *bytes = fuzz_exact((struct span){(const char *)data, size});
    struct span text = {bytes, size};
    check_limits(text);
    check_units(text);
    check_strategy(text);
    check_url(text);
    free(bytes);
    return 0;
}
