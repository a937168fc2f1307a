/* A bare TCP relay, the fair minimum of what a gateway can cost: takes a connection, opens one to the server, and
 * copies bytes both ways without a look at them. One thread, one epoll loop, no timeouts, no log.
 *
 *   relay LISTEN SERVER        both as 127.x.x.x:PORT
 *
 * A side is not read while the other has not taken what came before, so memory is bounded by one block for each
 * direction, and a connection whose readers keep up has none. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK 65536

/* One end of a pair: its socket, and what it has yet to take. */
struct side {
    struct pair *pair;
    int fd;
    uint32_t watched; /* EPOLLIN: read from it; EPOLLOUT: it has something to take */
    bool ended;       /* it sent its end, which has been passed on or waits behind `waiting` */
    char *waiting;
    size_t waiting_at, waiting_len;
};

struct pair {
    struct side client, server;
    bool connecting;
    bool dead;
    struct pair *next_dead;
};

static int epoll_fd;
static struct sockaddr_in server_address;
static struct pair *dead; /* freed after the round of events, which may still name them */

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "relay: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    exit(1);
}

static void watch(struct side *side, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = side};
    if (side->watched == events)
        return;
    side->watched = events;
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, side->fd, &event);
}

static struct side *other(struct side *side)
{
    return side == &side->pair->client ? &side->pair->server : &side->pair->client;
}

static void close_pair(struct pair *pair)
{
    if (pair->dead)
        return;
    pair->dead = true;
    pair->next_dead = dead;
    dead = pair;
    close(pair->client.fd);
    close(pair->server.fd);
}

static void free_dead(void)
{
    for (struct pair *pair; (pair = dead) != NULL;) {
        dead = pair->next_dead;
        free(pair->client.waiting);
        free(pair->server.waiting);
        free(pair);
    }
}

/* `from` has sent its end, and `to` has taken all before it. */
static void pass_end(struct side *from, struct side *to)
{
    shutdown(to->fd, SHUT_WR);
    if (to->ended)
        close_pair(from->pair);
}

static void keep(struct side *side, const char *bytes, size_t len)
{
    side->waiting = malloc(len);
    if (side->waiting == NULL)
        die("out of memory");
    memcpy(side->waiting, bytes, len);
    side->waiting_at = 0;
    side->waiting_len = len;
}

static void on_readable(struct side *from)
{
    static char block[BLOCK];
    struct side *to = other(from);
    ssize_t n = read(from->fd, block, sizeof(block));
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            close_pair(from->pair);
        return;
    }
    if (n == 0) {
        from->ended = true;
        watch(from, from->watched & ~(uint32_t)EPOLLIN);
        pass_end(from, to);
        return;
    }
    ssize_t written = write(to->fd, block, (size_t)n);
    if (written == n)
        return;
    if (written < 0 && errno != EAGAIN && errno != EINTR) {
        close_pair(from->pair);
        return;
    }
    if (written < 0)
        written = 0;
    keep(to, block + written, (size_t)(n - written));
    watch(to, to->watched | EPOLLOUT);
    watch(from, from->watched & ~(uint32_t)EPOLLIN);
}

static void on_writable(struct side *to)
{
    struct side *from = other(to);
    ssize_t n = write(to->fd, to->waiting + to->waiting_at, to->waiting_len - to->waiting_at);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            close_pair(to->pair);
        return;
    }
    to->waiting_at += (size_t)n;
    if (to->waiting_at != to->waiting_len)
        return;
    free(to->waiting);
    to->waiting = NULL;
    watch(to, to->watched & ~(uint32_t)EPOLLOUT);
    watch(from, from->watched | EPOLLIN);
}

static void on_connected(struct pair *pair)
{
    int error = 0;
    socklen_t len = sizeof(error);
    getsockopt(pair->server.fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error != 0) {
        close_pair(pair);
        return;
    }
    pair->connecting = false;
    watch(&pair->server, EPOLLIN);
    watch(&pair->client, EPOLLIN);
}

static void on_side(struct side *side, uint32_t events)
{
    struct pair *pair = side->pair;
    if (pair->dead)
        return;
    if (pair->connecting) {
        if (side == &pair->server)
            on_connected(pair);
        else if (events & (EPOLLHUP | EPOLLERR))
            close_pair(pair);
        return;
    }
    if ((events & EPOLLOUT) && side->waiting != NULL)
        on_writable(side);
    if (!pair->dead && (side->watched & EPOLLIN) && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        on_readable(side);
    else if (!pair->dead && (events & (EPOLLHUP | EPOLLERR))) /* nothing is read, so it would be told again and again */
        close_pair(pair);
}

static void add(struct side *side, struct pair *pair, int fd, uint32_t events)
{
    int on = 1;
    struct epoll_event event = {.events = events, .data.ptr = side};
    side->pair = pair;
    side->fd = fd;
    side->watched = events;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void take_connections(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (server < 0)
            die("cannot make a socket: %s", strerror(errno));
        struct pair *pair = calloc(1, sizeof(*pair));
        if (pair == NULL)
            die("out of memory");
        bool now = connect(server, (struct sockaddr *)&server_address, sizeof(server_address)) == 0;
        if (!now && errno != EINPROGRESS)
            die("cannot connect: %s", strerror(errno));
        pair->connecting = !now;
        add(&pair->client, pair, fd, now ? EPOLLIN : 0);
        add(&pair->server, pair, server, now ? EPOLLIN : EPOLLOUT);
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        die("cannot accept: %s", strerror(errno));
}

static struct sockaddr_in parse_address(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    unsigned port;
    if (strncmp(text, "127.", 4) != 0 || sscanf(text, "%63[0-9.]:%u", host, &port) != 2 || port > 65535 ||
        inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die("'%s': expected an address on loopback, 127.x.x.x:PORT", text);
    address.sin_port = htons((uint16_t)port);
    return address;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        die("usage: relay LISTEN SERVER");
    struct sockaddr_in address = parse_address(argv[1]);
    server_address = parse_address(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 4096) != 0)
        die("cannot listen at %s: %s", argv[1], strerror(errno));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[256], event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 256, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                take_connections(listener);
            else
                on_side(events[i].data.ptr, events[i].events);
        }
        free_dead();
    }
}
