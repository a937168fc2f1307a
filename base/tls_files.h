/* Certificates, keys and authorities from PEM files into an SSL_CTX. What is wrong is told in words that a person can
 * act on: the file's name, and errno's words where it cannot be read. Any thread; blocks on the file. */
#ifndef WEIR_BASE_TLS_FILES_H
#define WEIR_BASE_TLS_FILES_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

/* Loads a certificate chain and its key (`key` may be the same file). False with one message in `error`. */
bool tls_files_certificate(SSL_CTX *tls, const char *cert, const char *key, char *error, size_t error_size);

/* Trusts the authorities of a file in place of none. False with one message in `error`. */
bool tls_files_authorities(SSL_CTX *tls, const char *ca, char *error, size_t error_size);

#endif
