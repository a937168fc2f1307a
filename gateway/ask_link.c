#include "gateway/ask_link.h"
#include "base/clock.h"
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

struct ask_link {
    int fd;
    SSL_CTX *ctx; /* NULL: clear text */
    SSL *ssl;
};

static bool refuse(char *error, size_t error_size, const char *what)
{
    snprintf(error, error_size, "%s; expected http://HOST[:PORT], https://HOST[:PORT] or http://unix:/SOCKET", what);
    return false;
}

static bool parse_port(struct span text, char *port, size_t size)
{
    unsigned long value = 0;
    if (text.len == 0 || text.len >= size)
        return false;
    for (size_t i = 0; i != text.len; ++i) {
        if (text.base[i] < '0' || text.base[i] > '9')
            return false;
        value = value * 10 + (unsigned long)(text.base[i] - '0');
    }
    snprintf(port, size, "%lu", value);
    return value >= 1 && value <= 65535;
}

/* "host", "host:port", "[v6]" or "[v6]:port" */
static bool parse_authority(struct span text, struct ask_url *url)
{
    struct span host = text, port = SPAN_NONE;
    const char *colon = memrchr(text.base, ':', text.len);
    bool bracketed = text.len != 0 && text.base[0] == '[';
    if (bracketed) {
        const char *end = memchr(text.base, ']', text.len);
        if (end == NULL)
            return false;
        host = (struct span){text.base + 1, (size_t)(end - text.base) - 1};
        struct span rest = span_skip(text, host.len + 2);
        if (rest.len != 0 && rest.base[0] != ':')
            return false;
        colon = rest.len != 0 ? rest.base : NULL;
    } else if (colon != NULL)
        host.len = (size_t)(colon - text.base);
    if (colon != NULL)
        port = span_skip(text, (size_t)(colon - text.base) + 1);
    snprintf(url->port, sizeof(url->port), "%s", url->tls ? "443" : "80");
    if (host.len == 0 || host.len >= sizeof(url->host) ||
        (colon != NULL && !parse_port(port, url->port, sizeof(url->port))))
        return false;
    if (!bracketed && memchr(host.base, ':', host.len) != NULL)
        return false;
    snprintf(url->host, sizeof(url->host), "%.*s", (int)host.len, host.base);
    snprintf(url->authority, sizeof(url->authority), "%.*s", (int)text.len, text.base);
    unsigned char address[sizeof(struct in6_addr)];
    bool is_v6 = inet_pton(AF_INET6, url->host, address) == 1;
    url->host_is_ip = is_v6 || inet_pton(AF_INET, url->host, address) == 1;
    return !bracketed || is_v6;
}

static bool parse_unix(struct span path, struct ask_url *url, char *error, size_t error_size)
{
    if (path.len >= sizeof(url->unix_path))
        return refuse(error, error_size, "the socket's path is too long");
    snprintf(url->unix_path, sizeof(url->unix_path), "%.*s", (int)path.len, path.base);
    strcpy(url->host, "localhost");
    strcpy(url->authority, "localhost");
    strcpy(url->base, "/v1");
    return true;
}

bool ask_url_parse(struct span text, struct ask_url *url, char *error, size_t error_size)
{
    memset(url, 0, sizeof(*url));
    text = span_trim(text);
    for (size_t i = 0; i != text.len; ++i) {
        if (text.base[i] <= ' ' || text.base[i] >= 0x7f)
            return refuse(error, error_size, "the URL has blanks or characters beyond ASCII");
        if (text.base[i] == '@')
            return refuse(error, error_size, "the URL has a user name, which a gateway does not know");
        if (text.base[i] == '?' || text.base[i] == '#')
            return refuse(error, error_size, "the URL has a query or a fragment");
    }
    static const struct span socket_scheme = SPAN("http://unix:");
    if (span_starts(text, socket_scheme) && text.len > socket_scheme.len && text.base[socket_scheme.len] == '/')
        return parse_unix(span_skip(text, socket_scheme.len), url, error, error_size);
    url->tls = text.len >= 8 && span_ieq((struct span){text.base, 8}, SPAN("https://"));
    if (!url->tls && !(text.len >= 7 && span_ieq((struct span){text.base, 7}, SPAN("http://"))))
        return refuse(error, error_size, "the URL has no known scheme");
    text = span_skip(text, url->tls ? 8 : 7);
    size_t host_len = 0;
    while (host_len != text.len && text.base[host_len] != '/')
        ++host_len;
    if (host_len == 0 || !parse_authority((struct span){text.base, host_len}, url))
        return refuse(error, error_size, "the URL has no valid host and port");
    struct span path = span_skip(text, host_len);
    while (path.len != 0 && path.base[path.len - 1] == '/')
        path.len--;
    bool has_v1 = path.len >= 3 && memcmp(path.base + path.len - 3, "/v1", 3) == 0;
    int len = snprintf(url->base, sizeof(url->base), "%.*s%s", (int)path.len, path.len != 0 ? path.base : "",
                       has_v1 ? "" : "/v1");
    return len < (int)sizeof(url->base) || refuse(error, error_size, "the URL's path is too long");
}

/* Waits until `deadline_us` for the connection to stand; 0 or errno. */
static int connect_until(int fd, const struct addrinfo *address, uint64_t deadline_us)
{
    if (connect(fd, address->ai_addr, address->ai_addrlen) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    for (;;) {
        uint64_t now = clock_us();
        struct pollfd waiting = {.fd = fd, .events = POLLOUT};
        int ready = now < deadline_us ? poll(&waiting, 1, (int)((deadline_us - now + 999) / 1000)) : 0;
        if (ready == -1 && errno == EINTR)
            continue;
        if (ready == -1)
            return errno;
        if (ready == 0)
            return ETIMEDOUT;
        int error = 0;
        socklen_t size = sizeof(error);
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
    }
}

int ask_connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = ASK_CONNECT_SECONDS};
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)); /* where its queue is full */
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int reason = errno == EAGAIN ? ETIMEDOUT : errno;
    close(fd);
    errno = reason;
    return -1;
}

static int open_unix(const struct ask_url *url, char *error, size_t error_size)
{
    int fd = ask_connect_unix(url->unix_path);
    if (fd == -1)
        snprintf(error, error_size, "cannot connect to unix:%s: %s%s", url->unix_path, strerror(errno),
                 errno == ECONNREFUSED || errno == ENOENT ? "; is the gateway running there?" : "");
    return fd;
}

static int open_socket(const struct ask_url *url, uint64_t deadline_us, char *error, size_t error_size)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list = NULL;
    int failure = getaddrinfo(url->host, url->port, &hints, &list);
    if (failure != 0) {
        snprintf(error, error_size, "cannot find %s: %s", url->host, gai_strerror(failure));
        return -1;
    }
    int fd = -1, reason = EADDRNOTAVAIL;
    for (const struct addrinfo *address = list; address != NULL && fd == -1; address = address->ai_next) {
        fd = socket(address->ai_family, address->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, address->ai_protocol);
        reason = fd == -1 ? errno : connect_until(fd, address, deadline_us);
        if (fd != -1 && reason != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd == -1)
        snprintf(error, error_size, "cannot connect to %s: %s%s", url->authority, strerror(reason),
                 reason == ECONNREFUSED ? "; is the gateway running there?" : "");
    return fd;
}

/* Makes the socket block again; reads and writes give up at `deadline_us` (0: never). */
static void set_blocking(int fd, uint64_t deadline_us)
{
    uint64_t now = clock_us();
    uint64_t left = deadline_us == 0 ? 0 : deadline_us > now ? deadline_us - now : 1;
    struct timeval limit = {.tv_sec = (time_t)(left / 1000000), .tv_usec = (suseconds_t)(left % 1000000)};
    int block = 0, on = 1;
    ioctl(fd, FIONBIO, &block);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)); /* a peer that vanished is noticed some day */
}

static bool handshake_failed(struct ask_link *link, const struct ask_url *url, int result, char *error,
                             size_t error_size)
{
    int saved = errno, kind = SSL_get_error(link->ssl, result);
    long verdict = SSL_get_verify_result(link->ssl);
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    if (verdict != X509_V_OK)
        snprintf(error, error_size, "the certificate of %s is not accepted: %s", url->authority,
                 X509_verify_cert_error_string(verdict));
    else if (kind == SSL_ERROR_SYSCALL || kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE)
        snprintf(error, error_size, "no TLS with %s: %s", url->authority,
                 saved == EAGAIN || saved == EWOULDBLOCK ? strerror(ETIMEDOUT)
                 : saved != 0                            ? strerror(saved)
                                                         : "the connection was closed");
    else
        snprintf(error, error_size, "no TLS with %s: %s", url->authority,
                 reason != NULL ? reason : "the handshake failed");
    return false;
}

static bool start_tls(struct ask_link *link, const struct ask_url *url, const char *ca_file, char *error,
                      size_t error_size)
{
    static const unsigned char alpn[] = "\x08http/1.1";
    link->ctx = SSL_CTX_new(TLS_client_method());
    if (link->ctx == NULL || SSL_CTX_set_min_proto_version(link->ctx, TLS1_2_VERSION) != 1) {
        snprintf(error, error_size, "OpenSSL does not start");
        return false;
    }
    SSL_CTX_set_verify(link->ctx, SSL_VERIFY_PEER, NULL);
    int loaded =
        ca_file != NULL ? SSL_CTX_load_verify_file(link->ctx, ca_file) : SSL_CTX_set_default_verify_paths(link->ctx);
    if (loaded != 1) {
        bool readable = ca_file == NULL || access(ca_file, R_OK) == 0;
        snprintf(error, error_size, "cannot load the certificate authorities of %s: %s",
                 ca_file != NULL ? ca_file : "this system", readable ? "expected a PEM file" : strerror(errno));
        return false;
    }
    link->ssl = SSL_new(link->ctx);
    if (link->ssl == NULL || SSL_set_fd(link->ssl, link->fd) != 1) {
        snprintf(error, error_size, "OpenSSL does not start");
        return false;
    }
    X509_VERIFY_PARAM *check = SSL_get0_param(link->ssl);
    int named = url->host_is_ip
                    ? X509_VERIFY_PARAM_set1_ip_asc(check, url->host)
                    : SSL_set1_host(link->ssl, url->host) == 1 && SSL_set_tlsext_host_name(link->ssl, url->host) == 1;
    if (named != 1 || SSL_set_alpn_protos(link->ssl, alpn, sizeof(alpn) - 1) != 0) {
        snprintf(error, error_size, "%s cannot be checked against a certificate", url->host);
        return false;
    }
    ERR_clear_error();
    errno = 0;
    int result = SSL_connect(link->ssl);
    return result == 1 || handshake_failed(link, url, result, error, error_size);
}

struct ask_link *ask_link_open(const struct ask_url *url, const char *ca_file, char *error, size_t error_size)
{
    uint64_t deadline_us = clock_us() + (uint64_t)ASK_CONNECT_SECONDS * 1000000;
    int fd = url->unix_path[0] != '\0' ? open_unix(url, error, error_size)
                                       : open_socket(url, deadline_us, error, error_size);
    if (fd == -1)
        return NULL;
    struct ask_link *link = calloc(1, sizeof(*link));
    if (link == NULL)
        abort();
    link->fd = fd;
    set_blocking(fd, deadline_us);
    if (url->tls && !start_tls(link, url, ca_file, error, error_size)) {
        ask_link_close(link);
        return NULL;
    }
    set_blocking(fd, 0);
    return link;
}

void ask_link_close(struct ask_link *link)
{
    if (link == NULL)
        return;
    if (link->ssl != NULL && SSL_is_init_finished(link->ssl) == 1)
        SSL_shutdown(link->ssl); /* sends the close alert; the gateway's is not waited for */
    SSL_free(link->ssl);
    SSL_CTX_free(link->ctx);
    close(link->fd);
    free(link);
}

bool ask_link_send(struct ask_link *link, struct span bytes)
{
    while (bytes.len != 0) {
        size_t piece = bytes.len < INT_MAX ? bytes.len : INT_MAX;
        ssize_t sent = link->ssl != NULL ? SSL_write(link->ssl, bytes.base, (int)piece)
                                         : send(link->fd, bytes.base, piece, MSG_NOSIGNAL);
        if (sent > 0)
            bytes = span_skip(bytes, (size_t)sent);
        else if (link->ssl != NULL || errno != EINTR)
            return false;
    }
    return true;
}

ssize_t ask_link_receive(struct ask_link *link, char *bytes, size_t size)
{
    if (link->ssl != NULL) {
        int got = SSL_read(link->ssl, bytes, size < INT_MAX ? (int)size : INT_MAX);
        return got > 0 ? got : SSL_get_error(link->ssl, got) == SSL_ERROR_ZERO_RETURN ? 0 : -1;
    }
    ssize_t got;
    do
        got = recv(link->fd, bytes, size, 0);
    while (got == -1 && errno == EINTR);
    return got;
}
