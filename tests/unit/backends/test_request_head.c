#include "backends/request_head.h"
#include "run_suite.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A head as it was written, or NULL where it was refused, which is good until the next. */
static const char *written(const struct backend_settings *settings, const struct exchange_request *request)
{
    static char text[4096];
    struct strbuf out;
    strbuf_init_fixed(&out, text, sizeof(text));
    return request_head_write(&out, settings, request) ? strbuf_cstr(&out) : NULL;
}

/* With the defaults, and a url that must be right. */
static struct backend_settings backend(const char *url)
{
    struct backend_settings settings;
    char error[256];
    backend_settings_init(&settings);
    ck_assert_msg(backend_url_parse(span_of(url), &settings, error, sizeof(error)), "%s", error);
    return settings;
}

static struct exchange_request get(const char *path, const char *query)
{
    return (struct exchange_request){.method = SPAN("GET"), .path = span_of(path), .query = span_of(query)};
}

START_TEST(a_head_is_written)
{
    struct backend_settings settings = backend("http://example.com:8000");
    const struct header headers[] = {{SPAN("x-a"), SPAN("one")}, {SPAN("x-empty"), SPAN_NONE}};
    struct exchange_request request = get("/v1/models", "a=1");
    request.headers = headers;
    request.header_count = COUNT(headers);
    ck_assert_str_eq(written(&settings, &request), "GET /v1/models?a=1 HTTP/1.1\r\nhost: example.com:8000\r\n"
                                                   "x-a: one\r\nx-empty: \r\naccept-encoding: identity\r\n\r\n");
    request.has_body = true;
    ck_assert_ptr_nonnull(strstr(written(&settings, &request), "\r\ncontent-length: 0\r\n\r\n"));
    request.body[0] = SPAN("12345");
    request.body[EXCHANGE_BODY_PIECES - 1] = SPAN("6789012");
    ck_assert_ptr_nonnull(strstr(written(&settings, &request), "\r\ncontent-length: 12\r\n\r\n"));
    backend_settings_dispose(&settings);
}
END_TEST

START_TEST(a_url_with_a_path_takes_the_place_of_v1)
{
    static const struct {
        const char *url, *path, *query, *line;
        bool from_root;
    } cases[] = {
        {"http://h", "/v1/models", "", "GET /v1/models HTTP/1.1\r\n", false},
        {"http://h/api/v2", "/v1/models", "", "GET /api/v2/models HTTP/1.1\r\n", false},
        {"http://h/api", "/tools/v1/x", "", "GET /api/tools/v1/x HTTP/1.1\r\n", false},
        {"http://h/api", "/health", "", "GET /health HTTP/1.1\r\n", true},
        {"http://h/api?k=1", "/v1/models", "", "GET /api/models?k=1 HTTP/1.1\r\n", false},
        {"http://h/api?k=1", "/v1/models", "a=2", "GET /api/models?k=1&a=2 HTTP/1.1\r\n", false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct backend_settings settings = backend(cases[i].url);
        struct exchange_request request = get(cases[i].path, cases[i].query);
        request.from_root = cases[i].from_root;
        const char *head = written(&settings, &request);
        ck_assert_msg(strncmp(head, cases[i].line, strlen(cases[i].line)) == 0, "%zu: %s", i, head);
        backend_settings_dispose(&settings);
    }
}
END_TEST

START_TEST(a_backend_s_own_headers_and_key_replace_the_client_s)
{
    struct backend_settings settings = backend("http://h");
    const struct header headers[] = {{SPAN("authorization"), SPAN("Bearer client")},
                                     {SPAN("x-api-key"), SPAN("client")},
                                     {SPAN("x-mine"), SPAN("client")}};
    struct backend_header own = {"X-Mine", "backend"};
    struct exchange_request request = get("/v1/models", "");
    request.headers = headers;
    request.header_count = COUNT(headers);
    ck_assert_ptr_null(strstr(written(&settings, &request), "uthorization"));
    request.forward_credentials = true;
    ck_assert_ptr_nonnull(strstr(written(&settings, &request), "authorization: Bearer client\r\nx-api-key: client\r\n"
                                                               "x-mine: client\r\n"));
    static const char *const lines[] = {[BACKEND_AUTH_BEARER] = "authorization: Bearer sk-own\r\n",
                                        [BACKEND_AUTH_X_API_KEY] = "x-api-key: sk-own\r\n",
                                        [BACKEND_AUTH_API_KEY] = "api-key: sk-own\r\n"};
    char key[] = "sk-own";
    settings.api_key = key;
    settings.headers = &own;
    settings.header_count = 1;
    for (size_t i = 0; i < COUNT(lines); i++) {
        settings.auth = (enum backend_auth)i;
        const char *head = written(&settings, &request);
        ck_assert_ptr_null(strstr(head, "client"));
        ck_assert_ptr_nonnull(strstr(head, "X-Mine: backend\r\n"));
        ck_assert_ptr_nonnull(strstr(head, lines[i]));
    }
    settings.api_key = NULL;
    settings.headers = NULL;
    settings.header_count = 0;
    backend_settings_dispose(&settings);
}
END_TEST

START_TEST(what_could_end_its_line_is_refused)
{
    static const char *const bad[] = {"/a b", "/a\r\nx: y", "/a\n", "/a\x01"};
    static const char *const bad_values[] = {"a\r\nx: y", "a\nb", "a\rb", "a\x7f"};
    struct backend_settings settings = backend("http://h");
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct exchange_request request = get(bad[i], "");
        ck_assert_msg(written(&settings, &request) == NULL, "path %zu", i);
        request = get("/", bad[i]);
        ck_assert_msg(written(&settings, &request) == NULL, "query %zu", i);
    }
    for (size_t i = 0; i < COUNT(bad_values); i++) {
        struct header header = {SPAN("x-a"), span_of(bad_values[i])};
        struct exchange_request request = get("/", "");
        request.headers = &header;
        request.header_count = 1;
        ck_assert_msg(written(&settings, &request) == NULL, "value %zu", i);
    }
    backend_settings_dispose(&settings);
}
END_TEST

START_TEST(a_head_beyond_its_maximum_is_refused)
{
    struct backend_settings settings = backend("http://h");
    static char value[8192];
    memset(value, 'a', sizeof(value));
    struct header header = {SPAN("x-a"), {value, sizeof(value)}};
    struct exchange_request request = get("/", "");
    request.headers = &header;
    request.header_count = 1;
    ck_assert_ptr_null(written(&settings, &request));
    header.value.len = 2048;
    ck_assert_ptr_nonnull(written(&settings, &request));
    backend_settings_dispose(&settings);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("request_head");
    tcase_add_test(tests, a_head_is_written);
    tcase_add_test(tests, a_url_with_a_path_takes_the_place_of_v1);
    tcase_add_test(tests, a_backend_s_own_headers_and_key_replace_the_client_s);
    tcase_add_test(tests, what_could_end_its_line_is_refused);
    tcase_add_test(tests, a_head_beyond_its_maximum_is_refused);
    return run_suite("request_head", tests);
}
