/* How much memory the bodies of requests take, over all connections of the process: those that are still coming in, and
 * those that are being answered. Lock-free, any thread. */
#ifndef WEIR_GATEWAY_UPLOADS_H
#define WEIR_GATEWAY_UPLOADS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Zero-initialised. */
struct uploads {
    atomic_size_t _unfinished, _answered; /* bytes */
};

/* What all unfinished requests together, and those of one HTTP/2 connection, may take. An upload is short and its
 * sender unknown, an answer is long and its sender admitted: hence a sixteenth, or twice the largest body. */
static inline size_t uploads_unfinished_max(size_t body_memory, size_t max_body)
{
    return body_memory / 16 > 2 * max_body ? body_memory / 16 : 2 * max_body;
}

static inline size_t uploads_of_connection_max(size_t max_body)
{
    return max_body + max_body / 8 + ((size_t)1 << 20);
}

/* Notes that a connection's unfinished requests take `now` bytes, where *noted were noted last. */
static inline void uploads_note(struct uploads *uploads, size_t *noted, size_t now)
{
    if (*noted != now)
        atomic_fetch_add_explicit(&uploads->_unfinished, now - *noted, memory_order_relaxed);
    *noted = now;
}

static inline size_t uploads_unfinished(const struct uploads *uploads)
{
    return atomic_load_explicit(&uploads->_unfinished, memory_order_relaxed);
}

/* A body of `size` bytes has come whole and will be kept until uploads_answered. False, counting nothing, if that
 * would exceed `max`. */
static inline bool uploads_keep(struct uploads *uploads, size_t size, size_t max)
{
    if (size == 0)
        return true;
    if (atomic_fetch_add_explicit(&uploads->_answered, size, memory_order_relaxed) + size <= max)
        return true;
    atomic_fetch_sub_explicit(&uploads->_answered, size, memory_order_relaxed);
    return false;
}

static inline void uploads_answered(struct uploads *uploads, size_t size)
{
    if (size != 0)
        atomic_fetch_sub_explicit(&uploads->_answered, size, memory_order_relaxed);
}

#endif
