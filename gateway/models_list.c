#include "gateway/models_list.h"
#include <jansson.h>
#include <stdlib.h>

struct models_list {
    json_t *models;
    json_t *ids; /* those that are in it, as an object's keys */
};

struct models_list *models_list_create(void)
{
    struct models_list *list = malloc(sizeof(*list));
    if (list == NULL)
        abort();
    *list = (struct models_list){json_array(), json_object()};
    return list;
}

/* Takes over `model`. */
static void add(struct models_list *list, const char *id, json_t *model)
{
    if (json_object_get(list->ids, id) == NULL) {
        json_object_set_new(list->ids, id, json_true());
        json_array_append(list->models, model);
    }
    json_decref(model);
}

void models_list_add(struct models_list *list, const char *id)
{
    json_t *model = json_pack("{s:s, s:s, s:i, s:s}", "id", id, "object", "model", "created", 0, "owned_by", "weir");
    if (model != NULL)
        add(list, id, model);
}

void models_list_merge(struct models_list *list, struct span answer, bool (*wanted)(void *ctx, struct span id),
                       void *ctx)
{
    json_t *whole = answer.len != 0 ? json_loadb(answer.base, answer.len, 0, NULL) : NULL;
    json_t *model;
    size_t i;
    json_array_foreach(json_object_get(whole, "data"), i, model)
    {
        const char *id = json_string_value(json_object_get(model, "id"));
        if (id != NULL && wanted(ctx, span_of(id)))
            add(list, id, json_incref(model));
    }
    json_decref(whole);
}

char *models_list_finish(struct models_list *list)
{
    json_t *whole = json_pack("{s:s, s:o}", "object", "list", "data", list->models);
    char *text = json_dumps(whole, JSON_COMPACT);
    if (text == NULL)
        abort();
    json_decref(whole);
    json_decref(list->ids);
    free(list);
    return text;
}
