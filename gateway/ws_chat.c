#include "gateway/ws_chat.h"
#include "gateway/worker.h"
#include <stdio.h>

#define ERROR_MAX ((size_t)16384)

/* In the order in which they fire. */
static void on_opened(struct ws_session *session);
static void on_message(struct ws_session *session, const struct ws_piece *piece);
static void on_writable(struct ws_session *session);
static void on_drain(struct ws_session *session);
static void on_closed(struct ws_session *session, unsigned code, struct span reason);

static const struct ws_session_type type = {
    .name = "chat",
    .opened = on_opened,
    .message = on_message,
    .writable = on_writable,
    .drain = on_drain,
    .closed = on_closed,
};

/* Without keys of its own the gateway passes on the client's credential, which a browser can only send as a
 * subprotocol.
 */
static char *credential_of(const struct call *call)
{
    static const struct span prefix = SPAN("openai-insecure-api-key.");
    struct span value = call_header(call, SPAN("authorization")), protocol;
    if (call->site->config->key_count != 0)
        return NULL;
    if (value.len != 0)
        return span_dup(value);
    for (size_t cursor = 0; call_subprotocol(call, &cursor, &protocol);) {
        char *header;
        if (!span_starts(protocol, prefix))
            continue;
        protocol = span_skip(protocol, prefix.len);
        if (asprintf(&header, "Bearer %.*s", (int)protocol.len, protocol.base) == -1)
            abort();
        return header;
    }
    return NULL;
}

static void destroy(struct ws_chat *chat)
{
    strbuf_dispose(&chat->message);
    chat_history_dispose(&chat->history);
    free(chat->credential);
    free(chat);
}

void handle_ws_chat(struct call *call)
{
    const struct config *config = call->site->config;
    struct span protocol = SPAN_NONE, offered;
    if (!ws_handshake_check(call))
        return;
    for (size_t cursor = 0; protocol.len == 0 && ws_offered_protocol(call, &cursor, &offered);)
        if (span_eq(offered, SPAN("weir.chat")))
            protocol = offered;
    struct ws_chat *chat = h2o_mem_alloc(sizeof(*chat));
    memset(chat, 0, sizeof(*chat));
    chat->model_route = site_route_find(call->site, SPAN("/v1/chat/completions"));
    chat->credential = credential_of(call);
    h2o_linklist_init_anchor(&chat->generations);
    h2o_linklist_init_anchor(&chat->finished);
    strbuf_init(&chat->message, config->websocket.max_message);
    chat_history_init(&chat->history, config->chat.history);
    chat->session = ws_open(call, &type, chat, protocol);
    if (chat->session == NULL)
        destroy(chat);
}

static void on_opened(struct ws_session *session)
{
    (void)session;
}

/* ---- messages ---- */

void ws_chat_error(struct ws_chat *chat, struct span id, const struct dialect_error *error, unsigned retry_after)
{
    struct strbuf body;
    char start[80];
    strbuf_init(&body, ERROR_MAX);
    dialect_error_body(dialect_get(DIALECT_CHAT), error, &body);
    int n = snprintf(start, sizeof(start), ",\"event\":\"error\",\"status\":%d,", error->status);
    if (retry_after != 0)
        n += snprintf(start + n, sizeof(start) - (size_t)n, "\"retry_after\":%u,", retry_after);
    /* The usual body is an object: what follows its brace goes on with ours. */
    struct span rest = span_skip(strbuf_span(&body), 1);
    while (rest.len != 0 && rest.base[rest.len - 1] == '\n')
        rest.len--;
    struct span pieces[] = {SPAN("{\"id\":"), id.len != 0 ? id : SPAN("null"), {start, (size_t)n}, rest};
    ws_send(chat->session, WS_TEXT, pieces, 4);
    strbuf_dispose(&body);
}

static void refuse(struct ws_chat *chat, struct span id, int status, const char *code, const char *param,
                   const char *message)
{
    struct dialect_error error = {.status = status, .code = code, .param = param, .message = message};
    ws_chat_error(chat, id, &error, 0);
}

/* What is no JSON may be a slip; again and again it is another protocol. */
static void take_garbage(struct ws_chat *chat, const char *problem)
{
    char message[160];
    snprintf(message, sizeof(message), "We could not parse the message as JSON: %s", problem);
    refuse(chat, SPAN_NONE, 400, "invalid_json", NULL, message);
    if (++chat->garbage >= CHAT_GARBAGE_MAX)
        ws_close(chat->session, WS_CLOSE_POLICY, SPAN("messages must be JSON"));
}

/* What is wrong with the members that only this route has, as FastAPI would tell it. */
static void refuse_invalid(struct ws_chat *chat, const struct chat_request *request)
{
    char detail[256];
    struct strbuf json;
    strbuf_init_fixed(&json, detail, sizeof(detail));
    strbuf_printf(&json, "[{\"type\":\"value_error\",\"loc\":[\"body\",\"%s\"],\"msg\":", request->param);
    strbuf_json(&json, span_of(request->problem));
    strbuf_puts(&json, "}]");
    struct dialect_error error = {.status = 422,
                                  .code = "invalid_message",
                                  .param = request->param,
                                  .message = request->problem,
                                  .detail_json = strbuf_cstr(&json)};
    ws_chat_error(chat, request->id, &error, 0);
}

static void cancel(struct ws_chat *chat, struct span id)
{
    struct ws_generation *generation = ws_generation_find(chat, id);
    if (generation != NULL)
        ws_generation_cancel(generation);
    else
        refuse(chat, id, 404, "unknown_id", "id", "No generation with this id is running.");
}

static void start(struct ws_chat *chat, const struct chat_request *request)
{
    if (chat->draining)
        refuse(chat, request->id, 503, "gateway_ending", NULL, "The gateway is shutting down.");
    else if (ws_generation_find(chat, request->id) != NULL)
        /* With the id it would look like the end of the one that runs. */
        refuse(chat, SPAN_NONE, 409, "id_in_use", "id", "A generation with this id is still running.");
    else if (chat->running >= chat->session->site->config->websocket.generations)
        refuse(chat, request->id, 429, "too_many_generations", NULL,
               "Too many generations at once on this socket: wait for one to end.");
    else
        ws_generation_start(chat, request);
}

static void take_message(struct ws_chat *chat, struct span text)
{
    struct chat_request request;
    chat_request_read(text, &request);
    if (request.kind != CHAT_NO_JSON)
        chat->garbage = 0;
    switch (request.kind) {
    case CHAT_NO_JSON:
        take_garbage(chat, request.problem);
        break;
    case CHAT_INVALID:
        refuse_invalid(chat, &request);
        break;
    case CHAT_CANCEL:
        cancel(chat, request.id);
        break;
    case CHAT_BODY:
    case CHAT_MESSAGE:
        start(chat, &request);
        break;
    }
}

static void on_message(struct ws_session *session, const struct ws_piece *piece)
{
    struct ws_chat *chat = session->ctx;
    if (piece->binary) {
        ws_close(session, WS_CLOSE_UNSUPPORTED, SPAN("messages must be text"));
        return;
    }
    if (piece->first && piece->last) {
        take_message(chat, piece->bytes);
        return;
    }
    strbuf_add(&chat->message, piece->bytes);
    if (!piece->last)
        return;
    take_message(chat, strbuf_span(&chat->message));
    strbuf_dispose(&chat->message);
}

/* ---- the rest of its life ---- */

static void on_writable(struct ws_session *session)
{
    ws_generations_resume(session->ctx);
}

static void on_drain(struct ws_session *session)
{
    struct ws_chat *chat = session->ctx;
    chat->draining = true;
    if (chat->running == 0)
        ws_close(session, WS_CLOSE_GOING_AWAY, SPAN("the gateway is ending"));
}

static void on_closed(struct ws_session *session, unsigned code, struct span reason)
{
    struct ws_chat *chat = session->ctx;
    (void)code;
    (void)reason;
    ws_generations_end(chat);
    destroy(chat);
}
