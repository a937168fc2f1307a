/* Model servers that come and go while the gateway runs. */
#include "base/clock.h"
#include "base/json_scan.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "gateway/added_backends.h"
#include "gateway/admin.h"
#include "gateway/reload.h"
#include "gateway/worker.h"
#include <stdio.h>
#include <time.h>

#define LIST_MAX ((size_t)32 * 1024 * 1024)
#define NAMES_MAX 20000 /* of models, that a list shows of all servers together */
#define NAME_LEN_MAX 512
#define UNTIL_LEN 32

static const struct span json = SPAN("application/json");

static void log_server(const struct fleet_server *server, const char *state, const struct call *call)
{
    struct log_line line;
    if (!log_enabled(LOG_INFO))
        return;
    log_begin(&line, LOG_INFO, "backend");
    log_str(&line, "backend", span_of(server->name));
    log_str(&line, "state", span_of(state));
    log_str(&line, "reason", SPAN("an administrator asked for it"));
    log_str(&line, "key", span_of(call->identity->name));
    log_end(&line);
}

static void refuse(struct call *call, int status, const char *code, const char *message)
{
    struct dialect_error error = {.status = status, .code = code, .message = message};
    call_refuse(call, code, &error);
}

/* ---- the list ---- */

/* The address as far as it is no secret: keys stand in queries. */
static void put_url(struct strbuf *out, const struct backend_url *url)
{
    char text[2300];
    if (url->kind == BACKEND_DEMO)
        snprintf(text, sizeof(text), "demo:");
    else if (url->unix_path != NULL)
        snprintf(text, sizeof(text), "http://unix:%s%s%s", url->unix_path, url->path[0] != '\0' ? ":" : "", url->path);
    else
        snprintf(text, sizeof(text), "http%s://%s%s", url->tls ? "s" : "", url->authority, url->path);
    strbuf_json(out, span_of(text));
}

/* The wall clock's time of a moment to come. RFC 3339 §5.6. */
static void put_until(struct strbuf *out, uint64_t until_us, uint64_t now_us)
{
    char text[UNTIL_LEN];
    struct timespec now;
    struct tm tm;
    if (until_us == 0) {
        strbuf_puts(out, "null");
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    time_t second = now.tv_sec + (time_t)((until_us - now_us + (uint64_t)now.tv_nsec / 1000) / 1000000);
    gmtime_r(&second, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    strbuf_printf(out, "\"%s\"", text);
}

static void put_model(struct strbuf *out, const char *name, bool first)
{
    strbuf_puts(out, first ? "" : ", ");
    strbuf_json(out, span_of(name));
}

static void put_models(struct strbuf *out, struct fleet_server *server, size_t *budget)
{
    const struct backend_settings *settings = server->settings;
    char problem[160];
    struct model_names *names = fleet_names(server, problem, sizeof(problem));
    size_t count = names != NULL ? model_names_count(names) : settings->model_count, shown = 0;
    strbuf_puts(out, ", \"models\": [");
    for (; shown < count && *budget != 0; shown++, --*budget)
        put_model(out, names != NULL ? model_names_at(names, shown) : settings->models[shown].pattern, shown == 0);
    /* What lists nothing serves all, unless it was asked and said that it has nothing. */
    if (names == NULL && count == 0)
        put_model(out, "*", true);
    strbuf_printf(out, "], \"models_left_out\": %zu, \"models_problem\": ", count - shown);
    strbuf_json_or_null(out, problem[0] != '\0' ? problem : NULL);
    if (names != NULL)
        model_names_release(names);
}

static void put_number(struct strbuf *out, const char *name, uint64_t number)
{
    strbuf_printf(out, ", \"%s\": ", name);
    strbuf_u64(out, number);
}

static void put_server(struct strbuf *out, struct fleet_server *server, uint64_t now, size_t *budget)
{
    static const char *const probes[] = {
        [FLEET_PROBE_NONE] = "null", [FLEET_PROBE_UP] = "\"up\"", [FLEET_PROBE_DOWN] = "\"down\""};
    uint64_t until, latency = fleet_latency_us(server, now);
    strbuf_puts(out, "{\"name\": ");
    strbuf_json(out, span_of(server->name));
    strbuf_puts(out, ", \"url\": ");
    put_url(out, &server->settings->url);
    strbuf_printf(out, ", \"state\": \"%s\", \"until\": ", fleet_state(server, now, &until));
    put_until(out, until, now);
    strbuf_printf(out, ", \"leaving\": %s, \"probe\": %s",
                  atomic_load_explicit(&server->leaving, memory_order_relaxed) ? "true" : "false",
                  probes[atomic_load_explicit(&server->_probed, memory_order_relaxed)]);
    put_number(out, "in_flight", fleet_in_flight(server));
    put_number(out, "weight", server->weight);
    put_number(out, "max_concurrent", server->max_concurrent);
    put_number(out, "latency_ms", latency / 1000);
    put_number(out, "ejections", atomic_load_explicit(&server->ejections, memory_order_relaxed));
    put_number(out, "pauses", atomic_load_explicit(&server->pauses, memory_order_relaxed));
    put_models(out, server, budget);
    strbuf_puts(out, "}");
}

/* One server, or with `one` NULL all of them. */
static void answer(struct call *call, int status, struct fleet *fleet, struct fleet_server *one)
{
    struct strbuf body;
    uint64_t now = clock_us();
    size_t budget = NAMES_MAX;
    strbuf_init(&body, LIST_MAX);
    if (one != NULL) {
        put_server(&body, one, now, &budget);
        strbuf_puts(&body, "\n");
    } else {
        struct fleet_set *set = fleet_set_get(fleet);
        strbuf_puts(&body, "{\"backends\": [\n");
        for (size_t i = 0; i < set->count; i++) {
            strbuf_puts(&body, i != 0 ? ",\n  " : "  ");
            put_server(&body, set->servers[i], now, &budget);
        }
        fleet_set_release(set);
        strbuf_printf(&body, "\n], \"waiting\": %zu}\n", fleet_waiting(fleet));
    }
    call->transport->answer(call, status, json, strbuf_span(&body));
    strbuf_dispose(&body);
}

/* ---- adding ---- */

/* The newest site, counted; changes to its fleet wait for each other, and for a reload. */
static struct site *lock(struct call *call)
{
    struct server *server = call->worker->server;
    pthread_mutex_lock(&server->reloading);
    return site_retain(server->site);
}

static void unlock(struct call *call, struct site *site)
{
    pthread_mutex_unlock(&call->worker->server->reloading);
    site_release(site);
}

static void refuse_value(struct call *call, const char *member, const char *message)
{
    char text[1100];
    snprintf(text, sizeof(text), "Value error, %s", message);
    struct admin_problem problem = {
        .type = "value_error", .member = member[0] != '\0' ? member : NULL, .msg = text, .ctx = "{\"error\":{}}"};
    admin_refuse_body(call, &problem);
}

static void add(struct call *call)
{
    char error[1024], member[64];
    struct json_value root;
    if (!admin_read_body(call, NULL, 0, NULL, &root))
        return;
    if (root.type != JSON_OBJECT) {
        refuse_value(call, "", "expected an object, as an item of `backends:`");
        return;
    }
    struct site *site = lock(call);
    bool conflict;
    struct fleet_server *server = added_backend_join(site, root.raw, member, error, sizeof(error), &conflict);
    if (server != NULL) {
        log_server(server, "added", call);
        answer(call, 201, site->fleet, server);
    } else if (conflict) {
        refuse(call, 409, "backend_conflict", error);
    } else {
        refuse_value(call, member, error);
    }
    unlock(call, site);
}

void handle_backends(struct call *call)
{
    if (span_eq(call->method, SPAN("POST")))
        add(call);
    else
        answer(call, 200, call->site->fleet, NULL);
}

/* ---- draining and removing ---- */

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The name in the path, %-decoded. RFC 3986 §2.1. False if it cannot be one. */
static bool decode_name(struct span text, char name[NAME_LEN_MAX])
{
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        int c = (unsigned char)text.base[i];
        if (c == '%') {
            if (i + 2 >= text.len || hex(text.base[i + 1]) < 0 || hex(text.base[i + 2]) < 0)
                return false;
            c = hex(text.base[i + 1]) << 4 | hex(text.base[i + 2]);
            i += 2;
        }
        if (c == 0 || len + 1 >= NAME_LEN_MAX)
            return false;
        name[len++] = (char)c;
    }
    name[len] = '\0';
    return len != 0;
}

/* The servers of this name, which all addresses of a backend bear, or the one address. The set must stay. */
static size_t find(const struct fleet_set *set, const char *name, struct fleet_server **found)
{
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->servers[i]->settings->name, name) == 0 || strcmp(set->servers[i]->name, name) == 0)
            found[count++] = set->servers[i];
    return count;
}

static void drain(struct call *call, struct fleet *fleet, struct fleet_server **servers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fleet_drain(fleet, servers[i]);
        log_server(servers[i], "draining", call);
    }
    answer(call, 200, fleet, count == 1 ? servers[0] : NULL);
}

static void undrain(struct call *call, struct fleet *fleet, struct fleet_server **servers, size_t count)
{
    size_t stay = 0;
    for (size_t i = 0; i < count; i++)
        stay += !fleet_server_is_leaving(servers[i]);
    if (stay == 0) {
        refuse(call, 409, "backend_leaving", "This backend is about to be removed.");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (fleet_server_is_leaving(servers[i]))
            continue; /* an address that is gone from the name */
        fleet_undrain(fleet, servers[i]);
        log_server(servers[i], "undrained", call);
    }
    answer(call, 200, fleet, count == 1 ? servers[0] : NULL);
}

static void remove_servers(struct call *call, struct fleet *fleet, struct fleet_server **servers, size_t count,
                           bool force)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        struct fleet_server *server = servers[i];
        fleet_drain(fleet, server);
        bool now = force || fleet_in_flight(server) == 0;
        log_server(server, now ? "removed" : "draining", call);
        atomic_store_explicit(&server->leaving, !now, memory_order_relaxed);
        if (now)
            fleet_remove(fleet, server);
        left += !now;
    }
    if (left == 0)
        call->transport->answer(call, 200, json, SPAN("{\"status\": \"removed\"}\n"));
    else
        answer(call, 202, fleet, count == 1 ? servers[0] : NULL);
}

/* A backend whose name stands for several addresses is looked up no longer. */
static void retire(struct fleet_server **servers, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(servers[i]->settings->name, name) == 0)
            atomic_store_explicit(&(servers[i]->root != NULL ? servers[i]->root : servers[i])->retired, true,
                                  memory_order_relaxed);
}

/* Cuts `end` off. False if the text does not end with it, or is nothing else. */
static bool cut_end(struct span *text, struct span end)
{
    if (text->len <= end.len || memcmp(text->base + text->len - end.len, end.base, end.len) != 0)
        return false;
    text->len -= end.len;
    return true;
}

void handle_backend(struct call *call)
{
    struct span rest = span_skip(call->path, sizeof("/admin/backends/") - 1);
    bool post = span_eq(call->method, SPAN("POST"));
    bool drains = post && cut_end(&rest, SPAN("/drain"));
    char name[NAME_LEN_MAX];
    if (post && !drains && !cut_end(&rest, SPAN("/undrain"))) {
        refuse(call, 404, "not_found", "Expected POST /admin/backends/NAME/drain or /undrain.");
        return;
    }
    bool force = span_eq(call->query, SPAN("force=true"));
    if (!post && call->query.len != 0 && !force && !span_eq(call->query, SPAN("force=false"))) {
        refuse(call, 422, "invalid_query", "Expected ?force=true or nothing in the query.");
        return;
    }
    struct site *site = lock(call);
    struct fleet_set *set = fleet_set_get(site->fleet);
    struct fleet_server *servers[FLEET_SERVERS_MAX];
    size_t count = decode_name(rest, name) ? find(set, name, servers) : 0;
    if (count == 0) {
        refuse(call, 404, "backend_not_found", "There is no backend of this name.");
    } else if (drains) {
        drain(call, site->fleet, servers, count);
    } else if (post) {
        undrain(call, site->fleet, servers, count);
    } else {
        retire(servers, count, name);
        remove_servers(call, site->fleet, servers, count, force);
    }
    fleet_set_release(set);
    unlock(call, site);
}

/* ---- all of it ---- */

void handle_reload(struct call *call)
{
    char error[1024];
    if (reload(call->worker->server, error, sizeof(error))) {
        call->transport->answer(call, 200, json, SPAN("{\"status\": \"ok\"}\n"));
        return;
    }
    struct dialect_error bad = {.status = 422, .code = "invalid_configuration", .message = error};
    call_refuse(call, "invalid_configuration", &bad);
}
