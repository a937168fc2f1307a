/* A chunk: a counted piece of memory whose bytes never change once they are visible. Its count is atomic, so it may go
 * to another thread; its list link and offset belong to the one stream that it stands in. Heads come from a free list
 * of the thread. */
#ifndef WEIR_STREAM_CHUNK_H
#define WEIR_STREAM_CHUNK_H

#include "base/span.h"
#include <h2o/memory.h>
#include <stdatomic.h>
#include <stdint.h>

/* Its members are for this folder only. */
struct chunk {
    atomic_uint _refs;
    struct chunk *_next;   /* in the stream; the list's owner is the stream's thread */
    uint64_t _start;       /* offset of the first byte in the stream */
    struct span _bytes;    /* what is visible so far */
    size_t _cap;           /* allocated bytes, which limits count */
    h2o_buffer_t *_buffer; /* a producer's buffer, belonging to this thread; NULL: `_bytes.base` is malloc'ed, but see
                              `_parent` */
    struct chunk *_parent; /* the counted chunk whose bytes these are; NULL: they are its own; itself: they
                              stand behind this head, in one block of slab_alloc */
};

/* A piece of a stream for a subscriber to read; valid until consumed, or longer with chunk_retain. */
struct slice {
    struct span bytes;
    struct chunk *chunk;
};

/* A chunk with one count and no memory yet. */
struct chunk *chunk_create(void);

/* A chunk with an own block of `cap` bytes, none of them visible yet. */
struct chunk *chunk_create_block(size_t cap);

/* A counted chunk that holds a copy of the bytes in one piece of memory with its head, apart from what malloc gives:
 * for what is kept for long. Between the two are `room` more bytes, at *at, aligned to 8: the caller's for as long as
 * its count. */
struct chunk *chunk_create_copy(struct span bytes, size_t room, void **at);

/* A counted chunk of `len` bytes at `memory`, of which malloc gave `cap`, and which it takes over. */
struct chunk *chunk_adopt(char *memory, size_t len, size_t cap);

/* Another head over the same bytes, so that a chunk can stand in several streams, also of several threads. Counts
 * nothing in the stream's own limits: the memory is there anyway. */
struct chunk *chunk_share(struct chunk *chunk);

/* Keeps the bytes of a slice beyond stream_consume. Returns a counted chunk that holds them, at *bytes: the slice's own
 * chunk, or a copy where that one's memory belongs to this thread. */
struct chunk *chunk_retain(const struct slice *slice, struct span *bytes);

/* Drops a count; any thread. */
void chunk_release(struct chunk *chunk);

/* The bytes of a chunk that chunk_retain or chunk_adopt gave. */
struct span chunk_bytes(const struct chunk *chunk);

/* The memory that a chunk takes up, its own head included. */
size_t chunk_allocated(const struct chunk *chunk);

#endif
