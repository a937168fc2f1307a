/* The query of GET /chat: percent-encoding, and the request that is made of it. Input: the query. */
#include "base/json_scan.h"
#include "base/strbuf.h"
#include "fuzz.h"
#include "gateway/chat_query.h"

static void check(struct span query, const struct chat_defaults *defaults)
{
    static const struct span names[] = {SPAN("stream"), SPAN("messages"), SPAN("model")};
    struct chat_problem problem = {.param = NULL};
    struct json_value values[3], root;
    struct json_error error;
    struct strbuf body;
    if (chat_query_read(query, defaults, &body, &problem)) {
        MUST(json_scan(strbuf_span(&body), names, 3, values, &root, &error) && root.type == JSON_OBJECT);
        MUST(values[0].type == JSON_BOOL && values[0].truth && !values[0].duplicate);
        MUST(values[1].type == JSON_ARRAY && values[1].count >= 1 && !values[1].duplicate);
        MUST(values[2].type == JSON_STRING || values[2].type == JSON_MISSING);
    } else {
        MUST(problem.param != NULL && problem.message[0] != '\0');
        MUST(memchr(problem.message, '\0', sizeof(problem.message)) != NULL);
        MUST(json_scan(strbuf_span(&problem.detail), NULL, 0, NULL, NULL, &error));
        strbuf_dispose(&problem.detail);
    }
    strbuf_dispose(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct chat_defaults none = {SPAN_NONE, SPAN_NONE}, some = {SPAN("m"), SPAN("be \"kind\"")};
    char *exact = fuzz_exact((struct span){(const char *)data, size});
    check((struct span){exact, size}, &none);
    check((struct span){exact, size}, &some);
    free(exact);
    return 0;
}
