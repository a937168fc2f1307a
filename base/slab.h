/* Memory for what is kept for long and in great number, such as stored answers: blocks of a few sizes, cut out of
 * larger pieces. Kept among malloc's other blocks, they would use up the holes that a request's short-lived memory
 * comes from and goes back to, so that each request would get memory that no cache knows; that costs more than all else
 * that storing an answer takes. What is freed is used again first.
 *
 * Any thread; a short lock for each size. Large blocks are malloc's own. Out of memory aborts. Under AddressSanitizer
 * all blocks are malloc's, so that it sees what is done to them. */
#ifndef WEIR_BASE_SLAB_H
#define WEIR_BASE_SLAB_H

#include <stddef.h>

/* A block of at least `size` bytes, aligned to 16; those that are not large begin a cache line. */
void *slab_alloc(size_t size);

/* Gives back what slab_alloc gave; NULL is nothing. */
void slab_free(void *block);

/* The memory that a block of `size` bytes takes up. */
size_t slab_allocated(size_t size);

#endif
