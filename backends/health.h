/* Whether a server may be given requests, from what became of those that it had. Pure: no I/O, no clock, no lock; the
 * fleet calls it with its lock held.
 *
 *            failures in a row, error rate, probes
 *   HEALTHY ────────────────────────────────────────▶ EJECTED ◀────────┐
 *      ▲                                                │ time is up   │ the trial fails (longer each time)
 *      │ slow start is over                             ▼              │
 *     SLOW ◀──────────── a first token ────────────── TRIAL ───────────┘
 *
 * One that deserves to be ejected but is the last that serves a model is spared: it is failing, which means that it
 * still gets the requests that nobody else can serve, and of the others one now and then, to see whether it does what
 * it failed to do: begin an answer, or bring one to its end. A client's error (4xx) begins like any answer, since what
 * refuses a request is there and reads it, but that it ends shows nothing: where answers break off, errors do not.
 *
 * Besides, a server that asks for it (Retry-After, 503) is paused: nothing is wrong with it, it has enough to do. What
 * a client did wrong (4xx) is never told to this module. */
#ifndef WEIR_BACKENDS_HEALTH_H
#define WEIR_BACKENDS_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

/* All of one type, so that what a backend leaves out (HEALTH_INHERIT) can be filled in from the common settings. */
struct health_settings {
    uint64_t failures;        /* in a row that eject; 0: never; default 3 */
    uint64_t error_rate;      /* percent of a window's requests that ejects; 0: never; default 50 */
    uint64_t window_us;       /* for the rate; default 10 s */
    uint64_t min_requests;    /* in a window, before the rate counts; default 20 */
    uint64_t ejection_us;     /* the first time; doubles each time in a row; default 5 s */
    uint64_t ejection_max_us; /* default 2 min */
    uint64_t pause_us;        /* after a 503 without Retry-After; default 1 s */
    uint64_t pause_max_us;    /* of what a Retry-After may ask for; default 1 min */
    uint64_t slow_start_us;   /* from a tenth of the weight to all of it; 0: at once; default 10 s */
    /* Active probes; see probe.h. */
    uint64_t probe_interval_us; /* default 10 s */
    uint64_t probe_timeout_us;  /* default 2 s */
    uint64_t probe_rise;        /* successes in a row that bring an ejected server back; default 2 */
    uint64_t probe_fall;        /* failures in a row that eject; default 3 */
    /* Behind all numbers. */
    char *probe_path; /* owned; "": no probes; NULL: left open, which is none in the common settings */
};
#define HEALTH_INHERIT UINT64_MAX

enum health_state { HEALTH_HEALTHY, HEALTH_EJECTED, HEALTH_TRIAL, HEALTH_SLOW, HEALTH_STATES };

/* What can go wrong with a request. */
enum health_failure {
    HEALTH_NO_START, /* no connection, reset, 5xx, nothing in time, nothing readable: before the first token */
    HEALTH_DEATH,    /* the answer broke off after it */
};

struct health {
    enum health_state state;
    uint64_t until_us;        /* EJECTED: when a trial may be made */
    uint64_t paused_until_us; /* 0: not paused */
    uint64_t slow_since_us;   /* SLOW */
    uint64_t
        failing_until_us; /* HEALTHY, SLOW: spared, and not to be tried by who has a choice before; 0: not failing */
    const char *reason;   /* static text: of the last ejection; NULL: none yet */
    unsigned in_a_row;    /* ejections without a proper recovery */
    unsigned spared_in_a_row; /* the same of being spared */
    unsigned _spared_for;     /* 1 << enum health_failure: what it has to do better */
    bool _probes_fail;
    unsigned _no_starts, _deaths;
    uint64_t _window_from_us, _window_begun;
    unsigned _window_failures;
};

/* Sets every default; for a backend's own settings everything is HEALTH_INHERIT. */
void health_settings_init(struct health_settings *settings);
void health_settings_init_inherit(struct health_settings *settings);

/* Frees the path. */
void health_settings_dispose(struct health_settings *settings);

/* Fills in what `own` leaves open. */
void health_settings_inherit(struct health_settings *own, const struct health_settings *common);

bool health_settings_equal(const struct health_settings *a, const struct health_settings *b);

/* A server that nothing is known about is healthy. */
void health_init(struct health *health);

/* "healthy", "ejected", "trial", "slow_start". */
const char *health_state_name(enum health_state state);

/* A request failed. `begun` counts the requests that the server has been given so far, modulo 2^32. Returns why it
 * should be ejected, as static text, or NULL if it should not. The caller then calls health_eject, or health_spare if
 * it is the last one standing. A failed trial is always a reason. */
const char *health_failed(struct health *health, const struct health_settings *settings, enum health_failure failure,
                          uint32_t begun, uint64_t now_us);

/* Ejects; returns for how long, in microseconds. */
uint64_t health_eject(struct health *health, const struct health_settings *settings, const char *reason,
                      uint64_t now_us);

/* It stays, and is counted anew, but is failing, and left alone for as long as it would have been ejected. It is
 * failing until it does what `failure` says it did not: a server whose answers all break off begins each of them. A
 * failed trial of the last server standing makes it serve again. True if it was not failing before. */
bool health_spare(struct health *health, const struct health_settings *settings, enum health_failure failure,
                  uint64_t now_us);

/* Lets one request that could go elsewhere try a failing server: the caller's. False if it is not time yet. */
bool health_begin_try(struct health *health, const struct health_settings *settings, uint64_t now_us);

/* A request has its first token, or the whole head of an answer. True if the state changed (the trial succeeded). One
 * that is failing for answers that did not begin is so no longer, but while it fails probes it stays so. The trial's
 * request need not come to its end, which may be minutes off: if it breaks off it counts like any other. */
bool health_answered(struct health *health, const struct health_settings *settings, uint64_t now_us);

/* A request's answer is complete. True if the server was failing for answers that broke off, and is so no longer. */
bool health_finished(struct health *health);

/* The server asks to be left alone for `us` (0: it did not say how long). Returns when that ends. */
uint64_t health_pause(struct health *health, const struct health_settings *settings, uint64_t us, uint64_t now_us);

/* Takes an ejected server whose time is up to trial: the caller's request is the only one that it gets until it is
 * known what becomes of it. False if there is no trial to be made now. */
bool health_begin_trial(struct health *health, uint64_t now_us);

/* The trial's request ended and shows nothing (its client left, or the server answered 429): another may follow. */
void health_trial_void(struct health *health, uint64_t now_us);

/* SLOW becomes HEALTHY when its time is over. True if it did. */
bool health_settle(struct health *health, const struct health_settings *settings, uint64_t now_us);

/* A series of probes says that the server is up: one that was ejected may serve again at once, with a slow start. True
 * if it was ejected or failing. */
bool health_probed_up(struct health *health, const struct health_settings *settings, uint64_t now_us);

/* It fails probes, again and again: an ejected server gets no trial, and one that is failing no try, before the next
 * probes have had their say. */
void health_probed_down(struct health *health, const struct health_settings *settings, uint64_t now_us);

/* Whether nothing needs to be told of answers and ends: healthy, and no failure to be forgotten. */
bool health_is_calm(const struct health *health);

#define HEALTH_FULL 256

/* How much of its weight a server in slow start gets, of HEALTH_FULL. */
unsigned health_share(uint64_t slow_since_us, uint64_t slow_start_us, uint64_t now_us);

#endif
