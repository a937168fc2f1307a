#include "base/redis_greet.h"
#include "base/redis_command.h"
#include "base/redis_error.h"
#include <openssl/crypto.h>
#include <stdio.h>

#define GREETING_MAX ((size_t)1024 * 1024)

enum step { STEP_AUTH, STEP_NAME, STEP_SELECT, STEP_ROLE, STEP_CLUSTER, STEP_SCRIPT, STEPS };

struct greet {
    struct redis_greet_settings settings;
    struct redis_conn *conn;
    struct greet_step {
        struct redis_pending pending;
        struct greet *greet;
    } steps[STEPS];
    size_t waiting; /* replies that have not come */
    bool over;      /* the owner knows, or the connection is lost */
    char why[256];  /* the first thing that is wrong */
};

static void on_step(struct redis_pending *pending, const redisReply *reply);

__attribute__((format(printf, 2, 3))) static void complain(struct greet *greet, const char *format, ...)
{
    va_list args;
    if (greet->why[0] != '\0')
        return;
    va_start(args, format);
    vsnprintf(greet->why, sizeof(greet->why), format, args);
    va_end(args);
}

static struct span text_of(const redisReply *reply)
{
    bool text =
        reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS || reply->type == REDIS_REPLY_ERROR;
    return text ? (struct span){reply->str, reply->len} : SPAN_NONE;
}

static bool contains(struct span text, const char *part)
{
    return text.len != 0 && memmem(text.base, text.len, part, strlen(part)) != NULL;
}

/* An AUTH that fails is told in words of ours: some servers repeat the command's arguments. */
static void judge_auth(struct greet *greet, struct span error)
{
    if (span_starts(error, SPAN("WRONGPASS")) || contains(error, "invalid password"))
        complain(greet, "it refuses the %s", greet->settings.url->user != NULL ? "user or password" : "password");
    else if (contains(error, "without any password") || contains(error, "no password is set"))
        complain(greet, "it has no password; leave it out of the URL");
    else if (contains(error, "wrong number of arguments"))
        complain(greet, "it knows no user names (Redis before 6); leave the user out of the URL");
}

static void judge_error(struct greet *greet, enum step step, struct span error)
{
    char text[160];
    enum redis_error kind = redis_error_of(error);
    redis_error_print(error, greet->settings.url->password, text, sizeof(text));
    if (step == STEP_AUTH) {
        judge_auth(greet, error);
        complain(greet, "AUTH failed");
    } else if (span_starts(error, SPAN("NOAUTH"))) {
        complain(greet, "it wants a password");
    } else if (span_starts(error, SPAN("BUSY"))) {
        complain(greet, "%s", text);
    } else if (kind == REDIS_ERROR_UNFIT) {
        complain(greet, "%s", text);
    } else if (step == STEP_SELECT) {
        complain(greet, "SELECT %u: %s", greet->settings.url->db, text);
    }
    /* Otherwise this user may not ask (NOPERM) or the server is too old to know: what it is shows when it is used. */
}

static void judge_role(struct greet *greet, const redisReply *reply)
{
    struct span role =
        reply->type == REDIS_REPLY_ARRAY && reply->elements != 0 ? text_of(reply->element[0]) : SPAN_NONE;
    if (span_eq(role, SPAN("slave")))
        complain(greet, "it is a read-only replica, expected a master");
    else if (span_eq(role, SPAN("sentinel")))
        complain(greet, "it is a Sentinel; write redis+sentinel://HOST:PORT/MASTER-NAME");
    else if (!span_eq(role, SPAN("master")))
        complain(greet, "it does not answer as Redis does");
}

static void judge(struct greet *greet, enum step step, const redisReply *reply)
{
    struct span text = text_of(reply);
    if (reply->type == REDIS_REPLY_ERROR)
        judge_error(greet, step, text);
    else if (step == STEP_ROLE)
        judge_role(greet, reply);
    else if (step == STEP_CLUSTER && contains(text, "cluster_enabled:1"))
        complain(greet, "it is a node of a Redis Cluster, which is not supported; use one master or Sentinel");
    else if ((step == STEP_AUTH || step == STEP_SELECT) && !span_eq(text, SPAN("OK")))
        complain(greet, "it does not answer as Redis does");
}

static void on_step(struct redis_pending *pending, const redisReply *reply)
{
    struct greet_step *step = H2O_STRUCT_FROM_MEMBER(struct greet_step, pending, pending);
    struct greet *greet = step->greet;
    if (reply != NULL && !greet->over)
        judge(greet, (enum step)(step - greet->steps), reply);
    bool last = --greet->waiting == 0, bad = greet->why[0] != '\0';
    /* What is wrong is told at once: a server that complains may close the connection next. */
    if (!greet->over && reply != NULL && (bad || last)) {
        greet->over = true;
        greet->settings.on_done(greet->settings.owner, bad ? greet->why : NULL);
    }
    greet->over |= reply == NULL;
    if (last)
        free(greet);
}

static void say(struct greet *greet, enum step step, const struct span *pieces, size_t count)
{
    struct strbuf command;
    strbuf_init(&command, GREETING_MAX);
    redis_command_write(&command, pieces, count);
    greet->waiting++;
    redis_conn_send(greet->conn, strbuf_span(&command), &greet->steps[step].pending);
    if (step == STEP_AUTH)
        OPENSSL_cleanse(command.base, command.len);
    strbuf_dispose(&command);
}

void redis_greet(struct redis_conn *conn, const struct redis_greet_settings *settings)
{
    const struct redis_url *url = settings->url;
    struct greet *greet = h2o_mem_alloc(sizeof(*greet));
    memset(greet, 0, sizeof(*greet));
    greet->settings = *settings;
    greet->conn = conn;
    for (size_t i = 0; i < STEPS; i++)
        greet->steps[i] = (struct greet_step){{on_step}, greet};
    if (url->password != NULL && url->user != NULL)
        say(greet, STEP_AUTH, (struct span[]){SPAN("AUTH"), span_of(url->user), span_of(url->password)}, 3);
    else if (url->password != NULL)
        say(greet, STEP_AUTH, (struct span[]){SPAN("AUTH"), span_of(url->password)}, 2);
    if (settings->name != NULL)
        say(greet, STEP_NAME, (struct span[]){SPAN("CLIENT"), SPAN("SETNAME"), span_of(settings->name)}, 3);
    if (url->db != 0) {
        char db[16];
        snprintf(db, sizeof(db), "%u", url->db);
        say(greet, STEP_SELECT, (struct span[]){SPAN("SELECT"), span_of(db)}, 2);
    }
    say(greet, STEP_ROLE, (struct span[]){SPAN("ROLE")}, 1);
    say(greet, STEP_CLUSTER, (struct span[]){SPAN("INFO"), SPAN("cluster")}, 2);
    for (size_t i = 0; i < settings->script_count; i++)
        say(greet, STEP_SCRIPT, (struct span[]){SPAN("SCRIPT"), SPAN("LOAD"), span_of(settings->scripts[i])}, 3);
}
