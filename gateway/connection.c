#include "base/clock.h"
#include "gateway/address.h"
#include "gateway/connection_own.h"
#include "gateway/input.h"
#include "gateway/large_buffer.h"
#include "gateway/security.h"
#include <h2o/http1.h>
#include <h2o/http2.h>
#include <openssl/crypto.h>
#include <sys/socket.h>

#define HANDSHAKE_US 10000000 /* or request_timeout, if that is shorter */
#define HANDSHAKES_AT_ONCE 4  /* each may take a millisecond */
#define REQUESTS_AT_ONCE 16   /* of one connection, before others have their turn */
#define CLOSING_US 5000000    /* for a client that does not take its GOAWAY */
/* libh2o cuts the first 200 KiB of a TLS connection into records of 1,400 bytes, for browsers that show what has come.
 * An event is a record anyway, a plain answer nothing before its end: they would only cost more. */
#define SMALL_RECORDS_UNTIL ((size_t)200 * 1024)

static const char preface[] = "PRI * HTTP/2"; /* RFC 9113 §3.4 */

/* In the order in which they fire. */
static void on_first_bytes(h2o_socket_t *sock, const char *err);
static void on_hello(h2o_socket_t *sock, const char *err);
static void on_handshake_turn(struct deadline *deadline);
static void on_handshake(h2o_socket_t *sock, const char *err);
static void on_late(struct deadline *deadline);
static void on_input(h2o_socket_t *sock, const char *err);
static void on_close(void *ctx);

/* ---- who may connect ---- */

static struct in6_addr peer_of(struct worker *worker, h2o_socket_t *sock)
{
    struct sockaddr_storage sa;
    socklen_t len = h2o_socket_getpeername(sock, (struct sockaddr *)&sa);
    struct in6_addr peer = address_of(len != 0 ? &sa : NULL);
    /* A proxy stands for many clients. */
    return config_is_trusted_proxy(worker->site->config, &peer) ? (struct in6_addr)IN6ADDR_ANY_INIT : peer;
}

/* Why a connection is refused; NULL: it is not, and has been counted. */
static const char *find_refusal(struct worker *worker, const struct in6_addr *peer)
{
    static const char *const words[] = {
        [CLIENTS_ADMITTED] = NULL, [CLIENTS_TOO_MANY] = "per_address", [CLIENTS_PENALTY] = "penalty"};
    const struct config *config = worker->site->config;
    struct server *server = worker->server;
    if (atomic_fetch_add_explicit(&server->connections, 1, memory_order_relaxed) >= config->connections.max) {
        atomic_fetch_sub_explicit(&server->connections, 1, memory_order_relaxed);
        return "max";
    }
    enum clients_verdict verdict = clients_enter(server->clients, peer, config->connections.per_address, clock_us());
    if (verdict != CLIENTS_ADMITTED)
        atomic_fetch_sub_explicit(&server->connections, 1, memory_order_relaxed);
    return words[verdict];
}

void connection_accept(struct worker *worker, h2o_socket_t *sock, h2o_accept_ctx_t *accept_ctx, bool admin)
{
    struct in6_addr peer = peer_of(worker, sock);
    const char *refusal = find_refusal(worker, &peer);
    if (refusal != NULL) {
        telemetry_refused_connection(worker, refusal);
        security_event(worker, SECURITY_CONNECTIONS, &peer, span_of(refusal));
        h2o_socket_close(sock);
        return;
    }
    struct connection *connection = h2o_mem_alloc(sizeof(*connection));
    *connection =
        (struct connection){.worker = worker, .sock = sock, .accept_ctx = accept_ctx, .peer = peer, .admin = admin};
    h2o_linklist_insert(&worker->connections.reading, &connection->link);
    if (worker->connections.count++ == 0)
        deadline_arm(&worker->deadlines, &worker->connections.sweep, clock_us() + CONNECTION_SWEEP_US);
    metric_add(worker->telemetry.connections, 1);
    sock->on_close.cb = on_close;
    sock->on_close.data = connection;
    gettimeofday(&connection->connected_at, NULL);
    uint64_t patience = worker->site->config->request_timeout_us;
    if (accept_ctx->ssl_ctx != NULL && patience > HANDSHAKE_US)
        patience = HANDSHAKE_US;
    connection->timer.cb = on_late;
    deadline_arm(&worker->deadlines, &connection->timer, clock_us() + patience);
    sock->data = connection;
    h2o_socket_dont_read(sock, accept_ctx->ssl_ctx == NULL);
    h2o_socket_read_start(sock, accept_ctx->ssl_ctx != NULL ? on_hello : on_first_bytes);
}

static void on_late(struct deadline *deadline)
{
    struct connection *connection = H2O_STRUCT_FROM_MEMBER(struct connection, timer, deadline);
    h2o_socket_close(connection->sock);
}

/* ---- which protocol ---- */

static void move(struct connection *connection, h2o_linklist_t *list)
{
    h2o_linklist_unlink(&connection->link);
    h2o_linklist_insert(list, &connection->link);
}

/* libh2o's reader is ours to call: bytes come in as input.h has it. It is put in its place again and again, whenever a
 * request ends, so what was changed within a turn of the loop is looked at when that is over. */
void connections_read_again(struct worker *worker)
{
    h2o_linklist_t *changed = &worker->connections.changed;
    while (!h2o_linklist_is_empty(changed)) {
        struct connection *connection = H2O_STRUCT_FROM_MEMBER(struct connection, link, changed->next);
        h2o_socket_t *sock = connection->sock;
        h2o_linklist_unlink(&connection->link);
        h2o_linklist_insert(&worker->connections.reading, &connection->link);
        if (sock->_cb.read != connection->on_read && sock->_cb.read != on_input)
            continue;
        sock->_cb.read = on_input;
        if (sock->input->size == 0)
            h2o_buffer_set_prototype(&sock->input, &h2o_socket_buffer_prototype);
        h2o_socket_dont_read(sock, sock->ssl == NULL);
    }
}

/* The connection may be gone when it returns. */
static void on_input(h2o_socket_t *sock, const char *err)
{
    struct connection *connection = sock->on_close.data;
    struct worker *worker = connection->worker;
    size_t max_body = worker->site->config->max_body;
    if (sock->ssl == NULL)
        err = input_read(sock, max_body);
    else
        input_make_room(&sock->input, max_body);
    move(connection, &worker->connections.changed);
    h2o_socket_dont_read(sock, 0);
    connection->on_read(sock, err);
}

h2o_socket_cb connection_reader(const struct connection *connection)
{
    h2o_socket_cb reader = connection->sock->_cb.read;
    return reader == on_input ? connection->on_read : reader;
}

/* The connection may be gone when it returns. */
static void speak_http1(struct connection *connection)
{
    h2o_socket_t *sock = connection->sock;
    /* What has come already is kept back: libh2o might close while its reader is not known. */
    h2o_buffer_t *input = sock->input;
    h2o_buffer_init(&sock->input, &h2o_socket_buffer_prototype);
    h2o_http1_accept(connection->accept_ctx, sock, connection->connected_at);
    sock->input = input;
    connection->on_read = sock->_cb.read;
    move(connection, &connection->worker->connections.changed);
    if (input->size != 0)
        connection->on_read(sock, NULL);
}

/* The connection may be gone when it returns. */
static void speak(struct connection *connection, bool http2)
{
    struct worker *worker = connection->worker;
    h2o_accept_ctx_t *accept_ctx = connection->accept_ctx;
    deadline_disarm(&worker->deadlines, &connection->timer);
    connection->http2 = http2;
    if (!http2) {
        speak_http1(connection);
    } else if (!worker->connections.serve_http2) {
        h2o_socket_close(connection->sock);
    } else {
        connection->guard = http2_guard_create();
        http2_guard_accept(connection->guard, accept_ctx, connection->sock, connection->connected_at);
    }
}

/* libh2o tells the protocols apart only together with the Upgrade to h2c, which RFC 9113 has dropped. */
static void on_first_bytes(h2o_socket_t *sock, const char *err)
{
    struct connection *connection = sock->data;
    if (err == NULL)
        err = input_read(sock, connection->worker->site->config->max_body);
    if (err != NULL) {
        h2o_socket_close(sock);
        return;
    }
    if (sock->input->size == 0)
        return;
    size_t n = sock->input->size < sizeof(preface) - 1 ? sock->input->size : sizeof(preface) - 1;
    bool may_be_http2 = memcmp(sock->input->bytes, preface, n) == 0;
    if (may_be_http2 && n < sizeof(preface) - 1)
        return;
    h2o_socket_read_stop(sock);
    h2o_socket_dont_read(sock, 0);
    speak(connection, may_be_http2);
}

/* Handshakes are the dearest thing that a stranger can ask for: they queue, so that a flood of them delays newcomers
 * and not the streams that run. */
static void on_hello(h2o_socket_t *sock, const char *err)
{
    struct connection *connection = sock->data;
    struct worker *worker = connection->worker;
    if (err != NULL) {
        h2o_socket_close(sock);
        return;
    }
    h2o_socket_read_stop(sock);
    h2o_linklist_insert(&worker->connections.handshakes, &connection->handshake_link);
    if (!deadline_armed(&worker->connections.handshake_turn))
        deadline_arm(&worker->deadlines, &worker->connections.handshake_turn, clock_us());
}

static void on_handshake_turn(struct deadline *deadline)
{
    struct worker *worker = H2O_STRUCT_FROM_MEMBER(struct worker, connections.handshake_turn, deadline);
    h2o_linklist_t *waiting = &worker->connections.handshakes;
    for (int i = 0; i < HANDSHAKES_AT_ONCE && !h2o_linklist_is_empty(waiting); i++) {
        struct connection *connection = H2O_STRUCT_FROM_MEMBER(struct connection, handshake_link, waiting->next);
        h2o_linklist_unlink(&connection->handshake_link);
        if (connection->accept_ctx->ssl_ctx == NULL) { /* a new configuration has taken TLS from the address */
            h2o_socket_close(connection->sock);
            continue;
        }
        h2o_socket_ssl_handshake(connection->sock, connection->accept_ctx->ssl_ctx, NULL, on_handshake);
    }
    if (!h2o_linklist_is_empty(waiting))
        deadline_arm(&worker->deadlines, deadline, clock_us());
}

static void on_handshake(h2o_socket_t *sock, const char *err)
{
    struct connection *connection = sock->on_close.data;
    if (err != NULL) {
        h2o_socket_close(sock);
        return;
    }
    sock->bytes_written = SMALL_RECORDS_UNTIL;
    h2o_iovec_t protocol = h2o_socket_ssl_get_selected_protocol(sock);
    speak(connection, h2o_memis(protocol.base, protocol.len, H2O_STRLIT("h2")));
}

static void on_close(void *ctx)
{
    struct connection *connection = ctx;
    struct worker *worker = connection->worker;
    deadline_disarm(&worker->deadlines, &connection->timer);
    h2o_linklist_unlink(&connection->link);
    if (h2o_linklist_is_linked(&connection->handshake_link))
        h2o_linklist_unlink(&connection->handshake_link);
    if (--worker->connections.count == 0) {
        deadline_disarm(&worker->deadlines, &worker->connections.sweep);
        large_buffers_trim(true);
    }
    metric_add(worker->telemetry.connections, -1);
    uploads_note(&worker->server->uploads, &connection->held, 0);
    clients_leave(worker->server->clients, &connection->peer);
    atomic_fetch_sub_explicit(&worker->server->connections, 1, memory_order_relaxed);
    http2_guard_destroy(connection->guard);
    OPENSSL_cleanse(&connection->known_key, sizeof(connection->known_key));
    free(connection);
}

struct connection *connection_of(h2o_req_t *req)
{
    return req->conn->callbacks->get_socket(req->conn)->on_close.data;
}

struct call_known_key *connection_known_key(struct connection *connection)
{
    return &connection->known_key;
}

bool connection_is_admin(const struct connection *connection)
{
    return connection->admin;
}

bool connections_init(struct worker *worker)
{
    struct connections *connections = &worker->connections;
    h2o_linklist_init_anchor(&connections->reading);
    h2o_linklist_init_anchor(&connections->changed);
    h2o_linklist_init_anchor(&connections->answering);
    h2o_linklist_init_anchor(&connections->handshakes);
    connections->handshake_turn.cb = on_handshake_turn;
    connections->sweep.cb = connections_sweep;
    return connections_watch_init(worker);
}

void connection_request_begins(struct connection *connection, bool http2)
{
    if (!http2)
        move(connection, &connection->worker->connections.answering);
    else if (connection->guard != NULL)
        http2_guard_request(connection->guard);
    if (!http2 && connection->held != 0)
        uploads_note(&connection->worker->server->uploads, &connection->held, 0);
    connection->requests++;
    connection->served = true;
}

void connection_request_ends(struct connection *connection, bool stalled)
{
    connection->requests--;
    connection->stalled -= stalled;
    if (!connection->http2)
        move(connection, &connection->worker->connections.changed);
}

void connections_turn(struct worker *worker)
{
    worker->connections.round++;
    connections_read_again(worker);
}

bool connection_has_turn(struct connection *connection)
{
    uint64_t round = connection->worker->connections.round;
    if (connection->round != round) {
        connection->round = round;
        connection->in_round = 0;
    }
    return connection->in_round++ < REQUESTS_AT_ONCE;
}

void connection_aborted(struct connection *connection)
{
    if (connection->guard != NULL)
        http2_guard_aborted(connection->guard);
}

void connection_too_many_fields(struct connection *connection)
{
    if (connection->guard != NULL)
        http2_guard_too_many_fields(connection->guard);
}

bool connection_stalled(struct connection *connection, bool again)
{
    connection->stalled += !again;
    return connection->stalled == connection->requests;
}

/* Whether nothing would be lost with the connection. libh2o ends those of HTTP/2 itself; one that was just made gets
 * time for its request to come; bytes that wait are a request. */
static bool is_idle(const struct connection *connection, bool settled)
{
    char byte;
    return connection->requests == 0 && (connection->served || settled) && !connection->http2 &&
           connection->sock->input->size == 0 &&
           recv(h2o_socket_get_fd(connection->sock), &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

static void close_where(h2o_linklist_t *list, bool all, bool settled)
{
    for (h2o_linklist_t *link = list->next; link != list; link = link->next) {
        struct connection *connection = H2O_STRUCT_FROM_MEMBER(struct connection, link, link);
        if (!all && !is_idle(connection, settled))
            continue;
        connection->shut = !all;
        shutdown(h2o_socket_get_fd(connection->sock), all ? SHUT_RDWR : SHUT_RD);
    }
}

void connections_close_idle(struct worker *worker, bool settled)
{
    connections_read_again(worker);
    close_where(&worker->connections.reading, false, settled);
}

void connections_close_all(struct worker *worker)
{
    connections_read_again(worker);
    close_where(&worker->connections.reading, true, true);
    close_where(&worker->connections.answering, true, true);
}

/* ---- floods ---- */

struct http2_guard *connection_guard(const h2o_socket_t *sock)
{
    const struct connection *connection = sock->on_close.data;
    return connection->guard;
}

size_t connection_upload_max(const h2o_socket_t *sock)
{
    const struct connection *connection = sock->on_close.data;
    return uploads_of_connection_max(connection->worker->site->config->max_body);
}

static void on_closing_late(struct deadline *deadline)
{
    struct connection *connection = H2O_STRUCT_FROM_MEMBER(struct connection, timer, deadline);
    shutdown(h2o_socket_get_fd(connection->sock), SHUT_RDWR);
}

void connection_flooded(h2o_socket_t *sock, const char *kind)
{
    struct connection *connection = sock->on_close.data;
    struct worker *worker = connection->worker;
    uint64_t now = clock_us();
    telemetry_flood(worker, kind);
    security_event(worker, SECURITY_FLOOD, &connection->peer, span_of(kind));
    clients_flooded(worker->server->clients, &connection->peer, now);
    /* libh2o closes at once, or, if it is in the middle of a write, once that is done. It would go on reading. */
    h2o_socket_read_stop(sock);
    connection->timer.cb = on_closing_late;
    deadline_arm(&worker->deadlines, &connection->timer, now + CLOSING_US);
}

void connection_broke_rule(h2o_socket_t *sock, const char *rule)
{
    const struct connection *connection = sock->on_close.data;
    security_event(connection->worker, SECURITY_MALFORMED, &connection->peer, span_of(rule));
}
