#include "gateway/realtime_gate.h"
#include "base/clock.h"
#include "gateway/limit.h"
#include "gateway/worker.h"

#define EVENT_MAX ((size_t)4096)
#define EVENT_ID_DIGITS 21

static void on_refused(struct call *call, const struct dialect_error *error, unsigned retry_after, int retry);
static void on_allowed(struct call *call);

static const struct call_transport transport = {.refuse = on_refused};

void realtime_gate_init(struct realtime_gate *gate, const struct call *call, void (*decided)(void *ctx, bool open),
                        void *ctx)
{
    const struct config *config = call->site->config;
    memset(gate, 0, sizeof(*gate));
    gate->_decided = decided;
    gate->_ctx = ctx;
    strbuf_init(&gate->event, EVENT_MAX);
    for (size_t i = 0; i < config->limit_count; i++)
        gate->_any |=
            config->limits[i].per_message && config_limit_applies(&config->limits[i], call->route->route.path);
    gate->_route = *call->route;
    gate->_route.depends[0] = DEPEND_LIMIT;
    gate->_route.depend_limit[0] = NULL;
    gate->_route.depend_count = 1;
    gate->_route.route.handle = on_allowed;
    gate->_call.transport = &transport;
    gate->_call.worker = call->worker;
    gate->_call.site = call->site;
    gate->_call.route = &gate->_route;
    gate->_call.identity = call->identity;
    gate->_call.client = call->client;
    gate->_call.is_message = true;
    memcpy(gate->_call.request_id, call->request_id, sizeof(call->request_id));
    memcpy(gate->_call.model, call->model, call->model_len);
    gate->_call.model_len = call->model_len;
}

void realtime_gate_dispose(struct realtime_gate *gate)
{
    call_end_job(&gate->_call);
    limit_settle(&gate->_call);
    strbuf_dispose(&gate->event);
}

/* Decided: at once, or after a while. */
static void decide(struct realtime_gate *gate, enum realtime_gate_result result)
{
    gate->_result = result;
    if (!gate->_asking)
        gate->_decided(gate->_ctx, result == GATE_OPEN);
}

enum realtime_gate_result realtime_gate_ask(struct realtime_gate *gate)
{
    if (!gate->_any)
        return GATE_OPEN;
    limit_settle(&gate->_call); /* the last message's */
    gate->_call.next_depend = 0;
    gate->_call.record = (struct call_record){.started_us = clock_us()};
    gate->_result = GATE_WAIT;
    gate->_asking = true;
    call_run(&gate->_call);
    gate->_asking = false;
    return gate->_result;
}

static void on_allowed(struct call *call)
{
    decide(H2O_STRUCT_FROM_MEMBER(struct realtime_gate, _call, call), GATE_OPEN);
}

static void put_member(struct strbuf *out, const char *key, const char *value)
{
    strbuf_puts(out, key);
    strbuf_json_or_null(out, value);
}

static void on_refused(struct call *call, const struct dialect_error *error, unsigned retry_after, int retry)
{
    struct realtime_gate *gate = H2O_STRUCT_FROM_MEMBER(struct realtime_gate, _call, call);
    char id[EVENT_ID_DIGITS + 1] = "";
    (void)retry_after;
    (void)retry;
    ids_hex(id, EVENT_ID_DIGITS);
    strbuf_reset(&gate->event);
    strbuf_printf(&gate->event, "{\"type\":\"error\",\"event_id\":\"event_%s\",\"error\":", id);
    put_member(&gate->event, "{\"type\":", error->type);
    put_member(&gate->event, ",\"code\":", error->code);
    put_member(&gate->event, ",\"message\":", error->message);
    strbuf_puts(&gate->event, ",\"param\":null,\"event_id\":null}}");
    decide(gate, GATE_SHUT);
}
