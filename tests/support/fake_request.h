/* The requests that the model-server fake reads: a head, and a body framed by Content-Length or chunks. Views point
 * into the connection's input and are good until it grows. */
#ifndef WEIR_TESTS_FAKE_REQUEST_H
#define WEIR_TESTS_FAKE_REQUEST_H

#include "fake_dialect.h"
#include <ctype.h>
#include <openssl/sha.h>
#include <strings.h>

#define REQUEST_HEADERS_MAX 100

struct view {
    const char *base;
    size_t len;
};

struct request {
    struct view method, target;
    struct {
        struct view name, value;
    } headers[REQUEST_HEADERS_MAX];
    size_t header_count, head_len;
    size_t content_length;
    bool chunked, expect, close;
};

static bool view_is(struct view view, const char *string)
{
    return view.len == strlen(string) && strncasecmp(view.base, string, view.len) == 0;
}

static bool view_has(struct view view, const char *needle)
{
    return view.len != 0 && memmem(view.base, view.len, needle, strlen(needle)) != NULL;
}

static struct view view_trim(struct view view)
{
    while (view.len != 0 && (*view.base == ' ' || *view.base == '\t'))
        view = (struct view){view.base + 1, view.len - 1};
    while (view.len != 0 && strchr(" \t\r", view.base[view.len - 1]) != NULL)
        view.len--;
    return view;
}

/* The value of a header, or an empty view. */
static struct view request_header(const struct request *request, const char *name)
{
    for (size_t i = 0; i != request->header_count; i++)
        if (view_is(request->headers[i].name, name))
            return request->headers[i].value;
    return (struct view){NULL, 0};
}

static bool request_line(struct request *request, const char *line, const char *end)
{
    const char *space = memchr(line, ' ', (size_t)(end - line));
    if (space == NULL)
        return false;
    const char *second = memchr(space + 1, ' ', (size_t)(end - space - 1));
    if (second == NULL)
        return false;
    request->method = (struct view){line, (size_t)(space - line)};
    request->target = (struct view){space + 1, (size_t)(second - space - 1)};
    return true;
}

/* 1: parsed; 0: the head is not all there; -1: it is not HTTP. */
static int request_parse(struct request *request, const char *in, size_t len)
{
    const char *stop = memmem(in, len, "\r\n\r\n", 4);
    if (stop == NULL)
        return 0;
    *request = (struct request){.head_len = (size_t)(stop - in) + 4};
    const char *line = in, *end = memchr(in, '\r', len);
    if (!request_line(request, line, end))
        return -1;
    for (line = end + 2; line < stop; line = end + 2) {
        end = memmem(line, (size_t)(stop + 2 - line), "\r\n", 2);
        const char *colon = memchr(line, ':', (size_t)(end - line));
        if (colon == NULL || request->header_count == REQUEST_HEADERS_MAX)
            return -1;
        struct view name = {line, (size_t)(colon - line)};
        struct view value = view_trim((struct view){colon + 1, (size_t)(end - colon - 1)});
        request->headers[request->header_count].name = name;
        request->headers[request->header_count++].value = value;
        if (view_is(name, "content-length"))
            request->content_length = strtoul(value.base, NULL, 10);
        else if (view_is(name, "transfer-encoding"))
            request->chunked = view_has(value, "chunked");
        else if (view_is(name, "expect"))
            request->expect = true;
        else if (view_is(name, "connection"))
            request->close = view_is(value, "close");
    }
    return 1;
}

/* Where the decoding of a chunked body stands; zero at the start. */
struct unchunk {
    size_t read, written; /* relative to the start of the body; what is written stands before what is read */
};

/* Decodes in place. 1: the body is complete; 0: more is needed; -1: malformed. */
static int unchunk_run(struct unchunk *state, char *body, size_t len)
{
    for (;;) {
        char *line = body + state->read, *end = memmem(line, len - state->read, "\r\n", 2), *after;
        if (end == NULL)
            return len - state->read > 1000 ? -1 : 0;
        size_t size = strtoul(line, &after, 16);
        if (after == line || size > 64 << 20)
            return -1;
        size_t data = (size_t)(end + 2 - body);
        if (len < data + size + 2)
            return 0;
        if (size != 0)
            memmove(body + state->written, body + data, size);
        state->read = data + size + 2;
        state->written += size;
        if (size == 0)
            return 1;
    }
}

/* Whether a top-level-looking `"name": literal` stands in the body; good enough for what tests send. */
static bool body_says(struct view body, const char *name, const char *literal)
{
    char quoted[64];
    int quoted_len = snprintf(quoted, sizeof(quoted), "\"%s\"", name);
    const char *at = body.base, *end = body.base + body.len;
    while (body.len != 0 && (at = memmem(at, (size_t)(end - at), quoted, (size_t)quoted_len)) != NULL) {
        at += quoted_len;
        const char *value = at;
        while (value < end && (isspace((unsigned char)*value) || *value == ':'))
            value++;
        if ((size_t)(end - value) >= strlen(literal) && memcmp(value, literal, strlen(literal)) == 0)
            return true;
    }
    return false;
}

static enum dialect dialect_of(struct view target)
{
    static const struct {
        const char *suffix;
        enum dialect dialect;
    } paths[] = {
        {"/chat/completions", CHAT}, {"/completions", COMPLETIONS}, {"/embeddings", EMBEDDINGS},
        {"/responses", RESPONSES},   {"/messages", MESSAGES},       {"/count_tokens", COUNT_TOKENS},
        {"/models", MODELS},
    };
    const char *question = memchr(target.base, '?', target.len);
    size_t len = question != NULL ? (size_t)(question - target.base) : target.len;
    if (len >= 6 && memcmp(target.base, "/fake/", 6) == 0)
        return CONTROL;
    for (size_t i = 0; i != sizeof(paths) / sizeof(paths[0]); i++) {
        size_t suffix = strlen(paths[i].suffix);
        if (len >= suffix && memcmp(target.base + len - suffix, paths[i].suffix, suffix) == 0)
            return paths[i].dialect;
    }
    return ECHO;
}

/* Appends a JSON string; bytes beyond ASCII are written as if they were Latin-1, so that any input gives valid JSON. */
static void text_json(struct text *text, struct view view)
{
    char escape[8];
    text_puts(text, "\"");
    for (size_t i = 0; i != view.len; i++) {
        unsigned char c = (unsigned char)view.base[i];
        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\') {
            snprintf(escape, sizeof(escape), "\\u%04x", c);
            text_puts(text, escape);
        } else {
            text_add(text, view.base + i, 1);
        }
    }
    text_puts(text, "\"");
}

/* Describes a request as JSON. `body.base` may be NULL if only its length and digest are known. */
static void request_describe(const struct request *request, struct view body, const unsigned char digest[32],
                             const char *transport, struct text *out)
{
    char piece[512];
    text_puts(out, "{\"method\":");
    text_json(out, request->method);
    text_puts(out, ",\"target\":");
    text_json(out, request->target);
    text_puts(out, ",\"headers\":[");
    for (size_t i = 0; i != request->header_count; i++) {
        text_puts(out, i == 0 ? "[" : ",[");
        text_json(out, request->headers[i].name);
        text_puts(out, ",");
        text_json(out, request->headers[i].value);
        text_puts(out, "]");
    }
    snprintf(piece, sizeof(piece), "],\"transport\":\"%s\",\"body_length\":%zu,\"body_sha256\":\"", transport,
             body.len);
    text_puts(out, piece);
    for (int i = 0; i != 32; i++) {
        snprintf(piece, sizeof(piece), "%02x", digest[i]);
        text_puts(out, piece);
    }
    text_puts(out, "\"");
    if (body.base != NULL) {
        text_puts(out, ",\"body\":");
        text_json(out, body);
    }
    text_puts(out, "}\n");
}

#endif
