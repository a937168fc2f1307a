#include "gateway/ws_loop.h"
#include "base/log.h"
#include "gateway/worker.h"
#include "gateway/ws_backend.h"
#include "gateway/ws_session.h"
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>
#include <uv.h>

#define SERVICE_BUFFER 16384
#define HEADERS_MAX 8192     /* of a backend's answer, and what it is asked */
#define TIMEOUT_SECONDS 3600 /* libwebsockets' own: weir has better ones */
#define END_TURNS 100        /* of the loop, for handles to close in */

struct ws_loop {
    uv_loop_t uv;
    struct lws_context *context; /* NULL once libwebsockets has let go of it */
    struct lws_vhost *server;
    h2o_socket_t *watch; /* on a duplicate of the libuv loop's descriptor */
    bool touched;
    struct ws_client {
        SSL_CTX *tls;
        struct lws_vhost *vhost;
        size_t users;
    } * clients;
    size_t client_count;
    unsigned char scratch[WS_SCRATCH];
};

static void on_ready(h2o_socket_t *sock, const char *err);

/* Pings and their time-outs are the sessions' own business; left alone, libwebsockets pings after five minutes. */
static const lws_retry_bo_t no_keepalive = {.secs_since_valid_ping = 0};

static const struct lws_protocols protocols[] = {
    {.name = "weir", .callback = ws_session_on_event, .rx_buffer_size = WS_RX_BUFFER, .tx_packet_size = WS_TX_PACKET},
    {.name = NULL},
};

static const struct lws_protocols client_protocols[] = {
    {.name = "weir-backend",
     .callback = ws_backend_on_event,
     .rx_buffer_size = WS_RX_BUFFER,
     .tx_packet_size = WS_TX_PACKET},
    {.name = NULL},
};

/* Some of libwebsockets' start is global and not made for several threads at once. */
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;

static bool start_libwebsockets(struct ws_loop *loop)
{
    void *loops[] = {&loop->uv};
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN,
        .gid = (gid_t)-1,
        .uid = (uid_t)-1,
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT,
        .foreign_loops = loops,
        .pt_serv_buf_size = SERVICE_BUFFER,
        .max_http_header_data = HEADERS_MAX,
        .timeout_secs = TIMEOUT_SECONDS,
        .retry_and_idle_policy = &no_keepalive,
        .pcontext = &loop->context,
    };
    /* What it has to say is about one client or another, at length. */
    lws_set_log_level(0, NULL);
    loop->context = lws_create_context(&info);
    if (loop->context == NULL)
        return false;
    info.options = 0;
    info.port = CONTEXT_PORT_NO_LISTEN_SERVER;
    info.vhost_name = "server";
    info.protocols = protocols;
    loop->server = lws_create_vhost(loop->context, &info);
    return loop->server != NULL;
}

/* Ends libwebsockets, and lets libuv close what it had. */
static void stop_libwebsockets(struct ws_loop *loop)
{
    if (loop->context != NULL)
        lws_context_destroy(loop->context);
    for (int i = 0; i < END_TURNS && uv_run(&loop->uv, UV_RUN_NOWAIT) != 0; i++)
        ;
    if (loop->context != NULL) /* the first call only begins it where a loop is lent */
        lws_context_destroy(loop->context);
    for (int i = 0; i < END_TURNS && uv_run(&loop->uv, UV_RUN_NOWAIT) != 0; i++)
        ;
    uv_loop_close(&loop->uv);
}

static struct ws_loop *create(struct worker *worker)
{
    struct ws_loop *loop = h2o_mem_alloc(sizeof(*loop));
    memset(loop, 0, offsetof(struct ws_loop, scratch));
    if (uv_loop_init(&loop->uv) != 0) {
        free(loop);
        return NULL;
    }
    pthread_mutex_lock(&starting);
    bool started = start_libwebsockets(loop);
    pthread_mutex_unlock(&starting);
    int fd = started ? fcntl(uv_backend_fd(&loop->uv), F_DUPFD_CLOEXEC, 0) : -1;
    if (fd == -1) {
        stop_libwebsockets(loop);
        free(loop);
        return NULL;
    }
    loop->watch = h2o_evloop_socket_create(worker->ctx.loop, fd, H2O_SOCKET_FLAG_DONT_READ);
    loop->watch->data = loop;
    h2o_socket_read_start(loop->watch, on_ready);
    loop->touched = true;
    return loop;
}

struct ws_loop *ws_loop_get(struct worker *worker)
{
    if (worker->ws_loop == NULL) {
        worker->ws_loop = create(worker);
        if (worker->ws_loop == NULL)
            log_text(LOG_ERROR, "libwebsockets cannot start: is the package libwebsockets-evlib-uv installed?");
    }
    return worker->ws_loop;
}

struct lws_context *ws_loop_context(struct ws_loop *loop)
{
    return loop->context;
}

struct lws_vhost *ws_loop_server(struct ws_loop *loop)
{
    return loop->server;
}

/* Whether a backend of the present configuration has this context. */
static bool is_current(const struct worker *worker, const SSL_CTX *tls)
{
    struct pool_member *member;
    bool found = false;
    for (size_t i = 0; !found && (member = pool_member_hold(worker->pool, i)) != NULL; i++) {
        found = upstream_tls(pool_member_upstream(member)) == tls;
        pool_member_release(member);
    }
    return found;
}

/* Lets go of those whose backends went with a reload. */
static void sweep(struct worker *worker)
{
    struct ws_loop *loop = worker->ws_loop;
    size_t kept = 0;
    for (size_t i = 0; i < loop->client_count; i++) {
        struct ws_client *client = &loop->clients[i];
        if (client->users != 0 || client->tls == NULL || is_current(worker, client->tls)) {
            loop->clients[kept++] = *client;
            continue;
        }
        lws_vhost_destroy(client->vhost);
        SSL_CTX_free(client->tls);
    }
    loop->client_count = kept;
}

void ws_loop_client_done(struct ws_loop *loop, const struct lws_vhost *vhost)
{
    for (size_t i = 0; i < loop->client_count; i++)
        if (loop->clients[i].vhost == vhost)
            loop->clients[i].users--;
}

struct lws_vhost *ws_loop_client(struct worker *worker, SSL_CTX *tls)
{
    struct ws_loop *loop = ws_loop_get(worker);
    if (loop == NULL)
        return NULL;
    for (size_t i = 0; i < loop->client_count; i++)
        if (loop->clients[i].tls == tls) {
            loop->clients[i].users++;
            return loop->clients[i].vhost;
        }
    sweep(worker);
    if (loop->client_count == WS_CLIENTS_MAX)
        return NULL;
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN,
        .options = tls != NULL ? LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT : 0,
        .vhost_name = "client",
        .protocols = client_protocols,
        .provided_client_ssl_ctx = tls,
        .connect_timeout_secs = TIMEOUT_SECONDS,
        .http_proxy_address = "", /* else it would look for a proxy in the environment */
    };
    pthread_mutex_lock(&starting);
    struct lws_vhost *vhost = lws_create_vhost(loop->context, &info);
    pthread_mutex_unlock(&starting);
    if (vhost == NULL)
        return NULL;
    if (tls != NULL)
        SSL_CTX_up_ref(tls);
    loop->clients = h2o_mem_realloc(loop->clients, (loop->client_count + 1) * sizeof(loop->clients[0]));
    loop->clients[loop->client_count++] = (struct ws_client){tls, vhost, 1};
    return vhost;
}

unsigned char *ws_loop_scratch(struct ws_loop *loop)
{
    return loop->scratch;
}

void ws_loop_touch(struct ws_loop *loop)
{
    loop->touched = true;
}

static void turn(struct ws_loop *loop)
{
    loop->touched = false;
    uv_run(&loop->uv, UV_RUN_NOWAIT);
}

static void on_ready(h2o_socket_t *sock, const char *err)
{
    (void)err;
    turn(sock->data);
}

int ws_loop_wait_ms(struct ws_loop *loop, int max_ms)
{
    if (loop == NULL)
        return max_ms;
    if (loop->touched)
        return 0;
    uv_update_time(&loop->uv); /* time-outs are told relative to when libuv last looked */
    int wait = uv_backend_timeout(&loop->uv);
    return wait >= 0 && wait < max_ms ? wait : max_ms;
}

void ws_loop_run(struct ws_loop *loop)
{
    if (loop == NULL)
        return;
    if (!loop->touched)
        uv_update_time(&loop->uv);
    if (loop->touched || uv_backend_timeout(&loop->uv) == 0)
        turn(loop);
}

void ws_loop_destroy(struct ws_loop *loop)
{
    if (loop == NULL)
        return;
    h2o_socket_close(loop->watch);
    stop_libwebsockets(loop);
    for (size_t i = 0; i < loop->client_count; i++)
        SSL_CTX_free(loop->clients[i].tls);
    free(loop->clients);
    free(loop);
}
