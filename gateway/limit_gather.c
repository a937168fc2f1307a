#include "gateway/limit_round.h"
#include "gateway/worker.h"
#include <stdlib.h>

#define BYTES_PER_TOKEN 4 /* of a request's body: a cheap rule that errs on the high side for English */

/* ---- keys ---- */

static void make_keys(struct limit_keys *keys, const struct key_secret *secret, const char *name,
                      const struct limit *limits, size_t count, enum limit_strategy strategy, enum limit_by by)
{
    keys->kind = key_kind_of(secret, span_of(config_limit_by_name(by)));
    for (size_t i = 0; i < count; i++) {
        keys->own[i] = key_of_limit(secret, span_of(name), &limits[i], strategy);
        keys->share[i] = key_of_share(secret, span_of(name), &limits[i], strategy);
        keys->common[i] = key_of_limit(NULL, span_of(name), &limits[i], strategy);
    }
}

struct limit_keys *limit_keys_create(const struct config *config, const struct key_secret *secret)
{
    struct limit_keys *keys = calloc(config->limit_count + config->key_count + 1, sizeof(*keys));
    if (keys == NULL)
        abort();
    for (size_t i = 0; i < config->limit_count; i++) {
        const struct config_limit *limit = &config->limits[i];
        make_keys(&keys[i], secret, limit->name, limit->limits, limit->count, limit->strategy, limit->by);
    }
    /* No limit of the configuration can have a name with blanks. */
    for (size_t i = 0; i < config->key_count; i++)
        make_keys(&keys[config->limit_count + i], secret, "a key's own", config->keys[i].limits,
                  config->keys[i].limit_count, LIMIT_MOVING_WINDOW, LIMIT_BY_API_KEY);
    return keys;
}

/* ---- what a request costs ---- */

/* The most tokens that the client lets the model answer with; false if it does not say. */
static bool asked_for(const struct call *call, uint64_t *tokens)
{
    static const struct span names[] = {SPAN("max_completion_tokens"), SPAN("max_output_tokens"), SPAN("max_tokens")};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct json_value *value = call_field(call, names[i]);
        if (value == NULL || value->type != JSON_NUMBER)
            continue;
        /* Some languages write whole numbers as 100.0 or 1e2. What follows a number in JSON ends it. */
        double number = strtod(value->raw.base, NULL);
        bool large = number >= (double)LIMIT_AMOUNT_MAX; /* what is too large to be counted is too large */
        if (number >= 0 && (large || number == (double)(uint64_t)number)) {
            *tokens = large ? LIMIT_AMOUNT_MAX : (uint64_t)number;
            return true;
        }
    }
    return false;
}

static uint64_t cost_of(struct limit_decision *decision, const struct limit *limit, const struct config_limit *of)
{
    struct call *call = decision->call;
    uint64_t tokens = 0, guess = decision->prompt_guess;
    if (limit->unit == LIMIT_REQUESTS)
        return of != NULL ? of->cost : 1;
    if (asked_for(call, &tokens))
        return guess + tokens;
    if (call->route->route.body != NULL && call->route->route.dialect != DIALECT_EMBEDDINGS)
        guess += call->worker->completion_average;
    /* What nobody asked for must not make a request impossible that may well fit. */
    return guess < limit->amount ? guess : limit->amount;
}

/* ---- whom it counts against ---- */

#define VALUE_MAX 256

/* The body's `user`, or for Anthropic's API `metadata.user_id`, however it is spelt; what is no string, or a long one,
 * counts as it is written, and null as nobody. */
static struct span user_of(struct call *call, char buf[VALUE_MAX])
{
    static const struct span user_id[] = {SPAN("user_id")};
    call_model(call); /* scans */
    const struct json_value *user = call_field(call, SPAN("user")), *metadata = call_field(call, SPAN("metadata"));
    struct json_value inner;
    struct json_error error;
    if (metadata != NULL && metadata->type == JSON_OBJECT && json_scan(metadata->raw, user_id, 1, &inner, NULL, &error))
        user = &inner;
    if (user == NULL || user->type == JSON_MISSING || user->type == JSON_NULL)
        return SPAN_NONE;
    long n = user->type == JSON_STRING ? json_string_decode(user->raw, buf, VALUE_MAX) : -1;
    return n >= 0 ? (struct span){buf, (size_t)n} : user->raw;
}

/* The text that tells this client from others; `buf` may serve to hold it. */
static struct span value_of(struct call *call, enum limit_by by, char buf[VALUE_MAX])
{
    switch (by) {
    case LIMIT_BY_API_KEY:
        if (call->identity != NULL)
            return span_of(call->identity->name);
        /* Nobody in particular is told apart by address. */
        __attribute__((fallthrough));
    case LIMIT_BY_ADDRESS:
        memcpy(buf, &call->client, 16);
        /* A customer of an IPv6 provider has a /64 to choose addresses from. */
        return (struct span){buf, IN6_IS_ADDR_V4MAPPED(&call->client) ? 16 : 8};
    case LIMIT_BY_ROUTE:
        return call->route->route.path;
    case LIMIT_BY_MODEL:
        return call_model(call);
    case LIMIT_BY_USER:
        return user_of(call, buf);
    case LIMIT_BY_CONSTANT:
        break;
    }
    return SPAN_NONE;
}

static bool is_exempt(const struct call *call, const struct config_limit *limit)
{
    for (size_t i = 0; i < limit->exempt_key_count; i++)
        if (call->identity != NULL && strcmp(call->identity->name, limit->exempt_keys[i]) == 0)
            return true;
    for (size_t i = 0; i < limit->exempt_network_count; i++)
        if (config_network_contains(&limit->exempt_networks[i], &call->client))
            return true;
    return false;
}

/* Adds the limits of one entry of the configuration, or of a key. */
static void ask(struct limit_decision *decision, const struct limit_keys *keys, const struct limit *limits,
                size_t count, enum limit_strategy strategy, enum limit_by by, const struct config_limit *of)
{
    char buf[VALUE_MAX];
    struct span value = value_of(decision->call, by, buf);
    struct key client =
        limit_client_key(&decision->call->worker->limit_clients, decision->common ? NULL : &keys->kind, by, value);
    for (size_t i = 0; i < count && decision->count < STORE_ASKS_MAX; i++) {
        decision->of[decision->count] = of;
        decision->asks[decision->count++] = (struct store_ask){
            .key = key_for(decision->common ? &keys->common[i] : &keys->own[i], &client),
            .share = keys->share[i],
            .limit = &limits[i],
            .strategy = strategy,
            .cost = cost_of(decision, &limits[i], of),
        };
    }
}

void limit_gather(struct limit_decision *decision, struct call *call, bool common)
{
    const char *only = call->route->depend_limit[call->next_depend - 1];
    decision->call = call;
    decision->common = common;
    decision->count = 0;
    decision->prompt_guess = 0;
    call_model(call);
    /* Files and other uploads are no prompts. */
    if (call->route->route.body != NULL)
        decision->prompt_guess = call->body.len / BYTES_PER_TOKEN;
    const struct config *config = call->site->config;
    const struct config_key *own = !call->is_message && call->identity != NULL && call->identity->key != NULL &&
                                           call->identity->key->limit_count != 0
                                       ? call->identity->key
                                       : NULL;
    bool by_key = false;
    for (size_t i = 0; i < config->limit_count; i++) {
        const struct config_limit *limit = &config->limits[i];
        if ((only != NULL && strcmp(limit->name, only) != 0) || limit->per_message != call->is_message ||
            is_exempt(call, limit) || !config_limit_applies(limit, call->route->route.path))
            continue;
        if (limit->by == LIMIT_BY_API_KEY && own != NULL)
            by_key = true;
        else
            ask(decision, &call->site->limit_keys[i], limit->limits, limit->count, limit->strategy, limit->by, limit);
    }
    decision->own = own != NULL && (by_key || only == NULL) && (call->limits == NULL || !call->limits->own_asked);
    if (decision->own)
        ask(decision, &call->site->limit_keys[config->limit_count + (size_t)(own - config->keys)], own->limits,
            own->limit_count, LIMIT_MOVING_WINDOW, LIMIT_BY_API_KEY, NULL);
}

/* ---- places ---- */

void limit_places(const struct call *call, bool common, struct limit_places *places)
{
    const struct config_key *key = call->identity != NULL ? call->identity->key : NULL;
    const struct call_limits *limits = call->limits;
    const struct key_secret *secret = common ? NULL : &call->worker->server->limit_secret;
    struct span parts[] = {SPAN("max_streams"), key != NULL ? span_of(key->name) : SPAN_NONE};
    places->count = 0;
    if (call->is_message) /* its socket has them */
        return;
    if (key != NULL && key->max_streams != 0 && (limits == NULL || !limits->leased[0])) {
        places->which[places->count] = 0;
        places->places[places->count++] = (struct redis_place){key_make(secret, parts, 2), key->max_streams};
    }
    if (call->site->config->max_streams != 0 && (limits == NULL || !limits->leased[1])) {
        places->which[places->count] = 1;
        places->places[places->count++] =
            (struct redis_place){key_make(secret, parts, 1), call->site->config->max_streams};
    }
}
