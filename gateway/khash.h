/* Stands in for the header of that name which libh2o's own headers include and Debian's package of libh2o does not
 * carry: the layout of its hash table, and what it takes for those headers to compile. Read only. For http2_bodies.c,
 * http2_guard.c and http2_rules.c. */
#ifndef WEIR_GATEWAY_KHASH_H
#define WEIR_GATEWAY_KHASH_H

#include <stdint.h>

typedef uint32_t khiter_t;

#define khash_t(name) struct kh_##name

/* Two bits for each bucket: 1 stands for deleted, 2 for empty. */
static inline int kh_flags_live(const uint32_t *flags, khiter_t i)
{
    return (flags[i >> 4] >> ((i & 15) << 1) & 3) == 0;
}

#define KHASH_MAP_INIT_INT64(name, type)                                                                               \
    struct kh_##name {                                                                                                 \
        uint32_t n_buckets, size, n_occupied, upper_bound;                                                             \
        uint32_t *flags;                                                                                               \
        uint64_t *keys;                                                                                                \
        type *vals;                                                                                                    \
    };                                                                                                                 \
    static inline khiter_t kh_get_##name(const struct kh_##name *table, uint64_t key)                                  \
    {                                                                                                                  \
        for (khiter_t i = 0; i != table->n_buckets; i++)                                                               \
            if (kh_flags_live(table->flags, i) && table->keys[i] == key)                                               \
                return i;                                                                                              \
        return table->n_buckets;                                                                                       \
    }

#define kh_get(name, table, key) kh_get_##name((table), (key))
#define kh_end(table) ((table)->n_buckets)
#define kh_val(table, i) ((table)->vals[i])

#endif
