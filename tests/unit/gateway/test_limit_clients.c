#include "gateway/limit_clients.h"
#include "run_suite.h"
#include <stdio.h>

static struct limit_clients clients;
static struct key_secret secret = {{1, 2}};
static struct key_kind kinds[LIMIT_BY_CONSTANT + 1];

static void setup(void)
{
    clients = (struct limit_clients){.recent = {{.kind = 0}}};
    for (int by = 0; by <= LIMIT_BY_CONSTANT; by++)
        kinds[by] = key_kind_of(&secret, span_of(config_limit_by_name((enum limit_by)by)));
}

/* In memory and for Redis, the digest is the one that is made without a memory. */
static void check(enum limit_by by, struct span value)
{
    struct span kind = span_of(config_limit_by_name(by));
    struct key own = limit_client_key(&clients, &kinds[by], by, value), expected = key_of_client(&secret, kind, value);
    ck_assert(key_eq(&own, &expected));
    struct key common = limit_client_key(&clients, NULL, by, value);
    expected = key_of_client(NULL, kind, value);
    ck_assert(key_eq(&common, &expected));
}

/* Values of all lengths around those that are remembered, asked for in turns: each counts as itself and by its kind. */
START_TEST(who_is_remembered_is_the_same)
{
    char text[LIMIT_CLIENT_MAX + 4];
    memset(text, 'x', sizeof(text));
    for (int round = 0; round < 3; round++)
        for (size_t len = 0; len <= sizeof(text); len++)
            for (int by = 0; by <= LIMIT_BY_CONSTANT; by++)
                check((enum limit_by)by, (struct span){len != 0 ? text : NULL, len});
}
END_TEST

START_TEST(more_than_are_remembered)
{
    char text[32];
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 4 * LIMIT_CLIENTS; i++) {
            int len = snprintf(text, sizeof(text), "%d-model", i);
            check(LIMIT_BY_MODEL, (struct span){text, (size_t)len});
        }
}
END_TEST

/* With the same end, which is what their place comes from, and the same length. */
START_TEST(one_place_for_two)
{
    for (int i = 0; i < 4; i++) {
        check(LIMIT_BY_USER, SPAN("a, 12345678"));
        check(LIMIT_BY_USER, SPAN("b, 12345678"));
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("limit_clients");

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, who_is_remembered_is_the_same);
    tcase_add_test(tests, more_than_are_remembered);
    tcase_add_test(tests, one_place_for_two);
    return run_suite("limit_clients", tests);
}
