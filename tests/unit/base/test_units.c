#include "base/units.h"
#include "run_suite.h"

START_TEST(sizes_are_printed_as_they_are_written)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0"},
                 {1, "1"},
                 {1000, "1000"},
                 {1024, "1KiB"},
                 {1025, "1025"},
                 {65536, "64KiB"},
                 {UINT64_C(256) << 20, "256MiB"},
                 {UINT64_C(1536) << 20, "1536MiB"},
                 {UINT64_C(1) << 40, "1024GiB"},
                 {INT64_MAX, "9223372036854775807"}};
    char text[UNITS_TEXT_MAX];
    uint64_t back;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_str_eq(units_print_size(cases[i].bytes, text), cases[i].text);
        ck_assert(units_size(span_of(text), &back) && back == cases[i].bytes);
    }
}
END_TEST

START_TEST(durations_are_printed_as_they_are_written)
{
    static const char *const texts[] = {"0ms", "1ms", "1500ms", "15s", "90s", "10m", "1h", "25h", "2d", "3650d"};
    char text[UNITS_TEXT_MAX];
    uint64_t us;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        ck_assert(units_duration(span_of(texts[i]), &us));
        ck_assert_str_eq(units_print_duration(us, text), texts[i]);
    }
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("units");
    tcase_add_test(tcase, sizes_are_printed_as_they_are_written);
    tcase_add_test(tcase, durations_are_printed_as_they_are_written);
    return run_suite("units", tcase);
}
