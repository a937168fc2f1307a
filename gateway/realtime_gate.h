/* Limits on the messages of a WebSocket that is carried through: each message that a client begins asks whether it may
 * pass. It is a call of its own as far as the `limit` dependency goes, so that limits are counted wherever they are for
 * requests, also where an answer takes time. Belongs to the worker's thread, and to whoever embeds it. */
#ifndef WEIR_GATEWAY_REALTIME_GATE_H
#define WEIR_GATEWAY_REALTIME_GATE_H

#include "base/strbuf.h"
#include "gateway/call.h"

enum realtime_gate_result { GATE_OPEN, GATE_SHUT, GATE_WAIT };

struct realtime_gate {
    struct call _call;
    struct site_route _route;
    bool _any;    /* there are limits for it */
    bool _asking; /* within realtime_gate_ask */
    enum realtime_gate_result _result;
    void (*_decided)(void *ctx, bool open);
    void *_ctx;
    struct strbuf event; /* after GATE_SHUT: an error event in the Realtime API's format */
};

/* Prepares it for the WebSocket that `call` has asked for, whose site and identity must outlive it. `decided` is called
 * after GATE_WAIT, once. */
void realtime_gate_init(struct realtime_gate *gate, const struct call *call, void (*decided)(void *ctx, bool open),
                        void *ctx);

/* Whether the next message may pass. After GATE_WAIT it must not be asked before `decided`. */
enum realtime_gate_result realtime_gate_ask(struct realtime_gate *gate);

/* Ends it, and what it still waits for. */
void realtime_gate_dispose(struct realtime_gate *gate);

#endif
