#include "base/slab.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE ((uintptr_t)4096)
#define LINE ((size_t)64)
#define SLAB_SIZE ((size_t)65536)
#define FINE_MAX ((size_t)1024) /* up to here sizes are multiples of a line, */
#define SLOT_MAX ((size_t)8192) /* then there are eight for each power of two; beyond, malloc's */
#define SPARE ((size_t)8 << 20) /* may be free in slabs in any case */
#define FINE_SIZES (FINE_MAX / LINE)
#define SIZES (FINE_SIZES + 3 * 8)

/* Slots of one size, each with the slab's address in front of its first line:
 *
 *   | struct slab |  …slab| slot 0        …slab| slot 1        …slab| … */
struct slab {
    struct slab *newer, *older; /* in its size's list, if it has a free slot */
    unsigned size, slot;        /* index; bytes */
    unsigned used, cut;         /* slots: given out; ever given out */
    unsigned count;
    void *free; /* given back; each begins with the next one's address */
    char *first;
};

/* The lock guards the size's slabs, whole. */
static struct size {
    pthread_mutex_t lock;
    struct slab *newest; /* the slab that got its first free slot last; only those that have one */
    size_t slabs;        /* with those that have none */
} __attribute__((aligned(64))) sizes[SIZES] = {[0 ... SIZES - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER}};

#if !defined(__SANITIZE_ADDRESS__) && defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define ALL_LARGE true
#else
#define ALL_LARGE false
#endif

/* The slot's size for a block, with the address; 0: it is large. */
static size_t slot_for(size_t size, unsigned *index)
{
    if (ALL_LARGE || size > SLOT_MAX - sizeof(void *))
        return 0;
    size_t slot = (size + sizeof(void *) + LINE - 1) & ~(LINE - 1);
    if (slot <= FINE_MAX) {
        *index = (unsigned)(slot / LINE - 1);
        return slot;
    }
    unsigned shift = 63 - (unsigned)__builtin_clzll(slot - 1) - 3; /* an eighth of the power of two below */
    size_t steps = (slot - 1) >> shift;                            /* 8 to 15 */
    *index = (unsigned)(FINE_SIZES + (shift - 7) * 8 + steps - 8);
    return (steps + 1) << shift;
}

static struct slab **owner_of(void *block)
{
    return (struct slab **)block - 1;
}

static void link_slab(struct slab *slab)
{
    struct size *size = &sizes[slab->size];
    slab->newer = NULL;
    slab->older = size->newest;
    if (slab->older != NULL)
        slab->older->newer = slab;
    size->newest = slab;
}

static void unlink_slab(struct slab *slab)
{
    *(slab->newer != NULL ? &slab->newer->older : &sizes[slab->size].newest) = slab->older;
    if (slab->older != NULL)
        slab->older->newer = slab->newer;
}

/* Of all slabs. A few blocks that stay keep whole slabs, which other sizes cannot use: when sizes change, slabs of the
 * old ones would remain beside those of the new, again and again. While a fifth of them is free, blocks that find no
 * slot are malloc's. */
static _Atomic size_t in_slabs, in_use;

static bool is_sparse(void)
{
    size_t used = atomic_load_explicit(&in_use, memory_order_relaxed);
    return atomic_load_explicit(&in_slabs, memory_order_relaxed) > used + used / 4 + SPARE;
}

/* Has the kernel give all pages of a slab at once: one by one, as they are touched, they take four times as long. */
static void populate(struct slab *slab)
{
#ifdef MADV_POPULATE_WRITE
    uintptr_t first = ((uintptr_t)slab + PAGE - 1) & ~(PAGE - 1), end = ((uintptr_t)slab + SLAB_SIZE) & ~(PAGE - 1);
    madvise((void *)first, end - first, MADV_POPULATE_WRITE); /* older kernels know no such advice */
#else
    (void)slab;
#endif
}

static struct slab *make_slab(unsigned index, size_t slot)
{
    struct slab *slab = malloc(SLAB_SIZE);
    if (slab == NULL)
        abort();
    if (sizes[index].slabs++ != 0) /* of a size's first slab it may be that only a few slots are ever used */
        populate(slab);
    uintptr_t first = ((uintptr_t)(slab + 1) + sizeof(void *) + LINE - 1) & ~(uintptr_t)(LINE - 1);
    size_t room = (uintptr_t)slab + SLAB_SIZE + sizeof(void *) - first; /* the last slot's end belongs to nobody */
    *slab =
        (struct slab){.size = index, .slot = (unsigned)slot, .first = (char *)first, .count = (unsigned)(room / slot)};
    link_slab(slab);
    atomic_fetch_add_explicit(&in_slabs, SLAB_SIZE, memory_order_relaxed);
    return slab;
}

static void *alloc_large(size_t size)
{
    char *memory;
    if (size > SIZE_MAX - 16 || (memory = malloc(size + 16)) == NULL)
        abort();
    *owner_of(memory + 16) = NULL;
    return memory + 16;
}

void *slab_alloc(size_t size)
{
    unsigned index = 0;
    size_t slot = slot_for(size, &index);
    void *block;
    if (slot == 0)
        return alloc_large(size);
    pthread_mutex_lock(&sizes[index].lock);
    struct slab *slab = sizes[index].newest;
    if (slab == NULL && is_sparse()) {
        pthread_mutex_unlock(&sizes[index].lock);
        return alloc_large(size);
    }
    if (slab == NULL)
        slab = make_slab(index, slot);
    block = slab->free;
    if (block != NULL)
        slab->free = *(void **)block;
    else
        block = slab->first + slab->cut++ * slot;
    if (++slab->used == slab->count)
        unlink_slab(slab);
    pthread_mutex_unlock(&sizes[index].lock);
    *owner_of(block) = slab;
    atomic_fetch_add_explicit(&in_use, slot, memory_order_relaxed);
    return block;
}

void slab_free(void *block)
{
    if (block == NULL)
        return;
    struct slab *slab = *owner_of(block), *empty = NULL;
    if (slab == NULL) {
        free((char *)block - 16);
        return;
    }
    struct size *size = &sizes[slab->size];
    atomic_fetch_sub_explicit(&in_use, slab->slot, memory_order_relaxed);
    pthread_mutex_lock(&size->lock);
    *(void **)block = slab->free;
    slab->free = block;
    if (slab->used-- == slab->count)
        link_slab(slab);
    /* The last one stays: another block is about to come. */
    if (slab->used == 0 && (slab->newer != NULL || slab->older != NULL)) {
        unlink_slab(slab);
        size->slabs--;
        empty = slab;
    }
    pthread_mutex_unlock(&size->lock);
    if (empty != NULL)
        atomic_fetch_sub_explicit(&in_slabs, SLAB_SIZE, memory_order_relaxed);
    free(empty);
}

size_t slab_allocated(size_t size)
{
    unsigned index;
    size_t slot = slot_for(size, &index);
    return slot != 0 ? slot : size + 16;
}
