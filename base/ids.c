#include "base/ids.h"
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>

/* A request takes some forty bytes: one system call serves about a hundred of them. */
#define BATCH 4096

static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_uint generation; /* forks that led to this process: a child must not repeat its parent's batch */

static _Thread_local struct {
    unsigned char bytes[BATCH];
    size_t left; /* at the end of `bytes` */
    unsigned generation;
} batch;

static void forked(void)
{
    atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
}

static void watch_forks(void)
{
    if (pthread_atfork(NULL, NULL, forked) != 0)
        abort();
}

static void from_kernel(unsigned char *out, size_t len)
{
    while (len != 0) {
        ssize_t got = getrandom(out, len, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            abort();
        out += got;
        len -= (size_t)got;
    }
}

void ids_random(void *out, size_t len)
{
    if (len == 0)
        return;
    if (len > BATCH / 2) {
        from_kernel(out, len);
        return;
    }
    pthread_once(&once, watch_forks);
    unsigned now = atomic_load_explicit(&generation, memory_order_relaxed);
    if (batch.left < len || batch.generation != now) {
        from_kernel(batch.bytes, BATCH);
        batch.left = BATCH;
        batch.generation = now;
    }
    unsigned char *from = batch.bytes + BATCH - batch.left;
    memcpy(out, from, len);
    explicit_bzero(from, len); /* what was given out can not be read back from memory */
    batch.left -= len;
}

/* 8 hexadecimal digits of 4 bytes, one in each byte of a word. */
static void put_hex8(char *out, const unsigned char *bytes)
{
    const uint64_t ones = 0x0101010101010101;
    uint32_t from;
    memcpy(&from, bytes, sizeof(from));
    uint64_t word = le32toh(from);
    word = (word | word << 16) & 0x0000FFFF0000FFFF;
    word = (word | word << 8) & 0x00FF00FF00FF00FF;
    word = (word >> 4 | word << 8) & (ones * 15);
    uint64_t letters = (word + ones * 6) >> 4 & ones; /* 1 where the digit is over 9 */
    word = htole64(word + ones * '0' + letters * ('a' - '0' - 10));
    memcpy(out, &word, sizeof(word));
}

void ids_hex(char *out, size_t digits)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char bytes[32];
    while (digits != 0) {
        size_t part = digits < 2 * sizeof(bytes) ? digits : 2 * sizeof(bytes);
        ids_random(bytes, (part + 1) / 2);
        size_t i = 0;
        for (; i + 4 <= part / 2; i += 4, out += 8)
            put_hex8(out, bytes + i);
        for (; i < part / 2; i++) {
            *out++ = hex[bytes[i] >> 4];
            *out++ = hex[bytes[i] & 15];
        }
        if (part % 2 != 0)
            *out++ = hex[bytes[part / 2] >> 4];
        digits -= part;
    }
}

void ids_request(char out[REQUEST_ID_LEN + 1])
{
    memcpy(out, "req_", 4);
    ids_hex(out + 4, REQUEST_ID_LEN - 4);
    out[REQUEST_ID_LEN] = '\0';
}

bool ids_request_is_sane(struct span id)
{
    if (id.len < 1 || id.len > 128)
        return false;
    for (size_t i = 0; i < id.len; i++) {
        char c = id.base[i];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!letter && !(c >= '0' && c <= '9') && (c == '\0' || strchr("-_.:/+=@", c) == NULL))
            return false;
    }
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Whether `len` lower-case hexadecimal digits stand at `at`; *zero tells whether all of them are 0. */
static bool hex_field(const char *at, size_t len, bool *zero)
{
    *zero = true;
    for (size_t i = 0; i < len; i++) {
        int digit = hex_digit(at[i]);
        if (digit < 0)
            return false;
        if (digit != 0)
            *zero = false;
    }
    return true;
}

/* version "-" trace-id "-" parent-id "-" trace-flags, at these offsets */
enum {
    TRACE_AT = 3,
    PARENT_AT = TRACE_AT + TRACE_ID_LEN + 1,
    FLAGS_AT = PARENT_AT + SPAN_ID_LEN + 1,
    END = FLAGS_AT + 2
};

bool ids_traceparent_parse(struct span header, char trace_id[TRACE_ID_LEN + 1], uint8_t *flags)
{
    const char *at = header.base;
    bool version_zero, trace_zero, parent_zero, flags_zero;
    if (header.len < END || at[TRACE_AT - 1] != '-' || at[PARENT_AT - 1] != '-' || at[FLAGS_AT - 1] != '-')
        return false;
    if (!hex_field(at, 2, &version_zero) || memcmp(at, "ff", 2) == 0)
        return false;
    /* §3.2.2.1 and §4.3: only a later version may carry more, set off by a dash. */
    if (header.len > END && (version_zero || at[END] != '-'))
        return false;
    if (!hex_field(at + TRACE_AT, TRACE_ID_LEN, &trace_zero) || trace_zero ||
        !hex_field(at + PARENT_AT, SPAN_ID_LEN, &parent_zero) || parent_zero ||
        !hex_field(at + FLAGS_AT, 2, &flags_zero))
        return false;
    memcpy(trace_id, at + TRACE_AT, TRACE_ID_LEN);
    trace_id[TRACE_ID_LEN] = '\0';
    *flags = (uint8_t)(hex_digit(at[FLAGS_AT + 1]) & 3);
    return true;
}
