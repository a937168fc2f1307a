#include "backends/pool.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define BACKENDS_MAX 300

/* Backends that need no network: the demo model answers for all of them. */
static struct backend_settings settings[BACKENDS_MAX];
static size_t count;
static struct deadlines deadlines;
static struct pool *pool;
static char error[256];

/* Adds a backend that serves `models` ("a b", "a=upstream-a"; NULL: all). */
static struct backend_settings *backend(const char *name, const char *models)
{
    struct backend_settings *added = &settings[count++];
    backend_settings_init(added);
    added->name = strdup(name);
    added->url.kind = BACKEND_DEMO;
    char *copy = models != NULL ? strdup(models) : NULL, *rest = copy, *word;
    while (copy != NULL && (word = strsep(&rest, " ")) != NULL) {
        char *pattern = strsep(&word, "=");
        added->models = realloc(added->models, (added->model_count + 1) * sizeof(*added->models));
        added->models[added->model_count++] =
            (struct backend_model){strdup(pattern), word != NULL ? strdup(word) : NULL};
    }
    free(copy);
    return added;
}

static void open_pool(void)
{
    pool = pool_create(settings, count, NULL, &deadlines, error, sizeof(error));
    ck_assert_msg(pool != NULL, "%s", error);
}

static void setup(void)
{
    deadlines_init(&deadlines);
    count = 0;
    pool = NULL;
    error[0] = '\0';
}

static void teardown(void)
{
    if (pool != NULL)
        pool_release(pool);
    deadlines_run(&deadlines, UINT64_MAX);
    while (count != 0)
        backend_settings_dispose(&settings[--count]);
    deadlines_dispose(&deadlines);
}

/* One walk's backends, as "a b c", and the names that they know the model by. */
static char walked[8192], upstream_models[8192];

static const char *walk_some(const char *model, const char *only, size_t most)
{
    struct pool_walk walk;
    struct upstream *upstream;
    struct span name;
    memset(&walk, 0xff, sizeof(walk));
    walked[0] = upstream_models[0] = '\0';
    pool_walk_start(pool, &walk, span_of(model), only);
    while (most-- != 0 && (upstream = pool_walk_next(pool, &walk, &name)) != NULL) {
        sprintf(walked + strlen(walked), "%s%s", walked[0] != '\0' ? " " : "", upstream_settings(upstream)->name);
        sprintf(upstream_models + strlen(upstream_models), "%s%.*s", upstream_models[0] != '\0' ? " " : "",
                (int)name.len, name.base);
    }
    if (most != SIZE_MAX)
        ck_assert_ptr_null(pool_walk_next(pool, &walk, &name)); /* and stays at its end */
    return walked;
}

static const char *walk_all(const char *model)
{
    return walk_some(model, NULL, BACKENDS_MAX);
}

static const char *first(const char *model)
{
    return walk_some(model, NULL, 1);
}

START_TEST(equals_take_turns)
{
    backend("a", "m");
    backend("b", "m");
    backend("c", "m");
    open_pool();
    for (int i = 0; i < 4; i++) {
        ck_assert_str_eq(first("m"), "a");
        ck_assert_str_eq(first("m"), "b");
        ck_assert_str_eq(first("m"), "c");
    }
}
END_TEST

/* A strict alternation of two models would starve half of each if one counter served all. */
START_TEST(equals_take_turns_whatever_else_is_asked_for)
{
    backend("a", "m");
    backend("b", "m");
    backend("x", "n");
    backend("y", "n");
    backend("z", "n");
    open_pool();
    for (int i = 0; i < 12; i++) {
        static const char *const pairs[] = {"a", "b"}, *const triples[] = {"x", "y", "z"};
        ck_assert_str_eq(first("m"), pairs[i % 2]);
        ck_assert_str_eq(first("n"), triples[i % 3]);
    }
}
END_TEST

START_TEST(whoever_served_another_model_has_had_a_turn)
{
    backend("a", "m n");
    backend("b", "m");
    open_pool();
    ck_assert_str_eq(first("n"), "a");
    ck_assert_str_eq(first("m"), "b");
    ck_assert_str_eq(first("m"), "a");
    ck_assert_str_eq(first("n"), "a");
    ck_assert_str_eq(first("m"), "b");
}
END_TEST

START_TEST(a_walk_tries_each_that_serves_once)
{
    backend("a", "m");
    backend("b", "other");
    backend("c", NULL);
    backend("d", "x m=the-m");
    backend("e", "m*");
    open_pool();
    ck_assert_str_eq(walk_all("m"), "a c d e");
    ck_assert_str_eq(upstream_models, "m m the-m m");
    ck_assert_str_eq(first("m"), "a");
    ck_assert_str_eq(walk_all("m"), "c d e a");
    ck_assert_str_eq(upstream_models, "m the-m m m");
    ck_assert_str_eq(walk_all("other"), "b c");
    ck_assert_str_eq(walk_all("unheard-of"), "c");
}
END_TEST

START_TEST(nobody_serves_it)
{
    backend("a", "m");
    open_pool();
    ck_assert_str_eq(walk_all("n"), "");
    ck_assert_str_eq(walk_all("M"), "");
    ck_assert_str_eq(walk_all("m"), "a");
}
END_TEST

START_TEST(two_walks_do_not_disturb_each_other)
{
    backend("a", NULL);
    backend("b", NULL);
    open_pool();
    struct pool_walk one, two;
    struct span name;
    pool_walk_start(pool, &one, SPAN("m"), NULL);
    pool_walk_start(pool, &two, SPAN("m"), NULL);
    ck_assert_ptr_eq(pool_walk_next(pool, &one, &name), pool_at(pool, 0));
    ck_assert_ptr_eq(pool_walk_next(pool, &two, &name), pool_at(pool, 1));
    ck_assert_ptr_eq(pool_walk_next(pool, &two, &name), pool_at(pool, 0));
    ck_assert_ptr_eq(pool_walk_next(pool, &one, &name), pool_at(pool, 1));
    ck_assert_ptr_null(pool_walk_next(pool, &one, &name));
    ck_assert_ptr_null(pool_walk_next(pool, &two, &name));
}
END_TEST

START_TEST(what_names_no_model_goes_to_the_default)
{
    backend("a", "m");
    backend("b", "n");
    struct backend_settings *c = backend("c", "o");
    open_pool();
    for (int i = 0; i < 3; i++)
        ck_assert_str_eq(walk_all(""), "a");
    pool_release(pool);
    deadlines_run(&deadlines, UINT64_MAX);
    c->is_default = true;
    open_pool();
    for (int i = 0; i < 3; i++)
        ck_assert_str_eq(walk_all(""), "c");
    ck_assert_str_eq(upstream_models, "");
    ck_assert_str_eq(walk_all("m"), "a");
}
END_TEST

START_TEST(only_one_may_serve)
{
    backend("a", "m");
    backend("b", "n")->is_default = true;
    open_pool();
    for (int i = 0; i < 3; i++) {
        ck_assert_str_eq(walk_some("m", "b", 9), "b"); /* whatever its models are */
        ck_assert_str_eq(walk_some("", "a", 9), "a");
    }
    ck_assert_str_eq(walk_some("m", "c", 9), "");
}
END_TEST

START_TEST(pools_may_be_large)
{
    char expected[8192] = "";
    for (size_t i = 0; i < POOL_BACKENDS_MAX; i++) {
        char name[16];
        snprintf(name, sizeof(name), "b%zu", i);
        backend(name, NULL);
        sprintf(expected + strlen(expected), "%s%s", i != 0 ? " " : "", name);
    }
    open_pool();
    ck_assert_str_eq(walk_all("m"), expected);
    ck_assert_str_eq(walk_all("m"), expected);
    for (size_t i = 0; i < count; i++)
        ck_assert_ptr_eq(upstream_settings(pool_at(pool, i)), &settings[i]);
    ck_assert_ptr_null(pool_at(pool, count));
    ck_assert_ptr_null(pool_at(pool, SIZE_MAX));
    pool_release(pool);
    deadlines_run(&deadlines, UINT64_MAX);
    backend("one-more", NULL);
    pool = pool_create(settings, count, NULL, &deadlines, error, sizeof(error));
    ck_assert_ptr_null(pool);
    ck_assert_str_eq(error, "more than 256 backends");
}
END_TEST

START_TEST(tls_files_that_are_not_there_are_told)
{
    backend("fine", NULL);
    struct backend_settings *bad = backend("secure", NULL);
    char problem[128];
    ck_assert(backend_url_parse(SPAN("https://127.0.0.1:1"), bad, problem, sizeof(problem)));
    bad->tls.ca = strdup("/nowhere/ca.pem");
    pool = pool_create(settings, count, NULL, &deadlines, error, sizeof(error));
    ck_assert_ptr_null(pool);
    ck_assert_msg(strstr(error, "backend secure: ") == error && strstr(error, "/nowhere/ca.pem") != NULL, "%s", error);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *tests = tcase_create("pool");
    SRunner *runner = srunner_create(suite);

    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, equals_take_turns);
    tcase_add_test(tests, equals_take_turns_whatever_else_is_asked_for);
    tcase_add_test(tests, whoever_served_another_model_has_had_a_turn);
    tcase_add_test(tests, a_walk_tries_each_that_serves_once);
    tcase_add_test(tests, nobody_serves_it);
    tcase_add_test(tests, two_walks_do_not_disturb_each_other);
    tcase_add_test(tests, what_names_no_model_goes_to_the_default);
    tcase_add_test(tests, only_one_may_serve);
    tcase_add_test(tests, pools_may_be_large);
    tcase_add_test(tests, tls_files_that_are_not_there_are_told);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
