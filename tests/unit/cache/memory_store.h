/* A memory store and keys for it, for the tests of cache/memory. */
#ifndef WEIR_TESTS_MEMORY_STORE_H
#define WEIR_TESTS_MEMORY_STORE_H

#include "cache/memory.h"
#include "run_suite.h"

#define MINUTE ((uint64_t)60 * 1000000)

static struct cache_memory *memory;
static struct cache_memory_counts counts;

static struct cache_key key_of(unsigned n)
{
    struct cache_key key;
    uint64_t bits = (n + 1) * 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < CACHE_KEY_LEN; i++, bits = bits * 6364136223846793005u + 1442695040888963407u)
        key.bytes[i] = (unsigned char)(bits >> 56);
    return key;
}

static void open_store(size_t max_bytes, size_t max_entry)
{
    memory = cache_memory_create(&(struct cache_memory_settings){.max_bytes = max_bytes, .max_entry = max_entry});
}

static bool is_there(unsigned n, uint64_t now_us)
{
    struct cache_key key = key_of(n);
    struct cache_entry *entry = cache_memory_lookup(memory, &key, now_us);
    if (entry != NULL)
        cache_entry_release(entry);
    return entry != NULL;
}

#endif
