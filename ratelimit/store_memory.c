#include "ratelimit/store_memory.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 * 1024 * 1024)

struct store_idle {
    struct store_idle *next;
};

/* ---- the mapping ---- */

static size_t to_pages(size_t bytes)
{
    return (bytes + STORE_PAGE_BYTES - 1) & ~(size_t)(STORE_PAGE_BYTES - 1);
}

void store_pages_init(struct store_pages *pages, size_t max_bytes, size_t index_bytes)
{
    /* One huge page more, to begin where one does. */
    size_t size = to_pages(max_bytes) + STORE_PAGE_BYTES, mapped = size + HUGE_PAGE;
    char *base = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        fprintf(stderr, "weir: the system has no room for limit_memory (%zu bytes): %s\n", mapped, strerror(errno));
        abort();
    }
    size_t before = HUGE_PAGE - ((uintptr_t)base & (HUGE_PAGE - 1));
    munmap(base, before);
    *pages = (struct store_pages){._base = base + before, ._size = mapped - before, ._used = to_pages(index_bytes)};
    /* Best effort: without huge pages it is slower. */
    size_t small = index_bytes & ~(HUGE_PAGE - 1);
    if (small != 0)
        madvise(pages->_base, small, MADV_HUGEPAGE);
    if (size > small + HUGE_PAGE)
        madvise(pages->_base + small + HUGE_PAGE, size - small - HUGE_PAGE, MADV_HUGEPAGE);
}

void store_pages_dispose(struct store_pages *pages)
{
    munmap(pages->_base, pages->_size);
}

void *store_pages_take_index(struct store_pages *pages, size_t bytes)
{
    void *index = pages->_base + pages->_index_used;
    assert(pages->_index_used % 64 == 0);
    pages->_index_used += bytes;
    return index;
}

static void *take_mapped(struct store_pages *pages)
{
    size_t at = atomic_fetch_add_explicit(&pages->_used, STORE_PAGE_BYTES, memory_order_relaxed);
    assert(at + STORE_PAGE_BYTES <= pages->_size);
    return pages->_base + at;
}

/* ---- a shard's ---- */

void store_memory_init(struct store_memory *memory, struct store_pages *pages, size_t max)
{
    size_t most = max / STORE_PAGE_BYTES + 1;
    *memory = (struct store_memory){._pages = pages, .max = max, .bytes = most * sizeof(*memory->_dropped)};
    memory->_dropped = calloc(most, sizeof(*memory->_dropped));
    if (memory->_dropped == NULL)
        abort();
}

void store_memory_dispose(struct store_memory *memory)
{
    free(memory->_dropped);
}

bool store_memory_fits(const struct store_memory *memory, size_t bytes)
{
    return bytes <= memory->max - memory->bytes + memory->_idle_bytes;
}

static void *pop_idle(struct store_memory *memory)
{
    struct store_idle *page = memory->_idle;
    memory->_idle = page->next;
    memory->_idle_bytes -= STORE_PAGE_BYTES;
    return page;
}

void store_memory_charge(struct store_memory *memory, size_t bytes)
{
    while (bytes > memory->max - memory->bytes) {
        void *page = pop_idle(memory);
        madvise(page, STORE_PAGE_BYTES, MADV_DONTNEED);
        memory->_dropped[memory->_dropped_count++] = page;
        memory->bytes -= STORE_PAGE_BYTES;
    }
    memory->bytes += bytes;
}

void store_memory_discharge(struct store_memory *memory, size_t bytes)
{
    memory->bytes -= bytes;
}

void *store_memory_take_page(struct store_memory *memory)
{
    if (memory->_idle != NULL)
        return pop_idle(memory);
    if (STORE_PAGE_BYTES > memory->max - memory->bytes)
        return NULL;
    memory->bytes += STORE_PAGE_BYTES;
    if (memory->_dropped_count != 0)
        return memory->_dropped[--memory->_dropped_count];
    return take_mapped(memory->_pages);
}

void store_memory_return_page(struct store_memory *memory, void *page)
{
    struct store_idle *idle = page;
    idle->next = memory->_idle;
    memory->_idle = idle;
    memory->_idle_bytes += STORE_PAGE_BYTES;
}
