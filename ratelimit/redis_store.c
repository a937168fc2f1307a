#include "ratelimit/redis_store.h"
#include "base/clock.h"
#include "base/ids.h"
#include "ratelimit/limit_scripts.h"
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

#define TICK_US 1000000
#define PLACES_US 4000000        /* between renewals: two may fail before a place lapses */
#define RESERVATIONS_US 15000000 /* likewise */
#define PRESENCE_US 4000000      /* between signs of life */
#define SPARE_NOTES_MAX 256

/* Oldest first. */
struct redis_list {
    struct redis_hit *first, *last;
};

/* A command whose answer matters to nobody, or only to the store. */
struct note {
    struct redis_command command;
    struct redis_store *store;
    struct note *next, *prev;
};

struct redis_store {
    struct redis_store_settings settings;
    uint64_t holder, asked; /* the two halves of the next hit's id */
    struct redis_list waiting, with_places, without_places;
    struct note *notes; /* on their way */
    struct note *spare;
    size_t spare_count;
    uint64_t present_us; /* when the last sign of life was given */
    struct deadline tick;
};

static void on_tick(struct deadline *deadline);
static void on_hit_reply(struct redis_command *command, const redisReply *reply, enum redis_failure why);
static void on_tended(struct redis_command *command, const redisReply *reply, enum redis_failure why);
static void on_noted(struct redis_command *command, const redisReply *reply, enum redis_failure why);

struct redis_store *redis_store_create(const struct redis_store_settings *settings)
{
    struct redis_store *store = calloc(1, sizeof(*store));
    if (store == NULL)
        abort();
    assert(settings->prefix.len <= REDIS_PREFIX_MAX);
    store->settings = *settings;
    ids_random(&store->holder, sizeof(store->holder));
    store->tick.cb = on_tick;
    deadline_arm(settings->deadlines, &store->tick, clock_us());
    return store;
}

/* ---- lists ---- */

static void list_add(struct redis_list *list, struct redis_hit *hit)
{
    hit->_list = list;
    hit->_next = NULL;
    hit->_prev = list->last;
    if (list->last != NULL)
        list->last->_next = hit;
    else
        list->first = hit;
    list->last = hit;
}

static void list_remove(struct redis_hit *hit)
{
    struct redis_list *list = hit->_list;
    if (list == NULL)
        return;
    if (hit->_prev != NULL)
        hit->_prev->_next = hit->_next;
    else
        list->first = hit->_next;
    if (hit->_next != NULL)
        hit->_next->_prev = hit->_prev;
    else
        list->last = hit->_prev;
    hit->_list = NULL;
}

/* ---- notes ---- */

static struct note *note_create(struct redis_store *store, redis_reply_cb on_reply)
{
    struct note *note = store->spare;
    if (note != NULL) {
        store->spare = note->next;
        store->spare_count--;
        memset(note, 0, sizeof(*note));
    } else if ((note = calloc(1, sizeof(*note))) == NULL) {
        abort();
    }
    note->command.on_reply = on_reply;
    note->store = store;
    note->next = store->notes;
    if (note->next != NULL)
        note->next->prev = note;
    store->notes = note;
    return note;
}

static void note_free(struct note *note)
{
    struct redis_store *store = note->store;
    if (note->prev != NULL)
        note->prev->next = note->next;
    else
        store->notes = note->next;
    if (note->next != NULL)
        note->next->prev = note->prev;
    if (store->spare_count >= SPARE_NOTES_MAX) {
        free(note);
        return;
    }
    note->next = store->spare;
    store->spare = note;
    store->spare_count++;
}

static bool run(struct redis_store *store, struct redis_command *command, enum limit_script script,
                const struct redis_wire *wire, enum redis_failure *why)
{
    return redis_link_run(store->settings.link, command, store->settings.first_script + script, wire->args,
                          wire->key_count, wire->count, why);
}

static void send_note(struct redis_store *store, enum limit_script script, redis_reply_cb on_reply,
                      const struct redis_wire *wire)
{
    enum redis_failure why;
    if (!redis_link_up(store->settings.link))
        return;
    struct note *note = note_create(store, on_reply);
    if (!run(store, &note->command, script, wire, &why))
        note_free(note);
}

static void on_noted(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    (void)reply;
    (void)why;
    note_free((struct note *)((char *)command - offsetof(struct note, command)));
}

/* ---- hits ---- */

bool redis_store_hit(struct redis_store *store, struct redis_hit *hit, enum redis_failure *why)
{
    struct redis_wire wire;
    if (!redis_link_up(store->settings.link)) {
        *why = REDIS_DOWN;
        return false;
    }
    store->asked++;
    memcpy(hit->question.id, &store->holder, 8);
    memcpy(hit->question.id + 8, &store->asked, 8);
    hit->_store = store;
    hit->_adjusted = false;
    hit->_command = (struct redis_command){.on_reply = on_hit_reply};
    redis_wire_hit(&wire, store->settings.prefix, &hit->question, NULL);
    if (!run(store, &hit->_command, LIMIT_SCRIPT_HIT, &wire, why))
        return false;
    list_add(&store->waiting, hit);
    return true;
}

static bool reserves(const struct redis_hit *hit)
{
    for (size_t i = 0; i < hit->question.count; i++)
        if (redis_reserves(&hit->question.asks[i]))
            return true;
    return false;
}

/* Puts an admitted hit where it will be renewed, if it holds something. */
static void hold(struct redis_store *store, struct redis_hit *hit, uint64_t now_us)
{
    hit->_open_us = now_us;
    if (hit->question.place_count != 0) {
        hit->_due_us = now_us + PLACES_US;
        list_add(&store->with_places, hit);
    } else if (reserves(hit)) {
        hit->_due_us = now_us + RESERVATIONS_US;
        list_add(&store->without_places, hit);
    }
}

/* Nobody knows whether the places were taken: if so, they need not wait until they lapse. What reserves cannot be given
 * back without its ticket. */
static void free_places(struct redis_hit *hit)
{
    struct redis_question places = hit->question;
    struct redis_wire wire;
    places.count = 0;
    if (redis_wire_settle(&wire, hit->_store->settings.prefix, &places, NULL, NULL, true, NULL))
        send_note(hit->_store, LIMIT_SCRIPT_SETTLE, on_noted, &wire);
}

static void on_hit_reply(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct redis_hit *hit = (struct redis_hit *)((char *)command - offsetof(struct redis_hit, _command));
    list_remove(hit);
    if (reply != NULL) {
        uint64_t now = hit->answered_us = clock_us();
        if (reply->type != REDIS_REPLY_STRING ||
            !redis_wire_answer((struct span){reply->str, reply->len}, &hit->question, now, hit->answers, &hit->verdict))
            why = REDIS_REFUSED; /* what stands under the key is not ours */
        else if (hit->verdict.admitted)
            hold(hit->_store, hit, now);
    } else {
        free_places(hit);
    }
    hit->on_answer(hit, why);
}

void redis_store_adjust(struct redis_store *store, struct redis_hit *hit, const int64_t *deltas)
{
    struct redis_wire wire;
    if (redis_wire_settle(&wire, store->settings.prefix, &hit->question, hit->answers, deltas, false, NULL)) {
        send_note(store, LIMIT_SCRIPT_SETTLE, on_noted, &wire);
        hit->_adjusted = true;
    }
}

void redis_store_settle(struct redis_store *store, struct redis_hit *hit, const int64_t *deltas)
{
    struct redis_wire wire;
    list_remove(hit);
    bool any = redis_wire_settle(&wire, store->settings.prefix, &hit->question, hit->answers, deltas, true, NULL);
    if (any)
        send_note(store, LIMIT_SCRIPT_SETTLE, on_noted, &wire);
    /* The client, once it has its answer, may ask another worker or gateway, whose question goes another way. */
    if (any || hit->_adjusted)
        redis_link_flush(store->settings.link);
}

/* ---- signs of life ---- */

/* Adds what of a list is due, as far as it fits, and puts it back at the end. Returns whether there is more. */
static bool tend_list(struct redis_store *store, struct redis_list *list, uint64_t period_us, uint64_t now_us,
                      struct redis_wire *wire)
{
    while (list->first != NULL && list->first->_due_us <= now_us) {
        struct redis_hit *hit = list->first;
        bool open = now_us - hit->_open_us >= RESERVATIONS_US;
        if (!redis_wire_tend_add(wire, store->settings.prefix, &hit->question, hit->answers, open))
            return true;
        if (open)
            hit->_open_us = now_us;
        hit->_due_us = now_us + period_us;
        list_remove(hit);
        list_add(list, hit);
    }
    return false;
}

static void tend(struct redis_store *store, uint64_t now_us)
{
    bool more = true;
    while (more) {
        struct redis_wire wire;
        redis_wire_tend(&wire, store->settings.prefix, store->settings.gateway);
        more = tend_list(store, &store->with_places, PLACES_US, now_us, &wire);
        more = more || tend_list(store, &store->without_places, RESERVATIONS_US, now_us, &wire);
        if (wire.key_count == 1 && now_us - store->present_us < PRESENCE_US)
            return;
        store->present_us = now_us;
        send_note(store, LIMIT_SCRIPT_TEND, on_tended, &wire);
    }
}

/* While Redis is gone what is due stays due: it is renewed as soon as it is back. */
static void on_tick(struct deadline *deadline)
{
    struct redis_store *store = (struct redis_store *)((char *)deadline - offsetof(struct redis_store, tick));
    uint64_t now = clock_us();
    if (redis_link_up(store->settings.link))
        tend(store, now);
    deadline_arm(store->settings.deadlines, &store->tick, now + TICK_US);
}

static void on_tended(struct redis_command *command, const redisReply *reply, enum redis_failure why)
{
    struct note *note = (struct note *)((char *)command - offsetof(struct note, command));
    if (why == REDIS_ANSWERED && reply->type == REDIS_REPLY_INTEGER)
        atomic_store_explicit(note->store->settings.gateways,
                              reply->integer > 1 && reply->integer < 1000000 ? (unsigned)reply->integer : 1,
                              memory_order_relaxed);
    note_free(note);
}

void redis_store_destroy(struct redis_store *store)
{
    if (store == NULL)
        return;
    deadline_disarm(store->settings.deadlines, &store->tick);
    while (store->waiting.first != NULL) {
        struct redis_hit *hit = store->waiting.first;
        redis_command_cancel(&hit->_command);
        list_remove(hit);
        hit->on_answer(hit, REDIS_DOWN);
    }
    while (store->notes != NULL) {
        redis_command_cancel(&store->notes->command);
        note_free(store->notes);
    }
    while (store->spare != NULL) {
        struct note *note = store->spare;
        store->spare = note->next;
        free(note);
    }
    free(store);
}
