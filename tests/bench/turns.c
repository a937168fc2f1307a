/* What one gateway uses for a small request more than another, at the same fixed rate of requests: a feature's cost.
 *
 *   turns --key KEY [--header TEXT] [--bursts N] [--burst N] [--gap-us N] [--pairs N] [--bytes N] [--fill N]
 *
 * Prints "listening on ADDRESS:PORT": where the model server is that both gateways have to have, which is in here. Then
 * it reads a line: OFF-ADDRESS OFF-PIDS ON-ADDRESS ON-PIDS.
 *
 * The two take turns, in the order off, on, on, off. A turn is --bursts bursts of --burst plain JSON requests, one each
 * --gap-us, over connections that stay open. So both are asked as often, wake up as often and find as many requests
 * when they do: two loads that ask as fast as they are answered differ in all of that, by more than a feature costs.
 * Nobody on the gateways' other side sleeps meanwhile, see load_serve.h. What a gateway has used is read before and
 * behind its turn, while nothing is asked. If a burst is not answered whole when the next one is due, that one waits
 * for the time after.
 *
 * Each body is another one; --fill of them are asked of the ON gateway before. Answers of the ON gateway must have a
 * header line that begins with --header. Prints off_us and on_us, the medians of the turns, and more_us, the median of
 * the pairs' differences, with its quartiles, in microseconds of processor time a request; and late_percent, of the
 * bursts. */
#include "load_conn.h"
#include "load_serve.h"
#include "load_start.h"
#include "load_use.h"
#include <getopt.h>
#include <signal.h>

#define BURST_MAX 256
#define PAIRS_MAX 1000
#define BODY_MAX 65536
#define HEAD_ROOM 1024
#define WARMING 2 /* pairs that are not measured */

struct gateway {
    struct sockaddr_in address;
    int pids[PIDS_MAX], pid_count;
    struct conn *conns;
};

static struct gateway gateways[2]; /* off, on */
static const char *key = "", *header = "";
static long burst = 16, bursts = 8, gap_us = 2500, pairs = 80, bytes = 2048, fill;
static char request[HEAD_ROOM + BODY_MAX];
static char *serial_at; /* the number in the request */
static size_t request_len;
static unsigned long serial;
static long waiting; /* answers to come */
static long late;    /* bursts that were not answered in time */
static const struct gateway *asked;
static int epoll_fd, timer_fd;
static struct served model_server;

void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_failed("turns", format, args);
    exit(1);
}

void on_open(struct conn *conn)
{
    (void)conn;
}

void on_head(const char *head)
{
    if (asked == &gateways[1] && *header != '\0')
        expect_header(head, header);
}

void on_first_event(struct conn *conn)
{
    (void)conn;
}

void on_events(struct conn *conn, unsigned count)
{
    (void)conn, (void)count;
}

void on_answer(struct conn *conn)
{
    (void)conn;
    waiting--;
}

static void compose_request(void)
{
    static const char open[] =
        "{\"model\":\"fake-1\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful "
        "assistant.\"},{\"role\":\"user\",\"content\":\"",
                      close[] = "\"}]}", digits[] = "000000000000",
                      words[] = "Tell me of the light that the air scatters, and of the dust in it. ";
    int len = snprintf(request, HEAD_ROOM,
                       "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n"
                       "User-Agent: turns/1\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
                       "Content-Length: %ld\r\n\r\n",
                       key, bytes);
    if (len >= HEAD_ROOM)
        fail("the request's head became too long");
    char *at = request + len, *end = at + bytes - (sizeof(close) - 1);
    at = stpcpy(at, open);
    serial_at = at;
    at = stpcpy(at, digits);
    for (size_t i = 0; at < end; i++)
        *at++ = words[i % (sizeof(words) - 1)];
    memcpy(at, close, sizeof(close) - 1);
    request_len = (size_t)(at - request) + sizeof(close) - 1;
}

static void open_conns(struct gateway *gateway)
{
    gateway->conns = calloc((size_t)burst, sizeof(struct conn));
    for (long i = 0; i < burst; i++) {
        struct conn *conn = &gateway->conns[i];
        conn_open(conn, epoll_fd, &gateway->address);
        conn->phase = IDLE;
    }
}

static void ask(const struct gateway *gateway)
{
    asked = gateway;
    for (long i = 0; i < burst; i++) {
        unsigned long number = serial++;
        for (int digit = 12; digit-- > 0; number /= 10)
            serial_at[digit] = (char)('0' + number % 10);
        struct conn *conn = &gateway->conns[i];
        conn_expect(conn, false);
        conn->sent = 0;
        conn_send(conn, epoll_fd, request, request_len);
        if (conn->sent != request_len)
            fail("a request could not be written at once");
    }
    waiting = burst;
}

static bool is_conn(const void *of)
{
    for (int i = 0; i < 2; i++)
        if (gateways[i].conns != NULL && (const struct conn *)of >= gateways[i].conns &&
            (const struct conn *)of < gateways[i].conns + burst)
            return true;
    return false;
}

/* Sees to what there is, without falling asleep. How often the timer has expired. */
static uint64_t look(void)
{
    struct epoll_event events[BURST_MAX];
    uint64_t ticks = 0, now_expired;
    int n = epoll_wait(epoll_fd, events, BURST_MAX, 0);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == NULL)
            ticks += read(timer_fd, &now_expired, sizeof(now_expired)) > 0 ? now_expired : 0;
        else if (is_conn(events[i].data.ptr))
            conn_read(events[i].data.ptr);
        else
            serve(events[i].data.ptr, epoll_fd);
    }
    return ticks;
}

/* Until all answers have come, and, if `tick` is true, the timer has expired. How often it has. */
static uint64_t await(bool tick)
{
    uint64_t ticks = 0, until_us = now_us() + 5000000;
    while ((tick && ticks == 0) || waiting != 0) {
        ticks += look();
        if (waiting != 0 && now_us() > until_us)
            fail("no answer within 5 s");
    }
    return ticks;
}

/* One turn's processor time a request. */
static double take_turn(const struct gateway *gateway)
{
    await(true);
    uint64_t before = use_of(gateway->pids, gateway->pid_count).cpu_ns;
    await(true);
    for (long i = 0; i < bursts; i++) {
        ask(gateway);
        late += await(true) != 1;
    }
    await(true); /* what is done after the answer was sent */
    uint64_t used = use_of(gateway->pids, gateway->pid_count).cpu_ns - before;
    return (double)used / 1e3 / (double)(burst * bursts);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double quantile(double *values, long count, long percent)
{
    qsort(values, (size_t)count, sizeof(*values), by_size);
    return values[count * percent / 100];
}

static void compare(void)
{
    for (long asked_so_far = 0; asked_so_far < fill; asked_so_far += burst) {
        ask(&gateways[1]);
        await(false);
    }
    static double off[PAIRS_MAX], on[PAIRS_MAX], more[PAIRS_MAX];
    for (long pair = -WARMING; pair < pairs; pair++) {
        double used[2];
        int first = pair & 1;
        used[first] = take_turn(&gateways[first]);
        used[1 - first] = take_turn(&gateways[1 - first]);
        if (pair < 0)
            continue;
        off[pair] = used[0];
        on[pair] = used[1];
        more[pair] = used[1] - used[0];
    }
    printf("off_us=%.2f on_us=%.2f more_us=%.2f more_quarter_us=%.2f more_three_quarters_us=%.2f late_percent=%.1f\n",
           quantile(off, pairs, 50), quantile(on, pairs, 50), quantile(more, pairs, 50), quantile(more, pairs, 25),
           quantile(more, pairs, 75), (double)late * 100 / (double)((pairs + WARMING) * 2 * bursts));
}

/* ---- start ---- */

static void parse_gateway(struct gateway *gateway, char *address, char *pids)
{
    gateway->address = read_address(address);
    gateway->pid_count = read_pids(pids, gateway->pids);
}

/* Waits for the line that tells of them, and serves them meanwhile. */
static void read_gateways(void)
{
    static char line[4096];
    char *words[4], *saved;
    size_t len = 0;
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    for (uint64_t until_us = now_us() + 30000000; len == 0 || line[len - 1] != '\n';) {
        ssize_t n = read(STDIN_FILENO, line + len, sizeof(line) - 1 - len);
        len += n > 0 ? (size_t)n : 0;
        look();
        if (now_us() > until_us || len == sizeof(line) - 1) /* a pipe that nobody has opened yet gives 0 bytes */
            fail("was not told of the gateways");
    }
    for (int i = 0; i < 4; i++)
        if ((words[i] = strtok_r(i == 0 ? line : NULL, " \n", &saved)) == NULL)
            fail("expected OFF-ADDRESS OFF-PIDS ON-ADDRESS ON-PIDS");
    parse_gateway(&gateways[0], words[0], words[1]);
    parse_gateway(&gateways[1], words[2], words[3]);
}

int main(int argc, char **argv)
{
    static const struct option names[] = {{"key", 1, NULL, 'k'},    {"fill", 1, NULL, 'f'},  {"header", 1, NULL, 'H'},
                                          {"bursts", 1, NULL, 'B'}, {"burst", 1, NULL, 'b'}, {"gap-us", 1, NULL, 'g'},
                                          {"pairs", 1, NULL, 'p'},  {"bytes", 1, NULL, 's'}, {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (option) {
        case 'k':
            key = optarg;
            break;
        case 'f':
            fill = read_number(optarg, 0, 10000000);
            break;
        case 'H':
            header = optarg;
            break;
        case 'B':
            bursts = read_number(optarg, 1, 100000);
            break;
        case 'b':
            burst = read_number(optarg, 1, BURST_MAX);
            break;
        case 'g':
            gap_us = read_number(optarg, 100, 999999);
            break;
        case 'p':
            pairs = read_number(optarg, 1, PAIRS_MAX);
            break;
        case 's':
            bytes = read_number(optarg, 512, BODY_MAX);
            break;
        default:
            return 2;
        }
    }
    if (optind != argc)
        fail("'%s': expected options only", argv[optind]);
    signal(SIGPIPE, SIG_IGN);
    compose_request();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    printf("listening on 127.0.0.1:%u\n", serve_start(&model_server, epoll_fd));
    fflush(stdout);
    read_gateways();
    timer_fd = start_timer(epoll_fd, gap_us);
    open_conns(&gateways[0]);
    open_conns(&gateways[1]);
    compare();
    return 0;
}
