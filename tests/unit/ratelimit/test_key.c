#include "base/digest.h"
#include "ratelimit/key.h"
#include "run_suite.h"
#include <endian.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <stdlib.h>

static const struct key_secret secret = {{UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}};
static const unsigned char secret_bytes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static void add_number(unsigned char **at, uint64_t number)
{
    for (int i = 0; i < 8; i++)
        *(*at)++ = (unsigned char)(number >> (8 * i));
}

/* The digest as the header describes it, by OpenSSL. */
static void reference(const struct span *parts, size_t count, unsigned char digest[16])
{
    unsigned char bytes[4096], *at = bytes;
    memset(bytes, 0, sizeof(bytes));
    add_number(&at, count);
    for (size_t i = 0; i < count; i++) {
        add_number(&at, parts[i].len);
        if (parts[i].len != 0)
            memcpy(at, parts[i].base, parts[i].len);
        at += (parts[i].len + 7) / 8 * 8;
    }
    size_t size = 16, len;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size), OSSL_PARAM_construct_end()};
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "SIPHASH", NULL);
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(mac);
    ck_assert_int_eq(EVP_MAC_init(ctx, secret_bytes, sizeof(secret_bytes), params), 1);
    ck_assert_int_eq(EVP_MAC_update(ctx, bytes, (size_t)(at - bytes)), 1);
    ck_assert_int_eq(EVP_MAC_final(ctx, digest, &len, 16), 1);
    ck_assert_uint_eq(len, 16);
    EVP_MAC_CTX_free(ctx);
    EVP_MAC_free(mac);
}

START_TEST(digests_are_those_of_siphash)
{
    char text[200];
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i * 37);
    for (size_t len = 0; len < 150; len++) {
        /* Copies of the exact size, so that reading beyond is seen. */
        char *exact = malloc(len + 1);
        memcpy(exact, text, len);
        struct span parts[] = {{exact, len}, SPAN_NONE, {text, len % 11}};
        for (size_t count = 0; count <= 3; count++) {
            unsigned char expected[16], got[16], *at = got;
            struct key key = key_make(&secret, parts, count);
            add_number(&at, key.word[0]);
            add_number(&at, key.word[1]);
            reference(parts, count, expected);
            ck_assert_mem_eq(got, expected, 16);
        }
        free(exact);
    }
}
END_TEST

/* What all gateways must agree on, also of different versions: it may never change. */
START_TEST(digests_without_a_secret_are_those_of_sha256)
{
    char text[1000];
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i * 37);
    struct key seen[300];
    for (size_t len = 0; len < 300; len++) {
        struct span parts[] = {SPAN("client"), {text, len}, {text, len % 11}};
        unsigned char bytes[2048], digest[DIGEST_SHA256_LEN], got[16], *at = bytes;
        add_number(&at, 3);
        for (size_t i = 0; i < 3; i++) {
            add_number(&at, parts[i].len);
            if (parts[i].len > 256) {
                digest_sha256(parts[i], at);
                at += DIGEST_SHA256_LEN;
                continue;
            }
            memset(at, 0, 264);
            memcpy(at, parts[i].base, parts[i].len);
            at += (parts[i].len + 7) / 8 * 8;
        }
        digest_sha256((struct span){(const char *)bytes, (size_t)(at - bytes)}, digest);
        seen[len] = key_make(NULL, parts, 3);
        uint64_t words[2] = {htobe64(seen[len].word[0]), htobe64(seen[len].word[1])};
        memcpy(got, words, sizeof(got));
        ck_assert_mem_eq(got, digest, 16);
        for (size_t k = 0; k < len; k++)
            ck_assert(!key_eq(&seen[k], &seen[len]));
    }
}
END_TEST

static struct key make2(struct span a, struct span b)
{
    struct span parts[] = {a, b};
    return key_make(&secret, parts, 2);
}

START_TEST(no_text_passes_for_another_split)
{
    static const char text[] = "a\0b\0\0\0\0\0\0\0\0cdefgh";
    struct key seen[sizeof(text)];
    for (size_t i = 0; i < sizeof(text); i++) {
        seen[i] = make2((struct span){text, i}, (struct span){text + i, sizeof(text) - i});
        for (size_t k = 0; k < i; k++)
            ck_assert(!key_eq(&seen[i], &seen[k]));
    }
    struct key whole = key_make(&secret, &(struct span){text, sizeof(text)}, 1);
    for (size_t k = 0; k < sizeof(text); k++)
        ck_assert(!key_eq(&whole, &seen[k]));
    /* Padding is not content. */
    struct key one = make2(SPAN("x"), SPAN("")), padded = make2(SPAN("x\0"), SPAN(""));
    ck_assert(!key_eq(&one, &padded));
}
END_TEST

static struct key make(struct span name, const struct limit *limit, enum limit_strategy strategy, struct span kind,
                       struct span value)
{
    struct key_kind begun = key_kind_of(&secret, kind);
    struct key in_steps = key_of_kind(&begun, value), at_once = key_of_client(&secret, kind, value);
    ck_assert(key_eq(&in_steps, &at_once));
    struct key rule = key_of_limit(&secret, name, limit, strategy), client = key_of_client(&secret, kind, value);
    return key_for(&rule, &client);
}

START_TEST(each_thing_a_limit_is_makes_another_key)
{
    struct limit limit = {.amount = 5, .window_us = 60000000, .multiple = 1, .granularity = LIMIT_MINUTE};
    struct limit more = limit, longer = limit, tokens = limit;
    more.amount = 6;
    longer.window_us *= 2;
    tokens.unit = LIMIT_TOKENS;
    struct span name = SPAN("per_ip"), kind = SPAN("address"), value = SPAN("10.0.0.9");
    struct key keys[] = {
        make(name, &limit, LIMIT_FIXED_WINDOW, kind, value),
        make(name, &more, LIMIT_FIXED_WINDOW, kind, value),
        make(name, &longer, LIMIT_FIXED_WINDOW, kind, value),
        make(name, &tokens, LIMIT_FIXED_WINDOW, kind, value),
        make(name, &limit, LIMIT_MOVING_WINDOW, kind, value),
        make(SPAN("per_ipa"), &limit, LIMIT_FIXED_WINDOW, SPAN("ddress"), value),
        make(name, &limit, LIMIT_FIXED_WINDOW, SPAN("user"), value),
        make(name, &limit, LIMIT_FIXED_WINDOW, kind, SPAN("10.0.0.90")),
        make(name, &limit, LIMIT_FIXED_WINDOW, SPAN_NONE, SPAN_NONE),
        key_of_share(&secret, name, &limit, LIMIT_FIXED_WINDOW),
        key_of_share(&secret, name, &limit, LIMIT_MOVING_WINDOW),
        key_of_limit(&secret, name, &limit, LIMIT_FIXED_WINDOW),
        key_of_client(&secret, kind, value),
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        for (size_t k = 0; k < i; k++)
            ck_assert(!key_eq(&keys[i], &keys[k]));
    struct key again = make(name, &limit, LIMIT_FIXED_WINDOW, kind, value);
    ck_assert(key_eq(&again, &keys[0]));
}
END_TEST

START_TEST(secrets_differ_and_matter)
{
    struct key_secret a, b;
    key_secret_random(&a);
    key_secret_random(&b);
    ck_assert(a.word[0] != b.word[0] || a.word[1] != b.word[1]);
    struct span part = SPAN("x");
    struct key ka = key_make(&a, &part, 1), kb = key_make(&b, &part, 1);
    ck_assert(!key_eq(&ka, &kb));
}
END_TEST

/* So a client's limits are found under one lock. Keys in Redis have all their bits. */
START_TEST(a_client_has_one_place)
{
    struct limit limit = {.amount = 1, .window_us = 2, .multiple = 1},
                 other = {.amount = 2, .window_us = 2, .multiple = 1};
    struct key client = key_of_client(&secret, SPAN("k"), SPAN("me"));
    struct key one = key_of_limit(&secret, SPAN("l"), &limit, LIMIT_FIXED_WINDOW);
    struct key two = key_of_limit(&secret, SPAN("l"), &other, LIMIT_FIXED_WINDOW);
    struct key common = key_of_limit(NULL, SPAN("l"), &limit, LIMIT_FIXED_WINDOW);
    struct key keys[] = {key_for(&one, &client), key_for(&two, &client)};

    ck_assert(!key_eq(&keys[0], &keys[1]));
    ck_assert_uint_eq(key_place(&keys[0]), key_place(&keys[1]));
    ck_assert_uint_eq(key_place(&keys[0]), key_place(&client));
    ck_assert_uint_ne(key_place(&client), 0);
    ck_assert_uint_ne(key_place(&common), 0);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("key");
    tcase_add_test(tc, digests_are_those_of_siphash);
    tcase_add_test(tc, digests_without_a_secret_are_those_of_sha256);
    tcase_add_test(tc, no_text_passes_for_another_split);
    tcase_add_test(tc, each_thing_a_limit_is_makes_another_key);
    tcase_add_test(tc, secrets_differ_and_matter);
    tcase_add_test(tc, a_client_has_one_place);
    return run_suite("key", tc);
}
