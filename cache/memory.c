#include "cache/memory.h"
#include <h2o/memory.h>
#include <pthread.h>
#include <stdlib.h>

#define SHARDS_MAX 16
#define SHARD_MIN ((size_t)4 * 1024 * 1024) /* rather fewer shards than smaller ones */
#define SLOTS_FIRST 64
#define PER_ENTRY (4 * sizeof(void *)) /* of the slots: from 3/8 on they are in use, or there are few */
#define STALE_LOOKS 4                  /* old entries that an insertion looks at, to throw out what has expired */
/* A backend that fails with 200s must not empty a full store, but to read through each answer when it is stored is a
 * sixth of all that a miss costs. So every 16th is, and, once one is bad, so many more. */
#define JUDGED_EACH 16
#define WARY 1000

/* The lock guards everything in the shard, and the links of the entries in it.
 *
 * An entry is in the first slot that was free from the one on that its tag names. Tags stand by themselves: a look-up
 * that finds nothing, and a table that grows, read only them, no entries, which no processor's cache holds any more. */
struct shard {
    pthread_mutex_t lock;
    uint32_t *tags; /* of the slots' entries; 0: the slot is free */
    struct cache_entry **slots;
    size_t slot_count; /* a power of two */
    struct cache_entry *newest, *oldest;
    unsigned wary;            /* so many that would take others' places are judged, each; 0: every JUDGED_EACHth */
    uint64_t looked_until_us; /* none of the STALE_LOOKS oldest expires before; 0: not known */
    struct cache_memory_counts counts;
} __attribute__((aligned(64)));

struct cache_memory {
    size_t shard_count; /* a power of two */
    size_t shard_bytes; /* each one's part of the memory, first slots aside */
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

/* Keys are digests: any of their first bytes are as good as a hash (some have only 16). */
static uint32_t tag_of(const struct cache_key *key)
{
    uint32_t bits;
    memcpy(&bits, key->bytes, sizeof(bits));
    return bits | UINT32_C(1) << 31;
}

/* The slot of the entry with this key, or the free one where it would be. */
static size_t find(const struct shard *shard, const struct cache_key *key)
{
    uint32_t tag = tag_of(key);
    size_t mask = shard->slot_count - 1, at = tag & mask;
    while (shard->tags[at] != 0 && !(shard->tags[at] == tag && cache_key_eq(&shard->slots[at]->key, key)))
        at = (at + 1) & mask;
    return at;
}

/* Empties a slot; entries behind it that would be there, had it been free, move up. */
static void empty_slot(struct shard *shard, size_t hole)
{
    size_t mask = shard->slot_count - 1;
    for (size_t at = (hole + 1) & mask; shard->tags[at] != 0; at = (at + 1) & mask) {
        if (((at - shard->tags[at]) & mask) < ((at - hole) & mask))
            continue;
        shard->tags[hole] = shard->tags[at];
        shard->slots[hole] = shard->slots[at];
        hole = at;
    }
    shard->tags[hole] = 0;
}

static void unlink_age(struct shard *shard, struct cache_entry *entry)
{
    *(entry->_newer != NULL ? &entry->_newer->_older : &shard->newest) = entry->_older;
    *(entry->_older != NULL ? &entry->_older->_newer : &shard->oldest) = entry->_newer;
    shard->looked_until_us = 0;
}

static void link_newest(struct shard *shard, struct cache_entry *entry)
{
    entry->_newer = NULL;
    entry->_older = shard->newest;
    *(shard->newest != NULL ? &shard->newest->_newer : &shard->oldest) = entry;
    shard->newest = entry;
}

/* Takes the entry in a slot out and puts it on the list of those to let go. */
static void take_out(struct shard *shard, size_t slot, struct cache_entry **gone)
{
    struct cache_entry *entry = shard->slots[slot];
    empty_slot(shard, slot);
    unlink_age(shard, entry);
    shard->counts.entries--;
    shard->counts.bytes -= cost(entry);
    entry->_older = *gone;
    *gone = entry;
}

/* Writes the three so that cache_memory_prefetch may read each of them without the lock. */
static void make_slots(struct shard *shard, size_t count)
{
    struct cache_entry **slots = h2o_mem_alloc(count * sizeof(*slots));
    uint32_t *tags = h2o_mem_alloc(count * sizeof(*tags));
    memset(tags, 0, count * sizeof(*tags));
    __atomic_store_n(&shard->slot_count, count, __ATOMIC_RELAXED);
    __atomic_store_n(&shard->slots, slots, __ATOMIC_RELAXED);
    __atomic_store_n(&shard->tags, tags, __ATOMIC_RELAXED);
}

static void grow_slots(struct shard *shard)
{
    struct shard old = *shard;
    make_slots(shard, old.slot_count * 2);
    size_t mask = shard->slot_count - 1;
    for (size_t i = 0; i < old.slot_count; i++) {
        if (old.tags[i] == 0)
            continue;
        size_t at = old.tags[i] & mask;
        while (shard->tags[at] != 0)
            at = (at + 1) & mask;
        shard->tags[at] = old.tags[i];
        shard->slots[at] = old.slots[i];
    }
    free(old.tags);
    free(old.slots);
}

/* Throws out what has expired among the oldest. */
static void drop_stale(struct shard *shard, uint64_t now_us, struct cache_entry **gone)
{
    if (now_us < shard->looked_until_us)
        return;
    struct cache_entry *entry = shard->oldest;
    uint64_t first_us = UINT64_MAX;
    int looks = 0;
    shard->looked_until_us = UINT64_MAX; /* taking one out makes it 0 */
    for (; looks < STALE_LOOKS && entry != NULL; looks++) {
        struct cache_entry *newer = entry->_newer;
        if (entry->_leaves_us <= now_us) {
            take_out(shard, find(shard, &entry->key), gone);
            shard->counts.expirations++;
        } else if (entry->_leaves_us < first_us) {
            first_us = entry->_leaves_us;
        }
        entry = newer;
    }
    if (shard->looked_until_us != 0)
        shard->looked_until_us = looks == STALE_LOOKS ? first_us : 0;
}

/* Makes room for `bytes` more: first what has expired among the oldest, then the oldest. */
static void make_room(struct shard *shard, size_t max, size_t bytes, uint64_t now_us, struct cache_entry **gone)
{
    drop_stale(shard, now_us, gone);
    while (shard->counts.bytes + bytes > max) {
        take_out(shard, find(shard, &shard->oldest->key), gone);
        shard->counts.evictions++;
    }
}

/* Whether an entry of `bytes` for this slot is judged before others go for it. */
static bool must_judge(const struct shard *shard, size_t slot, size_t max, size_t bytes)
{
    bool full = shard->counts.bytes + bytes > max;
    return shard->tags[slot] != 0 || (full && (shard->wary != 0 || shard->counts.stores % JUDGED_EACH == 0));
}

/* ---- the store ---- */

/* By a byte that is not of the tag. */
static struct shard *shard_of(struct cache_memory *memory, const struct cache_key *key)
{
    return &memory->shards[key->bytes[sizeof(uint32_t)] & (memory->shard_count - 1)];
}

static void let_go(struct cache_entry *gone)
{
    while (gone != NULL) {
        struct cache_entry *next = gone->_older;
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
        make_slots(shard, SLOTS_FIRST);
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
        free(memory->shards[i].tags);
        free(memory->shards[i].slots);
    }
    free(memory);
}

size_t cache_memory_max_entry(const struct cache_memory *memory)
{
    return memory->max_entry;
}

void cache_memory_prefetch(struct cache_memory *memory, const struct cache_key *key)
{
    /* Slots may move at any time: a prefetch from a wrong place does nothing. */
    const struct shard *shard = shard_of(memory, key);
    size_t at = tag_of(key) & (__atomic_load_n(&shard->slot_count, __ATOMIC_RELAXED) - 1);
    __builtin_prefetch(__atomic_load_n(&shard->tags, __ATOMIC_RELAXED) + at, 1);
    __builtin_prefetch(__atomic_load_n(&shard->slots, __ATOMIC_RELAXED) + at, 1);
}

/* Takes out an entry that was found, if it is still there, and makes the hit a miss. */
static void drop_bad(struct shard *shard, const struct cache_entry *entry)
{
    struct cache_entry *gone = NULL;
    pthread_mutex_lock(&shard->lock);
    size_t slot = find(shard, &entry->key);
    if (shard->tags[slot] != 0 && shard->slots[slot] == entry)
        take_out(shard, slot, &gone);
    shard->counts.hits--;
    shard->counts.misses++;
    shard->wary = WARY;
    pthread_mutex_unlock(&shard->lock);
    let_go(gone);
}

struct cache_entry *cache_memory_lookup(struct cache_memory *memory, const struct cache_key *key, uint64_t now_us)
{
    struct shard *shard = shard_of(memory, key);
    struct cache_entry *gone = NULL;
    pthread_mutex_lock(&shard->lock);
    size_t slot = find(shard, key);
    struct cache_entry *entry = shard->tags[slot] != 0 ? shard->slots[slot] : NULL;
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
    if (entry == NULL || cache_entry_judge(entry) == CACHE_GOOD)
        return entry;
    drop_bad(shard, entry);
    cache_entry_release(entry);
    return NULL;
}

bool cache_memory_insert(struct cache_memory *memory, struct cache_entry *entry, uint64_t born, uint64_t now_us)
{
    struct shard *shard = shard_of(memory, &entry->key);
    struct cache_entry *gone = NULL;
    size_t bytes = cost(entry);
    entry->_leaves_us = entry->expires_us;
    if (memory->ttl_us != 0 && entry->_leaves_us > now_us + memory->ttl_us)
        entry->_leaves_us = now_us + memory->ttl_us;
    pthread_mutex_lock(&shard->lock);
    size_t slot = find(shard, &entry->key);
    if (!cache_entry_is_judged(entry) && must_judge(shard, slot, memory->shard_bytes, bytes)) {
        pthread_mutex_unlock(&shard->lock);
        bool good = cache_entry_judge(entry) == CACHE_GOOD;
        pthread_mutex_lock(&shard->lock);
        if (!good) {
            shard->wary = WARY;
            pthread_mutex_unlock(&shard->lock);
            cache_entry_release(entry);
            return false;
        }
        shard->wary -= shard->wary != 0;
        slot = find(shard, &entry->key);
    }
    bool fits = bytes <= memory->max_entry && entry->expires_us > now_us && born == cache_memory_purges(memory);
    if (fits) {
        if (shard->tags[slot] != 0)
            take_out(shard, slot, &gone);
        make_room(shard, memory->shard_bytes, bytes, now_us, &gone);
        bool full = shard->counts.entries >= shard->slot_count / 4 * 3;
        if (full)
            grow_slots(shard);
        if (full || gone != NULL) /* slots have moved */
            slot = find(shard, &entry->key);
        shard->tags[slot] = tag_of(&entry->key);
        shard->slots[slot] = entry;
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
    size_t slot = find(shard, key);
    if (shard->tags[slot] != 0)
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
