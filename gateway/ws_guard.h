/* Looks at a client's WebSocket frames (RFC 6455 §5) before libwebsockets does, and stops what that library would let
 * through or notices late: frames without a mask, reserved bits and opcodes, long or fragmented control frames,
 * messages that are too large by what their headers say, bad close frames, floods of small frames. It reads headers and
 * close frames and skips over everything else. Pure: no I/O, no clock. One thread. */
#ifndef WEIR_GATEWAY_WS_GUARD_H
#define WEIR_GATEWAY_WS_GUARD_H

#include "base/span.h"
#include <stdint.h>

/* Frames that a client may send at once, and per second ever after; a control frame counts as several. */
#define WS_GUARD_BURST 4000
#define WS_GUARD_PER_SECOND 1000
#define WS_GUARD_CONTROL_COST 20

/* Close codes that weir sends itself (RFC 6455 §7.4.1 and the IANA registry). */
enum ws_close_code {
    WS_CLOSE_NORMAL = 1000,
    WS_CLOSE_GOING_AWAY = 1001,
    WS_CLOSE_PROTOCOL = 1002,
    WS_CLOSE_UNSUPPORTED = 1003,
    WS_CLOSE_NO_STATUS = 1005, /* never on the wire: the peer's close frame had no code */
    WS_CLOSE_ABNORMAL = 1006,  /* never on the wire: no close frame came */
    WS_CLOSE_NOT_UTF8 = 1007,
    WS_CLOSE_POLICY = 1008,
    WS_CLOSE_TOO_BIG = 1009,
    WS_CLOSE_INTERNAL = 1011,
    WS_CLOSE_TRY_LATER = 1013,
};

/* Zero-initialise and set max_message. */
struct ws_guard {
    uint64_t max_message; /* bytes of one message, all its fragments together */
    unsigned problem;     /* a close code: nothing more may pass; 0: none so far */
    const char *why;      /* of the problem, static text */
    bool closed;          /* the client's close frame has passed; what follows it is dropped */
    unsigned close_code;  /* in it; WS_CLOSE_NO_STATUS if it had none */
    char reason[124];     /* in it, NUL-terminated UTF-8 */
    uint64_t frames;      /* so far */
    uint64_t _payload;    /* bytes of the present frame still to come */
    uint64_t _message;    /* bytes of the present message, by its headers */
    bool _in_message;     /* a fragment without FIN has come */
    uint64_t _budget_us;  /* when the budget would be full again */
};

/* How many of the next bytes may go on to libwebsockets. The rest is either the beginning of a header or of a control
 * frame, to be shown again with what follows it, or, once `problem` or `closed` is set, to be dropped. `now_us` pays
 * for the frames. */
size_t ws_guard_pass(struct ws_guard *guard, struct span bytes, uint64_t now_us);

/* Whether a close frame may carry this code (RFC 6455 §7.4). */
bool ws_guard_code_is_valid(unsigned code);

#endif
