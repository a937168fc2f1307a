/* The log's other half: a ring of bytes that any thread fills with whole lines and one thread empties into a file
 * descriptor. Used by log.c alone. */
#ifndef WEIR_BASE_LOG_WRITER_H
#define WEIR_BASE_LOG_WRITER_H

#include "base/log.h"

/* Starts the thread; must not run already. */
void log_writer_start(int fd);

/* Ends the thread, after at most `flush_ms` milliseconds; nothing happens if there is none. */
void log_writer_stop(int flush_ms);

/* Queues one line with its newline, at most LOG_LINE_MAX bytes, or writes it to stderr if no thread runs. Any thread.
 */
void log_writer_put(struct span line);

/* Lines dropped since the program began. Any thread. */
uint64_t log_writer_dropped(void);

/* Made by log.c: the line that tells of `count` dropped lines, in `line`'s memory; empty if warnings are not written.
 */
struct span log_make_dropped(struct log_line *line, uint64_t count);

#endif
