#include "base/digest.h"
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;
static _Thread_local EVP_MD_CTX *context;
static pthread_key_t of_thread; /* frees the context of a thread that ends */

static void free_context(void *ctx)
{
    EVP_MD_CTX_free(ctx);
}

static void fetch(void)
{
    if (pthread_key_create(&of_thread, free_context) != 0)
        abort();
    if ((sha256 = EVP_MD_fetch(NULL, "SHA256", NULL)) == NULL)
        abort();
}

void digest_sha256(struct span bytes, unsigned char out[DIGEST_SHA256_LEN])
{
    pthread_once(&once, fetch);
    if (context == NULL) {
        if ((context = EVP_MD_CTX_new()) == NULL)
            abort();
        pthread_setspecific(of_thread, context);
    }
    if (EVP_DigestInit_ex(context, sha256, NULL) != 1 || EVP_DigestUpdate(context, bytes.base, bytes.len) != 1 ||
        EVP_DigestFinal_ex(context, out, NULL) != 1)
        abort();
}
