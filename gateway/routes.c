#include "gateway/routes.h"
#include "gateway/admin.h"
#include "gateway/chat.h"
#include "gateway/handle_meta.h"
#include "gateway/handle_model.h"
#include "gateway/handle_models.h"
#include "gateway/realtime.h"
#include "gateway/ws_chat.h"

#define PUBLIC                                                                                                         \
    {                                                                                                                  \
        DEPEND_PUBLIC                                                                                                  \
    }
#define METERED                                                                                                        \
    {                                                                                                                  \
        DEPEND_API_KEY, DEPEND_LIMIT                                                                                   \
    }
#define KEYED                                                                                                          \
    {                                                                                                                  \
        DEPEND_API_KEY                                                                                                 \
    }
#define CHECKED                                                                                                        \
    {                                                                                                                  \
        DEPEND_API_KEY, DEPEND_LIMIT, DEPEND_VALIDATE, DEPEND_CACHE                                                    \
    }
#define ADMIN                                                                                                          \
    {                                                                                                                  \
        DEPEND_ADMIN_KEY                                                                                               \
    }
#define READ (METHOD_GET | METHOD_HEAD)
#define P(text)                                                                                                        \
    {                                                                                                                  \
        (text), sizeof(text) - 1                                                                                       \
    }

/* Passed on with any method: what weir does not read, but knows where to send. */
#define PASSED(text, words)                                                                                            \
    {                                                                                                                  \
        P(text), METHOD_ANY & ~METHOD_OPTIONS, DIALECT_NONE, NULL, METERED, handle_pass, words                         \
    }

const struct route routes[] = {
    {P("/v1/chat/completions"), METHOD_POST, DIALECT_CHAT, &body_chat, CHECKED, handle_model, "a chat model's answer"},
    {P("/v1/completions"), METHOD_POST, DIALECT_COMPLETIONS, &body_completions, CHECKED, handle_model,
     "a text, gone on with"},
    {P("/v1/embeddings"), METHOD_POST, DIALECT_EMBEDDINGS, &body_embeddings, CHECKED, handle_model, "texts as vectors"},
    {P("/v1/responses"), METHOD_POST, DIALECT_RESPONSES, &body_responses, CHECKED, handle_model,
     "OpenAI's Responses API"},
    {P("/v1/messages"), METHOD_POST, DIALECT_MESSAGES, &body_messages, CHECKED, handle_model,
     "Anthropic's Messages API"},
    {P("/v1/messages/count_tokens"), METHOD_ANY & ~METHOD_OPTIONS, DIALECT_MESSAGES, NULL, METERED, handle_pass,
     "Anthropic's token count"},
    PASSED("/v1/responses/*", "stored responses"),
    PASSED("/v1/audio/*", "speech and transcription"),
    PASSED("/v1/images/*", "images"),
    PASSED("/v1/files/*", "files"),
    PASSED("/v1/uploads/*", "uploads in parts"),
    PASSED("/v1/batches/*", "batches"),
    PASSED("/v1/moderations/*", "moderation"),
    PASSED("/v1/rerank/*", "reranking"),
    {P("/chat"), METHOD_GET, DIALECT_EVENTS, &body_chat_query, CHECKED, handle_chat,
     "a chat model's answer for a browser's EventSource"},
    {P("/v1/realtime"), METHOD_GET, DIALECT_NONE, NULL, METERED, handle_realtime,
     "the Realtime API of a backend, over a WebSocket"},
    {P("/v1/models"), READ, DIALECT_NONE, NULL, KEYED, handle_models, "the models that the key may use"},
    {P("/ws/chat"), METHOD_GET, DIALECT_NONE, NULL, KEYED, handle_ws_chat, "a conversation over a WebSocket"},
    {P("/"), READ, DIALECT_NONE, NULL, PUBLIC, handle_index, "pointers"},
    {P("/livez"), READ, DIALECT_NONE, NULL, PUBLIC, handle_livez, "200 while the process lives"},
    {P("/readyz"), READ, DIALECT_NONE, NULL, PUBLIC, handle_readyz, "200 while requests are welcome"},
    {P("/health"), READ, DIALECT_NONE, NULL, PUBLIC, handle_readyz, "the same as /readyz"},
    {P("/metrics"), READ, DIALECT_NONE, NULL, PUBLIC, handle_metrics, "Prometheus metrics"},
    {P("/version"), READ, DIALECT_NONE, NULL, PUBLIC, handle_version, "the gateway's version"},
    {P("/admin/cache/purge"), METHOD_POST, DIALECT_NONE, NULL, ADMIN, handle_cache_purge, "forgets stored answers"},
    {P("/admin/backends"), READ | METHOD_POST, DIALECT_NONE, NULL, ADMIN, handle_backends,
     "model servers, and new ones"},
    {P("/admin/backends/*"), METHOD_DELETE | METHOD_POST, DIALECT_NONE, NULL, ADMIN, handle_backend,
     "drains, undrains and removes a model server"},
    {P("/admin/reload"), METHOD_POST, DIALECT_NONE, NULL, ADMIN, handle_reload, "reads the configuration again"},
};

const size_t route_count = sizeof(routes) / sizeof(routes[0]);

bool route_covers(struct span pattern, struct span path)
{
    if (pattern.len == 0 || pattern.base[pattern.len - 1] != '*')
        return span_eq(pattern, path);
    /* "/v1/files/ *" covers "/v1/files" and everything below it. */
    struct span prefix = {pattern.base, pattern.len - 1};
    return span_starts(path, prefix) || (prefix.len > 1 && span_eq(path, (struct span){prefix.base, prefix.len - 1}));
}

static const struct {
    struct span name;
    unsigned bit;
} methods[] = {
    {P("GET"), METHOD_GET},     {P("HEAD"), METHOD_HEAD},     {P("POST"), METHOD_POST},       {P("PUT"), METHOD_PUT},
    {P("PATCH"), METHOD_PATCH}, {P("DELETE"), METHOD_DELETE}, {P("OPTIONS"), METHOD_OPTIONS},
};

unsigned route_method(struct span method)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (span_eq(methods[i].name, method))
            return methods[i].bit;
    return 0;
}

void route_allow(unsigned allowed, char *out)
{
    *out = '\0';
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if ((allowed & methods[i].bit) == 0)
            continue;
        if (*out != '\0')
            strcat(out, ", ");
        strcat(out, methods[i].name.base);
    }
}

struct span route_canonical(struct span path)
{
    static const struct span full[] = {P("/v1/chat/completions"), P("/v1/completions"), P("/v1/embeddings"),
                                       P("/v1/responses"), P("/v1/models")};
    for (size_t i = 0; i < sizeof(full) / sizeof(full[0]); i++)
        if (span_eq(path, span_skip(full[i], 3)))
            return full[i];
    return path;
}
