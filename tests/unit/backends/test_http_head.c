#include "backends/http_head.h"
#include "base/strbuf.h"
#include "run_suite.h"
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define OK "HTTP/1.1 200 OK\r\n"

/* A head and the memory that it points into. */
struct parsed {
    enum http_head_result result;
    struct http_head head;
    char *text;
};

/* Parses exactly `text`, so that AddressSanitizer sees a read beyond it; the head starts as rubbish. */
static struct parsed parse_span(struct span text, bool to_head)
{
    struct parsed parsed = {.text = malloc(text.len)};
    ck_assert_ptr_nonnull(parsed.text);
    memcpy(parsed.text, text.base, text.len);
    memset(&parsed.head, 0xa5, sizeof(parsed.head));
    parsed.result = http_head_parse(parsed.text, text.len, 0, to_head, &parsed.head);
    return parsed;
}

static struct parsed parse(const char *text)
{
    return parse_span(span_of(text), false);
}

/* Parses a final head whole. */
static struct parsed parse_ok(const char *text, bool to_head)
{
    struct parsed parsed = parse_span(span_of(text), to_head);
    ck_assert_msg(parsed.result == HTTP_HEAD_FINAL, "%s: %s", text,
                  parsed.result == HTTP_HEAD_BAD ? parsed.head.problem : "not final");
    return parsed;
}

static struct span header(const struct http_head *head, const char *name)
{
    for (size_t i = 0; i < head->header_count; i++)
        if (span_eq(head->headers[i].name, span_of(name)))
            return head->headers[i].value;
    return SPAN_NONE;
}

/* Feeds a head that grows by `step` bytes, as a connection does, in memory that moves. `text` ends with the head. */
static void expect_split(struct span text, size_t first, size_t step, enum http_head_result expected)
{
    size_t last = 0;
    for (size_t len = first;; len = len + step < text.len ? len + step : text.len) {
        char *copy = malloc(len);
        struct http_head head;
        memcpy(copy, text.base, len);
        enum http_head_result result = http_head_parse(copy, len, last, false, &head);
        if (len == text.len) {
            ck_assert_int_eq(result, expected);
            if (result != HTTP_HEAD_BAD)
                ck_assert_uint_eq(head.length, text.len);
            free(copy);
            return;
        }
        ck_assert_msg(result == HTTP_HEAD_INCOMPLETE || (result == HTTP_HEAD_BAD && expected == HTTP_HEAD_BAD),
                      "%zu of %zu bytes: %d", len, text.len, result);
        free(copy);
        last = len;
    }
}

START_TEST(a_head_is_read)
{
    struct parsed parsed = parse_ok("HTTP/1.1 200 Fine\r\nServer: Uvicorn \r\nX-Empty:\r\ncontent-length:\t12 \r\n"
                                    "X-Twice: a\r\nX-TWICE: b\r\nCONTENT-TYPE: Application/JSON ; charset=utf-8\r\n\r\n"
                                    "{\"and\":\"more\"}",
                                    false);
    const struct http_head *head = &parsed.head;
    ck_assert_int_eq(head->status, 200);
    ck_assert_uint_eq(head->length, strstr(parsed.text, "{") - parsed.text);
    ck_assert_int_eq(head->framing, HTTP_BODY_LENGTH);
    ck_assert_uint_eq(head->content_length, 12);
    ck_assert(head->keep_alive && head->json && !head->sse);
    ck_assert_uint_eq(head->header_count, 5);
    ck_assert(span_eq(header(head, "server"), SPAN("Uvicorn")));
    ck_assert(span_eq(head->headers[1].name, SPAN("x-empty")) && head->headers[1].value.len == 0);
    ck_assert(span_eq(head->headers[2].value, SPAN("a")) && span_eq(head->headers[3].value, SPAN("b")));
    ck_assert(span_eq(header(head, "content-type"), SPAN("Application/JSON ; charset=utf-8")));
    free(parsed.text);
}
END_TEST

START_TEST(heads_may_come_in_pieces)
{
    static const struct {
        const char *text;
        enum http_head_result result;
    } cases[] = {
        {OK "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_HEAD_FINAL},
        {OK "\r\n", HTTP_HEAD_FINAL},
        {"HTTP/1.1 200 \nContent-Length: 1\n\n", HTTP_HEAD_FINAL}, /* bare line feeds: RFC 9112 §2.2 */
        {"HTTP/1.1 100 Continue\r\n\r\n", HTTP_HEAD_INTERIM},
        {OK "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", HTTP_HEAD_BAD},
        {"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", HTTP_HEAD_BAD},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct span text = span_of(cases[i].text);
        for (size_t at = 1; at <= text.len; at++)
            expect_split(text, at, text.len, cases[i].result);
        for (size_t step = 1; step <= 5; step++)
            expect_split(text, step, step, cases[i].result);
    }
}
END_TEST

static const struct {
    const char *text, *problem;
} refused[] = {
    {OK "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", "more than one Content-Length"},
    {OK "Content-Length: 5\r\ncontent-length: 6\r\n\r\n", "more than one Content-Length"},
    {OK "Content-Length: 5, 5\r\n\r\n", "unreadable Content-Length"},
    {OK "Content-Length: +5\r\n\r\n", "unreadable Content-Length"},
    {OK "Content-Length: -1\r\n\r\n", "unreadable Content-Length"},
    {OK "Content-Length: 0x5\r\n\r\n", "unreadable Content-Length"},
    {OK "Content-Length: 5 5\r\n\r\n", "unreadable Content-Length"},
    {OK "Content-Length: 5.0\r\n\r\n", "unreadable Content-Length"},
    {OK "Content-Length:\r\n\r\n", "unreadable Content-Length"},
    {OK "Content-Length:   \r\n\r\n", "unreadable Content-Length"},
    {OK "Content-Length: 1000000000000000000\r\n\r\n", "unreadable Content-Length"},
    {OK "Content-Length: 18446744073709551617\r\n\r\n", "unreadable Content-Length"},
    {OK "Transfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding other than chunked"},
    {OK "Transfer-Encoding: gzip, chunked\r\n\r\n", "Transfer-Encoding other than chunked"},
    {OK "Transfer-Encoding: chunked, chunked\r\n\r\n", "Transfer-Encoding other than chunked"},
    {OK "Transfer-Encoding: identity\r\n\r\n", "Transfer-Encoding other than chunked"},
    {OK "Transfer-Encoding:\r\n\r\n", "Transfer-Encoding other than chunked"},
    {OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding other than chunked"},
    {OK "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "both Content-Length and Transfer-Encoding"},
    {OK "Content-Length: 5\r\nTransfer-Encoding: Chunked\r\n\r\n", "both Content-Length and Transfer-Encoding"},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in an HTTP/1.0 answer"},
    {OK "A: b\r\n c\r\n\r\n", "folded header line"},
    {OK "A: b\r\n\tContent-Length: 5\r\n\r\n", "folded header line"},
    {OK " A: b\r\n\r\n", "not HTTP/1.1"},
    {OK "Content-Length : 5\r\n\r\n", "not HTTP/1.1"},
    {OK "Content-Length\t: 5\r\n\r\n", "not HTTP/1.1"},
    {OK "Content Length: 5\r\n\r\n", "not HTTP/1.1"},
    {OK ": 5\r\n\r\n", "not HTTP/1.1"},
    {OK "no colon\r\n\r\n", "not HTTP/1.1"},
    {OK "A: b\rc\r\n\r\n", "not HTTP/1.1"},
    {OK "A: b\x01\r\n\r\n", "not HTTP/1.1"},
    {OK "A: b\x7f\r\n\r\n", "not HTTP/1.1"},
    {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "switched protocols unasked"},
    {"HTTP/1.1 000 No\r\n\r\n", "no valid status"},
    {"HTTP/1.1 099 No\r\n\r\n", "no valid status"},
    {"HTTP/1.1 600 No\r\n\r\n", "no valid status"},
    {"HTTP/1.1 999 No\r\n\r\n", "no valid status"},
    {"HTTP/1.1 99 No\r\n\r\n", "not HTTP/1.1"},
    {"HTTP/1.1 0 No\r\n\r\n", "not HTTP/1.1"},
    {"HTTP/1.1 2000 No\r\n\r\n", "not HTTP/1.1"},
    {"HTTP/1.1 -20 No\r\n\r\n", "not HTTP/1.1"},
    {"HTTP/2.0 200 OK\r\n\r\n", "not HTTP/1.1"},
    {"HTTP/0.9 200 OK\r\n\r\n", "not HTTP/1.1"},
    {"http/1.1 200 OK\r\n\r\n", "not HTTP/1.1"},
    {"ICY 200 OK\r\nA: b\r\n\r\n", "not HTTP/1.1"},
    {"<html>hello, this is no HTTP</html>", "not HTTP/1.1"},
    {OK "Connection: a\r\nConnection: b\r\nConnection: c\r\nConnection: d\r\nConnection: e\r\n\r\n",
     "too many Connection headers"},
};

START_TEST(what_could_be_read_in_two_ways_is_refused)
{
    struct parsed parsed = parse(refused[_i].text);
    ck_assert_msg(parsed.result == HTTP_HEAD_BAD, "%s: %d", refused[_i].text, parsed.result);
    ck_assert_msg(strstr(parsed.head.problem, refused[_i].problem) != NULL, "%s: %s", refused[_i].text,
                  parsed.head.problem);
    free(parsed.text);
}
END_TEST

START_TEST(nul_is_refused_wherever_it_stands)
{
    static const char text[] = OK "Name: value\r\n\r\n";
    for (size_t at = 0; at + 1 < sizeof(text) - 1; at++) {
        char copy[sizeof(text)];
        memcpy(copy, text, sizeof(text));
        copy[at] = '\0';
        struct parsed parsed = parse_span((struct span){copy, sizeof(text) - 1}, false);
        ck_assert_msg(parsed.result == HTTP_HEAD_BAD || parsed.result == HTTP_HEAD_INCOMPLETE, "at %zu", at);
        ck_assert(at > 30 || parsed.result == HTTP_HEAD_BAD);
        free(parsed.text);
    }
}
END_TEST

/* 64 KiB and 100 headers are the most. */
START_TEST(heads_have_a_maximum)
{
    for (int over = 0; over < 2; over++) {
        struct strbuf text;
        strbuf_init(&text, 1 << 20);
        strbuf_puts(&text, OK "X: ");
        while (text.len < (size_t)HTTP_HEAD_MAX - 4 + (size_t)over)
            strbuf_putc(&text, 'x');
        struct parsed parsed = parse_span(strbuf_span(&text), false);
        ck_assert_int_eq(parsed.result, HTTP_HEAD_INCOMPLETE);
        free(parsed.text);
        strbuf_puts(&text, "\r\n\r\n");
        parsed = parse_span(strbuf_span(&text), false);
        ck_assert_int_eq(parsed.result, over != 0 ? HTTP_HEAD_BAD : HTTP_HEAD_FINAL);
        if (over != 0)
            ck_assert_ptr_nonnull(strstr(parsed.head.problem, "over 64 KiB"));
        free(parsed.text);
        text.len -= 2; /* not at its end, and already too long */
        strbuf_puts(&text, "X: y");
        parsed = parse_span(strbuf_span(&text), false);
        ck_assert_int_eq(parsed.result, HTTP_HEAD_BAD);
        ck_assert_ptr_nonnull(strstr(parsed.head.problem, "over 64 KiB"));
        free(parsed.text);
        strbuf_dispose(&text);
    }
    for (int count = HTTP_HEADERS_MAX - 1; count <= HTTP_HEADERS_MAX + 1; count++) {
        struct strbuf text;
        strbuf_init(&text, 1 << 20);
        strbuf_puts(&text, OK);
        for (int i = 0; i < count; i++)
            strbuf_printf(&text, "h%d: %d\r\n", i, i);
        strbuf_puts(&text, "\r\n");
        struct parsed parsed = parse_span(strbuf_span(&text), false);
        ck_assert_int_eq(parsed.result, count > HTTP_HEADERS_MAX ? HTTP_HEAD_BAD : HTTP_HEAD_FINAL);
        if (count <= HTTP_HEADERS_MAX)
            ck_assert_uint_eq(parsed.head.header_count, (size_t)count);
        free(parsed.text);
        strbuf_dispose(&text);
    }
}
END_TEST

START_TEST(interim_heads_are_told_apart)
{
    static const int statuses[] = {100, 102, 103, 199};
    for (size_t i = 0; i < COUNT(statuses); i++) {
        char text[128];
        snprintf(text, sizeof(text), "HTTP/1.1 %d Wait\r\nLink: <x>\r\n\r\n" OK "\r\n", statuses[i]);
        struct parsed parsed = parse(text);
        ck_assert_int_eq(parsed.result, HTTP_HEAD_INTERIM);
        ck_assert_uint_eq(parsed.head.length, strlen(text) - strlen(OK "\r\n"));
        free(parsed.text);
        parsed = parse(text + strlen(text) - strlen(OK "\r\n"));
        ck_assert_int_eq(parsed.result, HTTP_HEAD_FINAL);
        free(parsed.text);
    }
}
END_TEST

/* RFC 9112 §6.3 and §9.3. */
START_TEST(framing_and_keep_alive)
{
    static const struct {
        const char *text;
        bool to_head;
        enum http_framing framing;
        bool keep_alive;
        uint64_t length;
    } cases[] = {
        {OK "\r\n", false, HTTP_BODY_UNTIL_CLOSE, false, UINT64_MAX},
        {OK "Connection: keep-alive\r\n\r\n", false, HTTP_BODY_UNTIL_CLOSE, false, UINT64_MAX},
        {OK "Content-Length: 0\r\n\r\n", false, HTTP_BODY_NONE, true, 0},
        {OK "Content-Length: 007\r\n\r\n", false, HTTP_BODY_LENGTH, true, 7},
        {OK "Content-Length: 999999999999999999\r\n\r\n", false, HTTP_BODY_LENGTH, true, UINT64_C(999999999999999999)},
        {OK "Content-Length: 7\r\nConnection: close\r\n\r\n", false, HTTP_BODY_LENGTH, false, 7},
        {OK "Content-Length: 7\r\nConnection: x, CLOSE ,y\r\n\r\n", false, HTTP_BODY_LENGTH, false, 7},
        {OK "Content-Length: 7\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false, HTTP_BODY_LENGTH, false,
         7},
        {OK "Content-Length: 7\r\nConnection: closed\r\n\r\n", false, HTTP_BODY_LENGTH, true, 7},
        {OK "Transfer-Encoding: CHUNKED\r\n\r\n", false, HTTP_BODY_CHUNKED, true, UINT64_MAX},
        {OK "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", false, HTTP_BODY_CHUNKED, false, UINT64_MAX},
        {"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n", false, HTTP_BODY_LENGTH, false, 7},
        {"HTTP/1.0 200 OK\r\nContent-Length: 7\r\nConnection: Keep-Alive\r\n\r\n", false, HTTP_BODY_LENGTH, true, 7},
        {"HTTP/1.0 200 OK\r\n\r\n", false, HTTP_BODY_UNTIL_CLOSE, false, UINT64_MAX},
        {OK "Content-Length: 7\r\n\r\n", true, HTTP_BODY_NONE, true, 7},
        {OK "\r\n", true, HTTP_BODY_NONE, true, UINT64_MAX},
        {OK "Transfer-Encoding: chunked\r\n\r\n", true, HTTP_BODY_NONE, false, UINT64_MAX},
        {OK "Content-Length: 7\r\nConnection: close\r\n\r\n", true, HTTP_BODY_NONE, false, 7},
        {"HTTP/1.1 204 No Content\r\n\r\n", false, HTTP_BODY_NONE, true, UINT64_MAX},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", false, HTTP_BODY_NONE, true, 7},
        {"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", false, HTTP_BODY_NONE, false, UINT64_MAX},
        {"HTTP/1.1 205 Reset\r\nContent-Length: 7\r\n\r\n", false, HTTP_BODY_LENGTH, true, 7},
        {"HTTP/1.1 599 Odd\r\nContent-Length: 7\r\n\r\n", false, HTTP_BODY_LENGTH, true, 7},
        {"HTTP/1.1 200 \r\nContent-Length: 7\r\n\r\n", false, HTTP_BODY_LENGTH, true, 7},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct parsed parsed = parse_ok(cases[i].text, cases[i].to_head);
        ck_assert_msg(parsed.head.framing == cases[i].framing, "case %zu: %d", i, parsed.head.framing);
        ck_assert_msg(parsed.head.keep_alive == cases[i].keep_alive, "case %zu", i);
        ck_assert_msg(parsed.head.content_length == cases[i].length, "case %zu", i);
        free(parsed.text);
    }
}
END_TEST

START_TEST(hop_by_hop_headers_end_here)
{
    struct parsed parsed = parse_ok(
        OK "Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nProxy-Authenticate: Basic\r\nTE: trailers\r\n"
           "Trailer: X\r\nUpgrade: h2c\r\nContent-Length: 1\r\nX-Hop: 1\r\nX-Hop-Not: 1\r\nx-second: 2\r\n"
           "Date: now\r\nConnection: x-hop , X-SECOND\r\nConnection: x-third\r\nX-Third: 3\r\nWWW-Authenticate: "
           "Bearer\r\nSet-Cookie: a\r\nRetry-After: 3\r\n\r\n",
        false);
    static const char *const names[] = {"x-hop-not", "date", "www-authenticate", "set-cookie", "retry-after"};
    ck_assert_uint_eq(parsed.head.header_count, COUNT(names));
    for (size_t i = 0; i < COUNT(names); i++)
        ck_assert(span_eq(parsed.head.headers[i].name, span_of(names[i])));
    free(parsed.text);
    parsed = parse_ok(OK "Transfer-Encoding: chunked\r\n\r\n", false);
    ck_assert_uint_eq(parsed.head.header_count, 0);
    free(parsed.text);
}
END_TEST

START_TEST(content_types_are_recognised)
{
    static const struct {
        const char *type;
        bool sse, json;
    } cases[] = {
        {"text/event-stream", true, false},
        {"Text/Event-Stream; charset=utf-8", true, false},
        {"text/event-stream ;x", true, false},
        {"text/event-streams", false, false},
        {"text/event", false, false},
        {"application/json", false, true},
        {"APPLICATION/JSON;charset=utf-8", false, true},
        {"application/problem+json", false, true},
        {"application/vnd.api+JSON; a=b", false, true},
        {"application/jsonl", false, false},
        {"application/x-ndjson", false, false},
        {"text/plain; application/json", false, false},
        {"+json", false, false},
        {";", false, false},
        {"", false, false},
        {"x", false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[160];
        snprintf(text, sizeof(text), OK "Content-Type: %s\r\n\r\n", cases[i].type);
        struct parsed parsed = parse_ok(text, false);
        ck_assert_msg(parsed.head.sse == cases[i].sse && parsed.head.json == cases[i].json, "%s", cases[i].type);
        free(parsed.text);
    }
    struct parsed parsed = parse_ok(OK "\r\n", false);
    ck_assert(!parsed.head.sse && !parsed.head.json);
    free(parsed.text);
}
END_TEST

/* No byte anywhere makes it read beyond its text or tell of a head that is longer. */
START_TEST(survives_any_byte_anywhere)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nConnection: a\r\nContent-Length: 5\r\nContent-Type: a/b\r\n\r\n";
    for (size_t at = 0; at < sizeof(text) - 1; at++) {
        for (int byte = 0; byte < 256; byte++) {
            char copy[sizeof(text)];
            memcpy(copy, text, sizeof(text));
            copy[at] = (char)byte;
            struct parsed parsed = parse_span((struct span){copy, sizeof(text) - 1}, false);
            if (parsed.result == HTTP_HEAD_BAD)
                ck_assert_ptr_nonnull(strstr(parsed.head.problem, "backend"));
            else if (parsed.result != HTTP_HEAD_INCOMPLETE)
                ck_assert_uint_le(parsed.head.length, sizeof(text) - 1);
            free(parsed.text);
        }
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("http_head");

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_head_is_read);
    tcase_add_test(tests, heads_may_come_in_pieces);
    tcase_add_loop_test(tests, what_could_be_read_in_two_ways_is_refused, 0, COUNT(refused));
    tcase_add_test(tests, nul_is_refused_wherever_it_stands);
    tcase_add_test(tests, heads_have_a_maximum);
    tcase_add_test(tests, interim_heads_are_told_apart);
    tcase_add_test(tests, framing_and_keep_alive);
    tcase_add_test(tests, hop_by_hop_headers_end_here);
    tcase_add_test(tests, content_types_are_recognised);
    tcase_add_test(tests, survives_any_byte_anywhere);
    return run_suite("http_head", tests);
}
