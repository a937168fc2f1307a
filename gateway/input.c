#include "gateway/input.h"
#include "gateway/large_buffer.h"
#include <errno.h>
#include <strings.h>
#include <sys/socket.h>

#define FIRST ((size_t)16 * 1024)  /* what is read before it is known how much there is */
#define AHEAD ((size_t)256 * 1024) /* what an announced body may have at once, */
#define AHEAD_TIMES 4              /* or so many times as much as has come */
#define TURN_MAX ((size_t)1 << 20) /* read at a time, before others have their turn; AHEAD if nothing was announced */
#define ROOM_MIN 4096              /* libh2o reads no less */
#define RECEIVE_LARGE (512 * 1024)

/* How long the request that begins a buffer will be, by its head; 0: it does not say, or its head is not whole. Only a
 * guess: libh2o reads the head for good. */
static size_t announced(const char *at, size_t size, size_t max_body)
{
    static const char name[] = "content-length:";
    const char *start = at, *end = memmem(at, size < H2O_MAX_REQLEN ? size : H2O_MAX_REQLEN, "\r\n\r\n", 4);
    size_t length = 0;
    if (end == NULL)
        return 0;
    while ((at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        if ((size_t)(end - ++at) < sizeof(name) || strncasecmp(at, name, sizeof(name) - 1) != 0)
            continue;
        for (at += sizeof(name) - 1; at < end && *at == ' '; at++)
            ;
        for (; at < end && *at >= '0' && *at <= '9' && length < max_body; at++)
            length = length * 10 + (size_t)(*at - '0');
        return (size_t)(end - start) + 4 + (length < max_body ? length : max_body);
    }
    return 0;
}

/* How large the buffer should be for a request of `total` bytes, of which `size` have come; `total` 0: nobody knows. */
static size_t capacity_for(size_t total, size_t size)
{
    size_t most = size * AHEAD_TIMES > AHEAD ? size * AHEAD_TIMES : AHEAD;
    return total <= size ? size * 2 : total < most ? total : most;
}

static size_t room_of(const h2o_buffer_t *input)
{
    return input->bytes != NULL ? input->capacity - input->size - (size_t)(input->bytes - input->_buf) : 0;
}

void input_make_room(h2o_buffer_t **input, size_t max_body)
{
    size_t size = (*input)->size, room = room_of(*input);
    if (room >= ROOM_MIN || size < FIRST)
        return;
    size_t total = announced((*input)->bytes, size, max_body);
    if (total > size + room)
        large_buffer_move(input, capacity_for(total, size) + ROOM_MIN);
}

/* Reads once; 0: nothing is there. */
static size_t read_some(h2o_socket_t *sock, void *to, size_t room, const char **err)
{
    ssize_t n;
    do
        n = recv(h2o_socket_get_fd(sock), to, room, 0); /* less of a way through the kernel than read(2) */
    while (n == -1 && errno == EINTR);
    if (n == 0)
        *err = h2o_socket_error_closed;
    else if (n == -1 && errno != EAGAIN)
        *err = h2o_socket_error_io;
    return n > 0 ? (size_t)n : 0;
}

/* The kernel holds back little of what comes in (see listener.c); for a large body it may be more, which saves many
 * small reads and as many acknowledgements. */
static size_t expect(h2o_socket_t *sock, size_t total, size_t size)
{
    if (total > size + AHEAD)
        setsockopt(h2o_socket_get_fd(sock), SOL_SOCKET, SO_RCVBUF, &(int){RECEIVE_LARGE}, sizeof(int));
    return capacity_for(total, size);
}

/* Reads the first bytes of a request. True: there may be more. */
static bool read_first(h2o_socket_t *sock, size_t max_body, const char **err)
{
    static __thread char first[FIRST];
    size_t n = read_some(sock, first, sizeof(first), err), total = 0;
    if (n == 0)
        return false;
    if (n == FIRST)
        total = announced(first, n, max_body);
    bool more = n == FIRST && (total == 0 || total > n);
    large_buffer_move(&sock->input, more ? expect(sock, total, n) : n);
    memcpy(sock->input->bytes, first, n);
    sock->input->size = n;
    return more;
}

const char *input_read(h2o_socket_t *sock, size_t max_body)
{
    const char *err = NULL;
    size_t before = sock->input->size;
    bool more = before != 0 || read_first(sock, max_body, &err);
    while (more && sock->input->size - before < TURN_MAX) {
        size_t size = sock->input->size, room = room_of(sock->input);
        size_t total = room < ROOM_MIN ? announced(sock->input->bytes, size, max_body) : 0;
        if (room == 0 || total > size + room) {
            /* The request is whole; if libh2o does not think so, it will ask again. What comes behind it, nobody
             * counts: it stays where it is, in the kernel. */
            if (total <= size && (total != 0 ? size != before : size - before >= AHEAD))
                break;
            if (total <= size)
                h2o_buffer_reserve(&sock->input, ROOM_MIN);
            else
                large_buffer_move(&sock->input, expect(sock, total, size));
            room = room_of(sock->input);
        }
        size_t n = read_some(sock, sock->input->bytes + size, room, &err);
        sock->input->size += n;
        more = n == room;
    }
    sock->bytes_read = sock->input->size - before;
    return sock->bytes_read == 0 ? err : NULL;
}
