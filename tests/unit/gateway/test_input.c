#include "base/recycle.h"
#include "gateway/input.h"
#include "gateway/large_buffer.h"
#include "run_suite.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define KB ((size_t)1024)
#define MB (KB * 1024)
#define MAX_BODY (32 * MB)

static h2o_loop_t *loop;
static h2o_socket_t *sock;
static int peer;

static void on_read(h2o_socket_t *unused, const char *err)
{
    (void)unused;
    (void)err;
}

static void setup(void)
{
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    h2o_socket_buffer_mmap_settings.threshold = SIZE_MAX;
    loop = h2o_evloop_create();
    sock = h2o_evloop_socket_create(loop, pair[0], H2O_SOCKET_FLAG_DONT_READ);
    h2o_socket_read_start(sock, on_read);
    peer = pair[1];
}

static void teardown(void)
{
    h2o_socket_close(sock);
    h2o_evloop_run(loop, 0);
    h2o_evloop_destroy(loop);
    if (peer != -1)
        close(peer);
    large_buffers_trim(true);
}

/* A request with a body of so many bytes, none of which is like its neighbours; to be freed. */
static char *make_request(size_t body, const char *header, size_t *len)
{
    char *text = malloc(body + 256);
    int head = sprintf(text, "POST / HTTP/1.1\r\nHost: x\r\n%s: %zu\r\nX-Other: y\r\n\r\n", header, body);
    for (size_t i = 0; i < body; i++)
        text[(size_t)head + i] = (char)(i * 31 + (i >> 8));
    *len = (size_t)head + body;
    return text;
}

static size_t capacity(void)
{
    return sock->input->capacity;
}

/* Sends in pieces and reads after each. */
static void feed(const char *text, size_t len, size_t piece)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = write(peer, text + at, len - at < piece ? len - at : piece);
        if (n > 0)
            at += (size_t)n;
        ck_assert(n > 0 || at != 0);
        ck_assert_ptr_null(input_read(sock, MAX_BODY));
        ck_assert_uint_le(sock->input->size, at);
    }
    while (sock->input->size < len)
        ck_assert_ptr_null(input_read(sock, MAX_BODY));
    ck_assert_uint_eq(sock->input->size, len);
    ck_assert_int_eq(memcmp(sock->input->bytes, text, len), 0);
}

START_TEST(test_a_small_request_takes_no_more_than_its_size)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    feed(text, sizeof(text) - 1, sizeof(text));
    ck_assert_uint_eq(capacity(), sizeof(text) - 1);
    ck_assert_uint_eq(sock->bytes_read, sizeof(text) - 1);
    ck_assert_ptr_null(input_read(sock, MAX_BODY));
    ck_assert_uint_eq(sock->bytes_read, 0);
}
END_TEST

START_TEST(test_requests_of_any_size_come_in_pieces_of_any_size)
{
    static const size_t sizes[] = {0, 1, 5000, 16 * KB - 70, 16 * KB, 100 * KB, 300 * KB, MB + 1, 5 * MB};
    static const char *const headers[] = {"Content-Length", "content-LENGTH", "X-Length"};
    static const size_t pieces[] = {10 * KB + 1, 16 * KB, 100 * KB, 8 * MB};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (size_t j = 0; j < 3; j++)
            for (size_t k = 0; k < sizeof(pieces) / sizeof(pieces[0]); k++) {
                size_t len;
                char *text = make_request(sizes[i], headers[j], &len);
                feed(text, len, pieces[k]);
                if (j != 2)
                    ck_assert_uint_le(capacity(), len + len / 4 + 32 * KB);
                h2o_buffer_consume(&sock->input, len);
                free(text);
            }
}
END_TEST

START_TEST(test_a_head_in_single_bytes)
{
    size_t len;
    char *text = make_request(200, "Content-Length", &len);
    feed(text, len, 1);
    free(text);
}
END_TEST

START_TEST(test_to_announce_costs_little)
{
    char text[1000], zeros[1000] = {0};
    int n = sprintf(text, "POST / HTTP/1.1\r\nContent-Length: 33000000\r\n\r\n");
    ck_assert_int_eq(write(peer, text, (size_t)n), n);
    ck_assert_ptr_null(input_read(sock, MAX_BODY));
    ck_assert_uint_eq(capacity(), (size_t)n);
    for (size_t come = (size_t)n; come < 600 * KB; come += sizeof(zeros)) {
        ck_assert_int_eq(write(peer, zeros, sizeof(zeros)), sizeof(zeros));
        ck_assert_ptr_null(input_read(sock, MAX_BODY));
        size_t most = 4 * come > 256 * KB ? 4 * come : 256 * KB;
        ck_assert_uint_le(capacity(), most + most / 4);
    }
}
END_TEST

START_TEST(test_what_is_announced_beyond_the_largest_body_is_not_believed)
{
    static const char *const lengths[] = {"99999999999999999999999999", "18446744073709551615", "-1", "x", "", "  7"};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        static char text[64 * 1024];
        memset(text, 'x', sizeof(text));
        int n = sprintf(text, "POST / HTTP/1.1\r\nContent-Length:%s\r\n\r\n", lengths[i]);
        text[n] = 'x';
        feed(text, sizeof(text), sizeof(text));
        ck_assert_uint_le(capacity(), MB);
        h2o_buffer_consume(&sock->input, sock->input->size);
    }
}
END_TEST

START_TEST(test_what_comes_behind_a_request_is_read_when_asked_again)
{
    size_t len;
    char *text = make_request(40 * KB, "Content-Length", &len);
    char *twice = malloc(2 * len);
    memcpy(mempcpy(twice, text, len), text, len);
    feed(twice, 2 * len, 2 * len);
    free(twice);
    free(text);
}
END_TEST

START_TEST(test_what_comes_behind_a_request_stays_in_the_kernel)
{
    static const size_t sizes[] = {200, 20 * KB, 60 * KB};
    static char behind[64 * KB];
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t len;
        char *text = make_request(sizes[i], "Content-Length", &len);
        ck_assert_int_eq(write(peer, text, len), len);
        ck_assert_int_eq(write(peer, behind, sizeof(behind)), sizeof(behind));
        ck_assert_ptr_null(input_read(sock, MAX_BODY));
        ck_assert_uint_ge(sock->input->size, len);
        ck_assert_uint_le(sock->input->size, len + len / 4 + 16 * KB);
        ck_assert_int_eq(memcmp(sock->input->bytes, text, len), 0);
        free(text);
        while (sock->input->size < len + sizeof(behind))
            ck_assert_ptr_null(input_read(sock, MAX_BODY));
        h2o_buffer_consume(&sock->input, sock->input->size);
    }
}
END_TEST

START_TEST(test_the_end_is_told_behind_the_last_bytes)
{
    ck_assert_int_eq(write(peer, "GET", 3), 3);
    close(peer);
    peer = -1;
    ck_assert_ptr_null(input_read(sock, MAX_BODY));
    ck_assert_uint_eq(sock->input->size, 3);
    ck_assert_ptr_eq(input_read(sock, MAX_BODY), h2o_socket_error_closed);
    ck_assert_uint_eq(sock->input->size, 3);
}
END_TEST

START_TEST(test_an_end_without_bytes)
{
    close(peer);
    peer = -1;
    ck_assert_ptr_eq(input_read(sock, MAX_BODY), h2o_socket_error_closed);
    ck_assert_ptr_null(sock->input->bytes);
}
END_TEST

START_TEST(test_room_for_what_libh2o_reads)
{
    size_t len;
    char *text = make_request(MB, "Content-Length", &len);
    memcpy(h2o_buffer_reserve(&sock->input, 100 * KB).base, text, 100 * KB);
    sock->input->size = sock->input->capacity = 100 * KB;
    input_make_room(&sock->input, MAX_BODY);
    ck_assert_uint_ge(capacity(), 400 * KB);
    ck_assert_uint_le(capacity(), 600 * KB);
    ck_assert_int_eq(memcmp(sock->input->bytes, text, 100 * KB), 0);
    ck_assert_uint_eq(sock->input->size, 100 * KB);
    size_t was = capacity();
    input_make_room(&sock->input, MAX_BODY);
    ck_assert_uint_eq(capacity(), was);
    free(text);
}
END_TEST

START_TEST(test_large_buffers_are_used_again_until_nobody_wants_them)
{
    static const size_t sizes[] = {1200, 2300, 20 * KB, 40 * KB, 100 * KB, MB + 300, 3 * MB, 4 * MB};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && RECYCLE_MAX != 0; i++) {
        h2o_buffer_t *one, *other;
        h2o_buffer_init(&one, &h2o_socket_buffer_prototype);
        large_buffer_move(&one, sizes[i]);
        ck_assert_uint_ge(one->capacity, sizes[i]);
        ck_assert_uint_le(one->capacity, sizes[i] + sizes[i] / 4);
        h2o_mem_recycle_t *waiting = &one->_prototype->allocator;
        ck_assert_uint_eq(waiting->cnt, 0);
        h2o_buffer_t *was = one;
        h2o_buffer_dispose(&one);
        ck_assert_uint_eq(waiting->cnt, 1);
        large_buffers_trim(false);
        h2o_buffer_init(&other, &h2o_socket_buffer_prototype);
        large_buffer_move(&other, sizes[i] - 100);
        ck_assert_ptr_eq(other, was);
        h2o_buffer_dispose(&other);
        large_buffers_trim(false);
        ck_assert_uint_eq(waiting->cnt, 1); /* it was wanted */
        large_buffers_trim(false);
        ck_assert_uint_eq(waiting->cnt, 0);
    }
}
END_TEST

START_TEST(test_large_buffers_that_wait_are_bounded)
{
    h2o_buffer_t *buffers[64], *last;
    size_t waiting = 0;
    for (size_t i = 0; i < 64; i++) {
        h2o_buffer_init(&buffers[i], &h2o_socket_buffer_prototype);
        large_buffer_move(&buffers[i], i % 2 == 0 ? MB : 2 * MB);
    }
    h2o_buffer_prototype_t *of_one = buffers[0]->_prototype, *of_two = buffers[1]->_prototype;
    for (size_t i = 0; i < 64; i++)
        h2o_buffer_dispose(&buffers[i]);
    ck_assert_uint_le(of_one->allocator.cnt * MB, 16 * MB);
    ck_assert_uint_le(of_two->allocator.cnt * 2 * MB, 16 * MB);
    h2o_buffer_init(&last, &h2o_socket_buffer_prototype);
    large_buffer_move(&last, 3 * MB);
    waiting = of_one->allocator.cnt * MB + of_two->allocator.cnt * 2 * MB;
    ck_assert_uint_le(waiting, 16 * MB);
    h2o_buffer_dispose(&last);
}
END_TEST

START_TEST(test_small_buffers_do_not_drive_out_large_ones)
{
    h2o_buffer_t *buffers[24], *small[100];
    for (size_t i = 0; i < 24; i++) {
        h2o_buffer_init(&buffers[i], &h2o_socket_buffer_prototype);
        large_buffer_move(&buffers[i], i % 2 == 0 ? MB : 2 * MB);
    }
    h2o_buffer_prototype_t *of_one = buffers[0]->_prototype, *of_two = buffers[1]->_prototype;
    for (size_t i = 0; i < 24; i++)
        h2o_buffer_dispose(&buffers[i]);
    size_t one = of_one->allocator.cnt, two = of_two->allocator.cnt;
    if (RECYCLE_MAX != 0)
        ck_assert_uint_gt(one + 2 * two, 16);
    for (size_t i = 0; i < 100; i++) {
        h2o_buffer_init(&small[i], &h2o_socket_buffer_prototype);
        large_buffer_move(&small[i], i % 2 == 0 ? 2 * KB : 32 * KB);
    }
    h2o_buffer_prototype_t *of_small = small[1]->_prototype;
    for (size_t i = 0; i < 100; i++)
        h2o_buffer_dispose(&small[i]);
    ck_assert_uint_le(of_small->allocator.cnt * 32 * KB, MB);
    ck_assert_uint_eq(of_one->allocator.cnt, one);
    ck_assert_uint_eq(of_two->allocator.cnt, two);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("input");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_a_small_request_takes_no_more_than_its_size);
    tcase_add_test(tcase, test_requests_of_any_size_come_in_pieces_of_any_size);
    tcase_add_test(tcase, test_a_head_in_single_bytes);
    tcase_add_test(tcase, test_to_announce_costs_little);
    tcase_add_test(tcase, test_what_is_announced_beyond_the_largest_body_is_not_believed);
    tcase_add_test(tcase, test_what_comes_behind_a_request_is_read_when_asked_again);
    tcase_add_test(tcase, test_what_comes_behind_a_request_stays_in_the_kernel);
    tcase_add_test(tcase, test_the_end_is_told_behind_the_last_bytes);
    tcase_add_test(tcase, test_an_end_without_bytes);
    tcase_add_test(tcase, test_room_for_what_libh2o_reads);
    tcase_add_test(tcase, test_large_buffers_are_used_again_until_nobody_wants_them);
    tcase_add_test(tcase, test_large_buffers_that_wait_are_bounded);
    tcase_add_test(tcase, test_small_buffers_do_not_drive_out_large_ones);
    return run_suite("input", tcase);
}
