/* What the fleet learns about its servers. */
#include "backends/fleet_own.h"
#include "base/clock.h"
#include "base/log.h"

void fleet_publish(struct fleet_server *server)
{
    const struct health *health = &server->_health;
    uint64_t until = health->paused_until_us;
    if (health->state == HEALTH_EJECTED && health->until_us > until)
        until = health->until_us;
    /* A trial keeps the door shut for all others. 1 is long past, and not "open". */
    if ((health->state == HEALTH_TRIAL || health->state == HEALTH_EJECTED) && until == 0)
        until = 1;
    atomic_store_explicit(&server->_state, health->state, memory_order_relaxed);
    atomic_store_explicit(&server->_slow_since_us, health->state == HEALTH_SLOW ? health->slow_since_us : 0,
                          memory_order_relaxed);
    atomic_store_explicit(&server->_failing_until_us, health->failing_until_us, memory_order_relaxed);
    atomic_store_explicit(&server->_closed_until_us, until, memory_order_relaxed);
    atomic_store_explicit(&server->_attention, !health_is_calm(health), memory_order_relaxed);
}

static void log_state(enum log_level level, const struct fleet_server *server, const char *state, const char *reason,
                      uint64_t for_us, const char *problem)
{
    if (!log_enabled(level))
        return;
    struct log_line line;
    log_begin(&line, level, "backend");
    log_str(&line, "backend", span_of(server->name));
    log_str(&line, "state", span_of(state));
    log_str(&line, "reason", span_of(reason));
    if (for_us != 0)
        log_ms(&line, "for_ms", for_us);
    log_str(&line, "problem", span_of(problem));
    log_end(&line);
}

/* Whether another one of them may be chosen. With the lock held, so that two cannot each take the other for standing.
 */
static bool another_stands(const struct fleet_server *server, struct fleet_server *const *others, size_t count,
                           uint64_t now_us)
{
    for (size_t i = 0; i < count; i++)
        if (others[i] != server && fleet_standing(others[i], now_us) == FLEET_OPEN)
            return true;
    return false;
}

/* The log hears of it when it begins. */
static void spare(struct fleet_server *server, enum health_failure failure, const char *reason, const char *problem,
                  uint64_t now_us)
{
    if (health_spare(&server->_health, &server->settings->health, failure, now_us))
        log_state(LOG_WARN, server, "failing", reason, 0, problem);
}

static void eject(struct fleet_server *server, const char *reason, const char *problem, uint64_t now_us)
{
    uint64_t us = health_eject(&server->_health, &server->settings->health, reason, now_us);
    atomic_fetch_add_explicit(&server->ejections, 1, memory_order_relaxed);
    log_state(LOG_WARN, server, "ejected", reason, us, problem);
}

static void recovered(struct fleet_server *server, const char *reason)
{
    atomic_fetch_add_explicit(&server->recoveries, 1, memory_order_relaxed);
    log_state(LOG_INFO, server, health_state_name(server->_health.state), reason, 0, NULL);
}

void fleet_failed(struct fleet_server *server, enum health_failure failure, struct fleet_server *const *others,
                  size_t count, const char *problem, uint64_t now_us)
{
    struct fleet *fleet = server->fleet;
    pthread_mutex_lock(&fleet->lock);
    const char *reason =
        health_failed(&server->_health, &server->settings->health, failure, fleet_begun(server), now_us);
    if (reason != NULL && another_stands(server, others, count, now_us)) {
        eject(server, reason, problem, now_us);
    } else if (reason != NULL) {
        spare(server, failure, "it stays, as the last one that serves the model", problem, now_us);
    }
    fleet_publish(server);
    pthread_mutex_unlock(&fleet->lock);
}

void fleet_answered(struct fleet_server *server, uint64_t latency_us, uint64_t now_us)
{
    if (latency_us != 0) {
        /* Two workers at once may lose a sample: it is an average. */
        uint64_t average = atomic_load_explicit(&server->_latency_us, memory_order_relaxed);
        uint64_t since = atomic_load_explicit(&server->_latency_since_us, memory_order_relaxed);
        atomic_store_explicit(&server->_latency_us, balance_latency_add(average, since, latency_us, now_us),
                              memory_order_relaxed);
        atomic_store_explicit(&server->_latency_since_us, now_us, memory_order_relaxed);
    }
    if (!atomic_load_explicit(&server->_attention, memory_order_relaxed))
        return;
    pthread_mutex_lock(&server->fleet->lock);
    bool failing = server->_health.failing_until_us != 0;
    if (health_answered(&server->_health, &server->settings->health, now_us)) {
        recovered(server, "the trial succeeded");
    } else if (failing && server->_health.failing_until_us == 0) {
        recovered(server, "it answers again");
    }
    fleet_publish(server);
    pthread_mutex_unlock(&server->fleet->lock);
}

void fleet_finished(struct fleet_server *server)
{
    if (!atomic_load_explicit(&server->_attention, memory_order_relaxed))
        return;
    pthread_mutex_lock(&server->fleet->lock);
    if (health_finished(&server->_health))
        recovered(server, "it finishes answers again");
    fleet_publish(server);
    pthread_mutex_unlock(&server->fleet->lock);
}

void fleet_pause(struct fleet_server *server, uint64_t us, uint64_t now_us)
{
    pthread_mutex_lock(&server->fleet->lock);
    bool paused = server->_health.paused_until_us > now_us;
    uint64_t until = health_pause(&server->_health, &server->settings->health, us, now_us);
    if (!paused) {
        atomic_fetch_add_explicit(&server->pauses, 1, memory_order_relaxed);
        log_state(LOG_INFO, server, "paused", us != 0 ? "Retry-After" : "503", until - now_us, NULL);
    }
    fleet_publish(server);
    pthread_mutex_unlock(&server->fleet->lock);
}

bool fleet_begin_trial(struct fleet_server *server, uint64_t now_us)
{
    pthread_mutex_lock(&server->fleet->lock);
    bool begun = health_begin_trial(&server->_health, now_us);
    if (begun)
        log_state(LOG_INFO, server, "trial", server->_health.reason, 0, NULL);
    fleet_publish(server);
    pthread_mutex_unlock(&server->fleet->lock);
    return begun;
}

bool fleet_begin_try(struct fleet_server *server, uint64_t now_us)
{
    pthread_mutex_lock(&server->fleet->lock);
    bool begun = health_begin_try(&server->_health, &server->settings->health, now_us);
    fleet_publish(server);
    pthread_mutex_unlock(&server->fleet->lock);
    return begun;
}

void fleet_trial_void(struct fleet_server *server, uint64_t now_us)
{
    pthread_mutex_lock(&server->fleet->lock);
    health_trial_void(&server->_health, now_us);
    fleet_publish(server);
    pthread_mutex_unlock(&server->fleet->lock);
}

void fleet_settle(struct fleet_server *server, uint64_t now_us)
{
    pthread_mutex_lock(&server->fleet->lock);
    if (health_settle(&server->_health, &server->settings->health, now_us))
        log_state(LOG_INFO, server, "healthy", "the slow start is over", 0, NULL);
    fleet_publish(server);
    pthread_mutex_unlock(&server->fleet->lock);
}

/* Whether the server serves the model (empty: anything). With the lock held. */
static bool serves(const struct fleet_server *server, struct span model)
{
    struct span unused;
    if (server->_names != NULL)
        return model.len == 0 ? model_names_count(server->_names) != 0 : model_names_has(server->_names, model);
    return model.len == 0 || backend_serves(server->settings, model, &unused);
}

/* Whether another server that may be chosen serves the model. With the lock held. */
static bool another_serves(const struct fleet_server *server, struct span model, uint64_t now_us)
{
    const struct fleet_set *set = server->fleet->set;
    for (size_t i = 0; i < set->count; i++)
        if (set->servers[i] != server && fleet_standing(set->servers[i], now_us) == FLEET_OPEN &&
            serves(set->servers[i], model))
            return true;
    return false;
}

/* Whether every model of this server is served by another one too. With the lock held. */
static bool all_models_are_served(const struct fleet_server *server, uint64_t now_us)
{
    const struct backend_settings *settings = server->settings;
    size_t names = server->_names != NULL ? model_names_count(server->_names) : 0;
    for (size_t i = 0; i < names; i++)
        if (!another_serves(server, span_of(model_names_at(server->_names, i)), now_us))
            return false;
    for (size_t i = 0; i < settings->model_count; i++)
        if (!another_serves(server, span_of(settings->models[i].pattern), now_us))
            return false;
    return names + settings->model_count != 0 || another_serves(server, SPAN_NONE, now_us);
}

static void probed_down(struct fleet_server *server, bool again, const char *problem, uint64_t now_us)
{
    struct health *health = &server->_health;
    if (health->state != HEALTH_EJECTED && all_models_are_served(server, now_us))
        eject(server, "it fails probes", problem, now_us);
    else if (!again && health->state != HEALTH_EJECTED)
        spare(server, HEALTH_NO_START, "it fails probes, but is the last one that serves a model", problem, now_us);
    else if (!again)
        log_state(LOG_WARN, server, "ejected", "it fails probes too", 0, problem);
    health_probed_down(health, &server->settings->health, now_us);
}

void fleet_probed(struct fleet_server *server, bool up, const char *problem, uint64_t now_us)
{
    struct health *health = &server->_health;
    pthread_mutex_lock(&server->fleet->lock);
    unsigned before =
        atomic_exchange_explicit(&server->_probed, up ? FLEET_PROBE_UP : FLEET_PROBE_DOWN, memory_order_relaxed);
    if (!up) {
        probed_down(server, before == FLEET_PROBE_DOWN, problem, now_us);
    } else if (health_probed_up(health, &server->settings->health, now_us)) {
        recovered(server, "it answers probes");
    }
    fleet_publish(server);
    pthread_mutex_unlock(&server->fleet->lock);
}

const char *fleet_state(const struct fleet_server *server, uint64_t now_us, uint64_t *until_us)
{
    uint64_t until = atomic_load_explicit(&server->_closed_until_us, memory_order_relaxed);
    unsigned state = atomic_load_explicit(&server->_state, memory_order_relaxed);
    *until_us = until > now_us ? until : 0;
    if (atomic_load_explicit(&server->_draining, memory_order_relaxed))
        return "draining";
    if (state != HEALTH_EJECTED && state != HEALTH_TRIAL && until > now_us)
        return "paused";
    if (fleet_is_avoided(server))
        return "failing";
    return health_state_name((enum health_state)state);
}
