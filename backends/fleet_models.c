/* What servers say of the models that they serve. */
#include "backends/fleet_own.h"
#include "base/log.h"
#include <stdio.h>

static void log_models(enum log_level level, const struct fleet_server *server, const char *problem)
{
    if (!log_enabled(level))
        return;
    struct log_line line;
    log_begin(&line, level, "models");
    log_str(&line, "backend", span_of(server->name));
    if (server->_names != NULL)
        log_int(&line, "models", (int64_t)model_names_count(server->_names));
    log_str(&line, "problem", span_of(problem));
    log_end(&line);
}

void fleet_discovered(struct fleet_server *server, struct model_names *names)
{
    struct fleet *fleet = server->fleet;
    pthread_mutex_lock(&fleet->lock);
    struct model_names *old = server->_names;
    bool again = server->_names_problem[0] != '\0';
    server->_names_problem[0] = '\0';
    if (old != NULL && model_names_equal(old, names)) {
        if (again)
            log_models(LOG_INFO, server, NULL);
        pthread_mutex_unlock(&fleet->lock);
        model_names_release(names);
        return;
    }
    server->_names = names;
    atomic_fetch_add_explicit(&fleet->version, 1, memory_order_release);
    log_models(LOG_INFO, server, NULL);
    pthread_mutex_unlock(&fleet->lock);
    if (old != NULL)
        model_names_release(old);
}

void fleet_discovery_failed(struct fleet_server *server, const char *problem)
{
    pthread_mutex_lock(&server->fleet->lock);
    /* Once, not with every question. */
    bool known = server->_names_problem[0] != '\0';
    snprintf(server->_names_problem, sizeof(server->_names_problem), "%s", problem);
    if (!known)
        log_models(LOG_WARN, server, problem);
    pthread_mutex_unlock(&server->fleet->lock);
}

struct model_names *fleet_names(struct fleet_server *server, char *problem, size_t problem_size)
{
    pthread_mutex_lock(&server->fleet->lock);
    struct model_names *names = server->_names != NULL ? model_names_retain(server->_names) : NULL;
    if (problem != NULL)
        snprintf(problem, problem_size, "%s", server->_names_problem);
    pthread_mutex_unlock(&server->fleet->lock);
    return names;
}
