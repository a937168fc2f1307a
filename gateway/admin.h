/* What administrators may do: the routes below /admin, which exist only where an admin key is configured, at an address
 * of their own if the configuration says so (site_route_is_at). Each is a row of the route table whose one dependency
 * is DEPEND_ADMIN_KEY; an API key opens none of them, and an admin key opens nothing else but /metrics. */
#ifndef WEIR_GATEWAY_ADMIN_H
#define WEIR_GATEWAY_ADMIN_H

#include "gateway/depend.h"

/* The admin whose key the request brings; NULL if it brings none or a wrong one. Not counted. */
struct identity *admin_find(const struct call *call);

/* Refuses a call that brings no admin key, or a wrong one, with 401. */
void admin_refuse(struct call *call);

/* Requires an admin key; the call's identity is then the admin. */
enum depend_result depend_admin_key(struct call *call);

/* What is wrong with one value of a body, in the words of FastAPI's 422. */
struct admin_problem {
    const char *type;     /* "string_type" */
    const char *member;   /* of the body; NULL: the body itself */
    const size_t *offset; /* in bytes, of JSON that does not parse; NULL otherwise */
    const char *msg;
    struct span input; /* the value, as JSON; empty: null */
    const char *ctx;   /* as JSON; NULL: none */
};

/* Refuses a body with 422. */
void admin_refuse_body(struct call *call, const struct admin_problem *problem);

/* Scans a body as json_scan does; refuses one that is too long with 413, what is not JSON with 422. False if it did. */
bool admin_read_body(struct call *call, const struct span *members, size_t count, struct json_value *values,
                     struct json_value *root);

/* POST /admin/cache/purge, body {"key": NAME}, {"model": NAME}, both (what has both), or {"all": true}: forgets stored
 * answers, in this process, in Redis and in all gateways that share it. Answers with the number that this process held,
 * and whether Redis has been told. 503 if it has not: then only this process has forgotten. */
void handle_cache_purge(struct call *call);

/* GET /admin/backends: all servers with what is known of them. POST: adds one, the body being an item of the
 * configuration's `backends:`, with its name; it serves until it is removed or the configuration is read again. */
void handle_backends(struct call *call);

/* DELETE /admin/backends/NAME: gives it no more requests and removes it once those that it has are done (?force=true:
 * at once; they go on all the same). POST /admin/backends/NAME/drain: gives it no more requests. */
void handle_backend(struct call *call);

/* POST /admin/reload: as SIGHUP, and says what came of it. */
void handle_reload(struct call *call);

#endif
