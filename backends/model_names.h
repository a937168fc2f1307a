/* The models that a server says it serves: a set that is made once and never changes. Counted; all threads may read it.
 */
#ifndef WEIR_BACKENDS_MODEL_NAMES_H
#define WEIR_BACKENDS_MODEL_NAMES_H

#include "base/span.h"
#include <stdbool.h>

#define MODEL_NAMES_BYTES_MAX ((size_t)1024 * 1024) /* of an answer */
#define MODEL_NAMES_MAX 10000
#define MODEL_NAMES_LEN_MAX 256 /* of a name; a longer one no request can name, so it is left out */

struct model_names;

/* Reads an answer to GET /v1/models: {"data": [{"id": NAME, …}, …]}, where null stands for an empty list. NULL, with
 * static text in *problem, if it is none. */
struct model_names *model_names_parse(struct span answer, const char **problem);

struct model_names *model_names_retain(struct model_names *names);
void model_names_release(struct model_names *names);

/* In the order of bytes, none twice. */
size_t model_names_count(const struct model_names *names);
const char *model_names_at(const struct model_names *names, size_t i);

bool model_names_has(const struct model_names *names, struct span name);
bool model_names_equal(const struct model_names *a, const struct model_names *b);

#endif
