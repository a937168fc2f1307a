#include "base/json_scan.h"
#include "base/strbuf.h"
#include "run_suite.h"
#include <stdlib.h>

/* Scans a copy of exactly that size, so that AddressSanitizer sees a read outside of it. */
static bool valid(struct span text, struct json_error *error)
{
    char *exact = malloc(text.len != 0 ? text.len : 1);
    struct json_value root;

    if (text.len != 0)
        memcpy(exact, text.base, text.len);
    bool result = json_scan((struct span){exact, text.len}, NULL, 0, NULL, &root, error);
    ck_assert(result == (root.type != JSON_MISSING));
    free(exact);
    return result;
}

START_TEST(good_texts)
{
    static const char *const texts[] = {
        "[]",
        "{}",
        " [ ] ",
        "\t\r\n{\t}\r\n",
        "[[]   ]",
        "[\"\"]",
        "[\"a\"]",
        "[null, 1, \"1\", {}]",
        "[null]",
        "[1\n]",
        " [1]",
        "[1,null,null,null,2]",
        "true",
        "false",
        "null",
        "\"\"",
        "\"asd\"",
        "42",
        "-0.1",
        "[123e65]",
        "[0e+1]",
        "[0e1]",
        "[-0.00000000000000000000000000001]",
        "[-0]",
        "[-123]",
        "[1E22]",
        "[1E-2]",
        "[1E+2]",
        "[123.456e78]",
        "[123.456789]",
        "[1e99999]",
        "[123456789012345678901234567890123456789012345678901234567890]",
        "{\"asd\":\"sdf\", \"dfg\":\"fgh\"}",
        "{\"a\":\"b\",\"a\":\"c\"}",
        "{\"\":0}",
        "{\"foo\\u0000bar\": 42}",
        "{\"a\":[]}",
        "{\n\"a\": \"b\"\n}",
        "{\"a\" :1 , \"b\": 2}",
        "{\"a\":{\"b\":{\"c\":[{}]}}}",
        "[\"\\u0060\\u012a\\u12AB\"]",
        "[\"\\uD801\\udc37\"]",
        "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]",
        "[\"\\\\u0000\"]",
        "[\"\\\"\"]",
        "[\"a/*b*/c\"]",
        "[\"\\\\a\"]",
        "[\"\\uDBFF\\uDFFF\"]",
        "[\"\\uFFFF\"]",
        "[\"\\u0000\"]",
        "[\"\xEF\xBF\xBF\"]",
        "[\"\x7F\"]",
        "[\"\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\"]",
        "[\"\xE2\x80\xA8 \xE2\x80\xA9\"]",
        "[\"new\xC2\x85line\"]",
        "[\"\\uDADA\"]",
        "[\"\\uDd1e\\uD834\"]",
        "[\"\\uD888\\u1234\"]",
        "{\"key\xF0\x9F\x98\x80\":\"0123456789abcdef0123456789abcdef\\n0123456789abcdef\"}"};
    struct json_error error;

    for (size_t i = 0; i != sizeof(texts) / sizeof(texts[0]); ++i)
        ck_assert_msg(valid(span_of(texts[i]), &error), "%s: %s at %zu", texts[i], error.message, error.offset);
}
END_TEST

/* clang-format off */
#define TEXT(text) {(text), sizeof(text) - 1}
/* clang-format on */

static const char value_expected[] = "Expecting value";
static const char name_expected[] = "Expecting property name enclosed in double quotes";
static const char colon_expected[] = "Expecting ':' delimiter";
static const char comma_expected[] = "Expecting ',' delimiter";
static const char extra_data[] = "Extra data";
static const char unterminated[] = "Unterminated string starting at";
static const char control_character[] = "Invalid control character at";
static const char bad_escape[] = "Invalid \\escape";
static const char bad_hex[] = "Invalid \\uXXXX escape";
static const char bad_utf8[] = "Invalid UTF-8 at";

/* Messages and offsets as Python 3.11's json gives them, but for what it accepts. */
static const struct {
    struct span text;
    size_t offset;
    const char *message;
} refused[] = {
    {TEXT(""), 0, value_expected},
    {TEXT("  "), 2, value_expected},
    {TEXT("\0"), 0, value_expected},
    {TEXT("\xEF\xBB\xBF{}"), 0, value_expected},
    {TEXT("\xFF\xFE[\0]\0"), 0, value_expected},
    {TEXT("[\f]"), 1, value_expected},
    {TEXT("\xC2\xA0[]"), 0, value_expected},
    {TEXT("NaN"), 0, value_expected},
    {TEXT("[Infinity]"), 1, value_expected},
    {TEXT("[-Infinity]"), 1, value_expected},
    {TEXT("tru"), 0, value_expected},
    {TEXT("True"), 0, value_expected},
    {TEXT("[fals]"), 1, value_expected},
    {TEXT("[nul"), 1, value_expected},
    {TEXT("'a'"), 0, value_expected},
    {TEXT("nullx"), 4, extra_data},
    {TEXT("[]]"), 2, extra_data},
    {TEXT("{}}"), 2, extra_data},
    {TEXT("1 2"), 2, extra_data},
    {TEXT("{} /* x */"), 3, extra_data},
    {TEXT("\"a\"\0"), 3, extra_data},
    /* arrays */
    {TEXT("["), 1, value_expected},
    {TEXT("[1"), 2, comma_expected},
    {TEXT("[1,"), 3, value_expected},
    {TEXT("[1,]"), 3, value_expected},
    {TEXT("[,1]"), 1, value_expected},
    {TEXT("[1,,2]"), 3, value_expected},
    {TEXT("[1 true]"), 3, comma_expected},
    {TEXT("[1}"), 2, comma_expected},
    {TEXT("[\"a\":1]"), 4, comma_expected},
    {TEXT("[\"x\""), 4, comma_expected},
    {TEXT("[[1]"), 4, comma_expected},
    {TEXT("]"), 0, value_expected},
    /* objects */
    {TEXT("{"), 1, name_expected},
    {TEXT("{a:1}"), 1, name_expected},
    {TEXT("{1:1}"), 1, name_expected},
    {TEXT("{'a':1}"), 1, name_expected},
    {TEXT("{,}"), 1, name_expected},
    {TEXT("{\"a\":1,}"), 7, name_expected},
    {TEXT("{\"a\":1,,\"b\":2}"), 7, name_expected},
    {TEXT("{\"a\""), 4, colon_expected},
    {TEXT("{\"a\" 1}"), 5, colon_expected},
    {TEXT("{\"a\",1}"), 4, colon_expected},
    {TEXT("{\"a\":"), 5, value_expected},
    {TEXT("{\"a\":}"), 5, value_expected},
    {TEXT("{\"a\"::1}"), 5, value_expected},
    {TEXT("{\"a\":1 \"b\"}"), 7, comma_expected},
    {TEXT("{\"a\":1"), 6, comma_expected},
    {TEXT("{\"a\":[1}"), 7, comma_expected},
    {TEXT("{\"a\":1]"), 6, comma_expected},
    {TEXT("{\"a\":{\"b\":1 2}}"), 12, comma_expected},
    {TEXT("[{\"a\":1,}]"), 8, name_expected},
    /* numbers */
    {TEXT("-"), 0, value_expected},
    {TEXT("[+1]"), 1, value_expected},
    {TEXT("[.5]"), 1, value_expected},
    {TEXT("[-a]"), 1, value_expected},
    {TEXT("01"), 1, extra_data},
    {TEXT("[-01]"), 3, comma_expected},
    {TEXT("1."), 1, extra_data},
    {TEXT("[1.e1]"), 2, comma_expected},
    {TEXT("1e"), 1, extra_data},
    {TEXT("1e+"), 1, extra_data},
    {TEXT("[0x1]"), 2, comma_expected},
    {TEXT("[1_000]"), 2, comma_expected},
    {TEXT("[1.2.3]"), 4, comma_expected},
    {TEXT("[1e5.5]"), 4, comma_expected},
    {TEXT("[\xEF\xBC\x91]"), 1, value_expected},
    /* strings */
    {TEXT("\""), 0, unterminated},
    {TEXT("[\"a"), 1, unterminated},
    {TEXT("[\"a\\"), 1, unterminated},
    {TEXT("[\"a\\\"]"), 1, unterminated},
    {TEXT("[\"a\nb\"]"), 3, control_character},
    {TEXT("[\"\x1F\"]"), 2, control_character},
    {TEXT("[\"\0\"]"), 2, control_character},
    {TEXT("[\"\t\"]"), 2, control_character},
    {TEXT("[\"0123456789abcdef0123456789\t\"]"), 28, control_character},
    {TEXT("[\"\\x00\"]"), 2, bad_escape},
    {TEXT("[\"a\\'\"]"), 3, bad_escape},
    {TEXT("[\"\\\0\"]"), 2, bad_escape},
    {TEXT("[\"\\\xC3\xA9\"]"), 2, bad_escape},
    {TEXT("[\"\\U0041\"]"), 2, bad_escape},
    {TEXT("[\"\\u00A\"]"), 3, bad_hex},
    {TEXT("[\"\\u00G0\"]"), 3, bad_hex},
    {TEXT("[\"\\u"), 3, bad_hex},
    {TEXT("[\"\\u1234"), 3, bad_hex},
    {TEXT("[\"\\uD834\\u\"]"), 9, bad_hex},
    {TEXT("[\"\\u+123\"]"), 3, bad_hex},
    /* UTF-8 */
    {TEXT("[\"\x80\"]"), 2, bad_utf8},
    {TEXT("[\"\xC3\"]"), 2, bad_utf8},
    {TEXT("[\"\xC0\x80\"]"), 2, bad_utf8},
    {TEXT("[\"\xC1\xBF\"]"), 2, bad_utf8},
    {TEXT("[\"\xE0\x9F\xBF\"]"), 2, bad_utf8},
    {TEXT("[\"\xED\xA0\x80\"]"), 2, bad_utf8},
    {TEXT("[\"\xF0\x8F\xBF\xBF\"]"), 2, bad_utf8},
    {TEXT("[\"\xF4\x90\x80\x80\"]"), 2, bad_utf8},
    {TEXT("[\"\xF5\x80\x80\x80\"]"), 2, bad_utf8},
    {TEXT("[\"\xFF\"]"), 2, bad_utf8},
    {TEXT("[\"\xC3\xA9\xE2\x82\"]"), 4, bad_utf8},
    {TEXT("\"\xE2\x82"), 1, bad_utf8},
    {TEXT("{\"\xE9\":0}"), 2, bad_utf8},
};

START_TEST(bad_texts)
{
    struct json_error error;

    for (size_t i = 0; i != sizeof(refused) / sizeof(refused[0]); ++i) {
        ck_assert_msg(!valid(refused[i].text, &error), "accepted: %s", refused[i].text.base);
        ck_assert_msg(strcmp(error.message, refused[i].message) == 0 && error.offset == refused[i].offset,
                      "%s: %s at %zu, expected %s at %zu", refused[i].text.base, error.message, error.offset,
                      refused[i].message, refused[i].offset);
    }
}
END_TEST

/* Every prefix of a valid text is invalid, every suffix does no harm. */
START_TEST(truncated_texts)
{
    struct span text =
        SPAN("{\"a\":[1.5e-3,true,null,{\"b\\n\":\"\\u00e9\\ud83d\\ude00 \xC3\xA9\xE6\xBC\xA2\xF0\x9F\x98\x80"
             " and some more text\"}],\"c\":-0}");
    struct json_error error;

    ck_assert(valid(text, &error));
    for (size_t i = 0; i != text.len; ++i) {
        ck_assert(!valid((struct span){text.base, i}, &error));
        ck_assert_uint_le(error.offset, i);
        valid((struct span){text.base + i, text.len - i}, &error);
    }
}
END_TEST

/* Each sequence of up to 4 bytes from a set of telling ones, at each place relative to the 16-byte steps: as
 * strbuf_utf8_len, which decides them one by one, says. */
START_TEST(utf8_at_every_place)
{
    static const unsigned char bytes[] = {'a',  0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xDF, 0xE0,
                                          0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF};
    const size_t kinds = sizeof(bytes);
    char text[64];
    struct json_error error;

    for (size_t n = 0; n != kinds * kinds * kinds * kinds; ++n) {
        const char sequence[4] = {(char)bytes[n % kinds], (char)bytes[n / kinds % kinds],
                                  (char)bytes[n / kinds / kinds % kinds], (char)bytes[n / kinds / kinds / kinds]};
        size_t bad = 0, len;
        while (bad != 4 && (len = strbuf_utf8_len((struct span){sequence + bad, 4 - bad})) != 0)
            bad += len;
        size_t at = 1 + n % 31;
        memset(text, 'x', sizeof(text));
        text[0] = text[at + 4 + n % 19] = '"';
        memcpy(text + at, sequence, 4);
        struct span whole = {text, at + 5 + n % 19};
        ck_assert(json_scan(whole, NULL, 0, NULL, NULL, &error) == (bad == 4));
        if (bad != 4)
            ck_assert_msg(error.offset == at + bad && error.message[8] == 'U', "%s at %zu", error.message,
                          error.offset);
    }
}
END_TEST

START_TEST(nesting)
{
    char text[4 * JSON_MAX_DEPTH];
    struct json_error error;

    for (size_t depth = JSON_MAX_DEPTH - 1; depth <= JSON_MAX_DEPTH + 1; ++depth) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        ck_assert(valid((struct span){text, 2 * depth}, &error) == (depth <= JSON_MAX_DEPTH));
        memcpy(text, "{\"a\":", 5);
        memset(text + 5, '[', depth - 1);
        memset(text + 5 + depth - 1, ']', depth - 1);
        text[5 + 2 * (depth - 1)] = '}';
        ck_assert(valid((struct span){text, 6 + 2 * (depth - 1)}, &error) == (depth <= JSON_MAX_DEPTH));
    }
    ck_assert_str_eq(error.message, "Too deeply nested");
    ck_assert_uint_eq(error.offset, 5 + JSON_MAX_DEPTH - 1);

    /* Arrays and objects in turn: each closer must be the right one, at each depth. */
    size_t len = 0;
    for (int i = 0; i != 100; ++i, len += 6)
        memcpy(text + len, "[{\"k\":", 6);
    text[len++] = '1';
    for (int i = 0; i != 100; ++i, len += 2)
        memcpy(text + len, "}]", 2);
    ck_assert(valid((struct span){text, len}, &error));
    for (size_t i = 601; i != len; ++i) {
        text[i] ^= ']' ^ '}';
        ck_assert(!valid((struct span){text, len}, &error));
        ck_assert_uint_eq(error.offset, i);
        text[i] ^= ']' ^ '}';
    }
}
END_TEST

static void expect_raw(const struct json_value *value, enum json_type type, const char *raw, uint32_t count)
{
    ck_assert_int_eq(value->type, type);
    ck_assert_uint_eq(value->raw.len, strlen(raw));
    ck_assert_mem_eq(value->raw.base, raw, strlen(raw));
    ck_assert_uint_eq(value->count, count);
}

START_TEST(members)
{
    const struct span names[] = {SPAN("model"), SPAN("stream"), SPAN("messages"),
                                 SPAN("n"),     SPAN("none"),   SPAN("\xC3\xA9")};
    struct json_value values[6], root;
    struct json_error error;
    struct span text =
        SPAN(" {\"stream\" : false, \"mod\\u0065l\": \"a\\n\", \"x\":{\"model\":1}, \"n\":17,\n\"messages\": [ "
             "{\"a\":[1,2]}, 2,3 ], \"stream\":true, \"\\u00E9\":null, \"n\\ud800\":1, \"model \":2} ");

    ck_assert(json_scan(text, names, 6, values, &root, &error));
    ck_assert_int_eq(root.type, JSON_OBJECT);
    ck_assert_uint_eq(root.count, 9);
    ck_assert_uint_eq(root.raw.len, text.len - 2);
    expect_raw(&values[0], JSON_STRING, "\"a\\n\"", 0);
    ck_assert(!values[0].duplicate);
    expect_raw(&values[1], JSON_BOOL, "true", 0);
    ck_assert(values[1].truth && values[1].duplicate);
    expect_raw(&values[2], JSON_ARRAY, "[ {\"a\":[1,2]}, 2,3 ]", 3);
    expect_raw(&values[3], JSON_NUMBER, "17", 0);
    ck_assert_int_eq(values[4].type, JSON_MISSING);
    expect_raw(&values[5], JSON_NULL, "null", 0);

    /* Nothing is left of a text that turns out bad. */
    ck_assert(!json_scan(SPAN("{\"model\":\"a\"} x"), names, 6, values, &root, &error));
    ck_assert_int_eq(values[0].type, JSON_MISSING);
    ck_assert_int_eq(root.type, JSON_MISSING);
    /* What is no object has no members. */
    ck_assert(json_scan(SPAN("[\"model\", {\"model\":1}]"), names, 6, values, &root, &error));
    ck_assert_int_eq(values[0].type, JSON_MISSING);
    expect_raw(&root, JSON_ARRAY, "[\"model\", {\"model\":1}]", 2);
    ck_assert(json_scan(SPAN(" false"), NULL, 0, NULL, &root, &error));
    expect_raw(&root, JSON_BOOL, "false", 0);
    ck_assert(!root.truth);
    ck_assert(json_scan(SPAN("{\"messages\":{\"a\":1,\"b\":{\"c\":2}},\"n\":[ ]}"), names, 6, values, NULL, &error));
    expect_raw(&values[2], JSON_OBJECT, "{\"a\":1,\"b\":{\"c\":2}}", 2);
    expect_raw(&values[3], JSON_ARRAY, "[ ]", 0);
}
END_TEST

/* A name longer than any that is asked for, written with escapes. */
START_TEST(long_names)
{
    char text[2048] = "{\"";
    const struct span names[] = {SPAN("a")};
    struct json_value value;
    struct json_error error;

    for (int i = 0; i != 200; ++i)
        strcat(text, "\\u0061");
    strcat(text, "\":1}");
    ck_assert(json_scan(span_of(text), names, 1, &value, NULL, &error));
    ck_assert_int_eq(value.type, JSON_MISSING);
}
END_TEST

START_TEST(decoded_strings)
{
    static const struct {
        struct span raw, expected; /* NULL: refused */
    } cases[] = {
        {TEXT("\"\""), TEXT("")},
        {TEXT("\"plain\""), TEXT("plain")},
        {TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), TEXT("\"\\/\b\f\n\r\t")},
        {TEXT("\"a\\u0000b\""), TEXT("a\0b")},
        {TEXT("\"\\u007f\\u0080\\u07FF\\u0800\\uffff\""), TEXT("\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF")},
        {TEXT("\"\\ud800\\udc00\\uDBFF\\uDFFF!\""), TEXT("\xF0\x90\x80\x80\xF4\x8F\xBF\xBF!")},
        {TEXT("\"\xC3\xA9\\n\xC3\xA9\""), TEXT("\xC3\xA9\n\xC3\xA9")},
        {TEXT("\"\\ud800\""), {NULL, 0}},
        {TEXT("\"\\ud800x\""), {NULL, 0}},
        {TEXT("\"\\udc00\\ud800\""), {NULL, 0}},
        {TEXT("\"\\ud800\\u0041\""), {NULL, 0}},
        {TEXT("17"), {NULL, 0}},
        {TEXT("\""), {NULL, 0}},
        {TEXT(""), {NULL, 0}},
    };
    char out[64];

    for (size_t i = 0; i != sizeof(cases) / sizeof(cases[0]); ++i) {
        long len = json_string_decode(cases[i].raw, out, sizeof(out));
        ck_assert_msg((len < 0) == (cases[i].expected.base == NULL), "%s", cases[i].raw.base);
        if (len < 0)
            continue;
        ck_assert(span_eq((struct span){out, (size_t)len}, cases[i].expected));
        for (size_t cap = 0; cap != cases[i].expected.len; ++cap) {
            char *exact = malloc(cap + 1);
            ck_assert_int_eq(json_string_decode(cases[i].raw, exact, cap), -1);
            free(exact);
        }
        ck_assert_int_eq(json_string_decode(cases[i].raw, out, cases[i].expected.len), len);
    }
}
END_TEST

START_TEST(whole_numbers)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t value;
    } cases[] = {
        {"0", true, 0},
        {"7", true, 7},
        {"9007199254740991", true, 9007199254740991},
        {"9007199254740992", false, 0},
        {"99999999999999999999999", false, 0},
        {"-1", false, 0},
        {"-0", false, 0},
        {"1.0", false, 0},
        {"1e3", false, 0},
        {"\"1\"", false, 0},
        {"null", false, 0},
    };
    struct json_value root;
    struct json_error error;
    uint64_t value;

    for (size_t i = 0; i != sizeof(cases) / sizeof(cases[0]); ++i) {
        ck_assert(json_scan(span_of(cases[i].text), NULL, 0, NULL, &root, &error));
        ck_assert_msg(json_u64(&root, &value) == cases[i].good, "%s", cases[i].text);
        if (cases[i].good)
            ck_assert_uint_eq(value, cases[i].value);
    }
    root = (struct json_value){.type = JSON_MISSING};
    ck_assert(!json_u64(&root, &value));
}
END_TEST

START_TEST(array_elements)
{
    struct json_value root, element;
    struct json_error error;
    size_t cursor = 0;

    ck_assert(json_scan(SPAN("[ 1 ,\"a,]\", [2,[3]] , {\"b\":[],\"c\":0},true\n]"), NULL, 0, NULL, &root, &error));
    ck_assert(json_array_next(&root, &cursor, &element));
    expect_raw(&element, JSON_NUMBER, "1", 0);
    ck_assert(json_array_next(&root, &cursor, &element));
    expect_raw(&element, JSON_STRING, "\"a,]\"", 0);
    ck_assert(json_array_next(&root, &cursor, &element));
    expect_raw(&element, JSON_ARRAY, "[2,[3]]", 2);
    ck_assert(json_array_next(&root, &cursor, &element));
    expect_raw(&element, JSON_OBJECT, "{\"b\":[],\"c\":0}", 2);
    ck_assert(json_array_next(&root, &cursor, &element));
    expect_raw(&element, JSON_BOOL, "true", 0);
    ck_assert(element.truth);
    ck_assert(!json_array_next(&root, &cursor, &element));
    ck_assert(!json_array_next(&root, &cursor, &element));

    ck_assert(json_scan(SPAN("[ ]"), NULL, 0, NULL, &root, &error));
    cursor = 0;
    ck_assert(!json_array_next(&root, &cursor, &element));
    ck_assert(json_scan(SPAN("{}"), NULL, 0, NULL, &root, &error));
    ck_assert(!json_array_next(&root, &cursor, &element));
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("json_scan");

    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, good_texts);
    tcase_add_test(tcase, bad_texts);
    tcase_add_test(tcase, truncated_texts);
    tcase_add_test(tcase, utf8_at_every_place);
    tcase_add_test(tcase, nesting);
    tcase_add_test(tcase, members);
    tcase_add_test(tcase, long_names);
    tcase_add_test(tcase, decoded_strings);
    tcase_add_test(tcase, whole_numbers);
    tcase_add_test(tcase, array_elements);
    return run_suite("json_scan", tcase);
}
