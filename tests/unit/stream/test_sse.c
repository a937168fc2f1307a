#include "run_suite.h"
#include "stream/sse.h"
#include <stdlib.h>

#define RECORDS 64

/* What the callback saw, copied. */
struct record {
    char name[128];
    char data[512];
    size_t data_len;
    bool has_data, cut;
    char head[256];
    uint64_t end;
};

struct log {
    struct record records[RECORDS];
    size_t count;
};

static void copy(char *out, size_t cap, struct span text)
{
    size_t len = text.len < cap - 1 ? text.len : cap - 1;

    if (len != 0)
        memcpy(out, text.base, len);
    out[len] = '\0';
}

static void record_event(void *ctx, const struct sse_event *event)
{
    struct log *log = ctx;
    ck_assert_uint_lt(log->count, RECORDS);
    struct record *record = &log->records[log->count++];

    *record = (struct record){.has_data = event->has_data, .cut = event->cut, .end = event->end};
    copy(record->name, sizeof(record->name), event->name);
    copy(record->head, sizeof(record->head), event->head);
    record->data_len = event->data.len;
    if (event->data.len < sizeof(record->data))
        copy(record->data, sizeof(record->data), event->data);
    else
        copy(record->data, sizeof(record->data), span_skip(event->data, event->data.len - sizeof(record->data) + 1));
}

/* Feeds a copy of exactly that size, so that AddressSanitizer sees a read outside of it. */
static void feed(struct sse_scanner *scanner, struct span bytes, struct log *log)
{
    char *exact = malloc(bytes.len != 0 ? bytes.len : 1);

    if (bytes.len != 0)
        memcpy(exact, bytes.base, bytes.len);
    sse_scan(scanner, (struct span){exact, bytes.len}, record_event, log);
    free(exact);
}

/* Feeds `text` in three pieces and in ones, and compares everything with what it gives whole. */
static void expect_same_in_pieces(struct span text, const struct log *whole)
{
    struct sse_scanner scanner;
    struct log log;

    for (size_t first = 0; first <= text.len; ++first) {
        for (size_t second = first; second <= text.len; second += 1 + (text.len - first) / 7) {
            log.count = 0;
            sse_scanner_init(&scanner, 0);
            feed(&scanner, (struct span){text.base, first}, &log);
            feed(&scanner, (struct span){text.base + first, second - first}, &log);
            feed(&scanner, (struct span){text.base + second, text.len - second}, &log);
            ck_assert_uint_eq(log.count, whole->count);
            for (size_t i = 0; i != log.count; ++i) {
                const struct record *a = &log.records[i], *b = &whole->records[i];
                ck_assert_str_eq(a->name, b->name);
                ck_assert_uint_eq(a->data_len, b->data_len);
                ck_assert_mem_eq(a->data, b->data, sizeof(a->data));
                ck_assert(a->has_data == b->has_data && !a->cut);
                bool at_cr = a->end + 1 == b->end && text.base[a->end] == '\n' && text.base[a->end - 1] == '\r' &&
                             (a->end == first || a->end == second);
                ck_assert(a->end == b->end || at_cr);
            }
            sse_scanner_dispose(&scanner);
        }
    }

    log.count = 0;
    sse_scanner_init(&scanner, 0);
    for (size_t i = 0; i != text.len; ++i)
        feed(&scanner, (struct span){text.base + i, 1}, &log);
    ck_assert_uint_eq(log.count, whole->count);
    for (size_t i = 0; i != log.count; ++i) {
        ck_assert_str_eq(log.records[i].name, whole->records[i].name);
        ck_assert_mem_eq(log.records[i].data, whole->records[i].data, sizeof(log.records[i].data));
    }
    sse_scanner_dispose(&scanner);
}

static void scan(struct span text, struct log *log)
{
    struct sse_scanner scanner;

    log->count = 0;
    sse_scanner_init(&scanner, 0);
    feed(&scanner, text, log);
    sse_scanner_dispose(&scanner);
    expect_same_in_pieces(text, log);
}

static void expect(const struct log *log, size_t i, const char *name, const char *data, uint64_t end)
{
    ck_assert_uint_lt(i, log->count);
    ck_assert_str_eq(log->records[i].name, name);
    ck_assert(log->records[i].has_data == (data != NULL));
    ck_assert_str_eq(log->records[i].data, data != NULL ? data : "");
    ck_assert_uint_eq(log->records[i].end, end);
}

START_TEST(events_and_a_rest)
{
    struct log log;

    scan(SPAN("data: {\"a\":1}\n\n"), &log);
    ck_assert_uint_eq(log.count, 1);
    expect(&log, 0, "", "{\"a\":1}", 15);
    scan(SPAN("event: a\ndata: 1\n\ndata:2\n\ndata: 3\n"), &log);
    ck_assert_uint_eq(log.count, 2);
    expect(&log, 0, "a", "1", 18);
    expect(&log, 1, "", "2", 26);
}
END_TEST

START_TEST(line_endings)
{
    struct log log;

    scan(SPAN("event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n"), &log);
    ck_assert_uint_eq(log.count, 2);
    expect(&log, 0, "a", "1", 21);
    expect(&log, 1, "", "2", 32);
    scan(SPAN("event: a\rdata: 1\r\rdata: 2\r\r"), &log);
    ck_assert_uint_eq(log.count, 2);
    expect(&log, 0, "a", "1", 18);
    expect(&log, 1, "", "2", 27);
    scan(SPAN("data: 1\n\r\ndata: 2\r\ndata: 3\r\n\ndata: 4\r\n\rdata: 5\n\n"), &log);
    ck_assert_uint_eq(log.count, 4);
    expect(&log, 0, "", "1", 10);
    expect(&log, 1, "", "2\r\ndata: 3", 29);
    expect(&log, 2, "", "4", 39);
    expect(&log, 3, "", "5", 48);
}
END_TEST

START_TEST(byte_order_mark)
{
    struct log log;

    scan(SPAN("\xEF\xBB\xBF"
              "data: 1\n\n"),
         &log);
    ck_assert_uint_eq(log.count, 1);
    expect(&log, 0, "", "1", 12);
    /* A second one, part of one, or one later on is part of a field's name. */
    scan(SPAN("\xEF\xBB\xBF\xEF\xBB\xBF"
              "data: 1\ndata: 2\n\n"),
         &log);
    ck_assert_uint_eq(log.count, 1);
    expect(&log, 0, "", "2", 23);
    scan(SPAN("\xEF\xBB"
              "data: 1\ndata: 2\n\n"),
         &log);
    ck_assert_uint_eq(log.count, 1);
    expect(&log, 0, "", "2", 19);
    scan(SPAN("data: 0\n\n\xEF\xBB\xBF"
              "data: 1\n\n"),
         &log);
    ck_assert_uint_eq(log.count, 2);
    expect(&log, 1, "", NULL, 21);
    scan(SPAN("\xEF\xBB\n\n"), &log);
    ck_assert_uint_eq(log.count, 1);
    expect(&log, 0, "", NULL, 4);
}
END_TEST

START_TEST(fields)
{
    struct log log;

    scan(SPAN("data: a\nid: 7\n: note\ndata: b\n\n"), &log);
    expect(&log, 0, "", "a\nid: 7\n: note\ndata: b", 30);
    scan(SPAN("data\n\n"), &log);
    expect(&log, 0, "", "", 6);
    scan(SPAN("data:\n\ndata: \n\ndata:  x \n\n"), &log);
    ck_assert_uint_eq(log.count, 3);
    expect(&log, 0, "", "", 7);
    expect(&log, 1, "", "", 15);
    expect(&log, 2, "", " x ", 26);
    scan(SPAN("data:x\nevent:y\nevent:  z\n\n"), &log);
    expect(&log, 0, " z", "x", 26);
    scan(SPAN("event: y\nevent\ndata: 1\n\n"), &log);
    expect(&log, 0, "", "1", 24);
    /* Names are case-sensitive and must match whole. */
    scan(SPAN("Data: 1\ndatabase: 2\ndat: 3\ndata : 4\nevents: 5\n data: 6\n\n"), &log);
    expect(&log, 0, "", NULL, 56);
    scan(SPAN("data: a:b: c\n\n"), &log);
    expect(&log, 0, "", "a:b: c", 14);
}
END_TEST

START_TEST(blocks_without_data)
{
    struct log log;

    scan(SPAN(": ping\n\n"), &log);
    ck_assert_uint_eq(log.count, 1);
    expect(&log, 0, "", NULL, 8);
    scan(SPAN(":\n:\r: x\r\n\n"), &log);
    ck_assert_uint_eq(log.count, 1);
    scan(SPAN("id: 1\nretry: 2\n\nevent: x\n\n"), &log);
    ck_assert_uint_eq(log.count, 2);
    expect(&log, 0, "", NULL, 16);
    expect(&log, 1, "x", NULL, 26);
    scan(SPAN("\n\r\n\r\n\n\r"), &log);
    ck_assert_uint_eq(log.count, 0);
    scan(SPAN("\n\ndata: 1\n\n\n\n: c\ndata: 2\n\n"), &log);
    ck_assert_uint_eq(log.count, 2);
    expect(&log, 0, "", "1", 11);
    expect(&log, 1, "", "2", 26);
}
END_TEST

START_TEST(nul_bytes)
{
    struct log log;

    scan((struct span){"\0data: 0\ndata: a\0b\n\n", 20}, &log);
    ck_assert_uint_eq(log.count, 1);
    ck_assert_uint_eq(log.records[0].data_len, 3);
    ck_assert_mem_eq(log.records[0].data, "a\0b", 3);
}
END_TEST

/* '1' or '0' for sse_at_boundary before the first and after each byte. */
static void expect_boundaries(const char *text, const char *answers)
{
    struct sse_scanner scanner;
    struct log log = {.count = 0};

    ck_assert_uint_eq(strlen(answers), strlen(text) + 1);
    sse_scanner_init(&scanner, 0);
    for (size_t i = 0;; ++i) {
        ck_assert_msg(sse_at_boundary(&scanner) == (answers[i] == '1'), "byte %zu of \"%s\"", i, text);
        if (text[i] == '\0')
            break;
        feed(&scanner, (struct span){text + i, 1}, &log);
        feed(&scanner, SPAN_NONE, &log);
    }
    sse_scanner_dispose(&scanner);
}

START_TEST(boundaries)
{
    expect_boundaries("data\n\n", "1000001");
    expect_boundaries("data\n\n\n", "10000011");
    expect_boundaries("d\r\n\r\n", "100001");
    expect_boundaries("d\r\rd\n\n", "1000001");
    expect_boundaries("d\n\r\nx", "100010");
    expect_boundaries(": p\n", "10001");
    expect_boundaries(": p\n: q\nd\n\n", "100010001001");
    expect_boundaries(":\r\n:\r:\n", "10010001");
    expect_boundaries("d\n:\n\n", "100001");
    expect_boundaries("d\n:\n", "10000");
    expect_boundaries("id\n", "1000");
    expect_boundaries("\xEF\xBB\xBF:\n", "100101");
    expect_boundaries("\xEF\xBB\n\n", "10001");
    expect_boundaries("\n\r\n", "1101");
}
END_TEST

START_TEST(memory_is_given_back)
{
    struct sse_scanner scanner;
    struct log log = {.count = 0};

    sse_scanner_init(&scanner, 0);
    feed(&scanner, SPAN("data: 1\n\ndata: 2\n\n: ping\n: pi"), &log);
    ck_assert_ptr_null(scanner._carry);
    feed(&scanner, SPAN("ng\nda"), &log);
    ck_assert_ptr_nonnull(scanner._carry);
    feed(&scanner, SPAN("ta: 3\n\n"), &log);
    ck_assert_ptr_null(scanner._carry);
    ck_assert_uint_eq(log.count, 3);
    expect(&log, 2, "", "3", 41);
    sse_scanner_dispose(&scanner);
}
END_TEST

/* Feeds `head`, `fill` bytes of 'x' and `tail`, in pieces of `step` bytes; returns the largest carry. */
static size_t feed_large(struct sse_scanner *scanner, const char *head, size_t fill, const char *tail, size_t step,
                         struct log *log)
{
    size_t len = strlen(head) + fill + strlen(tail), largest = 0;
    char *text = malloc(len);

    memcpy(text, head, strlen(head));
    memset(text + strlen(head), 'x', fill);
    memcpy(text + strlen(head) + fill, tail, strlen(tail));
    for (size_t i = 0; i < len; i += step) {
        feed(scanner, (struct span){text + i, len - i < step ? len - i : step}, log);
        if (scanner->_carry_cap > largest)
            largest = scanner->_carry_cap;
    }
    free(text);
    return largest;
}

START_TEST(an_event_larger_than_the_window)
{
    static const size_t steps[] = {1, 7, 999, 4096, 20000, 70000, 1 << 20};
    const char *head = "event: response.completed\ndata: {\"type\":\"response.completed\",";

    for (size_t i = 0; i != sizeof(steps) / sizeof(steps[0]); ++i) {
        for (size_t window = 1024; window <= 32768; window *= 32) {
            struct sse_scanner scanner;
            struct log log = {.count = 0};

            sse_scanner_init(&scanner, window);
            size_t largest = feed_large(&scanner, head, 1 << 20, ",\"usage\":{}}\n\ndata: 2\n\n", steps[i], &log);
            ck_assert_uint_le(largest, window);
            ck_assert_uint_eq(log.count, 2);
            const struct record *record = &log.records[0];
            ck_assert(record->cut && record->has_data);
            ck_assert_str_eq(record->name, "response.completed");
            ck_assert_mem_eq(record->head, "{\"type\":\"response.completed\",xxx", 32);
            ck_assert_uint_ge(record->data_len, window / 4);
            ck_assert_uint_lt(record->data_len, window + steps[i]);
            ck_assert_str_eq(record->data + strlen(record->data) - 15, "xxx,\"usage\":{}}");
            ck_assert_uint_eq(record->end, strlen(head) + (1 << 20) + 14);
            ck_assert(log.records[1].has_data && !log.records[1].cut);
            ck_assert_str_eq(log.records[1].data, "2");
            ck_assert_str_eq(log.records[1].name, "");
            ck_assert_ptr_null(scanner._carry);
            sse_scanner_dispose(&scanner);
        }
    }
}
END_TEST

START_TEST(a_large_event_in_one_call_is_whole)
{
    struct sse_scanner scanner;
    struct log log = {.count = 0};

    sse_scanner_init(&scanner, 1024);
    ck_assert_uint_eq(feed_large(&scanner, "data: ", 1 << 20, "\n\n", 2 << 20, &log), 0);
    ck_assert_uint_eq(log.count, 1);
    ck_assert(!log.records[0].cut);
    ck_assert_uint_eq(log.records[0].data_len, 1 << 20);
    sse_scanner_dispose(&scanner);
}
END_TEST

START_TEST(what_begins_like_a_byte_order_mark_is_not_copied)
{
    static const char *const beginnings[] = {"\xEF\ndata: ", "\xEF\xBB\ndata: ", "\xEF\xBBx\ndata: "};

    for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++) {
        struct sse_scanner scanner;
        struct log log = {.count = 0};

        sse_scanner_init(&scanner, 1024);
        feed_large(&scanner, beginnings[i], 5000, "\n\n", 10000, &log);
        ck_assert_uint_eq(log.count, 1);
        ck_assert(!log.records[0].cut);
        ck_assert_uint_eq(log.records[0].data_len, 5000);
        sse_scanner_dispose(&scanner);
    }
}
END_TEST

START_TEST(cuts_know_the_line_they_fall_in)
{
    struct sse_scanner scanner;
    struct log log = {.count = 0};

    sse_scanner_init(&scanner, 1024);
    /* Neither a comment nor an unknown field becomes data, nor does the line behind it get lost. */
    feed_large(&scanner, "data: first\n:", 5000, "data: no\ndata: last\n\n", 100, &log);
    ck_assert_uint_eq(log.count, 1);
    ck_assert(log.records[0].cut && log.records[0].has_data);
    ck_assert_str_eq(log.records[0].data, "last");
    ck_assert_str_eq(log.records[0].head, "first");
    feed_large(&scanner, "data: first\nid: ", 5000, "\n\n", 100, &log);
    ck_assert(log.records[1].cut && log.records[1].has_data);
    ck_assert_uint_eq(log.records[1].data_len, 0);
    /* A comment that stands alone is not kept at all; an endless event name is none. */
    ck_assert_uint_eq(feed_large(&scanner, ":", 5000, "\n\n", 100, &log), 0);
    ck_assert(!log.records[2].cut && !log.records[2].has_data);
    feed_large(&scanner, "event: ", 5000, "\ndata: 1\n\n", 100, &log);
    ck_assert_str_eq(log.records[3].name, "");
    ck_assert_str_eq(log.records[3].data, "1");
    /* A name behind the cut replaces an earlier one. */
    feed_large(&scanner, "event: a\ndata: ", 5000, "\nevent: b\n\n", 100, &log);
    ck_assert_str_eq(log.records[4].name, "b");
    ck_assert_uint_eq(log.count, 5);
    sse_scanner_dispose(&scanner);
}
END_TEST

/* What is kept of an event is its end, without a seam. */
START_TEST(a_cut_loses_nothing_of_the_end)
{
    char text[6000] = "data: ";

    for (size_t len = 1100; len != 5000; len += 13) {
        struct sse_scanner scanner;
        struct log log = {.count = 0};

        for (size_t i = 6; i != len; ++i)
            text[i] = (char)('!' + i % 89);
        memcpy(text + len, "\n\n", 2);
        sse_scanner_init(&scanner, 1024);
        for (size_t i = 0; i < len + 2; i += 50)
            feed(&scanner, (struct span){text + i, len + 2 - i < 50 ? len + 2 - i : 50}, &log);
        sse_scanner_dispose(&scanner);
        ck_assert_uint_eq(log.count, 1);
        size_t kept = strlen(log.records[0].data);
        ck_assert_uint_ge(kept, 250);
        ck_assert_mem_eq(log.records[0].data, text + len - kept, kept);
    }
}
END_TEST

/* Wherever a cut meets a data line, no part of the field's name passes for data. */
START_TEST(a_cut_in_a_field_name_adds_nothing_to_the_data)
{
    static const char data[] = "\ndata: first\ndata: last\n:", all[] = "first\ndata: last";
    char text[1500];

    for (size_t len = 740; len != 790; ++len) {
        struct sse_scanner scanner;
        struct log log = {.count = 0};

        memset(text, 'x', sizeof(text));
        memcpy(text + len, data, strlen(data));
        memcpy(text + sizeof(text) - 2, "\n\n", 2);
        sse_scanner_init(&scanner, 1024);
        for (size_t i = 0; i < sizeof(text); i += 100)
            feed(&scanner, (struct span){text + i, 100}, &log);
        sse_scanner_dispose(&scanner);
        ck_assert_uint_eq(log.count, 1);
        ck_assert(log.records[0].cut && log.records[0].has_data);
        size_t kept = strlen(log.records[0].data);
        ck_assert_uint_le(kept, strlen(all));
        ck_assert_str_eq(log.records[0].data, all + strlen(all) - kept);
        if (log.records[0].head[0] != '\0')
            ck_assert_mem_eq(log.records[0].head, all, strlen(log.records[0].head));
    }
}
END_TEST

START_TEST(a_megabyte_without_a_newline)
{
    struct sse_scanner scanner;
    struct log log = {.count = 0};

    sse_scanner_init(&scanner, 0);
    ck_assert_uint_le(feed_large(&scanner, "", 1 << 20, "", 1 << 16, &log), SSE_WINDOW_DEFAULT);
    ck_assert(!sse_at_boundary(&scanner));
    ck_assert_uint_eq(log.count, 0);
    sse_scanner_dispose(&scanner);
}
END_TEST

/* Random blocks of every kind of line, fed in random pieces with a small window: no crash, offsets that rise, and where
 * nothing was cut the same as whole. */
START_TEST(random_pieces)
{
    static const char *const parts[] = {
        "data: x", "data:",    "data", "\n",    "\r",           "\r\n",
        "\n\n",    "event: e", ": c",  "id: 1", "\xEF\xBB\xBF", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"};
    unsigned seed = 1;

    for (int round = 0; round != 3000; ++round) {
        char text[4096];
        size_t len = 0, parts_left = 5 + (size_t)round % 60;
        struct log whole = {.count = 0}, pieces = {.count = 0};
        struct sse_scanner scanner;

        while (parts_left-- != 0) {
            const char *part = parts[(seed = seed * 1103515245 + 12345) / 65536 % 12];
            memcpy(text + len, part, strlen(part));
            len += strlen(part);
        }
        sse_scanner_init(&scanner, 0);
        feed(&scanner, (struct span){text, len}, &whole);
        bool boundary = sse_at_boundary(&scanner);
        sse_scanner_dispose(&scanner);
        sse_scanner_init(&scanner, 1024);
        for (size_t i = 0, n; i < len; i += n) {
            n = (seed = seed * 1103515245 + 12345) / 65536 % 97;
            n = n > len - i ? len - i : n;
            feed(&scanner, (struct span){text + i, n}, &pieces);
        }
        ck_assert(sse_at_boundary(&scanner) == boundary);
        sse_scanner_dispose(&scanner);
        ck_assert_uint_eq(pieces.count, whole.count);
        for (size_t i = 0; i != whole.count; ++i) {
            ck_assert(pieces.records[i].has_data == whole.records[i].has_data);
            ck_assert_str_eq(pieces.records[i].name, whole.records[i].name);
            if (!pieces.records[i].cut)
                ck_assert_str_eq(pieces.records[i].data, whole.records[i].data);
        }
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {events_and_a_rest,
                                  line_endings,
                                  byte_order_mark,
                                  fields,
                                  blocks_without_data,
                                  nul_bytes,
                                  boundaries,
                                  memory_is_given_back,
                                  an_event_larger_than_the_window,
                                  a_large_event_in_one_call_is_whole,
                                  what_begins_like_a_byte_order_mark_is_not_copied,
                                  cuts_know_the_line_they_fall_in,
                                  a_cut_loses_nothing_of_the_end,
                                  a_cut_in_a_field_name_adds_nothing_to_the_data,
                                  a_megabyte_without_a_newline,
                                  random_pieces};
    TCase *tcase = tcase_create("sse");

    tcase_set_timeout(tcase, 60);
    for (size_t i = 0; i != sizeof(tests) / sizeof(tests[0]); ++i)
        tcase_add_test(tcase, tests[i]);
    return run_suite("sse", tcase);
}
