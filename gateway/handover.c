#include "gateway/handover.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/strbuf.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define VARIABLE "WEIR_HANDOVER"
#define TEXT_MAX ((size_t)64 * 1024)
#define GIVE_UP_US UINT64_C(60000000)

extern char **environ;

/* ---- the process that takes over ---- */

/* The next line of the text, without its end; false after the last. */
static bool next_line(struct span *rest, struct span *line)
{
    if (rest->len == 0)
        return false;
    const char *end = memchr(rest->base, '\n', rest->len);
    *line = (struct span){rest->base, end != NULL ? (size_t)(end - rest->base) : rest->len};
    *rest = span_skip(*rest, line->len + (end != NULL));
    return true;
}

/* Takes a word off the line. */
static struct span take_word(struct span *line)
{
    const char *end = memchr(line->base, ' ', line->len);
    struct span word = {line->base, end != NULL ? (size_t)(end - line->base) : line->len};
    *line = span_skip(*line, word.len + (end != NULL));
    return word;
}

/* Takes a number and the comma behind it. -1 if there is none. */
static long take_number(struct span *list)
{
    char digits[12] = "";
    size_t n = 0;
    while (n < list->len && n < sizeof(digits) - 1 && list->base[n] >= '0' && list->base[n] <= '9')
        n++;
    memcpy(digits, list->base, n);
    bool more = n < list->len && list->base[n] == ',';
    *list = span_skip(*list, n + more);
    return n != 0 ? strtol(digits, NULL, 10) : -1;
}

/* The descriptors of a line "listen 5,6 ADDRESS", marked as this program's own; those that are no sockets are left
 * out. */
static size_t read_sockets(struct span list, int *fds, size_t max)
{
    size_t count = 0;
    while (list.len != 0) {
        long fd = take_number(&list);
        if (fd < 0)
            break;
        int listening = 0;
        socklen_t len = sizeof(listening);
        if (getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) != 0 || !listening)
            continue;
        fcntl((int)fd, F_SETFD, FD_CLOEXEC);
        if (count < max)
            fds[count++] = (int)fd;
        else
            close((int)fd);
    }
    return count;
}

void handover_receive(struct handover *handover)
{
    const char *value = getenv(VARIABLE);
    *handover = (struct handover){0};
    if (value == NULL)
        return;
    handover->_text = strdup(value);
    unsetenv(VARIABLE);
    struct span rest = span_of(handover->_text), line;
    while (next_line(&rest, &line)) {
        struct span word = take_word(&line);
        if (span_eq(word, SPAN("ready"))) {
            long fd = take_number(&line);
            if (fd > STDERR_FILENO && fcntl((int)fd, F_SETFD, FD_CLOEXEC) == 0)
                handover->_ready = (int)fd;
        } else if (span_eq(word, SPAN("old"))) {
            long pid = take_number(&line);
            handover->old = pid > 1 ? (pid_t)pid : 0;
            for (size_t i = 0; i < HANDOVER_FORMER_MAX && line.len != 0; i++)
                handover->former[i] = (pid = take_number(&line)) > 1 ? (pid_t)pid : 0;
        } else if (span_eq(word, SPAN("log"))) {
            log_set(LOG_INFO, span_eq(line, SPAN("json")) ? LOG_JSON : LOG_TEXT);
            handover->logs = true;
        } else if (span_eq(word, SPAN("role"))) {
            handover->role = span_eq(line, SPAN("serve"))   ? HANDOVER_SERVE
                             : span_eq(line, SPAN("check")) ? HANDOVER_CHECK
                                                            : HANDOVER_RUN;
        } else if (span_eq(word, SPAN("listen"))) {
            int fds[CONFIG_WORKERS_MAX];
            read_sockets(take_word(&line), fds, CONFIG_WORKERS_MAX);
        }
    }
}

size_t handover_take(struct handover *handover, const char *address, int *fds, size_t max)
{
    struct span rest = span_of(handover->_text != NULL ? handover->_text : ""), line;
    while (next_line(&rest, &line)) {
        struct span whole = line, word = take_word(&line), list = take_word(&line);
        if (!span_eq(word, SPAN("listen")) || !span_eq(line, span_of(address)))
            continue;
        /* The line is crossed out, so that nobody takes its sockets again. */
        memset((char *)(uintptr_t)whole.base, '#', 1);
        return read_sockets(list, fds, max);
    }
    return 0;
}

void handover_settle(struct handover *handover)
{
    struct span rest = span_of(handover->_text != NULL ? handover->_text : ""), line;
    while (next_line(&rest, &line)) {
        struct span word = take_word(&line);
        int fds[CONFIG_WORKERS_MAX];
        size_t count = span_eq(word, SPAN("listen")) ? read_sockets(take_word(&line), fds, CONFIG_WORKERS_MAX) : 0;
        for (size_t i = 0; i < count; i++)
            close(fds[i]);
    }
    free(handover->_text);
    handover->_text = NULL;
    /* A supervisor that is gone would leave a process that nobody knows. */
    if (handover->role == HANDOVER_SERVE)
        prctl(PR_SET_PDEATHSIG, SIGTERM);
}

void handover_ready(struct handover *handover)
{
    if (handover->_ready != 0 && write(handover->_ready, "!", 1) == -1)
        perror("weir: cannot tell the process that waits");
    if (handover->_ready != 0)
        close(handover->_ready);
    handover->_ready = 0;
}

void handover_dispose(struct handover *handover)
{
    handover_settle(handover);
    if (handover->_ready != 0)
        close(handover->_ready);
    *handover = (struct handover){0};
}

/* ---- the process that hands over ---- */

static struct {
    char **argv;
    char *path;
} program; /* written once, before any other thread exists */

void handover_remember(int argc, char **argv)
{
    static char own[4096];
    program.argv = calloc((size_t)argc + 1, sizeof(program.argv[0]));
    if (program.argv == NULL)
        abort();
    memcpy(program.argv, argv, (size_t)argc * sizeof(argv[0]));
    /* A name without a directory was found by the shell; a later look-up might find another program. */
    ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);
    program.path = argc > 0 && strchr(argv[0], '/') != NULL ? argv[0] : n > 0 ? own : NULL;
}

static void print_sockets(const struct listener *listeners, size_t count, struct strbuf *out)
{
    for (size_t i = 0; i < count; i++) {
        const struct listener *listener = &listeners[i];
        if (listener->fd_count == 0 || strchr(listener->settings->address, '\n') != NULL)
            continue;
        for (size_t n = 0; n < listener->fd_count; n++)
            strbuf_printf(out, "%s%d", n == 0 ? "listen " : ",", listener->fds[n]);
        strbuf_printf(out, " %s\n", listener->settings->address);
    }
}

/* The environment with the variable in it. `text` begins with the variable's name. To be freed; the strings are
 * others'. */
static char **make_environment(char *text)
{
    size_t count = 0, n = 0;
    while (environ[count] != NULL)
        count++;
    char **environment = calloc(count + 2, sizeof(environment[0]));
    if (environment == NULL)
        abort();
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], VARIABLE "=", sizeof(VARIABLE)) != 0)
            environment[n++] = environ[i];
    environment[n] = text;
    return environment;
}

/* The child's descriptors keep their numbers; dup2 onto itself is how posix_spawn clears FD_CLOEXEC. */
static int spawn(pid_t *pid, char *text, const struct listener *listeners, size_t count, int ready)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_adddup2(&actions, ready, ready);
    for (size_t i = 0; i < count; i++)
        for (size_t n = 0; n < listeners[i].fd_count; n++)
            posix_spawn_file_actions_adddup2(&actions, listeners[i].fds[n], listeners[i].fds[n]);
    char **environment = make_environment(text);
    int rc = posix_spawn(pid, program.path, &actions, &attributes, program.argv, environment);
    free(environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

static bool fail(char *error, size_t error_size, int err)
{
    snprintf(error, error_size, "cannot start %s: %s", program.path != NULL ? program.path : "the program",
             strerror(err));
    return false;
}

bool handover_start(struct handover_child *child, enum handover_role role, const struct listener *listeners,
                    size_t count, char *error, size_t error_size)
{
    static const char *const words[] = {[HANDOVER_RUN] = "run", [HANDOVER_SERVE] = "serve", [HANDOVER_CHECK] = "check"};
    int ends[2];
    if (program.path == NULL)
        return fail(error, error_size, ENOENT);
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fail(error, error_size, errno);
    struct strbuf text;
    strbuf_init(&text, TEXT_MAX);
    strbuf_printf(&text, VARIABLE "=ready %d\nrole %s\nlog %s\n", ends[1], words[role],
                  log_format_now() == LOG_JSON ? "json" : "text");
    print_sockets(listeners, count, &text);
    *child = (struct handover_child){._ready = ends[0], ._role = role, ._give_up_us = clock_us() + GIVE_UP_US};
    int rc = spawn(&child->pid, (char *)(uintptr_t)strbuf_cstr(&text), listeners, count, ends[1]);
    strbuf_dispose(&text);
    close(ends[1]);
    if (rc == 0)
        return true;
    close(ends[0]);
    *child = (struct handover_child){0};
    return fail(error, error_size, rc);
}

/* Whether a process's end is a good one; else says what it was. */
static bool ended_well(int status, char *error, size_t error_size)
{
    if (WIFSIGNALED(status))
        snprintf(error, error_size, "the new process was killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(error, error_size, "the new process ended with status %d", WEXITSTATUS(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

enum handover_state handover_look(struct handover_child *child, char *error, size_t error_size)
{
    char byte;
    struct pollfd pollfd = {.fd = child->_ready, .events = POLLIN};
    bool late = clock_us() > child->_give_up_us;
    if (poll(&pollfd, 1, 0) == 0 && !late)
        return HANDOVER_WAITING;
    ssize_t n = late ? 0 : read(child->_ready, &byte, 1);
    close(child->_ready);
    child->_ready = -1;
    if (n == 1)
        return HANDOVER_READY;
    int status;
    if (late)
        kill(child->pid, SIGKILL);
    while (waitpid(child->pid, &status, 0) == -1 && errno == EINTR)
        ;
    child->pid = 0;
    bool well = ended_well(status, error, error_size);
    if (late)
        snprintf(error, error_size, "the new process was not ready within a minute");
    return well && !late && child->_role == HANDOVER_CHECK ? HANDOVER_READY : HANDOVER_FAILED;
}

void handover_cancel(struct handover_child *child)
{
    if (child->pid == 0 || child->_ready == -1)
        return;
    kill(child->pid, SIGTERM);
    close(child->_ready);
    *child = (struct handover_child){0};
}

static void set_inherited(const struct listener *listeners, size_t count, bool inherited)
{
    for (size_t i = 0; i < count; i++)
        for (size_t n = 0; n < listeners[i].fd_count; n++)
            fcntl(listeners[i].fds[n], F_SETFD, inherited ? 0 : FD_CLOEXEC);
}

void handover_replace(const struct listener *listeners, size_t count, pid_t old,
                      const pid_t former[HANDOVER_FORMER_MAX], char *error, size_t error_size)
{
    struct strbuf text;
    if (program.path == NULL) {
        fail(error, error_size, ENOENT);
        return;
    }
    strbuf_init(&text, TEXT_MAX);
    strbuf_printf(&text, VARIABLE "=old %ld", (long)old);
    for (size_t i = 0; i < HANDOVER_FORMER_MAX; i++)
        if (former[i] != 0)
            strbuf_printf(&text, ",%ld", (long)former[i]);
    strbuf_puts(&text, "\n");
    print_sockets(listeners, count, &text);
    char **environment = make_environment((char *)(uintptr_t)strbuf_cstr(&text));
    set_inherited(listeners, count, true);
    execve(program.path, program.argv, environment);
    fail(error, error_size, errno);
    set_inherited(listeners, count, false);
    free(environment);
    strbuf_dispose(&text);
}
