/* The last words of a process that crashes: the signal and a backtrace on stderr, where the log goes. */
#ifndef WEIR_GATEWAY_CRASH_H
#define WEIR_GATEWAY_CRASH_H

/* From now on SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT are reported before they end the process as they would have
 * anyway. Nothing happens in builds with sanitizers, which report better. */
void crash_report_on(void);

/* Keeps the memory of this process, which holds keys and prompts, from core dumps and from other processes of the same
 * user (prctl(2), PR_SET_DUMPABLE). Root still sees it. Does nothing under sanitizers, which look at themselves. */
void crash_hide_memory(void);

#endif
