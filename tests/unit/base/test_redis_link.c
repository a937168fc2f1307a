#include "redis_link_opener.h"

#define SLOW 60000000 /* deadlines that a busy machine keeps */

START_TEST(commands_and_replies)
{
    struct ask ask;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    ask_words(&ask, "SET k v");
    ck_assert_int_eq(ask.type, REDIS_REPLY_STATUS);
    ask_words(&ask, "GET k");
    ck_assert_str_eq(ask.text, "v");
    ask_words(&ask, "INCR k"); /* an error of the command's own is a reply */
    ck_assert_int_eq(ask.type, REDIS_REPLY_ERROR);
    ask_words(&ask, "CLIENT GETNAME");
    ck_assert_str_eq(ask.text, "weir-test");
    ask_words(&ask, "CLIENT INFO");
    ck_assert_ptr_nonnull(strstr(ask.text, "db=3"));
    struct redis_link_counts counts;
    redis_link_count(up_link, &counts);
    ck_assert_uint_eq(counts.commands, 5);
    ck_assert_uint_eq(counts.connects, 1);
    ck_assert_uint_eq(ups, 1);
    ck_assert_uint_eq(downs, 0);
}
END_TEST

START_TEST(many_are_pipelined_in_order)
{
    static struct ask asks[2000];
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    for (size_t i = 0; i < 2000; i++)
        run_script(&asks[i], 0, "n", "1");
    ck_assert(redis_loop_run(&loop, &asks[1999].done, LONG_MS));
    for (size_t i = 0; i < 2000; i++)
        ck_assert_int_eq(asks[i].integer, (long long)i + 1);
}
END_TEST

START_TEST(binary_pieces_arrive_whole)
{
    struct ask ask = {.command.on_reply = on_reply};
    enum redis_failure failure;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    static char big[600 * 1024];
    memset(big, '\n', sizeof(big));
    const struct span pieces[] = {SPAN("SET"), SPAN("a\0b\r\n$9"), {big, sizeof(big)}};
    ck_assert(redis_link_send(up_link, &ask.command, pieces, 3, &failure));
    ck_assert(redis_loop_run(&loop, &ask.done, LONG_MS));
    const struct span get[] = {SPAN("STRLEN"), SPAN("a\0b\r\n$9")};
    ask = (struct ask){.command.on_reply = on_reply};
    ck_assert(redis_link_send(up_link, &ask.command, get, 2, &failure));
    ck_assert(redis_loop_run(&loop, &ask.done, LONG_MS));
    ck_assert_int_eq(ask.integer, sizeof(big));
}
END_TEST

START_TEST(lost_scripts_come_back_once)
{
    static struct ask asks[300];
    struct ask info;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    run_script(&asks[0], 0, "n", "1");
    ck_assert(redis_loop_run(&loop, &asks[0].done, LONG_MS));
    redis_server_tell(&server, "SCRIPT FLUSH");
    for (size_t i = 0; i < 300; i++)
        run_script(&asks[i], 0, "n", "1");
    ck_assert(redis_loop_run(&loop, &asks[299].done, LONG_MS));
    for (size_t i = 0; i < 300; i++) {
        ck_assert_int_eq(asks[i].failure, REDIS_ANSWERED);
        ck_assert_int_eq(asks[i].integer, (long long)i + 2);
    }
    ask_words(&info, "INFO commandstats"); /* sent along with one, not with each */
    ck_assert_msg(strstr(info.text, "cmdstat_eval:calls=1,") != NULL, "%s", info.text);
    ck_assert_uint_eq(downs, 0);
}
END_TEST

START_TEST(a_loss_fails_what_waits_and_is_mended)
{
    struct ask slow, next;
    enum redis_failure failure;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    uint64_t opened_us = clock_us();
    must_come_up();
    ck_assert(send_words(&slow, "BLPOP nothing 0", &failure));
    redis_loop_run(&loop, NULL, 50);
    redis_server_tell(&server, "CLIENT KILL TYPE normal SKIPME yes");
    ck_assert(redis_loop_run(&loop, &slow.done, LONG_MS));
    ck_assert_int_eq(slow.failure, REDIS_LOST);
    ck_assert(!redis_link_up(up_link));
    ck_assert(!send_words(&next, "PING", &failure));
    ck_assert_int_eq(failure, REDIS_DOWN);
    /* It had not stood for long, unless this machine has stalled. */
    unsigned told = downs;
    ck_assert(told == 1 || (told == 0 && clock_us() - opened_us >= 1000000));
    for (int i = 0; i < 2000 && !redis_link_up(up_link); i++)
        redis_loop_run(&loop, NULL, 10);
    ask_words(&next, "PING");
    ck_assert_uint_eq(ups, 1 + told);
    redis_loop_run(&loop, NULL, 1100);
    redis_server_tell(&server, "CLIENT KILL TYPE normal SKIPME yes");
    for (int i = 0; i < 2000 && redis_link_up(up_link); i++)
        redis_loop_run(&loop, NULL, 10);
    for (int i = 0; i < 2000 && !redis_link_up(up_link); i++)
        redis_loop_run(&loop, NULL, 1);
    ask_words(&next, "PING");
    struct redis_link_counts counts;
    redis_link_count(up_link, &counts);
    ck_assert_uint_eq(counts.connects, 3);
    ck_assert_uint_eq(downs, told);
}
END_TEST

START_TEST(killed_and_restarted_it_is_found_again)
{
    struct ask ask;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    redis_server_kill(&server);
    must_go_down("");
    redis_loop_run(&loop, NULL, 300);
    redis_server_start(&server, NULL);
    must_come_up();
    ask_words(&ask, "PING");
    ck_assert_uint_eq(downs, 1); /* not once for each attempt */
}
END_TEST

START_TEST(late_replies_are_dropped)
{
    struct ask slow, next;
    enum redis_failure failure;
    redis_server_start(&server, NULL);
    open_link("", 30000);
    must_come_up();
    ck_assert(send_words(&slow, "BLPOP list 0", &failure));
    ck_assert(redis_loop_run(&loop, &slow.done, LONG_MS));
    ck_assert_int_eq(slow.failure, REDIS_LATE);
    memset(&slow, 0xaa, sizeof(slow)); /* its memory is somebody else's now */
    redis_server_tell(&server, "SELECT 3\r\nLPUSH list x");
    redis_loop_run(&loop, NULL, 50);
    do
        if (!send_words(&next, "GET list", &failure))
            ck_abort_msg("%s", redis_failure_name(failure));
        else
            ck_assert(redis_loop_run(&loop, &next.done, LONG_MS));
    while (next.failure == REDIS_LATE); /* a busy machine */
    ck_assert_uint_eq(downs, 0);
}
END_TEST

START_TEST(a_cancelled_command_is_never_called)
{
    static struct ask gone; /* the last use is still on its way when the link goes */
    struct ask next;
    enum redis_failure failure;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    redis_command_cancel(&(struct redis_command){.on_reply = on_reply});
    ck_assert(send_words(&gone, "PING", &failure));
    redis_command_cancel(&gone.command);
    redis_command_cancel(&gone.command);
    memset(&gone, 0xaa, sizeof(gone));
    ask_words(&next, "ECHO next");
    ck_assert_str_eq(next.text, "next");
    ck_assert(send_words(&gone, "PING", &failure));
}
END_TEST

START_TEST(a_stopped_server_is_spared_and_found_again)
{
    static struct ask asks[40];
    enum redis_failure failure = REDIS_ANSWERED;
    redis_server_start(&server, NULL);
    open_link("", 20000);
    must_come_up();
    kill(server.pid, SIGSTOP);
    size_t sent = 0;
    while (sent < 40 && send_words(&asks[sent], "PING", &failure)) {
        redis_loop_run(&loop, &asks[sent].done, LONG_MS);
        ck_assert(asks[sent].done);
        sent++;
    }
    ck_assert_uint_lt(sent, 40);
    ck_assert_int_eq(failure, REDIS_DOWN);
    must_go_down("");
    redis_loop_run(&loop, NULL, 1500); /* long enough for the connection to be given up */
    ck_assert(!is_up);
    kill(server.pid, SIGCONT);
    must_come_up();
    ck_assert_uint_eq(downs, 1);
}
END_TEST

START_TEST(too_much_is_refused)
{
    static struct ask asks[40];
    enum redis_failure failure;
    char text[256];
    static char big[5 << 20];
    redis_server_start(&server, NULL);
    snprintf(text, sizeof(text), "%s", server.path);
    open_url(text, SLOW, 10);
    must_come_up();
    for (size_t i = 0; i < 10; i++)
        ck_assert(send_words(&asks[i], "PING", &failure));
    ck_assert(!send_words(&asks[10], "PING", &failure));
    ck_assert_int_eq(failure, REDIS_FULL);
    ck_assert(redis_loop_run(&loop, &asks[9].done, LONG_MS));
    asks[11] = (struct ask){.command.on_reply = on_reply};
    const struct span pieces[] = {SPAN("ECHO"), {big, sizeof(big)}};
    ck_assert(!redis_link_send(up_link, &asks[11].command, pieces, 2, &failure));
    ck_assert_int_eq(failure, REDIS_FULL);
    ask_words(&asks[12], "PING");
    struct redis_link_counts counts;
    redis_link_count(up_link, &counts);
    ck_assert_uint_eq(counts.failures[REDIS_FULL], 2);
}
END_TEST

START_TEST(passwords)
{
    struct ask ask;
    redis_server_start(&server, (const char *const[]){"--requirepass", "s3cret", NULL});
    open_link(":wrong@", SLOW);
    must_go_down("refuses the password");
    ck_assert_ptr_null(strstr(why, "wrong@"));
    redis_link_destroy(up_link);
    redis_url_dispose(&url);
    is_down = false;
    open_link("", SLOW);
    must_go_down("wants a password");
    redis_link_destroy(up_link);
    redis_url_dispose(&url);
    open_link(":s3cret@", SLOW);
    must_come_up();
    redis_link_destroy(up_link);
    redis_url_dispose(&url);
    is_up = false;
    open_link("default:s3cret@", SLOW);
    must_come_up();
    ask_words(&ask, "PING");
}
END_TEST

START_TEST(a_password_that_it_has_not)
{
    redis_server_start(&server, NULL);
    open_link(":s3cret@", SLOW);
    must_go_down("has no password");
}
END_TEST

START_TEST(a_user_who_may_do_little)
{
    struct ask ask;
    redis_server_start(&server, NULL);
    redis_server_tell(&server, "ACL SETUSER u on >p ~* +get +set +evalsha +eval +ping +select");
    open_link("u:p@", SLOW);
    must_come_up();
    ask_words(&ask, "INCR n");
    ck_assert_int_eq(ask.failure, REDIS_REFUSED);
    run_script(&ask, 2, "n", "5"); /* SCRIPT LOAD was forbidden: EVAL */
    ck_assert(redis_loop_run(&loop, &ask.done, LONG_MS));
    ck_assert_int_eq(ask.failure, REDIS_ANSWERED);
    ck_assert_uint_eq(downs, 0);
}
END_TEST

START_TEST(a_replica_is_no_master)
{
    struct ask ask;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    redis_server_tell(&server, "REPLICAOF 127.0.0.1 1");
    ask_words(&ask, "SET a b");
    ck_assert_int_eq(ask.failure, REDIS_REFUSED);
    ck_assert(!redis_link_up(up_link));
    ck_assert_ptr_nonnull(strstr(why, "READONLY"));
    redis_loop_run(&loop, NULL, 300);
    ck_assert(!redis_link_up(up_link));
    redis_server_tell(&server, "REPLICAOF NO ONE");
    must_come_up();
}
END_TEST

START_TEST(a_replica_from_the_start)
{
    redis_server_start(&server, (const char *const[]){"--replicaof", "127.0.0.1", "1", NULL});
    open_link("", SLOW);
    must_go_down("replica");
}
END_TEST

START_TEST(a_cluster_node)
{
    redis_server_start(&server, (const char *const[]){"--cluster-enabled", "yes", "--port", "0", NULL});
    char text[256];
    snprintf(text, sizeof(text), "%s", server.path);
    open_url(text, SLOW, 0);
    must_go_down("Cluster");
    snprintf(text, sizeof(text), "%s/nodes.conf", server.dir);
    unlink(text);
}
END_TEST

START_TEST(out_of_memory_is_a_refusal_and_no_loss)
{
    struct ask ask;
    redis_server_start(&server, NULL);
    open_link("", SLOW);
    must_come_up();
    redis_server_tell(&server, "CONFIG SET maxmemory 1");
    ask_words(&ask, "SET a b");
    ck_assert_int_eq(ask.failure, REDIS_REFUSED);
    run_script(&ask, 2, "a", "b");
    ck_assert(redis_loop_run(&loop, &ask.done, LONG_MS));
    ck_assert_int_eq(ask.failure, REDIS_REFUSED);
    ck_assert(redis_link_up(up_link));
    ask_words(&ask, "GET a");
    ck_assert_int_eq(ask.failure, REDIS_ANSWERED);
}
END_TEST

START_TEST(nobody_listens)
{
    open_link("", SLOW);
    must_go_down("No such file");
    redis_loop_run(&loop, NULL, 200);
    ck_assert_uint_eq(downs, 1);
    redis_server_start(&server, NULL);
    must_come_up();
}
END_TEST

START_TEST(names_are_resolved)
{
    open_url("redis://localhost:1", SLOW, 0);
    must_go_down("refused");
    redis_link_destroy(up_link);
    redis_url_dispose(&url);
    is_down = false;
    open_url("redis://[::1]:1", SLOW, 0);
    redis_loop_run(&loop, &is_down, LONG_MS);
    ck_assert(is_down);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("redis_link");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, commands_and_replies);
    tcase_add_test(tc, many_are_pipelined_in_order);
    tcase_add_test(tc, binary_pieces_arrive_whole);
    tcase_add_test(tc, lost_scripts_come_back_once);
    tcase_add_test(tc, a_loss_fails_what_waits_and_is_mended);
    tcase_add_test(tc, killed_and_restarted_it_is_found_again);
    tcase_add_test(tc, late_replies_are_dropped);
    tcase_add_test(tc, a_cancelled_command_is_never_called);
    tcase_add_test(tc, a_stopped_server_is_spared_and_found_again);
    tcase_add_test(tc, too_much_is_refused);
    tcase_add_test(tc, passwords);
    tcase_add_test(tc, a_password_that_it_has_not);
    tcase_add_test(tc, a_user_who_may_do_little);
    tcase_add_test(tc, a_replica_is_no_master);
    tcase_add_test(tc, a_replica_from_the_start);
    tcase_add_test(tc, a_cluster_node);
    tcase_add_test(tc, out_of_memory_is_a_refusal_and_no_loss);
    tcase_add_test(tc, nobody_listens);
    tcase_add_test(tc, names_are_resolved);
    return run_suite("redis_link", tc);
}
