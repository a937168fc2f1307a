#include "ratelimit/store_table.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SLAB 64
#define INDEX_MAX ((UINT32_C(1) << 26) - 1)
#define SWEEP_STEPS 4       /* entries looked at for each one made, so that the expired ones go as others come */
#define SWEEP_STEPS_FULL 64 /* the same when there is no room: sixty-four lines in order, well under a microsecond */

static_assert(sizeof(struct table_entry) == 64, "an entry is to fill a cache line");
static_assert(SLAB * sizeof(struct table_entry) == STORE_PAGE_BYTES, "a slab is to fill a page");

static size_t most_entries(size_t max_bytes)
{
    size_t most = max_bytes / sizeof(struct table_entry);
    return most < INDEX_MAX ? most : INDEX_MAX;
}

static size_t bucket_count(size_t max_bytes)
{
    size_t most = most_entries(max_bytes), buckets = 64;
    while (buckets * 2 <= most)
        buckets *= 2;
    return buckets;
}

size_t table_index_bytes(size_t max_bytes)
{
    struct table *table;
    return bucket_count(max_bytes) * sizeof(*table->_buckets);
}

void table_init(struct table *table, struct store_pages *pages, size_t max_bytes)
{
    assert(max_bytes >= TABLE_BYTES_MIN);
    size_t index_bytes = table_index_bytes(max_bytes);
    *table = (struct table){._bucket_mask = (uint32_t)bucket_count(max_bytes) - 1,
                            ._slabs_max = (uint32_t)(most_entries(max_bytes) / SLAB),
                            ._made = 1, /* index 0 ends chains */
                            ._hand = 1};
    table->_buckets = store_pages_take_index(pages, index_bytes);
    table->_slabs = calloc(table->_slabs_max, sizeof(*table->_slabs));
    if (table->_slabs == NULL)
        abort();
    store_memory_init(&table->memory, pages, max_bytes);
    store_memory_charge(&table->memory, index_bytes + table->_slabs_max * sizeof(*table->_slabs));
    store_logs_init(&table->_logs, &table->memory);
}

static struct table_entry *slab_at(const struct table *table, uint32_t slab)
{
    return atomic_load_explicit(&table->_slabs[slab], memory_order_relaxed);
}

static struct table_entry *entry_at(const struct table *table, uint32_t index)
{
    return &slab_at(table, index / SLAB)[index % SLAB];
}

static _Atomic uint32_t *bucket_of(const struct table *table, const struct key *key)
{
    /* A client's limits have buckets of their own in one cache line. The place's first bits chose the shard. */
    uint32_t in_line = (uint32_t)key->word[0] & 15, line = key_place(key) >> 6 & ~UINT32_C(15);
    return &table->_buckets[(line | in_line) & table->_bucket_mask];
}

static uint32_t first_of(const struct table *table, const struct key *key)
{
    return atomic_load_explicit(bucket_of(table, key), memory_order_relaxed);
}

static void set_first(struct table *table, const struct key *key, uint32_t index)
{
    atomic_store_explicit(bucket_of(table, key), index, memory_order_relaxed);
}

static void destroy_log(struct table *table, const struct strategy_log *log)
{
    store_logs_destroy(&table->_logs, strategy_log_slots(log), strategy_log_bytes(log));
}

void table_dispose(struct table *table)
{
    for (uint32_t i = 1; i < table->_made; i++) {
        struct table_entry *entry = entry_at(table, i);
        if (entry->kind == TABLE_MOVING_WINDOW)
            destroy_log(table, &entry->state.log);
    }
    store_memory_dispose(&table->memory);
    free((void *)table->_slabs);
}

/* ---- finding ---- */

void table_prefetch_bucket(const struct table *table, const struct key *key)
{
    __builtin_prefetch((const void *)bucket_of(table, key));
}

void table_prefetch_entry(const struct table *table, const struct key *key)
{
    uint32_t index = first_of(table, key);
    struct table_entry *slab = slab_at(table, index / SLAB);
    if (index != 0 && slab != NULL) /* another thread may be at work here */
        __builtin_prefetch(&slab[index % SLAB], 1);
}

struct table_entry *table_find(const struct table *table, const struct key *key, enum table_kind kind)
{
    uint32_t index = first_of(table, key);
    while (index != 0) {
        struct table_entry *entry = entry_at(table, index);
        if (key_eq(&entry->key, key) && entry->kind == kind)
            return entry;
        index = entry->next;
    }
    return NULL;
}

/* ---- making room ---- */

void table_remove(struct table *table, struct table_entry *entry)
{
    struct table_entry *before = NULL;
    uint32_t index;

    for (index = first_of(table, &entry->key); entry_at(table, index) != entry; index = before->next)
        before = entry_at(table, index);
    if (before != NULL)
        before->next = entry->next;
    else
        set_first(table, &entry->key, entry->next);
    if (entry->kind == TABLE_MOVING_WINDOW)
        destroy_log(table, &entry->state.log);
    entry->kind = TABLE_FREE;
    entry->next = table->_free;
    table->_free = index;
    table->entries--;
}

static bool is_expired(struct table_entry *entry, uint64_t now_us)
{
    if (entry->kind == TABLE_LEASES)
        return entry->state._count == 0;
    return strategy_idle((enum limit_strategy)(entry->kind - 1), &entry->state, entry->window_s * UINT64_C(1000000),
                         now_us);
}

/* Looks at the next `steps` entries and removes those that have expired. */
static void sweep(struct table *table, unsigned steps, uint64_t now_us)
{
    while (steps-- != 0 && table->_made > 1) {
        if (table->_hand >= table->_made)
            table->_hand = 1;
        struct table_entry *entry = entry_at(table, table->_hand++);
        if (entry->kind != TABLE_FREE && !entry->pinned && is_expired(entry, now_us)) {
            table_remove(table, entry);
            table->evictions++;
        }
    }
}

/* The index of an unused entry; 0 if the bytes allow none. */
static uint32_t take_free(struct table *table)
{
    uint32_t index = table->_free;
    if (index != 0) {
        table->_free = entry_at(table, index)->next;
        return index;
    }
    if (table->_made / SLAB >= table->_slabs_max)
        return 0;
    uint32_t slab = table->_made / SLAB;
    if (slab_at(table, slab) == NULL) {
        struct table_entry *page = store_memory_take_page(&table->memory);
        if (page == NULL)
            return 0;
        atomic_store_explicit(&table->_slabs[slab], page, memory_order_relaxed);
    }
    return table->_made++;
}

struct table_entry *table_add(struct table *table, const struct key *key, enum table_kind kind, uint64_t window_us,
                              uint64_t now_us)
{
    size_t log_bytes = STRATEGY_LOG_BYTES_MIN;
    void *log = NULL;
    bool swept = false;
    uint32_t index;

    sweep(table, SWEEP_STEPS, now_us);
    while (kind == TABLE_MOVING_WINDOW && (log = store_logs_create(&table->_logs, &log_bytes)) == NULL) {
        if (swept)
            return NULL;
        sweep(table, SWEEP_STEPS_FULL, now_us);
        swept = true;
    }
    while ((index = take_free(table)) == 0) {
        if (swept) {
            if (log != NULL)
                store_logs_destroy(&table->_logs, log, log_bytes);
            return NULL;
        }
        sweep(table, SWEEP_STEPS_FULL, now_us);
        swept = true;
    }

    struct table_entry *entry = entry_at(table, index);
    *entry = (struct table_entry){.key = *key, .next = first_of(table, key) & INDEX_MAX, .kind = kind};
    entry->window_s = (uint32_t)((window_us + 999999) / 1000000);
    if (kind == TABLE_MOVING_WINDOW)
        strategy_log_init(&entry->state.log, log, log_bytes);
    set_first(table, key, index);
    table->entries++;
    return entry;
}

void table_grow_log(struct table *table, struct table_entry *entry, const struct limit *limit, uint64_t cost,
                    uint64_t now_us)
{
    struct strategy_log *log = &entry->state.log, old;
    void *slots;

    if (strategy_log_count(log) < strategy_log_cap(log) && !strategy_log_too_narrow(log, cost, limit->window_us))
        return; /* as nearly always: the rest is not worth its instructions */
    old = *log;
    size_t bytes = strategy_log_room(&entry->state, limit, cost);
    if (bytes == strategy_log_bytes(&old))
        return;
    slots = store_logs_create(&table->_logs, &bytes);
    if (slots == NULL) {
        sweep(table, SWEEP_STEPS, now_us);
        slots = store_logs_create(&table->_logs, &bytes);
        if (slots == NULL)
            return;
    }
    strategy_log_move(log, slots, bytes);
    destroy_log(table, &old);
}
