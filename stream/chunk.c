#include "stream/chunk.h"
#include "base/slab.h"
#include <pthread.h>
#include <stdlib.h>

#define HEADS_CACHED 64

static __thread struct chunk *free_heads;
static __thread unsigned free_head_count;
static __thread bool free_heads_watched;
static pthread_once_t free_heads_once = PTHREAD_ONCE_INIT;
static pthread_key_t free_heads_key;

/* Runs when a thread ends. */
static void drop_free_heads(void *unused)
{
    (void)unused;
    for (struct chunk *chunk; (chunk = free_heads) != NULL; free(chunk))
        free_heads = chunk->_next;
    free_head_count = HEADS_CACHED; /* whatever else ends with the thread adds none */
}

static void make_free_heads_key(void)
{
    if (pthread_key_create(&free_heads_key, drop_free_heads) != 0)
        h2o_fatal("no thread-specific data");
}

/* Keeps a chunk's head for the next one. */
static void recycle_head(struct chunk *chunk)
{
    if (!free_heads_watched) {
        pthread_once(&free_heads_once, make_free_heads_key);
        pthread_setspecific(free_heads_key, &free_heads);
        free_heads_watched = true;
    }
    chunk->_next = free_heads;
    free_heads = chunk;
    free_head_count++;
}

struct chunk *chunk_create(void)
{
    struct chunk *chunk = free_heads;
    if (chunk != NULL) {
        free_heads = chunk->_next;
        free_head_count--;
    } else {
        chunk = h2o_mem_alloc(sizeof(*chunk));
    }
    *chunk = (struct chunk){._refs = 1};
    return chunk;
}

struct chunk *chunk_create_block(size_t cap)
{
    struct chunk *chunk = chunk_create();
    chunk->_bytes.base = h2o_mem_alloc(cap);
    chunk->_cap = cap;
    return chunk;
}

struct chunk *chunk_create_copy(struct span bytes, size_t room, void **at)
{
    size_t size = sizeof(struct chunk) + room + bytes.len;
    struct chunk *chunk = slab_alloc(size);
    char *copy = (char *)(chunk + 1) + room;
    *at = chunk + 1;
    *chunk = (struct chunk){
        ._refs = 1, ._bytes = {copy, bytes.len}, ._cap = slab_allocated(size) - sizeof(*chunk), ._parent = chunk};
    if (bytes.len != 0)
        memcpy(copy, bytes.base, bytes.len);
    return chunk;
}

void chunk_release(struct chunk *chunk)
{
    if (atomic_fetch_sub_explicit(&chunk->_refs, 1, memory_order_acq_rel) != 1)
        return;
    if (chunk->_parent == chunk) {
        slab_free(chunk);
        return;
    }
    if (chunk->_parent != NULL) {
        chunk_release(chunk->_parent);
    } else if (chunk->_buffer != NULL) {
        h2o_buffer_dispose(&chunk->_buffer);
    } else {
        free((char *)chunk->_bytes.base);
    }
    if (free_head_count < HEADS_CACHED)
        recycle_head(chunk);
    else
        free(chunk);
}

struct chunk *chunk_retain(const struct slice *slice, struct span *bytes)
{
    if (slice->chunk->_buffer == NULL) {
        atomic_fetch_add_explicit(&slice->chunk->_refs, 1, memory_order_relaxed);
        *bytes = slice->bytes;
        return slice->chunk;
    }
    struct chunk *copy = chunk_create_block(slice->bytes.len);
    memcpy((char *)copy->_bytes.base, slice->bytes.base, slice->bytes.len);
    copy->_bytes.len = slice->bytes.len;
    *bytes = copy->_bytes;
    return copy;
}

struct chunk *chunk_adopt(char *memory, size_t len, size_t cap)
{
    struct chunk *chunk = chunk_create();
    chunk->_bytes = (struct span){memory, len};
    chunk->_cap = cap;
    return chunk;
}

struct span chunk_bytes(const struct chunk *chunk)
{
    return chunk->_bytes;
}

size_t chunk_allocated(const struct chunk *chunk)
{
    return sizeof(*chunk) + chunk->_cap;
}

struct chunk *chunk_share(struct chunk *chunk)
{
    struct chunk *parent = chunk->_parent != NULL ? chunk->_parent : chunk;
    struct chunk *head = chunk_create();
    assert(chunk->_buffer == NULL);
    atomic_fetch_add_explicit(&parent->_refs, 1, memory_order_relaxed);
    head->_parent = parent;
    head->_bytes = chunk->_bytes;
    return head;
}
