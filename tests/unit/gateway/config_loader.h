/* Loads configurations, for tests: each from a file, variables and options of its own, in a folder of its own. */
#ifndef WEIR_TESTS_CONFIG_LOADER_H
#define WEIR_TESTS_CONFIG_LOADER_H

#include "gateway/config.h"
#include "run_suite.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* What a load starts from: the text of ./weir.yaml, variables as NAME, VALUE, …, and options. */
struct given {
    const char *yaml;
    const char *env[7];
    struct config_options options;
};

static const char *const *environment;
static char folder[] = "/tmp/weir-config-XXXXXX";

static inline char *fake_getenv(const char *name)
{
    for (size_t i = 0; environment[i] != NULL; i += 2) {
        if (strcmp(environment[i], name) == 0)
            return (char *)(uintptr_t)environment[i + 1];
    }
    return NULL;
}

static inline void write_file(const char *name, const char *text, size_t len)
{
    FILE *file = fopen(name, "w");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, len, file), len);
    ck_assert_int_eq(fclose(file), 0);
}

static inline struct config *load(const struct given *given, char error[1024])
{
    const char *yaml = given->yaml != NULL ? given->yaml : "";

    environment = given->env;
    error[0] = '\0';
    write_file("weir.yaml", yaml, strlen(yaml));
    return config_load(&given->options, fake_getenv, error, 1024);
}

static inline struct config *load_ok(const struct given *given)
{
    char error[1024];
    struct config *config = load(given, error);

    ck_assert_msg(config != NULL, "%s", error);
    ck_assert_str_eq(error, "");
    return config;
}

static inline struct config *load_yaml(const char *yaml)
{
    const struct given given = {.yaml = yaml};

    return load_ok(&given);
}

/* A key and a limit in a file. */
#define KEY "keys: [{name: a, key: secret-1}]\n"
#define LIMIT "limits:\n  a:\n    limit: 60/minute\n"

/* Options. */
#define LISTEN(...) .listen = (const char *[]){__VA_ARGS__}, .listen_count = COUNT(((const char *[]){__VA_ARGS__}))
#define BACKENDS(...) .backends = (const char *[]){__VA_ARGS__}, .backend_count = COUNT(((const char *[]){__VA_ARGS__}))
#define KEYS(...) .api_keys = (const char *[]){__VA_ARGS__}, .api_key_count = COUNT(((const char *[]){__VA_ARGS__}))

/* The fixture of all tests that load: the folder, with files of secrets in it. */
static inline void prepare(void)
{
    static const char keys[] = "# for the two\n\nsecret-1\r\n  with,comma#inside  \n";
    char *large = malloc((1 << 20) + 1);

    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
    write_file("keys.txt", keys, sizeof(keys) - 1);
    write_file("no-keys.txt", "# none\n\n", 8);
    write_file("redis.txt", "# ours\nredis+sentinel://u:p%40@a,b:2/m/3\n", 41);
    write_file("two-redis.txt", "/a\n/b\n", 6);
    write_file("short-key.txt", "short\n", 6);
    write_file("binary-key.txt", "secret-1\0more\n", 14);
    memset(large, '\n', (1 << 20) + 1);
    write_file("large.txt", large, (1 << 20) + 1);
    free(large);
}

static inline void clean_up(void)
{
    char command[sizeof(folder) + 16];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    ck_assert_int_eq(chdir("/"), 0);
    ck_assert_int_eq(system(command), 0);
}

#endif
