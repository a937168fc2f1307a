#include "base/redis_flight.h"
#include "base/clock.h"
#include "base/redis_command.h"
#include "base/redis_error.h"
#include <assert.h>

#define LATE_MAX 8 /* commands in a row: then it is spared until it answers in time again */

static void on_flight(struct redis_pending *pending, const redisReply *reply);
static void on_late(struct deadline *deadline);

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
    redis_link_tally(&link->failures[why]);
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

/* ---- flights ---- */

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

void redis_flight_ping(struct redis_link *link, uint64_t now)
{
    struct redis_flight *flight = take_off(link, SPAN_NONE, 0);
    flight->ping_us = now;
    link->pinging = true;
    launch(link, flight, SPAN("*1\r\n$4\r\nPING\r\n"), now);
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
    redis_link_stall(link);
    if (!link->pinging && link->state == LINK_STALLED)
        redis_flight_ping(link, now);
}

/* ---- replies ---- */

static void on_pong(struct redis_link *link, uint64_t ping_us)
{
    uint64_t now = clock_us();
    link->pinging = false;
    if (link->state != LINK_STALLED)
        return;
    if (now - ping_us <= link->settings.timeout_us)
        redis_link_come_up(link);
    else
        redis_flight_ping(link, now);
}

/* Sends a script's command as EVALSHA, or as EVAL with its text. */
static void launch_script(struct redis_link *link, struct redis_flight *flight, bool is_eval)
{
    struct strbuf *out = &link->scratch;
    struct link_script *script = flight->script;
    strbuf_reset(out);
    redis_command_begin(out, flight->pieces + 2);
    redis_command_piece(out, is_eval ? SPAN("EVAL") : SPAN("EVALSHA"));
    redis_command_piece(out, is_eval ? script->text : (struct span){script->sha, REDIS_SHA_DIGITS});
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
        redis_link_lose(link, why);
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
        command->_flight = NULL; /* what is lost is told when the connection has gone: see redis_link_lose */
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
    redis_link_tally(&link->failures[failure]);
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
    redis_link_tally(&link->commands);
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
    redis_command_piece(out, (struct span){link->scripts[script].sha, REDIS_SHA_DIGITS});
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

/* ---- for the link ---- */

void redis_flight_init(struct redis_link *link)
{
    link->late.cb = on_late;
}

void redis_flight_fail_all(struct redis_link *link, enum redis_failure why)
{
    deadline_disarm(link->deadlines, &link->late);
    while (link->first != NULL)
        fail_command(link, link->first, why);
}

void redis_flight_forget_all(struct redis_link *link)
{
    deadline_disarm(link->deadlines, &link->late);
    while (link->first != NULL)
        unlink_command(link->first);
}
