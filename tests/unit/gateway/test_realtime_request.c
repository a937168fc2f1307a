#include "gateway/realtime_request.h"
#include "gateway/ws_backend.h"
#include "run_suite.h"
#include <stdlib.h>

static struct config config;
static struct site site = {.config = &config};
static struct site_route route;
static struct call call;
static struct backend_settings settings;
static struct realtime_request made;

static void setup(void)
{
    config.key_count = 0;
    call = (struct call){.site = &site, .route = &route, .path = SPAN("/v1/realtime"), .traceparent = SPAN("00-t")};
    strcpy(call.request_id, "req_1");
    backend_settings_init(&settings);
    settings.url = (struct backend_url){.path = (char *)""};
}

static bool make(struct span model)
{
    realtime_request_dispose(&made);
    return realtime_request_make(&call, &settings, model, &made);
}

static void expect_query(const char *query, const char *model, bool drop_key, const char *expected)
{
    struct strbuf out;
    strbuf_init(&out, 1000);
    realtime_request_query(span_of(query), span_of(model), drop_key, &out);
    ck_assert_msg(strcmp(strbuf_cstr(&out), expected) == 0, "%s: %s", query, strbuf_cstr(&out));
    strbuf_dispose(&out);
}

START_TEST(the_query_names_the_model_once)
{
    expect_query("", "", false, "");
    expect_query("", "m", false, "model=m");
    expect_query("model=a", "b/c d", false, "model=b%2Fc%20d");
    expect_query("model=a&m%6fdel=b&x=1&model", "m", false, "model=m&x=1");
    expect_query("intent=transcription&&y", "", false, "intent=transcription&y=");
    expect_query("api_key=secret&a%70i_key=secret&x=%26+1", "", true, "x=%26+1");
    expect_query("api_key=own", "m", false, "model=m&api_key=own");
    expect_query("models=1&Model=2", "m", true, "model=m&models=1&Model=2");
}
END_TEST

START_TEST(the_target_follows_the_url)
{
    ck_assert(make(SPAN("m")));
    ck_assert_str_eq(strbuf_cstr(&made.target), "/v1/realtime?model=m");
    ck_assert(make(SPAN_NONE));
    ck_assert_str_eq(strbuf_cstr(&made.target), "/v1/realtime");
    settings.url.path = (char *)"/openai/v1";
    ck_assert(make(SPAN("m")));
    ck_assert_str_eq(strbuf_cstr(&made.target), "/openai/v1/realtime?model=m");
    settings.url.query = (char *)"api-version=7";
    ck_assert(make(SPAN("m")));
    ck_assert_str_eq(strbuf_cstr(&made.target), "/openai/v1/realtime?api-version=7&model=m");
    ck_assert(make(SPAN_NONE));
    ck_assert_str_eq(strbuf_cstr(&made.target), "/openai/v1/realtime?api-version=7");
    config.key_count = 1;
    call.query = SPAN("api_key=secret");
    ck_assert(make(SPAN_NONE));
    ck_assert_str_eq(strbuf_cstr(&made.target), "/openai/v1/realtime?api-version=7");
}
END_TEST

START_TEST(credentials_go_no_further_than_they_should)
{
    static const struct header headers[] = {{{"authorization", 13}, {"Bearer c", 8}},
                                            {{"x-api-key", 9}, {"c", 1}},
                                            {{"api-key", 7}, {"c", 1}},
                                            {{"sec-websocket-protocol", 22}, {"a, openai-insecure-api-key.c", 28}},
                                            {{"sec-websocket-key", 17}, {"k", 1}},
                                            {{"openai-beta", 11}, {"b", 1}},
                                            {{"cookie", 6}, {"c", 1}},
                                            {{"upgrade", 7}, {"websocket", 9}},
                                            {{"user-agent", 10}, {"ua", 2}}};
    call.headers = headers;
    call.header_count = sizeof(headers) / sizeof(headers[0]);
    ck_assert(make(SPAN("m"))); /* an open gateway passes them on */
    ck_assert_str_eq(strbuf_cstr(&made.headers),
                     "authorization: Bearer c\r\nx-api-key: c\r\napi-key: c\r\nopenai-beta: b\r\nuser-agent: ua\r\n"
                     "x-request-id: req_1\r\ntraceparent: 00-t\r\n");
    ck_assert_str_eq(strbuf_cstr(&made.protocols), "a, openai-insecure-api-key.c");

    config.key_count = 1;
    ck_assert(make(SPAN("m")));
    ck_assert_str_eq(strbuf_cstr(&made.headers),
                     "openai-beta: b\r\nuser-agent: ua\r\nx-request-id: req_1\r\ntraceparent: 00-t\r\n");
    ck_assert_str_eq(strbuf_cstr(&made.protocols), "a");

    config.key_count = 0;
    settings.api_key = (char *)"own";
    settings.auth = BACKEND_AUTH_API_KEY;
    struct backend_header own = {(char *)"OpenAI-Beta", (char *)"ours"};
    settings.headers = &own;
    settings.header_count = 1;
    ck_assert(make(SPAN("m")));
    ck_assert_str_eq(strbuf_cstr(&made.headers), "user-agent: ua\r\nOpenAI-Beta: ours\r\nx-request-id: req_1\r\n"
                                                 "traceparent: 00-t\r\napi-key: own\r\n");
    ck_assert_str_eq(strbuf_cstr(&made.protocols), "a");
    settings.headers = NULL;
    settings.header_count = 0;
}
END_TEST

START_TEST(what_does_not_fit_or_is_not_clean_is_not_sent)
{
    char text[WS_BACKEND_HEADERS_MAX + 1];
    memset(text, 'x', sizeof(text));
    call.query = (struct span){text, WS_BACKEND_TARGET_MAX - strlen("/v1/realtime?") - 1};
    ck_assert(make(SPAN_NONE)); /* a '=' comes behind it */
    call.query.len++;
    ck_assert(!make(SPAN_NONE));
    call.query = SPAN("a=\r\nX: 1");
    ck_assert(!make(SPAN_NONE));
    call.query = SPAN("a= b");
    ck_assert(!make(SPAN_NONE));
    call.query = SPAN_NONE;
    struct header header = {SPAN("x-a"), {text, sizeof(text)}};
    call.headers = &header;
    call.header_count = 1;
    ck_assert(!make(SPAN_NONE));
    header.value = SPAN("a\r\nb");
    ck_assert(!make(SPAN_NONE));
    header = (struct header){SPAN("sec-websocket-protocol"), {text, WS_BACKEND_PROTOCOLS_MAX + 1}};
    ck_assert(!make(SPAN_NONE));
    header.value.len = WS_BACKEND_PROTOCOLS_MAX;
    ck_assert(make(SPAN_NONE));
    header.value = SPAN("a b, c\x01, ,d");
    ck_assert(make(SPAN_NONE) == false); /* what is no clean line is refused as a whole */
    header.value = SPAN("a b, ,d");
    ck_assert(make(SPAN_NONE));
    ck_assert_str_eq(strbuf_cstr(&made.protocols), "d");
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("realtime_request");
    strbuf_init(&made.target, 1);
    strbuf_init(&made.protocols, 1);
    strbuf_init(&made.headers, 1);
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, the_query_names_the_model_once);
    tcase_add_test(tests, the_target_follows_the_url);
    tcase_add_test(tests, credentials_go_no_further_than_they_should);
    tcase_add_test(tests, what_does_not_fit_or_is_not_clean_is_not_sent);
    int status = run_suite("realtime_request", tests);
    realtime_request_dispose(&made);
    return status;
}
