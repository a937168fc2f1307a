#include "ratelimit/store_logs.h"
#include <assert.h>
#include <stdlib.h>

#define MALLOC_OVERHEAD 16
#define FIRST_AT 64 /* where a page's logs begin */

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

static bool is_small(uint32_t cap)
{
    return cap < STRATEGY_LOG_MIN << STORE_LOGS_SIZES;
}

static unsigned size_index(uint32_t cap)
{
    return (unsigned)__builtin_ctz(cap / STRATEGY_LOG_MIN);
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

static struct strategy_log *create_small(struct store_logs *logs, uint32_t cap)
{
    unsigned index = size_index(cap);
    size_t size = strategy_log_size(cap);
    struct store_logs_page *page = logs->_partly[index];
    uint32_t at;

    if (page == NULL && (page = add_page(logs, index)) == NULL)
        return NULL;
    if (page->free != 0) {
        at = page->free;
        page->free = *(const uint32_t *)((char *)page + at);
    } else {
        at = page->made_to;
        page->made_to += (uint32_t)size;
    }
    page->used++;
    if (!has_room(page, size))
        unlink_page(&logs->_partly[index], page);
    return (struct strategy_log *)((char *)page + at);
}

static void destroy_small(struct store_logs *logs, struct strategy_log *log)
{
    unsigned index = size_index(log->cap);
    uint32_t at = (uint32_t)((uintptr_t)log & (STORE_PAGE_BYTES - 1));
    struct store_logs_page *page = (struct store_logs_page *)((char *)log - at);

    if (!has_room(page, strategy_log_size(log->cap)))
        link_page(&logs->_partly[index], page);
    *(uint32_t *)(void *)log = page->free;
    page->free = at;
    if (--page->used == 0) {
        unlink_page(&logs->_partly[index], page);
        store_memory_return_page(logs->_memory, page);
        logs->_bytes -= STORE_PAGE_BYTES;
    }
}

/* ---- all ---- */

static size_t charge_of(uint32_t cap)
{
    return strategy_log_size(cap) + MALLOC_OVERHEAD;
}

static struct strategy_log *create_large(struct store_logs *logs, uint32_t cap)
{
    size_t charge = charge_of(cap), max = logs->_memory->max;
    if (!store_memory_fits(logs->_memory, charge) || charge > max / 2 - logs->_bytes || charge > max / 3)
        return NULL;
    struct strategy_log *log = malloc(strategy_log_size(cap));
    if (log == NULL)
        abort();
    store_memory_charge(logs->_memory, charge);
    logs->_bytes += charge;
    return log;
}

struct strategy_log *store_logs_create(struct store_logs *logs, uint32_t cap)
{
    struct strategy_log *log = is_small(cap) ? create_small(logs, cap) : create_large(logs, cap);
    if (log != NULL)
        strategy_log_init(log, cap);
    return log;
}

void store_logs_destroy(struct store_logs *logs, struct strategy_log *log)
{
    if (is_small(log->cap)) {
        destroy_small(logs, log);
        return;
    }
    store_memory_discharge(logs->_memory, charge_of(log->cap));
    logs->_bytes -= charge_of(log->cap);
    free(log);
}
