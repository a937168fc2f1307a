/* A list of models in OpenAI's form, merged from several: the first to name an id wins. One thread; not for hot paths.
 */
#ifndef WEIR_GATEWAY_MODELS_LIST_H
#define WEIR_GATEWAY_MODELS_LIST_H

#include "base/span.h"

struct models_list;

/* An empty list; models_list_finish frees it. */
struct models_list *models_list_create(void);

/* Adds a model of which only the name is known. */
void models_list_add(struct models_list *list, const char *id);

/* Adds, unchanged, the entries of a server's answer to GET /v1/models that `wanted` accepts. What is not such an answer
 * adds nothing. */
void models_list_merge(struct models_list *list, struct span answer, bool (*wanted)(void *ctx, struct span id),
                       void *ctx);

/* The list as JSON, to be freed by the caller; frees the list itself. */
char *models_list_finish(struct models_list *list);

#endif
