/* What `weir ask` makes of answers: gateway/ask_reply, and the URLs of gateway/ask_link. */
#include "gateway/ask_link.h"
#include "gateway/ask_reply.h"
#include "run_suite.h"
#include <stdio.h>
#include <stdlib.h>

#define SSE_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"

/* What came out of one answer. */
struct outcome {
    struct ask_reply reply;
    enum ask_progress progress;
    struct strbuf content, reasoning;
};

static void collect(void *ctx, enum ask_text kind, struct span text)
{
    struct outcome *outcome = ctx;
    strbuf_add(kind == ASK_CONTENT ? &outcome->content : &outcome->reasoning, text);
}

/* Reads `wire` in pieces of `piece` bytes, then the connection's end. Each piece is copied to memory of its exact size,
 * so that AddressSanitizer sees a read beyond it. */
static void read_wire(struct outcome *outcome, struct span wire, size_t piece, bool chat)
{
    ask_reply_init(&outcome->reply, chat ? collect : NULL, outcome);
    strbuf_init(&outcome->content, 1 << 22);
    strbuf_init(&outcome->reasoning, 1 << 22);
    outcome->progress = ASK_MORE;
    while (wire.len != 0 && outcome->progress == ASK_MORE) {
        size_t len = piece < wire.len ? piece : wire.len;
        char *copy = malloc(len);
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, wire.base, len);
        outcome->progress = ask_reply_feed(&outcome->reply, (struct span){copy, len});
        free(copy);
        wire = span_skip(wire, len);
    }
    outcome->progress = outcome->progress == ASK_MORE ? ask_reply_end(&outcome->reply) : outcome->progress;
    ck_assert_int_ne(outcome->progress, ASK_MORE);
}

static void dispose(struct outcome *outcome)
{
    ask_reply_dispose(&outcome->reply);
    strbuf_dispose(&outcome->content);
    strbuf_dispose(&outcome->reasoning);
}

/* Reads it whole, by the byte and in pieces of three; `content` is what must come, `error` NULL if it must succeed. */
static void expect(struct span wire, const char *content, const char *reasoning, const char *error)
{
    static const size_t pieces[] = {SIZE_MAX, 1, 3};
    for (size_t i = 0; i != sizeof(pieces) / sizeof(*pieces); ++i) {
        struct outcome outcome;
        read_wire(&outcome, wire, pieces[i], true);
        ck_assert_str_eq(strbuf_cstr(&outcome.content), content);
        ck_assert_str_eq(strbuf_cstr(&outcome.reasoning), reasoning);
        ck_assert_str_eq(strbuf_cstr(&outcome.reply.error), error != NULL ? error : "");
        ck_assert_int_eq(outcome.progress, error != NULL ? ASK_BAD : ASK_DONE);
        dispose(&outcome);
    }
}

/* Puts a body into chunks of `size` bytes. */
static void add_chunked(struct strbuf *out, struct span body, size_t size)
{
    while (body.len != 0) {
        size_t len = body.len < size ? body.len : size;
        strbuf_printf(out, "%zX;x=y\r\n", len);
        strbuf_add(out, (struct span){body.base, len});
        strbuf_puts(out, "\r\n");
        body = span_skip(body, len);
    }
    strbuf_puts(out, "0\r\nTrailer: x\r\n\r\n");
}

static const char stream[] =
    ": ping\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"reasoning\":\"hm\"}}]}\r\n\r\n"
    "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"!\"}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"Gr\\u00fc\\u00dfe, \"}}],\"usage\":null}\n\n"
    "data: {\"choices\":\ndata: [{\"delta\":{\"content\":\"Welt\"},\"finish_reason\":\"length\"}]}\n\n"
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":7}}\n\n"
    "data: [DONE]\n\n";

START_TEST(a_stream_is_read_however_it_is_framed)
{
    struct strbuf wire;
    strbuf_init(&wire, 1 << 16);
    strbuf_puts(&wire, SSE_HEAD "\r\n");
    strbuf_puts(&wire, stream);
    expect(strbuf_span(&wire), "Grüße, Welt", "hm!", NULL);

    strbuf_reset(&wire);
    strbuf_printf(&wire, SSE_HEAD "content-length:  %zu \r\n\r\n%s", strlen(stream), stream);
    expect(strbuf_span(&wire), "Grüße, Welt", "hm!", NULL);

    static const size_t sizes[] = {1, 7, 4096};
    for (size_t i = 0; i != sizeof(sizes) / sizeof(*sizes); ++i) {
        strbuf_reset(&wire);
        strbuf_puts(&wire, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        strbuf_puts(&wire, SSE_HEAD "Transfer-Encoding: Chunked\r\n\r\n");
        add_chunked(&wire, span_of(stream), sizes[i]);
        expect(strbuf_span(&wire), "Grüße, Welt", "hm!", NULL);
    }
    strbuf_dispose(&wire);
}
END_TEST

START_TEST(usage_and_finish_reason_are_kept)
{
    struct strbuf wire;
    strbuf_init(&wire, 1 << 16);
    strbuf_puts(&wire, SSE_HEAD "\r\n");
    strbuf_puts(&wire, stream);
    struct outcome outcome;
    read_wire(&outcome, strbuf_span(&wire), 5, true);
    ck_assert(outcome.reply.usage.known);
    ck_assert_uint_eq(outcome.reply.usage.prompt, 3);
    ck_assert_uint_eq(outcome.reply.usage.completion, 7);
    ck_assert_str_eq(outcome.reply.finish_reason, "length");
    ck_assert_uint_eq(outcome.reply.pieces, 4);
    dispose(&outcome);
    strbuf_dispose(&wire);
}
END_TEST

START_TEST(text_comes_as_soon_as_its_event_is_complete)
{
    struct outcome outcome = {.progress = ASK_MORE};
    ask_reply_init(&outcome.reply, collect, &outcome);
    strbuf_init(&outcome.content, 64);
    strbuf_init(&outcome.reasoning, 64);
    struct span first = SPAN(SSE_HEAD "\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n");
    ck_assert_int_eq(ask_reply_feed(&outcome.reply, first), ASK_MORE);
    ck_assert_str_eq(strbuf_cstr(&outcome.content), "");
    ck_assert_int_eq(ask_reply_feed(&outcome.reply, SPAN("\n")), ASK_MORE);
    ck_assert_str_eq(strbuf_cstr(&outcome.content), "a");
    ck_assert_int_eq(ask_reply_feed(&outcome.reply, SPAN("data: [DONE]\n\n")), ASK_DONE);
    dispose(&outcome);
}
END_TEST

START_TEST(an_answer_that_is_no_stream_is_printed_too)
{
    expect(SPAN("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 68\r\n\r\n"
                "{\"choices\":[{\"message\":{\"content\":\"whole\"},\"finish_reason\":\"stop\"}]}"),
           "whole", "", NULL);
    expect(SPAN("HTTP/1.1 200 OK\r\n\r\n<html>"), "", "",
           "the answer is neither an event stream nor a JSON object; is this the right URL?");
    expect(SPAN("HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ok\"}"), "", "",
           "the answer is not a chat completion; is this the right URL?");
}
END_TEST

START_TEST(refusals_say_status_message_code_and_request)
{
    expect(SPAN("HTTP/1.1 401 Unauthorized\r\nX-Request-Id: req_1\r\nContent-Length: 56\r\n\r\n"
                "{\"error\":{\"message\":\"no key\",\"code\":\"invalid_api_key\"}}\n"),
           "", "", "401 Unauthorized: no key (invalid_api_key), request req_1");
    expect(SPAN("HTTP/1.1 429 Too Many Requests\r\n\r\n{\"error\":\"Rate limit exceeded: 5 per 1 minute\"}"), "", "",
           "429 Too Many Requests: Rate limit exceeded: 5 per 1 minute");
    expect(SPAN("HTTP/1.1 404\r\n\r\n{\"detail\":\"Not Found\"}"), "", "", "404: Not Found");
    expect(SPAN("HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\033[2Jx\r\n0\r\n\r\n"), "", "",
           "502 Bad: \xef\xbf\xbd[2Jx");
    expect(SPAN("HTTP/1.1 503 Busy\r\nX-Request-Id:\r\nContent-Length: 0\r\n\r\n"), "", "", "503 Busy");
    /* An error body that calls itself a stream, and one that breaks off, are told all the same. */
    expect(SPAN("HTTP/1.1 500 Oops\r\nContent-Type: text/event-stream\r\n\r\n{\"message\":\"m\"}"), "", "",
           "500 Oops: m");
    expect(SPAN("HTTP/1.1 500 Oops\r\nContent-Length: 99\r\n\r\n{\"error\""), "", "", "500 Oops: {\"error\"");
}
END_TEST

START_TEST(a_stream_that_breaks_is_never_passed_off_as_finished)
{
    expect(SPAN(SSE_HEAD "\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n"), "half", "",
           "the answer broke off before its end");
    expect(SPAN(SSE_HEAD "Content-Length: 99\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n"),
           "half", "", "the answer broke off before its end");
    expect(SPAN(SSE_HEAD "\r\n"), "", "", "the gateway ended the stream before it began to answer");
    expect(SPAN(SSE_HEAD "\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n"
                         "data: {\"error\":{\"message\":\"backend gone\",\"code\":\"upstream_reset\"}}\n\n"
                         "data: [DONE]\n\n"),
           "half", "", "the answer broke off: backend gone (upstream_reset)");
    expect(SPAN(SSE_HEAD "\r\ndata: {\"error\":{}}\n\n"), "", "", "the gateway reported an error without a message");
    expect(SPAN(SSE_HEAD "\r\ndata: nonsense\n\n"), "", "", "the gateway sent an event that is not a JSON object");
    expect(SPAN("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), "", "",
           "the answer broke off before its end");
}
END_TEST

START_TEST(what_is_not_http_is_refused)
{
    static const char not_http[] = "what answers there does not speak HTTP/1.1; are scheme and port of the URL right?";
    static const char chunks[] = "the gateway sent malformed chunks";
    expect(SPAN(""), "", "", "the gateway closed the connection without an answer");
    expect(SPAN("HTTP/1.1 200 OK\r\n"), "", "", "the gateway closed the connection without an answer");
    expect(SPAN("\x15\x03\x01\x00\x02"), "", "", not_http);
    expect(SPAN("\r\n\r\n"), "", "", not_http);
    expect(SPAN("HTTP/2 200\r\n\r\n"), "", "", not_http);
    expect(SPAN("HTTP/1.1 2x0 OK\r\n\r\n"), "", "", "the gateway sent a malformed status line");
    expect(SPAN("HTTP/1.1 000 OK\r\n\r\n"), "", "", "the gateway sent a malformed status line");
    expect(SPAN("HTTP/1.1 101 Switching\r\n\r\n"), "", "", "the gateway switched protocols unasked");
    expect(SPAN("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), "", "", "the gateway sent a malformed header");
    expect(SPAN("HTTP/1.1 200 OK\r\nA: b\r\n folded: c\r\n\r\n"), "", "", "the gateway sent a malformed header");
    expect(SPAN("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), "", "",
           "the gateway sent a malformed Content-Length");
    expect(SPAN("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"), "", "",
           "the gateway sent a malformed Content-Length");
    expect(SPAN("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), "", "",
           "the gateway sent a malformed Content-Length");
    expect(SPAN("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), "", "",
           "the gateway sent a Transfer-Encoding other than chunked");
    expect(SPAN("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"), "", "",
           "the gateway sent both Transfer-Encoding and Content-Length");
#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    expect(SPAN(CHUNKED "\r\n"), "", "", chunks);
    expect(SPAN(CHUNKED "x\r\n"), "", "", chunks);
    expect(SPAN(CHUNKED "-1\r\n"), "", "", chunks);
    expect(SPAN(CHUNKED "1g\r\n"), "", "", chunks);
    expect(SPAN(CHUNKED "ffffffffffffffff\r\n"), "", "", chunks);
    expect(SPAN(CHUNKED "1\r\nab\r\n"), "", "", chunks);
    expect(SPAN(CHUNKED "1\r\na\r\r\n"), "", "", chunks);
}
END_TEST

START_TEST(nothing_grows_without_bound)
{
    struct strbuf wire;
    strbuf_init(&wire, 16 << 20);
    struct outcome outcome;

    strbuf_puts(&wire, "HTTP/1.1 200 OK\r\nX: ");
    for (size_t i = 0; i != ASK_HEAD_MAX; ++i)
        strbuf_putc(&wire, 'a');
    read_wire(&outcome, strbuf_span(&wire), SIZE_MAX, true);
    ck_assert_str_eq(strbuf_cstr(&outcome.reply.error), "the gateway sent a head of more than 64 KiB");
    dispose(&outcome);

    strbuf_reset(&wire);
    for (size_t i = 0; i != 4000; ++i)
        strbuf_puts(&wire, "HTTP/1.1 100 Continue\r\n\r\n");
    read_wire(&outcome, strbuf_span(&wire), SIZE_MAX, true);
    ck_assert_str_eq(strbuf_cstr(&outcome.reply.error), "the gateway sent a head of more than 64 KiB");
    dispose(&outcome);

    strbuf_reset(&wire);
    strbuf_puts(&wire, "HTTP/1.1 200 OK\r\n\r\n");
    for (size_t i = 0; i <= ASK_BODY_MAX; ++i)
        strbuf_putc(&wire, 'a');
    read_wire(&outcome, strbuf_span(&wire), 65536, false);
    ck_assert_str_eq(strbuf_cstr(&outcome.reply.error), "the gateway sent a body of more than 8 MiB");
    dispose(&outcome);

    strbuf_reset(&wire);
    strbuf_puts(&wire, SSE_HEAD "\r\ndata: {\"x\":\"");
    for (size_t i = 0; i <= ASK_EVENT_MAX; ++i)
        strbuf_putc(&wire, 'a');
    strbuf_puts(&wire, "\"}\n\n");
    read_wire(&outcome, strbuf_span(&wire), 4096, true);
    ck_assert_str_eq(strbuf_cstr(&outcome.reply.error), "the gateway sent an event of more than 1 MiB");
    dispose(&outcome);
    strbuf_dispose(&wire);
}
END_TEST

START_TEST(the_first_model_is_found)
{
    struct outcome outcome;
    read_wire(&outcome,
              SPAN("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
                   "{\"object\":\"list\",\"data\":[{\"id\":\"demo\"},{\"id\":\"b\"}]}"),
              2, false);
    ck_assert_int_eq(outcome.progress, ASK_DONE);
    char name[5], small[4];
    ck_assert(ask_first_model(strbuf_span(&outcome.reply.body), name, sizeof(name)));
    ck_assert_str_eq(name, "demo");
    ck_assert(!ask_first_model(strbuf_span(&outcome.reply.body), small, sizeof(small)));
    dispose(&outcome);
    static const char *const none[] = {"",
                                       "{}",
                                       "[]",
                                       "{\"data\":[]}",
                                       "{\"data\":[{\"id\":1}]}",
                                       "{\"data\":[{\"id\":\"\"}]}",
                                       "{\"data\":[{\"id\":\"a\\u0000\"}]}"};
    for (size_t i = 0; i != sizeof(none) / sizeof(*none); ++i)
        ck_assert_msg(!ask_first_model(span_of(none[i]), name, sizeof(name)), "%s", none[i]);
}
END_TEST

START_TEST(no_control_character_reaches_a_terminal)
{
#define R "\xef\xbf\xbd"
    static const struct {
        struct span in;
        const char *out;
    } cases[] = {
        {SPAN("plain\ttext\n"), "plain\ttext\n"},
        {SPAN("Grüße 水 🌊"), "Grüße 水 🌊"},
        {SPAN("\033]0;title\007\033[31m"), R "]0;title" R R "[31m"},
        {SPAN("a\r\nb\bc\177\0d"), "a\nb" R "c" R R "d"},
        {SPAN("\xc2\x9b"
              "31m"),
         R "31m"}, /* CSI as a C1 character */
        {SPAN("\xc2\x80\xc2\x9f\xc2\xa0"), R R "\xc2\xa0"},
        {SPAN("\x9b"
              "31m"),
         R "31m"},                                 /* and as a bare byte */
        {SPAN("\xc0\x9b\xe0\x82\x9b"), R R R R R}, /* overlong */
        {SPAN("\xed\xa0\x80"), R R R},             /* a surrogate */
        {SPAN("\xf4\x90\x80\x80"), R R R R},       /* beyond U+10FFFF */
        {SPAN("cut \xe6\xb0"), "cut " R R},
    };
    for (size_t i = 0; i != sizeof(cases) / sizeof(*cases); ++i) {
        struct strbuf out;
        strbuf_init(&out, 1024);
        char *copy = malloc(cases[i].in.len);
        memcpy(copy, cases[i].in.base, cases[i].in.len);
        ask_clean((struct span){copy, cases[i].in.len}, &out);
        ck_assert_str_eq(strbuf_cstr(&out), cases[i].out);
        free(copy);
        strbuf_dispose(&out);
    }
}
END_TEST

START_TEST(urls_are_taken_apart)
{
    static const struct {
        const char *url, *host, *port, *authority, *base;
        bool tls, ip;
    } good[] = {
        {"http://127.0.0.1:8080", "127.0.0.1", "8080", "127.0.0.1:8080", "/v1", false, true},
        {"HTTPS://Gate.example", "Gate.example", "443", "Gate.example", "/v1", true, false},
        {"http://h/", "h", "80", "h", "/v1", false, false},
        {"http://h:1/v1/", "h", "1", "h:1", "/v1", false, false},
        {"http://h/api", "h", "80", "h", "/api/v1", false, false},
        {"https://[::1]:8443/a/v1", "::1", "8443", "[::1]:8443", "/a/v1", true, true},
        {"http://[::1]", "::1", "80", "[::1]", "/v1", false, true},
    };
    struct ask_url url;
    char error[256];
    for (size_t i = 0; i != sizeof(good) / sizeof(*good); ++i) {
        ck_assert_msg(ask_url_parse(span_of(good[i].url), &url, error, sizeof(error)), "%s: %s", good[i].url, error);
        ck_assert_str_eq(url.host, good[i].host);
        ck_assert_str_eq(url.port, good[i].port);
        ck_assert_str_eq(url.authority, good[i].authority);
        ck_assert_str_eq(url.base, good[i].base);
        ck_assert_int_eq(url.tls, good[i].tls);
        ck_assert_int_eq(url.host_is_ip, good[i].ip);
        ck_assert_str_eq(url.unix_path, "");
    }
    ck_assert(ask_url_parse(SPAN("http://unix:/run/weir.sock"), &url, error, sizeof(error)));
    ck_assert_str_eq(url.unix_path, "/run/weir.sock");
    ck_assert_str_eq(url.authority, "localhost");
    ck_assert_str_eq(url.base, "/v1");
    ck_assert(ask_url_parse(SPAN("http://unix:80/run"), &url, error, sizeof(error))); /* a host */
    ck_assert_str_eq(url.unix_path, "");
    char longest[200] = "http://unix:/";
    memset(longest + 13, 'x', 106);
    ck_assert(ask_url_parse(span_of(longest), &url, error, sizeof(error)));
    ck_assert_uint_eq(strlen(url.unix_path), 107);
    longest[13 + 106] = 'x';
    ck_assert(!ask_url_parse(span_of(longest), &url, error, sizeof(error)));
    static const char *const bad[] = {
        "",
        "localhost:8080",
        "ftp://h",
        "http://",
        "http://:80",
        "http://h:",
        "http://h:0",
        "http://h:65536",
        "http://h:8o8",
        "http://::1",
        "http://[::1",
        "http://[h]",
        "http://[]",
        "http://[::1]8",
        "http://u@h",
        "http://h?q",
        "http://h\r\nX: y/",
        "http://h/#f",
        "https://unix:/run/weir.sock",
        "http://unix:/a b",
        "http://unix:",
    };
    for (size_t i = 0; i != sizeof(bad) / sizeof(*bad); ++i)
        ck_assert_msg(!ask_url_parse(span_of(bad[i]), &url, error, sizeof(error)), "'%s' was accepted", bad[i]);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("ask");
    tcase_add_test(tests, a_stream_is_read_however_it_is_framed);
    tcase_add_test(tests, usage_and_finish_reason_are_kept);
    tcase_add_test(tests, text_comes_as_soon_as_its_event_is_complete);
    tcase_add_test(tests, an_answer_that_is_no_stream_is_printed_too);
    tcase_add_test(tests, refusals_say_status_message_code_and_request);
    tcase_add_test(tests, a_stream_that_breaks_is_never_passed_off_as_finished);
    tcase_add_test(tests, what_is_not_http_is_refused);
    tcase_add_test(tests, nothing_grows_without_bound);
    tcase_add_test(tests, the_first_model_is_found);
    tcase_add_test(tests, no_control_character_reaches_a_terminal);
    tcase_add_test(tests, urls_are_taken_apart);
    return run_suite("gateway/ask", tests);
}
