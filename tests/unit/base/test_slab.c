#include "base/recycle.h"
#include "base/slab.h"
#include "run_suite.h"
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 3000
#define STEPS 200000
#define SIZE_MAX_HERE 9000 /* some are malloc's */

struct block {
    unsigned char *bytes;
    size_t size;
    unsigned char mark;
};

static void check_block(const struct block *block)
{
    for (size_t i = 0; i < block->size; i++)
        if (block->bytes[i] != block->mark)
            ck_abort_msg("byte %zu of a block of %zu bytes was overwritten", i, block->size);
}

/* Blocks of random sizes come and go, and each keeps what was written into all of it. */
static void *come_and_go(void *arg)
{
    uint64_t random = (uintptr_t)arg * 2654435761u + 88172645463325252u;
    struct block *blocks = calloc(BLOCKS, sizeof(*blocks));
    for (unsigned step = 0; step < STEPS; step++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        struct block *block = &blocks[random % BLOCKS];
        check_block(block);
        slab_free(block->bytes);
        block->size = (random >> 20) % ((random >> 40) % 8 != 0 ? 600 : SIZE_MAX_HERE);
        block->mark = (unsigned char)(random >> 50);
        block->bytes = slab_alloc(block->size);
        ck_assert_uint_eq((uintptr_t)block->bytes % 16, 0);
        memset(block->bytes, block->mark, block->size);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        check_block(&blocks[i]);
        slab_free(blocks[i].bytes);
    }
    free(blocks);
    return NULL;
}

START_TEST(blocks_keep_to_themselves)
{
    come_and_go((void *)1);
}
END_TEST

START_TEST(threads_share_the_sizes)
{
    pthread_t threads[3];
    for (uintptr_t i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, come_and_go, (void *)(i + 2));
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}
END_TEST

/* What a block takes up is at least what was asked for, and not much more; sizes grow in order. */
START_TEST(little_is_wasted)
{
    size_t before = 0;
    for (size_t size = 0; size < 20000; size++) {
        size_t allocated = slab_allocated(size);
        ck_assert_uint_ge(allocated, size);
        ck_assert_uint_le(allocated, size + 72 + size / 8);
        ck_assert(size > 8000 || allocated >= before);
        before = allocated;
    }
}
END_TEST

/* Many blocks of each size at once, so that several slabs of it are full, and each slot of them is used to its end. */
START_TEST(every_size_fills_slabs)
{
    enum { COUNT = 2200 };
    static unsigned char *blocks[COUNT];
    for (size_t size = 8; size < 8400; size += size < 1100 ? 48 : 397) {
        unsigned count = (unsigned)(3 * 65536 / size < COUNT ? 3 * 65536 / size : COUNT);
        size_t room = slab_allocated(size) < 8400 && slab_allocated(size) % 64 == 0 ? slab_allocated(size) - 8 : size;
        for (unsigned i = 0; i < count; i++) {
            blocks[i] = slab_alloc(size);
            memset(blocks[i], (int)(i % 251), room);
        }
        for (unsigned i = 0; i < count; i++) {
            ck_assert_uint_eq(blocks[i][0], i % 251);
            ck_assert_uint_eq(blocks[i][room - 1], i % 251);
            slab_free(blocks[i]);
        }
    }
    slab_free(NULL);
}
END_TEST

static size_t resident(void)
{
    unsigned long all, pages;
    FILE *file = fopen("/proc/self/statm", "r");
    ck_assert_int_eq(fscanf(file, "%lu %lu", &all, &pages), 2);
    fclose(file);
    return pages * 4096;
}

/* Of each size one block stays for each slab; what the others leave behind is not kept for ever. */
START_TEST(few_that_stay_do_not_keep_all)
{
    enum { EACH = 32 << 20, COUNT = 40000 };
    static void *blocks[COUNT], *stay[COUNT];
    size_t before = resident(), staying = 0;
    for (size_t size = 900; size < 8000; size = size * 3 / 2) {
        size_t count = EACH / slab_allocated(size), per_slab = 65536 / slab_allocated(size);
        for (size_t i = 0; i < count; i++)
            memset(blocks[i] = slab_alloc(size), 1, size);
        for (size_t i = 0; i < count; i++)
            if (i % per_slab != 0)
                slab_free(blocks[i]);
            else
                stay[staying++] = blocks[i];
    }
    ck_assert(RECYCLE_MAX == 0 || resident() - before < 3 * EACH); /* sanitizers keep memory for themselves */
    while (staying != 0)
        slab_free(stay[--staying]);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("slab");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, blocks_keep_to_themselves);
    tcase_add_test(tcase, threads_share_the_sizes);
    tcase_add_test(tcase, little_is_wasted);
    tcase_add_test(tcase, every_size_fills_slabs);
    tcase_add_test(tcase, few_that_stay_do_not_keep_all);
    return run_suite("slab", tcase);
}
