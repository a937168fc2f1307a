/* What a completion needs to know of its call. */
#include "backends/balance.h"
#include "base/units.h"
#include "gateway/completion.h"
#include "gateway/worker.h"

#define SECONDS_MAX 86400000 /* more than any total that makes sense */

static struct span body_raw(const struct call *call, struct span name)
{
    const struct body_descriptor *body = call->route->route.body;
    for (size_t i = 0; body != NULL && call->scan == CALL_SCANNED && i < body->field_count; i++)
        if (span_eq(body->fields[i].name, name) && call->fields[i].type != JSON_MISSING &&
            call->fields[i].type != JSON_NULL)
            return call->fields[i].raw;
    return SPAN_NONE;
}

uint64_t completion_owner(const struct call *call)
{
    if (call->identity != NULL)
        return balance_hash(call->identity->name, strlen(call->identity->name), 1);
    return balance_hash(&call->client, sizeof(call->client), 2);
}

static void hint_key(struct call *call, const struct fleet_settings *settings, struct pool_hint *hint)
{
    struct span value = SPAN_NONE;
    if (settings->by == BALANCE_BY_KEY) {
        hint->key = completion_owner(call);
        hint->has_key = true;
        return;
    }
    if (settings->by == BALANCE_BY_USER)
        value = body_raw(call, SPAN("user"));
    else
        value = call_header(call, span_of(settings->header));
    hint->has_key = value.len != 0;
    hint->key = balance_hash(value.base, value.len, 3);
}

void completion_hint(struct call *call, struct pool_hint *hint)
{
    const struct fleet_settings *settings = fleet_settings(pool_fleet(call->pool));
    *hint = (struct pool_hint){.has_key = false};
    if (settings->policy == BALANCE_CONSISTENT_HASH) {
        hint_key(call, settings, hint);
    } else if (settings->policy == BALANCE_PREFIX) {
        static const struct span names[] = {SPAN("messages"), SPAN("input"), SPAN("prompt")};
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && hint->prompt.len == 0; i++)
            hint->prompt = body_raw(call, names[i]);
    }
}

bool completion_client_deadline(const struct call *call, uint64_t *deadline_us)
{
    uint64_t seconds = 0, fraction_us = 0;
    struct span text = call_header(call, SPAN("x-weir-timeout"));
    *deadline_us = 0;
    if (text.base == NULL)
        return true;
    struct span whole = text, fraction = SPAN_NONE;
    const char *dot = text.len != 0 ? memchr(text.base, '.', text.len) : NULL;
    if (dot != NULL) {
        whole.len = (size_t)(dot - text.base);
        fraction = span_skip(text, whole.len + 1);
        if (fraction.len == 0 || fraction.len > 6 || !units_number(fraction, 999999, &fraction_us))
            return false;
        for (size_t i = fraction.len; i < 6; i++)
            fraction_us *= 10;
    }
    if (!units_number(whole, SECONDS_MAX, &seconds) || seconds + fraction_us == 0)
        return false;
    *deadline_us = call->record.started_us + seconds * 1000000 + fraction_us;
    return true;
}

struct backend_timeouts completion_timeouts(const struct call *call, const struct backend_settings *settings)
{
    struct backend_timeouts timeouts = settings->timeouts;
    const struct backend_timeouts *own = call->route->timeouts;
    if (own == NULL)
        return timeouts;
    if (own->connect != CONFIG_TIMEOUT_UNSET)
        timeouts.connect = own->connect;
    if (own->first_token != CONFIG_TIMEOUT_UNSET)
        timeouts.first_token = own->first_token;
    if (own->idle != CONFIG_TIMEOUT_UNSET)
        timeouts.idle = own->idle;
    if (own->total != CONFIG_TIMEOUT_UNSET)
        timeouts.total = own->total;
    return timeouts;
}
