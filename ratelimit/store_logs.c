#include "ratelimit/store_logs.h"
#include <assert.h>
#include <stdlib.h>

#define ALLOC_OVERHEAD 80 /* what the allocator adds, and loses to alignment, at most */
#define FIRST_AT 64       /* where a page's logs begin */

struct store_logs_page {
    struct store_logs_page *next, *prev; /* with room, and of this size */
    uint32_t free;                       /* where the first free log is that has been used; 0: none */
    uint32_t made_to;                    /* what comes behind has not been used */
    uint32_t used;                       /* logs */
};

static_assert(sizeof(struct store_logs_page) <= FIRST_AT, "logs begin behind their page's head");

void store_logs_init(struct store_logs *logs, struct store_memory *memory)
{
    *logs = (struct store_logs){._memory = memory};
}

static bool is_small(size_t bytes)
{
    return bytes < (size_t)STRATEGY_LOG_BYTES_MIN << STORE_LOGS_SIZES;
}

static unsigned size_index(size_t bytes)
{
    return (unsigned)__builtin_ctzll(bytes / STRATEGY_LOG_BYTES_MIN);
}

static bool has_room(const struct store_logs_page *page, size_t size)
{
    return page->free != 0 || page->made_to + size <= STORE_PAGE_BYTES;
}

static void link_page(struct store_logs_page **list, struct store_logs_page *page)
{
    page->prev = NULL;
    page->next = *list;
    if (*list != NULL)
        (*list)->prev = page;
    *list = page;
}

static void unlink_page(struct store_logs_page **list, struct store_logs_page *page)
{
    if (page->prev != NULL)
        page->prev->next = page->next;
    else
        *list = page->next;
    if (page->next != NULL)
        page->next->prev = page->prev;
}

/* ---- small logs ---- */

static struct store_logs_page *add_page(struct store_logs *logs, unsigned index)
{
    if (logs->_bytes + STORE_PAGE_BYTES > logs->_memory->max / 2)
        return NULL;
    struct store_logs_page *page = store_memory_take_page(logs->_memory);
    if (page == NULL)
        return NULL;
    *page = (struct store_logs_page){.made_to = FIRST_AT};
    link_page(&logs->_partly[index], page);
    logs->_bytes += STORE_PAGE_BYTES;
    return page;
}

static void *create_small(struct store_logs *logs, size_t *bytes)
{
    unsigned index = size_index(*bytes);
    struct store_logs_page *page = logs->_partly[index];
    uint32_t at;

    if (page == NULL)
        page = add_page(logs, index);
    for (; page == NULL; page = logs->_partly[index]) /* rather than that a few large ones keep all others out */
        if (++index == STORE_LOGS_SIZES)
            return NULL;
    *bytes = (size_t)STRATEGY_LOG_BYTES_MIN << index;
    if (page->free != 0) {
        at = page->free;
        page->free = *(const uint32_t *)((char *)page + at);
    } else {
        at = page->made_to;
        page->made_to += (uint32_t)*bytes;
    }
    page->used++;
    if (!has_room(page, *bytes))
        unlink_page(&logs->_partly[index], page);
    return (char *)page + at;
}

static void destroy_small(struct store_logs *logs, void *slots, size_t bytes)
{
    unsigned index = size_index(bytes);
    uint32_t at = (uint32_t)((uintptr_t)slots & (STORE_PAGE_BYTES - 1));
    struct store_logs_page *page = (struct store_logs_page *)((char *)slots - at);

    if (!has_room(page, bytes))
        link_page(&logs->_partly[index], page);
    *(uint32_t *)slots = page->free;
    page->free = at;
    if (--page->used == 0) {
        unlink_page(&logs->_partly[index], page);
        store_memory_return_page(logs->_memory, page);
        logs->_bytes -= STORE_PAGE_BYTES;
    }
}

/* ---- all ---- */

static void *create_large(struct store_logs *logs, size_t bytes)
{
    size_t charge = bytes + ALLOC_OVERHEAD, max = logs->_memory->max;
    if (!store_memory_fits(logs->_memory, charge) || charge > max / 2 - logs->_bytes || charge > max / 3)
        return NULL;
    void *slots = aligned_alloc(STRATEGY_LOG_BYTES_MIN, bytes);
    if (slots == NULL)
        abort();
    store_memory_charge(logs->_memory, charge);
    logs->_bytes += charge;
    return slots;
}

void *store_logs_create(struct store_logs *logs, size_t *bytes)
{
    return is_small(*bytes) ? create_small(logs, bytes) : create_large(logs, *bytes);
}

void store_logs_destroy(struct store_logs *logs, void *slots, size_t bytes)
{
    if (is_small(bytes)) {
        destroy_small(logs, slots, bytes);
        return;
    }
    store_memory_discharge(logs->_memory, bytes + ALLOC_OVERHEAD);
    logs->_bytes -= bytes + ALLOC_OVERHEAD;
    free(slots);
}
