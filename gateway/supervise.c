#include "gateway/supervise.h"
#include "base/clock.h"
#include "base/log.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#define LOOK_NS 50000000
#define BACK_OFF_MIN_US UINT64_C(100000)
#define BACK_OFF_MAX_US UINT64_C(10000000)
#define SETTLED_US UINT64_C(60000000) /* a process that has served for so long starts with a small back-off again */

struct supervisor {
    struct listener *listeners;
    size_t listener_count;
    struct handover_child starting; /* pid 0: none */
    pid_t serving;                  /* 0: none */
    uint64_t served_since_us;
    uint64_t start_at_us; /* when the next process is to be started; 0: none is to be */
    uint64_t back_off_us;
    pid_t former[HANDOVER_FORMER_MAX]; /* that drain; 0: none */
    bool ending, served_once;
    bool finished; /* nobody serves any more, as was asked for */
    bool hung_up;  /* SIGHUP came while a process was starting */
    int exit_status;
};

static void fill(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR2);
    sigaddset(set, SIGCHLD);
}

/* ---- starting ---- */

static void start_later(struct supervisor *supervisor)
{
    supervisor->start_at_us = clock_us() + supervisor->back_off_us;
    supervisor->back_off_us =
        supervisor->back_off_us * 2 < BACK_OFF_MAX_US ? supervisor->back_off_us * 2 : BACK_OFF_MAX_US;
}

static void start(struct supervisor *supervisor)
{
    char error[512];
    supervisor->start_at_us = 0;
    if (handover_start(&supervisor->starting, HANDOVER_SERVE, supervisor->listeners, supervisor->listener_count, error,
                       sizeof(error)))
        return;
    log_text(LOG_ERROR, "supervisor: %s", error);
    start_later(supervisor);
}

/* The one before, which an older program made, may finish what it has. */
static void retire(struct supervisor *supervisor)
{
    if (supervisor->serving == 0)
        return;
    kill(supervisor->serving, SIGTERM);
    for (size_t i = 0; i < HANDOVER_FORMER_MAX; i++) {
        if (supervisor->former[i] != 0)
            continue;
        supervisor->former[i] = supervisor->serving;
        return;
    }
}

/* The process that was started serves, or has failed. False if the supervisor is to end. */
static bool look(struct supervisor *supervisor)
{
    char error[512];
    pid_t pid = supervisor->starting.pid;
    enum handover_state state = handover_look(&supervisor->starting, error, sizeof(error));
    if (state == HANDOVER_WAITING)
        return true;
    supervisor->starting = (struct handover_child){0};
    if (state == HANDOVER_READY) {
        retire(supervisor);
        log_text(LOG_INFO, "supervisor: process %ld serves", (long)pid);
        supervisor->serving = pid;
        supervisor->served_since_us = clock_us();
        supervisor->served_once = true;
        if (supervisor->ending)
            kill(pid, SIGTERM);
        else if (supervisor->hung_up)
            kill(pid, SIGHUP);
        supervisor->hung_up = false;
        return true;
    }
    if (supervisor->ending) {
        supervisor->finished = supervisor->serving == 0;
        return true;
    }
    if (supervisor->serving != 0) {
        log_text(LOG_ERROR, "supervisor: no upgrade: %s; process %ld goes on", error, (long)supervisor->serving);
        return true;
    }
    log_text(LOG_ERROR, "supervisor: %s", error);
    if (!supervisor->served_once)
        return false; /* what is wrong from the beginning is for a person to mend */
    start_later(supervisor);
    return true;
}

/* ---- ends ---- */

static void log_end_of(pid_t pid, int status, const char *what)
{
    if (WIFSIGNALED(status))
        log_text(LOG_ERROR, "supervisor: process %ld was killed by signal %d (%s)%s", (long)pid, WTERMSIG(status),
                 strsignal(WTERMSIG(status)), what);
    else
        log_text(LOG_ERROR, "supervisor: process %ld ended with status %d%s", (long)pid, WEXITSTATUS(status), what);
}

/* Whether any of the former processes still drains. */
static bool reap_former(struct supervisor *supervisor)
{
    bool any = false;
    for (size_t i = 0; i < HANDOVER_FORMER_MAX; i++) {
        pid_t pid = supervisor->former[i];
        if (pid != 0 && waitpid(pid, NULL, WNOHANG) != 0)
            supervisor->former[i] = 0;
        any = any || supervisor->former[i] != 0;
    }
    return any;
}

/* Looks whether the serving process has ended. */
static void reap(struct supervisor *supervisor)
{
    int status;
    pid_t pid = supervisor->serving;
    if (pid == 0 || waitpid(pid, &status, WNOHANG) != pid)
        return;
    supervisor->serving = 0;
    bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (supervisor->starting.pid != 0)
        return;
    if (well || supervisor->ending) {
        if (!well)
            log_end_of(pid, status, "");
        supervisor->exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        supervisor->finished = true;
        return;
    }
    if (clock_us() - supervisor->served_since_us > SETTLED_US)
        supervisor->back_off_us = BACK_OFF_MIN_US;
    log_end_of(pid, status, "; starting another");
    start_later(supervisor);
}

/* ---- signals ---- */

/* Whether the program on disk can be run with its configuration. */
static bool check_program(char *error, size_t error_size)
{
    struct handover_child child;
    if (!handover_start(&child, HANDOVER_CHECK, NULL, 0, error, error_size))
        return false;
    for (;;) {
        struct timespec soon = {.tv_nsec = LOOK_NS};
        enum handover_state state = handover_look(&child, error, error_size);
        if (state != HANDOVER_WAITING)
            return state == HANDOVER_READY;
        nanosleep(&soon, NULL);
    }
}

static void upgrade(struct supervisor *supervisor)
{
    char error[512] = "one is under way";
    bool free_to = supervisor->serving != 0 && supervisor->starting.pid == 0 && !supervisor->ending;
    if (free_to && check_program(error, sizeof(error)))
        handover_replace(supervisor->listeners, supervisor->listener_count, supervisor->serving, supervisor->former,
                         error, sizeof(error));
    log_text(LOG_ERROR, "supervisor: no upgrade: %s", error);
}

static void obey(struct supervisor *supervisor, int signal)
{
    if (signal == SIGUSR2)
        upgrade(supervisor);
    else if (signal == SIGHUP && supervisor->serving != 0)
        kill(supervisor->serving, SIGHUP);
    if (signal == SIGHUP)
        supervisor->hung_up = supervisor->starting.pid != 0;
    if (signal != SIGTERM && signal != SIGINT)
        return;
    for (size_t i = 0; supervisor->ending && i < HANDOVER_FORMER_MAX; i++)
        if (supervisor->former[i] != 0)
            kill(supervisor->former[i], signal); /* the second time all is cut short */
    supervisor->ending = true;
    supervisor->start_at_us = 0;
    if (supervisor->serving != 0)
        kill(supervisor->serving, signal);
    if (supervisor->starting.pid != 0)
        kill(supervisor->starting.pid, signal);
    for (size_t i = 0; i < supervisor->listener_count; i++)
        listener_stop(&supervisor->listeners[i]);
}

static int supervise(struct supervisor *supervisor)
{
    sigset_t set;
    fill(&set);
    for (;;) {
        struct timespec soon = {.tv_nsec = LOOK_NS};
        bool busy = supervisor->starting.pid != 0 || supervisor->start_at_us != 0;
        int signal = busy ? sigtimedwait(&set, NULL, &soon) : sigwaitinfo(&set, NULL);
        if (signal > 0)
            obey(supervisor, signal);
        if (supervisor->starting.pid != 0 && !look(supervisor))
            return 1;
        reap(supervisor);
        bool draining = reap_former(supervisor);
        if (supervisor->start_at_us != 0 && clock_us() >= supervisor->start_at_us)
            start(supervisor);
        if (supervisor->ending && supervisor->serving == 0 && supervisor->starting.pid == 0)
            supervisor->finished = true;
        if (supervisor->finished && !draining)
            return supervisor->exit_status;
    }
}

static void close_all(struct supervisor *supervisor)
{
    for (size_t i = 0; i < supervisor->listener_count; i++)
        listener_close(&supervisor->listeners[i]);
    free(supervisor->listeners);
}

static void block_signals(void)
{
    sigset_t set;
    fill(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

int supervise_run(struct config *config, struct handover *handover)
{
    struct supervisor supervisor = {.serving = handover->old, .back_off_us = BACK_OFF_MIN_US};
    int status = 1;
    memcpy(supervisor.former, handover->former, sizeof(supervisor.former));
    block_signals();
    log_set(config->log_level, config->log_format);
    char error[512];
    if (!listener_open_all(&supervisor.listeners, &supervisor.listener_count, config, handover, error, sizeof(error))) {
        close_all(&supervisor);
        if (supervisor.serving != 0)
            status = supervise_old(handover, error);
        else
            fprintf(stderr, "weir: %s\n", error);
        config_release(config);
        return status;
    }
    handover_settle(handover);
    start(&supervisor);
    status = supervise(&supervisor);
    close_all(&supervisor);
    config_release(config);
    return status;
}

int supervise_old(struct handover *handover, const char *problem)
{
    struct supervisor supervisor = {
        .serving = handover->old, .back_off_us = BACK_OFF_MIN_US, .served_since_us = clock_us(), .served_once = true};
    memcpy(supervisor.former, handover->former, sizeof(supervisor.former));
    block_signals();
    handover_settle(handover);
    log_text(LOG_ERROR, "supervisor: no upgrade: %s; process %ld goes on", problem, (long)handover->old);
    return supervise(&supervisor);
}
