#include "base/redis_link.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/redis_command.h"
#include "base/redis_conn.h"
#include "base/redis_error.h"
#include "base/redis_greet.h"
#include "base/redis_sentinel.h"
#include <assert.h>
#include <openssl/sha.h>
#include <stdatomic.h>
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
#define SILENT_US 1000000 /* with commands on their way: the connection is dead */
#define WATCH_US 1000000  /* how often Sentinels are asked while all is well */
#define LATE_MAX 8        /* commands in a row: then it is spared until it answers in time again */
#define SHA_DIGITS 40
#define HOST_MAX 255

enum link_state {
    LINK_RESTING,
    LINK_ASKING, /* the Sentinels */
    LINK_CONNECTING,
    LINK_GREETING,
    LINK_UP,
    LINK_STALLED, /* connected, but it answers too late: only PINGs are sent */
};

/* What hiredis keeps for each reply that it awaits. Outlives its command if that is late or cancelled. */
struct redis_flight {
    struct redis_pending pending;
    struct redis_link *link;
    struct redis_command *command; /* NULL: nobody waits; a PING of the link's own */
    uint64_t ping_us;              /* when a PING was sent; 0: it is none */
    struct link_script *script;    /* NULL: a plain command */
    unsigned tries;                /* of a script */
    bool is_eval;
    size_t pieces, size; /* of `rest` */
    char rest[];         /* a script's command behind the script: number of keys, keys, arguments */
};

struct link_script {
    struct span text;
    char sha[SHA_DIGITS + 1];
    unsigned evals; /* on their way; what is sent after one may rely on the script */
};

struct redis_link {
    struct redis_link_settings settings;
    h2o_context_t *ctx;
    struct deadlines *deadlines;
    enum link_state state;
    struct redis_conn *conn;
    struct redis_sentinel *sentinel; /* NULL: a fixed address */
    char host[HOST_MAX + 1];
    uint16_t port;
    struct deadline step; /* the end of the rest, of the greeting; the next tick when up */
    struct deadline late; /* of the first command */
    struct redis_command *first, *last;
    size_t flights, held; /* replies awaited; bytes of their rests */
    uint64_t quiet_us;    /* since when nothing is heard although something is awaited */
    uint64_t in_time_us;  /* when a command was answered in time */
    unsigned late_count;  /* since then */
    uint64_t attempt_us, up_us, watched_us, back_off_us;
    bool told, told_up, pinging;
    bool lost; /* and it was not told yet: the next attempt decides */
    struct link_script *scripts;
    struct strbuf scratch;
    _Atomic uint64_t commands, connects, failures[REDIS_FAILURES];
};

/* In the order in which they fire. */
static void start_attempt(struct redis_link *link);
static void on_found(void *owner, const char *host, uint16_t port);
static void on_not_found(void *owner, const char *why);
static void connect_to_master(struct redis_link *link);
static void on_open(void *owner);
static void on_greeted(void *owner, const char *why);
static void on_step(struct deadline *deadline);
static void on_flight(struct redis_pending *pending, const redisReply *reply);
static void on_late(struct deadline *deadline);
static void on_heard(void *owner);
static void on_close(void *owner, const char *why);

/* One writer; others may read. */
static void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* ---- the list of commands: all have the same timeout, so their order is that of their deadlines ---- */

static void append(struct redis_link *link, struct redis_command *command)
{
    command->_link = link;
    command->_next = NULL;
    command->_prev = link->last;
    *(link->last != NULL ? &link->last->_next : &link->first) = command;
    link->last = command;
}

static void unlink_command(struct redis_command *command)
{
    struct redis_link *link = command->_link;
    *(command->_prev != NULL ? &command->_prev->_next : &link->first) = command->_next;
    *(command->_next != NULL ? &command->_next->_prev : &link->last) = command->_prev;
    if (command->_flight != NULL)
        command->_flight->command = NULL;
    command->_link = NULL;
    command->_flight = NULL;
}

static void fail_command(struct redis_link *link, struct redis_command *command, enum redis_failure why)
{
    unlink_command(command);
    count(&link->failures[why]);
    command->on_reply(command, NULL, why);
}

void redis_command_cancel(struct redis_command *command)
{
    if (command->_link != NULL)
        unlink_command(command);
}

static void arm_late(struct redis_link *link)
{
    if (link->first != NULL && !deadline_armed(&link->late))
        deadline_arm(link->deadlines, &link->late, link->first->_late_us);
}

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
static void lose(struct redis_link *link, const char *why)
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
    deadline_disarm(link->deadlines, &link->late);
    while (link->first != NULL)
        fail_command(link, link->first, REDIS_LOST);
    /* One that is cut and made anew at once is no news, unless that happens again and again. */
    if (steady && !link->lost && link->told_up)
        link->lost = true;
    else
        tell(link, false, text);
}

static void come_up(struct redis_link *link)
{
    link->state = LINK_UP;
    link->late_count = 0;
    link->in_time_us = clock_us();
    link->lost = false;
    tell(link, true, NULL);
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
        lose(link, "it is the master no more");
    }
}

static void on_not_found(void *owner, const char *why)
{
    struct redis_link *link = owner;
    if (link->state == LINK_ASKING) /* a master that serves needs no Sentinel */
        lose(link, why);
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
    count(&link->connects);
    link->state = LINK_GREETING;
    deadline_arm(link->deadlines, &link->step, clock_us() + attempt_timeout(link));
    redis_greet(link->conn, &settings);
}

static void on_greeted(void *owner, const char *why)
{
    struct redis_link *link = owner;
    if (why != NULL) {
        lose(link, why);
        return;
    }
    link->up_us = link->watched_us = link->quiet_us = clock_us();
    link->pinging = false;
    for (size_t i = 0; i < link->settings.script_count; i++)
        link->scripts[i].evals = 0;
    deadline_arm(link->deadlines, &link->step, link->up_us + TICK_US);
    come_up(link);
}

static void on_close(void *owner, const char *why)
{
    struct redis_link *link = owner;
    link->conn = NULL;
    lose(link, why);
}

/* ---- the tick: is anybody there? ---- */

static struct redis_flight *take_off(struct redis_link *link, struct span command, size_t kept)
{
    struct redis_flight *flight = malloc(sizeof(*flight) + kept);
    if (flight == NULL)
        abort();
    *flight = (struct redis_flight){.pending.cb = on_flight, .link = link, .size = kept};
    if (kept != 0)
        memcpy(flight->rest, command.base + command.len - kept, kept);
    return flight;
}

static void launch(struct redis_link *link, struct redis_flight *flight, struct span command, uint64_t now)
{
    if (link->flights++ == 0)
        link->quiet_us = now;
    link->held += flight->size;
    redis_conn_send(link->conn, command, &flight->pending);
}

static void ping(struct redis_link *link, uint64_t now)
{
    struct redis_flight *flight = take_off(link, SPAN_NONE, 0);
    flight->ping_us = now;
    link->pinging = true;
    launch(link, flight, SPAN("*1\r\n$4\r\nPING\r\n"), now);
}

static void tick(struct redis_link *link)
{
    uint64_t now = clock_us();
    if (link->flights != 0 && now - link->quiet_us >= SILENT_US) {
        lose(link, "it does not answer");
        return;
    }
    deadline_arm(link->deadlines, &link->step, now + TICK_US);
    if (!link->pinging && (link->state == LINK_STALLED || (link->flights == 0 && now - link->quiet_us >= IDLE_US)))
        ping(link, now);
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
        lose(link, "it accepts connections but does not answer");
    else if (link->state >= LINK_UP)
        tick(link);
}

static void on_heard(void *owner)
{
    struct redis_link *link = owner;
    link->quiet_us = clock_us();
}

static void on_late(struct deadline *deadline)
{
    struct redis_link *link = H2O_STRUCT_FROM_MEMBER(struct redis_link, late, deadline);
    uint64_t now = clock_us();
    while (link->first != NULL && link->first->_late_us <= now) {
        link->late_count++;
        fail_command(link, link->first, REDIS_LATE);
    }
    arm_late(link);
    if (link->state != LINK_UP || link->late_count < LATE_MAX || now - link->in_time_us < link->settings.timeout_us)
        return;
    link->state = LINK_STALLED;
    tell(link, false, "it answers too late");
    if (!link->pinging && link->state == LINK_STALLED)
        ping(link, now);
}

/* ---- replies ---- */

static void on_pong(struct redis_link *link, uint64_t ping_us)
{
    uint64_t now = clock_us();
    link->pinging = false;
    if (link->state != LINK_STALLED)
        return;
    if (now - ping_us <= link->settings.timeout_us)
        come_up(link);
    else
        ping(link, now);
}

/* Sends a script's command as EVALSHA, or as EVAL with its text. */
static void launch_script(struct redis_link *link, struct redis_flight *flight, bool is_eval)
{
    struct strbuf *out = &link->scratch;
    struct link_script *script = flight->script;
    strbuf_reset(out);
    redis_command_begin(out, flight->pieces + 2);
    redis_command_piece(out, is_eval ? SPAN("EVAL") : SPAN("EVALSHA"));
    redis_command_piece(out, is_eval ? script->text : (struct span){script->sha, SHA_DIGITS});
    strbuf_add(out, (struct span){flight->rest, flight->size});
    flight->is_eval = is_eval;
    script->evals += is_eval;
    flight->tries++;
    launch(link, flight, strbuf_span(out), clock_us());
}

/* An error reply: true if the command is not over yet. */
static bool take_error(struct redis_link *link, struct redis_flight *flight, struct span text)
{
    struct redis_command *command = flight->command;
    enum redis_error error = redis_error_of(text);
    if (error == REDIS_ERROR_SCRIPT && flight->script != NULL && flight->tries < 3 && link->state >= LINK_UP) {
        if (command == NULL)
            return false;
        /* One of them brings the script; the others follow it on the same connection. */
        launch_script(link, flight, flight->script->evals == 0 || flight->tries == 2);
        return true;
    }
    if (error == REDIS_ERROR_COMMAND)
        return false;
    if (command != NULL)
        fail_command(link, command, REDIS_REFUSED);
    if (error == REDIS_ERROR_UNFIT && link->state >= LINK_UP) {
        char why[192];
        redis_error_print(text, link->settings.url->password, why, sizeof(why));
        lose(link, why);
    }
    return false;
}

static void on_flight(struct redis_pending *pending, const redisReply *reply)
{
    struct redis_flight *flight = H2O_STRUCT_FROM_MEMBER(struct redis_flight, pending, pending);
    struct redis_link *link = flight->link;
    link->flights--;
    link->held -= flight->size;
    if (flight->is_eval)
        flight->script->evals--;
    flight->is_eval = false;
    if (reply != NULL && reply->type == REDIS_REPLY_ERROR &&
        take_error(link, flight, (struct span){reply->str, reply->len}))
        return;
    struct redis_command *command = flight->command;
    uint64_t ping_us = flight->ping_us;
    if (command != NULL && reply == NULL)
        command->_flight = NULL; /* what is lost is told when the connection has gone: see lose */
    if (command != NULL && reply != NULL)
        unlink_command(command);
    free(flight);
    if (reply == NULL)
        return;
    if (ping_us != 0) {
        on_pong(link, ping_us);
    } else if (command != NULL) {
        link->late_count = 0;
        link->in_time_us = clock_us();
        command->on_reply(command, reply, REDIS_ANSWERED);
    }
}

/* ---- commands ---- */

static bool refuse(struct redis_link *link, enum redis_failure failure, enum redis_failure *why)
{
    count(&link->failures[failure]);
    *why = failure;
    return false;
}

static bool admit(struct redis_link *link, struct redis_command *command, size_t size, enum redis_failure *why)
{
    assert(command->_link == NULL);
    (void)command;
    if (link->state != LINK_UP)
        return refuse(link, REDIS_DOWN, why);
    if (link->flights >= link->settings.max_waiting || size > link->settings.max_bytes ||
        redis_conn_unwritten(link->conn) + link->held + size > link->settings.max_bytes)
        return refuse(link, REDIS_FULL, why);
    *why = REDIS_ANSWERED;
    return true;
}

static void start_command(struct redis_link *link, struct redis_command *command, struct redis_flight *flight)
{
    flight->command = command;
    command->_flight = flight;
    command->_late_us = clock_us() + link->settings.timeout_us;
    append(link, command);
    arm_late(link);
    count(&link->commands);
}

static size_t size_of(const struct span *pieces, size_t count)
{
    size_t size = 64;
    for (size_t i = 0; i < count; i++)
        size += pieces[i].len + 24; /* its length and line ends */
    return size;
}

bool redis_link_send(struct redis_link *link, struct redis_command *command, const struct span *pieces, size_t count,
                     enum redis_failure *why)
{
    if (!admit(link, command, size_of(pieces, count), why))
        return false;
    strbuf_reset(&link->scratch);
    redis_command_write(&link->scratch, pieces, count);
    struct redis_flight *flight = take_off(link, SPAN_NONE, 0);
    start_command(link, command, flight);
    launch(link, flight, strbuf_span(&link->scratch), command->_late_us - link->settings.timeout_us);
    return true;
}

bool redis_link_run(struct redis_link *link, struct redis_command *command, size_t script, const struct span *args,
                    size_t key_count, size_t count, enum redis_failure *why)
{
    struct strbuf *out = &link->scratch;
    char keys[24];
    assert(script < link->settings.script_count && key_count <= count);
    if (!admit(link, command, 2 * size_of(args, count), why))
        return false;
    strbuf_reset(out);
    redis_command_begin(out, count + 3);
    redis_command_piece(out, SPAN("EVALSHA"));
    redis_command_piece(out, (struct span){link->scripts[script].sha, SHA_DIGITS});
    size_t before = out->len;
    redis_command_piece(out, (struct span){keys, (size_t)snprintf(keys, sizeof(keys), "%zu", key_count)});
    for (size_t i = 0; i < count; i++)
        redis_command_piece(out, args[i]);
    struct redis_flight *flight = take_off(link, strbuf_span(out), out->len - before);
    flight->script = &link->scripts[script];
    flight->pieces = count + 1;
    flight->tries = 1;
    start_command(link, command, flight);
    launch(link, flight, strbuf_span(out), command->_late_us - link->settings.timeout_us);
    return true;
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
    link->late.cb = on_late;
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
    while (link->first != NULL)
        unlink_command(link->first);
    deadline_disarm(link->deadlines, &link->step);
    deadline_disarm(link->deadlines, &link->late);
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
