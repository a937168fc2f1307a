/* One connection of the load generator, in clear text or over TLS: sends requests, reads answers, undoes their framing
 * (Content-Length or chunked), counts events by their blank lines. Anything unexpected ends the run by fail(). */
#ifndef WEIR_TESTS_LOAD_CONN_H
#define WEIR_TESTS_LOAD_CONN_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdarg.h>
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

#define HEAD_MAX 8192
#define DONE "data: [DONE]\n\n"
#define DONE_LEN (sizeof(DONE) - 1)

enum phase { HANDSHAKE, IDLE, HEAD, LENGTH_BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

struct conn {
    int fd;   /* -1: closed */
    SSL *ssl; /* NULL: clear text */
    bool wants_write;
    size_t sent; /* of the request, while it is being sent */
    enum phase phase;
    bool sse; /* a stream of events is expected */
    bool first_seen;
    bool in_line;  /* the current line has bytes */
    uint64_t left; /* of the body or the chunk */
    uint64_t body_bytes;
    unsigned long events;
    uint64_t opened_us, asked_us;
    char tail[DONE_LEN]; /* the body's last bytes, as a ring */
    unsigned tail_at;
    unsigned line_len; /* of a chunk-size or trailer line */
    struct conn *next_idle;
    size_t head_len;
    char head[HEAD_MAX];
};

/* In the order in which they are called. */
void on_open(struct conn *conn);
void on_head(const char *head);
void on_first_event(struct conn *conn);
void on_events(struct conn *conn, unsigned count);
void on_answer(struct conn *conn);
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static inline uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Connects, and has the epoll set tell of it. */
static inline void conn_open(struct conn *conn, int epoll_fd, const struct sockaddr_in *address)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    int on = 1;
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (conn->fd < 0 || connect(conn->fd, (const struct sockaddr *)address, sizeof(*address)) != 0)
        fail("cannot connect: %s", strerror(errno));
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    fcntl(conn->fd, F_SETFL, O_NONBLOCK);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, conn->fd, &event);
}

/* A request is about to be sent. */
static inline void conn_expect(struct conn *conn, bool sse)
{
    conn->phase = HEAD;
    conn->sse = sse;
    conn->first_seen = false;
    conn->in_line = false;
    conn->events = 0;
    conn->body_bytes = 0;
    conn->head_len = 0;
    conn->tail_at = 0;
    memset(conn->tail, 0, sizeof(conn->tail));
}

static inline bool conn_ended_done(const struct conn *conn)
{
    for (unsigned i = 0; i < DONE_LEN; i++)
        if (conn->tail[(conn->tail_at + i) % DONE_LEN] != DONE[i])
            return false;
    return true;
}

static inline void conn_body(struct conn *conn, const char *bytes, size_t len)
{
    conn->body_bytes += len;
    if (!conn->sse)
        return;
    unsigned events = 0;
    const char *at = bytes, *end = bytes + len, *newline;
    while (at != end && (newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        if (newline == at && !conn->in_line)
            events++;
        conn->in_line = false;
        at = newline + 1;
    }
    conn->in_line |= at != end;
    for (size_t i = len > DONE_LEN ? len - DONE_LEN : 0; i < len; i++) {
        conn->tail[conn->tail_at] = bytes[i];
        conn->tail_at = (conn->tail_at + 1) % DONE_LEN;
    }
    if (events == 0)
        return;
    conn->events += events;
    on_events(conn, events);
    if (!conn->first_seen) {
        conn->first_seen = true;
        on_first_event(conn);
    }
}

static inline void conn_head(struct conn *conn)
{
    conn->head[conn->head_len] = '\0';
    if (strncmp(conn->head, "HTTP/1.1 200", 12) != 0)
        fail("expected a 200, got: %.*s", (int)strcspn(conn->head, "\r\n"), conn->head);
    const char *length = strcasestr(conn->head, "\r\ncontent-length:");
    const char *type = strcasestr(conn->head, "\r\ncontent-type: text/event-stream");
    if (strcasestr(conn->head, "\r\nconnection: close") != NULL)
        fail("the connection is not kept alive");
    if (conn->sse != (type != NULL))
        fail("unexpected content type");
    on_head(conn->head);
    if (length != NULL) {
        conn->left = strtoull(length + 17, NULL, 10);
        conn->phase = LENGTH_BODY;
    } else if (strcasestr(conn->head, "\r\ntransfer-encoding: chunked") != NULL) {
        conn->left = 0;
        conn->line_len = 0;
        conn->phase = CHUNK_SIZE;
    } else {
        fail("an answer without framing");
    }
}

static inline void conn_finished(struct conn *conn)
{
    conn->phase = IDLE;
    on_answer(conn);
}

/* One byte of the framing. */
static inline void conn_framing(struct conn *conn, char c)
{
    if (conn->phase == CHUNK_SIZE) {
        if (c == '\n') {
            conn->phase = conn->left != 0 ? CHUNK_DATA : TRAILER;
            conn->line_len = 0;
        } else if (c != '\r') {
            const char *digits = "0123456789abcdef", *digit = c != '\0' ? strchr(digits, c | 32) : NULL;
            if (digit == NULL || ++conn->line_len > 8)
                fail("a bad chunk size");
            conn->left = conn->left * 16 + (uint64_t)(digit - digits);
        }
    } else if (conn->phase == CHUNK_END) {
        if (c == '\n')
            conn->phase = CHUNK_SIZE;
        else if (c != '\r')
            fail("a chunk is longer than it says");
    } else if (c == '\n') { /* TRAILER */
        if (conn->line_len == 0)
            conn_finished(conn);
        conn->line_len = 0;
    } else if (c != '\r') {
        conn->line_len++;
    }
}

static inline void conn_bytes(struct conn *conn, const char *at, const char *end)
{
    while (at != end) {
        if (conn->phase == IDLE) {
            fail("bytes that nobody asked for");
        } else if (conn->phase == HEAD) {
            if (conn->head_len == HEAD_MAX - 1)
                fail("a head of more than %d bytes", HEAD_MAX);
            conn->head[conn->head_len++] = *at++;
            if (conn->head_len >= 4 && memcmp(conn->head + conn->head_len - 4, "\r\n\r\n", 4) == 0)
                conn_head(conn);
        } else if (conn->phase == LENGTH_BODY || conn->phase == CHUNK_DATA) {
            uint64_t n = (uint64_t)(end - at) < conn->left ? (uint64_t)(end - at) : conn->left;
            conn->left -= n;
            conn_body(conn, at, n);
            at += n;
            if (conn->left == 0 && conn->phase == CHUNK_DATA)
                conn->phase = CHUNK_END;
            else if (conn->left == 0)
                conn_finished(conn);
        } else {
            conn_framing(conn, *at++);
        }
    }
}

/* Says when it was, as much as why: a gateway waits only so long for the end of a handshake, and who has just ended his
 * own does not know whether it did. */
static inline void __attribute__((noreturn)) conn_tls_failed(const struct conn *conn, const char *why)
{
    if (why == NULL)
        why = ERR_reason_error_string(ERR_peek_error()) ?: "the connection broke";
    fail("TLS, %s: %s, %.1f s after connecting", conn->head_len != 0 ? "in an answer" : "before an answer", why,
         (double)(now_us() - conn->opened_us) / 1e6);
}

/* Like read() and write(), over TLS too; -1 with EAGAIN if there is nothing now, 0 at the end. */
static inline ssize_t conn_tls_result(struct conn *conn, int n)
{
    int error = n > 0 ? SSL_ERROR_NONE : SSL_get_error(conn->ssl, n);
    if (error == SSL_ERROR_NONE)
        return n;
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        conn_tls_failed(conn, error == SSL_ERROR_SYSCALL && errno != 0 ? strerror(errno) : NULL);
    errno = EAGAIN;
    return -1;
}

static inline void conn_watch(struct conn *conn, int epoll_fd, bool write)
{
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = conn};
    if (conn->wants_write != write)
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, conn->fd, &event);
    conn->wants_write = write;
}

/* Sends the request on from conn->sent. */
static inline void conn_send(struct conn *conn, int epoll_fd, const char *request, size_t len)
{
    while (conn->sent != len) {
        size_t left = len - conn->sent;
        const char *at = request + conn->sent;
        ssize_t n =
            conn->ssl == NULL ? write(conn->fd, at, left) : conn_tls_result(conn, SSL_write(conn->ssl, at, (int)left));
        if (n <= 0 && errno != EAGAIN && errno != EINTR)
            fail("a request could not be written: %s", strerror(errno));
        if (n <= 0)
            break;
        conn->sent += (size_t)n;
    }
    conn_watch(conn, epoll_fd, conn->sent != len);
}

static inline void conn_read(struct conn *conn)
{
    static char buffer[65536];
    if (conn->phase == HANDSHAKE) {
        if (conn_tls_result(conn, SSL_do_handshake(conn->ssl)) < 0)
            return;
        on_open(conn);
    }
    do {
        ssize_t n = conn->ssl == NULL ? read(conn->fd, buffer, sizeof(buffer))
                                      : conn_tls_result(conn, SSL_read(conn->ssl, buffer, sizeof(buffer)));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0 && conn->phase == IDLE)
            fail("a kept connection was closed");
        if (n <= 0)
            fail("a connection ended inside an answer: %s", n == 0 ? "closed" : strerror(errno));
        conn_bytes(conn, buffer, buffer + n);
    } while (conn->ssl != NULL && conn->fd >= 0 && SSL_has_pending(conn->ssl)); /* epoll does not tell of that */
}

#endif
