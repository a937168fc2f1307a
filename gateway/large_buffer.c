#include "gateway/large_buffer.h"
#include "base/recycle.h"

#define LEAST_BITS 10 /* 1 KB: smaller ones malloc has at hand */
#define OCTAVES 12
#define STEPS 4                     /* sizes in an octave, so that a fifth at most is in vain */
#define LARGE_BITS 15               /* beyond 32 KB all sizes have a maximum together, */
#define KEPT_MAX ((size_t)16 << 20) /* in bytes; more, of other sizes, only until one of another size is wanted */
#define SMALL_MAX ((size_t)1 << 20) /* of each size up to there: many small ones shall not drive out large ones */

struct size_class {
    h2o_buffer_prototype_t prototype;
    size_t unwanted; /* so many have waited all the time since they were trimmed */
};

/* Of no capacity: a buffer is as large as it is asked to be. */
static h2o_buffer_prototype_t exact;

static __thread struct size_class classes[OCTAVES * STEPS];
#define FIRST_LARGE (&classes[(LARGE_BITS - LEAST_BITS) * STEPS])
#define LAST (&classes[OCTAVES * STEPS])

/* The class of the next larger size; NULL: too small or too large for any. */
static struct size_class *find_class(size_t capacity)
{
    if (capacity <= (size_t)1 << LEAST_BITS || capacity > (size_t)1 << (LEAST_BITS + OCTAVES))
        return NULL;
    unsigned octave = 63U - (unsigned)__builtin_clzl(capacity - 1);
    size_t step = (size_t)1 << (octave - 2), nth = (capacity - 1 - ((size_t)1 << octave)) / step;
    struct size_class *class = &classes[(octave - LEAST_BITS) * STEPS + nth];
    if (class->prototype._initial_buf.capacity == 0) {
        size_t size = ((size_t)1 << octave) + (nth + 1) * step;
        class->prototype._initial_buf.capacity = size;
        class->prototype.allocator.max = RECYCLE_MAX != 0 ? (class < FIRST_LARGE ? SMALL_MAX : KEPT_MAX) / size : 0;
    }
    return class;
}

static size_t kept(void)
{
    size_t sum = 0;
    for (const struct size_class *large = FIRST_LARGE; large != LAST; large++)
        sum += large->prototype.allocator.cnt * large->prototype._initial_buf.capacity;
    return sum;
}

static void trim(struct size_class *class, bool all)
{
    h2o_mem_recycle_t *waiting = &class->prototype.allocator;
    for (size_t n = all ? waiting->cnt : class->unwanted; n != 0; n--)
        free(h2o_mem_alloc_recycle(waiting, 0));
    class->unwanted = waiting->cnt;
}

void large_buffer_move(h2o_buffer_t **buffer, size_t capacity)
{
    struct size_class *class = find_class(capacity);
    h2o_buffer_t *larger, *old = *buffer;
    if (class != NULL && class >= FIRST_LARGE && class->prototype.allocator.cnt == 0 && kept() > KEPT_MAX)
        for (struct size_class *other = FIRST_LARGE; other != LAST; other++)
            trim(other, true);
    h2o_buffer_init(&larger, class != NULL ? &class->prototype : &exact);
    char *to = h2o_buffer_reserve(&larger, capacity).base;
    if (class == NULL)
        h2o_buffer_set_prototype(&larger, &h2o_socket_buffer_prototype);
    else if (class->unwanted > class->prototype.allocator.cnt)
        class->unwanted = class->prototype.allocator.cnt;
    if (old->size != 0)
        memcpy(to, old->bytes, old->size);
    larger->size = old->size;
    h2o_buffer_dispose(buffer);
    *buffer = larger;
}

void large_buffers_trim(bool all)
{
    for (struct size_class *each = classes; each != LAST; each++)
        trim(each, all);
}
