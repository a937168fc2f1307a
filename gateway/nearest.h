/* What was probably meant by a name that is not known. Pure; any thread. */
#ifndef WEIR_GATEWAY_NEAREST_H
#define WEIR_GATEWAY_NEAREST_H

#include "base/span.h"

/* The one of `names` with the smallest edit distance to `name`; NULL if none is near. Names over 32 bytes are never
 * near. */
const char *nearest_name(struct span name, const char *const *names, size_t count);

#endif
