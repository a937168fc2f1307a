#include "base/tls_files.h"
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509err.h>
#include <stdio.h>
#include <string.h>

/* OpenSSL would ask for a passphrase on the terminal, of a gateway that may have none. */
static int no_passphrase(char *buffer, int size, int writing, void *asked)
{
    (void)buffer;
    (void)size;
    (void)writing;
    *(bool *)asked = true;
    return -1;
}

/* `what` is what the file should hold. */
static bool fail(const char *what, const char *file, bool asked, char *error, size_t error_size)
{
    /* The first error is the cause; those behind it say who was told. */
    unsigned long first = ERR_peek_error(), last = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(last);
    if (asked)
        snprintf(error, error_size, "the %s %s is protected by a passphrase, expected one without", what, file);
    else if (ERR_SYSTEM_ERROR(first))
        snprintf(error, error_size, "cannot read the %s %s: %s", what, file, strerror(ERR_GET_REASON(first)));
    else if ((ERR_GET_LIB(first) == ERR_LIB_PEM && ERR_GET_REASON(first) == PEM_R_NO_START_LINE) ||
             (ERR_GET_LIB(first) == ERR_LIB_OSSL_DECODER && ERR_GET_REASON(first) == ERR_R_UNSUPPORTED))
        snprintf(error, error_size, "%s holds no %s, expected one in PEM form", file, what);
    else
        snprintf(error, error_size, "cannot use the %s %s: %s", what, file, reason != NULL ? reason : "unreadable");
    ERR_clear_error();
    return false;
}

bool tls_files_certificate(SSL_CTX *tls, const char *cert, const char *key, char *error, size_t error_size)
{
    bool asked = false;
    SSL_CTX_set_default_passwd_cb(tls, no_passphrase);
    SSL_CTX_set_default_passwd_cb_userdata(tls, &asked);
    ERR_clear_error();
    bool ok = SSL_CTX_use_certificate_chain_file(tls, cert) == 1;
    if (!ok) {
        fail("certificate", cert, asked, error, error_size);
    } else if (SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(tls) != 1) {
        unsigned long last = ERR_peek_last_error();
        bool mismatch = ERR_GET_LIB(last) == ERR_LIB_X509 && (ERR_GET_REASON(last) == X509_R_KEY_VALUES_MISMATCH ||
                                                              ERR_GET_REASON(last) == X509_R_KEY_TYPE_MISMATCH);
        ok = fail("private key", key, asked, error, error_size);
        if (mismatch)
            snprintf(error, error_size, "the private key %s does not belong to the certificate %s", key, cert);
    }
    SSL_CTX_set_default_passwd_cb(tls, NULL);
    SSL_CTX_set_default_passwd_cb_userdata(tls, NULL);
    return ok;
}

bool tls_files_authorities(SSL_CTX *tls, const char *ca, char *error, size_t error_size)
{
    ERR_clear_error();
    return SSL_CTX_load_verify_locations(tls, ca, NULL) == 1 ||
           fail("certificate authority", ca, false, error, error_size);
}
