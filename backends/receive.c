#include "backends/receive.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#define ROOM 4096 /* bytes at least for one recv */

const char *receive(h2o_socket_t *sock)
{
    size_t before = sock->input->size;
    const char *error = NULL;
    ssize_t got;
    h2o_iovec_t room;
    do {
        room = h2o_buffer_reserve(&sock->input, ROOM);
        if (room.base == NULL) {
            error = h2o_socket_error_out_of_memory;
            break;
        }
        while ((got = recv(h2o_socket_get_fd(sock), room.base, room.len, 0)) == -1 && errno == EINTR)
            ;
        if (got > 0) {
            sock->input->size += (size_t)got;
        } else if (got == 0) {
            /* With bytes before it the end comes again, alone. */
            if (sock->input->size == before)
                error = h2o_socket_error_closed;
        } else if (errno != EAGAIN) {
            error = h2o_socket_error_io;
        }
    } while (got > 0 && (size_t)got == room.len);
    sock->bytes_read = sock->input->size - before;
    return error;
}

void receive_stream(h2o_socket_t *sock)
{
    setsockopt(h2o_socket_get_fd(sock), IPPROTO_TCP, TCP_QUICKACK, &(int){0}, sizeof(int));
}
