#include "gateway/signals.h"
#include "base/log.h"
#include "gateway/handover.h"
#include "gateway/notify.h"
#include "gateway/reload.h"
#include "gateway/worker.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LOOK_US 50000 /* between looks at a process that starts */

static pthread_t thread;
static bool on_terminal; /* it was started from one */

/* SIGUSR1 is how signals_stop says that all workers have ended. */
static void fill(sigset_t *set)
{
    struct sigaction hangup;
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGUSR1);
    sigaddset(set, SIGUSR2);
    /* Under nohup it is ignored and stays so: sigwait would take it all the same. */
    if (sigaction(SIGHUP, NULL, &hangup) != 0 || hangup.sa_handler != SIG_IGN)
        sigaddset(set, SIGHUP);
}

void signals_block(void)
{
    sigset_t set;
    fill(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void end(struct server *server, const char *why)
{
    bool again = atomic_exchange(&server->draining, true);
    log_text(LOG_INFO, "%s", again ? "ending at once" : why);
    for (size_t i = 0; !again && i < server->listener_count; i++)
        listener_stop(&server->listeners[i]);
    for (size_t i = 0; i < server->worker_count; i++)
        worker_tell(server->workers[i], again ? WORKER_STOP : WORKER_DRAIN);
}

static void begin_upgrade(struct server *server, struct handover_child *child)
{
    char error[512];
    const char *why = server->supervised               ? "SIGUSR2 is for the supervisor"
                      : atomic_load(&server->draining) ? "this process is ending"
                      : child->pid != 0                ? "one is under way"
                                                       : NULL;
    if (why != NULL) {
        log_text(LOG_WARN, "no upgrade: %s", why);
        return;
    }
    if (handover_start(child, HANDOVER_RUN, server->listeners, server->listener_count, error, sizeof(error)))
        log_text(LOG_INFO, "upgrade: process %ld is starting", (long)child->pid);
    else
        log_text(LOG_ERROR, "no upgrade: %s; this process goes on", error);
}

/* Looks how far the new process is. */
static void go_on_upgrading(struct server *server, struct handover_child *child)
{
    char error[512], main_pid[32];
    long pid = (long)child->pid;
    enum handover_state state = handover_look(child, error, sizeof(error));
    if (state == HANDOVER_WAITING)
        return;
    *child = (struct handover_child){0};
    if (state == HANDOVER_FAILED) {
        log_text(LOG_ERROR, "no upgrade: %s; this process goes on", error);
        return;
    }
    log_text(LOG_INFO, "upgrade: process %ld serves", pid);
    snprintf(main_pid, sizeof(main_pid), "MAINPID=%ld", pid);
    notify_send(main_pid); /* while the manager still listens to this process */
    for (size_t i = 0; i < server->listener_count; i++)
        server->listeners[i].handed_over = true;
    if (!atomic_load(&server->draining))
        end(server, "draining: running requests may finish");
}

/* Whether this process has a terminal to end with. */
static bool has_terminal(void)
{
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (fd != -1)
        close(fd);
    return fd != -1;
}

/* SIGHUP is how people say that the configuration has changed, and how the system says that the terminal is gone. */
static void hang_up(struct server *server)
{
    char error[1024];
    if (atomic_load(&server->draining))
        return;
    if (on_terminal && !has_terminal()) {
        end(server, "draining: the terminal is gone; running requests may finish");
        return;
    }
    notify_reloading();
    reload(server, error, sizeof(error));
    notify_send("READY=1");
}

static void *run(void *arg)
{
    struct server *server = arg;
    struct handover_child child = {0};
    sigset_t set;
    fill(&set);
    for (;;) {
        int signal = notify_wait_signal(server, &set, child.pid != 0 ? LOOK_US : 0);
        if (child.pid != 0)
            go_on_upgrading(server, &child);
        switch (signal) {
        case SIGUSR1:
            if (!atomic_load(&server->ended))
                break; /* somebody else's */
            handover_cancel(&child);
            return NULL;
        case SIGHUP:
            hang_up(server);
            break;
        case SIGUSR2:
            begin_upgrade(server, &child);
            break;
        case SIGTERM:
        case SIGINT:
            handover_cancel(&child);
            notify_send("STOPPING=1");
            end(server, "draining: no new connections, running requests may finish");
            break;
        }
    }
}

void signals_start(struct server *server)
{
    on_terminal = has_terminal();
    if (pthread_create(&thread, NULL, run, server) != 0)
        abort();
}

void signals_stop(void)
{
    pthread_kill(thread, SIGUSR1);
    pthread_join(thread, NULL);
}
