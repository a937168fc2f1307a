/* Connections of the model-server fake: input, output that could not be written yet, one timer each, TLS.
 * Single-threaded. */
#ifndef WEIR_TESTS_FAKE_CONN_H
#define WEIR_TESTS_FAKE_CONN_H

#include "fake_request.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define INPUT_MAX ((64u << 20) + 65536)
#define JOURNAL_ID_MAX 64

enum phase {
    READING,   /* a request, or nothing, is coming in */
    DELAYING,  /* until the head is due */
    INTERIM,   /* sending 1xx */
    HEADING,   /* sending a head without end */
    OPENING,   /* between head and body */
    STREAMING, /* sending events */
    STALLED,
    CLOSING,   /* once all is written */
    RESETTING, /* likewise, with RST */
    LINGERING, /* answered before the body was read: reads and forgets until the peer closes */
};

struct conn {
    int fd;
    SSL *ssl;
    bool handshaking, writable_wanted, control, sending_split, stale;
    enum phase phase;
    struct behave behave;
    enum dialect dialect;
    bool stream, head_only, usage, base64, keep;
    long sent_events, interim_left;
    bool opened, closed; /* the dialect's first events are out, and its last */
    struct template *template;
    struct text echo;   /* what is answered to a request that the fake knows nothing about */
    uint64_t due_us;    /* of the next event */
    uint64_t late_us;   /* the part of spread_ms that came before the first event */
    uint64_t timer_us;  /* valid while timer_index is not 0 */
    size_t timer_index; /* place in the heap + 1 */
    char *in;
    size_t in_len, in_cap, in_need; /* in_need: length of the request under way once known, else 0 */
    bool expect_answered;
    struct unchunk unchunk;
    char *out;
    size_t out_len, out_cap, out_done, drip; /* drip: bytes per write; 0: as many as possible */
    char id[JOURNAL_ID_MAX + 1];             /* of the request under way, if the journal has it; empty: none */
};

/* What GET /fake/stats tells. */
static struct stats {
    unsigned long requests, streams_begun, streams_finished, events, aborts, open, accepted, stale_closed;
    unsigned long long bytes, last_abort_us, last_request_us;
} stats;

static int epoll_fd = -1;
static int journal_fd = -1; /* -1: none is kept */

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- the journal: what outlives a fake that is killed, since each line is in the kernel before the next byte is sent
 */

/* Writes what has come of the request under way: "begun", then "done", "cut" by the fake, or "left" by its client. */
static void journal(struct conn *conn, const char *what)
{
    char line[JOURNAL_ID_MAX + 16];
    if (conn->id[0] == '\0')
        return;
    int len = snprintf(line, sizeof(line), "%s %s\n", conn->id, what);
    if (write(journal_fd, line, (size_t)len) != len)
        abort();
}

/* The last word on it. */
static void journal_end(struct conn *conn, const char *what)
{
    journal(conn, what);
    conn->id[0] = '\0';
}

/* ---- timers: a binary heap ordered by time */

static struct {
    struct conn **at;
    size_t count, cap;
} heap;

static void heap_put(size_t i, struct conn *conn)
{
    heap.at[i] = conn;
    conn->timer_index = i + 1;
}

static void heap_sift(size_t i, struct conn *conn)
{
    while (i != 0 && heap.at[(i - 1) / 2]->timer_us > conn->timer_us) {
        heap_put(i, heap.at[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (size_t child; (child = 2 * i + 1) < heap.count; i = child) {
        if (child + 1 < heap.count && heap.at[child + 1]->timer_us < heap.at[child]->timer_us)
            child++;
        if (heap.at[child]->timer_us >= conn->timer_us)
            break;
        heap_put(i, heap.at[child]);
    }
    heap_put(i, conn);
}

static void timer_disarm(struct conn *conn)
{
    if (conn->timer_index == 0)
        return;
    size_t hole = conn->timer_index - 1;
    struct conn *last = heap.at[--heap.count];
    conn->timer_index = 0;
    if (last != conn)
        heap_sift(hole, last);
}

static void timer_arm(struct conn *conn, uint64_t at_us)
{
    timer_disarm(conn);
    if (heap.count == heap.cap) {
        heap.cap = heap.cap != 0 ? heap.cap * 2 : 1024;
        if ((heap.at = realloc(heap.at, heap.cap * sizeof(struct conn *))) == NULL)
            abort();
    }
    conn->timer_us = at_us;
    heap_sift(heap.count++, conn);
}

/* ---- the life of a connection */

static struct conn *conn_create(int fd, SSL_CTX *tls)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = conn};
    if (conn == NULL)
        abort();
    conn->fd = fd;
    if (tls != NULL) {
        conn->ssl = SSL_new(tls);
        SSL_set_fd(conn->ssl, fd);
        SSL_set_accept_state(conn->ssl);
        conn->handshaking = true;
    }
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    stats.open++;
    stats.accepted++;
    return conn;
}

static void conn_close(struct conn *conn, bool reset)
{
    journal_end(conn, "cut");
    if (reset) {
        struct linger linger = {.l_onoff = 1};
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    } else if (conn->ssl != NULL && !conn->handshaking) {
        SSL_shutdown(conn->ssl);
    }
    timer_disarm(conn);
    SSL_free(conn->ssl);
    close(conn->fd);
    if (!conn->control)
        stats.open--;
    free(conn->in);
    free(conn->out);
    free(conn->echo.base);
    free(conn);
}

/* The peer has closed, or cannot be written to. */
static void conn_gone(struct conn *conn)
{
    if (conn->phase >= DELAYING && conn->phase <= STALLED) {
        journal_end(conn, "left");
        stats.aborts++;
        stats.last_abort_us = now_us();
    }
    conn_close(conn, false);
}

/* The connection does no control traffic, until it asks for a path under /fake/. */
static void conn_is_control(struct conn *conn)
{
    if (!conn->control) {
        conn->control = true;
        stats.open--;
        stats.accepted--;
    }
}

static void conn_want_write(struct conn *conn, bool wanted)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (wanted ? EPOLLOUT : 0), .data.ptr = conn};
    if (conn->writable_wanted != wanted)
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, conn->fd, &event);
    conn->writable_wanted = wanted;
}

/* Bytes read or written; 0: not now; -1: over. */
static long conn_io(struct conn *conn, void *into, const void *from, size_t len)
{
    if (conn->ssl == NULL) {
        ssize_t n = into != NULL ? recv(conn->fd, into, len, 0) : send(conn->fd, from, len, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        return n == 0 ? -1 : n;
    }
    int n = into != NULL ? SSL_read(conn->ssl, into, (int)len) : SSL_write(conn->ssl, from, (int)len);
    if (n > 0)
        return n;
    int error = SSL_get_error(conn->ssl, n);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

/* Writes what waits. False: the connection is gone and freed. */
static bool conn_flush(struct conn *conn)
{
    while (conn->out_done != conn->out_len) {
        size_t len = conn->out_len - conn->out_done;
        if (conn->drip != 0 && len > conn->drip)
            len = conn->drip;
        long n = conn_io(conn, NULL, conn->out + conn->out_done, len);
        if (n < 0) {
            conn_gone(conn);
            return false;
        }
        if (n == 0) {
            conn_want_write(conn, true);
            return true;
        }
        stats.bytes += conn->control ? 0 : (unsigned long long)n;
        conn->out_done += (size_t)n;
        if (conn->behave.split && conn->out_done != conn->out_len) {
            conn->sending_split = true;
            timer_arm(conn, now_us() + 2000);
            return true;
        }
    }
    conn->out_done = conn->out_len = 0;
    conn_want_write(conn, false);
    return true;
}

/* Sends one piece, as the behaviour says, and keeps what the socket does not take. False: gone and freed. */
static bool conn_send(struct conn *conn, const char *bytes, size_t len)
{
    if (conn->out_len == 0 && !conn->behave.split && !conn->behave.bytes) {
        long n = conn_io(conn, NULL, bytes, len);
        if (n < 0) {
            conn_gone(conn);
            return false;
        }
        stats.bytes += conn->control ? 0 : (unsigned long long)n;
        if ((size_t)n == len)
            return true;
        bytes += n;
        len -= (size_t)n;
    }
    if (conn->out_len + len > conn->out_cap) {
        conn->out_cap = conn->out_len + len;
        if ((conn->out = realloc(conn->out, conn->out_cap)) == NULL)
            abort();
    }
    memcpy(conn->out + conn->out_len, bytes, len);
    conn->out_len += len;
    conn->drip = conn->behave.bytes ? 1 : conn->behave.split ? (conn->out_len + 1) / 2 : 0;
    return conn->writable_wanted || conn->sending_split || conn_flush(conn);
}

/* Reads what there is. False: gone and freed. */
static bool conn_fill(struct conn *conn)
{
    for (;;) {
        if (conn->phase == LINGERING)
            conn->in_len = 0;
        if (conn->in_cap - conn->in_len < 4096) {
            size_t cap = conn->in_cap != 0 ? conn->in_cap * 2 : 8192;
            if (cap > 2 * (size_t)INPUT_MAX || (conn->in = realloc(conn->in, cap)) == NULL) {
                conn_close(conn, true);
                return false;
            }
            conn->in_cap = cap;
        }
        size_t room = conn->in_cap - conn->in_len;
        long n = conn_io(conn, conn->in + conn->in_len, NULL, room);
        if (n < 0) {
            conn_gone(conn);
            return false;
        }
        conn->in_len += (size_t)n;
        if (n == 0 || (conn->ssl == NULL && (size_t)n < room))
            return true;
    }
}

/* Forgets a request that was answered, keeping what came after it. */
static void conn_consume(struct conn *conn, size_t len)
{
    conn->in_len -= len;
    memmove(conn->in, conn->in + len, conn->in_len);
    conn->in_need = 0;
    conn->expect_answered = false;
    conn->unchunk = (struct unchunk){0};
}

#endif
