#include "base/redis_sentinel.h"
#include "base/clock.h"
#include "base/redis_command.h"
#include "base/redis_conn.h"
#include "base/redis_error.h"
#include "base/units.h"
#include <openssl/crypto.h>
#include <stdio.h>

#define COMMAND_MAX ((size_t)16384)
#define HOST_MAX 255

/* A question to one Sentinel; freed when its connection has answered or let go of it. */
struct question {
    struct redis_pending pending;
    struct redis_sentinel *sentinel; /* NULL: nobody waits for it any more */
    bool is_auth;
};

struct redis_sentinel {
    struct redis_sentinel_settings settings;
    struct redis_conn *conn;
    struct question *question; /* the last one; NULL: answered */
    struct deadline deadline;
    size_t current, tried; /* Sentinels */
    bool asking, open, authenticated;
    char why[320];
};

/* In the order in which they fire. */
static void ask_current(struct redis_sentinel *sentinel);
static void on_open(void *owner);
static void on_answer(struct redis_pending *pending, const redisReply *reply);
static void on_deadline(struct deadline *deadline);
static void on_close(void *owner, const char *why);
static void on_heard(void *owner);

static void forget_question(struct redis_sentinel *sentinel)
{
    if (sentinel->question != NULL)
        sentinel->question->sentinel = NULL;
    sentinel->question = NULL;
}

static void drop(struct redis_sentinel *sentinel)
{
    struct redis_conn *conn = sentinel->conn;
    forget_question(sentinel);
    deadline_disarm(sentinel->settings.deadlines, &sentinel->deadline);
    sentinel->conn = NULL;
    sentinel->open = sentinel->authenticated = false;
    if (conn != NULL)
        redis_conn_close(conn);
}

static void move_on(struct redis_sentinel *sentinel)
{
    drop(sentinel);
    sentinel->current = (sentinel->current + 1) % sentinel->settings.url->host_count;
}

/* This Sentinel is of no use: on to the next, or that was all. */
static void fail(struct redis_sentinel *sentinel, const char *why)
{
    const struct redis_host *host = &sentinel->settings.url->hosts[sentinel->current];
    snprintf(sentinel->why, sizeof(sentinel->why), "Sentinel %.100s:%u: %s", host->name, (unsigned)host->port, why);
    move_on(sentinel);
    if (!sentinel->asking)
        return;
    if (++sentinel->tried < sentinel->settings.url->host_count) {
        ask_current(sentinel);
        return;
    }
    sentinel->asking = false;
    sentinel->settings.on_failed(sentinel->settings.owner, sentinel->why);
}

static void say(struct redis_sentinel *sentinel, const struct span *pieces, size_t count, bool is_auth)
{
    struct question *question = h2o_mem_alloc(sizeof(*question));
    struct strbuf command;
    strbuf_init(&command, COMMAND_MAX);
    redis_command_write(&command, pieces, count);
    *question = (struct question){{on_answer}, is_auth ? NULL : sentinel, is_auth};
    redis_conn_send(sentinel->conn, strbuf_span(&command), &question->pending);
    if (!is_auth)
        sentinel->question = question;
    OPENSSL_cleanse(command.base, command.len);
    strbuf_dispose(&command);
}

static void send_question(struct redis_sentinel *sentinel)
{
    struct span master = span_of(sentinel->settings.url->master);
    say(sentinel, (struct span[]){SPAN("SENTINEL"), SPAN("GET-MASTER-ADDR-BY-NAME"), master}, 3, false);
}

/* Many Sentinels have no password where their master has one: ours is told only to one that asks for it. */
static void send_auth(struct redis_sentinel *sentinel)
{
    const struct redis_url *url = sentinel->settings.url;
    sentinel->authenticated = true;
    if (url->user != NULL)
        say(sentinel, (struct span[]){SPAN("AUTH"), span_of(url->user), span_of(url->password)}, 3, true);
    else
        say(sentinel, (struct span[]){SPAN("AUTH"), span_of(url->password)}, 2, true);
}

static void ask_current(struct redis_sentinel *sentinel)
{
    const struct redis_sentinel_settings *settings = &sentinel->settings;
    const struct redis_host *host = &settings->url->hosts[sentinel->current];
    deadline_arm(settings->deadlines, &sentinel->deadline, clock_us() + settings->timeout_us);
    if (sentinel->open) {
        send_question(sentinel);
        return;
    }
    struct redis_conn_settings conn = {.ctx = settings->ctx,
                                       .deadlines = settings->deadlines,
                                       .host = host->name,
                                       .port = host->port,
                                       .timeout_us = settings->timeout_us,
                                       .on_open = on_open,
                                       .on_heard = on_heard,
                                       .on_close = on_close,
                                       .owner = sentinel};
    sentinel->conn = redis_conn_open(&conn);
}

void redis_sentinel_ask(struct redis_sentinel *sentinel)
{
    if (sentinel->asking)
        return;
    sentinel->asking = true;
    sentinel->tried = 0;
    ask_current(sentinel);
}

void redis_sentinel_distrust(struct redis_sentinel *sentinel)
{
    if (!sentinel->asking)
        move_on(sentinel);
}

static void on_open(void *owner)
{
    struct redis_sentinel *sentinel = owner;
    sentinel->open = true;
    send_question(sentinel);
}

static void on_heard(void *owner)
{
    (void)owner;
}

static bool read_master(const redisReply *reply, char host[HOST_MAX + 1], uint16_t *port)
{
    uint64_t number;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_STRING)
        return false;
    struct span name = {reply->element[0]->str, reply->element[0]->len};
    struct span digits = {reply->element[1]->str, reply->element[1]->len};
    if (name.len == 0 || name.len > HOST_MAX || memchr(name.base, '\0', name.len) != NULL ||
        !units_number(digits, 65535, &number) || number == 0)
        return false;
    memcpy(host, name.base, name.len);
    host[name.len] = '\0';
    *port = (uint16_t)number;
    return true;
}

static void take_answer(struct redis_sentinel *sentinel, const redisReply *reply)
{
    const struct redis_url *url = sentinel->settings.url;
    char host[HOST_MAX + 1], text[192];
    uint16_t port;
    if (read_master(reply, host, &port)) {
        deadline_disarm(sentinel->settings.deadlines, &sentinel->deadline);
        sentinel->asking = false;
        sentinel->settings.on_found(sentinel->settings.owner, host, port);
        return;
    }
    if (reply->type == REDIS_REPLY_ERROR && span_starts((struct span){reply->str, reply->len}, SPAN("NOAUTH")) &&
        url->password != NULL && !sentinel->authenticated) {
        send_auth(sentinel);
        send_question(sentinel);
        return;
    }
    if (reply->type == REDIS_REPLY_NIL)
        snprintf(text, sizeof(text), "it knows no master \"%.100s\"", url->master);
    else if (reply->type == REDIS_REPLY_ERROR)
        redis_error_print((struct span){reply->str, reply->len}, url->password, text, sizeof(text));
    else
        snprintf(text, sizeof(text), "it does not answer as a Sentinel does");
    fail(sentinel, text);
}

static void on_answer(struct redis_pending *pending, const redisReply *reply)
{
    struct question *question = H2O_STRUCT_FROM_MEMBER(struct question, pending, pending);
    struct redis_sentinel *sentinel = question->sentinel;
    if (sentinel != NULL)
        sentinel->question = NULL;
    free(question);
    if (sentinel != NULL && reply != NULL) /* without one, on_close follows */
        take_answer(sentinel, reply);
}

static void on_deadline(struct deadline *deadline)
{
    struct redis_sentinel *sentinel = H2O_STRUCT_FROM_MEMBER(struct redis_sentinel, deadline, deadline);
    fail(sentinel, "no answer in time");
}

static void on_close(void *owner, const char *why)
{
    struct redis_sentinel *sentinel = owner;
    sentinel->conn = NULL;
    fail(sentinel, why);
}

struct redis_sentinel *redis_sentinel_create(const struct redis_sentinel_settings *settings)
{
    struct redis_sentinel *sentinel = h2o_mem_alloc(sizeof(*sentinel));
    memset(sentinel, 0, sizeof(*sentinel));
    sentinel->settings = *settings;
    sentinel->deadline.cb = on_deadline;
    return sentinel;
}

void redis_sentinel_destroy(struct redis_sentinel *sentinel)
{
    drop(sentinel);
    free(sentinel);
}
