#include "gateway/worker_listen.h"
#include "base/clock.h"
#include "base/log.h"
#include "gateway/worker.h"
#include <errno.h>

#define ACCEPT_PAUSE_US 100000
/* Taking every waiting connection at once would let newcomers starve the streams that run. */
#define ACCEPTS_AT_ONCE 16

/* In the order in which they fire. */
static void on_accept(h2o_socket_t *sock, const char *err);
static void pause_listening(struct worker_listener *listening);
static void on_pause_over(struct deadline *deadline);

/* The listener has a count of its own: its configuration may be gone before it. */
static void set_tls(struct worker_listener *listening, SSL_CTX *tls)
{
    if (tls != NULL)
        SSL_CTX_up_ref(tls);
    SSL_CTX_free(listening->accept_ctx.ssl_ctx);
    listening->accept_ctx.ssl_ctx = tls;
}

static void listen_on(struct worker *worker, const struct listener *listener, int fd)
{
    struct worker_listener *listening = &worker->listening[worker->listening_count++];
    bool known;
    *listening = (struct worker_listener){
        .worker = worker, .address = listener->settings->address, .admin = listener->settings->admin};
    listening->accept_ctx.ctx = &worker->ctx;
    listening->accept_ctx.hosts = worker->globalconf.hosts;
    set_tls(listening, site_tls(worker->site, listening->address, &known));
    listening->sock = h2o_evloop_socket_create(worker->ctx.loop, fd, H2O_SOCKET_FLAG_DONT_READ);
    listening->sock->data = listening;
}

void worker_listen_prepare(struct worker *worker)
{
    struct server *server = worker->server;
    size_t most = 1;
    for (size_t i = 0; i < server->listener_count; i++)
        most += server->listeners[i].fd_count / server->worker_count + 1;
    worker->listening = h2o_mem_alloc(most * sizeof(worker->listening[0]));
    for (size_t i = 0; i < server->listener_count; i++) {
        int fds[CONFIG_WORKERS_MAX];
        size_t count = listener_share(&server->listeners[i], worker->index, (unsigned)server->worker_count, fds,
                                      CONFIG_WORKERS_MAX);
        for (size_t n = 0; n < count; n++)
            listen_on(worker, &server->listeners[i], fds[n]);
    }
}

void worker_listen_begin(struct worker *worker)
{
    for (size_t i = 0; i < worker->listening_count; i++)
        h2o_socket_read_start(worker->listening[i].sock, on_accept);
}

static void on_accept(h2o_socket_t *sock, const char *err)
{
    struct worker_listener *listening = sock->data;
    h2o_socket_t *accepted;
    if (err != NULL)
        return;
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        if ((accepted = h2o_evloop_socket_accept(sock)) == NULL) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                pause_listening(listening);
            return;
        }
        connection_accept(listening->worker, accepted, &listening->accept_ctx, listening->admin);
    }
}

/* Out of descriptors: the listener would be readable, and the loop busy, until some are free again. */
static void pause_listening(struct worker_listener *listening)
{
    h2o_socket_read_stop(listening->sock);
    listening->pause.cb = on_pause_over;
    deadline_arm(&listening->worker->deadlines, &listening->pause, clock_us() + ACCEPT_PAUSE_US);
    if (!listening->paused)
        log_text(LOG_WARN, "out of file descriptors: new connections wait (see `ulimit -n`)");
    listening->paused = true;
}

static void on_pause_over(struct deadline *deadline)
{
    struct worker_listener *listening = H2O_STRUCT_FROM_MEMBER(struct worker_listener, pause, deadline);
    h2o_socket_read_start(listening->sock, on_accept);
}

void worker_listen_take_site(struct worker *worker)
{
    for (size_t i = 0; i < worker->listening_count; i++) {
        bool known;
        SSL_CTX *tls = site_tls(worker->site, worker->listening[i].address, &known);
        if (known)
            set_tls(&worker->listening[i], tls);
    }
}

static void accept_the_rest(struct worker_listener *listening)
{
    h2o_socket_t *accepted;
    while ((accepted = h2o_evloop_socket_accept(listening->sock)) != NULL)
        connection_accept(listening->worker, accepted, &listening->accept_ctx, listening->admin);
    deadline_disarm(&listening->worker->deadlines, &listening->pause);
}

void worker_listen_end(struct worker *worker)
{
    for (size_t i = 0; i < worker->listening_count; i++) {
        if (worker->listening[i].sock == NULL)
            continue;
        accept_the_rest(&worker->listening[i]); /* closing resets the connections that nobody took */
        h2o_socket_close(worker->listening[i].sock);
        worker->listening[i].sock = NULL;
    }
}

void worker_listen_dispose(struct worker *worker)
{
    for (size_t i = 0; i < worker->listening_count; i++)
        set_tls(&worker->listening[i], NULL);
    free(worker->listening);
}
