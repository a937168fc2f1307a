#include "gateway/listener.h"
#include "base/tls_files.h"
#include <errno.h>
#include <fcntl.h>
#include <h2o.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096

static bool fail(char *error, size_t error_size, const char *address, const char *what)
{
    snprintf(error, error_size, "cannot listen on %s: %s", address, what);
    return false;
}

static SSL_CTX *create_tls(const struct config_listen *settings, char *error, size_t error_size)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
    const char *key = settings->tls_key != NULL ? settings->tls_key : settings->tls_cert;
    if (tls_files_certificate(tls, settings->tls_cert, key, error, error_size)) {
        h2o_ssl_register_alpn_protocols(tls, h2o_alpn_protocols);
        return tls;
    }
    SSL_CTX_free(tls);
    return NULL;
}

/* ---- unix sockets ---- */

static bool open_unix(struct listener *listener, const char *path, unsigned workers, char *error, size_t error_size)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct stat st;
    if (strlen(path) >= sizeof(un.sun_path))
        return fail(error, error_size, listener->settings->address, "the path is too long");
    strcpy(un.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1)
        return fail(error, error_size, listener->settings->address, strerror(errno));
    /* A socket that nobody serves is left over from a process that died; anything else is not ours to remove. */
    if (lstat(path, &st) == 0) {
        bool stale =
            S_ISSOCK(st.st_mode) && connect(fd, (struct sockaddr *)&un, sizeof(un)) == -1 && errno == ECONNREFUSED;
        if (!stale) {
            close(fd);
            return fail(error, error_size, listener->settings->address,
                        S_ISSOCK(st.st_mode) ? "another process serves this socket; stop it or choose another path"
                                             : "a file is in the way; remove it or choose another path");
        }
        unlink(path);
    }
    if (bind(fd, (struct sockaddr *)&un, sizeof(un)) == -1 || listen(fd, BACKLOG) == -1) {
        int err = errno;
        close(fd);
        return fail(error, error_size, listener->settings->address, strerror(err));
    }
    listener->unix_path = strdup(path);
    if (lstat(path, &st) == 0) {
        listener->unix_device = st.st_dev;
        listener->unix_inode = st.st_ino;
    }
    for (unsigned i = 0; i < workers; i++)
        listener->fds[i] = i == 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    snprintf(listener->display, sizeof(listener->display), "unix:%s", path);
    return true;
}

/* ---- TCP ---- */

/* "HOST:PORT", "[V6]:PORT" or ":PORT". */
static bool resolve(const char *address, struct sockaddr_storage *sa, socklen_t *len, char *error, size_t error_size)
{
    char host[256];
    const char *colon = strrchr(address, ':');
    if (colon == NULL || (size_t)(colon - address) >= sizeof(host))
        return fail(error, error_size, address, "expected HOST:PORT or unix:PATH");
    const char *start = address;
    size_t n = (size_t)(colon - address);
    if (n >= 2 && start[0] == '[' && start[n - 1] == ']') {
        start++;
        n -= 2;
    }
    memcpy(host, start, n);
    host[n] = '\0';
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
    int rc = getaddrinfo(n != 0 ? host : "0.0.0.0", colon + 1, &hints, &found);
    if (rc != 0)
        return fail(error, error_size, address, gai_strerror(rc));
    memcpy(sa, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

static int bind_one(struct sockaddr_storage *sa, socklen_t len, bool first)
{
    int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    if (fd == -1)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (sa->ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int));
    /* The first socket is bound without SO_REUSEPORT, so that a port in use is noticed; it is set before listen() so
     * that the other workers' sockets may join. */
    if (!first)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    int rc = bind(fd, (struct sockaddr *)sa, len);
    if (rc == 0 && first)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    if (rc == 0 && first)
        rc = getsockname(fd, (struct sockaddr *)sa, &len); /* port 0 becomes a real one */
    if (rc != 0) {
        int err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    return fd;
}

static bool open_tcp(struct listener *listener, unsigned workers, char *error, size_t error_size)
{
    const char *address = listener->settings->address;
    struct sockaddr_storage sa;
    socklen_t len;
    if (!resolve(address, &sa, &len, error, error_size))
        return false;
    for (unsigned i = 0; i < workers; i++) {
        listener->fds[i] = bind_one(&sa, len, i == 0);
        if (listener->fds[i] == -1 || listen(listener->fds[i], BACKLOG) == -1)
            return fail(error, error_size, address,
                        errno == EADDRINUSE
                            ? "the port is in use; stop the other process or choose another with --listen"
                            : strerror(errno));
    }
    char host[NI_MAXHOST], port[NI_MAXSERV];
    getnameinfo((struct sockaddr *)&sa, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(listener->display, sizeof(listener->display), sa.ss_family == AF_INET6 ? "[%.80s]:%.10s" : "%.80s:%.10s",
             host, port);
    return true;
}

bool listener_open(struct listener *listener, const struct config_listen *settings, unsigned workers, char *error,
                   size_t error_size)
{
    *listener = (struct listener){.settings = settings};
    for (size_t i = 0; i < CONFIG_WORKERS_MAX; i++)
        listener->fds[i] = -1;
    if (settings->tls_cert != NULL && (listener->tls = create_tls(settings, error, error_size)) == NULL)
        return false;
    bool opened = strncmp(settings->address, "unix:", 5) == 0
                      ? open_unix(listener, settings->address + 5, workers, error, error_size)
                      : open_tcp(listener, workers, error, error_size);
    if (!opened)
        listener_close(listener);
    return opened;
}

void listener_close(struct listener *listener)
{
    for (size_t i = 0; i < CONFIG_WORKERS_MAX; i++)
        if (listener->fds[i] != -1)
            close(listener->fds[i]);
    /* Another gateway may have taken the path over while this one was draining. */
    struct stat st;
    if (listener->unix_path != NULL && lstat(listener->unix_path, &st) == 0 && st.st_dev == listener->unix_device &&
        st.st_ino == listener->unix_inode)
        unlink(listener->unix_path);
    free(listener->unix_path);
    SSL_CTX_free(listener->tls);
    *listener = (struct listener){0};
    for (size_t i = 0; i < CONFIG_WORKERS_MAX; i++)
        listener->fds[i] = -1;
}
