#include "gateway/ws_guard.h"
#include "run_suite.h"
#include <stdio.h>

#define MAX 1000

enum { FIN = 0x80, MASKED = 0x80 };

/* Builds a frame with the mask 1, 2, 3, 4; returns its length. */
static size_t frame(char *out, unsigned first, const char *payload, size_t len)
{
    size_t n = 0;
    out[n++] = (char)first;
    if (len < 126) {
        out[n++] = (char)(MASKED | len);
    } else {
        out[n++] = (char)(MASKED | 126);
        out[n++] = (char)(len >> 8);
        out[n++] = (char)len;
    }
    for (int i = 1; i <= 4; i++)
        out[n++] = (char)i;
    for (size_t i = 0; i < len; i++)
        out[n++] = (char)(payload[i] ^ (char)(i % 4 + 1));
    return n;
}

static struct ws_guard guard_of(uint64_t max)
{
    return (struct ws_guard){.max_message = max};
}

/* Shows the bytes in pieces of `step`, as a socket would: what did not pass is shown again with what follows. Returns
 * how many passed. */
static size_t show(struct ws_guard *guard, struct span bytes, size_t step)
{
    size_t passed = 0;
    for (size_t seen = 0; seen < bytes.len;) {
        seen = seen + step < bytes.len ? seen + step : bytes.len;
        passed += ws_guard_pass(guard, (struct span){bytes.base + passed, seen - passed}, 1);
    }
    return passed;
}

static void expect(struct span bytes, unsigned problem, size_t passed)
{
    for (size_t step = 1; step <= bytes.len; step++) {
        struct ws_guard guard = guard_of(MAX);
        ck_assert_uint_eq(show(&guard, bytes, step), passed);
        ck_assert_uint_eq(guard.problem, problem);
        ck_assert((guard.why != NULL) == (problem != 0));
    }
}

START_TEST(good_frames_pass_however_they_are_cut)
{
    char bytes[4096], large[600] = {0};
    size_t n = frame(bytes, FIN | 1, "hello", 5);
    n += frame(bytes + n, 1, "", 0);
    n += frame(bytes + n, FIN | 9, "ping", 4);
    n += frame(bytes + n, 0, large, 400);
    n += frame(bytes + n, FIN | 10, large, 125);
    n += frame(bytes + n, FIN | 0, large, 600);
    n += frame(bytes + n, FIN | 2, large, 126);
    expect((struct span){bytes, n}, 0, n);
}
END_TEST

START_TEST(wrong_headers_are_stopped_where_they_begin)
{
    static const struct {
        struct span bytes;
        unsigned problem;
    } wrong[] = {
        {SPAN("\xc1\x80\1\2\3\4"), WS_CLOSE_PROTOCOL}, /* reserved bits */
        {SPAN("\x91\x80\1\2\3\4"), WS_CLOSE_PROTOCOL},
        {SPAN("\x83\x80\1\2\3\4"), WS_CLOSE_PROTOCOL}, /* opcodes */
        {SPAN("\x8b\x80\1\2\3\4"), WS_CLOSE_PROTOCOL},
        {SPAN("\x81\x01x"), WS_CLOSE_PROTOCOL}, /* no mask */
        {SPAN("\x88\x02\x03\xe8"), WS_CLOSE_PROTOCOL},
        {SPAN("\x09\x80\1\2\3\4"), WS_CLOSE_PROTOCOL},        /* a fragmented ping */
        {SPAN("\x89\xfe\0\x7e\1\2\3\4"), WS_CLOSE_PROTOCOL},  /* a long one */
        {SPAN("\x80\x80\1\2\3\4"), WS_CLOSE_PROTOCOL},        /* nothing to continue */
        {SPAN("\x81\xfe\x03\xe9\1\2\3\4"), WS_CLOSE_TOO_BIG}, /* 1001 bytes */
        {SPAN("\x81\xff\x40\0\0\0\0\0\0\0\1\2\3\4"), WS_CLOSE_TOO_BIG},
        {SPAN("\x82\xff\x80\0\0\0\0\0\0\0\1\2\3\4"), WS_CLOSE_TOO_BIG},
        {SPAN("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\2\3\4"), WS_CLOSE_TOO_BIG},
        {SPAN("\x88\x81\0\0\0\0\x03"), WS_CLOSE_PROTOCOL},     /* half a close code */
        {SPAN("\x88\x82\0\0\0\0\x03\xed"), WS_CLOSE_PROTOCOL}, /* 1005 */
        {SPAN("\x88\x83\0\0\0\0\x03\xe8\xff"), WS_CLOSE_NOT_UTF8},
    };
    char bytes[64];
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        size_t good = frame(bytes, FIN | 1, "ok", 2);
        memcpy(bytes + good, wrong[i].bytes.base, wrong[i].bytes.len);
        expect((struct span){bytes, good + wrong[i].bytes.len}, wrong[i].problem, good);
    }
}
END_TEST

START_TEST(messages_must_follow_each_other)
{
    char bytes[64];
    size_t first = frame(bytes, 1, "a", 1);
    size_t n = first + frame(bytes + first, FIN | 2, "b", 1);
    expect((struct span){bytes, n}, WS_CLOSE_PROTOCOL, first);
    size_t whole = first + frame(bytes + first, FIN | 0, "b", 1);
    n = whole + frame(bytes + whole, FIN | 0, "c", 1);
    expect((struct span){bytes, n}, WS_CLOSE_PROTOCOL, whole);
}
END_TEST

START_TEST(fragments_add_up_to_the_maximum_and_no_further)
{
    char bytes[8192], large[500] = {0};
    size_t first = frame(bytes, 1, large, 500);
    size_t all = first + frame(bytes + first, FIN | 0, large, 500);
    expect((struct span){bytes, all}, 0, all);
    all = first + frame(bytes + first, 0, large, 500);
    size_t n = all + frame(bytes + all, FIN | 0, "x", 1);
    expect((struct span){bytes, n}, WS_CLOSE_TOO_BIG, all);
    /* The next message counts anew. */
    all = frame(bytes, FIN | 1, large, 500);
    for (int i = 0; i < 3; i++)
        all += frame(bytes + all, FIN | 1, large, 500);
    expect((struct span){bytes, all}, 0, all);
}
END_TEST

START_TEST(a_close_is_read_and_nothing_passes_behind_it)
{
    char bytes[64];
    size_t n = frame(bytes, FIN | 8,
                     "\x0f\xa1"
                     "bye \xc3\xa9",
                     8);
    size_t all = n + frame(bytes + n, FIN | 15, "x", 1);
    for (size_t step = 1; step <= all; step++) {
        struct ws_guard guard = guard_of(MAX);
        ck_assert_uint_eq(show(&guard, (struct span){bytes, all}, step), n);
        ck_assert(guard.closed && guard.problem == 0);
        ck_assert_uint_eq(guard.close_code, 4001);
        ck_assert_str_eq(guard.reason, "bye \xc3\xa9");
    }
    struct ws_guard guard = guard_of(MAX);
    n = frame(bytes, FIN | 8, "", 0);
    ck_assert_uint_eq(ws_guard_pass(&guard, (struct span){bytes, n}, 1), n);
    ck_assert_uint_eq(guard.close_code, WS_CLOSE_NO_STATUS);
    ck_assert_str_eq(guard.reason, "");
}
END_TEST

START_TEST(codes)
{
    static const unsigned good[] = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999};
    static const unsigned bad[] = {0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        ck_assert(ws_guard_code_is_valid(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert(!ws_guard_code_is_valid(bad[i]));
}
END_TEST

/* Frames, one after the other at the same time, until it is too many. */
static unsigned count_until_stopped(struct ws_guard *guard, unsigned first, uint64_t now_us)
{
    char bytes[16];
    size_t n = frame(bytes, first, "", 0);
    unsigned passed = 0;
    while (ws_guard_pass(guard, (struct span){bytes, n}, now_us) == n)
        passed++;
    ck_assert_uint_eq(guard->problem, WS_CLOSE_POLICY);
    return passed;
}

START_TEST(frames_have_a_budget_that_comes_back)
{
    struct ws_guard guard = guard_of(MAX);
    ck_assert_uint_eq(count_until_stopped(&guard, FIN | 1, 1000000), WS_GUARD_BURST);
    guard = guard_of(MAX);
    ck_assert_uint_eq(count_until_stopped(&guard, FIN | 9, 1000000), WS_GUARD_BURST / WS_GUARD_CONTROL_COST);
    guard.problem = 0;
    guard._budget_us = 1000000 + (uint64_t)WS_GUARD_BURST * 1000; /* all used up, at 1 s */
    ck_assert_uint_eq(count_until_stopped(&guard, FIN | 1, 1500000), WS_GUARD_PER_SECOND / 2);
    guard.problem = 0;
    ck_assert_uint_eq(count_until_stopped(&guard, FIN | 1, 100000000), WS_GUARD_BURST);
    /* At the steady pace it never ends. */
    guard = guard_of(MAX);
    char bytes[16];
    size_t n = frame(bytes, FIN | 1, "", 0);
    for (uint64_t i = 0; i < 20000; i++)
        ck_assert_uint_eq(ws_guard_pass(&guard, (struct span){bytes, n}, 1000000 + i * 1000), n);
}
END_TEST

/* Whatever comes, what passes is a prefix, the same for every way to cut it. */
START_TEST(random_bytes_are_judged_alike_however_they_are_cut)
{
    uint64_t seed = 99;
    for (int round = 0; round < 20000; round++) {
        char bytes[48];
        for (size_t i = 0; i < sizeof(bytes); i++) {
            seed = seed * 6364136223846793005 + 1442695040888963407;
            bytes[i] = (char)(seed >> 56);
        }
        static const char firsts[] = {'\x81', '\x01', '\x82', '\x89', '\x88', '\x80', '\x00', '\x8a'};
        bytes[0] = firsts[(seed >> 30) % sizeof(firsts)];
        bytes[1] = (char)(0x80 | (seed >> 35) % 12);
        struct span text = {bytes, sizeof(bytes)};
        struct ws_guard whole = guard_of(MAX);
        size_t passed = show(&whole, text, sizeof(bytes));
        for (size_t step = 1; step < sizeof(bytes); step += 5) {
            struct ws_guard cut = guard_of(MAX);
            ck_assert_uint_eq(show(&cut, text, step), passed);
            ck_assert(cut.problem == whole.problem && cut.closed == whole.closed && cut.frames == whole.frames);
        }
    }
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("ws_guard");
    tcase_add_test(tcase, good_frames_pass_however_they_are_cut);
    tcase_add_test(tcase, wrong_headers_are_stopped_where_they_begin);
    tcase_add_test(tcase, messages_must_follow_each_other);
    tcase_add_test(tcase, fragments_add_up_to_the_maximum_and_no_further);
    tcase_add_test(tcase, a_close_is_read_and_nothing_passes_behind_it);
    tcase_add_test(tcase, codes);
    tcase_add_test(tcase, frames_have_a_budget_that_comes_back);
    tcase_add_test(tcase, random_bytes_are_judged_alike_however_they_are_cut);
    return run_suite("ws_guard", tcase);
}
