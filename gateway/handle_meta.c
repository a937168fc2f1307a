#include "gateway/handle_meta.h"
#include "base/clock.h"
#include "gateway/admin.h"
#include "gateway/worker.h"

#define TEXT_MAX ((size_t)65536)
#define HEALTH_MAX ((size_t)262144) /* FLEET_SERVERS_MAX of the longest names */
#define METRICS_MAX ((size_t)32 * 1024 * 1024)

static const struct span json = SPAN("application/json");

static void answer(struct call *call, int status, struct span type, struct strbuf *body)
{
    call->transport->answer(call, status, type, strbuf_span(body));
    strbuf_dispose(body);
}

void handle_index(struct call *call)
{
    struct strbuf body;
    strbuf_init(&body, TEXT_MAX);
    strbuf_puts(&body, "{\"name\": \"weir\", \"version\": \"" WEIR_VERSION "\", \"routes\": {\n");
    const char *before = "  ";
    for (size_t i = 0; i < call->site->route_count; i++) {
        const struct route *route = &call->site->routes[i].route;
        if (!site_route_is_at(call->site, &call->site->routes[i], call->admin_address))
            continue;
        strbuf_puts(&body, before);
        strbuf_json(&body, route->path);
        strbuf_puts(&body, ": ");
        strbuf_json(&body, span_of(route->summary));
        before = ",\n  ";
    }
    strbuf_puts(&body, "\n}}\n");
    answer(call, 200, json, &body);
}

void handle_livez(struct call *call)
{
    call->transport->answer(call, 200, json, SPAN("{\"status\": \"ok\"}\n"));
}

void handle_readyz(struct call *call)
{
    bool draining = atomic_load_explicit(&call->worker->server->draining, memory_order_relaxed);
    const struct config *config = call->site->config;
    struct fleet_set *set = fleet_set_get(pool_fleet(call->pool));
    struct strbuf body;
    uint64_t now = clock_us(), until;
    bool redis = !config->redis.on || redis_state_up(&call->worker->server->redis);
    strbuf_init(&body, HEALTH_MAX);
    strbuf_printf(&body, "{\"status\": \"%s\"", draining ? "draining" : redis ? "ok" : "degraded");
    if (config->redis.on)
        strbuf_printf(&body, ", \"redis\": \"%s\"", redis ? "up" : "down");
    strbuf_puts(&body, ", \"backends\": [");
    for (size_t i = 0; i < set->count; i++) {
        const struct fleet_server *server = set->servers[i];
        strbuf_puts(&body, i != 0 ? ", {\"name\": " : "{\"name\": ");
        strbuf_json(&body, span_of(server->name));
        strbuf_printf(&body, ", \"state\": \"%s\", \"in_flight\": %u}", fleet_state(server, now, &until),
                      fleet_in_flight(server));
    }
    fleet_set_release(set);
    strbuf_printf(&body, "], \"waiting\": %zu}\n", fleet_waiting(pool_fleet(call->pool)));
    answer(call, draining ? 503 : 200, json, &body);
}

/* Numbers about keys and models are nobody else's business: without an admin key the route is for this machine and the
 * admin address only, unless the configuration names it public or guards it with keys. */
static bool may_see_metrics(const struct call *call)
{
    static const struct in6_addr loopback = IN6ADDR_LOOPBACK_INIT;
    if (call->admin_address || admin_find(call) != NULL)
        return true;
    for (size_t i = 0; i < call->site->config->route_count; i++) {
        const struct config_route *route = &call->site->config->routes[i];
        if (route->has_depends && strcmp(route->path, "/metrics") == 0)
            return true;
    }
    const struct in6_addr *client = &call->client;
    return IN6_IS_ADDR_UNSPECIFIED(client) || memcmp(client, &loopback, sizeof(loopback)) == 0 ||
           (IN6_IS_ADDR_V4MAPPED(client) && client->s6_addr[12] == 127);
}

void handle_metrics(struct call *call)
{
    bool may_see = may_see_metrics(call);
    if (!may_see && call->site->config->admin.key_count != 0) {
        admin_refuse(call);
        return;
    }
    if (!may_see) {
        struct dialect_error error = {
            .status = 403,
            .message = "Metrics are shown to this machine only; `routes:` can make /metrics public or ask for a key."};
        call_refuse(call, "metrics_not_public", &error);
        return;
    }
    struct strbuf body;
    strbuf_init(&body, METRICS_MAX);
    telemetry_write(call->worker->server->workers, call->worker->server->worker_count, call->site->fleet, &body);
    answer(call, 200, SPAN("text/plain; version=0.0.4; charset=utf-8"), &body);
}

void handle_version(struct call *call)
{
    call->transport->answer(call, 200, json, SPAN("{\"name\": \"weir\", \"version\": \"" WEIR_VERSION "\"}\n"));
}
