#include "gateway/crash.h"
#include <execinfo.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define FRAMES_MAX 64

#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS_FEATURE(address_sanitizer) ||                 \
    HAS_FEATURE(thread_sanitizer)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

static void say(const char *text)
{
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n;
}

/* Only what is safe in a signal's handler (signal-safety(7)), but for the backtrace, which is worth the try. */
static void on_signal(int signal)
{
    void *frames[FRAMES_MAX];
    say("weir " WEIR_VERSION " crashed: SIG");
    const char *name = sigabbrev_np(signal);
    say(name != NULL ? name : "?");
    say("; the calls that led there:\n");
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), STDERR_FILENO);
    raise(signal); /* which is the default's now */
}

void crash_hide_memory(void)
{
    if (!SANITIZED)
        prctl(PR_SET_DUMPABLE, 0);
}

void crash_report_on(void)
{
    static char stack[64 * 1024];
    if (SANITIZED)
        return;
    void *frame;
    backtrace(&frame, 1); /* loads what it needs now */
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof(stack)}, NULL);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_NODEFER | SA_ONSTACK};
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
}
