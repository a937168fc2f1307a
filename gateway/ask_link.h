/* The connection of `weir ask` to a gateway: blocking, in the clear or over TLS with the certificate checked, one
 * request each. Main thread only. */
#ifndef WEIR_GATEWAY_ASK_LINK_H
#define WEIR_GATEWAY_ASK_LINK_H

#include "base/span.h"
#include <sys/types.h>

#define ASK_CONNECT_SECONDS 10 /* for all addresses of the name and the TLS handshake together */

/* A gateway's base URL, taken apart. */
struct ask_url {
    char unix_path[108]; /* of a socket; "": TCP */
    bool tls;
    bool host_is_ip;
    char host[256]; /* without brackets */
    char port[6];
    char authority[272]; /* for the Host header */
    char base[1024];     /* path in front of "/chat/completions": "/v1" if the URL names none; no slash at its end */
};

/* Reads http://HOST[:PORT][/PATH] or https://…; a PATH that does not end in /v1 gets it; or http://unix:/SOCKET. On
 * failure returns false and writes what is wrong and what was expected. */
bool ask_url_parse(struct span text, struct ask_url *url, char *error, size_t error_size);

/* Connects to a unix socket, for ASK_CONNECT_SECONDS at most. Returns -1 with errno set if it cannot. */
int ask_connect_unix(const char *path);

struct ask_link;

/* Connects. `ca_file` (PEM) replaces the system's certificate authorities; NULL: those. On failure returns NULL and
 * writes a message. */
struct ask_link *ask_link_open(const struct ask_url *url, const char *ca_file, char *error, size_t error_size);
void ask_link_close(struct ask_link *link);

/* Sends all of `bytes`; false if the connection broke. */
bool ask_link_send(struct ask_link *link, struct span bytes);

/* Waits for bytes. Returns how many came, 0 at a proper end, -1 if the connection broke (over TLS also where it ends
 * without the close alert: the answer may have been cut). */
ssize_t ask_link_receive(struct ask_link *link, char *bytes, size_t size);

#endif
