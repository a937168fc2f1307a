#include "cache/memory.h"
#include <h2o/memory.h>
#include <pthread.h>
#include <stdlib.h>

#define SHARDS_MAX 16
#define SHARD_MIN ((size_t)4 * 1024 * 1024) /* rather fewer shards than smaller ones */
#define BUCKETS_FIRST 64
#define PER_ENTRY (2 * sizeof(void *)) /* of the buckets: there are at least half as many entries, or few of both */
#define STALE_LOOKS 4                  /* old entries that an insertion looks at, to throw out what has expired */

/* The lock guards everything in the shard, and the links of the entries in it. */
struct shard {
    pthread_mutex_t lock;
    struct cache_entry **buckets;
    size_t bucket_count; /* a power of two */
    struct cache_entry *newest, *oldest;
    struct cache_memory_counts counts;
} __attribute__((aligned(64)));

struct cache_memory {
    size_t shard_count; /* a power of two */
    size_t shard_bytes; /* each one's part of the memory, first buckets aside */
    size_t max_entry;
    uint64_t ttl_us;          /* 0: none of its own */
    _Atomic(uint64_t) purges; /* raised before the first shard is looked at, read with a shard's lock held */
    struct shard shards[SHARDS_MAX];
};

/* ---- one shard; all with its lock held ---- */

static size_t cost(const struct cache_entry *entry)
{
    return entry->allocated + PER_ENTRY;
}

/* Keys are digests: any of their bytes are as good as a hash. */
static size_t bucket_of(const struct shard *shard, const struct cache_key *key)
{
    uint64_t bits;
    memcpy(&bits, key->bytes, sizeof(bits));
    return (size_t)bits & (shard->bucket_count - 1);
}

static struct cache_entry **find(struct shard *shard, const struct cache_key *key)
{
    struct cache_entry **slot = &shard->buckets[bucket_of(shard, key)];
    while (*slot != NULL && !cache_key_eq(&(*slot)->key, key))
        slot = &(*slot)->_next;
    return slot;
}

static void unlink_age(struct shard *shard, struct cache_entry *entry)
{
    *(entry->_newer != NULL ? &entry->_newer->_older : &shard->newest) = entry->_older;
    *(entry->_older != NULL ? &entry->_older->_newer : &shard->oldest) = entry->_newer;
}

static void link_newest(struct shard *shard, struct cache_entry *entry)
{
    entry->_newer = NULL;
    entry->_older = shard->newest;
    *(shard->newest != NULL ? &shard->newest->_newer : &shard->oldest) = entry;
    shard->newest = entry;
}

/* Takes the entry at *slot out and puts it on the list of those to let go. */
static void take_out(struct shard *shard, struct cache_entry **slot, struct cache_entry **gone)
{
    struct cache_entry *entry = *slot;
    *slot = entry->_next;
    unlink_age(shard, entry);
    shard->counts.entries--;
    shard->counts.bytes -= cost(entry);
    entry->_next = *gone;
    *gone = entry;
}

static void grow_buckets(struct shard *shard)
{
    struct cache_entry **old = shard->buckets;
    size_t old_count = shard->bucket_count;
    shard->bucket_count *= 2;
    shard->buckets = h2o_mem_alloc(shard->bucket_count * sizeof(*shard->buckets));
    memset(shard->buckets, 0, shard->bucket_count * sizeof(*shard->buckets));
    for (size_t i = 0; i < old_count; i++) {
        for (struct cache_entry *entry = old[i], *next; entry != NULL; entry = next) {
            struct cache_entry **slot = &shard->buckets[bucket_of(shard, &entry->key)];
            next = entry->_next;
            entry->_next = *slot;
            *slot = entry;
        }
    }
    free(old);
}

/* Makes room for `bytes` more: first what has expired among the oldest, then the oldest. */
static void make_room(struct shard *shard, size_t max, size_t bytes, uint64_t now_us, struct cache_entry **gone)
{
    struct cache_entry *entry = shard->oldest;
    for (int i = 0; i < STALE_LOOKS && entry != NULL; i++) {
        struct cache_entry *newer = entry->_newer;
        if (entry->_leaves_us <= now_us) {
            take_out(shard, find(shard, &entry->key), gone);
            shard->counts.expirations++;
        }
        entry = newer;
    }
    while (shard->counts.bytes + bytes > max) {
        take_out(shard, find(shard, &shard->oldest->key), gone);
        shard->counts.evictions++;
    }
}

/* ---- the store ---- */

static struct shard *shard_of(struct cache_memory *memory, const struct cache_key *key)
{
    return &memory->shards[key->bytes[CACHE_KEY_LEN - 1] & (memory->shard_count - 1)];
}

static void let_go(struct cache_entry *gone)
{
    while (gone != NULL) {
        struct cache_entry *next = gone->_next;
        cache_entry_release(gone);
        gone = next;
    }
}

struct cache_memory *cache_memory_create(const struct cache_memory_settings *settings)
{
    struct cache_memory *memory = NULL;
    if (posix_memalign((void **)&memory, 64, sizeof(*memory)) != 0)
        h2o_fatal("no memory");
    memset(memory, 0, sizeof(*memory));
    size_t shard_min = settings->max_entry > SHARD_MIN / 4 ? settings->max_entry * 4 : SHARD_MIN;
    memory->shard_count = SHARDS_MAX;
    while (memory->shard_count > 1 && settings->max_bytes / memory->shard_count < shard_min)
        memory->shard_count /= 2;
    memory->shard_bytes = settings->max_bytes / memory->shard_count;
    memory->max_entry = settings->max_entry;
    memory->ttl_us = settings->ttl_us;
    if (memory->max_entry == 0 || memory->max_entry > memory->shard_bytes)
        memory->max_entry = memory->shard_bytes;
    for (size_t i = 0; i < memory->shard_count; i++) {
        struct shard *shard = &memory->shards[i];
        pthread_mutex_init(&shard->lock, NULL);
        shard->bucket_count = BUCKETS_FIRST;
        shard->buckets = h2o_mem_alloc(BUCKETS_FIRST * sizeof(*shard->buckets));
        memset(shard->buckets, 0, BUCKETS_FIRST * sizeof(*shard->buckets));
    }
    return memory;
}

void cache_memory_destroy(struct cache_memory *memory)
{
    if (memory == NULL)
        return;
    cache_memory_purge(memory, NULL, NULL);
    for (size_t i = 0; i < memory->shard_count; i++) {
        pthread_mutex_destroy(&memory->shards[i].lock);
        free(memory->shards[i].buckets);
    }
    free(memory);
}

size_t cache_memory_max_entry(const struct cache_memory *memory)
{
    return memory->max_entry;
}

struct cache_entry *cache_memory_lookup(struct cache_memory *memory, const struct cache_key *key, uint64_t now_us)
{
    struct shard *shard = shard_of(memory, key);
    struct cache_entry *gone = NULL;
    pthread_mutex_lock(&shard->lock);
    struct cache_entry **slot = find(shard, key), *entry = *slot;
    if (entry != NULL && entry->_leaves_us <= now_us) {
        take_out(shard, slot, &gone);
        shard->counts.expirations++;
        entry = NULL;
    }
    if (entry != NULL) {
        cache_entry_retain(entry);
        unlink_age(shard, entry);
        link_newest(shard, entry);
        shard->counts.hits++;
    } else {
        shard->counts.misses++;
    }
    pthread_mutex_unlock(&shard->lock);
    let_go(gone);
    return entry;
}

bool cache_memory_insert(struct cache_memory *memory, struct cache_entry *entry, uint64_t now_us)
{
    struct shard *shard = shard_of(memory, &entry->key);
    struct cache_entry *gone = NULL;
    size_t bytes = cost(entry);
    entry->_leaves_us = entry->expires_us;
    if (memory->ttl_us != 0 && entry->_leaves_us > now_us + memory->ttl_us)
        entry->_leaves_us = now_us + memory->ttl_us;
    pthread_mutex_lock(&shard->lock);
    bool fits =
        bytes <= memory->max_entry && entry->expires_us > now_us && entry->birth.purges == cache_memory_purges(memory);
    if (fits) {
        struct cache_entry **slot = find(shard, &entry->key);
        if (*slot != NULL)
            take_out(shard, slot, &gone);
        make_room(shard, memory->shard_bytes, bytes, now_us, &gone);
        if (shard->counts.entries == shard->bucket_count)
            grow_buckets(shard);
        slot = &shard->buckets[bucket_of(shard, &entry->key)];
        entry->_next = *slot;
        *slot = entry;
        link_newest(shard, entry);
        shard->counts.entries++;
        shard->counts.bytes += bytes;
        shard->counts.stores++;
    } else {
        shard->counts.refusals++;
    }
    pthread_mutex_unlock(&shard->lock);
    let_go(gone);
    if (!fits)
        cache_entry_release(entry);
    return fits;
}

bool cache_memory_remove(struct cache_memory *memory, const struct cache_key *key)
{
    struct shard *shard = shard_of(memory, key);
    struct cache_entry *gone = NULL;
    pthread_mutex_lock(&shard->lock);
    struct cache_entry **slot = find(shard, key);
    if (*slot != NULL)
        take_out(shard, slot, &gone);
    pthread_mutex_unlock(&shard->lock);
    bool found = gone != NULL;
    let_go(gone);
    return found;
}

size_t cache_memory_purge(struct cache_memory *memory, bool (*match)(void *ctx, const struct cache_entry *entry),
                          void *ctx)
{
    size_t count = 0;
    atomic_fetch_add(&memory->purges, 1);
    for (size_t i = 0; i < memory->shard_count; i++) {
        struct shard *shard = &memory->shards[i];
        struct cache_entry *gone = NULL;
        pthread_mutex_lock(&shard->lock);
        for (struct cache_entry *entry = shard->oldest, *newer; entry != NULL; entry = newer) {
            newer = entry->_newer;
            if (match != NULL && !match(ctx, entry))
                continue;
            take_out(shard, find(shard, &entry->key), &gone);
            count++;
        }
        pthread_mutex_unlock(&shard->lock);
        let_go(gone);
    }
    return count;
}

uint64_t cache_memory_purges(const struct cache_memory *memory)
{
    return atomic_load(&memory->purges);
}

void cache_memory_counts(struct cache_memory *memory, struct cache_memory_counts *counts)
{
    *counts = (struct cache_memory_counts){.entries = 0};
    for (size_t i = 0; i < memory->shard_count; i++) {
        struct shard *shard = &memory->shards[i];
        pthread_mutex_lock(&shard->lock);
        const struct cache_memory_counts *mine = &shard->counts;
        counts->entries += mine->entries;
        counts->bytes += mine->bytes;
        counts->hits += mine->hits;
        counts->misses += mine->misses;
        counts->stores += mine->stores;
        counts->evictions += mine->evictions;
        counts->expirations += mine->expirations;
        counts->refusals += mine->refusals;
        pthread_mutex_unlock(&shard->lock);
    }
}
