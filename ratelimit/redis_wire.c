#include "ratelimit/redis_wire.h"
#include <assert.h>
#include <endian.h>
#include <stdio.h>

#define PLACE 3
#define RESERVES 16
#define KEY_MAX (REDIS_PREFIX_MAX + 2 + 32)
#define MEMBER_MAX (REDIS_ID_LEN + 1 + 16)
#define ITEM_MAX 42
#define STATE_KEPT 40 /* bytes in an answer */
#define LOG_KEPT 96

_Static_assert(sizeof((struct redis_wire *)0)->_text >=
                   (2 * STORE_ASKS_MAX + REDIS_PLACES_MAX) * KEY_MAX +
                       (STORE_ASKS_MAX + REDIS_PLACES_MAX) * (ITEM_MAX + REDIS_ID_LEN),
               "a request's limits fit");
_Static_assert(sizeof((struct redis_wire *)0)->_text >= KEY_MAX + 8 + REDIS_TEND_MAX * (KEY_MAX + MEMBER_MAX),
               "leases fit");

/* ---- writing ---- */

static void start(struct redis_wire *wire)
{
    wire->count = wire->key_count = 0;
    wire->_next = wire->_text;
}

static void put_bytes(struct redis_wire *wire, const void *bytes, size_t len)
{
    memcpy(wire->_next, bytes, len);
    wire->_next += len;
}

static void put_byte(struct redis_wire *wire, unsigned value)
{
    *wire->_next++ = (char)value;
}

static void put_number(struct redis_wire *wire, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    bits = htole64(bits);
    put_bytes(wire, &bits, sizeof(bits));
}

/* What was put since `from` is an argument. */
static struct span since(const struct redis_wire *wire, const char *from)
{
    return (struct span){from, (size_t)(wire->_next - from)};
}

static void end_arg(struct redis_wire *wire, const char *from)
{
    wire->args[wire->count++] = since(wire, from);
}

static struct span put_key(struct redis_wire *wire, struct span prefix, char kind, const struct key *key)
{
    const char *from = wire->_next;
    assert(prefix.len <= REDIS_PREFIX_MAX);
    put_bytes(wire, prefix.base, prefix.len);
    put_byte(wire, (unsigned char)kind);
    put_byte(wire, ':');
    for (size_t w = 0; w < 2; w++)
        for (int shift = 60; shift >= 0; shift -= 4)
            put_byte(wire, (unsigned char)"0123456789abcdef"[(key->word[w] >> shift) & 15]);
    return since(wire, from);
}

static void add_key(struct redis_wire *wire, struct span prefix, char kind, const struct key *key)
{
    wire->args[wire->count++] = put_key(wire, prefix, kind, key);
    wire->key_count++;
}

static void add_ask_keys(struct redis_wire *wire, struct span prefix, const struct store_ask *ask)
{
    add_key(wire, prefix, 'l', &ask->key);
    if (redis_reserves(ask))
        add_key(wire, prefix, 'r', &ask->key);
}

static unsigned kind_of(const struct store_ask *ask)
{
    return (unsigned)ask->strategy + (redis_reserves(ask) ? RESERVES : 0);
}

static void add_test_now(struct redis_wire *wire, const uint64_t *test_now_us)
{
    if (test_now_us == NULL)
        return;
    const char *from = wire->_next;
    wire->_next += sprintf(wire->_next, "%llu", (unsigned long long)*test_now_us);
    end_arg(wire, from);
}

void redis_wire_hit(struct redis_wire *wire, struct span prefix, const struct redis_question *question,
                    const uint64_t *test_now_us)
{
    assert(question->count <= STORE_ASKS_MAX && question->place_count <= REDIS_PLACES_MAX);
    start(wire);
    for (size_t i = 0; i < question->place_count; i++)
        add_key(wire, prefix, 's', &question->places[i].key);
    for (size_t i = 0; i < question->count; i++)
        add_ask_keys(wire, prefix, &question->asks[i]);
    const char *from = wire->_next;
    put_bytes(wire, question->id, REDIS_ID_LEN);
    for (size_t i = 0; i < question->place_count; i++) {
        put_byte(wire, PLACE);
        put_number(wire, (double)question->places[i].max);
        put_number(wire, 0);
        put_number(wire, 0);
    }
    for (size_t i = 0; i < question->count; i++) {
        const struct store_ask *ask = &question->asks[i];
        put_byte(wire, kind_of(ask));
        put_number(wire, (double)ask->limit->amount);
        put_number(wire, (double)ask->limit->window_us);
        put_number(wire, (double)ask->cost);
    }
    end_arg(wire, from);
    add_test_now(wire, test_now_us);
}

bool redis_wire_settle(struct redis_wire *wire, struct span prefix, const struct redis_question *question,
                       const struct store_answer *answers, const int64_t *deltas, bool end, const uint64_t *test_now_us)
{
    size_t places = end ? question->place_count : 0;
    start(wire);
    for (size_t i = 0; i < places; i++)
        add_key(wire, prefix, 's', &question->places[i].key);
    for (size_t i = 0; i < question->count; i++)
        if (deltas[i] != 0 || (end && redis_reserves(&question->asks[i])))
            add_ask_keys(wire, prefix, &question->asks[i]);
    if (wire->count == 0)
        return false;
    const char *from = wire->_next;
    put_bytes(wire, question->id, REDIS_ID_LEN);
    for (size_t i = 0; i < places; i++) {
        put_byte(wire, PLACE);
        put_byte(wire, (unsigned)i);
        for (int n = 0; n < 5; n++)
            put_number(wire, 0);
    }
    for (size_t i = 0; i < question->count; i++) {
        const struct store_ask *ask = &question->asks[i];
        if (deltas[i] == 0 && !(end && redis_reserves(ask)))
            continue;
        put_byte(wire, kind_of(ask));
        put_byte(wire, (unsigned)(question->place_count + i));
        put_number(wire, (double)ask->limit->amount);
        put_number(wire, (double)ask->limit->window_us);
        put_number(wire, (double)answers[i].ticket._at);
        put_number(wire, (double)ask->cost);
        put_number(wire, (double)deltas[i]);
    }
    end_arg(wire, from);
    add_test_now(wire, test_now_us);
    return true;
}

/* ---- leases ---- */

void redis_wire_tend(struct redis_wire *wire, struct span prefix, uint64_t gateway)
{
    start(wire);
    const char *from = wire->_next;
    put_bytes(wire, prefix.base, prefix.len);
    put_bytes(wire, "gateways", 8);
    end_arg(wire, from);
    wire->key_count = 1;
    from = wire->_next;
    put_bytes(wire, &gateway, sizeof(gateway));
    wire->args[1] = since(wire, from);
    wire->count = 2;
}

/* Keys stand before all members: until the last lease is in, the arguments are apart. */
static void add_lease(struct redis_wire *wire, struct span key, struct span member)
{
    size_t keys = wire->key_count, members = wire->count - keys;
    memmove(&wire->args[keys + 1], &wire->args[keys], members * sizeof(wire->args[0]));
    wire->args[keys] = key;
    wire->key_count++;
    wire->args[wire->count + 1] = member;
    wire->count += 2;
}

bool redis_wire_tend_add(struct redis_wire *wire, struct span prefix, const struct redis_question *question,
                         const struct store_answer *answers, bool reservations)
{
    size_t more = question->place_count;
    for (size_t i = 0; reservations && i < question->count; i++)
        more += redis_reserves(&question->asks[i]);
    if (wire->key_count - 1 + more > REDIS_TEND_MAX)
        return false;
    for (size_t i = 0; i < question->place_count; i++) {
        struct span key = put_key(wire, prefix, 's', &question->places[i].key);
        const char *from = wire->_next;
        put_bytes(wire, question->id, REDIS_ID_LEN);
        put_byte(wire, (unsigned)i);
        add_lease(wire, key, since(wire, from));
    }
    for (size_t i = 0; reservations && i < question->count; i++) {
        const struct store_ask *ask = &question->asks[i];
        if (!redis_reserves(ask))
            continue;
        struct span key = put_key(wire, prefix, 'r', &ask->key);
        const char *from = wire->_next;
        put_bytes(wire, question->id, REDIS_ID_LEN);
        put_byte(wire, (unsigned)(question->place_count + i));
        put_number(wire, (double)answers[i].ticket._at);
        put_number(wire, (double)ask->cost);
        add_lease(wire, key, since(wire, from));
    }
    return true;
}

/* ---- reading ---- */

static double number_at(const char *bytes)
{
    uint64_t bits;
    double value;
    memcpy(&bits, bytes, sizeof(bits));
    bits = le64toh(bits);
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* What no script of ours answers becomes 0. */
static uint64_t whole_at(const char *bytes)
{
    double value = number_at(bytes);
    return value >= 0 && value < 9007199254740992.0 ? (uint64_t)value : 0;
}

/* A state as redis_rules.lua keeps it, and what the hit says of a log besides. */
struct kept {
    struct strategy_state state;
    uint64_t oldest_us, newest_us, fits_us, less_us; /* moving_window; state times */
};

/* Returns the bytes read; 0 if they are too few. */
static size_t read_kept(struct span from, enum limit_strategy strategy, struct kept *kept)
{
    size_t len = strategy == LIMIT_MOVING_WINDOW ? LOG_KEPT : STATE_KEPT;
    if (from.len < len)
        return 0;
    *kept = (struct kept){.state = {._last_us = whole_at(from.base), ._offset_us = whole_at(from.base + 8)}};
    if (strategy == LIMIT_MOVING_WINDOW) {
        kept->state._count = whole_at(from.base + 16);
        kept->oldest_us = whole_at(from.base + 40);
        kept->newest_us = whole_at(from.base + 48);
        kept->fits_us = whole_at(from.base + 80);
        kept->less_us = whole_at(from.base + 88);
    } else {
        kept->state._start_us = whole_at(from.base + 16);
        kept->state._count = whole_at(from.base + 24);
        kept->state._previous = whole_at(from.base + 32);
    }
    return len;
}

/* A state time in Redis's clock. What no script of ours answers must not wrap around. */
static uint64_t redis_time(const struct kept *kept, uint64_t at)
{
    return at > kept->state._offset_us ? at - kept->state._offset_us : 0;
}

/* The same for a log as strategy.c for the others, in Redis's clock. */
static bool log_allows(const struct kept *kept, const struct limit *limit, uint64_t cost, uint64_t *retry_us)
{
    if (limit->amount == 0 || cost > limit->amount) {
        *retry_us = STRATEGY_NEVER;
        return false;
    }
    bool allowed = kept->state._count <= limit->amount - cost;
    *retry_us = redis_time(kept, allowed ? kept->state._last_us : kept->fits_us);
    return allowed;
}

static void log_look(const struct kept *kept, const struct limit *limit, struct strategy_numbers *numbers)
{
    uint64_t count = kept->state._count, t = kept->state._last_us;
    numbers->remaining = limit->amount > count ? limit->amount - count : 0;
    uint64_t less = kept->less_us != 0 ? kept->less_us : kept->oldest_us + limit->window_us;
    numbers->reset_us = redis_time(kept, count == 0 ? t : less);
    numbers->full_us = redis_time(kept, count == 0 ? t : kept->newest_us + limit->window_us);
}

/* A time of Redis's in the clock of `now_us`. */
static uint64_t time_at(uint64_t at, uint64_t redis_now, uint64_t now_us)
{
    return at == STRATEGY_NEVER ? at : at > redis_now ? now_us + (at - redis_now) : now_us;
}

/* The costs of the asks up to the i-th that are decided on the same state. */
static uint64_t total_cost(const struct redis_question *question, size_t i)
{
    uint64_t sum = question->asks[i].cost;
    for (size_t k = 0; k < i; k++)
        if (key_eq(&question->asks[k].key, &question->asks[i].key) &&
            __builtin_add_overflow(sum, question->asks[k].cost, &sum))
            return UINT64_MAX;
    return sum;
}

static void read_answer(const struct redis_question *question, size_t i, bool admitted, struct kept *kept,
                        uint64_t redis_now, uint64_t now_us, struct store_answer *answer)
{
    const struct store_ask *ask = &question->asks[i];
    bool is_log = ask->strategy == LIMIT_MOVING_WINDOW;
    uint64_t retry = redis_time(kept, kept->state._last_us);
    *answer = (struct store_answer){.allowed = admitted};
    if (!admitted)
        answer->allowed = is_log ? log_allows(kept, ask->limit, total_cost(question, i), &retry)
                                 : strategy_allows(ask->strategy, &kept->state, ask->limit, redis_now,
                                                   total_cost(question, i), &retry);
    if (is_log)
        log_look(kept, ask->limit, &answer->numbers);
    else
        strategy_look(ask->strategy, &kept->state, ask->limit, redis_now, &answer->numbers);
    answer->retry_us = time_at(retry, redis_now, now_us);
    answer->numbers.reset_us = time_at(answer->numbers.reset_us, redis_now, now_us);
    answer->numbers.full_us = time_at(answer->numbers.full_us, redis_now, now_us);
    answer->ticket._at = is_log ? kept->newest_us : kept->state._last_us;
}

bool redis_wire_answer(struct span reply, const struct redis_question *question, uint64_t now_us,
                       struct store_answer *answers, struct redis_verdict *verdict)
{
    if (reply.len < 9)
        return false;
    uint64_t redis_now = whole_at(reply.base);
    unsigned flag = (unsigned char)reply.base[8];
    *verdict = (struct redis_verdict){.place = REDIS_PLACES_MAX};
    if (flag >= 2) {
        verdict->place = flag - 2;
        return reply.len == 9 && verdict->place < question->place_count;
    }
    verdict->admitted = flag == 1;
    reply = span_skip(reply, 9);
    bool any = false;
    for (size_t i = 0; i < question->count; i++) {
        struct kept kept;
        size_t len = read_kept(reply, question->asks[i].strategy, &kept);
        if (len == 0)
            return false;
        reply = span_skip(reply, len);
        read_answer(question, i, verdict->admitted, &kept, redis_now, now_us, &answers[i]);
        if (!answers[i].allowed && (!any || answers[i].retry_us > answers[verdict->refused].retry_us))
            verdict->refused = i;
        any = any || !answers[i].allowed;
    }
    return reply.len == 0 && verdict->admitted != any;
}
