/* One connection of the soak's load generator and the request that it carries: connects, sends, reads the answer,
 * undoes its framing, leaves when the request is meant to be left. Never fails the run: whatever comes is an outcome.
 * Single-threaded. */
#ifndef WEIR_TESTS_SOAK_CLIENT_H
#define WEIR_TESTS_SOAK_CLIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX 4096
#define REQUEST_MAX 4096
#define ID_MAX 48
#define TAIL_LEN 32

enum phase { IDLE, CONNECTING, SENDING, HEAD, LENGTH_BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

/* What became of a request; each has exactly one. */
enum outcome {
    SERVED,     /* 200, and the answer is whole */
    REFUSED,    /* another status, and its body is whole */
    BROKEN,     /* 200, and the answer is not whole, which the client can see */
    LEFT,       /* the client went, as it was meant to */
    UNFINISHED, /* it was never sent whole, as it was meant to */
    LOST,       /* no answer, and the connection ended */
    HUNG,       /* no end in time */
    GARBLED,    /* something that is no answer */
    OUTCOMES,
};

static const char *const outcome_names[OUTCOMES] = {"served",     "refused", "broken", "left",
                                                    "unfinished", "lost",    "hung",   "garbled"};

/* When a client goes. */
struct leaving {
    unsigned events; /* once it has had so many; 0: not by that */
    uint64_t at_us;  /* then, however far the answer is; 0: not by that */
    bool unfinished; /* what is sent is no whole request */
    bool unread;     /* reads nothing of the answer */
    bool when_sent;  /* as soon as all is written */
};

struct client {
    int fd;
    enum phase phase;
    bool reused, again, closes, terminal, in_line;
    int kind, status;
    struct leaving leaving;
    uint64_t started_us, idle_us;
    char request[REQUEST_MAX];
    size_t request_len, sent;
    char id[ID_MAX], told_id[ID_MAX]; /* the client's own name for the request, and weir's */
    char head[HEAD_MAX];
    size_t head_len;
    uint64_t left; /* of the body or the chunk */
    unsigned line_len, events;
    char tail[TAIL_LEN];         /* the last bytes of the body */
    struct client *next, **link; /* among the idle, or the busy */
};

/* The request has had its outcome. The client must not be used by the caller any more. */
static void client_over(struct client *client, enum outcome outcome);

static int epoll_fd = -1;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void client_link(struct client *client, struct client **list)
{
    client->next = *list;
    client->link = list;
    if (client->next != NULL)
        client->next->link = &client->next;
    *list = client;
}

static void client_unlink(struct client *client)
{
    *client->link = client->next;
    if (client->next != NULL)
        client->next->link = client->link;
}

static void client_watch(struct client *client, uint32_t events)
{
    struct epoll_event event = {.events = events | EPOLLRDHUP, .data.ptr = client};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, client->fd, &event);
}

static bool client_connect(struct client *client, const struct sockaddr_in *address)
{
    int on = 1;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP, .data.ptr = client};
    if (client->fd < 0)
        return false;
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, client->fd, &event);
    client->phase = CONNECTING;
    client->reused = false;
    return connect(client->fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EINPROGRESS;
}

/* The request stands in client->request: sends it, or goes on sending it. False: it is over. */
static bool client_send(struct client *client)
{
    client->phase = SENDING;
    while (client->sent < client->request_len) {
        ssize_t n = send(client->fd, client->request + client->sent, client->request_len - client->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n < 0) {
            client_over(client, LOST);
            return false;
        }
        client->sent += (size_t)n;
    }
    client->phase = HEAD;
    if (client->leaving.when_sent) {
        client_over(client, LEFT);
        return false;
    }
    client_watch(client, client->leaving.unread ? 0 : EPOLLIN);
    return true;
}

/* Forgets the last answer. */
static void client_expect(struct client *client)
{
    client->sent = client->head_len = 0;
    client->status = 0;
    client->events = client->line_len = 0;
    client->closes = client->terminal = client->in_line = false;
    client->told_id[0] = '\0';
    memset(client->tail, 0, sizeof(client->tail));
}

/* What the body must end with to be whole, at most TAIL_LEN bytes; the caller knows what it asked for. */
static const char *client_last_words(const struct client *client);

static bool client_ended(struct client *client)
{
    const char *last = client_last_words(client);
    bool whole = memcmp(client->tail + TAIL_LEN - strlen(last), last, strlen(last)) == 0;
    client_over(client, client->status != 200 ? REFUSED : whole ? SERVED : BROKEN);
    return false;
}

/* False: the client has left. */
static bool client_body(struct client *client, const char *bytes, size_t len)
{
    for (const char *at = bytes, *end = bytes + len; at != end; at++) {
        if (*at == '\n' && !client->in_line)
            client->events++;
        client->in_line = *at != '\n';
    }
    size_t keep = len < TAIL_LEN ? len : TAIL_LEN;
    memmove(client->tail, client->tail + keep, TAIL_LEN - keep);
    memcpy(client->tail + TAIL_LEN - keep, bytes + len - keep, keep);
    if (client->leaving.events == 0 || client->events < client->leaving.events)
        return true;
    client_over(client, LEFT);
    return false;
}

static bool head_value(const char *head, const char *name, char *value, size_t size)
{
    const char *found = strcasestr(head, name);
    if (found == NULL)
        return false;
    found += strlen(name);
    found += strspn(found, " ");
    size_t len = strcspn(found, "\r");
    snprintf(value, size, "%.*s", (int)len, found);
    return true;
}

static bool client_head(struct client *client)
{
    char value[ID_MAX];
    client->head[client->head_len] = '\0';
    if (sscanf(client->head, "HTTP/1.1 %d", &client->status) != 1) {
        client_over(client, GARBLED);
        return false;
    }
    head_value(client->head, "\r\nx-request-id:", client->told_id, sizeof(client->told_id));
    client->closes =
        head_value(client->head, "\r\nconnection:", value, sizeof(value)) && strcasecmp(value, "close") == 0;
    client->left = 0;
    client->line_len = 0;
    client->phase = CHUNK_SIZE;
    if (!head_value(client->head, "\r\ncontent-length:", value, sizeof(value)))
        return true;
    client->left = strtoull(value, NULL, 10);
    client->phase = LENGTH_BODY;
    return client->left != 0 || client_ended(client);
}

/* One byte of the framing. False: it is over. */
static bool client_framing(struct client *client, char c)
{
    if (c == '\r')
        return true;
    if (client->phase == CHUNK_SIZE && c == '\n') {
        client->phase = client->left != 0 ? CHUNK_DATA : TRAILER;
        client->line_len = 0;
    } else if (client->phase == CHUNK_SIZE) {
        static const char digits[] = "0123456789abcdef";
        const char *digit = c != '\0' ? strchr(digits, c | 32) : NULL;
        if (digit == NULL || ++client->line_len > 8) {
            client_over(client, GARBLED);
            return false;
        }
        client->left = client->left * 16 + (uint64_t)(digit - digits);
    } else if (client->phase == CHUNK_END) {
        client->phase = CHUNK_SIZE;
    } else if (c == '\n') {
        bool last = client->line_len == 0;
        client->line_len = 0;
        return !last || client_ended(client);
    } else {
        client->line_len++;
    }
    return true;
}

/* False: it is over, and the rest of the bytes belongs to nobody. */
static bool client_bytes(struct client *client, const char *at, const char *end)
{
    while (at != end) {
        if (client->phase == HEAD) {
            if (client->head_len == HEAD_MAX - 1) {
                client_over(client, GARBLED);
                return false;
            }
            client->head[client->head_len++] = *at++;
            if (client->head_len >= 4 && memcmp(client->head + client->head_len - 4, "\r\n\r\n", 4) == 0 &&
                !client_head(client))
                return false;
        } else if (client->phase == LENGTH_BODY || client->phase == CHUNK_DATA) {
            uint64_t n = (uint64_t)(end - at) < client->left ? (uint64_t)(end - at) : client->left;
            client->left -= n;
            if (!client_body(client, at, n))
                return false;
            at += n;
            if (client->left == 0 && client->phase == CHUNK_DATA)
                client->phase = CHUNK_END;
            else if (client->left == 0)
                return client_ended(client);
        } else if (!client_framing(client, *at++)) {
            return false;
        }
    }
    return true;
}

/* The connection has ended, or failed, in the middle of a request. */
static void client_cut(struct client *client)
{
    bool begun = client->phase > HEAD || client->head_len != 0;
    client_over(client, client->leaving.unread                 ? LEFT
                        : client->leaving.unfinished && !begun ? UNFINISHED
                        : !begun                               ? LOST
                                                               : BROKEN);
}

static void client_read(struct client *client)
{
    static char buffer[65536];
    for (;;) {
        ssize_t n = recv(client->fd, buffer, sizeof(buffer), 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            client_cut(client);
            return;
        }
        if (!client_bytes(client, buffer, buffer + n) || (size_t)n < sizeof(buffer))
            return;
    }
}

#endif
