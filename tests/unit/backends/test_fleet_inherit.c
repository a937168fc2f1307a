#include "backends/fleet.h"
#include "base/clock.h"
#include "run_suite.h"
#include <arpa/inet.h>
#include <stdlib.h>

static struct fleet_settings options;
static struct fleet *before, *after;
static struct backend_settings first[2], second[2]; /* before and after */
static struct fleet_server *old[2], *new[2];
static uint64_t now;

static void describe(struct backend_settings *settings, const char *name)
{
    char error[256];
    backend_settings_init(settings);
    health_settings_init(&settings->health);
    settings->name = strdup(name);
    ck_assert(backend_url_parse(SPAN("http://models.example:8000"), settings, error, sizeof(error)));
}

static void setup(void)
{
    now = clock_us();
    fleet_settings_init(&options);
    before = fleet_create(&options);
    for (int i = 0; i < 2; i++) {
        describe(&first[i], i == 0 ? "a" : "b");
        describe(&second[i], i == 0 ? "a" : "b");
        old[i] = fleet_add(before, &first[i], NULL, NULL, NULL);
    }
}

/* The new fleet, with the servers in another order. */
static void reload(void)
{
    after = fleet_create(&options);
    for (int i = 1; i >= 0; i--)
        new[i] = fleet_add(after, &second[i], NULL, NULL, NULL);
    fleet_inherit(after, before, now);
}

static void teardown(void)
{
    fleet_destroy(before);
    fleet_destroy(after);
    for (int i = 0; i < 2; i++) {
        backend_settings_dispose(&first[i]);
        backend_settings_dispose(&second[i]);
    }
}

static void eject(struct fleet_server *server)
{
    for (int i = 0; i < 3; i++) {
        fleet_take(server);
        fleet_give_back(server);
        fleet_failed(server, HEALTH_NO_START, old, 2, "it fails", now);
    }
}

static const char *state(const struct fleet_server *server)
{
    uint64_t until;
    return fleet_state(server, now, &until);
}

static struct model_names *names(const char *list)
{
    const char *problem;
    struct model_names *parsed = model_names_parse(span_of(list), &problem);
    ck_assert_ptr_nonnull(parsed);
    return parsed;
}

static struct fleet_server *place(struct fleet *fleet, struct fleet_server *root, const char *name, const char *address)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(8000)};
    inet_pton(AF_INET, address, &at.sin_addr);
    return fleet_add_place(fleet, root, name, (const struct sockaddr *)&at, sizeof(at), false);
}

START_TEST(what_is_known_of_a_server_stays_known)
{
    eject(old[0]);
    fleet_answered(old[1], 5000, now);
    fleet_take(old[1]);
    reload();
    ck_assert_str_eq(state(new[0]), "ejected");
    ck_assert_uint_eq(new[0]->ejections, 1);
    ck_assert_uint_eq(fleet_begun(new[0]), 3);
    ck_assert_int_eq(fleet_standing(new[0], now), FLEET_CLOSED);
    ck_assert_str_eq(state(new[1]), "healthy");
    ck_assert_uint_ne(fleet_latency_us(old[1], now), 0);
    ck_assert_uint_eq(fleet_latency_us(new[1], now), fleet_latency_us(old[1], now));
    ck_assert_uint_eq(fleet_in_flight(new[1]), 0);
    ck_assert_uint_eq(fleet_in_flight(old[1]), 1);
    /* It comes back in the new fleet, as it would have in the old one. */
    uint64_t later = now + second[0].health.ejection_us;
    ck_assert(fleet_begin_trial(new[0], later));
    fleet_answered(new[0], 1, later);
    ck_assert_str_eq(state(new[0]), "slow_start");
    ck_assert_str_eq(state(old[0]), "ejected");
    fleet_give_back(old[1]);
}
END_TEST

START_TEST(failures_in_a_row_are_counted_on)
{
    for (int i = 0; i < 2; i++)
        fleet_failed(old[0], HEALTH_NO_START, old, 2, "it fails", now);
    reload();
    ck_assert_str_eq(state(new[0]), "healthy");
    fleet_failed(new[0], HEALTH_NO_START, new, 2, "it fails", now);
    ck_assert_str_eq(state(new[0]), "ejected");
}
END_TEST

START_TEST(a_good_answer_ends_what_was_counted_before)
{
    for (int i = 0; i < 2; i++)
        fleet_failed(old[0], HEALTH_NO_START, old, 2, "it fails", now);
    reload();
    fleet_answered(new[0], 1, now);
    fleet_failed(new[0], HEALTH_NO_START, new, 2, "it fails", now);
    ck_assert_str_eq(state(new[0]), "healthy");
}
END_TEST

START_TEST(a_pause_goes_on)
{
    fleet_pause(old[0], 30000000, now);
    reload();
    ck_assert_str_eq(state(new[0]), "paused");
    ck_assert_uint_eq(new[0]->pauses, 1);
}
END_TEST

START_TEST(a_trial_under_way_leaves_room_for_another)
{
    eject(old[0]);
    now += first[0].health.ejection_us;
    ck_assert(fleet_begin_trial(old[0], now));
    reload();
    ck_assert_int_eq(fleet_standing(new[0], now), FLEET_TRIAL);
    ck_assert(fleet_begin_trial(new[0], now));
}
END_TEST

START_TEST(what_failed_probes_is_brought_back_by_probes)
{
    fleet_probed(old[0], false, "no answer", now);
    reload();
    ck_assert_str_eq(state(new[0]), "ejected");
    ck_assert_uint_eq(new[0]->_probed, FLEET_PROBE_DOWN);
    fleet_probed(new[0], true, NULL, now);
    ck_assert_str_eq(state(new[0]), "slow_start");
}
END_TEST

START_TEST(a_drained_server_stays_drained_until_that_is_ended)
{
    fleet_drain(before, old[0]);
    if (_i == 1)
        second[0].health.failures++;
    reload();
    ck_assert_str_eq(state(new[0]), "draining");
    ck_assert_str_eq(state(new[1]), "healthy");
    fleet_undrain(after, new[0]);
    ck_assert_int_eq(fleet_standing(new[0], now), FLEET_OPEN);
}
END_TEST

START_TEST(one_that_was_leaving_begins_anew)
{
    eject(old[0]);
    fleet_drain(before, old[0]);
    old[0]->leaving = true;
    reload();
    ck_assert_str_eq(state(new[0]), "healthy");
}
END_TEST

START_TEST(a_server_that_is_asked_otherwise_begins_anew)
{
    eject(old[0]);
    switch (_i) {
    case 0:
        second[0].url.port++;
        break;
    case 1:
        second[0].api_key = strdup("sk-new");
        break;
    case 2:
        second[0].tls.verify = false;
        break;
    case 3:
        second[0].timeouts.first_token++;
        break;
    case 4:
        second[0].health.failures++;
        break;
    case 5:
        second[0].health.probe_path = strdup("/health");
        break;
    case 6:
        second[0].name[0] = 'c';
        break;
    default:
        second[0].headers = calloc(1, sizeof(second[0].headers[0]));
        second[0].headers[0].name = strdup("x-a");
        second[0].headers[0].value = strdup("1");
        second[0].header_count = 1;
    }
    reload();
    ck_assert_str_eq(state(new[0]), "healthy");
    ck_assert_uint_eq(fleet_begun(new[0]), 0);
}
END_TEST

START_TEST(one_that_is_only_weighed_otherwise_stays_known)
{
    eject(old[0]);
    second[0].weight = 5;
    second[0].max_concurrent = 7;
    reload();
    ck_assert_str_eq(state(new[0]), "ejected");
    ck_assert_uint_eq(new[0]->weight, 5);
}
END_TEST

START_TEST(the_list_of_models_stays_as_long_as_it_is_asked_for)
{
    first[0].discover_us = first[1].discover_us = second[0].discover_us = 1000000;
    fleet_discovered(old[0], names("{\"data\":[{\"id\":\"x\"}]}"));
    fleet_discovered(old[1], names("{\"data\":[{\"id\":\"y\"}]}"));
    fleet_discovery_failed(old[0], "no answer");
    reload();
    char problem[100];
    struct model_names *known = fleet_names(new[0], problem, sizeof(problem));
    ck_assert_ptr_nonnull(known);
    ck_assert(model_names_has(known, SPAN("x")));
    ck_assert_str_eq(problem, "no answer");
    model_names_release(known);
    ck_assert_ptr_null(fleet_names(new[1], NULL, 0));
}
END_TEST

/* Before: "a" has two addresses, one of which fails and the other is drained. */
START_TEST(an_address_is_known_again_when_its_name_has_been_looked_up)
{
    first[0].discover_us = second[0].discover_us = 1000000;
    struct fleet_server *one = place(before, old[0], "a [10.0.0.1]", "10.0.0.1"),
                        *two = place(before, old[0], "a [10.0.0.2]", "10.0.0.2");
    fleet_discovered(one, names("{\"data\":[{\"id\":\"x\"}]}"));
    fleet_remove(before, old[0]);
    eject(one);
    fleet_drain(before, two);
    reload();
    ck_assert_str_eq(state(new[0]), "healthy");
    struct model_names *known = fleet_names(new[0], NULL, 0);
    ck_assert_ptr_nonnull(known);
    model_names_release(known);
    /* A second reload before anything was looked up. */
    struct fleet *newest = fleet_create(&options);
    struct fleet_server *root = fleet_add(newest, &second[0], NULL, NULL, NULL);
    fleet_inherit(newest, after, now);
    one = place(newest, root, "a [10.0.0.1]", "10.0.0.1");
    two = place(newest, root, "a [10.0.0.2]", "10.0.0.2");
    ck_assert_str_eq(state(one), "ejected");
    ck_assert_str_eq(state(two), "draining");
    /* Once: when it goes and comes again it is a new one. */
    fleet_remove(newest, one);
    ck_assert_str_eq(state(place(newest, root, "a [10.0.0.1]", "10.0.0.1")), "healthy");
    fleet_destroy(newest);
}
END_TEST

START_TEST(a_name_all_of_whose_addresses_are_drained_is_drained)
{
    struct fleet_server *places[] = {place(before, old[0], "a [10.0.0.1]", "10.0.0.1"),
                                     place(before, old[0], "a [10.0.0.2]", "10.0.0.2")};
    fleet_remove(before, old[0]);
    for (int i = 0; i < 2; i++)
        fleet_drain(before, places[i]);
    reload();
    ck_assert_str_eq(state(new[0]), "draining");
}
END_TEST

/* An administrator's last word counts, also while the name is still to be looked up. */
START_TEST(a_name_that_is_drained_or_not_before_it_is_looked_up_stays_so)
{
    const char *const texts[] = {"a [10.0.0.1]", "a [10.0.0.2]"};
    const char *const addresses[] = {"10.0.0.1", "10.0.0.2"};
    struct fleet_server *one = place(before, old[0], texts[0], addresses[0]);
    place(before, old[0], texts[1], addresses[1]);
    fleet_remove(before, old[0]);
    fleet_drain(before, one);
    reload();
    if (_i == 0)
        fleet_drain(after, new[0]);
    else
        fleet_undrain(after, new[0]);
    for (int i = 0; i < 2; i++)
        ck_assert_str_eq(state(place(after, new[0], texts[i], addresses[i])), _i == 0 ? "draining" : "healthy");
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("fleet_inherit");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, what_is_known_of_a_server_stays_known);
    tcase_add_test(tests, failures_in_a_row_are_counted_on);
    tcase_add_test(tests, a_good_answer_ends_what_was_counted_before);
    tcase_add_test(tests, a_pause_goes_on);
    tcase_add_test(tests, a_trial_under_way_leaves_room_for_another);
    tcase_add_test(tests, what_failed_probes_is_brought_back_by_probes);
    tcase_add_loop_test(tests, a_drained_server_stays_drained_until_that_is_ended, 0, 2);
    tcase_add_test(tests, one_that_was_leaving_begins_anew);
    tcase_add_loop_test(tests, a_server_that_is_asked_otherwise_begins_anew, 0, 8);
    tcase_add_test(tests, one_that_is_only_weighed_otherwise_stays_known);
    tcase_add_test(tests, the_list_of_models_stays_as_long_as_it_is_asked_for);
    tcase_add_test(tests, an_address_is_known_again_when_its_name_has_been_looked_up);
    tcase_add_test(tests, a_name_all_of_whose_addresses_are_drained_is_drained);
    tcase_add_loop_test(tests, a_name_that_is_drained_or_not_before_it_is_looked_up_stays_so, 0, 2);
    return run_suite("fleet_inherit", tests);
}
