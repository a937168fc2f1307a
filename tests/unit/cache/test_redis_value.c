#include "cache/redis_value.h"
#include "run_suite.h"
#include <stdlib.h>

static struct cache_key key;
static struct redis_value_head head;
static struct strbuf value;
static char body[2 * 65536 + 17]; /* three pieces' worth */

static void setup(void)
{
    memset(key.bytes, 'k', sizeof(key.bytes));
    for (size_t i = 0; i < sizeof(body); i++)
        body[i] = (char)(i * 7 + i / 251);
    head = (struct redis_value_head){
        .key = key,
        .created_wall_us = 1700000000123456,
        .ttl_us = 600000000,
        .status = 200,
        .sse = true,
        .dialect = DIALECT_MESSAGES,
        .facts = {.bytes = 300,
                  .events = 7,
                  .terminal = true,
                  .usage = {.prompt = 11, .completion = 12, .cached = 3, .known = true}},
        .scope_name = SPAN("alice"),
        .model = SPAN("llama"),
        .headers = {{SPAN("content-type"), SPAN("text/event-stream")}, {SPAN("openai-version"), SPAN("2020-10-01")}},
        .header_count = 2,
        .body = {body, 300},
    };
    memset(head.generation, 'g', sizeof(head.generation));
    memset(head.epoch, 'e', sizeof(head.epoch));
    strbuf_init(&value, REDIS_VALUE_MAX);
}

static void teardown(void)
{
    strbuf_dispose(&value);
}

static struct span write_head(void)
{
    strbuf_reset(&value);
    ck_assert(redis_value_write_head(&head, &value));
    return strbuf_span(&value);
}

START_TEST(test_a_head_comes_back_as_it_was)
{
    struct redis_value_head got;
    ck_assert(redis_value_read_head(write_head(), &key, &got));
    ck_assert(cache_key_eq(&got.key, &key));
    ck_assert_mem_eq(got.generation, head.generation, sizeof(head.generation));
    ck_assert_mem_eq(got.epoch, head.epoch, sizeof(head.epoch));
    ck_assert_uint_eq(got.created_wall_us, head.created_wall_us);
    ck_assert_uint_eq(got.ttl_us, head.ttl_us);
    ck_assert_int_eq(got.status, 200);
    ck_assert(got.sse && got.facts.terminal && got.facts.usage.known && !got.facts.error_event);
    ck_assert_int_eq(got.dialect, DIALECT_MESSAGES);
    ck_assert_uint_eq(got.facts.bytes, 300);
    ck_assert_uint_eq(got.facts.events, 7);
    ck_assert_uint_eq(got.facts.usage.prompt, 11);
    ck_assert_uint_eq(got.facts.usage.completion, 12);
    ck_assert_uint_eq(got.facts.usage.cached, 3);
    ck_assert(span_eq(got.scope_name, SPAN("alice")) && span_eq(got.model, SPAN("llama")));
    ck_assert_uint_eq(got.etag.len, 0);
    ck_assert_uint_eq(got.header_count, 2);
    ck_assert(span_eq(got.headers[0].name, SPAN("content-type")));
    ck_assert(span_eq(got.headers[1].value, SPAN("2020-10-01")));
    ck_assert(span_eq(got.body, head.body));
    ck_assert_uint_eq(got.piece_count, 0);
    head.sse = false;
    head.etag = SPAN("\"0123456789abcdef0123456789abcdef\"");
    head.facts.usage = (struct usage){.known = false};
    ck_assert(redis_value_read_head(write_head(), &key, &got));
    ck_assert(!got.sse && !got.facts.usage.known && !got.facts.terminal && span_eq(got.etag, head.etag));
}
END_TEST

START_TEST(test_a_head_cut_short_or_too_long_is_none)
{
    struct redis_value_head got;
    struct span whole = write_head();
    for (size_t n = 0; n < whole.len; n++) {
        char *copy = span_dup((struct span){whole.base, n}); /* so that a sanitizer sees reads behind the end */
        ck_assert_msg(!redis_value_read_head((struct span){copy, n}, &key, &got), "%zu bytes", n);
        free(copy);
    }
    strbuf_putc(&value, 'x');
    ck_assert(!redis_value_read_head(strbuf_span(&value), &key, &got));
}
END_TEST

START_TEST(test_a_head_with_any_bit_changed_is_none)
{
    struct redis_value_head got;
    struct span whole = write_head();
    for (size_t bit = 0; bit < whole.len * 8; bit++) {
        value.base[bit / 8] ^= (char)(1 << bit % 8);
        ck_assert_msg(!redis_value_read_head(whole, &key, &got), "bit %zu", bit);
        value.base[bit / 8] ^= (char)(1 << bit % 8);
    }
    ck_assert(redis_value_read_head(whole, &key, &got));
}
END_TEST

START_TEST(test_a_head_of_another_question_is_none)
{
    struct redis_value_head got;
    struct cache_key other = key;
    other.bytes[CACHE_KEY_LEN - 1] ^= 1;
    ck_assert(!redis_value_read_head(write_head(), &other, &got));
    ck_assert(!redis_value_read_head(SPAN_NONE, &key, &got));
    ck_assert(!redis_value_read_head(SPAN("hello"), &key, &got));
}
END_TEST

/* A value whose digest is right and whose content is not: a version of weir with a mistake, or somebody's doing. */
START_TEST(test_what_is_sealed_well_is_not_believed_either)
{
    struct redis_value_head got;
    head.status = 500;
    ck_assert(!redis_value_read_head(write_head(), &key, &got));
    head.status = 200;
    head.dialect = (enum dialect_id)99;
    ck_assert(!redis_value_read_head(write_head(), &key, &got));
    head.dialect = DIALECT_CHAT;
    head.headers[1].value = SPAN("a\r\nset-cookie: x");
    ck_assert(!redis_value_read_head(write_head(), &key, &got));
    head.headers[1].value = SPAN("a\x7f");
    ck_assert(!redis_value_read_head(write_head(), &key, &got));
    head.headers[1].value = SPAN("fine");
    head.headers[1].name = SPAN("not a name");
    ck_assert(!redis_value_read_head(write_head(), &key, &got));
    head.headers[1].name = SPAN_NONE;
    ck_assert(!redis_value_read_head(write_head(), &key, &got));
    head.header_count = 1;
    head.etag = SPAN("\"short\"");
    ck_assert(!redis_value_read_head(write_head(), &key, &got));
    head.etag = SPAN("\"0123456789abcdef\r\nx: 56789abcdef\"");
    ck_assert(!redis_value_read_head(write_head(), &key, &got));
    head.etag = SPAN_NONE;
    ck_assert(redis_value_read_head(write_head(), &key, &got));
}
END_TEST

START_TEST(test_what_does_not_fit_is_not_written)
{
    static char text[REDIS_VALUE_TEXT_MAX + 1];
    struct redis_value_head good = head;
    memset(text, 'x', sizeof(text));
    head.model = (struct span){text, sizeof(text)};
    ck_assert(!redis_value_write_head(&head, &value));
    head = good;
    head.headers[0].value = (struct span){text, sizeof(text)};
    ck_assert(!redis_value_write_head(&head, &value));
    head = good;
    head.header_count = REDIS_VALUE_HEADERS_MAX + 1;
    ck_assert(!redis_value_write_head(&head, &value));
    head = good;
    head.facts.bytes = REDIS_VALUE_PIECES_MAX * REDIS_VALUE_PIECE + 1;
    head.body = SPAN_NONE;
    ck_assert(!redis_value_write_head(&head, &value));
    head = good;
    head.body.len--;
    ck_assert(!redis_value_write_head(&head, &value));
    head = good;
    for (size_t i = 0; i < REDIS_VALUE_HEADERS_MAX; i++)
        head.headers[i] = (struct cache_header){{text, REDIS_VALUE_TEXT_MAX}, {text, REDIS_VALUE_TEXT_MAX}};
    head.header_count = REDIS_VALUE_HEADERS_MAX;
    head.scope_name = head.model = (struct span){text, REDIS_VALUE_TEXT_MAX};
    head.facts.bytes = REDIS_VALUE_INLINE_MAX;
    head.body = (struct span){body, REDIS_VALUE_INLINE_MAX};
    ck_assert_msg(redis_value_write_head(&head, &value), "the largest head fits");
}
END_TEST

static struct span piece_of(size_t index)
{
    size_t at = index * REDIS_VALUE_PIECE;
    return (struct span){body + at, sizeof(body) - at < REDIS_VALUE_PIECE ? sizeof(body) - at : REDIS_VALUE_PIECE};
}

/* The head of `body`, as it is read. */
static struct redis_value_head in_pieces(void)
{
    struct redis_value_head got;
    head.facts.bytes = sizeof(body);
    head.body = SPAN_NONE;
    ck_assert(redis_value_read_head(write_head(), &key, &got));
    ck_assert_uint_eq(got.piece_count, 3);
    return got;
}

START_TEST(test_pieces_come_back_as_they_were)
{
    struct redis_value_head got = in_pieces();
    struct span bytes;
    for (size_t i = 0; i < 3; i++) {
        strbuf_reset(&value);
        redis_value_write_piece(&head, i, piece_of(i), &value);
        ck_assert(redis_value_read_piece(strbuf_span(&value), &got, i, &bytes));
        ck_assert(span_eq(bytes, piece_of(i)));
        for (size_t other = 0; other < 5; other++)
            ck_assert(other == i || !redis_value_read_piece(strbuf_span(&value), &got, other, &bytes));
    }
    ck_assert_uint_eq(redis_value_pieces(0), 0);
    ck_assert_uint_eq(redis_value_pieces(REDIS_VALUE_PIECE), 0);
    ck_assert_uint_eq(redis_value_pieces(REDIS_VALUE_PIECE + 1), 2);
    ck_assert_uint_eq(redis_value_pieces(2 * REDIS_VALUE_PIECE), 2);
}
END_TEST

START_TEST(test_a_piece_cut_changed_or_from_elsewhere_is_none)
{
    struct redis_value_head got = in_pieces(), other = got;
    struct span bytes;
    strbuf_reset(&value);
    redis_value_write_piece(&head, 2, piece_of(2), &value);
    struct span whole = strbuf_span(&value);
    for (size_t n = 0; n < whole.len; n++)
        ck_assert(!redis_value_read_piece((struct span){whole.base, n}, &got, 2, &bytes));
    for (size_t bit = 0; bit < whole.len * 8; bit++) {
        value.base[bit / 8] ^= (char)(1 << bit % 8);
        ck_assert(!redis_value_read_piece(whole, &got, 2, &bytes));
        value.base[bit / 8] ^= (char)(1 << bit % 8);
    }
    ck_assert(redis_value_read_piece(whole, &got, 2, &bytes));
    other.generation[0] ^= 1;
    ck_assert(!redis_value_read_piece(whole, &other, 2, &bytes));
    other = got;
    other.key.bytes[0] ^= 1;
    ck_assert(!redis_value_read_piece(whole, &other, 2, &bytes));
    strbuf_reset(&value);
    redis_value_write_piece(&head, 2, piece_of(1), &value);
    ck_assert_msg(!redis_value_read_piece(strbuf_span(&value), &got, 2, &bytes), "longer than its place");
}
END_TEST

START_TEST(test_keys_are_digits_alone)
{
    char out[REDIS_VALUE_KEY_SIZE];
    size_t n = redis_value_head_key(&key, out);
    ck_assert_uint_eq(n, strlen(out));
    ck_assert_uint_eq(n, 2 + 64);
    ck_assert_uint_eq(strspn(out + 2, "0123456789abcdef"), 64);
    n = redis_value_piece_key(&head, SIZE_MAX, out);
    ck_assert_uint_eq(n, strlen(out));
    ck_assert_str_eq(out + n - 20, "18446744073709551615");
    ck_assert_int_eq(out[66], ':');
    ck_assert_int_eq(out[66 + 33], ':');
}
END_TEST

/* Bytes at random behind a good magic, and good values with a stretch of them replaced: nothing is believed and nothing
 * is read that is not there. */
START_TEST(test_noise)
{
    struct redis_value_head got;
    struct span bytes;
    srandom(4);
    for (int round = 0; round < 3000; round++) {
        struct span whole = write_head();
        size_t len = (size_t)random() % (whole.len + 1);
        char *copy = span_dup((struct span){whole.base, len});
        for (size_t i = len < 4 ? 0 : 4 + (size_t)random() % (len - 3); i < len; i++)
            copy[i] = (char)random();
        bool same = len == whole.len && memcmp(copy, whole.base, len) == 0;
        ck_assert(same || !redis_value_read_head((struct span){copy, len}, &key, &got));
        ck_assert(!redis_value_read_piece((struct span){copy, len}, &head, 0, &bytes));
        free(copy);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("redis_value");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_a_head_comes_back_as_it_was);
    tcase_add_test(tc, test_a_head_cut_short_or_too_long_is_none);
    tcase_add_test(tc, test_a_head_with_any_bit_changed_is_none);
    tcase_add_test(tc, test_a_head_of_another_question_is_none);
    tcase_add_test(tc, test_what_is_sealed_well_is_not_believed_either);
    tcase_add_test(tc, test_what_does_not_fit_is_not_written);
    tcase_add_test(tc, test_pieces_come_back_as_they_were);
    tcase_add_test(tc, test_a_piece_cut_changed_or_from_elsewhere_is_none);
    tcase_add_test(tc, test_keys_are_digits_alone);
    tcase_add_test(tc, test_noise);
    return run_suite("redis_value", tc);
}
