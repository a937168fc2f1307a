/* SHA-256 on hot paths: OpenSSL 3 looks an algorithm up by name each time it is asked for it, which takes longer than
 * to digest a key; here it is looked up once. */
#ifndef WEIR_BASE_DIGEST_H
#define WEIR_BASE_DIGEST_H

#include "base/span.h"

#define DIGEST_SHA256_LEN 32

/* The SHA-256 (FIPS 180-4) of `bytes`. Any thread; keeps a context for each, until it ends. */
void digest_sha256(struct span bytes, unsigned char out[DIGEST_SHA256_LEN]);

#endif
