#include "gateway/config_values.h"
#include "base/units.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SHOWN_MAX 80
#define NAME_MAX_LEN 64
#define KEY_MIN_LEN 8
#define KEY_MAX_LEN 512
#define HOST_MAX_LEN 253

bool config_fail(struct config_report *report, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(report->text, report->size, format, args);
    va_end(args);
    for (char *c = report->text; report->size != 0 && *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == '\x7f')
            *c = '?';
    }
    return false;
}

static bool unexpected(const struct config_value *value, const char *expected)
{
    if (value->text.len == 0)
        return config_fail(value->report, "%s is empty, expected %s", value->subject, expected);
    return config_fail(value->report, "%s is \"%.*s\", expected %s", value->subject,
                       (int)(value->shown.len < SHOWN_MAX ? value->shown.len : SHOWN_MAX), value->shown.base, expected);
}

bool config_parse_duration(struct span text, uint64_t *us)
{
    return units_duration(text, us);
}

bool config_parse_size(struct span text, uint64_t *bytes)
{
    return units_size(text, bytes);
}

bool config_value_duration(const struct config_value *value, uint64_t min_us, uint64_t *us)
{
    uint64_t parsed;

    if (!units_duration(value->text, &parsed))
        return unexpected(value, UNITS_DURATION_EXPECTED);
    if (parsed < min_us)
        return unexpected(value, "a duration longer than 0");
    *us = parsed;
    return true;
}

bool config_value_size(const struct config_value *value, uint64_t min, uint64_t max, uint64_t *bytes)
{
    uint64_t parsed;
    char expected[96], least[UNITS_TEXT_MAX], most[UNITS_TEXT_MAX];

    if (!units_size(value->text, &parsed))
        return unexpected(value, UNITS_SIZE_EXPECTED);
    if (parsed < min || parsed > max) {
        snprintf(expected, sizeof(expected), "a size from %s to %s", units_print_size(min, least),
                 units_print_size(max, most));
        return unexpected(value, expected);
    }
    *bytes = parsed;
    return true;
}

bool config_value_bool(const struct config_value *value, bool *truth)
{
    static const struct {
        struct span text;
        bool truth;
    } words[] = {
        {SPAN("true"), true},   {SPAN("yes"), true}, {SPAN("on"), true},   {SPAN("1"), true},
        {SPAN("false"), false}, {SPAN("no"), false}, {SPAN("off"), false}, {SPAN("0"), false},
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (span_ieq(value->text, words[i].text)) {
            *truth = words[i].truth;
            return true;
        }
    }
    return unexpected(value, "true or false");
}

bool config_value_number(const struct config_value *value, uint64_t min, uint64_t max, uint64_t *number)
{
    uint64_t parsed;
    char expected[96];

    if (!units_number(value->text, max, &parsed) || parsed < min) {
        snprintf(expected, sizeof(expected), "a number from %llu to %llu", (unsigned long long)min,
                 (unsigned long long)max);
        return unexpected(value, expected);
    }
    *number = parsed;
    return true;
}

bool config_value_workers(const struct config_value *value, unsigned *workers)
{
    uint64_t number = 0;

    if (!config_value_number(value, 1, CONFIG_WORKERS_MAX, &number))
        return false;
    *workers = (unsigned)number;
    return true;
}

bool config_value_log_level(const struct config_value *value, enum log_level *level)
{
    if (!log_level_parse(value->text, level))
        return unexpected(value, "debug, info, warn or error");
    return true;
}

bool config_value_log_format(const struct config_value *value, enum log_format *format)
{
    if (span_eq(value->text, SPAN("json")))
        *format = LOG_JSON;
    else if (span_eq(value->text, SPAN("text")))
        *format = LOG_TEXT;
    else
        return unexpected(value, "json or text");
    return true;
}

bool config_value_limits(const struct config_value *value, struct limit *limits, size_t *count)
{
    struct limit_error error;

    if (limit_parse(value->text, limits, LIMIT_LIST_MAX, count, &error))
        return true;
    /* limit_parse quotes the text, which here holds an expanded variable. */
    if (!span_eq(value->text, value->shown))
        return unexpected(value, "limits such as 60/minute;1000/hour");
    return config_fail(value->report, "%s: %s", value->subject, error.message);
}

static const char *const limit_by_names[] = {
    [LIMIT_BY_API_KEY] = "api_key", [LIMIT_BY_ADDRESS] = "address", [LIMIT_BY_ROUTE] = "route",
    [LIMIT_BY_MODEL] = "model",     [LIMIT_BY_USER] = "user",       [LIMIT_BY_CONSTANT] = "constant",
};

const char *config_limit_by_name(enum limit_by by)
{
    return limit_by_names[by];
}

bool config_value_limit_by(const struct config_value *value, enum limit_by *by)
{
    for (size_t i = 0; i < sizeof(limit_by_names) / sizeof(limit_by_names[0]); i++) {
        if (span_eq(value->text, span_of(limit_by_names[i]))) {
            *by = (enum limit_by)i;
            return true;
        }
    }
    return unexpected(value, "api_key, address, route, model, user or constant");
}

bool config_value_strategy(const struct config_value *value, enum limit_strategy *strategy)
{
    return limit_strategy_parse(value->text, strategy) || unexpected(value, LIMIT_STRATEGY_EXPECTED);
}

/* Writes `text` as a string into `out` of `size` bytes; false if it does not fit or holds a NUL. */
static bool to_string(struct span text, char *out, size_t size)
{
    if (text.len >= size || (text.len != 0 && memchr(text.base, '\0', text.len) != NULL))
        return false;
    if (text.len != 0)
        memcpy(out, text.base, text.len);
    out[text.len] = '\0';
    return true;
}

static bool host_is_valid(struct span host, bool bracketed)
{
    char text[HOST_MAX_LEN + 1];
    struct in6_addr address;

    if (!to_string(host, text, sizeof(text)))
        return false;
    if (bracketed)
        return inet_pton(AF_INET6, text, &address) == 1;
    return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == host.len;
}

bool config_value_listen(const struct config_value *value, struct span *host)
{
    static const char expected[] = "[HOST]:PORT or unix:PATH, such as 127.0.0.1:8080";
    struct span text = value->text;
    const size_t path_max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
    uint64_t port;

    *host = SPAN_NONE;
    if (span_starts(text, SPAN("unix:"))) {
        if (text.len == sizeof("unix:") - 1 || text.len - (sizeof("unix:") - 1) > path_max)
            return unexpected(value, "unix: and a path of at most 107 characters");
        return true;
    }
    const char *colon = text.len != 0 ? memrchr(text.base, ':', text.len) : NULL;
    if (colon == NULL)
        return unexpected(value, expected);
    struct span name = {text.base, (size_t)(colon - text.base)};
    if (!units_number(span_skip(text, name.len + 1), 65535, &port) || port == 0)
        return unexpected(value, "[HOST]:PORT with a port from 1 to 65535, or unix:PATH");
    bool bracketed = name.len >= 2 && name.base[0] == '[' && name.base[name.len - 1] == ']';
    if (bracketed)
        name = (struct span){name.base + 1, name.len - 2};
    else if (name.len != 0 && memchr(name.base, ':', name.len) != NULL)
        return unexpected(value, "an IPv6 address in brackets, such as [::1]:8080");
    if (!host_is_valid(name, bracketed))
        return unexpected(value, expected);
    *host = name;
    return true;
}

bool config_host_is_loopback(struct span host)
{
    char text[HOST_MAX_LEN + 1];
    struct in_addr v4;
    struct in6_addr v6;

    if (!to_string(host, text, sizeof(text)))
        return false;
    if (inet_pton(AF_INET, text, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, text, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6);
    return strcasecmp(text, "localhost") == 0;
}

static void mask(struct config_network *network)
{
    for (unsigned bit = network->prefix; bit < 128; bit++)
        network->address.s6_addr[bit / 8] &= (uint8_t) ~(0x80 >> bit % 8);
}

bool config_value_network(const struct config_value *value, struct config_network *network)
{
    static const char expected[] = "a network such as 10.0.0.0/8 or fd00::/8, or an address";
    struct span text = value->text;
    const char *slash = text.len != 0 ? memchr(text.base, '/', text.len) : NULL;
    struct span address = {text.base, slash != NULL ? (size_t)(slash - text.base) : text.len};
    char string[INET6_ADDRSTRLEN];
    struct in_addr v4;
    uint64_t prefix;

    if (!to_string(address, string, sizeof(string)))
        return unexpected(value, expected);
    bool is_v4 = inet_pton(AF_INET, string, &v4) == 1;
    if (is_v4) {
        memset(&network->address, 0, sizeof(network->address));
        network->address.s6_addr[10] = network->address.s6_addr[11] = 0xff;
        memcpy(network->address.s6_addr + 12, &v4, sizeof(v4));
    } else if (inet_pton(AF_INET6, string, &network->address) != 1) {
        return unexpected(value, expected);
    }
    unsigned bits = is_v4 ? 32 : 128;
    prefix = bits;
    if (slash != NULL && !units_number(span_skip(text, address.len + 1), bits, &prefix))
        return unexpected(value, is_v4 ? "a prefix length from 0 to 32" : "a prefix length from 0 to 128");
    network->prefix = (unsigned)prefix + (128 - bits);
    mask(network);
    return true;
}

bool config_network_contains(const struct config_network *network, const struct in6_addr *address)
{
    unsigned bytes = network->prefix / 8, bits = network->prefix % 8;

    if (memcmp(network->address.s6_addr, address->s6_addr, bytes) != 0)
        return false;
    return bits == 0 || (network->address.s6_addr[bytes] ^ address->s6_addr[bytes]) >> (8 - bits) == 0;
}

bool config_is_trusted_proxy(const struct config *config, const struct in6_addr *address)
{
    for (size_t i = 0; i < config->trusted_proxy_count; i++)
        if (config_network_contains(&config->trusted_proxies[i], address))
            return true;
    return false;
}

bool config_value_url(const struct config_value *value, struct backend_settings *settings)
{
    char why[256];

    if (backend_url_parse(value->text, settings, why, sizeof(why)))
        return true;
    return config_fail(value->report, "%s: %s", value->subject, why);
}

bool config_value_name(const struct config_value *value)
{
    bool valid = value->text.len != 0 && value->text.len <= NAME_MAX_LEN;

    for (size_t i = 0; valid && i < value->text.len; i++) {
        char c = value->text.base[i];
        valid = c > ' ' && c <= '~' && c != '"' && c != '\\';
    }
    if (!valid)
        return unexpected(value, "1 to 64 printable ASCII characters without blanks, quotes and backslashes");
    return true;
}

bool config_value_key(const struct config_value *value, unsigned char hash[32])
{
    struct span key = value->text;
    unsigned len = 32;

    if (key.len == 0)
        return config_fail(value->report, "%s is an empty key, expected at least %d characters", value->subject,
                           KEY_MIN_LEN);
    if (key.len < KEY_MIN_LEN)
        return config_fail(value->report, "%s is too short for a key, expected at least %d characters", value->subject,
                           KEY_MIN_LEN);
    if (key.len > KEY_MAX_LEN)
        return config_fail(value->report, "%s is too long for a key, expected at most %d characters", value->subject,
                           KEY_MAX_LEN);
    for (size_t i = 0; i < key.len; i++) {
        if ((unsigned char)key.base[i] <= ' ' || key.base[i] == '\x7f')
            return config_fail(value->report, "%s holds a blank or control character, expected a key without",
                               value->subject);
    }
    if (EVP_Digest(key.base, key.len, hash, &len, EVP_sha256(), NULL) != 1)
        abort();
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool config_value_hash(const struct config_value *value, unsigned char hash[32])
{
    struct span digits = span_skip(value->text, sizeof("sha256:") - 1);
    bool valid = span_starts(value->text, SPAN("sha256:")) && digits.len == 64;

    for (size_t i = 0; valid && i < 32; i++) {
        int high = hex_digit(digits.base[2 * i]), low = hex_digit(digits.base[2 * i + 1]);
        valid = high >= 0 && low >= 0;
        hash[i] = (unsigned char)((high & 15) << 4 | (low & 15));
    }
    /* Not quoted: it may be a plain key in the wrong place. */
    if (!valid)
        return config_fail(value->report,
                           "%s is not a hash, expected \"sha256:\" and 64 hexadecimal digits (make one with "
                           "`weir keys hash`)",
                           value->subject);
    return true;
}

/* Reads a fixed number of digits at *at. */
static bool digits(const char **at, int count, int *number)
{
    *number = 0;
    for (; count > 0; count--, (*at)++) {
        if (**at < '0' || **at > '9')
            return false;
        *number = *number * 10 + (**at - '0');
    }
    return true;
}

static bool literal(const char **at, const char *set)
{
    return **at != '\0' && strchr(set, *(*at)++) != NULL;
}

/* partial-time and time-offset of RFC 3339 §5.6. */
static bool parse_time(const char *at, struct tm *tm, int *offset_seconds)
{
    int hours = 0, minutes = 0, sign = 0;

    if (!literal(&at, "Tt ") || !digits(&at, 2, &tm->tm_hour) || !literal(&at, ":") || !digits(&at, 2, &tm->tm_min) ||
        !literal(&at, ":") || !digits(&at, 2, &tm->tm_sec) || tm->tm_hour > 23 || tm->tm_min > 59 || tm->tm_sec > 60)
        return false;
    if (*at == '.') {
        size_t count = strspn(++at, "0123456789");
        if (count == 0)
            return false;
        at += count;
    }
    if (*at == '+' || *at == '-') {
        sign = *at++ == '+' ? 1 : -1;
        if (!digits(&at, 2, &hours) || !literal(&at, ":") || !digits(&at, 2, &minutes) || hours > 23 || minutes > 59)
            return false;
    } else if (!literal(&at, "Zz")) {
        return false;
    }
    *offset_seconds = sign * (hours * 3600 + minutes * 60);
    return *at == '\0';
}

bool config_value_expires(const struct config_value *value, int64_t *seconds)
{
    char text[64];
    const char *at = text;
    struct tm tm = {0};
    int offset = 0;
    bool valid = to_string(value->text, text, sizeof(text)) && digits(&at, 4, &tm.tm_year) && literal(&at, "-") &&
                 digits(&at, 2, &tm.tm_mon) && literal(&at, "-") && digits(&at, 2, &tm.tm_mday) &&
                 (*at == '\0' || parse_time(at, &tm, &offset)) && tm.tm_year >= 1970;

    if (valid) {
        int month = tm.tm_mon -= 1, day = tm.tm_mday;
        bool leap = tm.tm_sec == 60;
        tm.tm_year -= 1900;
        tm.tm_sec -= leap;
        *seconds = (int64_t)timegm(&tm) - offset + leap;
        /* timegm moves a 31st of February into March. */
        valid = tm.tm_mon == month && tm.tm_mday == day && *seconds > 0;
    }
    if (!valid)
        return unexpected(value, "a date such as 2027-01-31 or a time such as 2027-01-31T12:00:00Z");
    return true;
}

void *config_append(void *list, size_t *count, size_t item_size)
{
    void **slot = list;

    /* The room doubles: it is used up whenever the count is a power of two. */
    if ((*count & (*count - 1)) == 0) {
        void *grown = reallocarray(*slot, *count != 0 ? *count * 2 : 1, item_size);
        if (grown == NULL)
            abort();
        *slot = grown;
    }
    return memset((char *)*slot + (*count)++ * item_size, 0, item_size);
}

void config_free_secret(char *secret)
{
    if (secret != NULL)
        OPENSSL_cleanse(secret, strlen(secret));
    free(secret);
}

char *config_read_whole(const char *path, size_t max, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int error = 0;
    size_t size = max + 2; /* one more to see that it is longer, one for the NUL */

    if (fd == -1)
        return NULL;
    char *text = malloc(size);
    if (text == NULL)
        abort();
    *len = 0;
    while (*len <= max) {
        ssize_t got = read(fd, text + *len, max + 1 - *len);
        if (got == 0)
            break;
        if (got > 0) {
            *len += (size_t)got;
        } else if (errno != EINTR) {
            error = errno;
            break;
        }
    }
    close(fd);
    if (error == 0 && *len > max)
        error = EFBIG;
    if (error != 0) {
        OPENSSL_cleanse(text, *len);
        free(text);
        errno = error;
        return NULL;
    }
    text[*len] = '\0';
    return text;
}
