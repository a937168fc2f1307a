#include "gateway/notify.h"
#include "base/clock.h"
#include "base/log.h"
#include "gateway/worker.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define HANGS_US 3000000 /* at least: a loop may sleep for a second between two turns */

bool notify_send(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = path != NULL ? strlen(path) : 0;
    /* "@" stands for the NUL that begins an abstract name. */
    if (len < 2 || len >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
        return false;
    memcpy(address.sun_path, path, len);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1)
        return false;
    ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
    return sent != -1;
}

static bool read_number(const char *name, uint64_t *number)
{
    const char *text = getenv(name);
    char *end;
    if (text == NULL || text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return *end == '\0' && errno == 0;
}

void notify_reloading(void)
{
    char state[64];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
    notify_send(state);
}

void notify_begin(void)
{
    unsetenv(notify_watchdog_us() != 0 ? "WATCHDOG_PID" : "WATCHDOG_USEC");
}

uint64_t notify_watchdog_us(void)
{
    uint64_t period, pid;
    if (!read_number("WATCHDOG_USEC", &period))
        return 0;
    if (getenv("WATCHDOG_PID") != NULL && (!read_number("WATCHDOG_PID", &pid) || pid != (uint64_t)getpid()))
        return 0;
    return period;
}

/* Workers that drain end one after the other: from then on nobody is expected to turn. */
static bool all_turn(const struct server *server, uint64_t limit_us)
{
    uint64_t now = clock_us();
    for (size_t i = 0; i < server->worker_count; i++) {
        uint64_t turned = atomic_load_explicit(&server->workers[i]->turned_us, memory_order_relaxed);
        if (now > turned && now - turned > limit_us && !atomic_load(&server->draining)) {
            log_text(LOG_ERROR, "worker %zu has hung for %llu s", i, (unsigned long long)((now - turned) / 1000000));
            return false;
        }
    }
    return true;
}

int notify_wait_signal(const struct server *server, const sigset_t *set, uint64_t at_most_us)
{
    static uint64_t fed_us; /* of the one thread that waits */
    uint64_t half_us = notify_watchdog_us() / 2, until_us = clock_us() + at_most_us;
    for (;;) {
        uint64_t now = clock_us(), wait_us = at_most_us != 0 ? (now < until_us ? until_us - now : 0) : UINT64_MAX;
        if (half_us != 0 && now >= fed_us + half_us) {
            fed_us = now;
            if (all_turn(server, half_us > HANGS_US ? half_us : HANGS_US))
                notify_send("WATCHDOG=1");
        }
        if (half_us != 0 && fed_us + half_us - now < wait_us)
            wait_us = fed_us + half_us - now;
        struct timespec wait = {.tv_sec = (time_t)(wait_us / 1000000), .tv_nsec = (long)(wait_us % 1000000) * 1000};
        int number = wait_us != UINT64_MAX ? sigtimedwait(set, NULL, &wait) : sigwaitinfo(set, NULL);
        if (number > 0)
            return number;
        if (at_most_us != 0 && clock_us() >= until_us)
            return -1;
    }
}
