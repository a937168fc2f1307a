#include "gateway/added_backends.h"
#include "base/log.h"
#include <h2o/memory.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct added_backend {
    struct backend_settings *settings;
    char *json; /* as the administrator wrote it: there may be a key in it */
};

static void added_backend_free(void *owner)
{
    struct added_backend *added = owner;
    config_backend_free(added->settings);
    explicit_bzero(added->json, strlen(added->json));
    free(added->json);
    free(added);
}

/* What the other servers say against a new one; NULL: nothing. */
static const char *find_conflict(struct fleet *fleet, const struct backend_settings *settings)
{
    struct fleet_set *set = fleet_set_get(fleet);
    const char *problem = NULL;
    for (size_t i = 0; i < set->count && problem == NULL; i++) {
        if (strcmp(set->servers[i]->settings->name, settings->name) == 0)
            problem = "There is a backend of this name already.";
        else if (settings->is_default && set->servers[i]->settings->is_default)
            problem = "There is a default backend already.";
    }
    if (problem == NULL && set->count >= FLEET_SERVERS_MAX)
        problem = "There are as many backends as there can be.";
    fleet_set_release(set);
    return problem;
}

struct fleet_server *added_backend_join(struct site *site, struct span json, char member[64], char *error,
                                        size_t error_size, bool *conflict)
{
    struct backend_settings *settings = config_backend_read(site->config, json, member, error, error_size);
    *conflict = false;
    if (settings == NULL)
        return NULL;
    struct added_backend *added = h2o_mem_alloc(sizeof(*added));
    *added = (struct added_backend){.settings = settings, .json = span_dup(json)};
    const char *problem = find_conflict(site->fleet, settings);
    struct fleet_server *server =
        problem == NULL ? fleet_add(site->fleet, settings, NULL, added_backend_free, added) : NULL;
    if (server == NULL) {
        *conflict = true;
        snprintf(error, error_size, "%s", problem != NULL ? problem : "There are too many backends.");
        added_backend_free(added);
    }
    return server;
}

static bool has_name(struct fleet *fleet, const char *name)
{
    struct fleet_set *set = fleet_set_get(fleet);
    bool found = false;
    for (size_t i = 0; i < set->count && !found; i++)
        found = strcmp(set->servers[i]->settings->name, name) == 0;
    fleet_set_release(set);
    return found;
}

/* What was added as the i-th server, or as the name that it is the first address of; NULL: the file has it, or it is
 * leaving. */
static const struct added_backend *added_as(const struct fleet_set *set, size_t i)
{
    const struct added_backend *added = fleet_server_owner(set->servers[i]);
    if (added == NULL || fleet_server_is_leaving(set->servers[i]))
        return NULL;
    for (size_t j = 0; j < i; j++)
        if (fleet_server_owner(set->servers[j]) == added && !fleet_server_is_leaving(set->servers[j]))
            return NULL;
    return added;
}

void added_backends_keep(struct site *site, struct fleet *from)
{
    struct fleet_set *old = fleet_set_get(from);
    for (size_t i = 0; i < old->count; i++) {
        const struct added_backend *added = added_as(old, i);
        char error[1024], member[64];
        bool conflict;
        if (added == NULL)
            continue;
        if (has_name(site->fleet, added->settings->name))
            snprintf(error, sizeof(error), "the file has one of this name");
        else if (added_backend_join(site, span_of(added->json), member, error, sizeof(error), &conflict) != NULL)
            continue;
        log_text(LOG_WARN, "reload: backend %s, which an administrator added, goes: %s", added->settings->name, error);
    }
    fleet_set_release(old);
}
