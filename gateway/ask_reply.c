#include "gateway/ask_reply.h"
#include <jansson.h>
#include <stdio.h>

#define ERROR_MAX 4096
#define BARE_BODY_SHOWN 300 /* bytes of an error body that is no JSON */

static enum ask_progress finish(struct ask_reply *reply, enum ask_progress progress)
{
    reply->_state = ASK_OVER;
    reply->_progress = progress;
    return progress;
}

static enum ask_progress fail(struct ask_reply *reply, const char *message)
{
    if (reply->_progress != ASK_BAD) {
        strbuf_reset(&reply->error);
        strbuf_puts(&reply->error, message);
    }
    return finish(reply, ASK_BAD);
}

void ask_reply_init(struct ask_reply *reply, ask_text_cb on_text, void *ctx)
{
    memset(reply, 0, sizeof(*reply));
    reply->_on_text = on_text;
    reply->_ctx = ctx;
    strbuf_init(&reply->error, ERROR_MAX);
    strbuf_init(&reply->body, ASK_BODY_MAX);
    strbuf_init(&reply->_line, ASK_HEAD_MAX);
    sse_scanner_init(&reply->_scanner, ASK_EVENT_MAX);
}

void ask_reply_dispose(struct ask_reply *reply)
{
    sse_scanner_dispose(&reply->_scanner);
    strbuf_dispose(&reply->_line);
    strbuf_dispose(&reply->body);
    strbuf_dispose(&reply->error);
}

/* The length of the UTF-8 sequence at `text` (RFC 3629 §4), its code point in *point; 0 if it is none. */
static size_t utf8_sequence(struct span text, uint32_t *point)
{
    const unsigned char *s = (const unsigned char *)text.base;
    size_t len = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (len == 0 || len > text.len)
        return 0;
    *point = len == 1 ? s[0] : s[0] & (0x7f >> len);
    for (size_t i = 1; i != len; ++i) {
        if (s[i] >> 6 != 2)
            return 0;
        *point = *point << 6 | (s[i] & 0x3f);
    }
    bool valid = *point >= least[len] && *point <= 0x10ffff && (*point < 0xd800 || *point > 0xdfff);
    return valid ? len : 0;
}

void ask_clean(struct span text, struct strbuf *out)
{
    while (text.len != 0) {
        uint32_t point = 0;
        size_t len = utf8_sequence(text, &point);
        bool control = (point < 0x20 && point != '\n' && point != '\t') || (point >= 0x7f && point < 0xa0);
        if (len == 0 || (control && point != '\r'))
            strbuf_add(out, SPAN("\xef\xbf\xbd"));
        else if (point != '\r')
            strbuf_add(out, (struct span){text.base, len});
        text = span_skip(text, len != 0 ? len : 1);
    }
}

/* jansson's strings with their length: they may hold NUL. */
static struct span json_span(const json_t *value)
{
    return json_is_string(value) ? (struct span){json_string_value(value), json_string_length(value)} : SPAN_NONE;
}

static json_t *parse_object(struct span text)
{
    return json_loadb(text.base != NULL ? text.base : "", text.len, JSON_ALLOW_NUL, NULL);
}

/* Finds the sentence for a person in an error body: OpenAI's, Anthropic's, FastAPI's and a few plain ones. */
static bool add_json_error(struct ask_reply *reply, const char *before, const json_t *root, const char **code)
{
    const json_t *error = json_object_get(root, "error");
    struct span message = json_span(json_is_object(error) ? json_object_get(error, "message") : error);
    if (message.len == 0)
        message = json_span(json_object_get(root, "message"));
    if (message.len == 0)
        message = json_span(json_object_get(root, "detail"));
    if (message.len == 0)
        return false;
    strbuf_puts(&reply->error, before);
    ask_clean(message, &reply->error);
    *code = json_string_value(json_object_get(error, "code"));
    if (*code == NULL)
        *code = json_string_value(json_object_get(error, "type"));
    return true;
}

static void add_code(struct ask_reply *reply, const char *code)
{
    if (code != NULL) {
        strbuf_puts(&reply->error, " (");
        ask_clean(span_of(code), &reply->error);
        strbuf_puts(&reply->error, ")");
    }
}

/* The whole body of a refusal is there. */
static enum ask_progress refused(struct ask_reply *reply)
{
    const char *code = NULL;
    strbuf_reset(&reply->error);
    strbuf_printf(&reply->error, "%d", reply->status);
    if (reply->_reason[0] != '\0') {
        strbuf_puts(&reply->error, " ");
        ask_clean(span_of(reply->_reason), &reply->error);
    }
    json_t *root = parse_object(strbuf_span(&reply->body));
    if (!add_json_error(reply, ": ", root, &code) && reply->body.len != 0) {
        size_t shown = reply->body.len < BARE_BODY_SHOWN ? reply->body.len : BARE_BODY_SHOWN;
        strbuf_puts(&reply->error, ": ");
        ask_clean((struct span){reply->body.base, shown}, &reply->error);
    }
    add_code(reply, code);
    if (reply->_request_id[0] != '\0') {
        strbuf_puts(&reply->error, ", request ");
        ask_clean(span_of(reply->_request_id), &reply->error);
    }
    json_decref(root);
    return finish(reply, ASK_BAD);
}

static uint64_t token_count(const json_t *usage, const char *name)
{
    json_int_t count = json_integer_value(json_object_get(usage, name));
    return count > 0 ? (uint64_t)count : 0;
}

static void read_usage(struct ask_reply *reply, const json_t *usage)
{
    if (!json_is_object(usage))
        return;
    reply->usage.known = true;
    reply->usage.prompt = token_count(usage, "prompt_tokens");
    reply->usage.completion = token_count(usage, "completion_tokens");
}

static void emit(struct ask_reply *reply, enum ask_text kind, const json_t *value)
{
    struct span text = json_span(value);
    if (text.len == 0)
        return;
    reply->pieces++;
    reply->_on_text(reply->_ctx, kind, text);
}

/* A chat completion or a chunk of one: `part` is "message" or "delta". */
static void read_completion(struct ask_reply *reply, const json_t *root, const char *part)
{
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
    const json_t *text = json_object_get(choice, part);
    const json_t *reasoning = json_object_get(text, "reasoning");
    /* vLLM before 0.11, SGLang and DeepSeek call it reasoning_content; some send both. */
    emit(reply, ASK_REASONING, json_span(reasoning).len != 0 ? reasoning : json_object_get(text, "reasoning_content"));
    emit(reply, ASK_CONTENT, json_object_get(text, "content"));
    emit(reply, ASK_CONTENT, json_object_get(text, "refusal"));
    const char *finish_reason = json_string_value(json_object_get(choice, "finish_reason"));
    if (finish_reason != NULL) {
        struct strbuf clean;
        strbuf_init_fixed(&clean, reply->finish_reason, sizeof(reply->finish_reason));
        ask_clean(span_of(finish_reason), &clean);
        strbuf_cstr(&clean);
    }
    read_usage(reply, json_object_get(root, "usage"));
}

/* An error object in place of, or in the middle of, an answer. */
static bool told_error(struct ask_reply *reply, const json_t *root)
{
    const json_t *error = json_object_get(root, "error");
    if (error == NULL || json_is_null(error))
        return false;
    const char *code = NULL;
    strbuf_reset(&reply->error);
    if (!add_json_error(reply, reply->pieces != 0 ? "the answer broke off: " : "", root, &code))
        strbuf_puts(&reply->error, "the gateway reported an error without a message");
    add_code(reply, code);
    finish(reply, ASK_BAD);
    return true;
}

/* Joins several data lines by line feeds (WHATWG HTML §9.2.6); `data` comes with line ends and field names in it. */
static void join_data(struct span data, struct strbuf *out)
{
    bool first = true;
    while (data.len != 0) {
        size_t len = 0;
        while (len != data.len && data.base[len] != '\n' && data.base[len] != '\r')
            ++len;
        struct span line = {data.base, len};
        bool is_data = first || span_starts(line, SPAN("data:"));
        if (!first && is_data) {
            line = span_skip(line, 5);
            line = span_starts(line, SPAN(" ")) ? span_skip(line, 1) : line;
            strbuf_putc(out, '\n');
        }
        if (is_data)
            strbuf_add(out, line);
        first = false;
        data = span_skip(data, len + (len != data.len));
    }
}

static void on_event(void *ctx, const struct sse_event *event)
{
    struct ask_reply *reply = ctx;
    if (reply->_state == ASK_OVER || !event->has_data)
        return;
    if (event->cut) {
        fail(reply, "the gateway sent an event of more than 1 MiB");
        return;
    }
    if (span_eq(span_trim(event->data), SPAN("[DONE]"))) {
        finish(reply, ASK_DONE);
        return;
    }
    struct strbuf data;
    strbuf_init(&data, ASK_EVENT_MAX + 1);
    join_data(event->data, &data);
    json_t *root = parse_object(strbuf_span(&data));
    strbuf_dispose(&data);
    if (!json_is_object(root))
        fail(reply, "the gateway sent an event that is not a JSON object");
    else if (!told_error(reply, root))
        read_completion(reply, root, "delta");
    json_decref(root);
}

/* All bytes of the body have come. */
static enum ask_progress body_complete(struct ask_reply *reply)
{
    if (reply->_state == ASK_OVER)
        return reply->_progress;
    if (reply->status < 200 || reply->status > 299)
        return refused(reply);
    if (reply->_events)
        return fail(reply, reply->pieces != 0 ? "the answer broke off before its end"
                                              : "the gateway ended the stream before it began to answer");
    if (reply->_on_text == NULL)
        return finish(reply, ASK_DONE);
    json_t *root = parse_object(strbuf_span(&reply->body));
    if (!json_is_object(root))
        fail(reply, "the answer is neither an event stream nor a JSON object; is this the right URL?");
    else if (!told_error(reply, root)) {
        if (json_is_array(json_object_get(root, "choices"))) {
            read_completion(reply, root, "message");
            finish(reply, ASK_DONE);
        } else
            fail(reply, "the answer is not a chat completion; is this the right URL?");
    }
    json_decref(root);
    return reply->_progress;
}

static enum ask_progress body_bytes(struct ask_reply *reply, struct span bytes)
{
    if (reply->_events) {
        sse_scan(&reply->_scanner, bytes, on_event, reply);
        return reply->_progress;
    }
    strbuf_add(&reply->body, bytes);
    if (reply->body.overflow)
        return fail(reply, "the gateway sent a body of more than 8 MiB");
    return ASK_MORE;
}

/* "HTTP/1.1 200 OK" (RFC 9112 §4) */
static enum ask_progress status_line(struct ask_reply *reply, struct span line)
{
    const char *s = line.base;
    if (line.len < 12 || memcmp(s, "HTTP/1.", 7) != 0 || s[8] != ' ' || (line.len > 12 && s[12] != ' '))
        return fail(reply, "what answers there does not speak HTTP/1.1; are scheme and port of the URL right?");
    int status = 0;
    for (size_t i = 9; i != 12; ++i) {
        if (s[i] < '0' || s[i] > '9')
            return fail(reply, "the gateway sent a malformed status line");
        status = status * 10 + (s[i] - '0');
    }
    if (status < 100)
        return fail(reply, "the gateway sent a malformed status line");
    reply->status = status;
    reply->_status_line_seen = true;
    snprintf(reply->_reason, sizeof(reply->_reason), "%.*s", (int)(line.len > 13 ? line.len - 13 : 0), s + 13);
    return ASK_MORE;
}

static enum ask_progress content_length(struct ask_reply *reply, struct span value)
{
    uint64_t length = 0;
    bool valid = value.len != 0 && value.len < 19;
    for (size_t i = 0; valid && i != value.len; ++i) {
        valid = value.base[i] >= '0' && value.base[i] <= '9';
        length = length * 10 + (uint64_t)(value.base[i] - '0');
    }
    if (!valid || (reply->_has_length && reply->_left != length))
        return fail(reply, "the gateway sent a malformed Content-Length");
    reply->_has_length = true;
    reply->_left = length;
    return ASK_MORE;
}

static enum ask_progress header_line(struct ask_reply *reply, struct span line)
{
    const char *colon = memchr(line.base, ':', line.len);
    if (colon == NULL || colon == line.base || line.base[0] == ' ' || line.base[0] == '\t')
        return fail(reply, "the gateway sent a malformed header");
    struct span name = {line.base, (size_t)(colon - line.base)};
    struct span value = span_trim(span_skip(line, name.len + 1));
    if (span_ieq(name, SPAN("content-length")))
        return content_length(reply, value);
    if (span_ieq(name, SPAN("transfer-encoding"))) {
        if (reply->_chunked || !span_ieq(value, SPAN("chunked")))
            return fail(reply, "the gateway sent a Transfer-Encoding other than chunked");
        reply->_chunked = true;
    } else if (span_ieq(name, SPAN("content-type"))) {
        static const struct span events = {"text/event-stream", 17};
        reply->_events = value.len >= events.len && span_ieq((struct span){value.base, events.len}, events);
    } else if (span_ieq(name, SPAN("x-request-id")) && value.len != 0 && value.len < sizeof(reply->_request_id)) {
        memcpy(reply->_request_id, value.base, value.len);
        reply->_request_id[value.len] = '\0';
    }
    return ASK_MORE;
}

/* The blank line behind the head: how long is the body (RFC 9112 §6.3)? */
static enum ask_progress head_complete(struct ask_reply *reply)
{
    if (!reply->_status_line_seen)
        return fail(reply, "what answers there does not speak HTTP/1.1; are scheme and port of the URL right?");
    if (reply->status < 200) {
        if (reply->status == 101)
            return fail(reply, "the gateway switched protocols unasked");
        reply->_status_line_seen = reply->_chunked = reply->_has_length = reply->_events = false;
        reply->_left = 0;
        return ASK_MORE;
    }
    if (reply->_chunked && reply->_has_length)
        return fail(reply, "the gateway sent both Transfer-Encoding and Content-Length");
    /* Error bodies are collected whatever they call themselves. */
    reply->_events = reply->_events && reply->_on_text != NULL && reply->status <= 299;
    bool bodiless = reply->status == 204 || reply->status == 304 || (reply->_has_length && reply->_left == 0);
    if (bodiless)
        return body_complete(reply);
    reply->_state = reply->_chunked ? ASK_CHUNK_SIZE : reply->_has_length ? ASK_BODY_SIZED : ASK_BODY_UNTIL_CLOSE;
    return ASK_MORE;
}

/* One byte of a head or of trailers. */
static enum ask_progress line_byte(struct ask_reply *reply, char c)
{
    if (++reply->_head_seen > ASK_HEAD_MAX)
        return fail(reply, "the gateway sent a head of more than 64 KiB");
    if (c != '\n') {
        strbuf_putc(&reply->_line, c);
        /* Tell what is not HTTP early: it may never send a line end. */
        static const char start[] = "HTTP/1.";
        if (!reply->_status_line_seen && reply->_line.len < sizeof(start) && c != start[reply->_line.len - 1])
            return status_line(reply, SPAN_NONE);
        return ASK_MORE;
    }
    struct span line = strbuf_span(&reply->_line);
    if (line.len != 0 && line.base[line.len - 1] == '\r')
        line.len--;
    enum ask_progress progress = ASK_MORE;
    if (reply->_state == ASK_TRAILER)
        progress = line.len == 0 ? body_complete(reply) : ASK_MORE;
    else if (line.len == 0)
        progress = head_complete(reply);
    else if (!reply->_status_line_seen)
        progress = status_line(reply, line);
    else
        progress = header_line(reply, line);
    strbuf_reset(&reply->_line);
    return progress;
}

/* One byte of "SIZE[;extension]CRLF" or of the CRLF behind a chunk (RFC 9112 §7.1). */
static enum ask_progress chunk_byte(struct ask_reply *reply, char c)
{
    static const char malformed[] = "the gateway sent malformed chunks";
    if (reply->_state == ASK_CHUNK_CRLF) {
        if (c == '\n')
            reply->_state = ASK_CHUNK_SIZE;
        else if (c != '\r' || reply->_digits++ != 0)
            return fail(reply, malformed);
        if (c == '\n')
            reply->_digits = 0;
        return ASK_MORE;
    }
    int digit = c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
    if (c == '\n') {
        if (reply->_digits == 0)
            return fail(reply, malformed);
        reply->_state = reply->_left == 0 ? ASK_TRAILER : ASK_CHUNK_DATA;
        reply->_digits = 0;
        reply->_in_extension = false;
        return ASK_MORE;
    }
    if (!reply->_in_extension && digit >= 0) {
        if (++reply->_digits > 15)
            return fail(reply, malformed);
        reply->_left = (reply->_digits == 1 ? 0 : reply->_left << 4) | (uint64_t)digit;
        return ASK_MORE;
    }
    if (reply->_in_extension ? ++reply->_head_seen > ASK_HEAD_MAX
                             : reply->_digits == 0 || (c != ';' && c != ' ' && c != '\t' && c != '\r'))
        return fail(reply, malformed);
    reply->_in_extension = true;
    return ASK_MORE;
}

enum ask_progress ask_reply_feed(struct ask_reply *reply, struct span bytes)
{
    while (bytes.len != 0 && reply->_state != ASK_OVER) {
        size_t taken = 1;
        switch (reply->_state) {
        case ASK_HEAD:
        case ASK_TRAILER:
            line_byte(reply, bytes.base[0]);
            break;
        case ASK_CHUNK_SIZE:
        case ASK_CHUNK_CRLF:
            chunk_byte(reply, bytes.base[0]);
            break;
        case ASK_BODY_UNTIL_CLOSE:
            body_bytes(reply, bytes);
            taken = bytes.len;
            break;
        case ASK_BODY_SIZED:
        case ASK_CHUNK_DATA:
            taken = bytes.len < reply->_left ? bytes.len : (size_t)reply->_left;
            reply->_left -= taken;
            body_bytes(reply, (struct span){bytes.base, taken});
            if (reply->_left == 0 && reply->_state == ASK_CHUNK_DATA)
                reply->_state = ASK_CHUNK_CRLF;
            else if (reply->_left == 0)
                body_complete(reply);
            break;
        case ASK_OVER:
            break;
        }
        bytes = span_skip(bytes, taken);
    }
    return reply->_progress;
}

enum ask_progress ask_reply_broken(struct ask_reply *reply, const char *reason)
{
    if (reply->_state != ASK_OVER && reply->_state != ASK_HEAD && reply->status > 299)
        return refused(reply);
    return fail(reply, reason);
}

enum ask_progress ask_reply_end(struct ask_reply *reply)
{
    if (reply->_state == ASK_OVER)
        return reply->_progress;
    if (reply->_state == ASK_BODY_UNTIL_CLOSE)
        return body_complete(reply);
    if (reply->_state == ASK_HEAD)
        return fail(reply, "the gateway closed the connection without an answer");
    return ask_reply_broken(reply, "the answer broke off before its end");
}

bool ask_first_model(struct span body, char *out, size_t size)
{
    json_t *root = parse_object(body);
    const json_t *first = json_array_get(json_object_get(root, "data"), 0);
    struct span id = json_span(json_object_get(first, "id"));
    bool fits = id.len != 0 && id.len < size && memchr(id.base, '\0', id.len) == NULL;
    if (fits)
        snprintf(out, size, "%.*s", (int)id.len, id.base);
    json_decref(root);
    return fits;
}
