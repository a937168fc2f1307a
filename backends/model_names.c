#include "backends/model_names.h"
#include "base/json_scan.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct model_names {
    atomic_uint refs;
    size_t count;
    char **names; /* sorted */
};

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort(struct model_names *names)
{
    size_t kept = 0;
    qsort(names->names, names->count, sizeof(names->names[0]), compare);
    for (size_t i = 0; i < names->count; i++) {
        if (kept != 0 && strcmp(names->names[kept - 1], names->names[i]) == 0)
            free(names->names[i]);
        else
            names->names[kept++] = names->names[i];
    }
    names->count = kept;
}

/* Adds the name of one model. False if `element` is no model. */
static bool add(struct model_names *names, const struct json_value *element)
{
    static const struct span id = SPAN("id");
    struct json_value value, root;
    struct json_error error;
    char name[MODEL_NAMES_LEN_MAX];
    if (!json_scan(element->raw, &id, 1, &value, &root, &error) || value.type != JSON_STRING)
        return false;
    long len = json_string_decode(value.raw, name, sizeof(name));
    if (len > 0 && memchr(name, '\0', (size_t)len) == NULL)
        names->names[names->count++] = span_dup((struct span){name, (size_t)len});
    return true;
}

struct model_names *model_names_parse(struct span answer, const char **problem)
{
    static const struct span member = SPAN("data");
    struct json_value data, root, element;
    struct json_error error;
    size_t cursor = 0;
    bool ok = true;
    *problem = NULL;
    if (answer.len > MODEL_NAMES_BYTES_MAX)
        *problem = "its list of models is longer than 1 MiB";
    else if (!json_scan(answer, &member, 1, &data, &root, &error))
        *problem = "its list of models is not JSON";
    else if (data.type != JSON_ARRAY && data.type != JSON_NULL)
        *problem = "its list of models has no \"data\" with a list";
    else if (data.count > MODEL_NAMES_MAX)
        *problem = "its list of models has more than 10000 entries";
    if (*problem != NULL)
        return NULL;
    struct model_names *names = malloc(sizeof(*names));
    if (names == NULL)
        abort();
    *names = (struct model_names){.refs = 1};
    names->names = malloc((data.count + 1) * sizeof(names->names[0]));
    if (names->names == NULL)
        abort();
    while (ok && data.type == JSON_ARRAY && json_array_next(&data, &cursor, &element))
        ok = add(names, &element);
    if (!ok) {
        *problem = "its list of models has an entry without an \"id\"";
        model_names_release(names);
        return NULL;
    }
    sort(names);
    return names;
}

struct model_names *model_names_retain(struct model_names *names)
{
    atomic_fetch_add_explicit(&names->refs, 1, memory_order_relaxed);
    return names;
}

void model_names_release(struct model_names *names)
{
    if (atomic_fetch_sub_explicit(&names->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < names->count; i++)
        free(names->names[i]);
    free(names->names);
    free(names);
}

size_t model_names_count(const struct model_names *names)
{
    return names->count;
}

const char *model_names_at(const struct model_names *names, size_t i)
{
    return names->names[i];
}

bool model_names_has(const struct model_names *names, struct span name)
{
    size_t from = 0, to = names->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        struct span other = span_of(names->names[middle]);
        size_t both = other.len < name.len ? other.len : name.len;
        int order = both != 0 ? memcmp(other.base, name.base, both) : 0;
        if (order == 0 && other.len == name.len)
            return true;
        if (order < 0 || (order == 0 && other.len < name.len))
            from = middle + 1;
        else
            to = middle;
    }
    return false;
}

bool model_names_equal(const struct model_names *a, const struct model_names *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->names[i], b->names[i]) != 0)
            return false;
    return true;
}
