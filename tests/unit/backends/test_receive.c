#include "backends/receive.h"
#include "run_suite.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static h2o_loop_t *loop;
static h2o_socket_t *sock;
static int server;

static void on_read(h2o_socket_t *unused, const char *err)
{
    (void)unused;
    (void)err;
}

/* A connection over TCP: what is tested is the kernel's. */
static void setup(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, len), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    connect(client, (struct sockaddr *)&address, len);
    server = accept(listener, NULL, NULL);
    ck_assert_int_ne(server, -1);
    close(listener);
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    loop = h2o_evloop_create();
    sock = h2o_evloop_socket_create(loop, client, H2O_SOCKET_FLAG_DONT_READ);
    h2o_socket_read_start(sock, on_read);
}

static void teardown(void)
{
    h2o_socket_close(sock);
    h2o_evloop_run(loop, 0);
    h2o_evloop_destroy(loop);
    if (server != -1)
        close(server);
}

/* Reads until `size` bytes are there or an error comes. */
static const char *receive_until(size_t size)
{
    const char *error = NULL;
    while (sock->input->size < size && error == NULL)
        error = receive(sock);
    return error;
}

START_TEST(what_is_there_is_appended_and_counted)
{
    static char text[300 * 1024];
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i * 31 + (i >> 8));
    ck_assert_ptr_null(receive(sock));
    ck_assert_uint_eq(sock->bytes_read, 0);
    for (size_t at = 0, piece = 1; at < sizeof(text); at += piece, piece *= 3) {
        if (piece > sizeof(text) - at)
            piece = sizeof(text) - at;
        ck_assert_int_eq(send(server, text + at, piece, 0), piece);
        ck_assert_ptr_null(receive_until(at + piece));
        ck_assert_uint_eq(sock->input->size, at + piece);
    }
    ck_assert_int_eq(memcmp(sock->input->bytes, text, sizeof(text)), 0);
    ck_assert_ptr_null(receive(sock));
    ck_assert_uint_eq(sock->bytes_read, 0);
}
END_TEST

START_TEST(the_end_is_told_behind_the_last_bytes)
{
    ck_assert_int_eq(send(server, "last", 4, 0), 4);
    close(server);
    server = -1;
    ck_assert_ptr_null(receive_until(4));
    ck_assert_uint_eq(sock->bytes_read, 4);
    ck_assert_ptr_eq(receive_until(5), h2o_socket_error_closed);
    ck_assert_uint_eq(sock->bytes_read, 0);
    ck_assert_uint_eq(sock->input->size, 4);
}
END_TEST

START_TEST(a_reset_is_an_error)
{
    setsockopt(server, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    close(server);
    server = -1;
    ck_assert_ptr_eq(receive_until(1), h2o_socket_error_io);
}
END_TEST

static int acknowledges_at_once(void)
{
    int quick = -1;
    socklen_t len = sizeof(quick);
    ck_assert_int_eq(getsockopt(h2o_socket_get_fd(sock), IPPROTO_TCP, TCP_QUICKACK, &quick, &len), 0);
    return quick;
}

START_TEST(a_stream_is_not_acknowledged_piece_by_piece)
{
    ck_assert_int_eq(send(server, "head", 4, 0), 4);
    ck_assert_ptr_null(receive_until(4));
    ck_assert_int_eq(acknowledges_at_once(), 1);
    receive_stream(sock);
    ck_assert_int_eq(acknowledges_at_once(), 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("receive");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, what_is_there_is_appended_and_counted);
    tcase_add_test(tests, the_end_is_told_behind_the_last_bytes);
    tcase_add_test(tests, a_reset_is_an_error);
    tcase_add_test(tests, a_stream_is_not_acknowledged_piece_by_piece);
    return run_suite("backends/receive", tests);
}
