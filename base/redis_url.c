#include "base/redis_url.h"
#include "base/strbuf.h"
#include "base/units.h"
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>

#define PORT 6379
#define SENTINEL_PORT 26379
#define HOST_MAX 255
#define TEXT_MAX 4096
#define UNIX_PATH_MAX 107 /* sun_path less its NUL */
#define EXPECTED                                                                                                       \
    "expected redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], redis+sentinel://HOST[:PORT],HOST[:PORT]/MASTER[/DB], "      \
    "unix:///PATH or /PATH"

struct parse {
    struct redis_url *url;
    char *error;
    size_t error_size;
};

__attribute__((format(printf, 2, 3))) static bool fail(struct parse *parse, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(parse->error, parse->error_size, format, args);
    va_end(args);
    return false;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undoes %XX; NULL if there is one that is none, or a NUL. */
static char *decode(struct span text)
{
    char *out = span_dup(text), *end = out;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.base[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex(text.base[i + 1]) : -1, low = high >= 0 ? hex(text.base[i + 2]) : -1;
            if (low < 0) {
                OPENSSL_cleanse(out, text.len);
                free(out);
                return NULL;
            }
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (c == '\0') {
            OPENSSL_cleanse(out, text.len);
            free(out);
            return NULL;
        }
        *end++ = c;
    }
    *end = '\0';
    return out;
}

/* "[USER]:PASSWORD" */
static bool read_user(struct parse *parse, struct span text)
{
    const char *colon = text.len != 0 ? memchr(text.base, ':', text.len) : NULL;
    if (colon == NULL)
        return fail(parse, "there is a user without a password, expected [USER]:PASSWORD before the @ (an @ in the "
                           "password is written %%40)");
    struct span user = {text.base, (size_t)(colon - text.base)}, password = span_skip(text, user.len + 1);
    if (password.len == 0)
        return fail(parse, "the password is empty, expected [USER]:PASSWORD before the @");
    parse->url->password = decode(password);
    if (user.len != 0)
        parse->url->user = decode(user);
    if (parse->url->password == NULL || (user.len != 0 && parse->url->user == NULL))
        return fail(parse, "the user or password has a %% that is not followed by two hexadecimal digits, expected a "
                           "%% to be written %%25");
    return true;
}

static bool read_db(struct parse *parse, struct span text)
{
    uint64_t db;
    if (!units_number(text, 65535, &db))
        return fail(parse, "the database is not a number, expected such as 0");
    parse->url->db = (unsigned)db;
    return true;
}

static bool host_is_sane(struct span host)
{
    if (host.len == 0 || host.len > HOST_MAX)
        return false;
    for (size_t i = 0; i < host.len; i++) {
        char c = host.base[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._:%", c) != NULL))
            return false;
    }
    return true;
}

/* "HOST[:PORT]" with an IPv6 address in brackets. */
static bool read_host(struct parse *parse, struct span text, uint16_t port)
{
    struct span host, rest;
    uint64_t number = port;
    if (text.len != 0 && text.base[0] == '[') {
        const char *bracket = memchr(text.base, ']', text.len);
        if (bracket == NULL)
            return fail(parse, "an address has a [ without a ], " EXPECTED);
        host = (struct span){text.base + 1, (size_t)(bracket - text.base) - 1};
        rest = span_skip(text, host.len + 2);
    } else {
        const char *colon = text.len != 0 ? memchr(text.base, ':', text.len) : NULL;
        host = (struct span){text.base, colon != NULL ? (size_t)(colon - text.base) : text.len};
        rest = span_skip(text, host.len);
    }
    if (!host_is_sane(host))
        return fail(parse, "there is no host, or one that cannot be a name or address, " EXPECTED);
    if (rest.len != 0 && (rest.base[0] != ':' || !units_number(span_skip(rest, 1), 65535, &number) || number == 0))
        return fail(parse, "what follows the host is not a port, expected a number from 1 to 65535 (an IPv6 address "
                           "stands in brackets)");
    if (parse->url->host_count == REDIS_HOSTS_MAX)
        return fail(parse, "there are too many hosts, expected at most %d", REDIS_HOSTS_MAX);
    parse->url->hosts[parse->url->host_count++] = (struct redis_host){.name = span_dup(host), .port = (uint16_t)number};
    return true;
}

/* Cuts what stands before the first `c` off *rest, and the `c` too; all of it if there is none. */
static struct span cut(struct span *rest, char c)
{
    const char *found = rest->len != 0 ? memchr(rest->base, c, rest->len) : NULL;
    struct span before = {rest->base, found != NULL ? (size_t)(found - rest->base) : rest->len};
    *rest = span_skip(*rest, before.len + 1);
    return before;
}

/* Takes "[USER]:PASSWORD@" off the front. */
static bool take_user(struct parse *parse, struct span *text)
{
    const char *slash = text->len != 0 ? memchr(text->base, '/', text->len) : NULL;
    size_t len = slash != NULL ? (size_t)(slash - text->base) : text->len;
    const char *at = len != 0 ? memrchr(text->base, '@', len) : NULL;
    if (at == NULL && text->len != 0 && (at = memrchr(text->base, '@', text->len)) != NULL)
        return fail(parse, "there is a / before the @, expected a / in the user or password to be written %%2F");
    if (at == NULL)
        return true;
    struct span user = {text->base, (size_t)(at - text->base)};
    *text = span_skip(*text, user.len + 1);
    return read_user(parse, user);
}

static bool read_tcp(struct parse *parse, struct span text)
{
    if (!take_user(parse, &text))
        return false;
    struct span host = cut(&text, '/');
    if (memchr(host.base != NULL ? host.base : "", ',', host.len) != NULL)
        return fail(parse, "there are several hosts, expected one (or redis+sentinel://HOST,HOST/MASTER)");
    return read_host(parse, host, PORT) && (text.len == 0 || read_db(parse, text));
}

static bool read_sentinels(struct parse *parse, struct span text)
{
    if (!take_user(parse, &text))
        return false;
    struct span hosts = cut(&text, '/');
    do {
        if (!read_host(parse, cut(&hosts, ','), SENTINEL_PORT))
            return false;
    } while (hosts.len != 0);
    struct span master = cut(&text, '/');
    if (master.len == 0 || master.len > HOST_MAX)
        return fail(parse, "the master's name is missing, expected redis+sentinel://HOST[:PORT]/MASTER[/DB], with the "
                           "name that the Sentinels know it by");
    parse->url->master = decode(master);
    if (parse->url->master == NULL)
        return fail(parse, "the master's name has a %% that is not followed by two hexadecimal digits");
    return text.len == 0 || read_db(parse, text);
}

static bool read_unix(struct parse *parse, struct span text)
{
    static const struct span db = SPAN("db=");
    if (text.len != 0 && text.base[0] != '/') {
        const char *at = memchr(text.base, '@', text.len);
        struct span user = {text.base, at != NULL ? (size_t)(at - text.base) : 0};
        if (at == NULL)
            return fail(parse, "the socket's path is not absolute, expected unix:///PATH");
        text = span_skip(text, user.len + 1);
        if (!read_user(parse, user))
            return false;
    }
    struct span path = cut(&text, '?');
    if (path.len < 2 || path.base[0] != '/')
        return fail(parse, "the socket's path is missing or not absolute, expected unix:///PATH");
    if (path.len > UNIX_PATH_MAX)
        return fail(parse, "the socket's path is too long, expected at most %d bytes", UNIX_PATH_MAX);
    parse->url->unix_path = span_dup(path);
    if (text.len == 0)
        return true;
    if (!span_starts(text, db))
        return fail(parse, "what follows the path is unknown, expected ?db=N or nothing");
    return read_db(parse, span_skip(text, db.len));
}

static bool read_text(struct parse *parse, struct span text)
{
    static const struct {
        struct span scheme;
        bool (*read)(struct parse *parse, struct span text);
    } schemes[] = {
        {SPAN("redis://"), read_tcp},
        {SPAN("redis+sentinel://"), read_sentinels},
        {SPAN("unix://"), read_unix},
        {SPAN("redis+unix://"), read_unix},
    };
    if (text.len > TEXT_MAX)
        return fail(parse, "it is longer than %d bytes, " EXPECTED, TEXT_MAX);
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.base[i] <= ' ' || text.base[i] == 0x7f)
            return fail(parse, "it has a blank or a control character in it, " EXPECTED);
    if (span_starts(text, SPAN("rediss://")) || span_starts(text, SPAN("rediss+sentinel://")))
        return fail(parse, "TLS to Redis is not supported; use redis:// on a private network, or run a TLS tunnel such "
                           "as stunnel beside weir and name its local port");
    if (span_starts(text, SPAN("redis+cluster://")))
        return fail(parse, "Redis Cluster is not supported; use one master, or redis+sentinel://HOST[:PORT]/MASTER");
    if (text.len != 0 && text.base[0] == '/')
        return memchr(text.base, '?', text.len) == NULL
                   ? read_unix(parse, text)
                   : fail(parse, "a path has a ? in it, expected unix:///PATH?db=N");
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        struct span scheme = schemes[i].scheme;
        if (text.len >= scheme.len && strncasecmp(text.base, scheme.base, scheme.len) == 0)
            return schemes[i].read(parse, span_skip(text, scheme.len));
    }
    return fail(parse, EXPECTED);
}

bool redis_url_parse(struct span text, struct redis_url *url, char *error, size_t error_size)
{
    struct parse parse = {url, error, error_size};
    *url = (struct redis_url){0};
    if (read_text(&parse, text))
        return true;
    redis_url_dispose(url);
    return false;
}

void redis_url_print(const struct redis_url *url, char *out, size_t size)
{
    struct strbuf buf;
    strbuf_init_fixed(&buf, out, size);
    if (url->unix_path != NULL) {
        strbuf_printf(&buf, "unix://%s", url->unix_path);
        if (url->db != 0)
            strbuf_printf(&buf, "?db=%u", url->db);
    } else {
        strbuf_puts(&buf, url->master != NULL ? "redis+sentinel://" : "redis://");
        for (size_t i = 0; i < url->host_count; i++) {
            bool brackets = strchr(url->hosts[i].name, ':') != NULL;
            strbuf_printf(&buf, "%s%s%s%s:%u", i != 0 ? "," : "", brackets ? "[" : "", url->hosts[i].name,
                          brackets ? "]" : "", (unsigned)url->hosts[i].port);
        }
        if (url->master != NULL)
            strbuf_printf(&buf, "/%s", url->master);
        strbuf_printf(&buf, "/%u", url->db);
    }
    strbuf_cstr(&buf);
}

static void free_secret(char *secret)
{
    if (secret != NULL)
        OPENSSL_cleanse(secret, strlen(secret));
    free(secret);
}

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool redis_url_equal(const struct redis_url *a, const struct redis_url *b)
{
    bool same = a->host_count == b->host_count && a->db == b->db && same_text(a->unix_path, b->unix_path) &&
                same_text(a->master, b->master) && same_text(a->user, b->user) && same_text(a->password, b->password);
    for (size_t i = 0; same && i < a->host_count; i++)
        same = a->hosts[i].port == b->hosts[i].port && same_text(a->hosts[i].name, b->hosts[i].name);
    return same;
}

void redis_url_dispose(struct redis_url *url)
{
    for (size_t i = 0; i < url->host_count; i++)
        free(url->hosts[i].name);
    free(url->unix_path);
    free(url->master);
    free_secret(url->user);
    free_secret(url->password);
    *url = (struct redis_url){0};
}
