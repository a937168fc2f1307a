#include "gateway/identity.h"
#include "run_suite.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const char *const two[] = {"gpt-*", "tiny"};
static const char *const none_matches[] = {"", "GPT-4"};
static const char *const everything[] = {"*"};

START_TEST(an_identity_starts_with_its_name_alone)
{
    char name[] = "somebody";
    struct identity *identity = identity_create(name);
    memset(name, 'x', sizeof(name) - 1); /* it was copied */
    ck_assert_str_eq(identity->name, "somebody");
    ck_assert(identity->model_count == 0 && identity->route_count == 0 && identity->expires == 0);
    ck_assert(identity_may_use_model(identity, SPAN("any")) && identity_may_use_model(identity, SPAN_NONE));
    ck_assert(identity_may_use_route(identity, SPAN("/v1/files/*")));
    identity_release(identity);
    identity_release(NULL);
}
END_TEST

START_TEST(models_and_routes_are_apart)
{
    struct identity *identity = identity_create("a");
    identity->models = two;
    identity->model_count = 2;
    ck_assert(identity_may_use_model(identity, SPAN("gpt-4")) && identity_may_use_model(identity, SPAN("tiny")));
    ck_assert(identity_may_use_model(identity, SPAN("gpt-")));
    ck_assert(!identity_may_use_model(identity, SPAN("gpt")) && !identity_may_use_model(identity, SPAN("tiny2")));
    ck_assert(!identity_may_use_model(identity, SPAN("xgpt-4")) && !identity_may_use_model(identity, SPAN("TINY")));
    ck_assert(!identity_may_use_model(identity, SPAN_NONE));
    ck_assert(identity_may_use_route(identity, SPAN("/any")));

    static const char *const routes[] = {"/v1/chat/*", "/health"};
    identity->model_count = 0;
    identity->routes = routes;
    identity->route_count = 2;
    ck_assert(identity_may_use_route(identity, SPAN("/v1/chat/completions")));
    ck_assert(identity_may_use_route(identity, SPAN("/health")));
    ck_assert(!identity_may_use_route(identity, SPAN("/v1/chat")) && !identity_may_use_route(identity, SPAN("/v1/x")));
    ck_assert(identity_may_use_model(identity, SPAN("any")));

    identity->models = none_matches;
    identity->model_count = 2;
    ck_assert(!identity_may_use_model(identity, SPAN("gpt-4")) && identity_may_use_model(identity, SPAN_NONE));
    identity->models = everything;
    identity->model_count = 1;
    ck_assert(identity_may_use_model(identity, SPAN("x")) && identity_may_use_model(identity, SPAN_NONE));
    identity_release(identity);
}
END_TEST

static void *retain_and_release(void *arg)
{
    for (int i = 0; i < 20000; i++)
        identity_release(identity_retain(arg));
    identity_release(arg);
    return NULL;
}

/* AddressSanitizer tells of a use after the last release, LeakSanitizer of a count that is left over. */
START_TEST(threads_share_it)
{
    struct identity *identity = identity_create("shared");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, retain_and_release, identity_retain(identity)), 0);
    ck_assert_str_eq(identity->name, "shared");
    identity_release(identity);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("identity");

    tcase_add_test(tests, an_identity_starts_with_its_name_alone);
    tcase_add_test(tests, models_and_routes_are_apart);
    tcase_add_test(tests, threads_share_it);
    return run_suite("identity", tests);
}
