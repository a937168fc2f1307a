#include "cache/key.h"
#include "cache/body_index.h"
#include <endian.h>
#include <h2o/memory.h>
#include <openssl/evp.h>
#include <openssl/modes.h>
#include <stdlib.h>

#define SINK_SIZE 4096
#define SINK_DIRECT 1024 /* bytes that are worth a call of their own */
#define SINK_ROOM 64     /* white space is dropped from so many bytes at once */
#define MAC_LEN 16

struct cache_keyer {
    EVP_MD *sha256;
    EVP_MD_CTX *digest;
    GCM128_CONTEXT *mac; /* NULL: there is no secret, and `digest` is used */
    unsigned char secret[CACHE_SECRET_LEN];
    struct body_index index;
    struct blanks blanks;
};

struct sink {
    const struct cache_keyer *keyer;
    size_t len;
    unsigned char bytes[SINK_SIZE];
};

/* Stands where GCM has its block cipher, of which it asks twice: for the point at which GHASH is evaluated, and for
 * what is added to each tag. The secret is random, and good for both: no tag is ever shown to anybody. */
static void give_secret(const unsigned char in[16], unsigned char out[16], const void *secret)
{
    (void)in;
    memcpy(out, secret, CACHE_SECRET_LEN);
}

struct cache_keyer *cache_keyer_create(const unsigned char *secret)
{
    struct cache_keyer *keyer = h2o_mem_alloc(sizeof(*keyer));
    *keyer = (struct cache_keyer){.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL), .digest = EVP_MD_CTX_new()};
    if (keyer->sha256 == NULL || keyer->digest == NULL)
        h2o_fatal("no SHA-256");
    if (secret != NULL) {
        memcpy(keyer->secret, secret, sizeof(keyer->secret));
        keyer->mac = CRYPTO_gcm128_new(keyer->secret, give_secret);
        if (keyer->mac == NULL)
            h2o_fatal("no GHASH");
    }
    blanks_init(&keyer->blanks);
    return keyer;
}

void cache_keyer_destroy(struct cache_keyer *keyer)
{
    if (keyer == NULL)
        return;
    body_index_dispose(&keyer->index);
    CRYPTO_gcm128_release(keyer->mac);
    OPENSSL_cleanse(keyer->secret, sizeof(keyer->secret));
    EVP_MD_CTX_free(keyer->digest);
    EVP_MD_free(keyer->sha256);
    free(keyer);
}

/* ---- the digest ---- */

static void digest_begin(const struct cache_keyer *keyer)
{
    static const unsigned char nonce[12];
    if (keyer->mac != NULL)
        CRYPTO_gcm128_setiv(keyer->mac, nonce, sizeof(nonce));
    else if (EVP_DigestInit_ex2(keyer->digest, keyer->sha256, NULL) != 1)
        h2o_fatal("no digest");
}

static void digest_add(const struct cache_keyer *keyer, const char *bytes, size_t len)
{
    if (keyer->mac != NULL ? CRYPTO_gcm128_aad(keyer->mac, (const unsigned char *)bytes, len) != 0
                           : EVP_DigestUpdate(keyer->digest, bytes, len) != 1)
        h2o_fatal("digest failed");
}

static void digest_end(const struct cache_keyer *keyer, struct cache_key *key)
{
    if (keyer->mac == NULL) {
        if (EVP_DigestFinal_ex(keyer->digest, key->bytes, NULL) != 1)
            h2o_fatal("SHA-256 failed");
        return;
    }
    memset(key->bytes, 0, sizeof(key->bytes));
    CRYPTO_gcm128_tag(keyer->mac, key->bytes, MAC_LEN);
}

/* ---- what is digested ---- */

static void sink_flush(struct sink *sink)
{
    digest_add(sink->keyer, (const char *)sink->bytes, sink->len);
    sink->len = 0;
}

/* memcpy, with nothing to call for the names and punctuation that most pieces are. */
static inline void copy(unsigned char *to, const unsigned char *from, size_t len)
{
    uint64_t first, last;
    uint32_t first4, last4;
    if (len > 16) {
        memcpy(to, from, len);
    } else if (len >= 8) {
        memcpy(&first, from, 8);
        memcpy(&last, from + len - 8, 8);
        memcpy(to, &first, 8);
        memcpy(to + len - 8, &last, 8);
    } else if (len >= 4) {
        memcpy(&first4, from, 4);
        memcpy(&last4, from + len - 4, 4);
        memcpy(to, &first4, 4);
        memcpy(to + len - 4, &last4, 4);
    } else {
        for (size_t i = 0; i < len; i++)
            to[i] = from[i];
    }
}

/* Small pieces are gathered: each call of OpenSSL's costs as much as digesting some fifty bytes. */
static inline void sink_add(struct sink *sink, const void *bytes, size_t len)
{
    if (len >= SINK_DIRECT) {
        sink_flush(sink);
        digest_add(sink->keyer, bytes, len);
        return;
    }
    if (len > SINK_SIZE - sink->len)
        sink_flush(sink);
    copy(sink->bytes + sink->len, bytes, len);
    sink->len += len;
}

static inline void sink_number(struct sink *sink, size_t number)
{
    uint32_t bytes = htole32((uint32_t)number);
    sink_add(sink, &bytes, sizeof(bytes));
}

/* Bytes of any content: their length keeps them apart from what follows. */
static inline void sink_span(struct sink *sink, struct span span)
{
    sink_number(sink, span.len);
    sink_add(sink, span.base, span.len);
}

static void sink_without_blanks(struct sink *sink, const char *p, const char *end)
{
    struct blanks_state state = {0};
    while (p != end) {
        if (SINK_SIZE - sink->len < SINK_ROOM)
            sink_flush(sink);
        size_t n = SINK_SIZE - sink->len;
        if (n > (size_t)(end - p))
            n = (size_t)(end - p);
        sink->len += blanks_drop(&sink->keyer->blanks, &state, sink->bytes + sink->len, p, n);
        p += n;
    }
}

static bool is_left_out(struct span name)
{
    return span_eq(name, SPAN("user")) || span_eq(name, SPAN("metadata")) || span_eq(name, SPAN("safety_identifier"));
}

/* The text between two places, without the white space. */
static inline void sink_text(struct sink *sink, const struct body_index *index, struct body_place from,
                             struct body_place to)
{
    const char *text = index->text.base;
    for (uint32_t i = from.run; i <= to.run && i < index->run_count; i++) {
        const struct body_run *run = &index->runs[i];
        uint32_t first = run->first > from.at ? run->first : from.at, end = run->end < to.at ? run->end : to.at;
        if (first >= end)
            continue;
        if (run->copy_len != 0)
            sink_add(sink, index->rows.copies + run->copy, run->copy_len);
        else if (run->spaced)
            sink_without_blanks(sink, text + first, text + end);
        else
            sink_add(sink, text + first, end - first);
    }
}

/* A name that was written with escapes: with as few as it takes. */
static void sink_name(struct sink *sink, struct span name)
{
    sink_add(sink, "\"", 1);
    for (size_t i = 0; i < name.len; i++) {
        if (name.base[i] == '"' || name.base[i] == '\\')
            sink_add(sink, "\\", 1);
        sink_add(sink, &name.base[i], 1);
    }
    sink_add(sink, "\":", 2);
}

static void sink_object(struct sink *sink, const struct body_index *index, const struct body_object *object);

/* The text between two places, within which are the objects from `first` up to `end`. */
static void sink_range(struct sink *sink, const struct body_index *index, struct body_place from, struct body_place to,
                       uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end;) {
        const struct body_object *object = &index->objects[i];
        if (object->in_order) {
            i++;
            continue;
        }
        sink_text(sink, index, from, object->start);
        sink_object(sink, index, object);
        from = object->end;
        i = object->next;
    }
    sink_text(sink, index, from, to);
}

static void sink_object(struct sink *sink, const struct body_index *index, const struct body_object *object)
{
    bool top = object == index->objects, some = false;
    sink_add(sink, "{", 1);
    for (uint32_t i = object->first; i < object->first + object->count; i++) {
        const struct body_member *member = &index->members[i];
        struct span name = body_member_name(index, member);
        if (top && is_left_out(name))
            continue;
        if (some)
            sink_add(sink, ",", 1);
        some = true;
        if (member->escaped)
            sink_name(sink, name);
        sink_range(sink, index, body_member_start(member), member->end, member->first_object, member->end_object);
    }
    sink_add(sink, "}", 1);
}

bool cache_key_has_header(struct span name)
{
    return span_starts(name, SPAN("openai-")) || span_eq(name, SPAN("anthropic-version")) ||
           span_eq(name, SPAN("anthropic-beta"));
}

/* Adds the headers by name; those of one name keep their order, which may mean something. */
static bool sink_headers(struct sink *sink, const struct cache_question *question)
{
    const struct cache_header *sorted[CACHE_KEY_MAX_HEADERS];
    size_t count = 0;
    for (size_t i = 0; i < question->header_count; i++) {
        const struct cache_header *header = &question->headers[i];
        if (!cache_key_has_header(header->name))
            continue;
        if (count == CACHE_KEY_MAX_HEADERS)
            return false;
        size_t at = count++;
        for (; at != 0; at--) {
            struct span before = sorted[at - 1]->name, name = header->name;
            size_t len = before.len < name.len ? before.len : name.len;
            int order = memcmp(before.base, name.base, len);
            if (order < 0 || (order == 0 && before.len <= name.len))
                break;
            sorted[at] = sorted[at - 1];
        }
        sorted[at] = header;
    }
    sink_number(sink, count);
    for (size_t i = 0; i < count; i++) {
        sink_span(sink, sorted[i]->name);
        sink_span(sink, sorted[i]->value);
    }
    return true;
}

static bool sink_question(struct sink *sink, const struct cache_question *question)
{
    static const char domain[] = "weir response cache, version 2"; /* with its NUL */
    sink_add(sink, domain, sizeof(domain));
    sink_number(sink, question->scope);
    sink_span(sink, question->scope_name);
    sink_span(sink, question->method);
    sink_span(sink, question->path);
    sink_span(sink, question->query);
    sink_span(sink, question->model);
    return sink_headers(sink, question);
}

/* ---- facts ---- */

/* Whether a value is a number that is zero, however it is written. */
static bool is_zero(struct span value)
{
    bool digits = false;
    if (span_starts(value, SPAN("-")))
        value = span_skip(value, 1);
    for (; value.len != 0 && (*value.base == '0' || *value.base == '.'); value = span_skip(value, 1))
        digits |= *value.base == '0';
    return digits && (value.len == 0 || *value.base == 'e' || *value.base == 'E');
}

static void read_facts(const struct body_index *index, struct cache_key_facts *facts)
{
    const struct body_object *object = &index->objects[0];
    bool unstored = false, state = false;
    *facts = (struct cache_key_facts){.deterministic = false};
    for (uint32_t i = 0; i < object->count; i++) {
        const struct body_member *member = &index->members[object->first + i];
        struct span name = body_member_name(index, member);
        struct span rest = {index->text.base + member->value, member->end.at - member->value};
        bool null = span_starts(rest, SPAN("null")), no = span_starts(rest, SPAN("false"));
        if (span_eq(name, SPAN("temperature")))
            facts->deterministic |= is_zero(rest);
        else if (span_eq(name, SPAN("seed")))
            facts->deterministic |= !null;
        else if (span_eq(name, SPAN("store")))
            unstored = no;
        else if (span_eq(name, SPAN("previous_response_id")) || span_eq(name, SPAN("conversation")))
            state |= !null;
        else if (span_eq(name, SPAN("background")))
            state |= !null && !no;
    }
    facts->stateless = unstored && !state;
}

enum cache_key_result cache_key_make(struct cache_keyer *keyer, const struct cache_question *question,
                                     struct cache_key *key, struct cache_key_facts *facts)
{
    struct sink sink;
    sink.keyer = keyer;
    sink.len = 0;
    enum cache_key_result result = body_index_make(&keyer->index, question->body);
    if (result == CACHE_KEY_MADE) {
        digest_begin(keyer);
        if (!sink_question(&sink, question))
            result = CACHE_KEY_COMPLEX;
    }
    if (result == CACHE_KEY_MADE) {
        sink_object(&sink, &keyer->index, &keyer->index.objects[0]);
        sink_flush(&sink);
        digest_end(keyer, key);
        if (facts != NULL)
            read_facts(&keyer->index, facts);
    }
    body_index_clear(&keyer->index);
    return result;
}

const char *cache_key_result_name(enum cache_key_result result)
{
    static const char *const names[CACHE_KEY_RESULTS] = {
        [CACHE_KEY_MADE] = "made", [CACHE_KEY_INVALID] = "invalid", [CACHE_KEY_DUPLICATE] = "duplicate",
        [CACHE_KEY_DEEP] = "deep", [CACHE_KEY_COMPLEX] = "complex",
    };
    return names[result];
}
