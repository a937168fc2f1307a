/* A model server that misbehaves on demand: the other end of the gateway's end-to-end tests and benchmarks. It speaks
 * chat, completions, embeddings, responses, messages and models, and echoes every other request as JSON. fake_behave.h
 * lists what an X-Fake header, --behave, or POST /fake/behave may ask for. GET /fake/stats counts, GET /fake/last shows
 * the last request, POST /fake/reset starts over. --journal FILE adds lines to it for each request's beginning and end,
 * by its X-Request-Id. One thread, epoll, no allocation per event. */
#include "fake_answer.h"
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/un.h>

#define LISTENERS_MAX 4 /* --listen may be given so often */

static bool begin_request(struct conn *conn);
static bool answer(struct conn *conn, const struct request *request, struct view body);

/* ---- control */

static bool reply(struct conn *conn, int status, const char *json)
{
    char head[160];
    int len = snprintf(head, sizeof(head),
                       "HTTP/1.1 %d Control\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n", status,
                       strlen(json));
    memset(&conn->behave, 0, sizeof(conn->behave));
    conn->phase = READING;
    return conn_send(conn, head, (size_t)len) && conn_send(conn, json, strlen(json));
}

static bool control_stats(struct conn *conn)
{
    char json[512];
    snprintf(
        json, sizeof(json),
        "{\"requests\":%lu,\"streams_begun\":%lu,\"streams_finished\":%lu,\"events\":%lu,\"aborts\":%lu,\"open\":%lu,"
        "\"accepted\":%lu,\"stale_closed\":%lu,\"bytes\":%llu,\"last_abort_us\":%llu,\"last_request_us\":%llu,"
        "\"now_us\":%llu}\n",
        stats.requests, stats.streams_begun, stats.streams_finished, stats.events, stats.aborts, stats.open,
        stats.accepted, stats.stale_closed, stats.bytes, stats.last_abort_us, stats.last_request_us,
        (unsigned long long)now_us());
    return reply(conn, 200, json);
}

static bool control_last(struct conn *conn)
{
    struct text json = {0};
    if (!describe_last(&json))
        return reply(conn, 404, "{}\n");
    bool alive = reply(conn, 200, json.base);
    free(json.base);
    return alive;
}

static bool control(struct conn *conn, const struct request *request, struct view body)
{
    conn_is_control(conn);
    if (view_is(request->target, "/fake/stats"))
        return control_stats(conn);
    if (view_is(request->target, "/fake/last"))
        return control_last(conn);
    if (view_is(request->target, "/fake/behave")) {
        struct behave behave;
        behave_init(&behave);
        if (!behave_parse(&behave, body.base, body.len))
            return reply(conn, 400, "{\"error\":\"no such behaviour\"}\n");
        settings.behave = behave;
        return reply(conn, 200, "{}\n");
    }
    if (view_is(request->target, "/fake/reset")) {
        unsigned long open = stats.open;
        memset(&stats, 0, sizeof(stats));
        stats.open = open;
        last.head_len = 0;
        return reply(conn, 200, "{}\n");
    }
    return reply(conn, 404, "{}\n");
}

/* ---- a request comes in */

static void remember(struct conn *conn, const struct request *request, struct view body)
{
    last.head_len = request->head_len <= sizeof(last.head) ? request->head_len : 0;
    memcpy(last.head, conn->in, last.head_len);
    last.body_len = body.len;
    if (body.len > sizeof(last.body))
        SHA256((const unsigned char *)body.base, body.len, last.digest);
    else if (body.len != 0)
        memcpy(last.body, body.base, body.len);
    snprintf(last.transport, sizeof(last.transport), "clear");
    if (conn->ssl != NULL) {
        X509 *peer = SSL_get1_peer_certificate(conn->ssl);
        const char *sni = SSL_get_servername(conn->ssl, TLSEXT_NAMETYPE_host_name);
        snprintf(last.transport, sizeof(last.transport), "%s sni=%s client_cert=%s", SSL_get_version(conn->ssl),
                 sni != NULL ? sni : "-", peer != NULL ? "yes" : "no");
        X509_free(peer);
    }
}

/* Reads as many requests as are there and may be answered now. False: gone and freed. */
static bool on_input(struct conn *conn)
{
    while (conn->phase == READING && conn->in_len != 0 && conn->out_len == 0) {
        if (conn->in_need != 0 && conn->in_len < conn->in_need)
            return true;
        if (conn->stale) {
            stats.stale_closed++;
            conn_close(conn, false);
            return false;
        }
        if (!begin_request(conn))
            return false;
        if (conn->phase == READING && conn->in_need != 0) /* the body is not all there */
            return true;
        if (conn->phase == READING && memmem(conn->in, conn->in_len, "\r\n\r\n", 4) == NULL)
            return true;
    }
    return true;
}

/* The answer to a request whose body has not been waited for. */
static bool answer_early(struct conn *conn, const struct request *request)
{
    struct view none = {"", 0};
    conn->behave.close_body = 1;
    return answer(conn, request, none);
}

static bool begin_request(struct conn *conn)
{
    struct request request;
    int parsed = request_parse(&request, conn->in, conn->in_len);
    if (parsed == 0 && isalpha((unsigned char)conn->in[0]) && conn->in_len < sizeof(last.head))
        return true;
    if (parsed != 1) {
        conn_close(conn, true);
        return false;
    }
    conn->behave = settings.behave;
    struct view asked = request_header(&request, "x-fake");
    if (asked.base != NULL) {
        behave_init(&conn->behave);
        if (!behave_parse(&conn->behave, asked.base, asked.len))
            conn->behave.status = 418;
    }
    conn->dialect = dialect_of(request.target);
    conn->head_only = view_is(request.method, "HEAD");
    conn->keep = !request.close;
    if (conn->behave.early && conn->dialect != CONTROL)
        return answer_early(conn, &request);
    if (request.expect && !conn->expect_answered) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        conn->expect_answered = true;
        if (!conn_send(conn, go_on, sizeof(go_on) - 1))
            return false;
    }
    char *body = conn->in + request.head_len;
    size_t have = conn->in_len - request.head_len, len = request.content_length, raw = len;
    if (request.chunked) {
        int complete = unchunk_run(&conn->unchunk, body, have);
        conn->in_need = conn->in_len + 1;
        if (complete == 0)
            return true;
        if (complete < 0) {
            conn_close(conn, true);
            return false;
        }
        len = conn->unchunk.written;
        raw = conn->unchunk.read;
    } else if (have < len) {
        conn->in_need = request.head_len + len;
        return true;
    }
    size_t total = request.head_len + raw;
    struct view view = {body, len};
    if (!answer(conn, &request, view))
        return false;
    conn_consume(conn, total);
    return true;
}

static void begin_journal(struct conn *conn, const struct request *request)
{
    struct view id = request_header(request, "x-request-id");
    if (journal_fd < 0 || id.base == NULL || id.len > JOURNAL_ID_MAX)
        return;
    memcpy(conn->id, id.base, id.len);
    conn->id[id.len] = '\0';
    journal(conn, "begun");
}

/* Decides what to do about a request; nothing is sent before its delay is over. `request` and `body` are not kept. The
 * input is consumed by the caller, so the answer must not start the next request. */
static bool answer(struct conn *conn, const struct request *request, struct view body)
{
    if (conn->dialect == CONTROL)
        return control(conn, request, body);
    remember(conn, request, body);
    conn->echo.len = 0;
    if (conn->dialect == ECHO) /* now: others may be remembered before the answer is due */
        describe_last(&conn->echo);
    begin_journal(conn, request);
    stats.requests++;
    stats.last_request_us = now_us();
    bool streams = conn->dialect == CHAT || conn->dialect == COMPLETIONS || conn->dialect == RESPONSES ||
                   conn->dialect == MESSAGES;
    conn->stream =
        streams && body_says(body, "stream", "true") && (conn->behave.status == 0 || conn->behave.status == 200);
    conn->usage = conn->behave.usage || body_says(body, "include_usage", "true");
    conn->sent_events = 0;
    conn->opened = conn->closed = false;
    conn->interim_left = conn->behave.interim;
    conn->phase = DELAYING;
    conn->template = conn->stream ? template_get(conn->dialect, &conn->behave, conn->behave.size) : NULL;
    conn->base64 = body_says(body, "encoding_format", "\"base64\"");
    timer_arm(conn, now_us() + (uint64_t)conn->behave.delay_ms * 1000);
    return true;
}

/* ---- the loop */

static void on_ready(struct conn *conn, uint32_t events)
{
    if (conn->handshaking) {
        int n = SSL_do_handshake(conn->ssl);
        int error = n == 1 ? SSL_ERROR_NONE : SSL_get_error(conn->ssl, n);
        if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
            conn_close(conn, false);
            return;
        }
        conn_want_write(conn, error == SSL_ERROR_WANT_WRITE);
        if (error != SSL_ERROR_NONE)
            return;
        conn->handshaking = false;
    }
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        bool waits = conn->phase == READING && !(events & (EPOLLHUP | EPOLLERR)) && (events & EPOLLIN);
        if (!waits) {
            conn_gone(conn);
            return;
        }
    }
    if ((events & EPOLLIN) && !conn_fill(conn))
        return;
    if ((events & EPOLLOUT) && (!conn_flush(conn) || (conn->timer_index == 0 && !advance(conn))))
        return;
    on_input(conn);
}

static void on_timer(struct conn *conn)
{
    timer_disarm(conn);
    if (conn->sending_split) {
        conn->sending_split = false;
        if (!conn_flush(conn))
            return;
        if (conn->out_len == 0 && conn->phase == STREAMING && conn->behave.pace_ms > 0 && conn->sent_events != 0) {
            timer_arm(conn, now_us() + (uint64_t)conn->behave.pace_ms * 1000);
            return;
        }
    }
    if (advance(conn))
        on_input(conn);
}

static void run_timers(void)
{
    uint64_t now = now_us();
    while (heap.count != 0 && heap.at[0]->timer_us <= now)
        on_timer(heap.at[0]);
}

static int wait_ms(void)
{
    if (heap.count == 0)
        return -1;
    uint64_t now = now_us(), at = heap.at[0]->timer_us;
    return at <= now ? 0 : (int)((at - now + 999) / 1000);
}

static void accept_all(int listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (settings.send_buffer != 0)
            setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &settings.send_buffer, sizeof(settings.send_buffer));
        conn_create(fd, settings.tls);
    }
}

static void loop(const int *listeners, int listener_count)
{
    struct epoll_event events[256], event = {.events = EPOLLIN, .data.ptr = NULL};
    for (int i = 0; i < listener_count; i++)
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listeners[i], &event);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 256, wait_ms());
        for (int i = 0; i < n; i++) {
            for (int k = 0; events[i].data.ptr == NULL && k < listener_count; k++)
                accept_all(listeners[k]);
            if (events[i].data.ptr != NULL)
                on_ready(events[i].data.ptr, events[i].events);
        }
        run_timers();
    }
}

/* ---- start */

static void die(const char *what, const char *which)
{
    fprintf(stderr, "model_fake: %s: %s\n", what, which);
    exit(1);
}

static int listen_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (strlen(path) >= sizeof(address.sun_path))
        die("path too long", path);
    strcpy(address.sun_path, path);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 4096) != 0)
        die(strerror(errno), path);
    printf("listening on unix:%s\n", path);
    return fd;
}

static int listen_tcp(const char *where)
{
    char host[100], port[8];
    const char *colon = strrchr(where, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_PASSIVE}, *found;
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    int on = 1, fd;
    if (colon == NULL || (size_t)(colon - where) >= sizeof(host))
        die("expected HOST:PORT or unix:PATH", where);
    bool brackets = *where == '[';
    snprintf(host, sizeof(host), "%.*s", (int)(colon - where) - 2 * brackets, where + brackets);
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
        die("expected a numeric address", where);
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 4096) != 0)
        die(strerror(errno), where);
    freeaddrinfo(found);
    getsockname(fd, (struct sockaddr *)&bound, &len);
    getnameinfo((struct sockaddr *)&bound, len, host, sizeof(host), port, sizeof(port),
                NI_NUMERICHOST | NI_NUMERICSERV);
    printf(brackets ? "listening on [%s]:%s\n" : "listening on %s:%s\n", host, port);
    return fd;
}

static SSL_CTX *tls_context(const char *cert, const char *key, const char *max, const char *client_ca)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(tls, cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1)
        die("cannot use certificate or key", cert);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (max != NULL) {
        int version = strcmp(max, "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
        SSL_CTX_set_min_proto_version(tls, version);
        SSL_CTX_set_max_proto_version(tls, version);
    }
    if (client_ca != NULL) {
        if (SSL_CTX_load_verify_locations(tls, client_ca, NULL) != 1)
            die("cannot use client authorities", client_ca);
        SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    return tls;
}

static int open_journal(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        die(strerror(errno), path);
    return fd;
}

int main(int argc, char **argv)
{
    const char *where[LISTENERS_MAX] = {"127.0.0.1:0"}, *cert = NULL, *key = NULL, *max = NULL, *client_ca = NULL;
    struct rlimit files;
    int listeners[LISTENERS_MAX], count = 0;
    behave_init(&settings.behave);
    for (int i = 1; i < argc; i += 2) {
        const char *value = argv[i + 1];
        if (value == NULL)
            die("needs a value", argv[i]);
        if (strcmp(argv[i], "--listen") == 0 && count < LISTENERS_MAX)
            where[count++] = value;
        else if (strcmp(argv[i], "--tls-cert") == 0)
            cert = value;
        else if (strcmp(argv[i], "--tls-key") == 0)
            key = value;
        else if (strcmp(argv[i], "--tls-max") == 0)
            max = value;
        else if (strcmp(argv[i], "--client-ca") == 0)
            client_ca = value;
        else if (strcmp(argv[i], "--models") == 0)
            settings.models = value;
        else if (strcmp(argv[i], "--journal") == 0)
            journal_fd = open_journal(value);
        else if (strcmp(argv[i], "--sndbuf") == 0)
            settings.send_buffer = atoi(value);
        else if (strcmp(argv[i], "--behave") != 0 || !behave_parse(&settings.behave, value, strlen(value)))
            die("unknown option or behaviour", argv[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (cert != NULL)
        settings.tls = tls_context(cert, key, max, client_ca);
    count += count == 0;
    for (int i = 0; i < count; i++)
        listeners[i] = strncmp(where[i], "unix:", 5) == 0 ? listen_unix(where[i] + 5) : listen_tcp(where[i]);
    fflush(stdout);
    loop(listeners, count);
}
