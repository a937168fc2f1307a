#include "base/log.h"
#include "base/clock.h"
#include "base/log_writer.h"
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

/* What log_end needs to finish a line: a brace and a newline. */
#define LINE_END 2

static atomic_int min_level = LOG_INFO;
static atomic_int line_format = LOG_TEXT;

static const struct level_name {
    struct span json, text;
} level_names[] = {
    [LOG_DEBUG] = {SPAN("debug"), SPAN("DEBUG")},
    [LOG_INFO] = {SPAN("info"), SPAN("INFO ")},
    [LOG_WARN] = {SPAN("warn"), SPAN("WARN ")},
    [LOG_ERROR] = {SPAN("error"), SPAN("ERROR")},
};

void log_set(enum log_level level, enum log_format format)
{
    atomic_store_explicit(&min_level, (int)level, memory_order_relaxed);
    atomic_store_explicit(&line_format, (int)format, memory_order_relaxed);
}

void log_start(enum log_level level, enum log_format format, int fd)
{
    log_stop(1000);
    log_set(level, format);
    log_writer_start(fd);
}

void log_stop(int flush_ms)
{
    log_writer_stop(flush_ms);
}

uint64_t log_dropped(void)
{
    return log_writer_dropped();
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&min_level, memory_order_relaxed);
}

enum log_format log_format_now(void)
{
    return (enum log_format)atomic_load_explicit(&line_format, memory_order_relaxed);
}

static bool is_json(void)
{
    return log_format_now() == LOG_JSON;
}

static void put_digits(char *at, int count, unsigned value)
{
    for (; count > 0; count--, value /= 10)
        at[count - 1] = (char)('0' + value % 10);
}

/* RFC 3339 with milliseconds; the text is the thread's own and good until its next call. */
#define TIME_LEN 24
#define TIME_OF_DAY_AT 11
static const char *time_text(void)
{
    static _Thread_local struct {
        uint64_t second;
        char text[TIME_LEN + 1];
    } cache;
    uint64_t now_us = clock_wall_us();
    time_t second = (time_t)(now_us / 1000000);
    if (cache.second != (uint64_t)second) {
        struct tm tm;
        memcpy(cache.text, "0000-00-00T00:00:00.000Z", TIME_LEN + 1);
        gmtime_r(&second, &tm);
        put_digits(cache.text, 4, (unsigned)tm.tm_year + 1900);
        put_digits(cache.text + 5, 2, (unsigned)tm.tm_mon + 1);
        put_digits(cache.text + 8, 2, (unsigned)tm.tm_mday);
        put_digits(cache.text + 11, 2, (unsigned)tm.tm_hour);
        put_digits(cache.text + 14, 2, (unsigned)tm.tm_min);
        put_digits(cache.text + 17, 2, (unsigned)tm.tm_sec);
        cache.second = (uint64_t)second;
    }
    put_digits(cache.text + 20, 3, (unsigned)(now_us / 1000 % 1000));
    return cache.text;
}

/* Unquoted, for people: only what would upset a terminal is escaped. */
static void add_text_message(struct strbuf *buf, struct span text)
{
    while (text.len != 0 && !buf->overflow) {
        size_t len = strbuf_utf8_len(text);
        unsigned char c = (unsigned char)text.base[0];
        bool control = c < 0x20 || c == 0x7F || (c == 0xC2 && len == 2 && (unsigned char)text.base[1] < 0xA0);
        if (c == '\n')
            strbuf_puts(buf, "\\n");
        else if (control)
            strbuf_printf(buf, "\\u%04x", len == 2 ? (unsigned char)text.base[1] : c);
        else if (len == 0)
            strbuf_puts(buf, "\xEF\xBF\xBD");
        else
            strbuf_add(buf, (struct span){text.base, len});
        text = span_skip(text, len != 0 ? len : 1);
    }
}

/* A value goes bare if no reader could take it for something else. */
static bool needs_quotes(struct span value)
{
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.base[i];
        if (c <= ' ' || c >= 0x7F || c == '"' || c == '\\' || c == '=')
            return true;
    }
    return false;
}

/* Appends the message, escaped; one that is too long is halved, at a character, until it fits. */
static void add_message(struct strbuf *buf, struct span message, bool json)
{
    size_t mark = buf->len;
    for (;;) {
        if (json)
            strbuf_json(buf, message);
        else
            add_text_message(buf, message);
        if (!buf->overflow || message.len == 0)
            return;
        buf->len = mark;
        buf->overflow = false;
        message.len = message.len > LOG_LINE_MAX ? LOG_LINE_MAX / 2 : message.len / 2;
        while (message.len != 0 && ((unsigned char)message.base[message.len] & 0xC0) == 0x80)
            message.len--;
    }
}

static void begin(struct log_line *line, enum log_level level, struct span message)
{
    line->_skip = !log_enabled(level);
    if (line->_skip)
        return;
    struct strbuf *buf = &line->_buf;
    strbuf_init_fixed(buf, line->_memory, LOG_LINE_MAX - LINE_END + 1);
    line->_json = is_json();
    const char *time = time_text();
    if (line->_json) {
        strbuf_add(buf, SPAN("{\"time\":\""));
        strbuf_add(buf, (struct span){time, TIME_LEN});
        strbuf_add(buf, SPAN("\",\"level\":\""));
        strbuf_add(buf, level_names[level].json);
        strbuf_add(buf, SPAN("\",\"msg\":"));
    } else {
        strbuf_add(buf, (struct span){time + TIME_OF_DAY_AT, TIME_LEN - TIME_OF_DAY_AT - 1});
        strbuf_putc(buf, ' ');
        strbuf_add(buf, level_names[level].text);
        strbuf_putc(buf, ' ');
    }
    add_message(buf, message, line->_json);
}

void log_begin(struct log_line *line, enum log_level level, const char *message)
{
    begin(line, level, span_of(message));
}

/* Keys are short, mostly of 4 to 16 bytes: some are copied twice, which takes less than finding out how to copy. */
static inline void copy_key(char *to, struct span key)
{
    uint64_t eight[2];
    uint32_t four[2];
    if (key.len >= 8 && key.len <= 16) {
        memcpy(&eight[0], key.base, 8);
        memcpy(&eight[1], key.base + key.len - 8, 8);
        memcpy(to, &eight[0], 8);
        memcpy(to + key.len - 8, &eight[1], 8);
    } else if (key.len >= 4 && key.len < 8) {
        memcpy(&four[0], key.base, 4);
        memcpy(&four[1], key.base + key.len - 4, 4);
        memcpy(to, &four[0], 4);
        memcpy(to + key.len - 4, &four[1], 4);
    } else {
        memcpy(to, key.base, key.len);
    }
}

/* Starts a field; the line's length before it goes to *mark. False if no field is to be written. Once a field did not
 * fit, `overflow` stays set and ends the line. */
static inline __attribute__((always_inline)) bool field_begin(struct log_line *line, struct span key, size_t *mark)
{
    if (line->_skip || line->_buf.overflow)
        return false;
    struct strbuf *buf = &line->_buf;
    *mark = buf->len;
    if (LOG_LINE_MAX - LINE_END - buf->len < key.len + 4) { /* hardly any value would fit, either */
        buf->overflow = true;
        return false;
    }
    char *at = buf->base + buf->len;
    if (line->_json) {
        memcpy(at, ",\"", 2);
        copy_key(at + 2, key);
        memcpy(at + 2 + key.len, "\":", 2);
        buf->len += key.len + 4;
    } else {
        *at = ' ';
        copy_key(at + 1, key);
        at[1 + key.len] = '=';
        buf->len += key.len + 2;
    }
    return true;
}

static inline void field_end(struct log_line *line, size_t mark)
{
    if (line->_buf.overflow)
        line->_buf.len = mark;
}

void log_str_field(struct log_line *line, struct span key, struct span value)
{
    size_t mark;
    if (!field_begin(line, key, &mark))
        return;
    if (line->_json || needs_quotes(value))
        strbuf_json(&line->_buf, value);
    else
        strbuf_add(&line->_buf, value);
    field_end(line, mark);
}

void log_int_field(struct log_line *line, struct span key, int64_t value)
{
    size_t mark;
    if (!field_begin(line, key, &mark))
        return;
    strbuf_i64(&line->_buf, value);
    field_end(line, mark);
}

void log_ms_field(struct log_line *line, struct span key, uint64_t microseconds)
{
    size_t mark;
    if (!field_begin(line, key, &mark))
        return;
    strbuf_u64(&line->_buf, microseconds / 1000);
    char fraction[4] = ".";
    put_digits(fraction + 1, 3, (unsigned)(microseconds % 1000));
    strbuf_add(&line->_buf, (struct span){fraction, 4});
    field_end(line, mark);
}

void log_bool(struct log_line *line, const char *key, bool value)
{
    size_t mark;
    if (!field_begin(line, span_of(key), &mark))
        return;
    strbuf_add(&line->_buf, value ? SPAN("true") : SPAN("false"));
    field_end(line, mark);
}

/* Closes the line; its bytes lie in its memory. */
static struct span finish(struct log_line *line)
{
    size_t len = line->_buf.len;
    if (line->_json)
        line->_memory[len++] = '}';
    line->_memory[len++] = '\n';
    return (struct span){line->_memory, len};
}

void log_end(struct log_line *line)
{
    if (!line->_skip)
        log_writer_put(finish(line));
}

struct span log_make_dropped(struct log_line *line, uint64_t count)
{
    log_begin(line, LOG_WARN, "log lines dropped");
    if (line->_skip)
        return SPAN_NONE;
    log_int(line, "count", (int64_t)count);
    return finish(line);
}

void log_text(enum log_level level, const char *format, ...)
{
    if (!log_enabled(level))
        return;
    char text[LOG_LINE_MAX];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    struct log_line line;
    if (length < 0)
        return;
    begin(&line, level, span_of(text));
    log_end(&line);
}

bool log_level_parse(struct span text, enum log_level *level)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++)
        if (span_eq(text, level_names[i].json)) {
            *level = (enum log_level)i;
            return true;
        }
    return false;
}
