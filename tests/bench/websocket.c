/* The load generator for WebSockets: one thread, epoll, over loopback, clear text. Each mode prints one line of
 * name=value pairs; anything unexpected ends it with a message and status 1.
 *
 *      websocket idle    ADDRESS PID COUNT            COUNT sockets that say nothing: memory of each
 *      websocket http    ADDRESS PID COUNT            the same of kept-alive HTTP connections, after a request each
 *      websocket rtt     ADDRESS PATH COUNT           COUNT messages, each after the answer to the last: microseconds
 *      websocket tokens  ADDRESS PID COUNT SECONDS    COUNT sockets with one generation each: processor time per
 * message websocket events  ADDRESS PID COUNT SECONDS    the same by server-sent events over HTTP */
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
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BODY "\"model\":\"fake-1\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}"
#define PROBE "{\"id\":\"a message of sixty-four bytes, answered\",\"cancel\":true   }"

struct conn {
    int fd;
    size_t skip; /* payload bytes of the present frame still to come */
    unsigned char head[10];
    size_t head_len;
    char last; /* the byte before, to find blank lines */
};

static struct sockaddr_in address;

static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "websocket: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    exit(1);
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t cpu_ns_of(int pid)
{
    char path[64 + NAME_MAX], line[128];
    uint64_t sum = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL)
        fail("no process %d", pid);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pid, task->d_name);
        FILE *file = task->d_name[0] != '.' ? fopen(path, "r") : NULL;
        if (file == NULL)
            continue;
        if (fgets(line, sizeof(line), file) != NULL)
            sum += strtoull(line, NULL, 10);
        fclose(file);
    }
    closedir(tasks);
    return sum;
}

static long resident_kib(int pid)
{
    char path[64], line[256];
    long kib = -1;
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, "VmRSS:", 6) == 0)
            kib = strtol(line + 6, NULL, 10);
    if (file != NULL)
        fclose(file);
    return kib;
}

/* ---- connections ---- */

static int connect_once(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (fd == -1 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        fail("cannot connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static void send_all(int fd, const char *bytes, size_t len)
{
    if (send(fd, bytes, len, MSG_NOSIGNAL) != (ssize_t)len)
        fail("cannot send: %s", strerror(errno));
}

/* Sends a request and reads the head of its answer, and nothing behind it. */
static void ask(int fd, const char *request, const char *status)
{
    char head[4096];
    size_t len = 0;
    send_all(fd, request, strlen(request));
    while (len < 4 || memcmp(head + len - 4, "\r\n\r\n", 4) != 0)
        if (len + 1 >= sizeof(head) || recv(fd, head + len++, 1, 0) != 1)
            fail("no answer to the request");
    head[len] = '\0';
    if (strncmp(head, "HTTP/1.1 ", 9) != 0 || strncmp(head + 9, status, 3) != 0)
        fail("unexpected answer: %.80s", head);
}

static int open_websocket(const char *path)
{
    char request[512];
    int fd = connect_once();
    snprintf(request, sizeof(request),
             "GET %s HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
             path);
    ask(fd, request, "101");
    return fd;
}

static void send_text(int fd, const char *text)
{
    char frame[256] = {(char)0x81};
    size_t len = strlen(text), head = 2;
    if (len > 125) {
        frame[1] = (char)(0x80 | 126);
        frame[2] = (char)(len >> 8);
        frame[3] = (char)len;
        head = 4;
    } else {
        frame[1] = (char)(0x80 | len);
    }
    if (head + 4 + len > sizeof(frame))
        fail("message too long");
    memset(frame + head, 0, 4);
    memcpy(frame + head + 4, text, len);
    send_all(fd, frame, head + 4 + len);
}

/* ---- counting what comes ---- */

/* Data messages that end in these bytes. */
static size_t count_frames(struct conn *conn, const unsigned char *at, size_t len)
{
    size_t count = 0;
    while (len != 0) {
        if (conn->skip != 0) {
            size_t n = len < conn->skip ? len : conn->skip;
            conn->skip -= n;
            at += n;
            len -= n;
            continue;
        }
        conn->head[conn->head_len++] = *at++;
        len--;
        if (conn->head_len < 2)
            continue;
        size_t size = conn->head[1] & 0x7f, need = size == 126 ? 4 : size == 127 ? 10 : 2;
        if (conn->head_len < need)
            continue;
        if (need > 2)
            size = 0;
        for (size_t i = 2; i < need; i++)
            size = size << 8 | conn->head[i];
        count += conn->head[0] == 0x81;
        if (conn->head[0] == 0x88)
            fail("the gateway closes");
        conn->skip = size;
        conn->head_len = 0;
    }
    return count;
}

static size_t count_events(struct conn *conn, const unsigned char *at, size_t len)
{
    size_t count = 0;
    for (size_t i = 0; i < len; i++) {
        count += at[i] == '\n' && conn->last == '\n';
        conn->last = (char)at[i];
    }
    return count;
}

static uint64_t receive_for(int epoll, uint64_t us, bool frames)
{
    static unsigned char buffer[65536];
    struct epoll_event events[256];
    uint64_t end = now_us() + us, count = 0;
    while (now_us() < end) {
        int n = epoll_wait(epoll, events, 256, 20);
        for (int i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;
            ssize_t len = recv(conn->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
            if (len == 0 || (len < 0 && errno != EAGAIN))
                fail("a connection ended: %s", len == 0 ? "closed" : strerror(errno));
            if (len > 0)
                count += frames ? count_frames(conn, buffer, (size_t)len) : count_events(conn, buffer, (size_t)len);
        }
    }
    return count;
}

/* ---- modes ---- */

static void hold(bool websocket, int pid, long count)
{
    long before;
    for (long i = 0; i < 100; i++) /* what the first ones make once is not each one's */
        websocket ? (void)open_websocket("/ws/chat")
                  : ask(connect_once(), "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "200");
    usleep(200000);
    before = resident_kib(pid);
    for (long i = 0; i < count; i++)
        websocket ? (void)open_websocket("/ws/chat")
                  : ask(connect_once(), "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "200");
    usleep(500000);
    printf("kib_each=%.2f\n", (double)(resident_kib(pid) - before) / (double)count);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void measure_rtt(const char *path, long count)
{
    static unsigned char buffer[65536];
    uint32_t *samples = calloc((size_t)count, sizeof(*samples));
    struct conn conn = {.fd = open_websocket(path)};
    for (long i = -count / 10; i < count; i++) {
        struct timespec from, to;
        size_t messages = 0;
        /* Below the pace at which a gateway would take it for a flood. */
        usleep(1000);
        clock_gettime(CLOCK_MONOTONIC, &from);
        send_text(conn.fd, PROBE);
        while (messages == 0) {
            ssize_t n = recv(conn.fd, buffer, sizeof(buffer), 0);
            if (n <= 0)
                fail("the connection ended");
            messages = count_frames(&conn, buffer, (size_t)n);
        }
        clock_gettime(CLOCK_MONOTONIC, &to);
        if (i >= 0)
            samples[i] = (uint32_t)((to.tv_sec - from.tv_sec) * 1000000000 + to.tv_nsec - from.tv_nsec);
    }
    qsort(samples, (size_t)count, sizeof(*samples), by_size);
    printf("p50_us=%.1f p99_us=%.1f\n", samples[count / 2] / 1e3, samples[count * 99 / 100] / 1e3);
}

static void measure_streams(bool websocket, int pid, long count, long seconds)
{
    static const char body[] = "{" BODY;
    struct conn *conns = calloc((size_t)count, sizeof(*conns));
    char request[512];
    int epoll = epoll_create1(0);
    snprintf(request, sizeof(request),
             "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
             "%zu\r\n\r\n%s",
             sizeof(body) - 1, body);
    for (long i = 0; i < count; i++) {
        if (websocket) {
            conns[i].fd = open_websocket("/ws/chat");
            send_text(conns[i].fd, "{\"id\":1," BODY);
        } else {
            conns[i].fd = connect_once();
            send_all(conns[i].fd, request, strlen(request));
        }
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &conns[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, conns[i].fd, &event);
        if (i % 20 == 19)
            receive_for(epoll, 20000, websocket);
    }
    receive_for(epoll, 1000000, websocket);
    uint64_t cpu = cpu_ns_of(pid), start = now_us();
    uint64_t messages = receive_for(epoll, (uint64_t)seconds * 1000000, websocket);
    uint64_t us = now_us() - start;
    printf("cpu_us_each=%.2f each_second=%.0f\n", (double)(cpu_ns_of(pid) - cpu) / 1e3 / (double)messages,
           (double)messages * 1e6 / (double)us);
}

int main(int argc, char **argv)
{
    char host[64];
    int port;
    if (argc < 5 || sscanf(argv[2], "%63[^:]:%d", host, &port) != 2)
        fail("wrong arguments, see its source");
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &address.sin_addr);
    long count = strtol(argv[4], NULL, 10), seconds = argc > 5 ? strtol(argv[5], NULL, 10) : 5;
    int pid = (int)strtol(argv[3], NULL, 10);
    if (strcmp(argv[1], "idle") == 0 || strcmp(argv[1], "http") == 0)
        hold(argv[1][0] == 'i', pid, count);
    else if (strcmp(argv[1], "rtt") == 0)
        measure_rtt(argv[3], count);
    else if (strcmp(argv[1], "tokens") == 0 || strcmp(argv[1], "events") == 0)
        measure_streams(argv[1][0] == 't', pid, count, seconds);
    else
        fail("no such mode: %s", argv[1]);
    return 0;
}
