#include "base/redis_error.h"
#include "run_suite.h"

static const struct {
    const char *text;
    enum redis_error error;
} errors[] = {
    {"", REDIS_ERROR_COMMAND},
    {"ERR unknown command 'X'", REDIS_ERROR_COMMAND},
    {"WRONGTYPE Operation against a key holding the wrong kind of value", REDIS_ERROR_COMMAND},
    {"NOSCRIPT No matching script. Please use EVAL.", REDIS_ERROR_SCRIPT},
    {"OOM command not allowed when used memory > 'maxmemory'.", REDIS_ERROR_REFUSED},
    {"OOMPH", REDIS_ERROR_COMMAND},
    {"MISCONF Redis is configured to save RDB snapshots, but ...", REDIS_ERROR_REFUSED},
    {"BUSY Redis is busy running a script.", REDIS_ERROR_REFUSED},
    {"BUSYKEY Target key name already exists.", REDIS_ERROR_COMMAND},
    {"NOREPLICAS Not enough good replicas to write.", REDIS_ERROR_REFUSED},
    {"NOPERM this user has no permissions", REDIS_ERROR_REFUSED},
    {"LOADING Redis is loading the dataset in memory", REDIS_ERROR_UNFIT},
    {"READONLY You can't write against a read only replica.", REDIS_ERROR_UNFIT},
    {"NOAUTH Authentication required.", REDIS_ERROR_UNFIT},
    {"MASTERDOWN Link with MASTER is down", REDIS_ERROR_UNFIT},
    {"MOVED 3999 127.0.0.1:6381", REDIS_ERROR_UNFIT},
    {"CLUSTERDOWN Hash slot not served", REDIS_ERROR_UNFIT},
    {"ERR max number of clients reached", REDIS_ERROR_UNFIT},
    {"ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -OOM command not allowed",
     REDIS_ERROR_REFUSED},
    {"ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -READONLY You can't write",
     REDIS_ERROR_UNFIT},
    {"ERR Error running script (call to f_0): @user_script:1: attempt to index a nil value", REDIS_ERROR_COMMAND},
};

START_TEST(means)
{
    ck_assert_msg(redis_error_of(span_of(errors[_i].text)) == errors[_i].error, "%s", errors[_i].text);
}
END_TEST

START_TEST(printed_plainly_and_without_secrets)
{
    char out[32];
    redis_error_print(SPAN("ERR a\tb\x1b[0m\xff\r\nmore"), NULL, out, sizeof(out));
    ck_assert_str_eq(out, "ERR a?b?[0m?");
    redis_error_print(SPAN("ERR 'AUTH' with args 'hush'"), "hush", out, sizeof(out));
    ck_assert_str_eq(out, "an error that repeats the passw");
    redis_error_print(SPAN("ERR fine"), "hush", out, 5);
    ck_assert_str_eq(out, "ERR ");
    redis_error_print(SPAN_NONE, "hush", out, sizeof(out));
    ck_assert_str_eq(out, "");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("redis_error");
    tcase_add_loop_test(tc, means, 0, (int)(sizeof(errors) / sizeof(errors[0])));
    tcase_add_test(tc, printed_plainly_and_without_secrets);
    return run_suite("redis_error", tc);
}
