/* The load generator of the benchmark: one thread, epoll, HTTP/1.1 over loopback, in clear text or (--tls) TLS 1.3. It
 * checks every answer (status, framing, number of events, the closing [DONE]); a run in which anything was wrong prints
 * what, and exits 1 instead of giving numbers. Otherwise it prints one line of `name=value` pairs. It also reads what
 * the gateway used meanwhile
 * (--pids): processor time from /proc/PID/task/.../schedstat and resident memory from /proc/PID/status.
 *
 * - load streams: all --count streams are opened over --ramp-ms and stay open together; once all have had an event, the
 *   gateway's use is measured for --seconds; then all must come to their proper end
 * - load json: --count connections, each asking again as soon as it is answered, --requests in all, the first tenth not
 *   measured
 * - load again: the same with streamed requests, whose answers must all have the same number of bytes
 * - load paced: --rate streamed requests a second, --requests in all, whether or not the earlier ones were answered;
 *   measures the time to the first event; --count connections are open before, more are opened as they are needed
 * - load use: asks nothing; tells what --pids use within --seconds, or have used until now, and from when to when (Unix
 *   time); with the --address of the model-server fake also how many events that has sent meanwhile
 *
 * How busy the processors were while it was measured says which side was too slow, if one was.
 *
 * --bytes N makes the request's body N bytes long; with --serial N each body is another one: its number, from N on,
 * stands in the prompt. --header TEXT must begin a header line of each answer, as in "x-cache: hit". */
#include "load_conn.h"
#include "load_start.h"
#include "load_use.h"
#include <getopt.h>
#include <signal.h>
#include <sys/time.h>

#define TOTAL_MAX_US 90000000 /* no run lasts longer */
#define TICK_US 1000

#define SERIAL_DIGITS 12
#define BODY_MAX (2 << 20)

enum mode { STREAMS, JSON, AGAIN, PACED, USE };

static struct {
    enum mode mode;
    struct sockaddr_in address;
    long count, requests, rate, events, seconds, ramp_ms;
    long bytes, serial; /* of the body, 0: as it is; the first body's number, -1: all bodies are the same */
    const char *key, *fake, *header;
    int pids[PIDS_MAX];
    int pid_count;
    SSL_CTX *tls; /* NULL: clear text */
} options = {
    .mode = STREAMS, .count = 1, .requests = 1, .rate = 100, .ramp_ms = 1, .serial = -1, .key = "", .fake = ""};

static struct {
    char *request;
    size_t request_len;
    char *serial;        /* the number in the request */
    uint64_t body_bytes; /* of the first answer */
    int epoll_fd, timer_fd;
    struct conn *idle;                               /* connections that wait for a request (PACED) */
    long opened, opening, asked, done, first_events; /* opening: connected, not yet asked (TLS) */
    long warming;                                    /* connections to be opened before the first request (PACED) */
    uint64_t events, start_us;
    bool over;
    /* the part of the run that is measured */
    struct use before, during_start, during_end;
    long done_start, done_in_window;
    uint64_t events_start, events_in_window;
    uint32_t *samples_us;
    long sample_count;
} run;

static struct use use_now(void)
{
    return use_of(options.pids, options.pid_count);
}

/* On stdout it tells how busy the processors were, as report() would. */
void fail(const char *format, ...)
{
    static bool failing; /* use_now() may */
    va_list args;
    va_start(args, format);
    say_failed("load", format, args);
    va_end(args);
    if (run.before.at_us != 0 && options.pid_count != 0 && !failing) {
        failing = true;
        struct use use = use_now();
        print_busy(&run.before, &use);
        printf("\n");
    }
    exit(1);
}

/* ---- asking ---- */

static bool is_closed_loop(void)
{
    return options.mode == JSON || options.mode == AGAIN;
}

static void send_request(struct conn *conn)
{
    conn_expect(conn, options.mode != JSON);
    if (options.serial >= 0) {
        long number = options.serial + run.asked;
        for (int i = SERIAL_DIGITS; i-- > 0; number /= 10)
            run.serial[i] = (char)('0' + number % 10);
    }
    conn->asked_us = now_us();
    run.asked++;
    conn->sent = 0;
    conn_send(conn, run.epoll_fd, run.request, run.request_len);
    if (conn->sent != run.request_len && options.serial >= 0)
        fail("a request with a number could not be written at once");
}

void on_open(struct conn *conn)
{
    run.opening--;
    if (run.warming == 0) {
        send_request(conn);
        return;
    }
    conn->phase = IDLE;
    conn->next_idle = run.idle;
    run.idle = conn;
    if (--run.warming == 0)
        run.start_us = now_us();
}

static void open_conn(void)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    conn_open(conn, run.epoll_fd, &options.address);
    conn->opened_us = now_us();
    run.opened++;
    run.opening++;
    if (options.tls == NULL) {
        on_open(conn);
        return;
    }
    conn->ssl = SSL_new(options.tls);
    SSL_set_fd(conn->ssl, conn->fd);
    SSL_set_connect_state(conn->ssl);
    conn_read(conn); /* begins the handshake */
}

static void fail_late(const char *what)
{
    fail("%s: %ld of %ld answers", what, run.done, run.asked);
}

/* ---- the answers ---- */

static void begin_window(void)
{
    run.during_start = use_now();
    run.events_start = run.events;
    run.done_start = run.done;
}

static void end_window(void)
{
    run.during_end = use_now();
    run.events_in_window = run.events - run.events_start;
    run.done_in_window = run.done - run.done_start;
}

void on_head(const char *head)
{
    if (options.header != NULL)
        expect_header(head, options.header);
}

void on_first_event(struct conn *conn)
{
    run.first_events++;
    if (options.mode == PACED)
        run.samples_us[run.sample_count++] = (uint32_t)(now_us() - conn->asked_us);
}

void on_events(struct conn *conn, unsigned count)
{
    (void)conn;
    run.events += count;
}

void on_answer(struct conn *conn)
{
    run.done++;
    if (conn->sse && options.events != 0 && conn->events != (unsigned long)options.events)
        fail("a stream had %lu events, expected %ld", conn->events, options.events);
    if (conn->sse && !conn_ended_done(conn))
        fail("a stream ended without [DONE]");
    if (run.done == 1)
        run.body_bytes = conn->body_bytes;
    if (options.mode == AGAIN && conn->body_bytes != run.body_bytes)
        fail("an answer of %llu bytes after one of %llu", (unsigned long long)conn->body_bytes,
             (unsigned long long)run.body_bytes);
    if (options.mode == STREAMS) {
        if (options.pid_count != 0 && run.during_end.at_us == 0)
            fail_late("a stream ended before the measurement did");
        close(conn->fd); /* it stays in memory: conn_read is still at it */
        conn->fd = -1;
        run.over = run.done == options.count;
    } else if (is_closed_loop()) {
        if (run.during_start.at_us == 0 && run.done >= options.requests / 10)
            begin_window();
        if (run.asked < options.requests) {
            send_request(conn);
        } else if (run.done == options.requests) {
            end_window();
            run.over = true;
        }
    } else {
        conn->next_idle = run.idle;
        run.idle = conn;
        run.over = run.done == options.requests;
    }
}

/* ---- time ---- */

/* Opens what is due: the streams evenly over the ramp, the paced requests at their rate. */
static void ask_what_is_due(uint64_t now)
{
    uint64_t past = now - run.start_us;
    if (options.mode == STREAMS) {
        uint64_t due = past / 1000 >= (uint64_t)options.ramp_ms
                           ? (uint64_t)options.count
                           : past * (uint64_t)options.count / ((uint64_t)options.ramp_ms * 1000);
        while ((uint64_t)run.opened < due)
            open_conn();
        return;
    }
    uint64_t due = past * (uint64_t)options.rate / 1000000;
    while ((uint64_t)(run.asked + run.opening) < due && run.asked + run.opening < options.requests) {
        struct conn *conn = run.idle;
        if (conn != NULL) {
            run.idle = conn->next_idle;
            send_request(conn);
        } else {
            open_conn();
        }
    }
}

static void on_tick(uint64_t now)
{
    if (now - run.start_us > TOTAL_MAX_US)
        fail_late("not done in time");
    if (is_closed_loop() || run.warming != 0)
        return;
    ask_what_is_due(now);
    if (options.mode != STREAMS || options.pid_count == 0)
        return;
    uint64_t from = run.during_start.at_us;
    if (from == 0 && run.first_events == options.count)
        begin_window();
    else if (from != 0 && run.during_end.at_us == 0 && now >= from + (uint64_t)options.seconds * 1000000)
        end_window();
}

static void loop(void)
{
    struct epoll_event events[256];
    run.timer_fd = start_timer(run.epoll_fd, TICK_US);
    run.start_us = now_us();
    run.warming = options.mode == PACED ? options.count : 0;
    for (long i = 0; (is_closed_loop() || options.mode == PACED) && i < options.count; i++)
        open_conn();
    while (!run.over) {
        int n = epoll_wait(run.epoll_fd, events, 256, 1000);
        for (int i = 0; i < n; i++) {
            uint64_t expired;
            struct conn *conn = events[i].data.ptr;
            if (conn != NULL && (events[i].events & EPOLLOUT))
                conn_send(conn, run.epoll_fd, run.request, run.request_len);
            if (conn != NULL && (events[i].events & ~(uint32_t)EPOLLOUT))
                conn_read(conn);
            else if (conn == NULL && read(run.timer_fd, &expired, sizeof(expired)) > 0)
                on_tick(now_us());
        }
    }
}

/* ---- start and report ---- */

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void report(void)
{
    double seconds = (double)(run.during_end.at_us - run.during_start.at_us) / 1e6;
    double cpu_us = (double)(run.during_end.cpu_ns - run.during_start.cpu_ns) / 1e3;
    if (options.mode != PACED && options.pid_count != 0 && cpu_us <= 0)
        fail("the gateway used no processor time: wrong --pids?");
    printf("answers=%ld events=%llu body_bytes=%llu", run.done, (unsigned long long)run.events,
           (unsigned long long)run.body_bytes);
    if (options.mode == STREAMS && options.pid_count != 0) {
        print_busy(&run.during_start, &run.during_end);
        printf(" events_per_second=%.0f cpu_us_per_event=%.3f kib_per_stream=%.3f",
               (double)run.events_in_window / seconds, cpu_us / (double)run.events_in_window,
               ((double)run.during_end.rss_kib - (double)run.before.rss_kib) / (double)options.count);
    }
    if (is_closed_loop())
        printf(" requests_per_second=%.0f cpu_us_per_request=%.3f busy_percent=%.1f",
               (double)run.done_in_window / seconds, cpu_us / (double)run.done_in_window, cpu_us / seconds / 1e4);
    if (options.mode == AGAIN)
        printf(" events_per_second=%.0f cpu_us_per_event=%.3f", (double)run.events_in_window / seconds,
               cpu_us / (double)run.events_in_window);
    if (options.mode == PACED) {
        qsort(run.samples_us, (size_t)run.sample_count, sizeof(*run.samples_us), by_size);
        printf(" p50_us=%u p99_us=%u max_us=%u connections=%ld", run.samples_us[run.sample_count / 2],
               run.samples_us[run.sample_count * 99 / 100], run.samples_us[run.sample_count - 1], run.opened);
    }
    printf("\n");
}

static void report_use(void)
{
    struct use before = {0}, use;
    struct timeval now;
    bool asks = options.address.sin_port != 0;
    uint64_t events = asks ? events_sent(&options.address) : 0;
    if (options.seconds != 0) {
        before = use_now();
        sleep((unsigned)options.seconds);
    }
    use = use_now();
    gettimeofday(&now, NULL);
    if (asks)
        printf("events=%llu ", (unsigned long long)(events_sent(&options.address) - events));
    uint64_t to = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_usec;
    printf("cpu_us=%.0f rss_kib=%llu from=%llu to=%llu", (double)(use.cpu_ns - before.cpu_ns) / 1e3,
           (unsigned long long)use.rss_kib,
           (unsigned long long)(options.seconds != 0 ? to - (use.at_us - before.at_us) : to), (unsigned long long)to);
    if (options.seconds != 0)
        print_busy(&before, &use);
    printf("\n");
}

/* All gateways are asked for the same protocol and cipher. */
static SSL_CTX *make_tls(void)
{
    static const unsigned char protocols[] = "\x08http/1.1";
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    if (tls == NULL || SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(tls, "TLS_AES_128_GCM_SHA256") != 1 ||
        SSL_CTX_set_alpn_protos(tls, protocols, sizeof(protocols) - 1) != 0)
        fail("cannot set up TLS");
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE);
    SSL_CTX_set_read_ahead(tls, 1); /* a read(2) less for each record: the load must not be what is slow */
    return tls;
}

static void parse_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"address", 1, NULL, 'a'}, {"pids", 1, NULL, 'p'},    {"count", 1, NULL, 'c'}, {"requests", 1, NULL, 'r'},
        {"rate", 1, NULL, 'R'},    {"events", 1, NULL, 'e'},  {"key", 1, NULL, 'k'},   {"fake", 1, NULL, 'f'},
        {"seconds", 1, NULL, 's'}, {"ramp-ms", 1, NULL, 'm'}, {"bytes", 1, NULL, 'b'}, {"serial", 1, NULL, 'S'},
        {"header", 1, NULL, 'H'},  {"tls", 0, NULL, 't'},     {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'a':
            options.address = read_address(optarg);
            break;
        case 'p':
            options.pid_count = read_pids(optarg, options.pids);
            break;
        case 'c':
            options.count = read_number(optarg, 1, 20000);
            break;
        case 'r':
            options.requests = read_number(optarg, 1, 1000000);
            break;
        case 'R':
            options.rate = read_number(optarg, 1, 20000);
            break;
        case 'e':
            options.events = read_number(optarg, 0, 1000000);
            break;
        case 'k':
            options.key = optarg;
            break;
        case 'f':
            options.fake = optarg;
            break;
        case 's':
            options.seconds = read_number(optarg, 1, 60);
            break;
        case 'm':
            options.ramp_ms = read_number(optarg, 1, 30000);
            break;
        case 'b':
            options.bytes = read_number(optarg, 512, BODY_MAX);
            break;
        case 'S':
            options.serial = read_number(optarg, 0, 1000000000);
            break;
        case 'H':
            options.header = optarg;
            break;
        case 't':
            options.tls = make_tls();
            break;
        default:
            exit(2);
        }
    }
    const char *mode = optind < argc ? argv[optind] : "";
    if (strcmp(mode, "json") == 0)
        options.mode = JSON;
    else if (strcmp(mode, "again") == 0)
        options.mode = AGAIN;
    else if (strcmp(mode, "paced") == 0)
        options.mode = PACED;
    else if (strcmp(mode, "use") == 0)
        options.mode = USE;
    else if (strcmp(mode, "streams") != 0)
        fail("expected one of: streams, json, again, paced, use");
    if (options.address.sin_port == 0 && options.mode != USE)
        fail("--address is missing");
}

/* The body, and where in it the number stands. */
static size_t compose_body(char *body, size_t size, char **serial)
{
    static const char words[] = "Tell me of the light that the air scatters, and of the dust in it. ";
    static char filler[BODY_MAX];
    const char *stream = options.mode == JSON ? "" : ",\"stream\":true",
               *number = options.serial < 0 ? "" : "000000000000";
    int len = 0;
    for (int left = 0;; left = (int)options.bytes - len) {
        for (int i = 0; i < left; i++)
            filler[i] = words[(size_t)i % (sizeof(words) - 1)];
        len = snprintf(
            body, size,
            "{\"model\":\"fake-1\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.%s\"},"
            "{\"role\":\"user\",\"content\":\"%sWhy is the sky blue, and why is it red in the evening?\"}]%s}",
            filler, number, stream);
        if (len >= (int)options.bytes)
            break;
    }
    *serial = options.serial < 0 ? NULL : strstr(body, number);
    return (size_t)len;
}

static void compose_request(void)
{
    static char body[BODY_MAX + 1024], request[sizeof(body) + 4096];
    char *serial;
    size_t len = compose_body(body, sizeof(body), &serial);
    int head_len = snprintf(request, sizeof(request),
                            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAuthorization: Bearer %s\r\n"
                            "User-Agent: load/1\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
                            "X-Fake: %s\r\nContent-Length: %zu\r\n\r\n",
                            ntohs(options.address.sin_port), options.key, options.fake, len);
    if ((size_t)head_len + len > sizeof(request))
        fail("the request became too long");
    memcpy(request + head_len, body, len);
    run.request = request;
    run.request_len = (size_t)head_len + len;
    if (serial != NULL)
        run.serial = run.request + head_len + (serial - body);
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    if (options.mode == USE) {
        report_use();
        return 0;
    }
    compose_request();
    signal(SIGPIPE, SIG_IGN);
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    run.samples_us = calloc((size_t)options.requests, sizeof(*run.samples_us));
    run.before = use_now();
    loop();
    report();
    return 0;
}
