#include "cache/key.h"
#include "cache/body_index.h"
#include <endian.h>
#include <h2o/memory.h>
#include <openssl/evp.h>
#include <stdlib.h>

#define SINK_SIZE 2048

struct cache_keyer {
    EVP_MD *sha256;
    EVP_MD_CTX *digest;
    struct body_index index;
    struct blanks blanks;
};

struct sink {
    const struct blanks *blanks;
    EVP_MD_CTX *digest;
    size_t len;
    unsigned char bytes[SINK_SIZE];
};

struct cache_keyer *cache_keyer_create(void)
{
    struct cache_keyer *keyer = h2o_mem_alloc(sizeof(*keyer));
    *keyer = (struct cache_keyer){.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL), .digest = EVP_MD_CTX_new()};
    if (keyer->sha256 == NULL || keyer->digest == NULL)
        h2o_fatal("no SHA-256");
    blanks_init(&keyer->blanks);
    return keyer;
}

void cache_keyer_destroy(struct cache_keyer *keyer)
{
    if (keyer == NULL)
        return;
    body_index_dispose(&keyer->index);
    EVP_MD_CTX_free(keyer->digest);
    EVP_MD_free(keyer->sha256);
    free(keyer);
}

/* ---- what is hashed ---- */

static void sink_flush(struct sink *sink)
{
    if (EVP_DigestUpdate(sink->digest, sink->bytes, sink->len) != 1)
        h2o_fatal("SHA-256 failed");
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

/* Small pieces are gathered: each call of OpenSSL's costs as much as hashing some fifty bytes. */
static inline void sink_add(struct sink *sink, const void *bytes, size_t len)
{
    if (len > SINK_SIZE - sink->len) {
        sink_flush(sink);
        if (len > SINK_SIZE / 2) {
            if (EVP_DigestUpdate(sink->digest, bytes, len) != 1)
                h2o_fatal("SHA-256 failed");
            return;
        }
    }
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
    while (p != end) {
        if (sink->len == SINK_SIZE)
            sink_flush(sink);
        size_t n = SINK_SIZE - sink->len;
        if (n > (size_t)(end - p))
            n = (size_t)(end - p);
        sink->len += blanks_drop(sink->blanks, sink->bytes + sink->len, p, n);
        p += n;
    }
}

static bool is_left_out(const struct body_member *member)
{
    struct span name = {member->name, member->name_len};
    return span_eq(name, SPAN("user")) || span_eq(name, SPAN("metadata")) || span_eq(name, SPAN("safety_identifier"));
}

/* An object is '{', the number of its members, and of each its name and value and a comma, which no value that is not
 * closed can contain; so whatever has the same bytes is the same value. */
static void sink_parts(struct sink *sink, const struct body_index *index, uint32_t first, uint32_t end, bool top)
{
    for (uint32_t i = first; i < end;) {
        const struct body_part *part = &index->parts[i];
        if (part->kind != BODY_OBJECT) {
            const char *text = index->text.base;
            if (part->kind == BODY_SPACED)
                sink_without_blanks(sink, text + part->first, text + part->end);
            else
                sink_add(sink, text + part->first, part->end - part->first);
            i++;
            continue;
        }
        uint32_t behind = part->first + part->count, count = part->count;
        for (uint32_t m = part->first; top && m < behind; m++)
            count -= is_left_out(&index->members[m]);
        sink_add(sink, "{", 1);
        sink_number(sink, count);
        for (uint32_t m = part->first; m < behind; m++) {
            const struct body_member *member = &index->members[m];
            if (top && is_left_out(member))
                continue;
            sink_span(sink, (struct span){member->name, member->name_len});
            sink_parts(sink, index, member->first_part, member->end_part, false);
            sink_add(sink, ",", 1);
        }
        i = part->end;
    }
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
    static const char domain[] = "weir response cache, version 1"; /* with its NUL */
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
    const struct body_part *object = &index->parts[0];
    bool unstored = false, state = false;
    *facts = (struct cache_key_facts){.deterministic = false};
    for (uint32_t i = 0; i < object->count; i++) {
        const struct body_member *member = &index->members[object->first + i];
        const struct body_part *value = &index->parts[member->first_part];
        struct span name = {member->name, member->name_len}, rest = SPAN_NONE;
        if (value->kind != BODY_OBJECT)
            rest = (struct span){index->text.base + value->first, value->end - value->first};
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
    sink.blanks = &keyer->blanks;
    sink.digest = keyer->digest;
    sink.len = 0;
    enum cache_key_result result = body_index_make(&keyer->index, question->body);
    if (result == CACHE_KEY_MADE) {
        if (EVP_DigestInit_ex2(keyer->digest, keyer->sha256, NULL) != 1)
            h2o_fatal("SHA-256 failed");
        if (!sink_question(&sink, question))
            result = CACHE_KEY_COMPLEX;
    }
    if (result == CACHE_KEY_MADE) {
        sink_parts(&sink, &keyer->index, 0, keyer->index.part_count, true);
        sink_flush(&sink);
        if (EVP_DigestFinal_ex(keyer->digest, key->bytes, NULL) != 1)
            h2o_fatal("SHA-256 failed");
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
