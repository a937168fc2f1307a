/* What was said in a conversation, as weir keeps it for a client that sends only what is new: a bounded list of turns,
 * a user's message and the model's answer each. The oldest go first. One thread. */
#ifndef WEIR_GATEWAY_CHAT_HISTORY_H
#define WEIR_GATEWAY_CHAT_HISTORY_H

#include "base/strbuf.h"

#define CHAT_TURNS_MAX 1000

struct chat_turn;

struct chat_history {
    size_t max_bytes;
    struct chat_turn *_first, **_last;
    size_t _bytes, _count;
};

/* An empty history of at most `max_bytes`. Dispose of it with chat_history_dispose. */
void chat_history_init(struct chat_history *history, size_t max_bytes);
void chat_history_dispose(struct chat_history *history);

/* Adds a turn: the user's message as a JSON string, with its quotes, and the inside of the answer's, without them. A
 * turn that does not fit at all leaves the history empty. */
void chat_history_add(struct chat_history *history, struct span message, struct span answer);

/* Appends the turns as members of a JSON array, each with a comma behind it. */
void chat_history_write(const struct chat_history *history, struct strbuf *out);

static inline size_t chat_history_bytes(const struct chat_history *history)
{
    return history->_bytes;
}

#endif
