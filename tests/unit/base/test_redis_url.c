#include "base/redis_url.h"
#include "run_suite.h"
#include <stdio.h>

static struct redis_url url;
static char error[512];

static const struct {
    const char *text, *printed, *user, *password;
} good[] = {
    {"redis://127.0.0.1:6380/3", "redis://127.0.0.1:6380/3", NULL, NULL},
    {"redis://cache.example.com", "redis://cache.example.com:6379/0", NULL, NULL},
    {"REDIS://h/", "redis://h:6379/0", NULL, NULL},
    {"redis://[::1]:7000/1", "redis://[::1]:7000/1", NULL, NULL},
    {"redis://[fe80::1%eth0]", "redis://[fe80::1%eth0]:6379/0", NULL, NULL},
    {"redis://:hush@h", "redis://h:6379/0", NULL, "hush"},
    {"redis://bob:hush@h:1/65535", "redis://h:1/65535", "bob", "hush"},
    {"redis://b%6fb:a%2Fb%40c%3a%25@h", "redis://h:6379/0", "bob", "a/b@c:%"},
    {"redis://:a:b@c@h", "redis://h:6379/0", NULL, "a:b@c"},
    {"redis+sentinel://a,b:1,[::2]:26380/mymaster", "redis+sentinel://a:26379,b:1,[::2]:26380/mymaster/0", NULL, NULL},
    {"redis+sentinel://u:p@a/m/4", "redis+sentinel://a:26379/m/4", "u", "p"},
    {"unix:///run/redis/redis.sock", "unix:///run/redis/redis.sock", NULL, NULL},
    {"redis+unix://:p@/r.sock?db=2", "unix:///r.sock?db=2", NULL, "p"},
    {"unix://u:p@/r@x.sock", "unix:///r@x.sock", "u", "p"},
    {"/run/redis.sock", "unix:///run/redis.sock", NULL, NULL},
};

static void check_text(const char *is, const char *expected)
{
    ck_assert_int_eq(is == NULL, expected == NULL);
    if (is != NULL)
        ck_assert_str_eq(is, expected);
}

START_TEST(reads_what_people_write)
{
    char printed[512];
    ck_assert_msg(redis_url_parse(span_of(good[_i].text), &url, error, sizeof(error)), "%s: %s", good[_i].text, error);
    redis_url_print(&url, printed, sizeof(printed));
    ck_assert_str_eq(printed, good[_i].printed);
    check_text(url.user, good[_i].user);
    check_text(url.password, good[_i].password);
    redis_url_dispose(&url);
    redis_url_print(&url, printed, 4);
    ck_assert_uint_lt(strlen(printed), 4);
}
END_TEST

static const struct {
    const char *text, *part;
} bad[] = {
    {"", "expected redis://"},
    {"127.0.0.1:6379", "expected redis://"},
    {"http://hush", "expected redis://"},
    {"rediss://:hush@h", "TLS to Redis is not supported"},
    {"rediss+sentinel://:hush@h/m", "TLS"},
    {"redis+cluster://h", "Cluster is not supported"},
    {"redis://", "no host"},
    {"redis:///0", "no host"},
    {"redis://:hush@", "no host"},
    {"redis://h:0", "port"},
    {"redis://h:65536", "port"},
    {"redis://h:6379x", "port"},
    {"redis://h:", "port"},
    {"redis://::1", "no host"},
    {"redis://fe80::1", "port"},
    {"redis://[::1", "without a ]"},
    {"redis://[]", "no host"},
    {"redis://[::1]x", "port"},
    {"redis://h/x", "database"},
    {"redis://h/-1", "database"},
    {"redis://h/65536", "database"},
    {"redis://h/0/1", "database"},
    {"redis://a,b", "several hosts"},
    {"redis://hush@h", "user without a password"},
    {"redis://bob:@h", "password is empty"},
    {"redis://:hu%sh@h", "hexadecimal"},
    {"redis://:hush%2@h", "hexadecimal"},
    {"redis://:hush%00@h", "hexadecimal"},
    {"redis://:hu/sh@h", "%2F"},
    {"redis://h h", "blank"},
    {"redis://h\n", "blank"},
    {"redis://h?db=1", "no host"},
    {"redis://h_\xc3\xa4", "no host"},
    {"redis+sentinel://a,b", "master's name"},
    {"redis+sentinel://a,b/", "master's name"},
    {"redis+sentinel://a,,b/m", "no host"},
    {"redis+sentinel:///m", "no host"},
    {"redis+sentinel://a/m/x", "database"},
    {"redis+sentinel://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17/m", "too many"},
    {"unix://relative", "not absolute"},
    {"unix://", "missing"},
    {"unix:///", "missing"},
    {"unix://:hush@relative", "not absolute"},
    {"unix:///x?db=y", "database"},
    {"unix:///x?hush", "unknown"},
    {"/x?db=1", "unix:///PATH?db=N"},
    {"unix:///"
     "01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456"
     "789",
     "too long"},
};

START_TEST(refuses_the_rest_without_telling_secrets)
{
    ck_assert_msg(!redis_url_parse(span_of(bad[_i].text), &url, error, sizeof(error)), "%s", bad[_i].text);
    ck_assert_msg(strstr(error, bad[_i].part) != NULL, "%s: %s", bad[_i].text, error);
    ck_assert_msg(strstr(error, "hush") == NULL, "%s", error);
    ck_assert_uint_eq(url.host_count, 0);
    ck_assert_ptr_null(url.unix_path);
    ck_assert_ptr_null(url.password);
}
END_TEST

/* Every beginning of every good one, and every byte of it replaced: no crash, no leak, no unterminated message. */
START_TEST(any_input)
{
    const char *text = good[_i].text;
    char copy[128];
    size_t len = strlen(text);
    for (size_t n = 0; n <= len; n++)
        if (redis_url_parse((struct span){text, n}, &url, error, sizeof(error)))
            redis_url_dispose(&url);
    for (size_t n = 0; n < len; n++)
        for (int byte = 0; byte < 256; byte++) {
            memcpy(copy, text, len);
            copy[n] = (char)byte;
            if (redis_url_parse((struct span){copy, len}, &url, error, sizeof(error)))
                redis_url_dispose(&url);
        }
    char *large = calloc(1, 100000);
    memset(large, 'a', 100000);
    memcpy(large, "redis://", 8);
    ck_assert(!redis_url_parse((struct span){large, 100000}, &url, error, sizeof(error)));
    free(large);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("redis_url");
    tcase_add_loop_test(tc, reads_what_people_write, 0, (int)(sizeof(good) / sizeof(good[0])));
    tcase_add_loop_test(tc, refuses_the_rest_without_telling_secrets, 0, (int)(sizeof(bad) / sizeof(bad[0])));
    tcase_add_loop_test(tc, any_input, 0, (int)(sizeof(good) / sizeof(good[0])));
    return run_suite("redis_url", tc);
}
