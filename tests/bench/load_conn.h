/* One connection of the load generator: reads answers, undoes their framing (Content-Length or chunked), counts events
 * by their blank lines. Anything unexpected ends the run by fail(). */
#ifndef WEIR_TESTS_LOAD_CONN_H
#define WEIR_TESTS_LOAD_CONN_H

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/tcp.h>
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

enum phase { IDLE, HEAD, LENGTH_BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

struct conn {
    int fd;
    enum phase phase;
    bool sse; /* a stream of events is expected */
    bool first_seen;
    bool in_line;  /* the current line has bytes */
    uint64_t left; /* of the body or the chunk */
    uint64_t body_bytes;
    unsigned long events;
    uint64_t asked_us;
    char tail[DONE_LEN]; /* the body's last bytes, as a ring */
    unsigned tail_at;
    unsigned line_len; /* of a chunk-size or trailer line */
    struct conn *next_idle;
    size_t head_len;
    char head[HEAD_MAX];
};

/* What the gateway's processes have used. */
struct use {
    uint64_t at_us, cpu_ns, rss_kib;
};

/* In the order in which they are called. */
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

static inline void conn_read(struct conn *conn)
{
    static char buffer[65536];
    ssize_t n = read(conn->fd, buffer, sizeof(buffer));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 && conn->phase == IDLE)
        fail("a kept connection was closed");
    if (n <= 0)
        fail("a connection ended inside an answer: %s", n == 0 ? "closed" : strerror(errno));
    conn_bytes(conn, buffer, buffer + n);
}

#endif
