/* Makes keys of bodies, for tests. */
#ifndef WEIR_TESTS_KEY_MAKER_H
#define WEIR_TESTS_KEY_MAKER_H

#include "base/strbuf.h"
#include "cache/key.h"
#include "run_suite.h"
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct cache_keyer *keyer;
static struct cache_key_facts facts;

static void setup(void)
{
    keyer = cache_keyer_create(NULL);
}

__attribute__((unused)) static void setup_secret(void)
{
    keyer = cache_keyer_create((const unsigned char *)"a secret of ours");
}

static void teardown(void)
{
    cache_keyer_destroy(keyer);
}

static struct cache_question question_of(struct span body)
{
    return (struct cache_question){
        .scope = CACHE_SCOPE_KEY,
        .scope_name = SPAN("alice"),
        .method = SPAN("POST"),
        .path = SPAN("/v1/chat/completions"),
        .model = SPAN("llama"),
        .body = body,
    };
}

/* The body goes into memory of just its size, so that AddressSanitizer sees a read beyond it. */
static enum cache_key_result make(struct span body, struct cache_key *key)
{
    char *exact = malloc(body.len + (body.len == 0));
    ck_assert_ptr_nonnull(exact);
    if (body.len != 0)
        memcpy(exact, body.base, body.len);
    struct cache_question question = question_of((struct span){exact, body.len});
    enum cache_key_result result = cache_key_make(keyer, &question, key, &facts);
    free(exact);
    return result;
}

static struct cache_key key_of(const char *body)
{
    struct cache_key key;
    ck_assert_msg(make(span_of(body), &key) == CACHE_KEY_MADE, "no key for %s", body);
    return key;
}

#endif
