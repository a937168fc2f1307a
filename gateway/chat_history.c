#include "gateway/chat_history.h"
#include <stdlib.h>

struct chat_turn {
    struct chat_turn *next;
    size_t len;
    char text[];
};

void chat_history_init(struct chat_history *history, size_t max_bytes)
{
    *history = (struct chat_history){.max_bytes = max_bytes, ._last = &history->_first};
}

static void drop_oldest(struct chat_history *history)
{
    struct chat_turn *turn = history->_first;
    history->_first = turn->next;
    if (history->_first == NULL)
        history->_last = &history->_first;
    history->_bytes -= turn->len;
    history->_count--;
    free(turn);
}

void chat_history_dispose(struct chat_history *history)
{
    while (history->_first != NULL)
        drop_oldest(history);
}

static char *put(char *at, struct span text)
{
    if (text.len != 0)
        memcpy(at, text.base, text.len);
    return at + text.len;
}

void chat_history_add(struct chat_history *history, struct span message, struct span answer)
{
    static const struct span user = SPAN("{\"role\":\"user\",\"content\":"),
                             assistant = SPAN("},{\"role\":\"assistant\",\"content\":\""), end = SPAN("\"},");
    size_t len = user.len + message.len + assistant.len + answer.len + end.len;
    while (history->_first != NULL && (history->_count >= CHAT_TURNS_MAX || history->_bytes + len > history->max_bytes))
        drop_oldest(history);
    if (len > history->max_bytes)
        return;
    struct chat_turn *turn = malloc(sizeof(*turn) + len);
    if (turn == NULL)
        abort();
    turn->next = NULL;
    turn->len = len;
    put(put(put(put(put(turn->text, user), message), assistant), answer), end);
    *history->_last = turn;
    history->_last = &turn->next;
    history->_bytes += len;
    history->_count++;
}

void chat_history_write(const struct chat_history *history, struct strbuf *out)
{
    for (const struct chat_turn *turn = history->_first; turn != NULL; turn = turn->next)
        strbuf_add(out, (struct span){turn->text, turn->len});
}
