/* TLS as this gateway serves it. */
#ifndef WEIR_GATEWAY_LISTEN_TLS_H
#define WEIR_GATEWAY_LISTEN_TLS_H

#include "gateway/config.h"
#include <openssl/ssl.h>

/* The context of an address: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN. NULL with a message that names the file if
 * certificate or key cannot be used. The caller frees it with SSL_CTX_free; connections keep their own count. */
SSL_CTX *listen_tls_create(const struct config_listen *settings, char *error, size_t error_size);

#endif
