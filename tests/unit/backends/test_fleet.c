#include "backends/fleet.h"
#include "base/clock.h"
#include "run_suite.h"
#include <stdlib.h>

static struct fleet_settings options;
static struct backend_settings settings[4];
static struct fleet *fleet;
static struct fleet_server *servers[4];
static int woken;

static void setup(void)
{
    fleet_settings_init(&options);
    woken = 0;
}

static void open_fleet(unsigned max_concurrent)
{
    fleet = fleet_create(&options);
    for (int i = 0; i < 4; i++) {
        backend_settings_init(&settings[i]);
        health_settings_init(&settings[i].health);
        char name[] = {(char)('a' + i), '\0'};
        settings[i].name = strdup(name);
        settings[i].max_concurrent = max_concurrent;
        servers[i] = fleet_add(fleet, &settings[i], NULL, NULL, NULL);
    }
}

static void teardown(void)
{
    fleet_destroy(fleet);
    for (int i = 0; i < 4; i++)
        backend_settings_dispose(&settings[i]);
}

static void wake(void *ctx)
{
    (void)ctx;
    woken++;
}

static struct fleet_line line = {.wake = wake};

/* A waiter that notes its place. */
struct guest {
    struct fleet_waiter waiter;
    struct fleet_server *place;
};

static void on_granted(struct fleet_waiter *waiter)
{
    struct guest *guest = (struct guest *)waiter;
    guest->place = waiter->granted;
    waiter->granted = NULL;
}

static bool wait_for(struct guest *guest, struct fleet_server **which, size_t count)
{
    *guest = (struct guest){.waiter.on_granted = on_granted};
    return fleet_wait(fleet, &guest->waiter, &line, which, count, QUEUE_NORMAL, 1, clock_us());
}

static void leave(struct guest *guest)
{
    fleet_give_back(guest->place);
    fleet_server_release(guest->place);
    guest->place = NULL;
}

START_TEST(a_place_that_is_given_back_goes_to_who_waits_for_that_server)
{
    struct guest one, two;
    open_fleet(1);
    for (int i = 0; i < 4; i++)
        ck_assert(fleet_take(servers[i]));
    ck_assert(!fleet_take(servers[0]));
    ck_assert(wait_for(&one, &servers[1], 1));
    ck_assert(wait_for(&two, &servers[0], 2));
    ck_assert_uint_eq(fleet_waiting(fleet), 2);
    fleet_give_back(servers[3]); /* nobody wants it */
    ck_assert_int_eq(woken, 0);
    ck_assert_uint_eq(fleet_in_flight(servers[3]), 0);
    fleet_give_back(servers[0]);
    ck_assert_int_eq(woken, 1);
    ck_assert_ptr_null(two.place);
    ck_assert(!fleet_take(servers[0])); /* a newcomer does not get in between */
    fleet_deliver(fleet, &line);
    ck_assert_ptr_eq(two.place, servers[0]);
    ck_assert_ptr_null(one.place);
    fleet_give_back(servers[1]);
    fleet_deliver(fleet, &line);
    ck_assert_ptr_eq(one.place, servers[1]);
    ck_assert_uint_eq(fleet_begun(servers[1]), 2);
    leave(&one);
    leave(&two);
    fleet_give_back(servers[2]);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(fleet_in_flight(servers[i]), 0);
    ck_assert_uint_eq(fleet_waiting(fleet), 0);
}
END_TEST

START_TEST(who_leaves_after_the_place_was_granted_passes_it_on)
{
    struct guest one, two;
    open_fleet(1);
    fleet_take(servers[0]);
    ck_assert(wait_for(&one, servers, 1));
    ck_assert(wait_for(&two, servers, 1));
    fleet_give_back(servers[0]);
    fleet_stop_waiting(fleet, &one.waiter);
    fleet_stop_waiting(fleet, &one.waiter);
    fleet_deliver(fleet, &line);
    ck_assert_ptr_null(one.place);
    ck_assert_ptr_eq(two.place, servers[0]);
    leave(&two);
    ck_assert_uint_eq(fleet_in_flight(servers[0]), 0);
}
END_TEST

START_TEST(a_place_that_came_free_just_before_is_not_missed)
{
    struct guest one;
    open_fleet(1);
    ck_assert(wait_for(&one, servers, 1)); /* all are free: the caller looked too early */
    fleet_deliver(fleet, &line);
    ck_assert_ptr_eq(one.place, servers[0]);
    leave(&one);
}
END_TEST

START_TEST(a_full_queue_refuses)
{
    struct guest one, two;
    options.queue_max = 1;
    open_fleet(1);
    fleet_take(servers[0]);
    ck_assert(wait_for(&one, servers, 1));
    ck_assert(!wait_for(&two, servers, 1));
    fleet_stop_waiting(fleet, &two.waiter);
    fleet_stop_waiting(fleet, &one.waiter);
    ck_assert_uint_eq(fleet_waiting(fleet), 0);
    fleet_give_back(servers[0]);
}
END_TEST

START_TEST(a_server_that_comes_back_serves_who_waits)
{
    struct guest one;
    open_fleet(1);
    uint64_t now = clock_us();
    fleet_pause(servers[0], 50000000, now);
    ck_assert(wait_for(&one, servers, 1));
    fleet_dispatch(fleet, now);
    fleet_deliver(fleet, &line);
    ck_assert_ptr_null(one.place);
    fleet_dispatch(fleet, now + 50000001);
    fleet_deliver(fleet, &line);
    ck_assert_ptr_eq(one.place, servers[0]);
    leave(&one);
}
END_TEST

/* ---- many threads ---- */

#define THREADS 4
#define TURNS 3000

struct worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool woken;
    struct fleet_line line;
    unsigned served;
};

static atomic_int running[2];
static atomic_bool too_many;

static void wake_worker(void *ctx)
{
    struct worker *worker = ctx;
    pthread_mutex_lock(&worker->lock);
    worker->woken = true;
    pthread_cond_signal(&worker->cond);
    pthread_mutex_unlock(&worker->lock);
}

static struct fleet_server *place_for(struct worker *worker, unsigned turn)
{
    for (unsigned i = 0; i < 2; i++)
        if (fleet_take(servers[(turn + i) % 2]))
            return servers[(turn + i) % 2];
    struct guest guest = {.waiter.on_granted = on_granted};
    if (!fleet_wait(fleet, &guest.waiter, &worker->line, servers, 2, (enum queue_class)(turn % 3), turn % 5,
                    clock_us()))
        abort();
    if (turn % 7 == 0) { /* changes its mind, whatever has come of it */
        fleet_stop_waiting(fleet, &guest.waiter);
        return NULL;
    }
    while (guest.place == NULL) {
        pthread_mutex_lock(&worker->lock);
        while (!worker->woken)
            pthread_cond_wait(&worker->cond, &worker->lock);
        worker->woken = false;
        pthread_mutex_unlock(&worker->lock);
        fleet_deliver(fleet, &worker->line);
    }
    fleet_server_release(guest.place); /* which the fleet keeps */
    return guest.place;
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        struct fleet_server *place = place_for(worker, turn);
        if (place == NULL)
            continue;
        int which = place == servers[1];
        if (atomic_fetch_add(&running[which], 1) >= 1)
            atomic_store(&too_many, true);
        if (turn % 16 == 0)
            sched_yield();
        atomic_fetch_sub(&running[which], 1);
        fleet_give_back(place);
        worker->served++;
    }
    return NULL;
}

/* A wake-up that is lost would make this one hang. */
START_TEST(threads_share_places_without_losing_any)
{
    struct worker workers[THREADS];
    open_fleet(1);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.line = {.wake = wake_worker, .ctx = &workers[i]}};
        pthread_mutex_init(&workers[i].lock, NULL);
        pthread_cond_init(&workers[i].cond, NULL);
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    unsigned served = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        served += workers[i].served;
    }
    ck_assert(!atomic_load(&too_many));
    ck_assert_uint_gt(served, THREADS * TURNS / 2);
    ck_assert_uint_eq(fleet_in_flight(servers[0]) + fleet_in_flight(servers[1]), 0);
    ck_assert_uint_eq(fleet_begun(servers[0]) + fleet_begun(servers[1]) >= served, 1);
    ck_assert_uint_eq(fleet_waiting(fleet), 0);
}
END_TEST

/* ---- probes ---- */

START_TEST(probes_eject_and_bring_back_but_never_the_last)
{
    uint64_t now = clock_us(), until;
    open_fleet(0);
    for (int i = 0; i < 3; i++) {
        fleet_probed(servers[i], false, "no answer", now);
        ck_assert_str_eq(fleet_state(servers[i], now, &until), "ejected");
        ck_assert_uint_gt(until, now);
    }
    fleet_probed(servers[3], false, "no answer", now);
    ck_assert_str_eq(fleet_state(servers[3], now, &until), "failing");
    ck_assert(fleet_is_avoided(servers[3]) && !fleet_begin_try(servers[3], now));
    ck_assert_int_eq(fleet_standing(servers[3], now), FLEET_OPEN);
    fleet_probed(servers[0], true, NULL, now);
    ck_assert_str_eq(fleet_state(servers[0], now, &until), "slow_start");
    ck_assert_uint_lt(fleet_weight(servers[0], now), HEALTH_FULL);
    ck_assert_uint_eq(fleet_weight(servers[0], now + 20000000), HEALTH_FULL);
    ck_assert_str_eq(fleet_state(servers[0], now, &until), "healthy");
}
END_TEST

START_TEST(failing_probes_keep_an_ejected_server_from_trials)
{
    uint64_t now = clock_us(), until;
    open_fleet(0);
    fleet_probed(servers[0], false, "no answer", now);
    fleet_state(servers[0], now, &until);
    uint64_t late = until + 1000;
    ck_assert_int_eq(fleet_standing(servers[0], late), FLEET_TRIAL);
    fleet_probed(servers[0], false, "no answer", late);
    ck_assert_int_eq(fleet_standing(servers[0], late), FLEET_CLOSED);
    ck_assert_uint_eq(atomic_load(&servers[0]->ejections), 1);
    fleet_probed(servers[0], true, NULL, late);
    ck_assert_int_eq(fleet_standing(servers[0], late), FLEET_OPEN);
}
END_TEST

static struct model_names *names_of(const char *answer)
{
    const char *problem;
    struct model_names *names = model_names_parse(span_of(answer), &problem);
    ck_assert_ptr_nonnull(names);
    return names;
}

START_TEST(a_list_of_models_is_new_only_if_it_differs)
{
    char problem[64];
    open_fleet(0);
    ck_assert_ptr_null(fleet_names(servers[0], problem, sizeof(problem)));
    uint64_t version = fleet_version(fleet);
    fleet_discovered(servers[0], names_of("{\"data\":[{\"id\":\"a\"}]}"));
    ck_assert_uint_ne(fleet_version(fleet), version);
    version = fleet_version(fleet);
    fleet_discovered(servers[0], names_of("{\"data\":[{\"id\":\"a\"},{\"id\":\"a\"}]}"));
    fleet_discovery_failed(servers[0], "garbage");
    ck_assert_uint_eq(fleet_version(fleet), version);
    struct model_names *names = fleet_names(servers[0], problem, sizeof(problem));
    ck_assert(model_names_has(names, SPAN("a")));
    ck_assert_str_eq(problem, "garbage");
    model_names_release(names);
}
END_TEST

START_TEST(probes_do_not_eject_the_only_one_that_lists_a_model)
{
    uint64_t now = clock_us(), until;
    open_fleet(0);
    for (int i = 0; i < 4; i++)
        fleet_discovered(servers[i], names_of(i == 0 ? "{\"data\":[{\"id\":\"a\"},{\"id\":\"b\"}]}"
                                                     : "{\"data\":[{\"id\":\"b\"}]}"));
    fleet_probed(servers[0], false, "no answer", now);
    ck_assert_str_eq(fleet_state(servers[0], now, &until), "failing");
    fleet_probed(servers[1], false, "no answer", now);
    ck_assert_str_eq(fleet_state(servers[1], now, &until), "ejected");
}
END_TEST

START_TEST(a_place_shares_the_settings_of_its_root_and_outlives_its_membership)
{
    struct sockaddr_storage address = {.ss_family = AF_INET};
    open_fleet(7);
    struct fleet_server *place =
        fleet_add_place(fleet, servers[0], "a [192.0.2.1]", (struct sockaddr *)&address, 16, false);
    ck_assert_ptr_eq(place->settings, servers[0]->settings);
    ck_assert_uint_eq(place->max_concurrent, 7);
    ck_assert_uint_eq(place->address_len, 16);
    ck_assert(place->hash != servers[0]->hash && place->id != servers[0]->id);
    fleet_server_retain(place);
    fleet_remove(fleet, servers[0]);
    fleet_remove(fleet, place);
    ck_assert_str_eq(place->root->name, "a");
    fleet_server_release(place);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("fleet");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_place_that_is_given_back_goes_to_who_waits_for_that_server);
    tcase_add_test(tests, who_leaves_after_the_place_was_granted_passes_it_on);
    tcase_add_test(tests, a_place_that_came_free_just_before_is_not_missed);
    tcase_add_test(tests, a_full_queue_refuses);
    tcase_add_test(tests, a_server_that_comes_back_serves_who_waits);
    tcase_add_test(tests, threads_share_places_without_losing_any);
    tcase_add_test(tests, probes_eject_and_bring_back_but_never_the_last);
    tcase_add_test(tests, failing_probes_keep_an_ejected_server_from_trials);
    tcase_add_test(tests, a_list_of_models_is_new_only_if_it_differs);
    tcase_add_test(tests, probes_do_not_eject_the_only_one_that_lists_a_model);
    tcase_add_test(tests, a_place_shares_the_settings_of_its_root_and_outlives_its_membership);
    return run_suite("fleet", tests);
}
