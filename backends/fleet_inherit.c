/* What one fleet learns from the one before it. */
#include "backends/fleet_own.h"
#include <stdio.h>
#include <stdlib.h>

/* Writes down what is known of a server. */
static void remember(struct fleet_server *server, struct fleet_memory *memory, uint64_t now_us)
{
    *memory = (struct fleet_memory){
        .name = span_dup(span_of(server->name)),
        .begun = fleet_begun(server),
        .latency_us = atomic_load_explicit(&server->_latency_us, memory_order_relaxed),
        .latency_since_us = atomic_load_explicit(&server->_latency_since_us, memory_order_relaxed),
        .ejections = atomic_load_explicit(&server->ejections, memory_order_relaxed),
        .pauses = atomic_load_explicit(&server->pauses, memory_order_relaxed),
        .recoveries = atomic_load_explicit(&server->recoveries, memory_order_relaxed),
        .probed = atomic_load_explicit(&server->_probed, memory_order_relaxed),
        .draining = atomic_load_explicit(&server->_draining, memory_order_relaxed),
    };
    memory->names = fleet_names(server, memory->names_problem, sizeof(memory->names_problem));
    pthread_mutex_lock(&server->fleet->lock);
    memory->health = server->_health;
    pthread_mutex_unlock(&server->fleet->lock);
    /* The request that is its trial tells the fleet that began it. */
    health_trial_void(&memory->health, now_us);
}

static void forget(struct fleet_memory *memory)
{
    if (memory->names != NULL)
        model_names_release(memory->names);
    free(memory->name);
    *memory = (struct fleet_memory){0};
}

/* With the lock held. The health's error rate counts from numbers of requests begun, so these go along. */
static void recall(struct fleet_server *server, struct fleet_memory *memory)
{
    atomic_store_explicit(&server->_load, (unsigned long long)memory->begun << 32, memory_order_relaxed);
    atomic_store_explicit(&server->_latency_us, memory->latency_us, memory_order_relaxed);
    atomic_store_explicit(&server->_latency_since_us, memory->latency_since_us, memory_order_relaxed);
    atomic_store_explicit(&server->ejections, memory->ejections, memory_order_relaxed);
    atomic_store_explicit(&server->pauses, memory->pauses, memory_order_relaxed);
    atomic_store_explicit(&server->recoveries, memory->recoveries, memory_order_relaxed);
    atomic_store_explicit(&server->_probed, memory->probed, memory_order_relaxed);
    atomic_store_explicit(&server->_draining, memory->draining, memory_order_relaxed);
    server->_health = memory->health;
    if (memory->names != NULL && server->settings->discover_us != 0) {
        if (server->_names != NULL)
            model_names_release(server->_names);
        server->_names = model_names_retain(memory->names);
        snprintf(server->_names_problem, sizeof(server->_names_problem), "%s", memory->names_problem);
    }
    fleet_publish(server);
    forget(memory);
}

void fleet_recall(struct fleet_server *server)
{
    struct fleet *fleet = server->fleet;
    pthread_mutex_lock(&fleet->lock);
    for (size_t i = 0; i < fleet->memory_count; i++) {
        struct fleet_memory *memory = &fleet->memories[i];
        if (memory->name == NULL || memory->root_id != server->root->id || strcmp(memory->name, server->name) != 0)
            continue;
        recall(server, memory);
        break;
    }
    pthread_mutex_unlock(&fleet->lock);
}

void fleet_remember_draining(struct fleet *fleet, uint32_t root_id, bool draining)
{
    for (size_t i = 0; i < fleet->memory_count; i++)
        if (fleet->memories[i].root_id == root_id)
            fleet->memories[i].draining = draining;
}

void fleet_forget(struct fleet *fleet)
{
    for (size_t i = 0; i < fleet->memory_count; i++)
        forget(&fleet->memories[i]);
    free(fleet->memories);
    fleet->memories = NULL;
    fleet->memory_count = 0;
}

/* What `from` had not recalled yet when it was replaced itself goes on to the next. */
static void pass_on(struct fleet *fleet, uint32_t root_id, struct fleet *from, uint32_t old_root_id)
{
    pthread_mutex_lock(&from->lock);
    for (size_t i = 0; i < from->memory_count; i++) {
        struct fleet_memory *memory = &from->memories[i];
        if (memory->name == NULL || memory->root_id != old_root_id)
            continue;
        fleet->memories[fleet->memory_count] = *memory;
        fleet->memories[fleet->memory_count++].root_id = root_id;
        *memory = (struct fleet_memory){0};
    }
    pthread_mutex_unlock(&from->lock);
}

/* A server that the configuration describes, and what the other fleet has for it: the same, or one for each address of
 * its name. Those come once the name has been looked up; until then what is true of all of them is true of it. */
static void inherit(struct fleet *fleet, struct fleet_server *server, struct fleet *from, const struct fleet_set *old,
                    uint64_t now_us)
{
    size_t known = 0, draining = 0;
    for (size_t i = 0; i < old->count; i++) {
        struct fleet_server *other = old->servers[i];
        struct fleet_memory memory;
        if (fleet_server_is_leaving(other) || strcmp(server->settings->name, other->settings->name) != 0)
            continue;
        /* What was ordered for a name holds whatever it is described as; what was seen of a server does not. */
        known++;
        draining += atomic_load_explicit(&other->_draining, memory_order_relaxed);
        if (!backend_settings_alike(server->settings, other->settings))
            continue;
        remember(other, &memory, now_us);
        if (other->root == NULL)
            pass_on(fleet, server->id, from, other->id);
        pthread_mutex_lock(&fleet->lock);
        if (strcmp(other->name, server->name) == 0) {
            recall(server, &memory);
        } else {
            if (server->_names == NULL && memory.names != NULL && server->settings->discover_us != 0)
                server->_names = model_names_retain(memory.names);
            memory.root_id = server->id;
            fleet->memories[fleet->memory_count++] = memory;
        }
        pthread_mutex_unlock(&fleet->lock);
    }
    atomic_store_explicit(&server->_draining, known != 0 && draining == known, memory_order_relaxed);
}

void fleet_inherit(struct fleet *fleet, struct fleet *from, uint64_t now_us)
{
    struct fleet_set *set = fleet_set_get(fleet), *old = fleet_set_get(from);
    fleet->memories = calloc(old->count + from->memory_count + 1, sizeof(fleet->memories[0]));
    if (fleet->memories == NULL)
        abort();
    for (size_t i = 0; i < set->count; i++)
        inherit(fleet, set->servers[i], from, old, now_us);
    fleet_set_release(old);
    fleet_set_release(set);
}
