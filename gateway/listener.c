#include "gateway/listener.h"
#include "gateway/handover.h"
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
/* Accepted sockets inherit it. What one read brings is worked on in one go, before others have their turn. */
#define RECEIVE_BUFFER 65536

static bool fail(char *error, size_t error_size, const char *address, const char *what)
{
    snprintf(error, error_size, "cannot listen on %s: %s", address, what);
    return false;
}

/* ---- unix sockets ---- */

/* Remembers the file, to remove no other. */
static void note_unix_file(struct listener *listener, const char *path)
{
    struct stat st;
    listener->unix_path = strdup(path);
    if (lstat(path, &st) == 0) {
        listener->unix_device = st.st_dev;
        listener->unix_inode = st.st_ino;
    }
    snprintf(listener->display, sizeof(listener->display), "unix:%s", path);
}

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
    note_unix_file(listener, path);
    listener->fds[0] = fd;
    listener->fd_count = 1;
    for (unsigned i = 1; i < workers; i++)
        listener->fds[listener->fd_count++] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
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
    /* With sockets that were handed over, those for more workers join them. */
    if (listener->fd_count != 0)
        getsockname(listener->fds[0], (struct sockaddr *)&sa, &len);
    while (listener->fd_count < workers) {
        int fd = bind_one(&sa, len, listener->fd_count == 0);
        if (fd != -1)
            listener->fds[listener->fd_count++] = fd;
        if (fd == -1 || listen(fd, BACKLOG) == -1)
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

bool listener_open(struct listener *listener, const struct config_listen *settings, unsigned workers,
                   struct handover *handover, char *error, size_t error_size)
{
    *listener = (struct listener){.settings = settings};
    const char *unix_path = strncmp(settings->address, "unix:", 5) == 0 ? settings->address + 5 : NULL;
    listener->fds = h2o_mem_alloc(CONFIG_WORKERS_MAX * sizeof(listener->fds[0]));
    listener->fd_count = handover_take(handover, settings->address, listener->fds, CONFIG_WORKERS_MAX);
    bool opened = true;
    if (unix_path == NULL)
        opened = open_tcp(listener, workers, error, error_size);
    else if (listener->fd_count != 0)
        note_unix_file(listener, unix_path);
    else
        opened = open_unix(listener, unix_path, workers, error, error_size);
    for (size_t i = 0; i < listener->fd_count; i++)
        setsockopt(listener->fds[i], SOL_SOCKET, SO_RCVBUF, &(int){RECEIVE_BUFFER}, sizeof(int));
    if (!opened)
        listener_close(listener);
    return opened;
}

bool listener_open_all(struct listener **listeners, size_t *count, const struct config *config,
                       struct handover *handover, char *error, size_t error_size)
{
    size_t wanted = config->listen_count + (config->admin.listen.address != NULL);
    *listeners = h2o_mem_alloc(wanted * sizeof(**listeners));
    for (*count = 0; *count < wanted; ++*count) {
        const struct config_listen *settings =
            *count < config->listen_count ? &config->listen[*count] : &config->admin.listen;
        if (!listener_open(&(*listeners)[*count], settings, config->workers, handover, error, error_size))
            return false;
    }
    return true;
}

size_t listener_share(const struct listener *listener, unsigned worker, unsigned workers, int *fds, size_t max)
{
    size_t count = 0;
    for (size_t i = worker; i < listener->fd_count && count < max; i += workers)
        fds[count++] = fcntl(listener->fds[i], F_DUPFD_CLOEXEC, 0);
    /* A unix socket that was handed over to more workers than there were. */
    if (count == 0 && listener->fd_count != 0)
        fds[count++] = fcntl(listener->fds[worker % listener->fd_count], F_DUPFD_CLOEXEC, 0);
    return count;
}

void listener_stop(struct listener *listener)
{
    for (size_t i = 0; i < listener->fd_count; i++)
        close(listener->fds[i]);
    listener->fd_count = 0;
}

void listener_close(struct listener *listener)
{
    listener_stop(listener);
    free(listener->fds);
    /* Another gateway may have taken the path over while this one was draining. */
    struct stat st;
    if (listener->unix_path != NULL && !listener->handed_over && lstat(listener->unix_path, &st) == 0 &&
        st.st_dev == listener->unix_device && st.st_ino == listener->unix_inode)
        unlink(listener->unix_path);
    free(listener->unix_path);
    *listener = (struct listener){0};
}
