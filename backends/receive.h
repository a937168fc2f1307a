/* Reading from a backend's connection in clear text by recv(2). libh2o reads by read(2), whose way through the kernel's
 * file layer is longer: paired runs of 500 streams show it. */
#ifndef WEIR_BACKENDS_RECEIVE_H
#define WEIR_BACKENDS_RECEIVE_H

#include <h2o.h>

/* Appends what is there to the socket's input and counts it in bytes_read, as libh2o does before it calls back: for the
 * read callback of a socket without TLS for which h2o_socket_dont_read is set. Returns NULL, or one of libh2o's errors,
 * h2o_socket_error_closed at the connection's end. */
const char *receive(h2o_socket_t *sock);

/* What comes next is a stream of small pieces: the kernel need not acknowledge each at once, which is a packet of its
 * own for every event and took a tenth of its cost. It stops by itself, for this socket, at the first pause of 40 ms: a
 * server that waits for acknowledgements (Nagle's algorithm) loses no more than that, once a stream. */
void receive_stream(h2o_socket_t *sock);

#endif
