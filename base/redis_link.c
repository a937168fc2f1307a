#include "base/clock.h"
#include "base/ids.h"
#include "base/redis_flight.h"
#include "base/redis_greet.h"
#include "base/redis_sentinel.h"
#include <openssl/sha.h>
#include <stdio.h>

#define TIMEOUT_US 50000
#define MAX_WAITING 8192
#define MAX_BYTES ((size_t)16 * 1024 * 1024)
#define BACK_OFF_MIN_US 20000
#define BACK_OFF_MAX_US 500000
#define ATTEMPT_MIN_US 500000 /* for a connection, and again for the greeting */
#define SENTINEL_US 300000
#define STEADY_US 1000000 /* a connection that lived for so long starts the back-off anew */
#define TICK_US 250000
#define IDLE_US 1000000   /* without a command; then PING */
#define SILENT_US 1000000 /* with commands on their way: the connection is dead. At least two deadlines */
#define WATCH_US 1000000  /* how often Sentinels are asked while all is well */

/* In the order in which they fire. */
static void start_attempt(struct redis_link *link);
static void on_found(void *owner, const char *host, uint16_t port);
static void on_not_found(void *owner, const char *why);
static void connect_to_master(struct redis_link *link);
static void on_open(void *owner);
static void on_greeted(void *owner, const char *why);
static void on_step(struct deadline *deadline);
static void on_heard(void *owner);
static void on_close(void *owner, const char *why);

/* ---- up and down ---- */

static void tell(struct redis_link *link, bool up, const char *why)
{
    bool news = !link->told || link->told_up != up;
    link->told = true;
    link->told_up = up;
    link->lost = false;
    if (news && link->settings.on_state != NULL)
        link->settings.on_state(link->settings.ctx, up, why);
}

static void rest(struct redis_link *link)
{
    uint64_t now = clock_us();
    uint32_t random;
    if (link->up_us != 0 && now - link->up_us >= STEADY_US)
        link->back_off_us = 0;
    link->up_us = 0;
    link->back_off_us = link->back_off_us == 0 ? BACK_OFF_MIN_US : link->back_off_us * 2;
    if (link->back_off_us > BACK_OFF_MAX_US)
        link->back_off_us = BACK_OFF_MAX_US;
    ids_random(&random, sizeof(random));
    /* From the start of the attempt on: one that took long has been waited for. */
    uint64_t at = link->attempt_us + link->back_off_us / 2 + random % (link->back_off_us / 2);
    if (at < now + BACK_OFF_MIN_US / 2)
        at = now + BACK_OFF_MIN_US / 2 + random % (BACK_OFF_MIN_US / 2);
    link->state = LINK_RESTING;
    deadline_arm(link->deadlines, &link->step, at);
}

/* The attempt has failed, or the connection is lost or of no use. */
void redis_link_lose(struct redis_link *link, const char *why)
{
    struct redis_conn *conn = link->conn;
    char text[384];
    bool steady = link->up_us != 0 && clock_us() - link->up_us >= STEADY_US;
    if (link->sentinel != NULL && link->host[0] != '\0' && link->state != LINK_ASKING)
        snprintf(text, sizeof(text), "%.100s:%u: %s", link->host, (unsigned)link->port, why);
    else
        snprintf(text, sizeof(text), "%s", why);
    link->conn = NULL;
    if (link->sentinel != NULL && (link->state == LINK_CONNECTING || link->state == LINK_GREETING))
        redis_sentinel_distrust(link->sentinel);
    rest(link);
    if (conn != NULL)
        redis_conn_close(conn);
    redis_flight_fail_all(link, REDIS_LOST);
    /* One that is cut and made anew at once is no news, unless that happens again and again. */
    if (steady && !link->lost && link->told_up)
        link->lost = true;
    else
        tell(link, false, text);
}

void redis_link_come_up(struct redis_link *link)
{
    link->state = LINK_UP;
    link->late_count = 0;
    link->in_time_us = clock_us();
    link->lost = false;
    tell(link, true, NULL);
}

void redis_link_stall(struct redis_link *link)
{
    link->state = LINK_STALLED;
    tell(link, false, "it answers too late");
}

/* ---- an attempt ---- */

static void start_attempt(struct redis_link *link)
{
    link->attempt_us = clock_us();
    if (link->sentinel != NULL) {
        link->state = LINK_ASKING;
        redis_sentinel_ask(link->sentinel);
        return;
    }
    connect_to_master(link);
}

static void on_found(void *owner, const char *host, uint16_t port)
{
    struct redis_link *link = owner;
    bool same = strcmp(link->host, host) == 0 && link->port == port;
    if (link->state == LINK_ASKING) {
        snprintf(link->host, sizeof(link->host), "%s", host);
        link->port = port;
        connect_to_master(link);
    } else if (!same && link->state >= LINK_UP) {
        redis_link_lose(link, "it is the master no more");
    }
}

static void on_not_found(void *owner, const char *why)
{
    struct redis_link *link = owner;
    if (link->state == LINK_ASKING) /* a master that serves needs no Sentinel */
        redis_link_lose(link, why);
}

static uint64_t attempt_timeout(const struct redis_link *link)
{
    uint64_t timeout = link->settings.timeout_us * 4;
    return timeout > ATTEMPT_MIN_US ? timeout : ATTEMPT_MIN_US;
}

static void connect_to_master(struct redis_link *link)
{
    struct redis_conn_settings settings = {.ctx = link->ctx,
                                           .deadlines = link->deadlines,
                                           .host = link->host,
                                           .port = link->port,
                                           .unix_path = link->settings.url->unix_path,
                                           .timeout_us = attempt_timeout(link),
                                           .on_open = on_open,
                                           .on_heard = on_heard,
                                           .on_close = on_close,
                                           .owner = link};
    link->state = LINK_CONNECTING;
    link->conn = redis_conn_open(&settings);
}

static void on_open(void *owner)
{
    struct redis_link *link = owner;
    struct redis_greet_settings settings = {.url = link->settings.url,
                                            .name = link->settings.name,
                                            .scripts = link->settings.scripts,
                                            .script_count = link->settings.script_count,
                                            .on_done = on_greeted,
                                            .owner = link};
    redis_link_tally(&link->connects);
    link->state = LINK_GREETING;
    deadline_arm(link->deadlines, &link->step, clock_us() + attempt_timeout(link));
    redis_greet(link->conn, &settings);
}

static void on_greeted(void *owner, const char *why)
{
    struct redis_link *link = owner;
    if (why != NULL) {
        redis_link_lose(link, why);
        return;
    }
    link->up_us = link->watched_us = link->quiet_us = clock_us();
    link->pinging = false;
    for (size_t i = 0; i < link->settings.script_count; i++)
        link->scripts[i].evals = 0;
    deadline_arm(link->deadlines, &link->step, link->up_us + TICK_US);
    redis_link_come_up(link);
}

static void on_close(void *owner, const char *why)
{
    struct redis_link *link = owner;
    link->conn = NULL;
    redis_link_lose(link, why);
}

/* ---- the tick: is anybody there? ---- */

static void tick(struct redis_link *link)
{
    uint64_t now = clock_us(), silent_us = link->settings.timeout_us * 2;
    if (silent_us < SILENT_US)
        silent_us = SILENT_US;
    if (link->flights != 0 && now - link->quiet_us >= silent_us) {
        redis_link_lose(link, "it does not answer");
        return;
    }
    deadline_arm(link->deadlines, &link->step, now + TICK_US);
    if (!link->pinging && (link->state == LINK_STALLED || (link->flights == 0 && now - link->quiet_us >= IDLE_US)))
        redis_flight_ping(link, now);
    if (link->sentinel != NULL && now - link->watched_us >= WATCH_US) {
        link->watched_us = now;
        redis_sentinel_ask(link->sentinel);
    }
}

static void on_step(struct deadline *deadline)
{
    struct redis_link *link = H2O_STRUCT_FROM_MEMBER(struct redis_link, step, deadline);
    if (link->state == LINK_RESTING)
        start_attempt(link);
    else if (link->state == LINK_GREETING)
        redis_link_lose(link, "it accepts connections but does not answer");
    else if (link->state >= LINK_UP)
        tick(link);
}

static void on_heard(void *owner)
{
    struct redis_link *link = owner;
    link->quiet_us = clock_us();
}

/* ---- the link ---- */

static void prepare_scripts(struct redis_link *link)
{
    size_t script_count = link->settings.script_count;
    link->scripts = calloc(script_count + 1, sizeof(link->scripts[0]));
    if (link->scripts == NULL)
        abort();
    for (size_t i = 0; i < script_count; i++) {
        struct link_script *script = &link->scripts[i];
        unsigned char digest[SHA_DIGEST_LENGTH];
        script->text = span_of(link->settings.scripts[i]);
        SHA1((const unsigned char *)script->text.base, script->text.len, digest);
        for (size_t d = 0; d < sizeof(digest); d++)
            snprintf(script->sha + 2 * d, 3, "%02x", digest[d]);
    }
}

struct redis_link *redis_link_create(const struct redis_link_settings *settings, h2o_context_t *ctx,
                                     struct deadlines *deadlines)
{
    const struct redis_url *url = settings->url;
    struct redis_link *link = h2o_mem_alloc(sizeof(*link));
    memset(link, 0, sizeof(*link));
    link->settings = *settings;
    link->ctx = ctx;
    link->deadlines = deadlines;
    if (settings->timeout_us == 0)
        link->settings.timeout_us = TIMEOUT_US;
    if (settings->max_waiting == 0)
        link->settings.max_waiting = MAX_WAITING;
    if (settings->max_bytes == 0)
        link->settings.max_bytes = MAX_BYTES;
    link->step.cb = on_step;
    redis_flight_init(link);
    /* A command may be as large as all that may wait; a script's text comes on top. */
    strbuf_init(&link->scratch, link->settings.max_bytes + MAX_BYTES);
    prepare_scripts(link);
    if (url->master != NULL) {
        struct redis_sentinel_settings sentinel = {.url = url,
                                                   .ctx = ctx,
                                                   .deadlines = deadlines,
                                                   .timeout_us = SENTINEL_US,
                                                   .on_found = on_found,
                                                   .on_failed = on_not_found,
                                                   .owner = link};
        link->sentinel = redis_sentinel_create(&sentinel);
    } else if (url->host_count != 0) {
        snprintf(link->host, sizeof(link->host), "%s", url->hosts[0].name);
        link->port = url->hosts[0].port;
    }
    link->state = LINK_RESTING;
    deadline_arm(deadlines, &link->step, 0);
    return link;
}

void redis_link_destroy(struct redis_link *link)
{
    redis_flight_forget_all(link);
    deadline_disarm(link->deadlines, &link->step);
    if (link->conn != NULL)
        redis_conn_close(link->conn);
    if (link->sentinel != NULL)
        redis_sentinel_destroy(link->sentinel);
    strbuf_dispose(&link->scratch);
    free(link->scripts);
    free(link);
}

bool redis_link_up(const struct redis_link *link)
{
    return link->state == LINK_UP;
}

void redis_link_flush(struct redis_link *link)
{
    if (link->conn != NULL && link->state == LINK_UP)
        redis_conn_flush(link->conn);
}

void redis_link_count(const struct redis_link *link, struct redis_link_counts *counts)
{
    counts->commands = atomic_load_explicit(&link->commands, memory_order_relaxed);
    counts->connects = atomic_load_explicit(&link->connects, memory_order_relaxed);
    for (size_t i = 0; i < REDIS_FAILURES; i++)
        counts->failures[i] = atomic_load_explicit(&link->failures[i], memory_order_relaxed);
}

const char *redis_failure_name(enum redis_failure failure)
{
    static const char *const names[REDIS_FAILURES] = {"answered", "down", "full", "late", "lost", "refused"};
    return names[failure];
}
