/* A real redis-server of a test's own, on a unix socket in a folder that goes with it. */
#ifndef WEIR_TESTS_REDIS_SERVER_H
#define WEIR_TESTS_REDIS_SERVER_H

#include <check.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct redis_server {
    pid_t pid;
    char folder[32], socket[64];
};

/* Whether there is one to start; says so if not. */
static inline bool redis_server_installed(void)
{
    if (system("command -v redis-server >/dev/null 2>&1") == 0)
        return true;
    fprintf(stderr, "SKIPPED: redis-server is not installed, what needs it was not tested\n");
    return false;
}

static inline void redis_server_start(struct redis_server *server)
{
    strcpy(server->folder, "/tmp/weir-redis-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(server->folder));
    snprintf(server->socket, sizeof(server->socket), "%s/redis.sock", server->folder);
    server->pid = fork();
    ck_assert_int_ge(server->pid, 0);
    if (server->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", server->socket, "--save", "", "--dir",
               server->folder, "--logfile", "/dev/null", (char *)NULL);
        _exit(127);
    }
}

static inline redisContext *redis_server_connect(const struct redis_server *server)
{
    for (int i = 0; i < 3000; i++) {
        redisContext *context = redisConnectUnix(server->socket);
        if (context != NULL && context->err == 0)
            return context;
        redisFree(context);
        usleep(10000);
    }
    ck_abort_msg("redis-server did not start");
    return NULL;
}

static inline void redis_server_stop(struct redis_server *server)
{
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    unlink(server->socket);
    rmdir(server->folder);
}

#endif
