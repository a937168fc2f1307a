#include "backends/backend.h"
#include "base/units.h"
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

#define URL_MAX 2048
#define HOST_MAX 253 /* RFC 1035 §2.3.4, as text */
#define DEMO_TOKENS_MAX 1000000

/* What a URL's parser carries along. */
struct url_parser {
    struct backend_settings *settings;
    char *error;
    size_t error_size;
};

static bool fail(struct url_parser *parser, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(struct url_parser *parser, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(parser->error, parser->error_size, format, args);
    va_end(args);
    return false;
}

/* Splits `text` at the first `c`, which goes away. False, and all in `before`, if there is none. */
static bool split(struct span text, char c, struct span *before, struct span *after)
{
    const char *at = text.len != 0 ? memchr(text.base, c, text.len) : NULL;

    *before = text;
    *after = SPAN_NONE;
    if (at == NULL)
        return false;
    before->len = (size_t)(at - text.base);
    *after = (struct span){at + 1, text.len - before->len - 1};
    return true;
}

static bool parse_demo_parameter(struct url_parser *parser, struct span name, struct span value)
{
    struct demo_settings *demo = &parser->settings->demo;
    uint64_t tokens;

    if (span_eq(name, SPAN("delay")) || span_eq(name, SPAN("pace"))) {
        if (!units_duration(value, name.base[0] == 'd' ? &demo->delay_us : &demo->pace_us))
            return fail(parser, "the demo model's \"%.*s\" is \"%.*s\", expected " UNITS_DURATION_EXPECTED,
                        (int)name.len, name.base, (int)value.len, value.base);
        return true;
    }
    if (span_eq(name, SPAN("tokens"))) {
        if (!units_number(value, DEMO_TOKENS_MAX, &tokens) || tokens == 0)
            return fail(parser, "the demo model's \"tokens\" is \"%.*s\", expected a number from 1 to %d",
                        (int)value.len, value.base, DEMO_TOKENS_MAX);
        demo->tokens = (unsigned)tokens;
        return true;
    }
    return fail(parser, "unknown parameter \"%.*s\" of the demo model, expected delay, pace or tokens", (int)name.len,
                name.base);
}

/* `rest` is what follows "demo:". */
static bool parse_demo(struct url_parser *parser, struct span rest)
{
    struct backend_url *url = &parser->settings->url;
    struct span parameter, name, value;

    if (rest.len != 0 && rest.base[0] != '?')
        return fail(parser, "\"%.*s\" after \"demo:\", expected demo: or demo:?delay=100ms&pace=25ms&tokens=50",
                    (int)rest.len, rest.base);
    rest = span_skip(rest, 1);
    while (rest.len != 0) {
        split(rest, '&', &parameter, &rest);
        split(parameter, '=', &name, &value);
        if (!parse_demo_parameter(parser, name, value))
            return false;
    }
    url->kind = BACKEND_DEMO;
    url->authority = span_dup(SPAN("demo"));
    url->path = span_dup(SPAN_NONE);
    return true;
}

static bool host_name_is_valid(struct span host)
{
    if (host.len == 0 || host.len > HOST_MAX)
        return false;
    for (size_t i = 0; i < host.len; i++) {
        char c = host.base[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        /* The underscore is not RFC 1123, but container networks use it. */
        if (!alnum && c != '-' && c != '.' && c != '_')
            return false;
    }
    return host.base[0] != '.' && host.base[0] != '-';
}

/* Splits `authority` into host and port; `port` is NULL-based if there is no colon. RFC 3986 §3.2. */
static bool split_authority(struct url_parser *parser, struct span authority, struct span *host, struct span *port,
                            bool *bracketed)
{
    *bracketed = authority.len != 0 && authority.base[0] == '[';
    *port = SPAN_NONE;
    if (!*bracketed) {
        split(authority, ':', host, port);
        return true;
    }
    if (!split(span_skip(authority, 1), ']', host, port))
        return fail(parser, "the \"[\" of the host has no \"]\"");
    if (port->len != 0 && port->base[0] != ':')
        return fail(parser, "\"%.*s\" after the host, expected a colon and a port", (int)port->len, port->base);
    if (port->len == 0)
        *port = SPAN_NONE;
    else
        *port = (struct span){port->base + 1, port->len - 1};
    return true;
}

static bool parse_authority(struct url_parser *parser, struct span authority)
{
    struct backend_url *url = &parser->settings->url;
    struct span host, port;
    struct in6_addr address;
    bool bracketed;
    uint64_t number = url->tls ? 443 : 80;
    char text[HOST_MAX + sizeof("[]:65535")];

    if (!split_authority(parser, authority, &host, &port, &bracketed))
        return false;
    if (host.len == 0)
        return fail(parser, "no host in the url, expected such as http://127.0.0.1:8000");
    if (port.base != NULL && (!units_number(port, 65535, &number) || number == 0))
        return fail(parser, "the port is \"%.*s\", expected a number from 1 to 65535%s", (int)port.len, port.base,
                    memchr(port.base, ':', port.len) != NULL ? " (an IPv6 address stands in brackets)" : "");
    if (host.len > HOST_MAX)
        return fail(parser, "the host is too long, expected at most %d characters", HOST_MAX);
    url->host = span_dup(host);
    url->port = (uint16_t)number;
    if (bracketed) {
        url->host_is_ip = true;
        if (inet_pton(AF_INET6, url->host, &address) != 1)
            return fail(parser, "\"[%s]\" is not an IPv6 address", url->host);
    } else {
        url->host_is_ip = inet_pton(AF_INET, url->host, &address) == 1;
        if (!url->host_is_ip && !host_name_is_valid(host))
            return fail(parser, "\"%s\" is not a host name or address", url->host);
    }
    snprintf(text, sizeof(text), bracketed ? "[%s]" : "%s", url->host);
    if (number != (url->tls ? 443 : 80))
        snprintf(text + strlen(text), sizeof(text) - strlen(text), ":%u", url->port);
    url->authority = span_dup(span_of(text));
    return true;
}

/* `rest` is what follows "http://unix:"; the socket's path ends at ":/", behind which stands the path of the requests.
 */
static bool parse_unix(struct url_parser *parser, struct span rest, struct span *path)
{
    struct backend_url *url = &parser->settings->url;
    const char *colon = memmem(rest.base, rest.len, ":/", 2);
    struct span file = rest;

    if (url->tls)
        return fail(parser, "TLS over a unix socket is not supported, expected http://unix:/PATH");
    *path = SPAN_NONE;
    if (colon != NULL) {
        file.len = (size_t)(colon - rest.base);
        *path = (struct span){colon + 1, rest.len - file.len - 1};
    }
    if (file.len >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return fail(parser, "the path of the unix socket is too long, expected at most %d characters",
                    (int)sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
    url->unix_path = span_dup(file);
    url->authority = span_dup(SPAN("localhost"));
    return true;
}

/* `rest` is what follows "http://" or "https://". */
static bool parse_http(struct url_parser *parser, struct span rest)
{
    struct backend_url *url = &parser->settings->url;
    struct span query, path = SPAN_NONE;

    url->kind = BACKEND_HTTP;
    if (split(rest, '?', &rest, &query))
        url->query = span_dup(query);
    if (span_starts(rest, SPAN("unix:/"))) {
        if (!parse_unix(parser, span_skip(rest, sizeof("unix:") - 1), &path))
            return false;
    } else {
        const char *slash = rest.len != 0 ? memchr(rest.base, '/', rest.len) : NULL;
        struct span authority = rest;
        if (slash != NULL) {
            authority.len = (size_t)(slash - rest.base);
            path = (struct span){slash, rest.len - authority.len};
        }
        /* Not quoted: it may hold a password. */
        if (authority.len != 0 && memchr(authority.base, '@', authority.len) != NULL)
            return fail(parser,
                        "a user name in the url is refused, expected http://HOST:PORT (credentials go into \"api_key\" "
                        "or \"headers\")");
        if (!parse_authority(parser, authority))
            return false;
    }
    while (path.len != 0 && path.base[path.len - 1] == '/')
        path.len--;
    url->path = span_dup(path);
    return true;
}

static void dispose_url(struct backend_url *url)
{
    free(url->host);
    free(url->unix_path);
    free(url->authority);
    free(url->path);
    free(url->query);
    memset(url, 0, sizeof(*url));
}

static bool parse_url(struct url_parser *parser, struct span text)
{
    struct span scheme, rest;

    if (text.len == 0)
        return fail(parser, "the url is empty, expected http://, https:// or demo:");
    if (text.len > URL_MAX)
        return fail(parser, "the url is too long, expected at most %d characters", URL_MAX);
    for (size_t i = 0; i < text.len; i++) {
        /* Everything of it goes into request heads as it is. */
        if (text.base[i] <= ' ' || text.base[i] > '~')
            return fail(parser,
                        "character %zu of the url is a blank, a control character or not ASCII, expected it %%-encoded",
                        i + 1);
    }
    if (memchr(text.base, '#', text.len) != NULL)
        return fail(parser, "a fragment (\"#\") in the url is never sent, expected none");
    if (!split(text, ':', &scheme, &rest))
        return fail(parser, "no scheme in the url, expected http://, https:// or demo:");
    if (span_ieq(scheme, SPAN("demo")))
        return parse_demo(parser, rest);
    parser->settings->url.tls = span_ieq(scheme, SPAN("https"));
    if (!parser->settings->url.tls && !span_ieq(scheme, SPAN("http"))) {
        /* "127.0.0.1:8000" and "localhost:8000" are the likely slips. */
        bool port = rest.len != 0 && rest.base[0] >= '0' && rest.base[0] <= '9';
        return fail(parser,
                    "%s \"%.*s\", expected http://, https:// or demo:", port ? "no scheme before" : "unknown scheme",
                    (int)(scheme.len < 64 ? scheme.len : 64), scheme.base);
    }
    if (!span_starts(rest, SPAN("//")))
        return fail(parser, "no \"//\" after the scheme, expected such as http://127.0.0.1:8000");
    return parse_http(parser, span_skip(rest, 2));
}

bool backend_url_parse(struct span text, struct backend_settings *settings, char *error, size_t error_size)
{
    struct url_parser parser = {settings, error, error_size};

    dispose_url(&settings->url);
    if (parse_url(&parser, text))
        return true;
    dispose_url(&settings->url);
    return false;
}

void backend_name_copy(char to[BACKEND_NAME_MAX + 1], const char *name)
{
    size_t len = strnlen(name, BACKEND_NAME_MAX);
    memcpy(to, name, len);
    to[len] = '\0';
}

void backend_settings_init(struct backend_settings *settings)
{
    *settings = (struct backend_settings){
        .tls = {.verify = true},
        .weight = 1,
        .timeouts = {.connect = UINT64_C(5) * 1000000,
                     .first_token = UINT64_C(600) * 1000000,
                     .idle = UINT64_C(300) * 1000000,
                     .total = UINT64_C(3600) * 1000000},
        .demo = {.delay_us = 100 * 1000, .pace_us = 25 * 1000, .tokens = 1000},
    };
    health_settings_init_inherit(&settings->health);
}

static void dispose_secret(char *secret)
{
    if (secret != NULL)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

void backend_settings_dispose(struct backend_settings *settings)
{
    free(settings->name);
    dispose_url(&settings->url);
    for (size_t i = 0; i < settings->model_count; i++) {
        free(settings->models[i].pattern);
        free(settings->models[i].upstream);
    }
    free(settings->models);
    dispose_secret(settings->api_key);
    for (size_t i = 0; i < settings->header_count; i++) {
        free(settings->headers[i].name);
        dispose_secret(settings->headers[i].value);
    }
    free(settings->headers);
    health_settings_dispose(&settings->health);
    free(settings->tls.ca);
    free(settings->tls.cert);
    free(settings->tls.key);
    memset(settings, 0, sizeof(*settings));
}

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool same_url(const struct backend_url *a, const struct backend_url *b)
{
    return a->kind == b->kind && a->tls == b->tls && a->port == b->port && same_text(a->host, b->host) &&
           same_text(a->unix_path, b->unix_path) && same_text(a->path, b->path) && same_text(a->query, b->query);
}

static bool same_headers(const struct backend_settings *a, const struct backend_settings *b)
{
    if (a->header_count != b->header_count)
        return false;
    for (size_t i = 0; i < a->header_count; i++)
        if (strcmp(a->headers[i].name, b->headers[i].name) != 0 ||
            strcmp(a->headers[i].value, b->headers[i].value) != 0)
            return false;
    return true;
}

bool backend_settings_alike(const struct backend_settings *a, const struct backend_settings *b)
{
    return strcmp(a->name, b->name) == 0 && same_url(&a->url, &b->url) && same_text(a->api_key, b->api_key) &&
           a->auth == b->auth && same_headers(a, b) && same_text(a->tls.ca, b->tls.ca) &&
           same_text(a->tls.cert, b->tls.cert) && same_text(a->tls.key, b->tls.key) && a->tls.verify == b->tls.verify &&
           memcmp(&a->timeouts, &b->timeouts, sizeof(a->timeouts)) == 0 &&
           health_settings_equal(&a->health, &b->health);
}

bool backend_serves(const struct backend_settings *settings, struct span model, struct span *upstream)
{
    const struct backend_model *found = NULL;

    *upstream = model;
    if (settings->model_count == 0)
        return true;
    for (size_t i = 0; i < settings->model_count; i++) {
        const struct backend_model *rule = &settings->models[i];
        if (span_eq(span_of(rule->pattern), model)) {
            found = rule;
            break;
        }
        if (found == NULL && glob_match(span_of(rule->pattern), model))
            found = rule;
    }
    if (found == NULL)
        return false;
    if (found->upstream != NULL)
        *upstream = span_of(found->upstream);
    return true;
}

bool glob_match(struct span pattern, struct span text)
{
    size_t p = 0, t = 0, star = SIZE_MAX, resume = 0;

    /* Only the last '*' ever needs to take more, so that the cost is at most pattern x text. */
    while (t < text.len) {
        if (p < pattern.len && pattern.base[p] == '*') {
            star = p++;
            resume = t;
        } else if (p < pattern.len && pattern.base[p] == text.base[t]) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++resume;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.base[p] == '*')
        p++;
    return p == pattern.len;
}
