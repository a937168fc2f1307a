/* What the command line makes: API keys, their hashes, and the file that `weir init` writes. */
#include "gateway/cli.h"
#include "gateway/config.h"
#include "run_suite.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

START_TEST(keys_are_base64url_and_differ)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char last[CLI_KEY_LEN + 1] = "";
    for (int i = 0; i != 200; ++i) {
        char key[CLI_KEY_LEN + 1];
        cli_keys_make(key);
        ck_assert_uint_eq(strlen(key), CLI_KEY_LEN);
        ck_assert_int_eq(strncmp(key, "wk-", 3), 0);
        ck_assert_uint_eq(strspn(key + 3, alphabet), CLI_KEY_LEN - 3);
        ck_assert_str_ne(key, last);
        ck_assert(cli_keys_usable(span_of(key)));
        memcpy(last, key, sizeof(last));
    }
}
END_TEST

START_TEST(a_hash_is_sha256)
{
    char hash[CLI_KEY_HASH_LEN + 1];
    cli_keys_hash(SPAN("abc"), hash); /* FIPS 180-2, appendix B.1 */
    ck_assert_str_eq(hash, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
END_TEST

START_TEST(only_what_a_header_can_carry_is_a_key)
{
    ck_assert(cli_keys_usable(SPAN("!~wk-_.=")));
    static const struct span bad[] = {{NULL, 0}, {"a b", 3}, {"a\n", 2}, {"a\0", 2}, {"\177", 1}, {"\303\274", 2}};
    for (size_t i = 0; i != sizeof(bad) / sizeof(*bad); ++i)
        ck_assert_msg(!cli_keys_usable(bad[i]), "case %zu was accepted", i);
}
END_TEST

static char *test_env(const char *name)
{
    static char secret[] = "a-secret-of-this-test";
    return strcmp(name, "CLOUD_KEY") == 0 || strcmp(name, "BOB_KEY") == 0 || strcmp(name, "REDIS_PASSWORD") == 0
               ? secret
               : NULL;
}

/* Loads `text` as a file. */
static struct config *load(struct span text)
{
    char path[] = "/tmp/weir-test-XXXXXX", error[1024] = "";
    int fd = mkstemp(path);
    ck_assert_int_ne(fd, -1);
    ck_assert_int_eq(write(fd, text.base, text.len), (int)text.len);
    close(fd);
    struct config_options options = {.file = path};
    struct config *config = config_load(&options, test_env, error, sizeof(error));
    unlink(path);
    ck_assert_msg(config != NULL, "%s", error);
    return config;
}

START_TEST(the_file_of_init_works_as_it_is)
{
    struct config *config = load(cli_init_text());
    ck_assert_uint_eq(config->listen_count, 1);
    ck_assert_str_eq(config->listen[0].address, "127.0.0.1:8080");
    ck_assert_uint_eq(config->backend_count, 1);
    ck_assert_int_eq(config->backends[0].url.kind, BACKEND_DEMO);
    ck_assert_uint_eq(config->key_count, 0);
    config_release(config);
}
END_TEST

/* The commented settings of the file, whose '#' has no blank behind it or at least two, are no idle talk. */
START_TEST(the_file_of_init_works_with_everything_in_use)
{
    struct span text = cli_init_text();
    struct strbuf all;
    strbuf_init(&all, 65536);
    for (size_t i = 0; i != text.len; ++i) {
        bool starts_line = i == 0 || text.base[i - 1] == '\n';
        bool setting =
            i + 2 < text.len && text.base[i + 1] != '\n' && (text.base[i + 1] != ' ' || text.base[i + 2] == ' ');
        if (!(starts_line && text.base[i] == '#' && setting))
            strbuf_putc(&all, text.base[i]);
    }
    struct config *config = load(strbuf_span(&all));
    ck_assert_uint_eq(config->listen_count, 3);
    ck_assert_uint_eq(config->backend_count, 3);
    ck_assert_uint_eq(config->key_count, 2);
    ck_assert_uint_eq(config->route_count, 4);
    ck_assert_uint_eq(config->routes[0].depend_count, 4);
    ck_assert_uint_eq(config->limit_count, 3);
    ck_assert_uint_eq(config->limits[1].exempt_key_count, 1);
    ck_assert_uint_eq(config->keys[1].limit_count, 1);
    ck_assert(config->cache.on);
    config_release(config);
    strbuf_dispose(&all);
}
END_TEST

START_TEST(the_line_of_keys_create_works_in_the_file)
{
    struct strbuf file;
    char key[CLI_KEY_LEN + 1], hash[CLI_KEY_HASH_LEN + 1];
    cli_keys_make(key);
    cli_keys_hash(span_of(key), hash);
    strbuf_init(&file, 4096);
    strbuf_puts(&file, "keys:\n");
    cli_keys_yaml(SPAN("al:ice#"), hash, &file);
    strbuf_puts(&file, "\n");
    struct config *config = load(strbuf_span(&file));
    ck_assert_uint_eq(config->key_count, 1);
    ck_assert_str_eq(config->keys[0].name, "al:ice#");
    char kept[CLI_KEY_HASH_LEN + 1] = "sha256:";
    for (size_t i = 0; i != sizeof(config->keys[0].hash); ++i)
        snprintf(kept + 7 + 2 * i, 3, "%02x", config->keys[0].hash[i]);
    ck_assert_str_eq(kept, hash);
    config_release(config);
    strbuf_dispose(&file);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("cli");
    tcase_add_test(tests, keys_are_base64url_and_differ);
    tcase_add_test(tests, a_hash_is_sha256);
    tcase_add_test(tests, only_what_a_header_can_carry_is_a_key);
    tcase_add_test(tests, the_file_of_init_works_as_it_is);
    tcase_add_test(tests, the_file_of_init_works_with_everything_in_use);
    tcase_add_test(tests, the_line_of_keys_create_works_in_the_file);
    return run_suite("gateway/cli", tests);
}
