#include "base/ids.h"
#include "run_suite.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define PARENT "b7ad6b7169203331"

START_TEST(random_fills_all_of_any_length)
{
    for (size_t len = 0; len < 700; len += 11) {
        unsigned char *seen = calloc(1, len + 1), *out = malloc(len + 1);
        out[len] = 0xA5;
        /* Each byte is zero 40 times in a row with a chance of 2^-320. */
        for (int round = 0; round < 40; round++) {
            memset(out, 0, len);
            ids_random(out, len);
            for (size_t i = 0; i < len; i++)
                seen[i] |= out[i];
        }
        for (size_t i = 0; i < len; i++)
            ck_assert_uint_ne(seen[i], 0);
        ck_assert_uint_eq(out[len], 0xA5);
        free(seen);
        free(out);
    }
}
END_TEST

START_TEST(hex_writes_just_its_digits)
{
    for (size_t digits = 0; digits < 200; digits++) {
        char out[201];
        memset(out, '!', sizeof(out));
        ids_hex(out, digits);
        ck_assert_int_eq(out[digits], '!');
        out[digits] = '\0';
        ck_assert_uint_eq(strspn(out, "0123456789abcdef"), digits);
    }
}
END_TEST

START_TEST(hex_uses_all_digits_everywhere)
{
    static const char digits[] = "0123456789abcdef";
    unsigned seen[24] = {0};
    for (int round = 0; round < 1000; round++) { /* a digit is missing in a place with a chance of 10^-28 */
        char out[25] = "";
        ids_hex(out, 24);
        for (size_t i = 0; i < 24; i++)
            seen[i] |= 1U << (strchr(digits, out[i]) - digits);
    }
    for (size_t i = 0; i < 24; i++)
        ck_assert_uint_eq(seen[i], 0xFFFF);
}
END_TEST

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, REQUEST_ID_LEN);
}

#define THREADS 4
#define IDS 5000
static char made[THREADS * IDS][REQUEST_ID_LEN + 1];

static void *make_ids(void *arg)
{
    char(*out)[REQUEST_ID_LEN + 1] = arg;
    for (int i = 0; i < IDS; i++)
        ids_request(out[i]);
    return NULL;
}

START_TEST(request_ids_of_all_threads_differ)
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, make_ids, made[i * IDS]), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    qsort(made, THREADS * IDS, sizeof(made[0]), compare);
    for (size_t i = 0; i < THREADS * IDS; i++) {
        ck_assert_uint_eq(strlen(made[i]), REQUEST_ID_LEN);
        ck_assert(span_starts(span_of(made[i]), SPAN("req_")));
        ck_assert(ids_request_is_sane(span_of(made[i])));
        if (i != 0)
            ck_assert_str_ne(made[i - 1], made[i]);
    }
}
END_TEST

START_TEST(a_forked_child_makes_ids_of_its_own)
{
    char mine[REQUEST_ID_LEN + 1], childs[REQUEST_ID_LEN + 1] = "";
    int fds[2];
    ids_request(mine); /* leaves a batch that the child inherits */
    ck_assert_int_eq(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        ids_request(childs);
        _exit(write(fds[1], childs, sizeof(childs)) == (ssize_t)sizeof(childs) ? 0 : 1);
    }
    ids_request(mine);
    ck_assert_int_eq(read(fds[0], childs, sizeof(childs)), sizeof(childs));
    waitpid(pid, NULL, 0);
    ck_assert_str_ne(mine, childs);
    close(fds[0]);
    close(fds[1]);
}
END_TEST

START_TEST(sane_request_ids)
{
    char text[130];
    memset(text, 'a', sizeof(text));
    ck_assert(ids_request_is_sane((struct span){text, 1}));
    ck_assert(ids_request_is_sane((struct span){text, 128}));
    ck_assert(!ids_request_is_sane((struct span){text, 129}));
    ck_assert(!ids_request_is_sane(SPAN_NONE));
    const char *allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:/+=@";
    for (int c = 0; c < 256; c++) {
        char id[3] = {'x', (char)c, 'x'};
        ck_assert_int_eq(ids_request_is_sane((struct span){id, 3}), memchr(allowed, c, strlen(allowed)) != NULL);
    }
}
END_TEST

static const struct {
    const char *header;
    bool valid;
    uint8_t flags;
} traceparents[] = {
    {"00-" TRACE "-" PARENT "-01", true, 1},
    {"00-" TRACE "-" PARENT "-00", true, 0},
    {"00-" TRACE "-" PARENT "-03", true, 3},
    {"00-" TRACE "-" PARENT "-fe", true, 2},
    {"cc-" TRACE "-" PARENT "-01", true, 1},
    {"cc-" TRACE "-" PARENT "-01-", true, 1},
    {"cc-" TRACE "-" PARENT "-01-what.the-future", true, 1},
    {"cc-" TRACE "-" PARENT "-01.what", false, 0},
    {"01-" TRACE "-" PARENT "-011", false, 0},
    {"00-" TRACE "-" PARENT "-01-", false, 0},
    {"00-" TRACE "-" PARENT "-01-more", false, 0},
    {"00-" TRACE "-" PARENT "-0", false, 0},
    {"00-" TRACE "-" PARENT "-", false, 0},
    {"00-" TRACE "-" PARENT "-0x", false, 0},
    {"00-" TRACE "-" PARENT "-0A", false, 0},
    {"ff-" TRACE "-" PARENT "-01", false, 0},
    {"0g-" TRACE "-" PARENT "-01", false, 0},
    {"CC-" TRACE "-" PARENT "-01", false, 0},
    {"00-0AF7651916CD43DD8448EB211C80319C-" PARENT "-01", false, 0},
    {"00-" TRACE "-B7AD6B7169203331-01", false, 0},
    {"00-00000000000000000000000000000000-" PARENT "-01", false, 0},
    {"00-00000000000000000000000000000001-" PARENT "-01", true, 1},
    {"00-" TRACE "-0000000000000000-01", false, 0},
    {"00_" TRACE "-" PARENT "-01", false, 0},
    {"00-" TRACE "_" PARENT "-01", false, 0},
    {"00-" TRACE "-" PARENT "_01", false, 0},
    {" 00-" TRACE "-" PARENT "-01", false, 0},
    {"00-" TRACE "-" PARENT "-01 ", false, 0},
    {"000-" TRACE "-" PARENT "-01", false, 0},
    {"", false, 0},
    {"00", false, 0},
};

START_TEST(traceparent)
{
    size_t len = strlen(traceparents[_i].header);
    char *exact = malloc(len + 1), trace_id[TRACE_ID_LEN + 1] = "untouched";
    uint8_t flags = 77;
    memcpy(exact, traceparents[_i].header, len);
    bool valid = ids_traceparent_parse((struct span){exact, len}, trace_id, &flags);
    ck_assert_int_eq(valid, traceparents[_i].valid);
    ck_assert_uint_eq(flags, valid ? traceparents[_i].flags : 77);
    if (valid)
        ck_assert(strncmp(exact + 3, trace_id, TRACE_ID_LEN) == 0 && strlen(trace_id) == TRACE_ID_LEN);
    else
        ck_assert_str_eq(trace_id, "untouched");
    free(exact);
}
END_TEST

START_TEST(traceparent_of_every_length)
{
    static const char header[] = "00-" TRACE "-" PARENT "-01";
    char trace_id[TRACE_ID_LEN + 1];
    uint8_t flags;
    for (size_t len = 0; len < sizeof(header) - 1; len++) {
        char *exact = malloc(len + 1);
        memcpy(exact, header, len);
        ck_assert(!ids_traceparent_parse((struct span){exact, len}, trace_id, &flags));
        free(exact);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ids");
    tcase_add_test(tc, random_fills_all_of_any_length);
    tcase_add_test(tc, hex_writes_just_its_digits);
    tcase_add_test(tc, hex_uses_all_digits_everywhere);
    tcase_add_test(tc, request_ids_of_all_threads_differ);
    tcase_add_test(tc, a_forked_child_makes_ids_of_its_own);
    tcase_add_test(tc, sane_request_ids);
    tcase_add_loop_test(tc, traceparent, 0, (int)(sizeof(traceparents) / sizeof(traceparents[0])));
    tcase_add_test(tc, traceparent_of_every_length);
    return run_suite("ids", tc);
}
