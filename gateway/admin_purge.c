#include "base/json_scan.h"
#include "base/strbuf.h"
#include "cache/redis_purge.h"
#include "cache/redis_value.h"
#include "gateway/admin.h"
#include "gateway/worker.h"
#include <stdio.h>

/* A purge that waits for Redis. */
struct job {
    struct call_job job;
    struct call *call;
    struct redis_purge purge;
    struct redis_purge_target target;
    char strings[];
};

/* ---- the body ---- */

enum member { MEMBER_KEY, MEMBER_MODEL, MEMBER_ALL, MEMBERS };

static const struct span members[MEMBERS] = {SPAN("key"), SPAN("model"), SPAN("all")};

/* What a body names; the target's spans are its own. */
struct request {
    struct redis_purge_target target;
    char key[REDIS_VALUE_TEXT_MAX], model[REDIS_VALUE_TEXT_MAX];
};

static bool refuse_value(struct call *call, const char *type, const char *member, const char *msg, struct span input,
                         const char *ctx)
{
    struct admin_problem problem = {.type = type, .member = member, .msg = msg, .input = input, .ctx = ctx};
    admin_refuse_body(call, &problem);
    return false;
}

static bool read_name(struct call *call, const char *member, const struct json_value *value,
                      char out[REDIS_VALUE_TEXT_MAX], struct span *name)
{
    char ctx[40], msg[80];
    *name = SPAN_NONE;
    if (value->type == JSON_MISSING || value->type == JSON_NULL)
        return true;
    if (value->type != JSON_STRING)
        return refuse_value(call, "string_type", member, "Input should be a valid string", value->raw, NULL);
    long len = json_string_decode(value->raw, out, REDIS_VALUE_TEXT_MAX);
    if (len == 0)
        return refuse_value(call, "string_too_short", member, "String should have at least 1 character", value->raw,
                            "{\"min_length\":1}");
    if (len < 0) {
        snprintf(msg, sizeof(msg), "String should have at most %d characters", REDIS_VALUE_TEXT_MAX);
        snprintf(ctx, sizeof(ctx), "{\"max_length\":%d}", REDIS_VALUE_TEXT_MAX);
        return refuse_value(call, "string_too_long", member, msg, value->raw, ctx);
    }
    *name = (struct span){out, (size_t)len};
    return true;
}

/* False if the call was refused. */
static bool read_target(struct call *call, const struct json_value *root, const struct json_value values[MEMBERS],
                        struct request *request)
{
    struct redis_purge_target *target = &request->target;
    const struct json_value *all = &values[MEMBER_ALL];
    size_t known = 0;
    if (root->type != JSON_OBJECT)
        return refuse_value(call, "model_attributes_type", NULL,
                            "Input should be a valid dictionary or object to extract fields from", root->raw, NULL);
    for (int i = 0; i < MEMBERS; i++)
        known += values[i].type != JSON_MISSING;
    /* A misspelt member, or one that stands twice, would make it another purge than was meant. */
    if (root->count > known)
        return refuse_value(call, "extra_forbidden", NULL, "Extra inputs are not permitted", root->raw, NULL);
    if (all->type != JSON_MISSING && all->type != JSON_NULL && all->type != JSON_BOOL)
        return refuse_value(call, "bool_type", "all", "Input should be a valid boolean", all->raw, NULL);
    if (!read_name(call, "key", &values[MEMBER_KEY], request->key, &target->scope_name) ||
        !read_name(call, "model", &values[MEMBER_MODEL], request->model, &target->model))
        return false;
    if ((all->type == JSON_BOOL && all->truth) == (target->scope_name.len != 0 || target->model.len != 0))
        return refuse_value(call, "value_error", NULL,
                            "Value error, expected \"key\", \"model\" or both, or \"all\": true", root->raw,
                            "{\"error\":{}}");
    if (target->scope_name.len != 0 && call->site->config->cache.shared)
        return refuse_value(call, "value_error", "key",
                            "Value error, the cache's scope is shared: its answers belong to no key",
                            values[MEMBER_KEY].raw, "{\"error\":{}}");
    return true;
}

/* False if the call was refused. */
static bool read_request(struct call *call, struct request *request)
{
    struct json_value root, values[MEMBERS];
    if (!admin_read_body(call, members, MEMBERS, values, &root))
        return false;
    return read_target(call, &root, values, request);
}

/* ---- the purge ---- */

static size_t purge_memory(struct call *call, const struct redis_purge_target *target)
{
    struct cache_memory *memory = call->worker->server->cache;
    return memory != NULL ? redis_purge_memory(memory, target) : 0;
}

static void answer(struct call *call, size_t count, bool redis)
{
    char text[96];
    snprintf(text, sizeof(text), "{\"purged\":%zu,\"redis\":\"%s\"}\n", count, redis ? "purged" : "none");
    call->transport->answer(call, 200, SPAN("application/json"), span_of(text));
}

static void refuse_half_done(struct call *call, size_t count)
{
    char message[300];
    snprintf(message, sizeof(message),
             "Redis cannot be told now. This process has forgotten %zu answers; those in Redis, and in other gateways' "
             "memory, are still there. Try again.",
             count);
    struct dialect_error error = {.status = 503, .code = "redis_unavailable", .message = message};
    call->record.refusal = "redis_unavailable";
    call->transport->refuse(call, &error, 1, 0);
}

/* Memory comes after Redis: until then another request may bring from there what is to be forgotten. */
static void on_done(struct redis_purge *purge, bool purged, enum redis_failure why)
{
    struct job *job = H2O_STRUCT_FROM_MEMBER(struct job, purge, purge);
    struct call *call = job->call;
    (void)why;
    size_t count = purge_memory(call, &job->target);
    call->job = NULL;
    free(job);
    if (purged)
        answer(call, count, true);
    else
        refuse_half_done(call, count);
}

static void end_job(struct call_job *base)
{
    struct job *job = H2O_STRUCT_FROM_MEMBER(struct job, job, base);
    redis_purge_cancel(&job->purge);
    free(job);
}

static void purge(struct call *call, const struct redis_purge_target *target)
{
    struct worker *worker = call->worker;
    const struct config *config = call->site->config;
    if (worker->cache_redis == NULL) {
        answer(call, purge_memory(call, target), false);
        return;
    }
    enum redis_failure why;
    struct job *job = h2o_mem_alloc(sizeof(*job) + target->scope_name.len + target->model.len);
    *job = (struct job){.job.end = end_job, .call = call, .purge.on_done = on_done};
    job->target.scope_name = (struct span){job->strings, target->scope_name.len};
    job->target.model = (struct span){job->strings + target->scope_name.len, target->model.len};
    if (target->scope_name.len != 0)
        memcpy(job->strings, target->scope_name.base, target->scope_name.len);
    if (target->model.len != 0)
        memcpy(job->strings + target->scope_name.len, target->model.base, target->model.len);
    if (!redis_purge_send(&job->purge, worker->redis, span_of(worker->server->first->redis.prefix),
                          &worker->server->purge_origin, target, config->cache.ttl_us, &why)) {
        free(job);
        refuse_half_done(call, purge_memory(call, target));
        return;
    }
    call->job = &job->job;
}

void handle_cache_purge(struct call *call)
{
    struct request request;
    if (read_request(call, &request))
        purge(call, &request.target);
}
