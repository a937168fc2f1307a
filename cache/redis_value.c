#include "cache/redis_value.h"
#include "base/digest.h"
#include "base/http_text.h"
#include <stdio.h>

/* The last digit is the version: a value of another one is not read. */
#define MAGIC_HEAD SPAN("wrh1")
#define MAGIC_PIECE SPAN("wrp1")
#define MAGIC_LEN 4
#define SEALED (MAGIC_LEN + DIGEST_SHA256_LEN) /* where begins what the digest covers */
#define TTL_MAX ((uint64_t)10 * 366 * 86400 * 1000000)

enum { FLAG_SSE = 1, FLAG_USAGE = 2, FLAGS = 3 };

size_t redis_value_pieces(uint64_t bytes)
{
    return bytes <= REDIS_VALUE_INLINE_MAX ? 0 : (size_t)((bytes + REDIS_VALUE_PIECE - 1) / REDIS_VALUE_PIECE);
}

/* ---- writing ---- */

static void put_number(struct strbuf *out, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        strbuf_putc(out, (char)(value >> (8 * i) & 255));
}

static void put_bytes(struct strbuf *out, const void *bytes, size_t len)
{
    strbuf_add(out, (struct span){bytes, len});
}

static void put_text(struct strbuf *out, struct span text)
{
    put_number(out, text.len, 2);
    strbuf_add(out, text);
}

static void begin(struct strbuf *out, struct span magic)
{
    static const char room[DIGEST_SHA256_LEN];
    strbuf_add(out, magic);
    put_bytes(out, room, sizeof(room));
}

/* Fills in the digest of what stands behind it. */
static void seal(struct strbuf *out)
{
    unsigned char digest[DIGEST_SHA256_LEN];
    if (out->overflow)
        return;
    digest_sha256(span_skip(strbuf_span(out), SEALED), digest);
    memcpy(out->base + MAGIC_LEN, digest, sizeof(digest));
}

static bool is_writable(const struct redis_value_head *head)
{
    if (head->header_count > REDIS_VALUE_HEADERS_MAX || head->scope_name.len > REDIS_VALUE_TEXT_MAX ||
        head->model.len > REDIS_VALUE_TEXT_MAX || head->etag.len >= CACHE_ETAG_SIZE || head->ttl_us > TTL_MAX ||
        redis_value_pieces(head->facts.bytes) > REDIS_VALUE_PIECES_MAX)
        return false;
    for (size_t i = 0; i < head->header_count; i++)
        if (head->headers[i].name.len > REDIS_VALUE_TEXT_MAX || head->headers[i].value.len > REDIS_VALUE_TEXT_MAX)
            return false;
    return redis_value_pieces(head->facts.bytes) != 0 ? head->body.len == 0 : head->body.len == head->facts.bytes;
}

bool redis_value_write_head(const struct redis_value_head *head, struct strbuf *out)
{
    const struct usage *usage = &head->facts.usage;
    if (!is_writable(head))
        return false;
    begin(out, MAGIC_HEAD);
    put_bytes(out, head->key.bytes, CACHE_KEY_LEN);
    put_bytes(out, head->generation, REDIS_VALUE_GENERATION_LEN);
    put_bytes(out, head->epoch, CACHE_EPOCH_LEN);
    put_number(out, head->created_wall_us, 8);
    put_number(out, head->ttl_us, 8);
    put_number(out, (uint64_t)head->status, 2);
    put_number(out, (head->sse ? FLAG_SSE : 0) | (usage->known ? FLAG_USAGE : 0), 1);
    put_number(out, head->dialect, 1);
    put_number(out, head->facts.bytes, 8);
    put_number(out, head->facts.events, 8);
    put_number(out, usage->prompt, 8);
    put_number(out, usage->completion, 8);
    put_number(out, usage->cached, 8);
    put_text(out, head->etag);
    put_text(out, head->scope_name);
    put_text(out, head->model);
    put_number(out, head->header_count, 1);
    for (size_t i = 0; i < head->header_count; i++) {
        put_text(out, head->headers[i].name);
        put_text(out, head->headers[i].value);
    }
    strbuf_add(out, head->body);
    seal(out);
    return !out->overflow;
}

void redis_value_write_piece(const struct redis_value_head *head, size_t index, struct span bytes, struct strbuf *out)
{
    begin(out, MAGIC_PIECE);
    put_bytes(out, head->key.bytes, CACHE_KEY_LEN);
    put_bytes(out, head->generation, REDIS_VALUE_GENERATION_LEN);
    put_number(out, index, 4);
    strbuf_add(out, bytes);
    seal(out);
}

/* ---- reading ---- */

/* What is left of a value; `bad` once more was asked for than there was. */
struct reader {
    struct span rest;
    bool bad;
};

static struct span get_bytes(struct reader *reader, size_t len)
{
    if (len > reader->rest.len) {
        *reader = (struct reader){SPAN_NONE, true};
        return SPAN_NONE;
    }
    struct span bytes = {reader->rest.base, len};
    reader->rest = span_skip(reader->rest, len);
    return bytes;
}

static void get_into(struct reader *reader, void *to, size_t len)
{
    struct span bytes = get_bytes(reader, len);
    if (bytes.len == len)
        memcpy(to, bytes.base, len);
}

static uint64_t get_number(struct reader *reader, unsigned size)
{
    struct span bytes = get_bytes(reader, size);
    uint64_t value = 0;
    for (size_t i = bytes.len; i != 0; i--)
        value = value << 8 | (unsigned char)bytes.base[i - 1];
    return value;
}

static struct span get_text(struct reader *reader)
{
    size_t len = (size_t)get_number(reader, 2);
    if (len > REDIS_VALUE_TEXT_MAX)
        reader->bad = true;
    return get_bytes(reader, len);
}

/* Checks magic and digest; then what stands behind them. */
static bool open_value(struct span value, struct span magic, struct reader *reader)
{
    unsigned char digest[DIGEST_SHA256_LEN];
    if (value.len < SEALED || value.len > REDIS_VALUE_MAX || !span_starts(value, magic))
        return false;
    *reader = (struct reader){span_skip(value, SEALED), false};
    digest_sha256(reader->rest, digest);
    return memcmp(digest, value.base + MAGIC_LEN, sizeof(digest)) == 0;
}

/* A header is sent on as it is: what would end its line, or is no name, cannot have come from weir. */
static bool is_header(const struct cache_header *header)
{
    for (size_t i = 0; i < header->name.len; i++)
        if (!((header->name.base[i] >= 'a' && header->name.base[i] <= 'z') || header->name.base[i] == '-'))
            return false;
    return header->name.len != 0 && http_text_is_clean(header->value);
}

static bool get_headers(struct reader *reader, struct redis_value_head *head)
{
    head->header_count = (size_t)get_number(reader, 1);
    if (head->header_count > REDIS_VALUE_HEADERS_MAX)
        return false;
    for (size_t i = 0; i < head->header_count; i++) {
        head->headers[i].name = get_text(reader);
        head->headers[i].value = get_text(reader);
        if (reader->bad || !is_header(&head->headers[i]))
            return false;
    }
    return true;
}

static bool is_etag(struct span etag)
{
    for (size_t i = 0; i < etag.len; i++) {
        char c = etag.base[i];
        bool quote = i == 0 || i + 1 == etag.len;
        if (quote ? c != '"' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
    }
    return etag.len == 0 || etag.len == CACHE_ETAG_SIZE - 1;
}

bool redis_value_read_head(struct span value, const struct cache_key *key, struct redis_value_head *head)
{
    struct reader reader;
    *head = (struct redis_value_head){.status = 0};
    if (!open_value(value, MAGIC_HEAD, &reader))
        return false;
    get_into(&reader, head->key.bytes, CACHE_KEY_LEN);
    get_into(&reader, head->generation, REDIS_VALUE_GENERATION_LEN);
    get_into(&reader, head->epoch, CACHE_EPOCH_LEN);
    head->created_wall_us = get_number(&reader, 8);
    head->ttl_us = get_number(&reader, 8);
    head->status = (int)get_number(&reader, 2);
    unsigned flags = (unsigned)get_number(&reader, 1);
    unsigned dialect = (unsigned)get_number(&reader, 1);
    head->sse = (flags & FLAG_SSE) != 0;
    head->dialect = (enum dialect_id)dialect;
    head->facts.terminal = head->sse;
    head->facts.bytes = get_number(&reader, 8);
    head->facts.events = get_number(&reader, 8);
    head->facts.usage.known = (flags & FLAG_USAGE) != 0;
    head->facts.usage.prompt = get_number(&reader, 8);
    head->facts.usage.completion = get_number(&reader, 8);
    head->facts.usage.cached = get_number(&reader, 8);
    head->etag = get_text(&reader);
    head->scope_name = get_text(&reader);
    head->model = get_text(&reader);
    if (!get_headers(&reader, head) || reader.bad || !cache_key_eq(&head->key, key) || head->status != 200 ||
        flags > FLAGS || dialect > DIALECT_EMBEDDINGS || head->ttl_us > TTL_MAX || !is_etag(head->etag) ||
        head->facts.bytes > (uint64_t)REDIS_VALUE_PIECES_MAX * REDIS_VALUE_PIECE)
        return false;
    head->piece_count = redis_value_pieces(head->facts.bytes);
    head->body = reader.rest;
    return head->body.len == (head->piece_count == 0 ? head->facts.bytes : 0);
}

bool redis_value_read_piece(struct span value, const struct redis_value_head *head, size_t index, struct span *bytes)
{
    struct reader reader;
    if (index >= head->piece_count || !open_value(value, MAGIC_PIECE, &reader))
        return false;
    struct span key = get_bytes(&reader, CACHE_KEY_LEN);
    struct span generation = get_bytes(&reader, REDIS_VALUE_GENERATION_LEN);
    uint64_t number = get_number(&reader, 4);
    uint64_t before = (uint64_t)index * REDIS_VALUE_PIECE, left = head->facts.bytes - before;
    *bytes = reader.rest;
    return !reader.bad && memcmp(key.base, head->key.bytes, CACHE_KEY_LEN) == 0 &&
           memcmp(generation.base, head->generation, REDIS_VALUE_GENERATION_LEN) == 0 && number == index &&
           bytes->len == (left < REDIS_VALUE_PIECE ? left : REDIS_VALUE_PIECE);
}

/* ---- keys ---- */

static char *put_hex(char *to, const unsigned char *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        *to++ = digits[bytes[i] >> 4];
        *to++ = digits[bytes[i] & 15];
    }
    return to;
}

size_t redis_value_head_key(const struct cache_key *key, char out[REDIS_VALUE_KEY_SIZE])
{
    out[0] = 'c';
    out[1] = ':';
    char *end = put_hex(out + 2, key->bytes, CACHE_KEY_LEN);
    *end = '\0';
    return (size_t)(end - out);
}

size_t redis_value_piece_key(const struct redis_value_head *head, size_t index, char out[REDIS_VALUE_KEY_SIZE])
{
    char *end = out + redis_value_head_key(&head->key, out);
    *end++ = ':';
    end = put_hex(end, head->generation, REDIS_VALUE_GENERATION_LEN);
    end += snprintf(end, (size_t)(out + REDIS_VALUE_KEY_SIZE - end), ":%zu", index);
    return (size_t)(end - out);
}
