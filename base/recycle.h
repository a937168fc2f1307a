/* How many freed objects of one kind a thread keeps for the next (h2o_mem_recycle_t). Requests come and go by the
 * hundred: what malloc itself keeps for a thread, seven of a size, is used up at once, and the way behind that merges
 * and splits blocks each time. With sanitizers nothing is kept, so that they see each use after its end. */
#ifndef WEIR_BASE_RECYCLE_H
#define WEIR_BASE_RECYCLE_H

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

#endif
