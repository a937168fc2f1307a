#include "base/strbuf.h"
#include "gateway/call.h"
#include "run_suite.h"
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MULTIPART "multipart/form-data; boundary=xyz"
#define PART(name, value) "--xyz\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" value "\r\n"
#define FILE_PART(name, value)                                                                                         \
    "--xyz\r\nContent-Disposition: form-data; name=\"" name "\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n"    \
    "\r\n" value "\r\n"
#define END "--xyz--\r\n"

static struct site_route route;
static struct call call;
static unsigned handled, refused, ended;

static void setup(void)
{
    route = (struct site_route){.depends = {DEPEND_PUBLIC}, .depend_count = 1};
    call = (struct call){.route = &route};
    handled = refused = ended = 0;
}

/* The model that this body names. The body stands in memory of its exact size, so that AddressSanitizer sees a read
 * beyond it, and is gone before the name is looked at. */
static const char *model_of(struct span body, const char *content_type)
{
    static char model[CALL_MODEL_MAX + 1];
    char *exact = malloc(body.len);
    if (body.len != 0)
        memcpy(exact, body.base, body.len);
    call = (struct call){.route = &route, .content_type = span_of(content_type), .body = {exact, body.len}};
    struct span found = call_model(&call);
    free(exact);
    ck_assert(body.len == 0 || call.scan != CALL_NOT_SCANNED);
    call.body = SPAN_NONE;
    ck_assert_uint_le(found.len, CALL_MODEL_MAX);
    memcpy(model, found.base, found.len);
    model[found.len] = '\0';
    struct span again = call_model(&call); /* looks only once */
    ck_assert(again.base == found.base && again.len == found.len);
    return model;
}

static void expect(const char *body, const char *content_type, const char *model)
{
    const char *found = model_of(span_of(body), content_type);
    ck_assert_msg(strcmp(found, model) == 0, "%s: %s", body, found);
}

START_TEST(headers_are_found_by_name)
{
    static const struct header headers[] = {
        {{"accept", 6}, {"*/*", 3}}, {{"x-a", 3}, {"one", 3}}, {{"x-a", 3}, {"two", 3}}, {{"empty", 5}, {"", 0}}};
    ck_assert_uint_eq(call_header(&call, SPAN("accept")).len, 0);
    call.headers = headers;
    call.header_count = COUNT(headers);
    ck_assert(span_eq(call_header(&call, SPAN("accept")), SPAN("*/*")));
    ck_assert(span_eq(call_header(&call, SPAN("x-a")), SPAN("one")));
    ck_assert_uint_eq(call_header(&call, SPAN("empty")).len, 0);
    ck_assert_uint_eq(call_header(&call, SPAN("X-A")).len, 0); /* they are in lower case by contract */
    ck_assert_uint_eq(call_header(&call, SPAN("x-")).len, 0);
}
END_TEST

START_TEST(subprotocols_come_one_by_one)
{
    static const struct header headers[] = {{{"sec-websocket-protocol", 22}, {"a, b ,,c", 8}},
                                            {{"accept", 6}, {"x", 1}},
                                            {{"sec-websocket-protocol", 22}, {"", 0}},
                                            {{"sec-websocket-protocol", 22}, {"key.K,", 6}}};
    static const char *const wanted[] = {"a", "b", "", "c", "key.K"};
    struct span found;
    size_t cursor = 0, count = 0;
    call.headers = headers;
    call.header_count = COUNT(headers);
    while (call_subprotocol(&call, &cursor, &found)) {
        ck_assert_uint_lt(count, COUNT(wanted));
        ck_assert(span_eq(found, span_of(wanted[count++])));
    }
    ck_assert_uint_eq(count, COUNT(wanted));
    call.header_count = 0;
    cursor = 0;
    ck_assert(!call_subprotocol(&call, &cursor, &found));
}
END_TEST

START_TEST(json_names_its_model)
{
    char text[600], name[300];
    expect("{\"model\":\"gpt-4\"}", "application/json", "gpt-4");
    expect("{\"x\":{\"model\":\"no\"},\"model\":\"gr\\u00fc\\n\"}", "", "grü\n");
    expect("{\"model\":\"a\"}", "text/plain", "a");
    expect("{\"model\":\"\"}", "", "");
    expect("{\"model\":7}", "", "");
    expect("{\"model\":null}", "", "");
    expect("{\"model\":\"\\ud800\"}", "", "");
    expect("{}", "", "");
    expect("[\"model\"]", "", "");
    expect("{\"model\":\"a\"", "", "");
    expect("", "", "");
    expect("", MULTIPART, "");
    expect("{\"model\":\"a\"}", MULTIPART, "");
    for (size_t len = CALL_MODEL_MAX - 1; len <= CALL_MODEL_MAX + 1; len++) {
        memset(name, 'm', len);
        name[len] = '\0';
        snprintf(text, sizeof(text), "{\"model\":\"%s\"}", name);
        expect(text, "", len <= CALL_MODEL_MAX ? name : "");
    }
}
END_TEST

START_TEST(a_body_is_scanned_once)
{
    call.body = SPAN("{\"model\":\"a\",\"stream\":true}");
    ck_assert(!call_wants_stream(&call));
    call_scan_body(&call, &body_chat);
    ck_assert(call.scan == CALL_SCANNED && call_wants_stream(&call));
    call.body = SPAN("{\"model\":\"b\",\"stream\":false}");
    call_scan_body(&call, &body_chat);
    ck_assert(call_wants_stream(&call) && span_eq(call_model(&call), SPAN("a")));

    setup();
    call.body = SPAN("{\"stream\":true,]");
    call_scan_body(&call, &body_chat);
    ck_assert(call.scan == CALL_BAD_JSON && !call_wants_stream(&call));
    ck_assert_uint_eq(call.json_error.offset, 15);

    static const char *const not_streamed[] = {"{\"stream\":false}", "{\"stream\":null}", "{\"stream\":\"true\"}",
                                               "{\"stream\":1}", "{}"};
    for (size_t i = 0; i < COUNT(not_streamed); i++) {
        setup();
        call.body = span_of(not_streamed[i]);
        call_model(&call);
        ck_assert(call.scan == CALL_SCANNED && !call_wants_stream(&call));
    }
}
END_TEST

START_TEST(a_form_names_its_model)
{
    expect(PART("model", "whisper-1") END, MULTIPART, "whisper-1");
    expect(PART("model", "whisper-1") END, "Multipart/Form-Data; boundary=xyz", "whisper-1");
    expect(PART("language", "de") PART("model", "whisper-1") FILE_PART("file", "RIFF") END, MULTIPART, "whisper-1");
    ck_assert_str_eq(model_of(SPAN(FILE_PART("file", "RIFF\r\n\r\n\0\xff") PART("model", "m") END), MULTIPART), "m");
    expect(FILE_PART("file", "") PART("model", "m") END, MULTIPART, "m");
    expect(FILE_PART("file", "\r\n\r\nname=\"model\"\r\n\r\nx") PART("model", "m") END, MULTIPART, "m");
    expect("--xyz\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n" END,
           MULTIPART, "m");
    expect(PART("model", "two\r\nlines") END, MULTIPART, "two\r\nlines");
    expect(PART("model", "") END, MULTIPART, "");
    expect(PART("models", "no") PART("mode", "no") PART("Model", "no") END, MULTIPART, "");
    expect(FILE_PART("file", "name=\"model\"") END, MULTIPART, "");
    expect(PART("model", "m") END, "application/x-www-form-urlencoded", "");
    for (size_t len = CALL_MODEL_MAX; len <= CALL_MODEL_MAX + 1; len++) {
        char text[600], name[300];
        memset(name, 'm', len);
        name[len] = '\0';
        snprintf(text, sizeof(text), PART("model", "%s") END, name);
        expect(text, MULTIPART, len <= CALL_MODEL_MAX ? name : "");
    }
}
END_TEST

START_TEST(hostile_forms_do_no_harm)
{
    static const char *const bodies[] = {
        "-",
        "--",
        "--\n",
        "--\r\n",
        "--x",
        "--x\n",
        "--\r\nname=\"model\"\r\n\r\nm--",
        "--x\r\n--x",
        "--x\r\n--x\r\n\r\n",
        "--x\r\n\r\n\r\n",
        "--x\r\n\r\n--x",
        "--x\r\nname=\"model\"",
        "--x\r\nname=\"model\"\r\n\r\n",
        "--x\r\nname=\"model\"\r\n\r\nno end",
        "--x\r\nname=\"model\"\r\n\r",
        "\r\n--x\r\nname=\"model\"\r\n\r\nm\r\n--x--",
        "\n\n\n\n",
        "----------\n--\n----------\r\n\r\n----------",
    };
    for (size_t i = 0; i < COUNT(bodies); i++)
        expect(bodies[i], "multipart/form-data; boundary=x", "");
    char text[600]; /* RFC 2046 §5.1.1: a boundary has 70 characters at most */
    for (int len = 70; len <= 140; len += 70) {
        char boundary[141] = "";
        memset(boundary, 'b', (size_t)len);
        snprintf(text, sizeof(text), "--%s\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--%s--\r\n",
                 boundary, boundary);
        char type[200];
        snprintf(type, sizeof(type), "multipart/form-data; boundary=%s", boundary);
        expect(text, type, len == 70 ? "m" : "");
    }
    expect("--xyz\r\nno: body\r\n" PART("model", "m") END, MULTIPART, "");

    static const char form[] = PART("language", "de") FILE_PART("file", "\r\n\r\n") PART("model", "mini") END;
    for (size_t len = 0; len < sizeof(form) - 1; len++) /* cut anywhere */
        ck_assert(strstr("mini", model_of((struct span){form, len}, MULTIPART)) != NULL);
    for (size_t at = 0; at < sizeof(form) - 1; at++) { /* with any byte anywhere */
        for (int byte = 0; byte < 256; byte++) {
            char copy[sizeof(form)];
            memcpy(copy, form, sizeof(form));
            copy[at] = (char)byte;
            model_of((struct span){copy, sizeof(form) - 1}, MULTIPART);
        }
    }
}
END_TEST

/* What a backend would read otherwise must not decide what a key may use. */
START_TEST(forms_that_two_would_read_differently_are_unsure)
{
    expect("--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\nno\r\n" PART("model",
                                                                                                           "yes") END,
           MULTIPART, "yes");
    expect("--xyz\r\nContent-Disposition: form-data; name=\"x\"\r\nX-A: name=\"model\"\r\n\r\nno\r\n" PART("model",
                                                                                                           "yes") END,
           MULTIPART, "yes");
    expect(FILE_PART("file", "q--xyz\r\nname=\"model\"\r\n\r\nno") PART("model", "yes") END, MULTIPART, "yes");
    expect(PART("model", "a") PART("model", "b") END, MULTIPART, "");
    ck_assert(call.model_unsure);
    expect("--abc\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nno\r\n--abc\r\n" PART("model", "yes") END,
           MULTIPART, "");
    ck_assert(call.model_unsure);
    expect(PART("model", "m") END, MULTIPART, "m");
    ck_assert(!call.model_unsure);
    model_of(SPAN("{\"model\":\"a\",\"model\":\"b\"}"), "application/json");
    ck_assert(call.model_unsure);
}
END_TEST

/* A delimiter in every third byte and the end of the head behind them all: linear, or this takes hours. */
START_TEST(large_forms_are_read_in_linear_time)
{
    size_t len = (size_t)8 << 20;
    char *body = malloc(len);
    for (size_t i = 0; i < len; i++)
        body[i] = "--a"[i % 3];
    memcpy(body, "--a\r\n", 5);
    memcpy(body + len - 4, "\r\n\r\n", 4);
    ck_assert_str_eq(model_of((struct span){body, len}, "multipart/form-data; boundary=a"), "");
    for (size_t i = 0; i + 5 <= len; i += 5)
        memcpy(body + i, "--a\r\n", 5);
    ck_assert_str_eq(model_of((struct span){body, len}, "multipart/form-data; boundary=a"), "");
    free(body);
}
END_TEST

/* The pieces of a form in any order. */
START_TEST(random_forms_do_no_harm)
{
    static const char *const pieces[] = {
        "--xyz", "--xyz", "\r\n", "\r\n\r\n",   "\n", "\r", "name=\"model\"", "m",
        "--",    "xyz",   ":",    "form-data;", "",   "\"", "name=\"",        "--xyz--\r\n"};
    unsigned seed = 1;
    for (int round = 0; round < 30000; round++) {
        char text[512] = "--xyz\r\n";
        int count = rand_r(&seed) % 30;
        for (int i = 0; i < count; i++)
            strcat(text, pieces[(unsigned)rand_r(&seed) % COUNT(pieces)]);
        const char *model = model_of(span_of(text), MULTIPART);
        ck_assert_msg(model[0] == '\0' || strstr(text, "name=\"model\"") != NULL, "%s: %s", text, model);
        ck_assert_ptr_nonnull(strstr(text, model));
    }
}
END_TEST

/* ---- running a call ---- */

static void handle(struct call *it)
{
    ck_assert_ptr_eq(it, &call);
    handled++;
}

static void refuse(struct call *it, const struct dialect_error *error, unsigned retry_after, int retry)
{
    ck_assert_ptr_eq(it, &call);
    ck_assert(retry_after == 0 && retry == 0);
    refused = (unsigned)error->status;
}

static const struct call_transport transport = {.refuse = refuse};

START_TEST(dependencies_come_before_the_handler)
{
    static const struct {
        enum depend_id depends[3];
        const char *body;
        unsigned status;
        const char *refusal;
    } cases[] = {
        {{0}, "", 0, NULL},
        {{DEPEND_PUBLIC}, "", 0, NULL},
        {{DEPEND_PUBLIC, DEPEND_VALIDATE}, "{\"model\":\"m\",\"messages\":[1]}", 0, NULL},
        {{DEPEND_VALIDATE}, "{\"model\":\"m\",\"messages\":[1]", 400, "invalid_json"},
        {{DEPEND_VALIDATE}, "{\"model\":\"m\"}", 400, "invalid_body"},
        {{DEPEND_VALIDATE}, "{\"model\":\"\\udc00\",\"messages\":[1]}", 400, "invalid_body"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        setup();
        route.route.handle = handle;
        route.route.body = &body_chat;
        call.transport = &transport;
        call.body = span_of(cases[i].body);
        memcpy(route.depends, cases[i].depends, sizeof(cases[i].depends));
        for (route.depend_count = 0; route.depends[route.depend_count] != 0;)
            route.depend_count++;
        call_run(&call);
        ck_assert_msg(refused == cases[i].status, "case %zu: %u", i, refused);
        ck_assert_uint_eq(handled, cases[i].status == 0 ? 1 : 0);
        if (cases[i].refusal == NULL)
            ck_assert_ptr_null(call.record.refusal);
        else
            ck_assert_str_eq(call.record.refusal, cases[i].refusal);
    }
}
END_TEST

static void end_job(struct call_job *job)
{
    ck_assert_ptr_null(call.job); /* gone from the call before it is told, so that it cannot be told twice */
    call_end_job(&call);
    free(job);
    ended++;
}

START_TEST(a_job_is_ended_once)
{
    call_end_job(&call);
    struct call_job *job = malloc(sizeof(*job));
    job->end = end_job;
    call.job = job;
    call_end_job(&call);
    call_end_job(&call);
    ck_assert_uint_eq(ended, 1);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("call");

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, headers_are_found_by_name);
    tcase_add_test(tests, subprotocols_come_one_by_one);
    tcase_add_test(tests, json_names_its_model);
    tcase_add_test(tests, a_body_is_scanned_once);
    tcase_add_test(tests, a_form_names_its_model);
    tcase_add_test(tests, hostile_forms_do_no_harm);
    tcase_add_test(tests, forms_that_two_would_read_differently_are_unsure);
    tcase_add_test(tests, large_forms_are_read_in_linear_time);
    tcase_add_test(tests, random_forms_do_no_harm);
    tcase_add_test(tests, dependencies_come_before_the_handler);
    tcase_add_test(tests, a_job_is_ended_once);
    return run_suite("call", tests);
}
