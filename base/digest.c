#include "base/digest.h"
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;
static _Thread_local EVP_MD_CTX *context;

static void fetch(void)
{
    if ((sha256 = EVP_MD_fetch(NULL, "SHA256", NULL)) == NULL)
        abort();
}

void digest_sha256(struct span bytes, unsigned char out[DIGEST_SHA256_LEN])
{
    pthread_once(&once, fetch);
    if (context == NULL && (context = EVP_MD_CTX_new()) == NULL)
        abort();
    if (EVP_DigestInit_ex(context, sha256, NULL) != 1 || EVP_DigestUpdate(context, bytes.base, bytes.len) != 1 ||
        EVP_DigestFinal_ex(context, out, NULL) != 1)
        abort();
}
