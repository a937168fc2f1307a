#include "gateway/ws_queue.h"
#include "run_suite.h"
#include <stdlib.h>

static void add(struct ws_queue *queue, size_t len)
{
    static const char text[100];
    struct span pieces[] = {{text, len / 2}, {text, len - len / 2}};
    ck_assert_uint_le(len, sizeof(text));
    ws_queue_add(queue, WS_TEXT, pieces, 2, len);
}

START_TEST(it_is_full_until_half_is_gone)
{
    struct ws_queue queue;
    ws_queue_init(&queue, 1000);
    ck_assert(ws_queue_is_empty(&queue));
    ck_assert(!ws_queue_has_drained(&queue));
    while (queue.bytes + 200 < 1000)
        add(&queue, 100);
    ck_assert(!queue.is_full);
    ck_assert(!ws_queue_is_empty(&queue));
    while (queue.bytes < 1000)
        add(&queue, 100);
    ck_assert(queue.is_full);
    ck_assert(!ws_queue_has_drained(&queue));
    ws_queue_drop(&queue);
    ck_assert(ws_queue_is_empty(&queue));
    ck_assert_uint_eq(queue.bytes, 0);
    ck_assert(ws_queue_has_drained(&queue));
    ck_assert(!ws_queue_has_drained(&queue));
    add(&queue, 0); /* where the last one ends is right after all were dropped */
    ck_assert(!ws_queue_is_empty(&queue));
    ck_assert_uint_gt(queue.bytes, 0); /* messages of nothing have their cost */
    ws_queue_drop(&queue);
}
END_TEST

START_TEST(pieces_stand_behind_the_room_that_libwebsockets_needs)
{
    unsigned char memory[LWS_PRE + 6];
    struct span pieces[] = {SPAN("ab"), SPAN_NONE, SPAN("cdef")};
    ws_queue_gather(memory, pieces, 3);
    ck_assert_mem_eq(memory + LWS_PRE, "abcdef", 6);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("ws_queue");
    tcase_add_test(tcase, it_is_full_until_half_is_gone);
    tcase_add_test(tcase, pieces_stand_behind_the_room_that_libwebsockets_needs);
    return run_suite("ws_queue", tcase);
}
