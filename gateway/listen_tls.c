#include "gateway/listen_tls.h"
#include "base/tls_files.h"
#include "gateway/http2_guard.h"

static const h2o_iovec_t http1_alone[] = {{H2O_STRLIT("http/1.1")}, {NULL, 0}};

SSL_CTX *listen_tls_create(const struct config_listen *settings, char *error, size_t error_size)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
    const char *key = settings->tls_key != NULL ? settings->tls_key : settings->tls_cert;
    if (tls_files_certificate(tls, settings->tls_cert, key, error, error_size)) {
        h2o_ssl_register_alpn_protocols(tls, http2_guard_fits() ? h2o_alpn_protocols : http1_alone);
        return tls;
    }
    SSL_CTX_free(tls);
    return NULL;
}
