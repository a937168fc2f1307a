#include "base/digest.h"
#include "run_suite.h"
#include <stdio.h>

static const char *hex(struct span bytes)
{
    static char text[2 * DIGEST_SHA256_LEN + 1];
    unsigned char digest[DIGEST_SHA256_LEN];
    digest_sha256(bytes, digest);
    for (size_t i = 0; i < DIGEST_SHA256_LEN; i++)
        sprintf(text + 2 * i, "%02x", digest[i]);
    return text;
}

/* The examples of FIPS 180-4, and that one digest leaves nothing to the next. */
START_TEST(the_standards_examples)
{
    for (int i = 0; i < 2; i++) {
        ck_assert_str_eq(hex(SPAN("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        ck_assert_str_eq(hex(SPAN_NONE), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        ck_assert_str_eq(hex(SPAN("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
                         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    }
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("digest");
    tcase_add_test(tcase, the_standards_examples);
    return run_suite("digest", tcase);
}
