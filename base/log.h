/* The log: one line per thing that happened, as JSON or as text for a terminal. Any thread may log. Lines go through a
 * bounded ring to a writer thread, so that a blocked pipe costs lines (counted, and told by a line once it moves
 * again), never time. Before log_start and after log_stop lines are written at once, to stderr, or dropped if it is
 * blocked. Do not include <syslog.h> next to this: its macros have the same names. */
#ifndef WEIR_BASE_LOG_H
#define WEIR_BASE_LOG_H

#include "base/span.h"
#include "base/strbuf.h"
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JSON };

#define LOG_LINE_MAX 4096          /* with its newline; PIPE_BUF, so that lines of several processes do not mix */
#define LOG_RING_MAX (1024 * 1024) /* bytes that wait for the writer */

/* A line being made, on its maker's stack. */
struct log_line {
    struct strbuf _buf;
    bool _skip, _json;
    char _memory[LOG_LINE_MAX];
};

/* Starts the writer thread on file descriptor `fd` (not closed by the log), blocking or not. Level and format stay as
 * they are after log_stop. Not at the same time as another log_start or log_stop; if the log runs, it is stopped first.
 */
void log_start(enum log_level level, enum log_format format, int fd);

/* Changes level and format; any thread. */
void log_set(enum log_level level, enum log_format format);

/* The format as it is. */
enum log_format log_format_now(void);

/* Writes what is waiting (for at most `flush_ms` milliseconds) and ends the thread. What is left is dropped and
 * counted. */
void log_stop(int flush_ms);

/* Whether lines of this level are written; lets a caller skip the work of making one. */
bool log_enabled(enum log_level level);

/* Lines dropped so far because the reader of the log did not keep up. */
uint64_t log_dropped(void);

/* Begins a line: time (UTC, milliseconds), level and message. Fields follow, then log_end. Values are escaped, keys are
 * the program's own and not. A line that would exceed LOG_LINE_MAX is cut at a field: the first that does not fit and
 * all after it are left out; a message too long for a line of its own is shortened. */
void log_begin(struct log_line *line, enum log_level level, const char *message);
void log_end(struct log_line *line);

/* The fields. Each is begun here, where the length of its key is known to the compiler. */
void log_str_field(struct log_line *line, struct span key, struct span value);
void log_int_field(struct log_line *line, struct span key, int64_t value);
void log_ms_field(struct log_line *line, struct span key, uint64_t microseconds);

/* An empty value writes no field. */
static inline void log_str(struct log_line *line, const char *key, struct span value)
{
    if (value.len != 0)
        log_str_field(line, span_of(key), value);
}

static inline void log_int(struct log_line *line, const char *key, int64_t value)
{
    log_int_field(line, span_of(key), value);
}

/* Written as milliseconds with 3 decimals. */
static inline void log_ms(struct log_line *line, const char *key, uint64_t microseconds)
{
    log_ms_field(line, span_of(key), microseconds);
}

/* Written as true or false. */
void log_bool(struct log_line *line, const char *key, bool value);

/* A line of just a message. */
void log_text(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "debug" | "info" | "warn" | "error" into *level; false for anything else. */
bool log_level_parse(struct span text, enum log_level *level);

#endif
