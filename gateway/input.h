/* How the bytes of HTTP/1.1 requests come into a socket's buffer. libh2o reads into 8 KB, and when these are full into
 * twice as much, and so on, copying each time: a large prompt is moved more often than it is read. Here the buffer is
 * hardly larger than what has come, or, once a head announces a body, than the whole. Memory is touched only as bytes
 * arrive, and never is much more set aside than has come: to announce costs nothing. One thread. */
#ifndef WEIR_GATEWAY_INPUT_H
#define WEIR_GATEWAY_INPUT_H

#include <h2o.h>

/* Reads what has come on a socket in clear text. NULL, or what libh2o's own reading says of an error or the end. */
const char *input_read(h2o_socket_t *sock, size_t max_body);

/* For what libh2o reads itself (TLS): lets the rest of an announced body fit. */
void input_make_room(h2o_buffer_t **input, size_t max_body);

#endif
