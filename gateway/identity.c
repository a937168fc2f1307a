#include "gateway/identity.h"
#include "backends/backend.h"
#include <h2o/memory.h>
#include <stdlib.h>

struct identity *identity_create(const char *name)
{
    struct identity *identity = h2o_mem_alloc(sizeof(*identity));
    *identity = (struct identity){._refs = 1, .name = strdup(name)};
    return identity;
}

struct identity *identity_retain(struct identity *identity)
{
    atomic_fetch_add_explicit(&identity->_refs, 1, memory_order_relaxed);
    return identity;
}

void identity_release(struct identity *identity)
{
    if (identity == NULL || atomic_fetch_sub_explicit(&identity->_refs, 1, memory_order_acq_rel) != 1)
        return;
    free(identity->name);
    free(identity);
}

static bool any_matches(const char *const *patterns, size_t count, struct span text)
{
    for (size_t i = 0; i < count; i++)
        if (glob_match(span_of(patterns[i]), text))
            return true;
    return count == 0;
}

bool identity_may_use_model(const struct identity *identity, struct span model)
{
    return any_matches(identity->models, identity->model_count, model);
}

bool identity_may_use_route(const struct identity *identity, struct span route_path)
{
    return any_matches(identity->routes, identity->route_count, route_path);
}
