#include "backends/pool.h"
#include "run_suite.h"
#include <stdio.h>
#include <stdlib.h>

#define BACKENDS_MAX 300

/* Backends that need no network: the demo model answers for all of them. */
#define POOL_BACKENDS 256
static struct backend_settings settings[BACKENDS_MAX];
static size_t count;
static struct deadlines deadlines;
static struct fleet_settings fleet_options;
static struct fleet *fleet;
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
    fleet = fleet_create(&fleet_options);
    for (size_t i = 0; i < count; i++) {
        health_settings_init(&settings[i].health);
        ck_assert_ptr_nonnull(fleet_add(fleet, &settings[i], NULL, NULL, NULL));
    }
    pool = pool_create(fleet, NULL, &deadlines, NULL, error, sizeof(error));
    ck_assert_msg(pool != NULL, "%s", error);
}

static void close_pool(void)
{
    if (pool != NULL)
        pool_release(pool);
    deadlines_run(&deadlines, UINT64_MAX);
    if (fleet != NULL)
        fleet_destroy(fleet);
    pool = NULL;
    fleet = NULL;
}

static void setup(void)
{
    deadlines_init(&deadlines);
    count = 0;
    pool = NULL;
    fleet = NULL;
    fleet_settings_init(&fleet_options);
    error[0] = '\0';
}

static void teardown(void)
{
    close_pool();
    while (count != 0)
        backend_settings_dispose(&settings[--count]);
    deadlines_dispose(&deadlines);
}

/* One walk's backends, as "a b c", and the names that they know the model by. */
static char walked[8192], upstream_models[8192];

#define NOW 1000000000
static const struct pool_hint no_hint;

static const char *walk_some(const char *model, const char *only, size_t most)
{
    struct pool_walk walk;
    struct pool_lease lease;
    memset(&walk, 0xff, sizeof(walk));
    walked[0] = upstream_models[0] = '\0';
    pool_walk_start(pool, &walk, span_of(model), only);
    while (most != 0 && pool_walk_next(pool, &walk, &no_hint, &lease, NOW) == POOL_CHOSEN) {
        struct span name = pool_lease_model(&lease);
        sprintf(walked + strlen(walked), "%s%s", walked[0] != '\0' ? " " : "", pool_lease_name(&lease));
        sprintf(upstream_models + strlen(upstream_models), "%s%.*s", upstream_models[0] != '\0' ? " " : "",
                (int)name.len, name.base);
        pool_lease_end(&lease);
        most--;
    }
    if (most != 0) {
        ck_assert_int_ne(pool_walk_next(pool, &walk, &no_hint, &lease, NOW), POOL_CHOSEN); /* and stays at its end */
        ck_assert(!pool_walk_has_more(&walk));
    }
    pool_walk_end(pool, &walk);
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
    ck_assert_str_eq(walk_all("other"), "b c");
    ck_assert_str_eq(first("unheard-of"), "c");
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
    struct pool_walk walks[2];
    struct pool_lease leases[4];
    for (int i = 0; i < 2; i++)
        pool_walk_start(pool, &walks[i], SPAN("m"), NULL);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pool_walk_next(pool, &walks[i % 2], &no_hint, &leases[i], NOW), POOL_CHOSEN);
    for (int i = 0; i < 2; i++) {
        struct pool_lease none;
        ck_assert_str_ne(pool_lease_name(&leases[i]), pool_lease_name(&leases[i + 2]));
        ck_assert_int_eq(pool_walk_next(pool, &walks[i], &no_hint, &none, NOW), POOL_NONE);
        pool_walk_end(pool, &walks[i]);
    }
    for (int i = 0; i < 4; i++)
        pool_lease_end(&leases[i]);
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
    close_pool();
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
    for (size_t i = 0; i < POOL_BACKENDS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "b%zu", i);
        backend(name, NULL);
        sprintf(expected + strlen(expected), "%s%s", i != 0 ? " " : "", name);
    }
    open_pool();
    ck_assert_str_eq(walk_all("m"), expected);
    ck_assert_uint_eq(pool_count(pool), POOL_BACKENDS);
    for (size_t i = 0; i < count; i++) {
        struct pool_member *member = pool_member_hold(pool, i);
        ck_assert_ptr_eq(upstream_settings(pool_member_upstream(member)), &settings[i]);
        pool_member_release(member);
    }
    ck_assert_ptr_null(pool_member_hold(pool, count));
    ck_assert_ptr_null(fleet_add(fleet, backend("one-more", NULL), NULL, NULL, NULL));
}
END_TEST

/* ---- what the fleet says ---- */

static struct fleet_server *server(size_t i)
{
    struct pool_member *member = pool_member_hold(pool, i);
    struct fleet_server *found = pool_member_server(member);
    pool_member_release(member);
    return found;
}

/* The i-th server fails a request for `model`. */
static void fail_one(size_t i, const char *model)
{
    struct pool_walk walk;
    struct pool_lease lease;
    pool_walk_start(pool, &walk, span_of(model), NULL);
    do {
        ck_assert_int_eq(pool_walk_next(pool, &walk, &no_hint, &lease, NOW), POOL_CHOSEN);
        if (strcmp(pool_lease_name(&lease), settings[i].name) == 0)
            break;
        pool_lease_end(&lease);
    } while (true);
    pool_lease_failed(&lease, HEALTH_NO_START, "refused", NOW);
    pool_lease_end(&lease);
    pool_walk_end(pool, &walk);
}

START_TEST(an_ejected_server_is_left_out_and_then_tried_by_one)
{
    backend("a", "m");
    backend("b", "m");
    open_pool();
    for (int i = 0; i < 3; i++)
        fail_one(0, "m");
    for (int i = 0; i < 4; i++)
        ck_assert_str_eq(first("m"), "b");
    /* where nobody else is left it is better than nothing */
    ck_assert_str_eq(walk_all("m"), "b a");
    struct pool_walk walk, other;
    struct pool_lease lease, second;
    uint64_t later = NOW + 6000000;
    pool_walk_start(pool, &walk, SPAN("m"), NULL);
    ck_assert_int_eq(pool_walk_next(pool, &walk, &no_hint, &lease, later), POOL_CHOSEN);
    ck_assert_str_eq(pool_lease_name(&lease), "a");
    pool_walk_start(pool, &other, SPAN("m"), NULL);
    ck_assert_int_eq(pool_walk_next(pool, &other, &no_hint, &second, later), POOL_CHOSEN);
    ck_assert_str_eq(pool_lease_name(&second), "b");
    pool_lease_end(&second);
    pool_walk_end(pool, &other);
    uint64_t until;
    ck_assert_str_eq(fleet_state(server(0), later, &until), "trial");
    pool_lease_answered(&lease, true, later);
    ck_assert_str_eq(fleet_state(server(0), later, &until), "slow_start");
    pool_lease_end(&lease);
    pool_walk_end(pool, &walk);
}
END_TEST

START_TEST(a_trial_that_shows_nothing_is_followed_by_another)
{
    backend("a", "m");
    backend("b", "m");
    open_pool();
    for (int i = 0; i < 3; i++)
        fail_one(0, "m");
    struct pool_walk walk;
    struct pool_lease lease;
    uint64_t later = NOW + 6000000, until;
    for (int i = 0; i < 2; i++) {
        pool_walk_start(pool, &walk, SPAN("m"), NULL);
        ck_assert_int_eq(pool_walk_next(pool, &walk, &no_hint, &lease, later), POOL_CHOSEN);
        ck_assert_str_eq(pool_lease_name(&lease), "a");
        ck_assert_str_eq(fleet_state(server(0), later, &until), "trial");
        pool_lease_end(&lease); /* its client left */
        pool_walk_end(pool, &walk);
        later = UINT64_C(1) << 60; /* pool_lease_end has read the clock */
    }
}
END_TEST

START_TEST(the_last_one_that_serves_a_model_is_not_ejected)
{
    backend("a", "m n");
    backend("b", "n");
    open_pool();
    uint64_t until;
    for (int i = 0; i < 9; i++)
        fail_one(0, "m");
    ck_assert_str_eq(fleet_state(server(0), NOW, &until), "failing");
    for (int i = 0; i < 3; i++)
        fail_one(0, "n");
    ck_assert_str_eq(fleet_state(server(0), NOW, &until), "ejected");
    for (int i = 0; i < 9; i++)
        fail_one(1, "n");
    ck_assert_str_eq(fleet_state(server(1), NOW, &until), "failing");
}
END_TEST

static void check_next(struct pool_walk *walk, const char *name, uint64_t now_us)
{
    struct pool_lease lease;
    ck_assert_int_eq(pool_walk_next(pool, walk, &no_hint, &lease, now_us), POOL_CHOSEN);
    ck_assert_str_eq(pool_lease_name(&lease), name);
    pool_lease_end(&lease);
}

START_TEST(a_failing_one_is_for_those_who_have_nobody_else)
{
    struct pool_walk walk;
    backend("a", "m n");
    backend("b", "n");
    open_pool();
    for (int i = 0; i < 3; i++)
        fail_one(0, "m");
    for (int i = 0; i < 4; i++) {
        pool_walk_start(pool, &walk, SPAN("n"), NULL);
        check_next(&walk, "b", NOW);
        check_next(&walk, "a", NOW); /* better than nobody */
        pool_walk_end(pool, &walk);
        pool_walk_start(pool, &walk, SPAN("m"), NULL);
        check_next(&walk, "a", NOW);
        pool_walk_end(pool, &walk);
    }
    /* When its time is over one request tries it. */
    size_t tried = 0;
    for (int i = 0; i < 4; i++) {
        struct pool_lease lease;
        pool_walk_start(pool, &walk, SPAN("n"), NULL);
        ck_assert_int_eq(pool_walk_next(pool, &walk, &no_hint, &lease, NOW + 6000000), POOL_CHOSEN);
        tried += strcmp(pool_lease_name(&lease), "a") == 0;
        pool_lease_end(&lease);
        pool_walk_end(pool, &walk);
    }
    ck_assert_uint_eq(tried, 1);
}
END_TEST

/* Else every request would try in vain what stands first in the order. */
START_TEST(the_last_one_of_a_step_is_ejected_if_the_next_step_stands)
{
    struct fleet_step steps[] = {{(char *)"gpt-x", (char *)"cloud"}, {(char *)"llama", NULL}};
    struct fleet_alias alias = {.name = (char *)"best", .steps = steps, .step_count = 2};
    fleet_options.aliases = &alias;
    fleet_options.alias_count = 1;
    backend("cloud", "gpt-x");
    backend("local", "llama");
    open_pool();
    for (int i = 0; i < 3; i++)
        fail_one(0, "best");
    ck_assert_str_eq(walk_some("best", NULL, 1), "local");
    ck_assert_str_eq(walk_some("gpt-x", NULL, 1), "cloud"); /* better than nothing */
}
END_TEST

START_TEST(a_paused_server_is_asked_only_if_the_client_would_get_nothing_else)
{
    backend("a", "m");
    backend("b", "m");
    open_pool();
    fleet_pause(server(0), 2000000, NOW);
    struct pool_walk walk;
    struct pool_lease lease;
    pool_walk_start(pool, &walk, SPAN("m"), NULL);
    ck_assert_int_eq(pool_walk_next(pool, &walk, &no_hint, &lease, NOW), POOL_CHOSEN);
    ck_assert_str_eq(pool_lease_name(&lease), "b");
    pool_lease_end(&lease);
    ck_assert_int_eq(pool_walk_next(pool, &walk, &no_hint, &lease, NOW), POOL_NONE);
    pool_walk_end(pool, &walk);
    fleet_pause(server(1), 5000000, NOW);
    ck_assert_str_eq(first("m"), "a"); /* which is back first */
}
END_TEST

START_TEST(a_fallback_order_is_walked_step_by_step)
{
    struct fleet_step steps[] = {{(char *)"gpt-x", (char *)"cloud"}, {(char *)"llama", NULL}};
    struct fleet_alias alias = {.name = (char *)"best", .steps = steps, .step_count = 2};
    fleet_options.aliases = &alias;
    fleet_options.alias_count = 1;
    backend("local-1", "llama=llama-3");
    backend("cloud", "gpt-x llama");
    backend("other-cloud", "gpt-x");
    backend("local-2", "llama");
    open_pool();
    ck_assert_str_eq(walk_all("best"), "cloud local-1 cloud local-2");
    ck_assert_str_eq(upstream_models, "gpt-x llama-3 llama llama");
}
END_TEST

/* ---- places ---- */

START_TEST(a_full_server_is_passed_over_and_a_place_goes_to_whoever_waits)
{
    backend("a", "m")->max_concurrent = 1;
    backend("b", "m")->max_concurrent = 1;
    open_pool();
    struct pool_walk walks[3];
    struct pool_lease leases[3];
    struct fleet_waiter waiter = {0};
    for (int i = 0; i < 3; i++)
        pool_walk_start(pool, &walks[i], SPAN("m"), NULL);
    ck_assert_int_eq(pool_walk_next(pool, &walks[0], &no_hint, &leases[0], NOW), POOL_CHOSEN);
    ck_assert_int_eq(pool_walk_next(pool, &walks[1], &no_hint, &leases[1], NOW), POOL_CHOSEN);
    ck_assert_str_ne(pool_lease_name(&leases[0]), pool_lease_name(&leases[1]));
    ck_assert_int_eq(pool_walk_next(pool, &walks[2], &no_hint, &leases[2], NOW), POOL_FULL);
    pool_stop_waiting(pool, &waiter); /* nothing */
    for (int i = 0; i < 3; i++)
        pool_walk_end(pool, &walks[i]);
    pool_lease_end(&leases[0]);
    pool_lease_end(&leases[1]);
    ck_assert_uint_eq(fleet_in_flight(server(0)), 0);
    ck_assert_uint_eq(fleet_in_flight(server(1)), 0);
}
END_TEST

/* ---- servers that come and go ---- */

static int released;

static void on_release(void *owner)
{
    released += *(int *)owner;
}

START_TEST(servers_come_and_go_while_requests_run)
{
    backend("a", "m");
    open_pool();
    static int one = 1;
    struct backend_settings *b = backend("b", "m");
    health_settings_init(&b->health);
    released = 0;
    struct fleet_server *added = fleet_add(fleet, b, "b@10.0.0.7", on_release, &one);
    ck_assert_str_eq(added->name, "b@10.0.0.7");
    ck_assert_str_eq(walk_all("m"), "a b");
    struct pool_walk walk;
    struct pool_lease leases[2];
    pool_walk_start(pool, &walk, SPAN("m"), NULL);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pool_walk_next(pool, &walk, &no_hint, &leases[i], NOW), POOL_CHOSEN);
    fleet_drain(fleet, added);
    ck_assert_str_eq(walk_all("m"), "a");
    fleet_remove(fleet, added);
    ck_assert_str_eq(walk_some("m", NULL, 5), "a");
    ck_assert_uint_eq(pool_count(pool), 1);
    ck_assert_int_eq(released, 0); /* a request runs on it */
    pool_walk_end(pool, &walk);
    pool_lease_end(&leases[0]);
    pool_lease_end(&leases[1]);
    ck_assert_int_eq(released, 1);
}
END_TEST

START_TEST(tls_files_that_are_not_there_are_told)
{
    backend("fine", NULL);
    struct backend_settings *bad = backend("secure", NULL);
    char problem[128];
    ck_assert(backend_url_parse(SPAN("https://127.0.0.1:1"), bad, problem, sizeof(problem)));
    bad->tls.ca = strdup("/nowhere/ca.pem");
    fleet = fleet_create(&fleet_options);
    for (size_t i = 0; i < count; i++)
        fleet_add(fleet, &settings[i], NULL, NULL, NULL);
    pool = pool_create(fleet, NULL, &deadlines, NULL, error, sizeof(error));
    ck_assert_ptr_null(pool);
    ck_assert_msg(strstr(error, "backend secure: ") == error && strstr(error, "/nowhere/ca.pem") != NULL, "%s", error);
}
END_TEST

START_TEST(what_a_server_lists_is_what_it_serves)
{
    const char *problem;
    backend("a", NULL);
    backend("b", NULL);
    open_pool();
    ck_assert_str_eq(walk_some("x", NULL, 2), "a b");
    struct fleet_set *set = fleet_set_get(fleet);
    fleet_discovered(set->servers[0], model_names_parse(SPAN("{\"data\":[{\"id\":\"y\"}]}"), &problem));
    ck_assert_str_eq(walk_some("x", NULL, 2), "b");
    fleet_discovered(set->servers[1], model_names_parse(SPAN("{\"data\":null}"), &problem));
    ck_assert_str_eq(walk_some("x", NULL, 2), "");
    ck_assert_str_eq(walk_some("y", NULL, 2), "a");
    fleet_set_release(set);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("pool");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, equals_take_turns);
    tcase_add_test(tests, equals_take_turns_whatever_else_is_asked_for);
    tcase_add_test(tests, a_walk_tries_each_that_serves_once);
    tcase_add_test(tests, nobody_serves_it);
    tcase_add_test(tests, two_walks_do_not_disturb_each_other);
    tcase_add_test(tests, what_names_no_model_goes_to_the_default);
    tcase_add_test(tests, only_one_may_serve);
    tcase_add_test(tests, pools_may_be_large);
    tcase_add_test(tests, tls_files_that_are_not_there_are_told);
    tcase_add_test(tests, an_ejected_server_is_left_out_and_then_tried_by_one);
    tcase_add_test(tests, a_trial_that_shows_nothing_is_followed_by_another);
    tcase_add_test(tests, the_last_one_that_serves_a_model_is_not_ejected);
    tcase_add_test(tests, a_failing_one_is_for_those_who_have_nobody_else);
    tcase_add_test(tests, the_last_one_of_a_step_is_ejected_if_the_next_step_stands);
    tcase_add_test(tests, a_paused_server_is_asked_only_if_the_client_would_get_nothing_else);
    tcase_add_test(tests, a_fallback_order_is_walked_step_by_step);
    tcase_add_test(tests, a_full_server_is_passed_over_and_a_place_goes_to_whoever_waits);
    tcase_add_test(tests, servers_come_and_go_while_requests_run);
    tcase_add_test(tests, what_a_server_lists_is_what_it_serves);
    return run_suite("pool", tests);
}
