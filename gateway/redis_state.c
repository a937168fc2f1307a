#include "gateway/redis_state.h"
#include "base/log.h"
#include "gateway/redis_scripts.h"
#include "gateway/worker.h"

void redis_state_init(struct redis_state *state, const struct redis_url *url, unsigned links)
{
    *state = (struct redis_state){._links = links};
    pthread_mutex_init(&state->_lock, NULL);
    redis_url_print(url, state->_url, sizeof(state->_url));
}

void redis_state_dispose(struct redis_state *state)
{
    pthread_mutex_destroy(&state->_lock);
}

bool redis_state_up(const struct redis_state *state)
{
    return atomic_load_explicit(&state->_up, memory_order_relaxed);
}

static void tell(const struct redis_state *state, enum log_level level, const char *message, const char *why)
{
    struct log_line line;
    log_begin(&line, level, message);
    log_str(&line, "redis", span_of(state->_url));
    log_str(&line, "reason", span_of(why));
    log_end(&line);
}

/* Called by each link when it comes up or goes down. The first to go takes the whole down, the last to come brings it
 * up. */
static void on_state(void *ctx, bool up, const char *why)
{
    struct redis_worker *redis = ctx;
    struct redis_state *state = redis->state;
    pthread_mutex_lock(&state->_lock);
    bool was_down = state->_links_down != 0;
    state->_links_up -= redis->known == REDIS_IS_UP;
    state->_links_down -= redis->known == REDIS_IS_DOWN;
    redis->known = up ? REDIS_IS_UP : REDIS_IS_DOWN;
    state->_links_up += up;
    state->_links_down += !up;
    bool is_up = state->_links_up == state->_links;
    if (state->_links_down != 0 && !was_down && !state->_was_down) {
        state->_was_down = true;
        tell(state, LOG_WARN, "redis is not reachable", why);
    } else if (is_up && !redis_state_up(state)) {
        tell(state, LOG_INFO, state->_was_down ? "redis is reachable again" : "redis is reachable", NULL);
        state->_was_down = false;
    }
    atomic_store_explicit(&state->_up, is_up, memory_order_relaxed);
    pthread_mutex_unlock(&state->_lock);
}

void redis_worker_init(struct redis_worker *redis)
{
    *redis = (struct redis_worker){.link = NULL};
    pthread_mutex_init(&redis->lock, NULL);
}

void redis_worker_dispose(struct redis_worker *redis)
{
    pthread_mutex_destroy(&redis->lock);
}

void redis_worker_start(struct redis_worker *redis, struct redis_state *state, const struct redis_url *url,
                        uint64_t timeout_us, h2o_context_t *ctx, struct deadlines *deadlines)
{
    struct redis_link_settings settings = {.url = url,
                                           .scripts = redis_scripts,
                                           .script_count = REDIS_SCRIPTS,
                                           .timeout_us = timeout_us,
                                           .name = "weir",
                                           .on_state = on_state,
                                           .ctx = redis};
    redis->state = state;
    redis->link = redis_link_create(&settings, ctx, deadlines);
}

void redis_worker_stop(struct redis_worker *redis)
{
    struct redis_link *link = redis->link;
    if (link == NULL)
        return;
    pthread_mutex_lock(&redis->lock);
    redis_link_count(link, &redis->counts);
    redis->link = NULL;
    pthread_mutex_unlock(&redis->lock);
    redis_link_destroy(link);
}

void redis_worker_count(struct redis_worker *redis, struct redis_link_counts *counts)
{
    struct redis_link_counts own;
    pthread_mutex_lock(&redis->lock);
    own = redis->counts;
    if (redis->link != NULL)
        redis_link_count(redis->link, &own);
    pthread_mutex_unlock(&redis->lock);
    counts->commands += own.commands;
    counts->connects += own.connects;
    for (size_t i = 0; i < REDIS_FAILURES; i++)
        counts->failures[i] += own.failures[i];
}

void redis_state_write(const struct redis_state *state, struct worker *const *workers, size_t count, struct strbuf *out)
{
    struct redis_link_counts counts = {0};
    for (size_t i = 0; i < count; i++)
        redis_worker_count(&workers[i]->redis_worker, &counts);
    strbuf_printf(out,
                  "# HELP weir_redis_up Whether every worker has its link to Redis.\n"
                  "# TYPE weir_redis_up gauge\nweir_redis_up %d\n"
                  "# HELP weir_redis_commands_total Commands sent.\n"
                  "# TYPE weir_redis_commands_total counter\nweir_redis_commands_total %llu\n"
                  "# HELP weir_redis_connects_total Connections made.\n"
                  "# TYPE weir_redis_connects_total counter\nweir_redis_connects_total %llu\n"
                  "# HELP weir_redis_failures_total Commands without a reply, and those not sent.\n"
                  "# TYPE weir_redis_failures_total counter\n",
                  redis_state_up(state), (unsigned long long)counts.commands, (unsigned long long)counts.connects);
    for (enum redis_failure why = REDIS_ANSWERED + 1; why < REDIS_FAILURES; why++)
        strbuf_printf(out, "weir_redis_failures_total{reason=\"%s\"} %llu\n", redis_failure_name(why),
                      (unsigned long long)counts.failures[why]);
}
