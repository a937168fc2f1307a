/* A request's JSON body: what the scanner finds must be what jansson finds, and the cache's key must be the same for
 * the same JSON with its members in another order and other white space. Input: how to change it, the text. */
#include "cache/body_index.h"
#include "fuzz.h"
#include "gateway/body.h"
#include "gateway/splice.h"
#include "second_reader.h"

static const struct body_descriptor *const descriptors[] = {&body_chat,      &body_completions, &body_embeddings,
                                                            &body_responses, &body_messages,    &body_any};
static const char *const blanks[] = {"", " ", "\n", "\t\r\n ", "          "};

/* ---- the same JSON, written in another way ---- */

struct rewriter {
    const char *p, *end; /* good JSON */
    unsigned how;        /* changes as it goes: which white space comes next */
    bool reverse;
};

static void skip_blanks(struct rewriter *in)
{
    while (in->p != in->end && body_is_blank(*in->p))
        in->p++;
}

static void put_blanks(struct rewriter *in, struct strbuf *out)
{
    in->how = in->how * 29 + 7;
    strbuf_puts(out, blanks[in->how / 16 % (sizeof(blanks) / sizeof(blanks[0]))]);
}

/* A string, a number or a word, as it is. */
static void copy_token(struct rewriter *in, struct strbuf *out)
{
    const char *from = in->p;
    if (*in->p == '"') {
        for (in->p++; *in->p != '"'; in->p++)
            in->p += *in->p == '\\';
        in->p++;
    } else {
        while (in->p != in->end && !body_is_blank(*in->p) && strchr(",]}:", *in->p) == NULL)
            in->p++;
    }
    strbuf_add(out, (struct span){from, (size_t)(in->p - from)});
}

static void rewrite(struct rewriter *in, struct strbuf *out);

/* A member or an element, and the comma behind it. */
static void rewrite_item(struct rewriter *in, bool member, struct strbuf *out)
{
    if (member) {
        skip_blanks(in);
        put_blanks(in, out);
        copy_token(in, out);
        skip_blanks(in);
        in->p++;
        put_blanks(in, out);
        strbuf_putc(out, ':');
    }
    rewrite(in, out);
    skip_blanks(in);
}

static void rewrite(struct rewriter *in, struct strbuf *out)
{
    skip_blanks(in);
    put_blanks(in, out);
    char open = *in->p;
    if (open != '{' && open != '[') {
        copy_token(in, out);
        put_blanks(in, out);
        return;
    }
    struct strbuf items; /* so far */
    bool first = true;
    strbuf_init(&items, 1 << 22);
    in->p++;
    for (skip_blanks(in); *in->p != '}' && *in->p != ']'; first = false) {
        in->p += *in->p == ',';
        struct strbuf item;
        strbuf_init(&item, 1 << 22);
        rewrite_item(in, open == '{', &item);
        if (open == '{' && in->reverse) {
            strbuf_puts(&item, first ? "" : ",");
            strbuf_add(&item, strbuf_span(&items));
            strbuf_reset(&items);
        } else if (!first) {
            strbuf_putc(&items, ',');
        }
        strbuf_add(&items, strbuf_span(&item));
        strbuf_dispose(&item);
    }
    in->p++;
    strbuf_putc(out, open);
    put_blanks(in, out);
    strbuf_add(out, strbuf_span(&items));
    put_blanks(in, out);
    strbuf_putc(out, open == '{' ? '}' : ']');
    put_blanks(in, out);
    strbuf_dispose(&items);
}

/* ---- the key ---- */

static enum cache_key_result make_key(struct span body, struct cache_key *key, struct cache_key_facts *facts)
{
    static struct cache_keyer *keyer;
    if (keyer == NULL)
        keyer = cache_keyer_create(NULL);
    char *exact = fuzz_exact(body);
    struct cache_question question = {
        .method = SPAN("POST"), .path = SPAN("/v1/chat/completions"), .model = SPAN("m"), .body = {exact, body.len}};
    enum cache_key_result result = cache_key_make(keyer, &question, key, facts);
    free(exact);
    return result;
}

static void check_key(struct span text, const struct json_value *root, unsigned how)
{
    struct cache_key key, other;
    struct cache_key_facts facts, other_facts;
    enum cache_key_result result = make_key(text, &key, &facts);
    MUST(result < CACHE_KEY_RESULTS && cache_key_result_name(result) != NULL);
    if (root->type != JSON_OBJECT) {
        MUST(root->type == JSON_MISSING || result == CACHE_KEY_INVALID);
        return;
    }
    struct rewriter in = {root->raw.base, root->raw.base + root->raw.len, how, how % 2 != 0};
    struct strbuf out;
    strbuf_init(&out, 1 << 22);
    rewrite(&in, &out);
    MUST(in.p == in.end && !out.overflow);
    enum cache_key_result again = make_key(strbuf_span(&out), &other, &other_facts);
    MUST((result == CACHE_KEY_MADE) == (again == CACHE_KEY_MADE));
    if (result == CACHE_KEY_MADE) {
        MUST(cache_key_eq(&key, &other));
        MUST(facts.deterministic == other_facts.deterministic && facts.stateless == other_facts.stateless);
        /* With a member more it is another. */
        strbuf_reset(&out);
        strbuf_puts(&out, root->count != 0 ? "{\"\x7f~fuzz\":0," : "{\"\x7f~fuzz\":0");
        strbuf_add(&out, span_skip(root->raw, 1));
        again = make_key(strbuf_span(&out), &other, NULL);
        MUST(again == CACHE_KEY_DUPLICATE || again == CACHE_KEY_COMPLEX ||
             (again == CACHE_KEY_MADE && !cache_key_eq(&key, &other)));
    }
    strbuf_dispose(&out);
}

/* ---- the scanner ---- */

static void check_values(struct span text, const struct json_value *root)
{
    struct json_value element;
    char decoded[256];
    uint64_t number;
    size_t cursor = 0, elements = 0;
    MUST(root->type != JSON_MISSING && root->raw.base >= text.base &&
         root->raw.base + root->raw.len <= text.base + text.len);
    while (json_array_next(root, &cursor, &element)) {
        elements++;
        MUST(element.type != JSON_MISSING && element.raw.len != 0);
        if (element.type == JSON_STRING)
            MUST(json_string_decode(element.raw, decoded, sizeof(decoded)) <= (long)sizeof(decoded));
        if (element.type == JSON_NUMBER && json_u64(&element, &number))
            MUST(number < UINT64_C(1) << 53);
    }
    MUST(root->type != JSON_ARRAY || elements == root->count);
}

static void check_descriptor(struct span text, const struct body_descriptor *body)
{
    struct span names[BODY_FIELDS_MAX];
    struct json_value values[BODY_FIELDS_MAX], root;
    struct json_error error;
    struct body_problem problem;
    for (size_t i = 0; i < body->field_count; i++)
        names[i] = body->fields[i].name;
    if (!json_scan(text, names, body->field_count, values, &root, &error)) {
        MUST(error.message != NULL && error.offset <= text.len && root.type == JSON_MISSING);
        for (size_t i = 0; i < body->field_count; i++)
            MUST(values[i].type == JSON_MISSING);
        return;
    }
    for (size_t i = 0; i < body->field_count; i++) {
        char name[JSON_NAME_MAX + 1];
        snprintf(name, sizeof(name), "%.*s", (int)names[i].len, names[i].base);
        char kind = second_reader_member(text, name);
        MUST(kind == '?' || kind == "-znbsao"[values[i].type == JSON_MISSING  ? 0
                                              : values[i].type == JSON_NULL   ? 1
                                              : values[i].type == JSON_NUMBER ? 2
                                              : values[i].type == JSON_BOOL   ? 3
                                              : values[i].type == JSON_STRING ? 4
                                              : values[i].type == JSON_ARRAY  ? 5
                                                                              : 6]);
    }
    if (!body_check(body, &root, values, &problem)) {
        MUST(problem.message[0] != '\0');
        MUST(json_scan(span_of(problem.detail), NULL, 0, NULL, NULL, &error));
    }
}

/* A body that asks for a stream is changed on its way, and must stay what it was but for that. */
static void check_splice(struct span text)
{
    static const struct span name[] = {SPAN("stream_options")};
    struct json_value options, root, again;
    struct json_error error;
    struct splice splice;
    struct span pieces[EXCHANGE_BODY_PIECES] = {{0}};
    struct strbuf out;
    if (!json_scan(text, name, 1, &options, &root, &error) || root.type != JSON_OBJECT || root.count == 0 ||
        options.duplicate || !splice_usage(&root, &options, &splice))
        return;
    splice_body(text, &splice, 1, pieces);
    strbuf_init(&out, 1 << 22);
    for (size_t i = 0; i < EXCHANGE_BODY_PIECES; i++)
        strbuf_add(&out, pieces[i]);
    MUST(json_scan(strbuf_span(&out), name, 1, &options, &again, &error));
    MUST(options.type == JSON_OBJECT && !splice_usage(&again, &options, &splice));
    strbuf_dispose(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span input = {(const char *)data, size};
    struct json_value root = {.type = JSON_MISSING};
    struct json_error error;
    unsigned how = fuzz_byte(&input);
    char *exact = fuzz_exact(input);
    struct span text = {exact, input.len};
    bool good = json_scan(text, NULL, 0, NULL, &root, &error);
    MUST(second_reader_agrees(text, good, good ? NULL : error.message));
    if (good)
        check_values(text, &root);
    for (size_t i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++)
        check_descriptor(text, descriptors[i]);
    check_splice(text);
    check_key(text, &root, how);
    free(exact);
    return 0;
}
