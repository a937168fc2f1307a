#include "base/log_writer.h"
#include "base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHUNK_MAX (64 * 1024)
#define NAP_MS 10                  /* between rounds; lines that come meanwhile wake nobody, */
#define NAP_MAX (LOG_RING_MAX / 4) /* unless more than this waits */
#define NOTICE_US 1000000          /* least time between two notices while more is waiting */
#define STDERR_WAIT_MS 100         /* for a line written without the thread */
#define STUCK_WAIT_MS 20           /* beyond the time to stop, before a thread is given up */

/*  bytes:  [ free | waiting lines | free ]      positions only grow; position % LOG_RING_MAX is the place
 *                 ^tail           ^head
 * Producers move `head`, the writer moves `tail`, both under `lock`. What lies between belongs to the writer, which
 * therefore writes it without the lock. */
struct ring {
    uint64_t head, tail;
    uint64_t seen;     /* the head at the last round; the writer's */
    uint64_t reported; /* drops that notices have told of; the writer's */
    uint64_t notice_us;
    int fd;
    bool is_socket, waits_first; /* see inspect() */
    size_t chunk_max;
    bool mid_line; /* the last write ended within a line */
    bool sleeping, napping, stopping, finished;
    bool abandoned;   /* stuck when the log was stopped: frees its ring itself */
    uint64_t stop_us; /* when stopping: give up then */
    int stop_event;   /* readable from the moment of stopping, so that a poll ends */
    pthread_t thread;
    char bytes[LOG_RING_MAX];
};

/* Guards `ring` and its head, tail, sleeping, napping, stopping, stop_us, finished
 * and abandoned. Held for a copy, never for a write. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake, ended;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct ring *ring;
static _Atomic uint64_t dropped;

static void make_conditions(void)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&wake, &attr);
    pthread_cond_init(&ended, &attr);
    pthread_condattr_destroy(&attr);
}

static struct timespec timespec_of(uint64_t at_us)
{
    return (struct timespec){.tv_sec = (time_t)(at_us / 1000000), .tv_nsec = (long)(at_us % 1000000) * 1000};
}

uint64_t log_writer_dropped(void)
{
    return atomic_load_explicit(&dropped, memory_order_relaxed);
}

static void count_dropped(uint64_t lines)
{
    atomic_fetch_add_explicit(&dropped, lines, memory_order_relaxed);
}

/* Without a thread: stderr, but not for ever. */
static void write_stderr(struct span line)
{
    while (line.len != 0) {
        struct pollfd poller = {.fd = STDERR_FILENO, .events = POLLOUT};
        ssize_t written = -1;
        if (poll(&poller, 1, STDERR_WAIT_MS) > 0)
            written = write(STDERR_FILENO, line.base, line.len);
        else
            errno = EAGAIN;
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0) {
            count_dropped(1);
            return;
        }
        line = span_skip(line, (size_t)written);
    }
}

void log_writer_put(struct span line)
{
    pthread_mutex_lock(&lock);
    struct ring *r = ring;
    if (r == NULL) {
        pthread_mutex_unlock(&lock);
        write_stderr(line);
        return;
    }
    if (LOG_RING_MAX - (r->head - r->tail) < line.len) {
        pthread_mutex_unlock(&lock);
        count_dropped(1);
        return;
    }
    size_t at = r->head % LOG_RING_MAX, first = LOG_RING_MAX - at;
    if (first > line.len)
        first = line.len;
    memcpy(r->bytes + at, line.base, first);
    memcpy(r->bytes, line.base + first, line.len - first);
    r->head += line.len;
    bool wakes = r->sleeping || (r->napping && r->head - r->tail > NAP_MAX);
    if (wakes)
        r->sleeping = r->napping = false; /* one signal is enough */
    pthread_mutex_unlock(&lock);
    if (wakes)
        pthread_cond_signal(&wake);
}

/* A socket is told with each call not to block. Another blocking descriptor is written to only when poll says so, and
 * then no more than a pipe is sure to take at once. */
static void inspect(struct ring *r)
{
    struct stat st;
    int flags = fcntl(r->fd, F_GETFL);
    bool known = fstat(r->fd, &st) == 0;
    r->is_socket = known && S_ISSOCK(st.st_mode);
    bool never_blocks = r->is_socket || (known && S_ISREG(st.st_mode)) || (flags >= 0 && (flags & O_NONBLOCK) != 0);
    r->waits_first = !never_blocks;
    r->chunk_max = never_blocks ? CHUNK_MAX : PIPE_BUF;
}

/* How long the writer may still wait, in milliseconds: -1 for ever, 0 not at all. */
static int time_left_ms(struct ring *r)
{
    pthread_mutex_lock(&lock);
    bool stopping = r->stopping;
    uint64_t stop_us = r->stop_us;
    pthread_mutex_unlock(&lock);
    if (!stopping)
        return -1;
    uint64_t now_us = clock_us();
    return now_us >= stop_us ? 0 : (int)((stop_us - now_us + 999) / 1000);
}

/* Returns how much of the pieces was written, or -1 with errno. */
static ssize_t write_some(struct ring *r, struct iovec *pieces, int count)
{
    if (!r->is_socket)
        return writev(r->fd, pieces, count);
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
    return sendmsg(r->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* False when the descriptor did not become writable before the time to stop. */
static bool wait_writable(struct ring *r)
{
    for (;;) {
        int left_ms = time_left_ms(r);
        if (left_ms == 0)
            return false;
        struct pollfd pollers[2] = {{.fd = r->fd, .events = POLLOUT}, {.fd = r->stop_event, .events = POLLIN}};
        /* Once stopping, the event is always readable and only the time counts. Without one, look now and then. */
        int ready = poll(pollers, left_ms < 0 ? 2 : 1, left_ms < 0 ? 1000 : left_ms);
        if ((ready > 0 && pollers[0].revents != 0) || (ready < 0 && errno != EINTR && errno != EAGAIN))
            return true; /* an error is found out by writing */
    }
}

static uint64_t lines_between(const struct ring *r, uint64_t from, uint64_t to)
{
    uint64_t lines = 0;
    for (; from < to; from++)
        lines += r->bytes[from % LOG_RING_MAX] == '\n';
    return lines;
}

/* Where a chunk that starts at the tail ends: with a line, as far on as the limit allows. */
static uint64_t chunk_end(const struct ring *r, uint64_t head)
{
    if (head - r->tail <= r->chunk_max)
        return head;
    uint64_t end = r->tail + r->chunk_max;
    while (end > r->tail && r->bytes[(end - 1) % LOG_RING_MAX] != '\n')
        end--;
    return end > r->tail ? end : r->tail + r->chunk_max;
}

/* Writes one chunk. A failed descriptor loses the chunk, so that the ring empties. False when it is time to give up. */
static bool write_chunk(struct ring *r, uint64_t head)
{
    uint64_t end = chunk_end(r, head);
    size_t len = (size_t)(end - r->tail), at = r->tail % LOG_RING_MAX, first = LOG_RING_MAX - at;
    struct iovec pieces[2] = {{r->bytes + at, first < len ? first : len}, {r->bytes, first < len ? len - first : 0}};
    if (r->waits_first && !wait_writable(r))
        return false;
    ssize_t written = write_some(r, pieces, first < len ? 2 : 1);
    if (written < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return wait_writable(r);
    if (written < 0 && errno == EINTR)
        return true;
    if (written < 0)
        count_dropped(lines_between(r, r->tail, end));
    else
        end = r->tail + (uint64_t)written;
    if (end != r->tail)
        r->mid_line = written >= 0 && r->bytes[(end - 1) % LOG_RING_MAX] != '\n';
    pthread_mutex_lock(&lock);
    r->tail = end;
    pthread_mutex_unlock(&lock);
    return true;
}

/* Tells of lines that were dropped. Called when something has just been written, between two lines. */
static bool write_notice(struct ring *r)
{
    struct log_line line;
    uint64_t now = log_writer_dropped();
    struct span text = log_make_dropped(&line, now - r->reported);
    while (text.len != 0) {
        struct iovec piece = {(void *)text.base, text.len};
        if (r->waits_first && !wait_writable(r))
            return false;
        ssize_t written = write_some(r, &piece, 1);
        if (written < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!wait_writable(r))
                return false;
        } else if (written < 0) {
            return true; /* told of with the next one */
        } else {
            text = span_skip(text, (size_t)written);
        }
    }
    r->reported = now;
    r->notice_us = clock_us();
    return true;
}

/* Waits for lines. Returns the head; the tail's place means that the log is to end. */
static uint64_t wait_lines(struct ring *r)
{
    pthread_mutex_lock(&lock);
    /* What is left of the last round goes on at once. */
    if (r->tail == r->seen && r->head - r->tail <= NAP_MAX && !r->stopping) {
        struct timespec until = timespec_of(clock_us() + NAP_MS * 1000);
        r->napping = true;
        pthread_cond_timedwait(&wake, &lock, &until);
        r->napping = false;
    }
    while (r->head == r->tail && !r->stopping) {
        r->sleeping = true;
        pthread_cond_wait(&wake, &lock);
    }
    r->sleeping = false;
    uint64_t head = r->stopping && clock_us() >= r->stop_us ? r->tail : r->head;
    r->seen = head;
    pthread_mutex_unlock(&lock);
    return head;
}

static void destroy(struct ring *r)
{
    if (r->stop_event >= 0)
        close(r->stop_event);
    free(r);
}

static void *run(void *arg)
{
    struct ring *r = arg;
    inspect(r);
    for (;;) {
        uint64_t head = wait_lines(r);
        if (head == r->tail || !write_chunk(r, head))
            break;
        bool due = r->tail == head || clock_us() - r->notice_us >= NOTICE_US;
        if (due && !r->mid_line && log_writer_dropped() != r->reported && !write_notice(r))
            break;
    }
    pthread_mutex_lock(&lock);
    r->finished = true;
    bool abandoned = r->abandoned;
    pthread_cond_signal(&ended);
    pthread_mutex_unlock(&lock);
    if (abandoned)
        destroy(r);
    return NULL;
}

void log_writer_start(int fd)
{
    pthread_once(&once, make_conditions);
    struct ring *r = calloc(1, sizeof(*r));
    if (r == NULL)
        abort();
    r->fd = fd;
    r->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r->reported = log_writer_dropped();
    /* Signals are for the other threads; a broken pipe is told by EPIPE. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&r->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        destroy(r); /* lines go on to stderr */
        return;
    }
    pthread_mutex_lock(&lock);
    ring = r;
    pthread_mutex_unlock(&lock);
}

/* Waits, with the lock held, until the thread has ended or the time has come. */
static bool wait_ended(struct ring *r, uint64_t until_us)
{
    struct timespec until = timespec_of(until_us);
    while (!r->finished)
        if (pthread_cond_timedwait(&ended, &lock, &until) != 0)
            break;
    return r->finished;
}

void log_writer_stop(int flush_ms)
{
    pthread_mutex_lock(&lock);
    struct ring *r = ring;
    if (r == NULL) {
        pthread_mutex_unlock(&lock);
        return;
    }
    ring = NULL; /* from here on lines go to stderr */
    r->stopping = true;
    r->stop_us = clock_us() + (uint64_t)(flush_ms > 0 ? flush_ms : 0) * 1000;
    pthread_cond_signal(&wake);
    if (r->stop_event >= 0)
        eventfd_write(r->stop_event, 1);
    bool finished = wait_ended(r, r->stop_us + STUCK_WAIT_MS * 1000);
    pthread_t thread = r->thread;
    uint64_t left = lines_between(r, r->tail, r->head);
    r->abandoned = !finished;
    pthread_mutex_unlock(&lock);
    count_dropped(left);
    if (finished) {
        pthread_join(thread, NULL);
        destroy(r);
    } else {
        pthread_detach(thread); /* somebody else filled the pipe between its poll and its write */
    }
}
