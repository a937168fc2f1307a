/* What the load generators have in common besides connections: options, the timer, and what they say and expect. */
#ifndef WEIR_TESTS_LOAD_START_H
#define WEIR_TESTS_LOAD_START_H

#include "load_conn.h"
#include <limits.h>
#include <sys/timerfd.h>

#define PIDS_MAX 64

/* What fail() says. */
static inline void say_failed(const char *program, const char *format, va_list args)
{
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
}

/* An answer's head must have a line that begins with `header`. */
static inline void expect_header(const char *head, const char *header)
{
    for (const char *line = head; (line = strstr(line, "\r\n")) != NULL;)
        if (strncasecmp(line += 2, header, strlen(header)) == 0)
            return;
    fail("expected a header '%s', got: %s", header, head);
}

static inline long read_number(const char *text, long min, long max)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end != '\0' || end == text || value < min || value > max)
        fail("'%s': expected a number from %ld to %ld", text, min, max);
    return value;
}

static inline struct sockaddr_in read_address(char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char *colon = strrchr(text, ':');
    if (colon != NULL)
        *colon = '\0';
    if (colon == NULL || inet_pton(AF_INET, text, &address.sin_addr) != 1 || strncmp(text, "127.", 4) != 0)
        fail("expected an address on loopback, 127.x.x.x:PORT");
    address.sin_port = htons((uint16_t)read_number(colon + 1, 1, 65535));
    return address;
}

/* Reads process ids with commas between them; returns how many. */
static inline int read_pids(char *text, int pids[PIDS_MAX])
{
    int count = 0;
    for (char *pid = strtok(text, ", "); pid != NULL && count < PIDS_MAX; pid = strtok(NULL, ", "))
        pids[count++] = (int)read_number(pid, 1, INT_MAX);
    return count;
}

/* A timer that expires again and again, every `us` microseconds (less than a second), of which the epoll set tells with
 * a NULL. */
static inline int start_timer(int epoll_fd, long us)
{
    struct itimerspec every = {{0, us * 1000}, {0, us * 1000}};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    timerfd_settime(fd, 0, &every, NULL);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    return fd;
}

#endif
