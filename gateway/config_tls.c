/* The TLS files that the configuration names, tried before anything is started. */
#include "base/tls_files.h"
#include "gateway/config_values.h"
#include <stdio.h>
#include <sys/stat.h>

/* A pipe can be read only once, and that is for the start. */
static bool is_pipe(const char *file)
{
    struct stat st;

    return file != NULL && stat(file, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

static bool try_files(const char *ca, const char *cert, const char *key, char *why, size_t why_size)
{
    if (is_pipe(ca) || is_pipe(cert) || is_pipe(key))
        return true;
    SSL_CTX *tls = SSL_CTX_new(TLS_method());
    bool ok = (ca == NULL || tls_files_authorities(tls, ca, why, why_size)) &&
              (cert == NULL || tls_files_certificate(tls, cert, key != NULL ? key : cert, why, why_size));
    SSL_CTX_free(tls);
    return ok;
}

bool config_tls_check(const struct config *config, char *error, size_t error_size)
{
    struct config_report report = {error, error_size};
    char why[512];

    for (size_t i = 0; i < config->listen_count; i++) {
        const struct config_listen *listen = &config->listen[i];
        if (listen->tls_cert == NULL || try_files(NULL, listen->tls_cert, listen->tls_key, why, sizeof(why)))
            continue;
        if (listen->tls_line == 0)
            return config_fail(&report, "%s", why);
        return config_fail(&report, "%s:%d: \"listen[%zu].tls\": %s", config->file, listen->tls_line, i, why);
    }
    for (size_t i = 0; i < config->backend_count; i++) {
        const struct backend_settings *backend = &config->backends[i];
        if (!try_files(backend->tls.ca, backend->tls.cert, backend->tls.key, why, sizeof(why)))
            return config_fail(&report, "%s:%d: \"backends[%zu].tls\": %s", config->file, backend->tls.line, i, why);
    }
    return true;
}
