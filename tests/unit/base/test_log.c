#include "base/clock.h"
#include "base/log.h"
#include "base/log_writer.h"
#include "run_suite.h"
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Enough on any machine, for what comes at once on most. What never comes is ended by Check's own limit. */
#define ENOUGH_MS 20000

static int fds[2]; /* a pipe: the log writes to [1], the tests read from [0] */
static char text[8 << 20];

static void setup(void)
{
    ck_assert_int_eq(pipe(fds), 0);
}

static void teardown(void)
{
    log_stop(100);
    close(fds[0]);
    close(fds[1]);
}

/* Ends the log and reads all that it wrote. */
static void stop_and_read(void)
{
    log_stop(ENOUGH_MS);
    close(fds[1]);
    size_t len = 0;
    ssize_t got;
    while ((got = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)got;
    text[len] = '\0';
    fds[1] = dup(fds[0]);
}

/* Checks a line against a pattern in which '#' is any digit. */
static void check_pattern(const char *line, const char *pattern)
{
    for (size_t i = 0; pattern[i] != '\0' || line[i] != '\0'; i++) {
        if (pattern[i] == '#' ? line[i] >= '0' && line[i] <= '9' : line[i] == pattern[i])
            continue;
        ck_abort_msg("differs at %zu: %s instead of %s", i, line, pattern);
    }
}

static void log_fields(void)
{
    struct log_line line;
    log_begin(&line, LOG_WARN, "it \"happened\"\n");
    log_str(&line, "plain", SPAN("a/b:c"));
    log_str(&line, "empty", SPAN_NONE);
    log_str(&line, "blank", SPAN("a b\t\x1b[31m\"\xFFz"));
    log_str(&line, "equals", SPAN("a=b"));
    log_int(&line, "n", -12);
    log_ms(&line, "took_ms", 1234005);
    log_ms(&line, "zero_ms", 0);
    log_bool(&line, "yes", true);
    log_bool(&line, "no", false);
    log_end(&line);
}

START_TEST(json_line)
{
    log_start(LOG_INFO, LOG_JSON, fds[1]);
    log_fields();
    stop_and_read();
    check_pattern(text,
                  "{\"time\":\"####-##-##T##:##:##.###Z\",\"level\":\"warn\",\"msg\":\"it \\\"happened\\\"\\n\","
                  "\"plain\":\"a/b:c\",\"blank\":\"a b\\t\\u001b[31m\\\"\xEF\xBF\xBDz\",\"equals\":\"a=b\",\"n\":-12,"
                  "\"took_ms\":1234.005,\"zero_ms\":0.000,\"yes\":true,\"no\":false}\n");
}
END_TEST

START_TEST(text_line)
{
    log_start(LOG_INFO, LOG_TEXT, fds[1]);
    log_fields();
    log_text(LOG_INFO,
             "%s %d \x1b[2J\x7f \xC2\x9B"
             "2J \xC3\xBC",
             "message", 7);
    stop_and_read();
    check_pattern(text,
                  "##:##:##.### WARN  it \"happened\"\\n plain=a/b:c blank=\"a b\\t\\u001b[31m\\\"\xEF\xBF\xBDz\" "
                  "equals=\"a=b\" n=-12 took_ms=1234.005 zero_ms=0.000 yes=true no=false\n"
                  "##:##:##.### INFO  message 7 \\u001b[2J\\u007f \\u009b2J \xC3\xBC\n");
}
END_TEST

START_TEST(keys_of_any_length_are_whole)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    struct log_line line;
    log_start(LOG_INFO, _i == 0 ? LOG_JSON : LOG_TEXT, fds[1]);
    log_begin(&line, LOG_INFO, "m");
    for (size_t len = 1; len < sizeof(letters); len++) {
        char *key = strndup(letters, len);
        log_int(&line, key, (int64_t)len);
        free(key);
    }
    log_end(&line);
    stop_and_read();
    char expected[1024], *at = expected;
    for (int len = 1; len < (int)sizeof(letters); len++)
        at += sprintf(at, _i == 0 ? ",\"%.*s\":%d" : " %.*s=%d", len, letters, len);
    strcpy(at, _i == 0 ? "}\n" : "\n");
    ck_assert_str_eq(strstr(text, _i == 0 ? ",\"a\"" : " a="), expected);
}
END_TEST

START_TEST(time_is_now_in_utc)
{
    for (int i = 0; i < 3; i++) { /* over the turn of a second, so that the cached one is renewed */
        uint64_t before = clock_wall_us() / 1000, after;
        ck_assert_int_eq(pipe(fds), 0);
        log_start(LOG_INFO, LOG_JSON, fds[1]);
        log_text(LOG_INFO, "x");
        after = clock_wall_us() / 1000;
        stop_and_read();
        struct tm tm = {0};
        char *rest = strptime(text, "{\"time\":\"%Y-%m-%dT%H:%M:%S", &tm);
        ck_assert_ptr_nonnull(rest);
        uint64_t at = (uint64_t)timegm(&tm) * 1000 + (uint64_t)atoi(rest + 1);
        ck_assert_uint_ge(at, before);
        ck_assert_uint_le(at, after);
        usleep(400000);
    }
}
END_TEST

START_TEST(levels)
{
    enum log_level level = LOG_ERROR;
    ck_assert(log_level_parse(SPAN("debug"), &level) && level == LOG_DEBUG);
    ck_assert(log_level_parse(SPAN("info"), &level) && level == LOG_INFO);
    ck_assert(log_level_parse(SPAN("warn"), &level) && level == LOG_WARN);
    ck_assert(log_level_parse(SPAN("error"), &level) && level == LOG_ERROR);
    ck_assert(!log_level_parse(SPAN("INFO"), &level) && !log_level_parse(SPAN("inf"), &level));
    ck_assert(!log_level_parse(SPAN_NONE, &level) && level == LOG_ERROR);

    log_start(LOG_WARN, LOG_TEXT, fds[1]);
    ck_assert(!log_enabled(LOG_INFO) && log_enabled(LOG_WARN) && log_enabled(LOG_ERROR));
    log_text(LOG_INFO, "not this");
    struct log_line line;
    log_begin(&line, LOG_DEBUG, "nor this");
    log_str(&line, "key", SPAN("value"));
    log_int(&line, "key", 1);
    log_end(&line);
    log_text(LOG_ERROR, "this");
    stop_and_read();
    check_pattern(text, "##:##:##.### ERROR this\n");
}
END_TEST

START_TEST(long_lines_are_cut_at_a_field)
{
    static char big[3 * LOG_LINE_MAX];
    memset(big, 'x', sizeof(big) - 1);
    log_start(LOG_INFO, LOG_JSON, fds[1]);
    struct log_line line;
    log_begin(&line, LOG_INFO, "m");
    log_int(&line, "kept", 1);
    log_str(&line, "big", span_of(big));
    log_int(&line, "after", 2);
    log_end(&line);
    size_t lines = 1;
    for (size_t len = LOG_LINE_MAX - 120; len < LOG_LINE_MAX + 20; len += 1, lines++) { /* every place of the end */
        log_begin(&line, LOG_INFO, "m");
        log_str(&line, "fill", (struct span){big, len});
        log_bool(&line, "b", true);
        log_end(&line);
    }
    log_begin(&line, LOG_INFO, big);
    log_int(&line, "n", 1);
    log_end(&line);
    memset(big, '\x01', sizeof(big) - 1);
    log_text(LOG_INFO, "%s", big);
    lines += 2;

    int copy = dup(fds[0]); /* more than a pipe holds: read along */
    FILE *in = fdopen(copy, "r");
    size_t longest = 0;
    for (size_t i = 0; i < lines; i++) {
        ck_assert_ptr_nonnull(fgets(text, sizeof(text), in));
        size_t len = strlen(text);
        ck_assert_uint_le(len, LOG_LINE_MAX);
        longest = len > longest ? len : longest;
        json_error_t error;
        json_t *json = json_loads(text, 0, &error);
        ck_assert_msg(json != NULL, "%s", error.text);
        if (i == 0) {
            ck_assert_int_eq(json_integer_value(json_object_get(json, "kept")), 1);
            ck_assert_uint_eq(json_object_size(json), 4);
        }
        if (i >= lines - 2)
            ck_assert_uint_gt(json_string_length(json_object_get(json, "msg")), 300);
        json_decref(json);
    }
    ck_assert_uint_eq(longest, LOG_LINE_MAX);
    fclose(in);
}
END_TEST

static void *log_many(void *arg)
{
    for (int i = 0; i < 2000; i++) {
        struct log_line line;
        log_begin(&line, LOG_INFO, "from a thread");
        log_int(&line, "thread", *(int *)arg);
        log_int(&line, "i", i);
        log_end(&line);
    }
    return NULL;
}

START_TEST(lines_of_many_threads_are_whole_and_in_order)
{
    char path[] = "/tmp/test_log_XXXXXX";
    int file = mkstemp(path), ids[4] = {0, 1, 2, 3}, next[4] = {0};
    pthread_t threads[4];
    unlink(path);
    log_start(LOG_INFO, LOG_TEXT, file);
    uint64_t dropped = log_dropped();
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, log_many, &ids[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    log_stop(ENOUGH_MS);
    ck_assert_uint_eq(log_dropped(), dropped); /* 8000 lines of some 50 bytes fit the ring even unread */
    lseek(file, 0, SEEK_SET);
    FILE *in = fdopen(file, "r");
    char line[200];
    while (fgets(line, sizeof(line), in) != NULL) {
        int thread, i;
        ck_assert_int_eq(sscanf(line + 12, " INFO  from a thread thread=%d i=%d\n", &thread, &i), 2);
        ck_assert_int_eq(i, next[thread]++);
    }
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(next[i], 2000);
    fclose(in);
}
END_TEST

static bool naps_are_endless;

/* In place of the C library's, for the writer: what waits with a limit waits without one if the test wants it. */
int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    return naps_are_endless ? pthread_cond_wait(cond, mutex)
                            : pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, until);
}

/* The writer naps between two rounds, but not while a quarter of the ring is waiting. */
START_TEST(much_at_once_ends_a_nap)
{
    static char line[LOG_LINE_MAX];
    char path[] = "/tmp/test_log_XXXXXX";
    int file = mkstemp(path);
    unlink(path);
    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = '\n';
    naps_are_endless = true;
    log_start(LOG_INFO, LOG_TEXT, file);
    off_t put = 0;
    for (int i = 0; i < 20; i++) {
        for (size_t bytes = 0; bytes < LOG_RING_MAX / 2; bytes += sizeof(line), put += sizeof(line))
            log_writer_put((struct span){line, sizeof(line)});
        while (put - lseek(file, 0, SEEK_CUR) > LOG_RING_MAX / 4)
            usleep(50);
    }
    ck_assert_uint_eq(log_dropped(), 0);
    close(file);
}
END_TEST

/* Logs more than the ring holds, to a reader that does not read: should this wait for anything, it waits for ever. */
static uint64_t fill(void)
{
    uint64_t before = log_dropped();
    for (int i = 0; i < 40000; i++)
        log_text(LOG_INFO, "line %d with some more text to fill the ring sooner ..............", i);
    return log_dropped() - before;
}

/* The reader sleeps, then reads: some lines are lost, and their number is told. _i: 0 blocking pipe, 1 non-blocking, 2
 * socket */
START_TEST(a_blocked_reader_costs_lines_not_time)
{
    if (_i == 1)
        fcntl(fds[1], F_SETFL, O_NONBLOCK);
    if (_i == 2) {
        close(fds[0]);
        close(fds[1]);
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    }
    log_start(LOG_INFO, LOG_TEXT, fds[1]);
    uint64_t dropped = fill();
    ck_assert_uint_gt(dropped, 1000);
    size_t len = 0, told = 0, lines = 0, wrong = 0;
    char *notice = NULL;
    while (notice == NULL || lines + told < 40000) {
        ssize_t got = read(fds[0], text + len, sizeof(text) - 1 - len);
        ck_assert_int_gt(got, 0);
        len += (size_t)got;
        text[len] = '\0';
        if (text[len - 1] != '\n')
            continue;
        lines = told = 0;
        for (char *at = text; *at != '\0'; at = strchr(at, '\n') + 1) {
            if (strncmp(at + 12, " WARN  log lines dropped count=", 31) == 0) {
                notice = at;
                told += strtoul(at + 43, NULL, 10);
            } else {
                wrong += strncmp(at + 12, " INFO  line ", 12) != 0; /* an assertion would be a system call each */
                lines++;
            }
        }
        ck_assert_uint_eq(wrong, 0);
    }
    ck_assert_uint_eq(told, dropped);
    ck_assert_uint_eq(lines + told, 40000);
}
END_TEST

START_TEST(stop_keeps_its_time_when_blocked)
{
    if (_i == 1)
        fcntl(fds[1], F_SETFL, O_NONBLOCK);
    log_start(LOG_INFO, LOG_JSON, fds[1]);
    fill();
    uint64_t before = log_dropped(), started = clock_us();
    log_stop(150);
    uint64_t took_ms = (clock_us() - started) / 1000;
    ck_assert_uint_ge(took_ms, 140);
    ck_assert_uint_le(took_ms, ENOUGH_MS);
    ck_assert_uint_gt(log_dropped(), before); /* what was left in the ring */
    log_stop(150);                            /* again: nothing */
}
END_TEST

/* The time to write may pass unused, too. */
START_TEST(stop_without_time_drops_and_counts)
{
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    while (write(fds[1], text, 1) == 1)
        ;
    fcntl(fds[1], F_SETFL, 0);
    uint64_t before = log_dropped();
    log_start(LOG_INFO, LOG_TEXT, fds[1]);
    log_text(LOG_INFO, "stuck");
    log_stop(0); /* comes back, though nobody ever reads */
    ck_assert_uint_eq(log_dropped() - before, 1);
}
END_TEST

/* A terminal that nobody reads says that it is writable while there is any room, then a longer write blocks. */
START_TEST(stop_gives_up_a_thread_that_hangs_in_write)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    ck_assert(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    int slave = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    ck_assert_int_ge(slave, 0);
    log_start(LOG_INFO, LOG_TEXT, slave);
    fill();
    log_stop(50); /* comes back */
    usleep(10000);
    close(terminal); /* frees the thread, which may still use the other end: that stays open */
    usleep(50000);
}
END_TEST

START_TEST(a_broken_pipe_is_survived)
{
    uint64_t before = log_dropped();
    log_start(LOG_INFO, LOG_TEXT, fds[1]);
    close(fds[0]);
    for (int i = 0; i < 100; i++)
        log_text(LOG_INFO, "to nobody");
    log_stop(ENOUGH_MS);
    ck_assert_uint_eq(log_dropped() - before, 100);
    fds[0] = dup(fds[1]);
    log_start(LOG_INFO, LOG_TEXT, -1);
    log_text(LOG_INFO, "to nowhere");
    log_stop(ENOUGH_MS);
    ck_assert_uint_eq(log_dropped() - before, 101);
}
END_TEST

START_TEST(without_the_thread_lines_go_to_stderr)
{
    int saved = dup(STDERR_FILENO);
    dup2(fds[1], STDERR_FILENO);
    log_text(LOG_INFO, "before %d", 1);
    char path[] = "/tmp/test_log_XXXXXX";
    int file = mkstemp(path);
    unlink(path);
    log_start(LOG_INFO, LOG_TEXT, file);
    log_text(LOG_INFO, "during");
    log_stop(ENOUGH_MS);
    log_text(LOG_INFO, "after");
    dup2(saved, STDERR_FILENO);
    stop_and_read();
    check_pattern(text, "##:##:##.### INFO  before 1\n##:##:##.### INFO  after\n");
    ck_assert_int_eq(lseek(file, 0, SEEK_CUR), 26);
    close(file);
    close(saved);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("log");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, json_line);
    tcase_add_test(tc, text_line);
    tcase_add_loop_test(tc, keys_of_any_length_are_whole, 0, 2);
    tcase_add_test(tc, time_is_now_in_utc);
    tcase_add_test(tc, levels);
    tcase_add_test(tc, long_lines_are_cut_at_a_field);
    tcase_add_test(tc, lines_of_many_threads_are_whole_and_in_order);
    tcase_add_test(tc, much_at_once_ends_a_nap);
    tcase_add_loop_test(tc, a_blocked_reader_costs_lines_not_time, 0, 3);
    tcase_add_loop_test(tc, stop_keeps_its_time_when_blocked, 0, 2);
    tcase_add_test(tc, stop_without_time_drops_and_counts);
    tcase_add_test(tc, stop_gives_up_a_thread_that_hangs_in_write);
    tcase_add_test(tc, a_broken_pipe_is_survived);
    tcase_add_test(tc, without_the_thread_lines_go_to_stderr);
    return run_suite("log", tc);
}
