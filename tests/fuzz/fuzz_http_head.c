/* A backend's answer: its head, whole and as it comes in pieces, and the chunked coding. Input: 'H' for an answer to
 * HEAD, 'C' for a chunked body without a head, else any; three lengths of pieces (taken in turn); the text. */
#include "backends/http_body.h"
#include "base/http_text.h"
#include "base/strbuf.h"
#include "fuzz.h"

static void check_final(const struct http_head *head, size_t length)
{
    MUST(head->length != 0 && head->length <= length && head->length <= HTTP_HEAD_MAX);
    MUST(head->status >= 200 && head->status <= 599 && head->header_count <= HTTP_HEADERS_MAX);
    MUST(head->framing != HTTP_BODY_UNTIL_CLOSE || !head->keep_alive);
    MUST(head->framing != HTTP_BODY_CHUNKED || head->content_length == UINT64_MAX);
    MUST(head->framing != HTTP_BODY_LENGTH || head->content_length < UINT64_C(1000000000000000000));
    MUST(!(head->sse && head->json));
    for (size_t i = 0; i < head->header_count; i++) {
        struct span name = head->headers[i].name, value = head->headers[i].value;
        MUST(http_text_is_token(name) && http_text_is_clean(value));
        for (size_t c = 0; c < name.len; c++)
            MUST(name.base[c] < 'A' || name.base[c] > 'Z');
        MUST(!span_eq(name, SPAN("connection")) && !span_eq(name, SPAN("transfer-encoding")) &&
             !span_eq(name, SPAN("content-length")) && !span_eq(name, SPAN("upgrade")));
    }
}

static void compare_heads(const struct http_head *a, const struct http_head *b)
{
    MUST(a->length == b->length && a->status == b->status && a->framing == b->framing && a->sse == b->sse &&
         a->json == b->json && a->keep_alive == b->keep_alive && a->content_length == b->content_length &&
         a->header_count == b->header_count);
    for (size_t i = 0; i < a->header_count; i++)
        MUST(span_eq(a->headers[i].name, b->headers[i].name) && span_eq(a->headers[i].value, b->headers[i].value));
}

static void check_head(struct span text, bool to_head, const size_t lengths[3])
{
    struct http_head whole = {.problem = NULL}, part = {.problem = NULL};
    char *bytes = fuzz_exact(text);
    enum http_head_result result = http_head_parse(bytes, text.len, 0, to_head, &whole), late = HTTP_HEAD_INCOMPLETE;
    char *pieces = NULL;
    for (size_t seen = 0, turn = 0; seen < text.len && late == HTTP_HEAD_INCOMPLETE; turn++) {
        size_t len = seen + lengths[turn % 3] < text.len ? seen + lengths[turn % 3] : text.len;
        free(pieces);
        pieces = fuzz_exact((struct span){text.base, len});
        late = http_head_parse(pieces, len, seen, to_head, &part);
        seen = len;
    }
    MUST(result != HTTP_HEAD_BAD || whole.problem != NULL);
    /* While a head comes in, its end is looked for first: that it is bad may show sooner or later, but nothing else may
     * differ. */
    MUST(late == result || ((late == HTTP_HEAD_INCOMPLETE || late == HTTP_HEAD_BAD) &&
                            (result == HTTP_HEAD_INCOMPLETE || result == HTTP_HEAD_BAD)));
    if (result == HTTP_HEAD_INTERIM)
        MUST(whole.length == part.length && whole.length != 0 && whole.length <= text.len);
    if (result == HTTP_HEAD_FINAL) {
        check_final(&whole, text.len);
        compare_heads(&whole, &part);
    }
    free(bytes);
    free(pieces);
}

static void check_chunked(struct span text, const size_t lengths[3])
{
    struct phr_chunked_decoder whole = {.consume_trailer = 1}, part = {.consume_trailer = 1};
    char *bytes = fuzz_exact(text);
    size_t size = text.len, seen = 0;
    ssize_t result = text.len != 0 ? phr_decode_chunked(&whole, bytes, &size) : -2, late = -2;
    struct strbuf out;
    strbuf_init(&out, 1 << 20);
    MUST(size <= text.len && result >= -2 && (result < 0 || size + (size_t)result <= text.len));
    for (size_t turn = 0; seen < text.len && late == -2; turn++) {
        size_t len = lengths[turn % 3] < text.len - seen ? lengths[turn % 3] : text.len - seen, left = len;
        char *piece = fuzz_exact((struct span){text.base + seen, len});
        late = phr_decode_chunked(&part, piece, &left);
        MUST(left <= len);
        strbuf_add(&out, (struct span){piece, left});
        free(piece);
        seen += len;
    }
    MUST(result < 0 ? late == result : late >= 0 && (size_t)late + (text.len - seen) == (size_t)result);
    if (result != -1)
        MUST(span_eq(strbuf_span(&out), (struct span){bytes, size}));
    strbuf_dispose(&out);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span text = {(const char *)data, size};
    unsigned what = fuzz_byte(&text) + '0';
    size_t lengths[3];
    for (size_t i = 0; i < 3; i++)
        lengths[i] = 1 + fuzz_byte(&text);
    if (what == 'C')
        check_chunked(text, lengths);
    else
        check_head(text, what == 'H', lengths);
    return 0;
}
