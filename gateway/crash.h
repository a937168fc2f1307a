/* The last words of a process that crashes: the signal and a backtrace on stderr, where the log goes. */
#ifndef WEIR_GATEWAY_CRASH_H
#define WEIR_GATEWAY_CRASH_H

/* From now on SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT are reported before they end the process as they would have
 * anyway. Nothing happens in builds with sanitizers, which report better. */
void crash_report_on(void);

#endif
