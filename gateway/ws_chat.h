/* GET /ws/chat: a conversation over a WebSocket. The client sends JSON text messages with an `id` of its choice: a chat
 * request, the next message of the conversation that weir keeps, or the end of a generation:
 *
 *      {"id": 1, "model": …, "messages": […], …}      {"id": 2, "message": "…"}      {"id": 2, "cancel": true}
 *
 * and is answered, for each id, by
 *
 *      {"id":1,"event":"delta","data":<the backend's chunk, byte for byte>}      any number of times, then one of
 *      {"id":1,"event":"done","usage":{…}|null}
 *      {"id":1,"event":"error","status":429,"error":{…},…}
 *
 * Several generations run at once; each passes limits and cache like a request to POST /v1/chat/completions. One
 * thread.
 *
 * Limits: `websocket.generations` at once, `websocket.max_message` a message, `chat.history` bytes and CHAT_TURNS_MAX
 * turns of conversation, CHAT_GARBAGE_MAX messages in a row that are no JSON. */
#ifndef WEIR_GATEWAY_WS_CHAT_H
#define WEIR_GATEWAY_WS_CHAT_H

#include "gateway/call.h"
#include "gateway/chat_request.h"
#include "gateway/ws_bridge.h"

#define CHAT_GARBAGE_MAX 5

/* The route's handler. */
void handle_ws_chat(struct call *call);

/* ---- between ws_chat.c and ws_generation.c ---- */

/* A session of this kind. */
struct ws_chat {
    struct ws_session *session;
    const struct site_route *model_route; /* POST /v1/chat/completions */
    h2o_linklist_t generations;           /* that run */
    h2o_linklist_t finished;              /* that wait to be freed */
    unsigned running;
    unsigned garbage; /* messages in a row that were no JSON */
    bool draining;
    struct strbuf message; /* one that comes in pieces */
    struct chat_history history;
    char *credential; /* to forward, on a gateway without keys; NULL: none */
};

struct ws_generation;

/* Starts one; it answers by itself. */
void ws_generation_start(struct ws_chat *chat, const struct chat_request *request);

/* The running one with this id; NULL if there is none. */
struct ws_generation *ws_generation_find(const struct ws_chat *chat, struct span id);

/* The client wants no more of it: stops the backend at once. */
void ws_generation_cancel(struct ws_generation *generation);

/* The client takes bytes again: all that paused go on. */
void ws_generations_resume(struct ws_chat *chat);

/* The session is over: stops and frees all. */
void ws_generations_end(struct ws_chat *chat);

/* Sends an error event; an empty id becomes null. */
void ws_chat_error(struct ws_chat *chat, struct span id, const struct dialect_error *error, unsigned retry_after);

#endif
