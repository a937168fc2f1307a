/* Answers as they stand in Redis. Their digest would keep almost all that a fuzzer writes from being read at all, so it
 * is put in here. Input: 'h', a head behind its digest; 'p', a piece of which the head is made up; else a value as it
 * is. */
#include "base/digest.h"
#include "base/http_text.h"
#include "cache/redis_value.h"
#include "fuzz.h"

/* A value: magic, the digest of the rest, the rest. */
static void seal(struct strbuf *value, const char *magic, struct span rest)
{
    unsigned char digest[DIGEST_SHA256_LEN];
    digest_sha256(rest, digest);
    strbuf_init(value, (size_t)1 << 20);
    strbuf_puts(value, magic);
    strbuf_add(value, (struct span){(char *)digest, sizeof(digest)});
    strbuf_add(value, rest);
}

static void check_head(struct span value, const struct cache_key *key, bool sealed)
{
    struct redis_value_head head;
    struct strbuf again;
    char *bytes = fuzz_exact(value);
    if (!redis_value_read_head((struct span){bytes, value.len}, key, &head)) {
        free(bytes);
        return;
    }
    MUST(sealed && cache_key_eq(&head.key, key) && head.header_count <= REDIS_VALUE_HEADERS_MAX);
    MUST(head.piece_count <= REDIS_VALUE_PIECES_MAX && head.piece_count == redis_value_pieces(head.facts.bytes));
    MUST(head.body.len == (head.piece_count == 0 ? head.facts.bytes : 0));
    for (size_t i = 0; i < head.header_count; i++)
        MUST(http_text_is_token(head.headers[i].name) && http_text_is_clean(head.headers[i].value));
    MUST(http_text_is_clean(head.etag));
    strbuf_init(&again, REDIS_VALUE_MAX);
    MUST(redis_value_write_head(&head, &again) && span_eq(strbuf_span(&again), value));
    /* Of another key it is nothing. */
    struct cache_key other = *key;
    other.bytes[0] ^= 1;
    MUST(!redis_value_read_head((struct span){bytes, value.len}, &other, &head));
    strbuf_dispose(&again);
    free(bytes);
}

static void check_piece(struct span value, struct span rest)
{
    struct redis_value_head head = {.facts.bytes = REDIS_VALUE_PIECE + 1 + rest.len % 64, .piece_count = 2};
    struct strbuf again;
    struct span bytes;
    if (rest.len < CACHE_KEY_LEN + REDIS_VALUE_GENERATION_LEN)
        return;
    memcpy(head.key.bytes, rest.base, CACHE_KEY_LEN);
    memcpy(head.generation, rest.base + CACHE_KEY_LEN, REDIS_VALUE_GENERATION_LEN);
    char *exact = fuzz_exact(value);
    for (size_t i = 0; i < 3; i++) {
        if (!redis_value_read_piece((struct span){exact, value.len}, &head, i, &bytes))
            continue;
        MUST(i < 2 && bytes.len == (i == 0 ? REDIS_VALUE_PIECE : head.facts.bytes - REDIS_VALUE_PIECE));
        strbuf_init(&again, REDIS_VALUE_MAX);
        redis_value_write_piece(&head, i, bytes, &again);
        MUST(span_eq(strbuf_span(&again), value));
        strbuf_dispose(&again);
    }
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span rest = {(const char *)data, size};
    unsigned what = fuzz_byte(&rest) + '0';
    struct cache_key key = {{0}};
    struct strbuf value;
    if (rest.len >= CACHE_KEY_LEN)
        memcpy(key.bytes, rest.base, CACHE_KEY_LEN);
    if (what == 'h') {
        seal(&value, "wrh1", rest);
        check_head(strbuf_span(&value), &key, true);
        strbuf_dispose(&value);
    } else if (what == 'p') {
        seal(&value, "wrp1", rest);
        check_piece(strbuf_span(&value), rest);
        strbuf_dispose(&value);
    } else {
        check_head(rest, &key, false);
        check_piece(rest, rest);
    }
    return 0;
}
