/* Freed objects of one kind that a thread keeps for the next. Requests come and go by the hundred: what malloc itself
 * keeps for a thread, seven of a size, is used up at once, and the way behind that merges and splits blocks each time.
 * With sanitizers nothing is kept, so that they see each use after its end. */
#ifndef WEIR_BASE_RECYCLE_H
#define WEIR_BASE_RECYCLE_H

#include <stddef.h>
#include <stdlib.h>

#ifdef __has_feature
#define RECYCLE_FEATURE(x) __has_feature(x)
#else
#define RECYCLE_FEATURE(x) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || RECYCLE_FEATURE(address_sanitizer) ||             \
    RECYCLE_FEATURE(thread_sanitizer) || RECYCLE_FEATURE(memory_sanitizer)
#define RECYCLE_MAX 0
#else
#define RECYCLE_MAX 128
#endif

/* What is kept; zero-initialised: nothing. It is never freed, so keep one for each kind and thread. A list through the
 * objects themselves would have to wait for the memory that it reads its next link from, since that was last used a
 * hundred requests ago. */
struct recycle {
    size_t _count;
    void *_kept[RECYCLE_MAX + 1];
};

/* An object of `size` bytes, the same for all of a kind, with anything in it. Never NULL. To be given back. */
static inline void *recycle_take(struct recycle *recycle, size_t size)
{
    if (recycle->_count == 0) {
        void *fresh = malloc(size);
        if (fresh == NULL)
            abort();
        return fresh;
    }
    void *object = recycle->_kept[--recycle->_count];
    if (recycle->_count != 0) /* its turn is next */
        __builtin_prefetch(recycle->_kept[recycle->_count - 1], 1);
    return object;
}

/* Keeps an object, or frees it. */
static inline void recycle_give(struct recycle *recycle, void *object)
{
    if (recycle->_count == RECYCLE_MAX)
        free(object);
    else
        recycle->_kept[recycle->_count++] = object;
}

#endif
