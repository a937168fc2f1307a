#include "backends/http_head.h"
#include "base/http_text.h"

/* Exported by libh2o, absent from its headers. */
struct phr_header {
    const char *name;
    size_t name_len;
    const char *value;
    size_t value_len;
};
int phr_parse_response(const char *buf, size_t len, int *minor_version, int *status, const char **msg, size_t *msg_len,
                       struct phr_header *headers, size_t *num_headers, size_t last_len);

struct framing_facts {
    unsigned lengths, codings;
    bool chunked, close, keep_alive, encoded;
    struct span connection[4]; /* values of Connection, which names further hop-by-hop headers */
    size_t connection_count;
};

static enum http_head_result bad(struct http_head *head, const char *problem)
{
    head->problem = problem;
    return HTTP_HEAD_BAD;
}

/* RFC 9110 §8.6: digits only; a list, a sign or a blank inside is refused. */
static bool parse_length(struct span text, uint64_t *length)
{
    uint64_t value = 0;
    if (text.len == 0 || text.len > 18)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.base[i] < '0' || text.base[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.base[i] - '0');
    }
    *length = value;
    return true;
}

/* RFC 9110 §7.6.1, and what concerns only this connection by custom. */
static bool is_of_connection(struct span name)
{
    switch (name.len) {
    case 2:
        return span_eq(name, SPAN("te"));
    case 7:
        return span_eq(name, SPAN("trailer")) || span_eq(name, SPAN("upgrade"));
    case 10:
        return span_eq(name, SPAN("connection")) || span_eq(name, SPAN("keep-alive"));
    case 14:
        return span_eq(name, SPAN("content-length"));
    case 16:
        return span_eq(name, SPAN("proxy-connection"));
    case 17:
        return span_eq(name, SPAN("transfer-encoding"));
    case 18:
        return span_eq(name, SPAN("proxy-authenticate"));
    default:
        return false;
    }
}

static bool is_hop_by_hop(struct span name, const struct framing_facts *facts)
{
    if (is_of_connection(name))
        return true;
    for (size_t i = 0; i < facts->connection_count; i++)
        if (http_text_list_has(facts->connection[i], name))
            return true;
    return false;
}

/* ASCII's capitals only, 8 at a time. */
static void to_lower(char *at, size_t len)
{
    const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;
    for (; len >= sizeof(uint64_t); at += sizeof(uint64_t), len -= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        uint64_t low = word & ~highs; /* adding up to 0x80 to a byte does not reach the next */
        uint64_t capitals = (low + ones * (0x80 - 'A')) & ~(low + ones * (0x80 - 'Z' - 1)) & ~word & highs;
        word |= capitals >> 2; /* 0x20 */
        memcpy(at, &word, sizeof(word));
    }
    for (; len != 0; at++, len--)
        if (*at >= 'A' && *at <= 'Z')
            *at |= 0x20;
}

/* Notes what a header says about framing. Returns what is wrong with it, or NULL. */
static const char *read_framing(struct span name, struct span value, struct http_head *head,
                                struct framing_facts *facts)
{
    if (span_eq(name, SPAN("content-length"))) {
        if (facts->lengths++ != 0)
            return "more than one Content-Length in the backend's answer";
        if (!parse_length(value, &head->content_length))
            return "an unreadable Content-Length in the backend's answer";
    } else if (span_eq(name, SPAN("transfer-encoding"))) {
        if (facts->codings++ != 0 || !span_ieq(value, SPAN("chunked")))
            return "a Transfer-Encoding other than chunked in the backend's answer";
        facts->chunked = true;
    } else if (span_eq(name, SPAN("connection"))) {
        if (facts->connection_count == sizeof(facts->connection) / sizeof(facts->connection[0]))
            return "too many Connection headers in the backend's answer";
        facts->connection[facts->connection_count++] = value;
        facts->close |= http_text_list_has(value, SPAN("close"));
        facts->keep_alive |= http_text_list_has(value, SPAN("keep-alive"));
    } else if (span_eq(name, SPAN("content-encoding"))) {
        facts->encoded = facts->encoded || !span_ieq(value, SPAN("identity"));
    } else if (span_eq(name, SPAN("content-type"))) {
        struct span type = value;
        const char *semicolon = memchr(type.base, ';', type.len);
        if (semicolon != NULL)
            type.len = (size_t)(semicolon - type.base);
        type = span_trim(type);
        head->sse = span_ieq(type, SPAN("text/event-stream"));
        head->json = span_ieq(type, SPAN("application/json")) ||
                     (type.len > 5 && span_ieq(span_skip(type, type.len - 5), SPAN("+json")));
    }
    return NULL;
}

static const char *decide_framing(bool to_head, int minor_version, const struct framing_facts *facts,
                                  struct http_head *head)
{
    if (facts->chunked && facts->lengths != 0)
        return "both Content-Length and Transfer-Encoding in the backend's answer";
    if (facts->chunked && minor_version == 0)
        return "Transfer-Encoding in an HTTP/1.0 answer";
    head->keep_alive = !facts->close && (minor_version == 1 || facts->keep_alive);
    if (to_head || head->status == 204 || head->status == 304) {
        head->framing = HTTP_BODY_NONE;
        head->keep_alive = head->keep_alive && !facts->chunked;
    } else if (facts->chunked) {
        head->framing = HTTP_BODY_CHUNKED;
    } else if (facts->lengths != 0) {
        head->framing = head->content_length != 0 ? HTTP_BODY_LENGTH : HTTP_BODY_NONE;
    } else {
        head->framing = HTTP_BODY_UNTIL_CLOSE;
        head->keep_alive = false;
    }
    return NULL;
}

enum http_head_result http_head_parse(char *text, size_t length, size_t last_length, bool to_head,
                                      struct http_head *head)
{
    struct phr_header parsed[HTTP_HEADERS_MAX];
    size_t count = HTTP_HEADERS_MAX, reason_len;
    const char *reason, *problem;
    int minor_version;
    struct framing_facts facts = {0};

    int n = phr_parse_response(text, length, &minor_version, &head->status, &reason, &reason_len, parsed, &count,
                               last_length);
    if (n == -2)
        return length >= HTTP_HEAD_MAX ? bad(head, "the backend's answer has a head over 64 KiB")
                                       : HTTP_HEAD_INCOMPLETE;
    if (n < 0)
        return bad(head, "the backend's answer is not HTTP/1.1");
    if (n > HTTP_HEAD_MAX)
        return bad(head, "the backend's answer has a head over 64 KiB");
    head->length = (size_t)n;
    if (head->status == 101)
        return bad(head, "the backend switched protocols unasked");
    if (head->status < 100 || head->status > 599)
        return bad(head, "the backend's answer has no valid status");
    if (head->status < 200)
        return HTTP_HEAD_INTERIM;

    head->content_length = UINT64_MAX;
    head->sse = head->json = false;
    for (size_t i = 0; i < count; i++) {
        if (parsed[i].name == NULL)
            return bad(head, "a folded header line in the backend's answer");
        to_lower((char *)parsed[i].name, parsed[i].name_len);
        struct span name = {parsed[i].name, parsed[i].name_len};
        struct span value = span_trim((struct span){parsed[i].value, parsed[i].value_len});
        parsed[i].value = value.base;
        parsed[i].value_len = value.len;
        if ((problem = read_framing(name, value, head, &facts)) != NULL)
            return bad(head, problem);
    }
    if ((problem = decide_framing(to_head, minor_version, &facts, head)) != NULL)
        return bad(head, problem);
    /* What is compressed, though identity was asked for, cannot be looked into; it is passed on. */
    head->sse = head->sse && !facts.encoded;
    head->json = head->json && !facts.encoded;
    head->header_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct span name = {parsed[i].name, parsed[i].name_len};
        if (!is_hop_by_hop(name, &facts))
            head->headers[head->header_count++] = (struct header){name, {parsed[i].value, parsed[i].value_len}};
    }
    return HTTP_HEAD_FINAL;
}
