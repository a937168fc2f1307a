/* What clients send over WebSockets. Input: 'g', lengths of four pieces (taken in turn), frames for the guard; 'c', a
 * message for /ws/chat; 'd', a chunk of a chat completion, whose text goes into the conversation. */
#include "base/utf8.h"
#include "fuzz.h"
#include "gateway/chat_request.h"
#include "gateway/ws_guard.h"

/* Shows the frames in pieces, as a socket would: what did not pass is shown again with what follows. */
static size_t show(struct ws_guard *guard, struct span bytes, const size_t lengths[4])
{
    size_t passed = 0;
    for (size_t seen = 0, turn = 0; seen < bytes.len && guard->problem == 0 && !guard->closed; turn++) {
        seen = seen + lengths[turn % 4] < bytes.len ? seen + lengths[turn % 4] : bytes.len;
        char *exact = fuzz_exact((struct span){bytes.base + passed, seen - passed});
        size_t n = ws_guard_pass(guard, (struct span){exact, seen - passed}, 1);
        MUST(n <= seen - passed);
        passed += n;
        free(exact);
    }
    return passed;
}

static void check_frames(struct span bytes, const size_t lengths[4])
{
    struct ws_guard whole = {.max_message = 1000}, part = {.max_message = 1000};
    const size_t all[4] = {bytes.len, bytes.len, bytes.len, bytes.len};
    size_t passed = show(&whole, bytes, all);
    MUST(show(&part, bytes, lengths) == passed);
    MUST(whole.problem == part.problem && whole.closed == part.closed && whole.frames == part.frames);
    MUST(whole.close_code == part.close_code && strcmp(whole.reason, part.reason) == 0);
    MUST((whole.problem != 0) == (whole.why != NULL));
    MUST(whole.problem == 0 || ws_guard_code_is_valid(whole.problem));
    struct utf8_check check = {0};
    MUST(utf8_feed(&check, span_of(whole.reason)) && utf8_complete(&check));
    MUST(!whole.closed || whole.close_code == WS_CLOSE_NO_STATUS || ws_guard_code_is_valid(whole.close_code));
}

static bool is_json(struct span text)
{
    struct json_error error;
    return json_scan(text, NULL, 0, NULL, NULL, &error);
}

/* What goes to the backend is JSON and asks for a stream, whatever the client and the conversation said. */
static void check_body(const struct chat_request *request, const struct chat_history *history)
{
    static const struct chat_defaults defaults[] = {{SPAN_NONE, SPAN_NONE}, {SPAN("m\"\n"), SPAN("be \"kind\"\\")}};
    static const struct span names[] = {SPAN("stream"), SPAN("messages")};
    struct json_value values[2], root;
    struct json_error error;
    struct strbuf out;
    for (size_t i = 0; i < 2; i++) {
        strbuf_init(&out, 1 << 20);
        chat_request_body(request, &defaults[i], history, &out);
        MUST(json_scan(strbuf_span(&out), names, 2, values, &root, &error) && root.type == JSON_OBJECT);
        MUST(values[0].type == JSON_BOOL && values[0].truth && !values[0].duplicate);
        MUST(request->kind != CHAT_MESSAGE || (values[1].type == JSON_ARRAY && values[1].count != 0));
        strbuf_dispose(&out);
    }
}

static void check_message(struct span text)
{
    struct chat_request request;
    struct chat_history history;
    chat_request_read(text, &request);
    MUST(request.id.len <= CHAT_ID_MAX && (request.id.len == 0 || is_json(request.id)));
    if (request.kind == CHAT_NO_JSON || request.kind == CHAT_INVALID) {
        MUST(request.problem != NULL);
        return;
    }
    MUST(request.id.len != 0);
    if (request.kind == CHAT_CANCEL)
        return;
    chat_history_init(&history, 512);
    check_body(&request, &history);
    if (request.kind == CHAT_MESSAGE) {
        for (int i = 0; i < 3; i++)
            chat_history_add(&history, request.message, SPAN("fine\\n"));
        MUST(chat_history_bytes(&history) <= 512);
        check_body(&request, &history);
    }
    chat_history_dispose(&history);
}

static void check_chunk(struct span text)
{
    struct strbuf said;
    struct span error;
    strbuf_init(&said, 1 << 20);
    strbuf_putc(&said, '"');
    bool good = chat_chunk_read(text, &said, &error);
    strbuf_putc(&said, '"');
    MUST(is_json(strbuf_span(&said)));
    MUST(!good || error.len == 0 || is_json(error));
    strbuf_dispose(&said);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span input = {(const char *)data, size};
    unsigned what = fuzz_byte(&input) + '0';
    if (what == 'g') {
        size_t lengths[4];
        for (size_t i = 0; i < 4; i++)
            lengths[i] = 1 + fuzz_byte(&input);
        check_frames(input, lengths);
        return 0;
    }
    char *exact = fuzz_exact(input);
    if (what == 'c')
        check_message((struct span){exact, input.len});
    else
        check_chunk((struct span){exact, input.len});
    free(exact);
    return 0;
}
