#include "backends/prefix.h"
#include "backends/balance.h"
#include <stdatomic.h>
#include <stdlib.h>

#define WAYS 8
#define ENTRIES_MIN 64

/* An entry: 36 bits of the hash, 12 of the server's id + 1 (0: empty), 16 of the time in units of 4 s. */
#define TAG_SHIFT 28
#define ID_SHIFT 16
#define ID_MASK UINT64_C(0xfff)
#define AGE_MASK UINT64_C(0xffff)

struct bucket {
    _Alignas(64) atomic_ullong entries[WAYS];
};

struct prefix_table {
    struct bucket *buckets;
    size_t mask;
};

struct prefix_table *prefix_table_create(size_t entries)
{
    struct prefix_table *table = malloc(sizeof(*table));
    size_t count = ENTRIES_MIN;
    while (count < entries)
        count *= 2;
    if (table == NULL || (table->buckets = aligned_alloc(sizeof(struct bucket), count * sizeof(uint64_t))) == NULL)
        abort();
    table->mask = count / WAYS - 1;
    for (size_t i = 0; i <= table->mask; i++)
        for (size_t way = 0; way < WAYS; way++)
            atomic_init(&table->buckets[i].entries[way], 0);
    return table;
}

void prefix_table_destroy(struct prefix_table *table)
{
    free(table->buckets);
    free(table);
}

void prefix_hash(struct prefix *prefix, struct span prompt, uint64_t seed)
{
    static const struct {
        size_t size, until; /* blocks of this size up to this number */
    } steps[] = {{64, 16}, {256, 44}, {1024, 100}, {8192, PREFIX_BLOCKS_MAX}};
    uint64_t hash = seed;
    prefix->count = 0;
    if (prompt.len != 0 && prompt.len < steps[0].size) {
        prefix->hashes[prefix->count++] = balance_hash(prompt.base, prompt.len, hash);
        return;
    }
    for (size_t step = 0; step < sizeof(steps) / sizeof(steps[0]); step++) {
        while (prefix->count < steps[step].until) {
            if (prompt.len < steps[step].size)
                return;
            hash = balance_hash(prompt.base, steps[step].size, hash);
            prefix->hashes[prefix->count++] = hash;
            prompt = span_skip(prompt, steps[step].size);
        }
    }
}

static uint64_t make_entry(uint64_t hash, uint32_t id, uint32_t now_s)
{
    return hash >> TAG_SHIFT << TAG_SHIFT | ((uint64_t)(id % PREFIX_ID_MAX) + 1) << ID_SHIFT |
           ((now_s >> 2) & AGE_MASK);
}

/* The way that holds this hash; WAYS if none does. */
static size_t find_way(struct bucket *bucket, uint64_t hash, uint64_t *entry)
{
    for (size_t way = 0; way < WAYS; way++) {
        *entry = atomic_load_explicit(&bucket->entries[way], memory_order_relaxed);
        if (*entry >> TAG_SHIFT == hash >> TAG_SHIFT && (*entry >> ID_SHIFT & ID_MASK) != 0)
            return way;
    }
    return WAYS;
}

static struct bucket *bucket_of(struct prefix_table *table, uint64_t hash)
{
    return &table->buckets[hash & table->mask];
}

uint32_t prefix_find(struct prefix_table *table, const struct prefix *prefix, uint32_t now_s, size_t *blocks)
{
    uint32_t id = PREFIX_NOBODY;
    /* What knows a block knows all before it, but for what has been thrown out: halving finds the end. */
    size_t low = 0, high = prefix->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        uint64_t hash = prefix->hashes[middle], entry;
        struct bucket *bucket = bucket_of(table, hash);
        size_t way = find_way(bucket, hash, &entry);
        if (way == WAYS) {
            high = middle;
            continue;
        }
        id = (uint32_t)(entry >> ID_SHIFT & ID_MASK) - 1;
        if ((entry & AGE_MASK) != ((now_s >> 2) & AGE_MASK))
            atomic_store_explicit(&bucket->entries[way], make_entry(hash, id, now_s), memory_order_relaxed);
        low = middle + 1;
    }
    *blocks = low;
    return id;
}

static void put(struct prefix_table *table, uint64_t hash, uint32_t id, uint32_t now_s)
{
    uint64_t entry, oldest_age = 0;
    struct bucket *bucket = bucket_of(table, hash);
    size_t way = find_way(bucket, hash, &entry);
    for (size_t i = 0, oldest = WAYS; way == WAYS; i++) {
        if (i == WAYS) {
            way = oldest != WAYS ? oldest : hash >> 61;
            break;
        }
        entry = atomic_load_explicit(&bucket->entries[i], memory_order_relaxed);
        uint64_t age = ((now_s >> 2) - entry) & AGE_MASK; /* wraps after three days, which only mistakes an order */
        if ((entry >> ID_SHIFT & ID_MASK) == 0)
            way = i;
        else if (age > oldest_age)
            oldest_age = age, oldest = i;
    }
    atomic_store_explicit(&bucket->entries[way], make_entry(hash, id, now_s), memory_order_relaxed);
}

void prefix_remember(struct prefix_table *table, const struct prefix *prefix, uint32_t id, size_t known, uint32_t now_s)
{
    for (size_t i = known; i < prefix->count; i++)
        put(table, prefix->hashes[i], id, now_s);
}
