/* The load of the soak (tests/soak.sh): --rate requests a second for --seconds, of all the kinds below, whether or not
 * earlier ones were answered. One thread, epoll, HTTP/1.1 over loopback. It judges nothing: each request's outcome is a
 * line of --out,
 *
 *      ID KIND OUTCOME STATUS NAME AGAIN
 *
 * where ID went along as X-Request-Id, NAME is the X-Request-Id of the answer (- if there was none) and AGAIN is 1 for
 * a request that was sent once more because the kept connection that it was first sent on had been closed without a
 * byte of an answer (RFC 9112 §9.3.1). The last line on stdout is what was sent and the outcomes in all. */
#include "soak_client.h"
#include <getopt.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

#define TICK_MS 5
#define IDLE_US 1500000 /* what a connection is kept for; less than the gateway keeps it */
#define LARGE 200000    /* bytes that a too large request announces */

struct kind {
    const char *name;
    unsigned weight;
    const char *path, *key, *fake, *model;
    bool stream;
    unsigned prompts;      /* how many different ones there are; 0: each is new */
    unsigned leave_events; /* leaves after 1 to so many events; 0: not */
    unsigned leave_ms;     /* leaves within so many milliseconds; 0: not */
    const char *body;      /* instead of a good one */
    const char *last;      /* what a 200 ends with; NULL: what OpenAI's do */
    enum { WHOLE, HALF_HEAD, HALF_BODY, TOO_LARGE, GOES_AT_ONCE, STALLS } manner;
};

#define MAIN_AT(where) .path = (where), .key = "sk-soak-main-0000000000"
#define MAIN MAIN_AT("/v1/chat/completions")
#define WITH(name) .path = "/v1/chat/completions", .key = "sk-soak-" name
#define STREAM(behaviour) .stream = true, .fake = behaviour
#define JSON(behaviour) .fake = behaviour
static const struct kind kinds[] = {
    /* name, how many of a thousand, … */
    {"json", 250, MAIN, JSON("size=200")},
    {"embeddings", 30, MAIN_AT("/v1/embeddings"), JSON("size=8")},
    {"stream", 130, MAIN, STREAM("events=20,pace_ms=15")},
    {"slow", 15, MAIN, STREAM("delay_ms=300,events=80,pace_ms=50")},
    {"flood", 5, MAIN, STREAM("flood,events=300,size=1000")},
    {"messages", 20, MAIN_AT("/v1/messages"), STREAM("events=10,pace_ms=5"), .last = "{\"type\":\"message_stop\"}\n\n"},
    {"completions", 10, MAIN_AT("/v1/completions"), STREAM("events=10,pace_ms=5")},
    {"responses", 10, MAIN_AT("/v1/responses"), JSON("size=50")},
    {"chat", 10, MAIN_AT("/chat"), STREAM(""), .last = "}}}\n\n"},
    {"chat_leave", 5, MAIN_AT("/chat"), STREAM(""), .last = "}}}\n\n", .leave_events = 2},
    {"queued", 20, MAIN, STREAM("events=20,pace_ms=15"), .model = "queued"},
    {"queued_leave", 10, MAIN, STREAM("events=20,pace_ms=15"), .model = "queued", .leave_ms = 100},
    {"silent", 10, MAIN, STREAM("first_ms=700")},
    {"stalls", 3, MAIN, STREAM("flood,events=20000,size=1000"), .leave_ms = 6000, .manner = STALLS},
    {"cached", 150, MAIN, JSON("size=100"), .prompts = 40},
    {"cached_stream", 60, MAIN, STREAM("events=12"), .prompts = 20},
    {"leave", 60, MAIN, STREAM("events=40,pace_ms=25"), .leave_events = 12},
    {"leave_waiting", 20, MAIN, STREAM("delay_ms=600"), .leave_ms = 300},
    {"leave_json", 10, MAIN, JSON("delay_ms=600"), .leave_ms = 300},
    {"leave_at_once", 10, MAIN, STREAM("delay_ms=200"), .manner = GOES_AT_ONCE},
    {"limited", 50, WITH("limited-000000"), JSON("")},
    {"tokens", 20, WITH("tokens-0000000"), STREAM("events=10")},
    {"few", 25, WITH("few-0000000000"), STREAM("events=20,pace_ms=15")},
    {"bad_key", 20, WITH("wrong-00000000"), JSON("")},
    {"too_large", 10, MAIN, JSON(""), .manner = TOO_LARGE},
    {"not_json", 6, MAIN, JSON(""), .body = "{\"model\":"},
    {"no_model", 6, MAIN, JSON(""), .body = "{\"messages\":[]}"},
    {"unknown", 6, MAIN, JSON(""), .body = "{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"},
    {"no_route", 2, MAIN_AT("/v1/nothing"), JSON("")},
    {"half_head", 10, MAIN, JSON(""), .leave_ms = 1500, .manner = HALF_HEAD},
    {"half_body", 10, MAIN, JSON(""), .leave_ms = 1500, .manner = HALF_BODY},
    {"cut", 4, MAIN, STREAM("events=9,pace_ms=5,cut_after=3")},
    {"reset", 4, MAIN, STREAM("events=9,reset_after=2")},
    {"cut_inside", 3, MAIN, STREAM("events=9,cut_inside=3")},
    {"end_after", 3, MAIN, STREAM("events=9,end_after=2")},
    {"error_event", 3, MAIN, STREAM("error_event=2")},
    {"drop", 2, MAIN, JSON("drop")},
    {"status_500", 3, MAIN, JSON("status=500")},
    {"status_429", 3, MAIN, JSON("status=429")},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct {
    struct sockaddr_in address;
    long rate, seconds, patience;
    const char *prefix, *out;
} options = {.rate = 500, .seconds = 10, .patience = 60, .prefix = "soak", .out = "/dev/stdout"};

static struct {
    struct client *idle, *busy, *dead;
    unsigned long sent, outcomes[OUTCOMES];
    unsigned lots; /* the sum of all weights */
    uint64_t random;
    FILE *out;
} run;

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "soak_load: %s: %s\n", what, which);
    exit(1);
}

/* xorshift64* */
static unsigned chance(unsigned below)
{
    run.random ^= run.random >> 12;
    run.random ^= run.random << 25;
    run.random ^= run.random >> 27;
    return (unsigned)((run.random * 2685821657736338717u) >> 33) % below;
}

/* ---- the end of a request */

static const char *client_last_words(const struct client *client)
{
    const struct kind *kind = &kinds[client->kind];
    if (client->status != 200)
        return "";
    return kind->last != NULL ? kind->last : kind->stream ? "data: [DONE]\n\n" : "}";
}

/* Nothing may point to it once the present events are dealt with. */
static void bury(struct client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    client_link(client, &run.dead);
}

static void client_over(struct client *client, enum outcome outcome)
{
    client_unlink(client);
    if (outcome == LOST && client->reused && !client->again) {
        close(client->fd);
        client->again = true;
        client_expect(client);
        client_link(client, &run.busy);
        if (client_connect(client, &options.address))
            return;
        client_unlink(client);
    }
    fprintf(run.out, "%s %s %s %d %s %d\n", client->id, kinds[client->kind].name, outcome_names[outcome],
            client->status, client->told_id[0] != '\0' ? client->told_id : "-", client->again);
    run.outcomes[outcome]++;
    if ((outcome != SERVED && outcome != REFUSED) || client->closes || client->leaving.unfinished) {
        bury(client);
        return;
    }
    client->phase = IDLE;
    client->idle_us = now_us();
    client_link(client, &run.idle);
}

/* ---- the beginning of one */

static int write_body(const struct kind *kind, char *body, size_t size)
{
    char prompt[48];
    if (kind->body != NULL)
        return snprintf(body, size, "%s", kind->body);
    if (kind->prompts != 0)
        snprintf(prompt, sizeof(prompt), "asked again %u", chance(kind->prompts));
    else
        snprintf(prompt, sizeof(prompt), "%s-%lu", options.prefix, run.sent);
    if (strcmp(kind->path, "/v1/embeddings") == 0)
        return snprintf(body, size, "{\"model\":\"fake-1\",\"input\":\"%s\"}", prompt);
    return snprintf(body, size,
                    "{\"model\":\"%s\",\"stream\":%s,\"max_tokens\":50,\"prompt\":\"x\",\"input\":\"x\","
                    "\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}",
                    kind->model != NULL ? kind->model : "fake-1", kind->stream ? "true" : "false", prompt);
}

static void write_request(struct client *client)
{
    const struct kind *kind = &kinds[client->kind];
    char body[1024], fake[100] = "";
    int body_len = write_body(kind, body, sizeof(body));
    bool large = kind->manner == TOO_LARGE;
    if (kind->fake[0] != '\0')
        snprintf(fake, sizeof(fake), "X-Fake: %s\r\n", kind->fake);
    if (strcmp(kind->path, "/chat") == 0) { /* made for EventSource: a question without a body */
        client->request_len =
            (size_t)snprintf(client->request, sizeof(client->request),
                             "GET /chat?model=fake-1&max_tokens=50&message=%s HTTP/1.1\r\nHost: soak\r\n"
                             "Authorization: Bearer %s\r\nX-Request-Id: %s\r\n\r\n",
                             client->id, kind->key, client->id);
        return;
    }
    int head_len = snprintf(client->request, sizeof(client->request),
                            "POST %s HTTP/1.1\r\nHost: soak\r\nAuthorization: Bearer %s\r\nX-Request-Id: %s\r\n%s"
                            "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n",
                            kind->path, kind->key, client->id, fake, large ? LARGE : body_len);
    client->request_len = (size_t)head_len;
    if (kind->manner == HALF_HEAD) {
        client->request_len = (size_t)head_len / 2;
    } else if (!large) {
        body_len = kind->manner == HALF_BODY ? body_len / 2 : body_len;
        memcpy(client->request + head_len, body, (size_t)body_len);
        client->request_len += (size_t)body_len;
    }
}

static void set_leaving(struct client *client)
{
    const struct kind *kind = &kinds[client->kind];
    client->leaving = (struct leaving){.unfinished = kind->manner == HALF_HEAD || kind->manner == HALF_BODY,
                                       .when_sent = kind->manner == GOES_AT_ONCE,
                                       .unread = kind->manner == STALLS};
    if (kind->leave_events != 0)
        client->leaving.events = 1 + chance(kind->leave_events);
    if (kind->leave_ms != 0)
        client->leaving.at_us = client->started_us + 1000 * (uint64_t)(1 + chance(kind->leave_ms));
}

static int choose_kind(void)
{
    unsigned lot = chance(run.lots);
    int kind = 0;
    while (lot >= kinds[kind].weight)
        lot -= kinds[kind++].weight;
    return kind;
}

static void ask(void)
{
    struct client *client = run.idle;
    int kind = choose_kind();
    /* What is never sent whole must not end in being sent again. */
    bool reuse = client != NULL && kinds[kind].manner == WHOLE && kinds[kind].leave_ms == 0;
    if (reuse)
        client_unlink(client);
    else if ((client = calloc(1, sizeof(*client))) == NULL)
        abort();
    client->kind = kind;
    client->reused = reuse;
    client->again = false;
    client->started_us = now_us();
    snprintf(client->id, sizeof(client->id), "%s-%lu", options.prefix, run.sent++);
    client_expect(client);
    set_leaving(client);
    write_request(client);
    client_link(client, &run.busy);
    if (reuse)
        client_send(client);
    else if (!client_connect(client, &options.address))
        client_over(client, LOST);
}

/* ---- the loop */

static void on_event(struct client *client, uint32_t events)
{
    if (client->fd < 0)
        return; /* buried by an earlier event */
    if (client->phase == IDLE) {
        client_unlink(client);
        bury(client);
        return;
    }
    if (client->phase == CONNECTING || client->phase == SENDING) {
        if ((events & (EPOLLERR | EPOLLHUP)) != 0 && client->phase == CONNECTING) {
            client_over(client, LOST);
            return;
        }
        if ((events & EPOLLOUT) == 0 || !client_send(client))
            return;
    }
    if (client->leaving.unread && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        client_cut(client);
    else if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        client_read(client);
}

/* Leaves what is to be left, gives up what hangs, closes what has been idle for long. */
static void tidy(uint64_t now)
{
    struct client *client, *next;
    for (client = run.busy; client != NULL; client = next) {
        next = client->next;
        /* Who leaves before he has asked has asked nothing. */
        if (client->leaving.at_us != 0 && now >= client->leaving.at_us && client->phase >= HEAD)
            client_over(client, client->leaving.unfinished ? UNFINISHED : LEFT);
        else if (now >= client->started_us + (uint64_t)options.patience * 1000000)
            client_over(client, HUNG);
    }
    for (client = run.idle; client != NULL; client = next) {
        next = client->next;
        if (now < client->idle_us + IDLE_US)
            continue;
        client_unlink(client);
        bury(client);
    }
    while ((client = run.dead) != NULL) {
        client_unlink(client);
        free(client);
    }
}

static void loop(void)
{
    struct epoll_event events[256], event = {.events = EPOLLIN, .data.ptr = NULL};
    struct itimerspec tick = {{0, TICK_MS * 1000000}, {0, TICK_MS * 1000000}};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    timerfd_settime(timer, 0, &tick, NULL);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &event);
    uint64_t start = now_us(), end = (uint64_t)options.seconds * 1000000;
    for (uint64_t past = 0; past < end || run.busy != NULL || run.idle != NULL;) {
        int n = epoll_wait(epoll_fd, events, 256, 1000);
        bool ticked = false;
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr != NULL)
                on_event(events[i].data.ptr, events[i].events);
            else
                ticked = true;
        }
        past = now_us() - start;
        uint64_t expired, due = (past < end ? past : end) * (uint64_t)options.rate / 1000000;
        if (!ticked || read(timer, &expired, sizeof(expired)) <= 0)
            continue;
        while (run.sent < due)
            ask();
        tidy(now_us());
    }
}

/* ---- start */

static long number(const char *text, long min, long max)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end != '\0' || end == text || value < min || value > max)
        fail("no such number", text);
    return value;
}

static void parse_options(int argc, char **argv)
{
    static const struct option names[] = {{"port", 1, NULL, 'p'},   {"rate", 1, NULL, 'r'}, {"seconds", 1, NULL, 's'},
                                          {"prefix", 1, NULL, 'x'}, {"out", 1, NULL, 'o'},  {"patience", 1, NULL, 'w'},
                                          {NULL, 0, NULL, 0}};
    int option;
    options.address.sin_family = AF_INET;
    options.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (option == 'p')
            options.address.sin_port = htons((uint16_t)number(optarg, 1, 65535));
        else if (option == 'r')
            options.rate = number(optarg, 1, 20000);
        else if (option == 's')
            options.seconds = number(optarg, 1, 86400);
        else if (option == 'w')
            options.patience = number(optarg, 1, 3600);
        else if (option == 'x')
            options.prefix = optarg;
        else if (option == 'o')
            options.out = optarg;
        else
            exit(2);
    }
    if (options.address.sin_port == 0 || strlen(options.prefix) > 20)
        fail("expected", "--port N --rate N --seconds N --prefix TEXT --out FILE --patience SECONDS");
}

int main(int argc, char **argv)
{
    struct rlimit files;
    parse_options(argc, argv);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if ((run.out = fopen(options.out, "w")) == NULL)
        fail(strerror(errno), options.out);
    for (size_t i = 0; i < KINDS; i++)
        run.lots += kinds[i].weight;
    run.random = now_us() | 1;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop();
    if (fclose(run.out) != 0)
        fail(strerror(errno), options.out);
    printf("sent=%lu", run.sent);
    for (int i = 0; i < OUTCOMES; i++)
        printf(" %s=%lu", outcome_names[i], run.outcomes[i]);
    printf("\n");
    return 0;
}
