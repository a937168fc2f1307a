#include "base/strbuf.h"
#include "run_suite.h"
#include <stdio.h>
#include <stdlib.h>

#define REPLACED "\xEF\xBF\xBD"

static struct strbuf buf;

static void setup(void)
{
    strbuf_init(&buf, 1 << 20);
}

static void teardown(void)
{
    strbuf_dispose(&buf);
}

START_TEST(appends_and_terminates)
{
    ck_assert_ptr_null(buf.base);
    ck_assert_str_eq(strbuf_cstr(&buf), "");
    strbuf_puts(&buf, "ab");
    strbuf_putc(&buf, 'c');
    strbuf_add(&buf, SPAN("d\0e"));
    strbuf_add(&buf, SPAN_NONE);
    ck_assert_uint_eq(buf.len, 6);
    ck_assert_mem_eq(buf.base, "abcd\0e", 7);
    ck_assert(span_eq(strbuf_span(&buf), SPAN("abcd\0e")));
    strbuf_reset(&buf);
    strbuf_printf(&buf, "%s=%d", "x", -3);
    ck_assert_str_eq(buf.base, "x=-3");
    strbuf_dispose(&buf);
    strbuf_puts(&buf, "again");
    ck_assert_str_eq(strbuf_cstr(&buf), "again");
}
END_TEST

START_TEST(numbers)
{
    strbuf_u64(&buf, 0);
    strbuf_putc(&buf, ' ');
    strbuf_u64(&buf, UINT64_MAX);
    strbuf_putc(&buf, ' ');
    strbuf_i64(&buf, INT64_MIN);
    strbuf_putc(&buf, ' ');
    strbuf_i64(&buf, -1);
    strbuf_putc(&buf, ' ');
    strbuf_i64(&buf, INT64_MAX);
    ck_assert_str_eq(buf.base, "0 18446744073709551615 -9223372036854775808 -1 9223372036854775807");
    char text[24];
    for (uint64_t power = 1, i = 0; i < 20; power *= 10, i++)
        for (uint64_t value = power - 1; value != power + 2; value++) {
            strbuf_reset(&buf);
            strbuf_u64(&buf, value);
            snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
            ck_assert_str_eq(buf.base, text);
        }
}
END_TEST

START_TEST(grows_to_its_maximum_and_no_further)
{
    for (size_t max = 0; max < 300; max += 7) {
        struct strbuf small;
        strbuf_init(&small, max);
        for (size_t i = 0; i < max; i++)
            strbuf_putc(&small, (char)('a' + i % 26));
        ck_assert(!small.overflow);
        ck_assert_uint_eq(small.len, max);
        strbuf_putc(&small, '!');
        ck_assert(small.overflow);
        strbuf_printf(&small, "%s", "more");
        strbuf_json(&small, SPAN("more"));
        ck_assert_uint_eq(small.len, max);
        ck_assert_uint_eq(strlen(strbuf_cstr(&small)), max);
        strbuf_reset(&small);
        ck_assert(!small.overflow);
        strbuf_printf(&small, "%0400d", 7);
        ck_assert(small.overflow);
        ck_assert_uint_eq(small.len, max);
        ck_assert_uint_eq(strlen(strbuf_cstr(&small)), max);
        strbuf_dispose(&small);
    }
}
END_TEST

START_TEST(printf_grows)
{
    for (size_t n = 1; n < 2000; n += 13) {
        strbuf_reset(&buf);
        strbuf_puts(&buf, "<");
        strbuf_printf(&buf, "%0*d>", (int)n, 5);
        ck_assert_uint_eq(buf.len, n + 2);
        ck_assert_uint_eq(strlen(buf.base), n + 2);
        ck_assert_str_eq(buf.base + n, "5>");
        ck_assert(!buf.overflow);
    }
}
END_TEST

START_TEST(fixed_memory_is_never_left)
{
    char memory[10] = "zzzzzzzzz";
    struct strbuf fixed;
    strbuf_init_fixed(&fixed, memory, 8);
    strbuf_puts(&fixed, "1234567");
    ck_assert(!fixed.overflow);
    strbuf_puts(&fixed, "89");
    ck_assert(fixed.overflow);
    ck_assert_str_eq(strbuf_cstr(&fixed), "1234567");
    ck_assert_int_eq(memory[8], 'z');
    strbuf_reset(&fixed);
    strbuf_printf(&fixed, "%s", "abcdefghijk");
    ck_assert_str_eq(memory, "abcdefg");
    ck_assert(fixed.overflow);
    strbuf_dispose(&fixed);
    strbuf_json(&fixed, SPAN("x\n"));
    ck_assert_str_eq(memory, "\"x\\n\"");
    ck_assert_int_eq(memory[8], 'z');
    strbuf_init_fixed(&fixed, memory, 1);
    strbuf_putc(&fixed, 'x');
    ck_assert(fixed.overflow);
    ck_assert_str_eq(strbuf_cstr(&fixed), "");
}
END_TEST

static const struct {
    struct span in;
    const char *out; /* without the quotes */
} json_cases[] = {
    {{"", 0}, ""},
    {{"plain text, long enough for words", 33}, "plain text, long enough for words"},
    {{"a\"b\\c/d", 7}, "a\\\"b\\\\c/d"},
    {{"\b\t\n\f\r\v", 6}, "\\b\\t\\n\\f\\r\\u000b"},
    {{"\0\x1f\x7f ", 4}, "\\u0000\\u001f\\u007f "},
    {{"gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80", 15}, "gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80"},
    {{"\xC2\x80\xC2\x9B\xC2\xA0", 6}, "\\u0080\\u009b\xC2\xA0"},
    {{"\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF", 12}, "\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF"},
    {{"\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", 8}, "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"},
    {{"\xC0\x80", 2}, REPLACED REPLACED},                           /* overlong */
    {{"\xC1\xBF", 2}, REPLACED REPLACED},                           /* overlong */
    {{"\xE0\x9F\xBF", 3}, REPLACED REPLACED REPLACED},              /* overlong */
    {{"\xF0\x8F\xBF\xBF", 4}, REPLACED REPLACED REPLACED REPLACED}, /* overlong */
    {{"\xED\xA0\x80", 3}, REPLACED REPLACED REPLACED},              /* a surrogate */
    {{"\xED\xBF\xBF", 3}, REPLACED REPLACED REPLACED},              /* a surrogate */
    {{"\xF4\x90\x80\x80", 4}, REPLACED REPLACED REPLACED REPLACED}, /* above U+10FFFF */
    {{"\xF5\xFF", 2}, REPLACED REPLACED},                           /* never a lead byte */
    {{"a\x80z", 3}, "a" REPLACED "z"},                              /* a tail alone */
    {{"\xE2\x82", 2}, REPLACED REPLACED},                           /* cut short at the end */
    {{"\xE2\x82x", 3}, REPLACED REPLACED "x"},                      /* cut short by a letter */
    {{"\xF0\x9F\x98", 3}, REPLACED REPLACED REPLACED},              /* cut short at the end */
    {{"\xC3\xC3\xBC", 3}, REPLACED "\xC3\xBC"},                     /* cut short by a lead */
};

START_TEST(lent_memory_is_used_until_it_is_too_small)
{
    for (size_t cap = 0; cap < 20; cap++) {
        char *memory = malloc(cap);
        struct strbuf own;
        strbuf_init_lent(&own, 12, memory, cap);
        strbuf_add(&own, SPAN("abc"));
        ck_assert(cap <= 3 || own.base == memory);
        strbuf_add(&own, SPAN("defgh"));
        ck_assert(cap <= 8 || own.base == memory);
        ck_assert_str_eq(strbuf_cstr(&own), "abcdefgh");
        ck_assert(!own.overflow);
        strbuf_add(&own, SPAN("ijklmnop"));
        ck_assert_str_eq(strbuf_cstr(&own), "abcdefghijkl");
        ck_assert(own.overflow);
        strbuf_dispose(&own);
        strbuf_puts(&own, "again");
        ck_assert(own.base != memory);
        ck_assert_str_eq(strbuf_cstr(&own), "again");
        strbuf_dispose(&own);
        free(memory);
    }
}
END_TEST

START_TEST(claims_what_there_is_room_for)
{
    char memory[8];
    struct strbuf own;
    strbuf_init_fixed(&own, memory, sizeof(memory));
    char *at = strbuf_claim(&own, 5);
    ck_assert_ptr_eq(at, memory);
    memcpy(at, "12345", 5);
    ck_assert_ptr_null(strbuf_claim(&own, 3));
    ck_assert_uint_eq(own.len, 5);
    ck_assert(!own.overflow);
    memcpy(strbuf_claim(&own, 2), "67", 2);
    ck_assert_str_eq(strbuf_cstr(&own), "1234567");
    strbuf_init(&own, 10);
    ck_assert_ptr_null(strbuf_claim(&own, 1));
}
END_TEST

START_TEST(json_escapes)
{
    struct span in = json_cases[_i].in;
    /* Each position in a word, with plain text on both sides; copied to the heap so that reading too far is found. */
    for (size_t before = 0; before < 17; before++) {
        for (size_t after = 0; after < 17; after++) {
            size_t len = before + in.len + after;
            char *text = malloc(len + 1), expected[256];
            memset(text, '.', before);
            memcpy(text + before, in.base, in.len);
            memset(text + before + in.len, '.', after);
            char *exact = malloc(len != 0 ? len : 1);
            memcpy(exact, text, len);
            strbuf_reset(&buf);
            strbuf_json(&buf, (struct span){exact, len});
            snprintf(expected, sizeof(expected), "\"%.*s%s%.*s\"", (int)before, "................", json_cases[_i].out,
                     (int)after, "................");
            ck_assert_str_eq(strbuf_cstr(&buf), expected);
            free(exact);
            free(text);
        }
    }
}
END_TEST

/* All bytes differ, so that a piece in the wrong place shows; what is written into, and read, is just as long. */
START_TEST(json_of_each_length)
{
    for (size_t len = 1; len <= 80; len++) {
        char *in = malloc(len), *memory = malloc(len + 3), expected[96];
        struct strbuf out;
        for (size_t i = 0; i < len; i++)
            in[i] = (char)('#' + i % ('[' - '#'));
        snprintf(expected, sizeof(expected), "\"%.*s\"", (int)len, in);
        strbuf_init_fixed(&out, memory, len + 3);
        strbuf_json(&out, (struct span){in, len});
        ck_assert_str_eq(out.base, expected);
        ck_assert(!out.overflow);
        strbuf_init_fixed(&out, memory, len + 2); /* the closing quote has no place */
        strbuf_json(&out, (struct span){in, len});
        expected[len + 1] = '\0';
        ck_assert_str_eq(out.base, expected);
        ck_assert(out.overflow);
        for (size_t i = 0; i < len; i++) {
            char plain = in[i];
            in[i] = '\x7f';
            snprintf(expected, sizeof(expected), "\"%.*s\\u007f%.*s\"", (int)i, in, (int)(len - i - 1), in + i + 1);
            strbuf_reset(&buf);
            strbuf_json(&buf, (struct span){in, len});
            ck_assert_str_eq(strbuf_cstr(&buf), expected);
            in[i] = plain;
        }
        free(memory);
        free(in);
    }
}
END_TEST

START_TEST(json_of_nothing)
{
    struct strbuf out;
    strbuf_init(&out, 100);
    strbuf_json_or_null(&out, NULL);
    strbuf_json_or_null(&out, "");
    strbuf_json_or_null(&out, "null");
    ck_assert_str_eq(strbuf_cstr(&out), "null\"\"\"null\"");
    strbuf_dispose(&out);
}
END_TEST

START_TEST(json_single_bytes)
{
    for (int c = 0; c < 256; c++) {
        char in[9] = "aaaaaaaa", expected[32], byte = (char)c;
        in[c % 8] = byte;
        static const char short_escapes[] = "\b\t\n\f\r\"\\";
        char escape[8] = {byte, 0};
        if (c >= 0x80)
            strcpy(escape, REPLACED);
        else if (c != 0 && strchr(short_escapes, c) != NULL)
            snprintf(escape, sizeof(escape), "\\%c", "btnfr\"\\"[strchr(short_escapes, c) - short_escapes]);
        else if (c < 0x20 || c == 0x7F)
            snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)c);
        snprintf(expected, sizeof(expected), "\"%.*s%s%.*s\"", c % 8, "aaaaaaaa", escape, 7 - c % 8, "aaaaaaaa");
        strbuf_reset(&buf);
        strbuf_json(&buf, (struct span){in, 8});
        ck_assert_str_eq(buf.base, expected);
    }
}
END_TEST

/* Every number up to 21 bits, written by the formula of RFC 3629 §3: exactly the code points are taken. */
START_TEST(utf8_accepts_exactly_the_code_points)
{
    size_t valid = 0;
    for (uint32_t code = 0x80; code < 0x200000; code++) {
        unsigned char at[4];
        size_t len = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        for (size_t i = len - 1, rest = code; i > 0; i--, rest >>= 6)
            at[i] = (unsigned char)(0x80 | (rest & 0x3F));
        at[0] = (unsigned char)((0xF00 >> len) | (code >> (6 * (len - 1))));
        bool is_valid = code < 0x110000 && (code < 0xD800 || code > 0xDFFF);
        size_t found = strbuf_utf8_len((struct span){(char *)at, len});
        /* Check's own assertions would take minutes here. */
        if (found != (is_valid ? len : 0) || strbuf_utf8_len((struct span){(char *)at, len - 1}) != 0)
            ck_abort_msg("U+%04X: %zu", code, found);
        valid += is_valid;
    }
    ck_assert_uint_eq(valid, 0x110000 - 0x80 - 0x800);
    ck_assert_uint_eq(strbuf_utf8_len(SPAN_NONE), 0);
    ck_assert_uint_eq(strbuf_utf8_len(SPAN("x")), 1);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("strbuf");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, appends_and_terminates);
    tcase_add_test(tc, numbers);
    tcase_add_test(tc, grows_to_its_maximum_and_no_further);
    tcase_add_test(tc, printf_grows);
    tcase_add_test(tc, fixed_memory_is_never_left);
    tcase_add_test(tc, lent_memory_is_used_until_it_is_too_small);
    tcase_add_test(tc, claims_what_there_is_room_for);
    tcase_add_test(tc, json_of_each_length);
    tcase_add_test(tc, json_of_nothing);
    tcase_add_loop_test(tc, json_escapes, 0, (int)(sizeof(json_cases) / sizeof(json_cases[0])));
    tcase_add_test(tc, json_single_bytes);
    tcase_add_test(tc, utf8_accepts_exactly_the_code_points);
    return run_suite("strbuf", tc);
}
