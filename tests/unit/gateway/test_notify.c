/* What a service manager is told, and when its watchdog is not fed. */
#include "base/clock.h"
#include "gateway/notify.h"
#include "gateway/worker.h"
#include "run_suite.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int manager = -1;
static char path[64];

static void open_manager(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(path, sizeof(path), "/tmp/weir-notify-%d", (int)getpid());
    unlink(path);
    strcpy(address.sun_path, path);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    ck_assert_int_eq(bind(manager, (struct sockaddr *)&address, sizeof(address)), 0);
    setenv("NOTIFY_SOCKET", path, 1);
}

static void close_manager(void)
{
    close(manager);
    unlink(path);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

/* How many datagrams wait; all of them must say `text`. */
static int heard(const char *text)
{
    char bytes[256];
    int count = 0;
    ssize_t got;
    while ((got = recv(manager, bytes, sizeof(bytes) - 1, 0)) > 0) {
        bytes[got] = '\0';
        ck_assert_str_eq(bytes, text);
        count++;
    }
    return count;
}

START_TEST(states_arrive_as_they_are)
{
    ck_assert(notify_send("READY=1"));
    ck_assert_int_eq(heard("READY=1"), 1);
    unsetenv("NOTIFY_SOCKET");
    ck_assert(!notify_send("READY=1"));
}
END_TEST

START_TEST(the_watchdog_is_ours_or_nobodys)
{
    char own[16];
    ck_assert_uint_eq(notify_watchdog_us(), 0);
    setenv("WATCHDOG_USEC", "30000000", 1);
    ck_assert_uint_eq(notify_watchdog_us(), 30000000);
    setenv("WATCHDOG_PID", "1", 1);
    ck_assert_uint_eq(notify_watchdog_us(), 0);
    snprintf(own, sizeof(own), "%d", (int)getpid());
    setenv("WATCHDOG_PID", own, 1);
    ck_assert_uint_eq(notify_watchdog_us(), 30000000);
    notify_begin(); /* the process that takes over has another number */
    ck_assert(getenv("WATCHDOG_PID") == NULL);
    setenv("WATCHDOG_PID", "1", 1);
    notify_begin();
    unsetenv("WATCHDOG_PID");
    ck_assert_uint_eq(notify_watchdog_us(), 0);
    static const char *const bad[] = {"", "0", "-1", "12x", " 1", "99999999999999999999999"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        setenv("WATCHDOG_USEC", bad[i], 1);
        ck_assert_msg(notify_watchdog_us() == 0, "\"%s\"", bad[i]);
    }
}
END_TEST

/* Somebody who signals a thread once the watchdog was fed so often; if it is not to be fed, after a while. */
struct signaller {
    pthread_t to;
    int feeds, fed;
};

static void *signal_later(void *arg)
{
    struct signaller *signaller = arg;
    do {
        usleep(signaller->feeds == 0 ? 300000 : 10000);
        signaller->fed += heard("WATCHDOG=1");
    } while (signaller->fed < signaller->feeds);
    pthread_kill(signaller->to, SIGUSR1);
    return NULL;
}

/* Waits for a signal that comes when the watchdog was fed so often; returns how often it was in the end. */
static int fed(struct server *server, int feeds)
{
    struct signaller signaller = {.to = pthread_self(), .feeds = feeds};
    sigset_t set;
    pthread_t other;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_create(&other, NULL, signal_later, &signaller);
    ck_assert_int_eq(notify_wait_signal(server, &set, 0), SIGUSR1);
    pthread_join(other, NULL);
    return signaller.fed + heard("WATCHDOG=1");
}

START_TEST(the_watchdog_is_fed_while_every_worker_turns)
{
    struct worker *workers[2] = {calloc(1, sizeof(struct worker)), calloc(1, sizeof(struct worker))};
    struct server server = {.workers = {workers[0], workers[1]}, .worker_count = 2};
    atomic_store(&workers[0]->turned_us, clock_us() + 600000000); /* on any machine not long ago */
    atomic_store(&workers[1]->turned_us, clock_us() + 600000000);
    ck_assert_int_eq(fed(&server, 0), 0); /* nobody watches */
    setenv("WATCHDOG_USEC", "100000", 1);
    ck_assert_int_ge(fed(&server, 2), 2);

    atomic_store(&workers[1]->turned_us, clock_us() - 60000000);
    ck_assert_int_eq(fed(&server, 0), 0); /* one hangs */
    atomic_store(&server.draining, true);
    ck_assert_int_ge(fed(&server, 2), 2); /* it may have ended */
    free(workers[0]);
    free(workers[1]);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("all");
    tcase_add_checked_fixture(tcase, open_manager, close_manager);
    tcase_add_test(tcase, states_arrive_as_they_are);
    tcase_add_test(tcase, the_watchdog_is_ours_or_nobodys);
    tcase_add_test(tcase, the_watchdog_is_fed_while_every_worker_turns);
    return run_suite("notify", tcase);
}
