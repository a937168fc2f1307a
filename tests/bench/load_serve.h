/* A model server within the load generator, for the same epoll set: it answers each request at once with the same small
 * JSON document. For measurements that want nobody on the gateway's other side to fall asleep: to wake a sleeper is the
 * sender's work, and how often he has to depends on how long he was about other things. */
#ifndef WEIR_TESTS_LOAD_SERVE_H
#define WEIR_TESTS_LOAD_SERVE_H

#include "load_conn.h"

#define SERVE_ROOM 131072 /* a request, whole */

/* A connection of a gateway, or the listening socket (`listens`). Begins with a descriptor, as struct conn does. */
struct served {
    int fd;
    bool listens;
    size_t len;
    char bytes[SERVE_ROOM + 1];
};

static const char served_answer[] =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: fake-1\r\nopenai-processing-ms: 7\r\n"
    "content-length: 254\r\n\r\n"
    "{\"id\":\"chatcmpl-fake\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"fake-1\",\"choices\":["
    "{"
    "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"xxxxxxxx\"},\"finish_reason\":\"stop\"}],\"usage\":{"
    "\"prompt_tokens\":7,\"completion_tokens\":5,\"total_tokens\":12}}";

/* Listens on a free port of the loopback, which it returns. */
static inline unsigned serve_start(struct served *listener, int epoll_fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = listener};
    listener->listens = true;
    listener->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0 || bind(listener->fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener->fd, 1024) != 0 || getsockname(listener->fd, (struct sockaddr *)&address, &len) != 0)
        fail("cannot listen: %s", strerror(errno));
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener->fd, &event);
    return ntohs(address.sin_port);
}

static inline void serve_accept(const struct served *listener, int epoll_fd)
{
    int on = 1;
    for (int fd; (fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
        struct served *served = malloc(sizeof(*served));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = served};
        served->fd = fd;
        served->listens = false;
        served->len = 0;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

/* How long the request is that the bytes begin with; 0 if it is not whole. */
static inline size_t served_request(const struct served *served)
{
    const char *end = strstr(served->bytes, "\r\n\r\n"), *length = strcasestr(served->bytes, "\r\ncontent-length:");
    size_t head = end != NULL ? (size_t)(end + 4 - served->bytes) : 0;
    size_t body = length != NULL && length < end ? strtoull(length + 17, NULL, 10) : 0;
    return head != 0 && head + body <= served->len ? head + body : 0;
}

/* To be called when the connection, or the listening socket, can be read. */
static inline void serve(struct served *served, int epoll_fd)
{
    if (served->listens) {
        serve_accept(served, epoll_fd);
        return;
    }
    ssize_t n = read(served->fd, served->bytes + served->len, SERVE_ROOM - served->len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        close(served->fd);
        free(served);
        return;
    }
    served->len += (size_t)n;
    served->bytes[served->len] = '\0';
    size_t request = served_request(served);
    if (request == 0 && served->len == SERVE_ROOM)
        fail("a gateway sends a request of more than %d bytes", SERVE_ROOM);
    if (request == 0)
        return;
    if (request != served->len)
        fail("a gateway sends more than it was asked for");
    served->len = 0;
    if (write(served->fd, served_answer, sizeof(served_answer) - 1) != (ssize_t)sizeof(served_answer) - 1)
        fail("an answer could not be written at once");
}

#endif
