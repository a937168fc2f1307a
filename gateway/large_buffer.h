/* Buffers of libh2o's for requests' bodies, of a kilobyte or more. Fresh memory costs a page fault for every 4 KB,
 * which for a large prompt is more than all the rest, and malloc splits and merges blocks of a few KB each time, so
 * each thread keeps what was used within the last seconds. Buffers that libh2o frees come back by themselves: each
 * belongs to the prototype for its size. Each thread has its own. */
#ifndef WEIR_GATEWAY_LARGE_BUFFER_H
#define WEIR_GATEWAY_LARGE_BUFFER_H

#include <h2o.h>
#include <stdbool.h>

/* Moves the content of *buffer, if it has any, into a buffer that has room for `capacity` bytes or a little more. It
 * may be smaller than large. */
void large_buffer_move(h2o_buffer_t **buffer, size_t capacity);

/* Gives back the memory that has not been wanted since the last call, or all that waits. To be called every second or
 * so, and for all when the thread ends. */
void large_buffers_trim(bool all);

#endif
