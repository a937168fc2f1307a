#include "gateway/clients.h"
#include "run_suite.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#define SECOND 1000000ull
#define NOW (1000 * SECOND)

static struct clients *clients;

static void setup(void)
{
    clients = clients_create();
}

static void teardown(void)
{
    clients_destroy(clients);
}

static const struct in6_addr *address(const char *text)
{
    static struct in6_addr out[4];
    static unsigned next;
    struct in6_addr *one = &out[next++ % 4];
    char mapped[64];
    snprintf(mapped, sizeof(mapped), strchr(text, ':') != NULL ? "%s" : "::ffff:%s", text);
    ck_assert_int_eq(inet_pton(AF_INET6, mapped, one), 1);
    return one;
}

static unsigned enter_all(const char *from, unsigned max)
{
    unsigned admitted = 0;
    while (admitted < 1000 && clients_enter(clients, address(from), max, NOW) == CLIENTS_ADMITTED)
        admitted++;
    return admitted;
}

START_TEST(an_address_may_have_so_many_connections)
{
    ck_assert_uint_eq(enter_all("192.0.2.1", 3), 3);
    ck_assert_int_eq(clients_enter(clients, address("192.0.2.1"), 3, NOW), CLIENTS_TOO_MANY);
    ck_assert_uint_eq(enter_all("192.0.2.2", 3), 3);
    clients_leave(clients, address("192.0.2.1"));
    ck_assert_uint_eq(enter_all("192.0.2.1", 3), 1);
    for (int i = 0; i < 10; i++)
        clients_leave(clients, address("192.0.2.1")); /* more than there are */
    ck_assert_uint_eq(enter_all("192.0.2.1", 3), 3);
}
END_TEST

START_TEST(ipv6_counts_by_64)
{
    ck_assert_uint_eq(enter_all("2001:db8::1", 3), 3);
    ck_assert_uint_eq(enter_all("2001:db8::ffff:2", 3), 0);
    ck_assert_uint_eq(enter_all("2001:db8:0:1::1", 3), 3);
    ck_assert_uint_eq(enter_all("::1", 3), 3);
    ck_assert_uint_eq(enter_all("::2", 3), 0);
}
END_TEST

START_TEST(the_unspecified_address_is_held_to_nothing)
{
    ck_assert_uint_eq(enter_all("::", 3), 1000);
    for (int i = 0; i < 100; i++) {
        clients_flooded(clients, address("::"), NOW);
        ck_assert_uint_eq(clients_key_failed(clients, address("::"), NOW), 0);
    }
    ck_assert_int_eq(clients_enter(clients, address("::"), 3, NOW), CLIENTS_ADMITTED);
}
END_TEST

START_TEST(floods_shut_an_address_out_for_ten_seconds)
{
    for (int i = 0; i < 4; i++)
        clients_flooded(clients, address("192.0.2.1"), NOW);
    ck_assert_int_eq(clients_enter(clients, address("192.0.2.1"), 9, NOW), CLIENTS_ADMITTED);
    clients_flooded(clients, address("192.0.2.1"), NOW);
    ck_assert_int_eq(clients_enter(clients, address("192.0.2.1"), 9, NOW), CLIENTS_PENALTY);
    ck_assert_int_eq(clients_enter(clients, address("192.0.2.2"), 9, NOW), CLIENTS_ADMITTED);
    ck_assert_int_eq(clients_enter(clients, address("192.0.2.1"), 9, NOW + 10 * SECOND - 1), CLIENTS_PENALTY);
    ck_assert_int_eq(clients_enter(clients, address("192.0.2.1"), 9, NOW + 10 * SECOND), CLIENTS_ADMITTED);
    /* One is forgiven every ten seconds. */
    clients_flooded(clients, address("192.0.2.1"), NOW + 10 * SECOND);
    ck_assert_int_eq(clients_enter(clients, address("192.0.2.1"), 9, NOW + 11 * SECOND), CLIENTS_ADMITTED);
    clients_flooded(clients, address("192.0.2.1"), NOW + 11 * SECOND);
    ck_assert_int_eq(clients_enter(clients, address("192.0.2.1"), 9, NOW + 11 * SECOND), CLIENTS_PENALTY);
}
END_TEST

START_TEST(a_flood_now_and_then_is_forgiven)
{
    for (uint64_t i = 0; i < 100; i++) {
        clients_flooded(clients, address("192.0.2.1"), NOW + i * 10 * SECOND);
        ck_assert_int_eq(clients_enter(clients, address("192.0.2.1"), 900, NOW + i * 10 * SECOND), CLIENTS_ADMITTED);
    }
}
END_TEST

START_TEST(wrong_keys_are_told_so_twenty_times_and_then_once_a_second)
{
    for (int i = 0; i < 20; i++)
        ck_assert_uint_eq(clients_key_failed(clients, address("192.0.2.1"), NOW), 0);
    ck_assert_uint_eq(clients_key_failed(clients, address("192.0.2.1"), NOW), 1);
    ck_assert_uint_eq(clients_key_failed(clients, address("192.0.2.2"), NOW), 0);
    ck_assert_uint_eq(clients_key_failed(clients, address("192.0.2.1"), NOW + SECOND), 0);
    ck_assert_uint_eq(clients_key_failed(clients, address("192.0.2.1"), NOW + SECOND), 1);
    for (int i = 0; i < 20; i++)
        ck_assert_uint_eq(clients_key_failed(clients, address("192.0.2.1"), NOW + 100 * SECOND), 0);
}
END_TEST

START_TEST(strangers_by_the_hundred_thousand_do_not_push_out_who_is_connected)
{
    ck_assert_uint_eq(enter_all("192.0.2.1", 3), 3);
    char text[32];
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(text, sizeof(text), "10.%u.%u.%u", i >> 16 & 255, i >> 8 & 255, i & 255);
        clients_key_failed(clients, address(text), NOW + i);
    }
    ck_assert_int_eq(clients_enter(clients, address("192.0.2.1"), 3, NOW), CLIENTS_TOO_MANY);
}
END_TEST

START_TEST(an_address_that_finds_no_room_is_admitted)
{
    char text[32];
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(text, sizeof(text), "10.%u.%u.%u", i >> 16 & 255, i >> 8 & 255, i & 255);
        ck_assert_int_eq(clients_enter(clients, address(text), 1, NOW), CLIENTS_ADMITTED);
    }
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(text, sizeof(text), "10.%u.%u.%u", i >> 16 & 255, i >> 8 & 255, i & 255);
        clients_leave(clients, address(text));
    }
    ck_assert_uint_eq(enter_all("192.0.2.1", 3), 3);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("clients");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, an_address_may_have_so_many_connections);
    tcase_add_test(tc, ipv6_counts_by_64);
    tcase_add_test(tc, the_unspecified_address_is_held_to_nothing);
    tcase_add_test(tc, floods_shut_an_address_out_for_ten_seconds);
    tcase_add_test(tc, a_flood_now_and_then_is_forgiven);
    tcase_add_test(tc, wrong_keys_are_told_so_twenty_times_and_then_once_a_second);
    tcase_add_test(tc, strangers_by_the_hundred_thousand_do_not_push_out_who_is_connected);
    tcase_add_test(tc, an_address_that_finds_no_room_is_admitted);
    return run_suite("clients", tc);
}
