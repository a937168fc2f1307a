#include "backends/exchange_kind.h"
#include "backends/http_exchange.h"
#include "base/clock.h"
#include "base/recycle.h"
#include "base/tls_files.h"
#include <arpa/inet.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/un.h>

/* Servers close idle connections after 5 s (uvicorn) to 75 s (nginx); that is noticed at once, so waiting long costs
 * nothing but descriptors. */
#define IDLE_US 60000000
#define IDLE_MAX 1024
#define POOL_TIMEOUT_MS 1000 /* libh2o's pool must have one; nothing is ever put back into it */

/* An idle connection, found by its socket's data. */
struct idle {
    h2o_linklist_t link;
    struct upstream *upstream;
    h2o_socket_t *sock;
    uint64_t since_us;
};

static void on_idle_read(h2o_socket_t *sock, const char *err);
static void on_idle_deadline(struct deadline *deadline);

/* libh2o checks no name on TLS 1.3, so OpenSSL is told to check it in the handshake itself, on every version. */
static bool create_tls(struct upstream *upstream, char *error, size_t error_size)
{
    const struct backend_settings *settings = upstream->settings;
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_set_alpn_protos(tls, (const unsigned char *)"\x08http/1.1", 9);
    SSL_CTX_set_verify(tls, settings->tls.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    const char *ca = settings->tls.ca, *cert = settings->tls.cert;
    const char *key = settings->tls.key != NULL ? settings->tls.key : cert;
    if ((ca != NULL && !tls_files_authorities(tls, ca, error, error_size)) ||
        (cert != NULL && !tls_files_certificate(tls, cert, key, error, error_size))) {
        SSL_CTX_free(tls);
        return false;
    }
    if (ca == NULL)
        SSL_CTX_set_default_verify_paths(tls);
    upstream->tls = tls;
    if (!settings->tls.verify)
        return true;
    X509_VERIFY_PARAM *param = SSL_CTX_get0_param(tls);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    int named = settings->url.host_is_ip ? X509_VERIFY_PARAM_set1_ip_asc(param, settings->url.host)
                                         : X509_VERIFY_PARAM_set1_host(param, settings->url.host, 0);
    if (named != 1) {
        snprintf(error, error_size, "cannot check certificates for the name %s", settings->url.host);
        SSL_CTX_free(tls);
        return false;
    }
    return true;
}

static bool create_pool(struct upstream *upstream, const struct sockaddr *address, socklen_t address_len, char *error,
                        size_t error_size)
{
    const struct backend_url *url = &upstream->settings->url;
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(url->port)};
    if (address_len != 0) {
        struct sockaddr_storage copy;
        memcpy(&copy, address, address_len);
        h2o_socketpool_init_by_address(&upstream->pool, (struct sockaddr *)&copy, address_len, url->tls, SIZE_MAX);
    } else if (url->unix_path != NULL) {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        if (strlen(url->unix_path) >= sizeof(un.sun_path)) {
            snprintf(error, error_size, "the socket path %s is too long", url->unix_path);
            return false;
        }
        strcpy(un.sun_path, url->unix_path);
        h2o_socketpool_init_by_address(&upstream->pool, (struct sockaddr *)&un, sizeof(un), 0, SIZE_MAX);
    } else if (url->host_is_ip && inet_pton(AF_INET6, url->host, &in6.sin6_addr) == 1) {
        h2o_socketpool_init_by_address(&upstream->pool, (struct sockaddr *)&in6, sizeof(in6), url->tls, SIZE_MAX);
    } else {
        h2o_iovec_t host = h2o_iovec_init(url->host, strlen(url->host));
        h2o_socketpool_init_by_hostport(&upstream->pool, host, url->port, url->tls, SIZE_MAX);
    }
    h2o_socketpool_set_timeout(&upstream->pool, upstream->ctx->loop, POOL_TIMEOUT_MS);
    return true;
}

struct upstream *upstream_create(const struct backend_settings *settings, const struct sockaddr *address,
                                 socklen_t address_len, h2o_context_t *ctx, struct deadlines *deadlines, char *error,
                                 size_t error_size)
{
    struct upstream *upstream = h2o_mem_alloc(sizeof(*upstream));
    *upstream = (struct upstream){.settings = settings, .ctx = ctx, .deadlines = deadlines};
    h2o_linklist_init_anchor(&upstream->idle);
    upstream->idle_deadline.cb = on_idle_deadline;
    if (settings->url.kind == BACKEND_HTTP) {
        if (settings->url.tls && !create_tls(upstream, error, error_size)) {
            free(upstream);
            return NULL;
        }
        if (!create_pool(upstream, address, address_len, error, error_size)) {
            SSL_CTX_free(upstream->tls);
            free(upstream);
            return NULL;
        }
    }
    return upstream;
}

/* ---- idle connections ---- */

static __thread struct recycle recycled;

/* Takes an entry out; its socket is the caller's. */
static h2o_socket_t *remove_idle(struct idle *idle)
{
    h2o_socket_t *sock = idle->sock;
    h2o_linklist_unlink(&idle->link);
    if (--idle->upstream->idle_count == 0)
        deadline_disarm(idle->upstream->deadlines, &idle->upstream->idle_deadline);
    recycle_give(&recycled, idle);
    return sock;
}

h2o_socket_t *upstream_take_idle(struct upstream *upstream)
{
    if (upstream->idle_count == 0)
        return NULL;
    return remove_idle(H2O_STRUCT_FROM_MEMBER(struct idle, link, upstream->idle.prev));
}

void upstream_keep_idle(struct upstream *upstream, h2o_socket_t *sock)
{
    if (upstream->idle_count == IDLE_MAX) {
        h2o_socket_close(sock);
        return;
    }
    struct idle *idle = recycle_take(&recycled, sizeof(*idle));
    *idle = (struct idle){.upstream = upstream, .sock = sock, .since_us = clock_us()};
    h2o_linklist_insert(&upstream->idle, &idle->link);
    if (upstream->idle_count++ == 0)
        deadline_arm(upstream->deadlines, &upstream->idle_deadline, idle->since_us + IDLE_US);
    sock->data = idle;
    h2o_socket_read_start(sock, on_idle_read);
}

/* A server that closes an idle connection, or sends on it unasked. */
static void on_idle_read(h2o_socket_t *sock, const char *err)
{
    /* TLS calls back for records that carry nothing, such as session tickets. */
    if (err == NULL && sock->input->size == 0)
        return;
    h2o_socket_close(remove_idle(sock->data));
}

static void on_idle_deadline(struct deadline *deadline)
{
    struct upstream *upstream = H2O_STRUCT_FROM_MEMBER(struct upstream, idle_deadline, deadline);
    uint64_t now = clock_us();
    while (upstream->idle_count != 0) {
        struct idle *oldest = H2O_STRUCT_FROM_MEMBER(struct idle, link, upstream->idle.next);
        if (oldest->since_us + IDLE_US > now) {
            deadline_arm(upstream->deadlines, deadline, oldest->since_us + IDLE_US);
            return;
        }
        h2o_socket_close(remove_idle(oldest));
    }
}

void upstream_destroy(struct upstream *upstream)
{
    h2o_socket_t *sock;
    while ((sock = upstream_take_idle(upstream)) != NULL)
        h2o_socket_close(sock);
    if (upstream->settings->url.kind == BACKEND_HTTP)
        h2o_socketpool_dispose(&upstream->pool);
    SSL_CTX_free(upstream->tls);
    free(upstream);
}

const struct backend_settings *upstream_settings(const struct upstream *upstream)
{
    return upstream->settings;
}

SSL_CTX *upstream_tls(const struct upstream *upstream)
{
    return upstream->tls;
}

struct exchange *exchange_start(struct upstream *upstream, const struct exchange_request *request,
                                const struct exchange_callbacks *callbacks, void *ctx)
{
    if (upstream->settings->url.kind == BACKEND_DEMO)
        return demo_start(upstream->settings, upstream->deadlines, request, callbacks, ctx);
    return http_exchange_start(upstream, request, callbacks, ctx);
}

void exchange_cancel(struct exchange *exchange)
{
    exchange->cancel(exchange);
}
