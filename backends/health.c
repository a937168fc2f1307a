#include "backends/health.h"
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000)
#define SLOW_START_MIN (HEALTH_FULL / 10)
#define NUMBERS (offsetof(struct health_settings, probe_path) / sizeof(uint64_t))

void health_settings_init(struct health_settings *settings)
{
    *settings = (struct health_settings){
        .failures = 3,
        .error_rate = 50,
        .window_us = 10 * SECOND,
        .min_requests = 20,
        .ejection_us = 5 * SECOND,
        .ejection_max_us = 120 * SECOND,
        .pause_us = 1 * SECOND,
        .pause_max_us = 60 * SECOND,
        .slow_start_us = 10 * SECOND,
        .probe_interval_us = 10 * SECOND,
        .probe_timeout_us = 2 * SECOND,
        .probe_rise = 2,
        .probe_fall = 3,
    };
}

void health_settings_init_inherit(struct health_settings *settings)
{
    uint64_t *field = (uint64_t *)settings;
    for (size_t i = 0; i < NUMBERS; i++)
        field[i] = HEALTH_INHERIT;
    settings->probe_path = NULL;
}

void health_settings_inherit(struct health_settings *own, const struct health_settings *common)
{
    uint64_t *field = (uint64_t *)own;
    const uint64_t *other = (const uint64_t *)common;
    for (size_t i = 0; i < NUMBERS; i++)
        if (field[i] == HEALTH_INHERIT)
            field[i] = other[i];
    if (own->probe_path == NULL && common->probe_path != NULL)
        own->probe_path = strdup(common->probe_path);
}

bool health_settings_equal(const struct health_settings *a, const struct health_settings *b)
{
    const char *path = a->probe_path != NULL ? a->probe_path : "", *other = b->probe_path != NULL ? b->probe_path : "";
    return memcmp(a, b, NUMBERS * sizeof(uint64_t)) == 0 && strcmp(path, other) == 0;
}

void health_settings_dispose(struct health_settings *settings)
{
    free(settings->probe_path);
    settings->probe_path = NULL;
}

void health_init(struct health *health)
{
    *health = (struct health){.state = HEALTH_HEALTHY};
}

const char *health_state_name(enum health_state state)
{
    static const char *const names[HEALTH_STATES] = {
        [HEALTH_HEALTHY] = "healthy",
        [HEALTH_EJECTED] = "ejected",
        [HEALTH_TRIAL] = "trial",
        [HEALTH_SLOW] = "slow_start",
    };
    return names[state];
}

static void set_state(struct health *health, enum health_state state)
{
    static const unsigned from[HEALTH_STATES] = {
        [HEALTH_HEALTHY] = 1 << HEALTH_SLOW | 1 << HEALTH_TRIAL | 1 << HEALTH_EJECTED,
        [HEALTH_EJECTED] = 1 << HEALTH_HEALTHY | 1 << HEALTH_SLOW | 1 << HEALTH_TRIAL | 1 << HEALTH_EJECTED,
        [HEALTH_TRIAL] = 1 << HEALTH_EJECTED,
        [HEALTH_SLOW] = 1 << HEALTH_TRIAL | 1 << HEALTH_EJECTED,
    };
    (void)from;
    assert((from[state] >> health->state & 1) != 0);
    health->state = state;
}

static void forget_failures(struct health *health)
{
    health->_no_starts = health->_deaths = health->_window_failures = 0;
    health->_window_from_us = 0;
}

const char *health_failed(struct health *health, const struct health_settings *settings, enum health_failure failure,
                          uint32_t begun, uint64_t now_us)
{
    if (health->state == HEALTH_TRIAL)
        return failure == HEALTH_NO_START ? "the trial failed" : NULL;
    if (health->state == HEALTH_EJECTED)
        return NULL; /* a request from before */
    if (health->_window_from_us == 0 || now_us >= health->_window_from_us + settings->window_us) {
        health->_window_from_us = now_us;
        health->_window_begun = (uint32_t)(begun - 1);
        health->_window_failures = 0;
    }
    health->_window_failures++;
    unsigned in_a_row = failure == HEALTH_NO_START ? ++health->_no_starts : ++health->_deaths;
    if (settings->failures != 0 && in_a_row >= settings->failures)
        return failure == HEALTH_NO_START ? "failures in a row" : "streams broken off in a row";
    /* Requests that began before the window may fail in it. */
    uint32_t requests = begun - (uint32_t)health->_window_begun;
    if (requests < health->_window_failures)
        requests = health->_window_failures;
    if (settings->error_rate != 0 && requests >= settings->min_requests &&
        (uint64_t)health->_window_failures * 100 >= settings->error_rate * requests)
        return "error rate";
    return NULL;
}

/* For how long, the time after the `in_a_row`-th. */
static uint64_t ejection_us(const struct health_settings *settings, unsigned in_a_row)
{
    uint64_t us = settings->ejection_us;
    for (unsigned i = 0; i < in_a_row && us < settings->ejection_max_us; i++)
        us *= 2;
    return us < settings->ejection_max_us ? us : settings->ejection_max_us;
}

static void stop_failing(struct health *health)
{
    health->failing_until_us = 0;
    health->spared_in_a_row = health->_spared_for = 0;
}

/* It has done what it is failing for. True if that was all. */
static bool make_good(struct health *health, enum health_failure failure)
{
    health->_spared_for &= ~(1U << failure);
    if (health->failing_until_us == 0 || health->_spared_for != 0 || health->_probes_fail)
        return false;
    stop_failing(health);
    return true;
}

uint64_t health_eject(struct health *health, const struct health_settings *settings, const char *reason,
                      uint64_t now_us)
{
    uint64_t us = ejection_us(settings, health->in_a_row);
    set_state(health, HEALTH_EJECTED);
    forget_failures(health);
    stop_failing(health);
    health->in_a_row++;
    health->reason = reason;
    health->until_us = now_us + us;
    return us;
}

bool health_spare(struct health *health, const struct health_settings *settings, enum health_failure failure,
                  uint64_t now_us)
{
    bool first = health->failing_until_us == 0;
    uint64_t until = now_us + ejection_us(settings, health->spared_in_a_row++);
    forget_failures(health);
    health->_spared_for |= 1U << failure;
    if (health->state == HEALTH_TRIAL)
        set_state(health, HEALTH_HEALTHY);
    if (until > health->failing_until_us)
        health->failing_until_us = until;
    return first;
}

bool health_begin_try(struct health *health, const struct health_settings *settings, uint64_t now_us)
{
    if (health->failing_until_us == 0 || now_us < health->failing_until_us)
        return false;
    health->failing_until_us = now_us + ejection_us(settings, health->spared_in_a_row);
    return true;
}

/* Back from an ejection. */
static void recover(struct health *health, const struct health_settings *settings, uint64_t now_us)
{
    set_state(health, HEALTH_SLOW);
    forget_failures(health);
    health->slow_since_us = now_us;
    health_settle(health, settings, now_us);
}

bool health_answered(struct health *health, const struct health_settings *settings, uint64_t now_us)
{
    health->_no_starts = 0;
    make_good(health, HEALTH_NO_START);
    if (health->state != HEALTH_TRIAL)
        return false;
    recover(health, settings, now_us);
    return true;
}

bool health_finished(struct health *health)
{
    health->_deaths = 0;
    return make_good(health, HEALTH_DEATH);
}

uint64_t health_pause(struct health *health, const struct health_settings *settings, uint64_t us, uint64_t now_us)
{
    if (us == 0)
        us = settings->pause_us;
    if (us > settings->pause_max_us)
        us = settings->pause_max_us;
    if (now_us + us > health->paused_until_us)
        health->paused_until_us = now_us + us;
    return health->paused_until_us;
}

bool health_begin_trial(struct health *health, uint64_t now_us)
{
    if (health->state != HEALTH_EJECTED || now_us < health->until_us || now_us < health->paused_until_us)
        return false;
    set_state(health, HEALTH_TRIAL);
    return true;
}

void health_trial_void(struct health *health, uint64_t now_us)
{
    if (health->state != HEALTH_TRIAL)
        return;
    set_state(health, HEALTH_EJECTED);
    health->until_us = now_us;
}

bool health_settle(struct health *health, const struct health_settings *settings, uint64_t now_us)
{
    if (health->state != HEALTH_SLOW || now_us < health->slow_since_us + settings->slow_start_us)
        return false;
    set_state(health, HEALTH_HEALTHY);
    health->in_a_row = 0;
    return true;
}

bool health_probed_up(struct health *health, const struct health_settings *settings, uint64_t now_us)
{
    bool failing = health->failing_until_us != 0;
    health->_probes_fail = false;
    stop_failing(health);
    if (health->state != HEALTH_EJECTED)
        return failing;
    recover(health, settings, now_us);
    return true;
}

void health_probed_down(struct health *health, const struct health_settings *settings, uint64_t now_us)
{
    uint64_t us = 2 * settings->probe_interval_us + settings->probe_timeout_us;
    if (health->state == HEALTH_EJECTED && health->until_us < now_us + us)
        health->until_us = now_us + us;
    if (health->failing_until_us != 0 && health->failing_until_us < now_us + us)
        health->failing_until_us = now_us + us;
    health->_probes_fail = true;
}

bool health_is_calm(const struct health *health)
{
    return health->state == HEALTH_HEALTHY && health->failing_until_us == 0 && health->_no_starts == 0 &&
           health->_deaths == 0;
}

unsigned health_share(uint64_t slow_since_us, uint64_t slow_start_us, uint64_t now_us)
{
    uint64_t passed = now_us > slow_since_us ? now_us - slow_since_us : 0;
    if (passed >= slow_start_us)
        return HEALTH_FULL;
    uint64_t share = passed * HEALTH_FULL / slow_start_us;
    return share < SLOW_START_MIN ? SLOW_START_MIN : (unsigned)share;
}
