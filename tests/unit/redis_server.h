/* For unit tests: a real redis-server on a unix socket of its own, and a loop to run a link on. One of each for each
 * test (Check gives every test a process of its own). */
#ifndef WEIR_TESTS_REDIS_SERVER_H
#define WEIR_TESTS_REDIS_SERVER_H

#include "base/clock.h"
#include "base/deadline.h"
#include <fcntl.h>
#include <h2o.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct redis_server {
    char dir[64], path[80];
    pid_t pid; /* 0: not running */
};

static inline void redis_server_prepare(struct redis_server *server)
{
    *server = (struct redis_server){.dir = "/tmp/weir-redis-XXXXXX"};
    if (mkdtemp(server->dir) == NULL)
        abort();
    snprintf(server->path, sizeof(server->path), "%s/s", server->dir);
}

/* A socket that is connected to it, to wait for it and to speak to it past the link; -1 if nobody listens. */
static inline int redis_server_connect(const struct redis_server *server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(address.sun_path, server->path, sizeof(server->path));
    if (fd != -1 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Starts it with more arguments (NULL at the end) and waits until it listens. */
static inline void redis_server_start(struct redis_server *server, const char *const *more)
{
    const char *argv[32] = {"redis-server", "--port", "0", "--unixsocket", server->path, "--dir",
                            server->dir,    "--save", "",  "--appendonly", "no",         "--loglevel",
                            "warning"};
    size_t count = 13;
    while (more != NULL && *more != NULL && count < 31)
        argv[count++] = *more++;
    server->pid = fork();
    if (server->pid == 0) {
        int null = open("/dev/null", O_RDWR);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(null, 1);
        dup2(null, 2);
        execvp("redis-server", (char **)argv);
        _exit(127);
    }
    for (int i = 0; i < 1000; i++) {
        int fd = redis_server_connect(server);
        if (fd != -1) {
            close(fd);
            return;
        }
        usleep(10000);
    }
    abort(); /* is redis-server installed? */
}

/* Sends a line ("CLIENT KILL TYPE normal") and waits for the beginning of the reply. */
static inline void redis_server_tell(const struct redis_server *server, const char *line)
{
    char reply[4096], command[512];
    int fd = redis_server_connect(server);
    int len = snprintf(command, sizeof(command), "%s\r\n", line);
    if (fd == -1 || write(fd, command, (size_t)len) != len || read(fd, reply, sizeof(reply)) <= 0)
        abort();
    close(fd);
}

static inline void redis_server_kill(struct redis_server *server)
{
    if (server->pid == 0)
        return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
}

static inline void redis_server_dispose(struct redis_server *server)
{
    redis_server_kill(server);
    unlink(server->path);
    rmdir(server->dir);
}

/* What a link needs around it. */
struct redis_loop {
    h2o_globalconf_t config;
    h2o_context_t ctx;
    struct deadlines deadlines;
};

static inline void redis_loop_init(struct redis_loop *loop)
{
    signal(SIGPIPE, SIG_IGN);
    h2o_config_init(&loop->config);
    h2o_config_register_host(&loop->config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    h2o_context_init(&loop->ctx, h2o_evloop_create(), &loop->config);
    deadlines_init(&loop->deadlines);
}

/* Runs it until *done, or for so long and a turn after that: on a busy machine, too, what is due then is done. Returns
 * *done. */
static inline bool redis_loop_run(struct redis_loop *loop, const bool *done, unsigned ms)
{
    static const bool never = false;
    uint64_t end = clock_us() + (uint64_t)ms * 1000;
    if (done == NULL)
        done = &never;
    for (bool last = false; !*done && !last;) {
        last = clock_us() >= end;
        h2o_evloop_run(loop->ctx.loop, last ? 0 : deadlines_wait_ms(&loop->deadlines, clock_us(), 10));
        deadlines_run(&loop->deadlines, clock_us());
    }
    return *done;
}

static inline void redis_loop_dispose(struct redis_loop *loop)
{
    h2o_multithread_queue_t *queue = loop->ctx.queue;
    h2o_context_dispose(&loop->ctx);
    free(queue);
    h2o_evloop_run(loop->ctx.loop, 0);
    h2o_evloop_destroy(loop->ctx.loop);
    h2o_config_dispose(&loop->config);
    deadlines_dispose(&loop->deadlines);
}

#endif
