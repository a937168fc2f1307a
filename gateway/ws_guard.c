#include "gateway/ws_guard.h"
#include "base/utf8.h"

#define FRAME_US (1000000 / WS_GUARD_PER_SECOND) /* what a frame costs of the budget, in time */
#define HEADER_MIN 6                             /* two bytes and the mask */

enum opcode { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

struct header {
    bool fin, masked;
    unsigned reserved, opcode;
    uint64_t payload;
    size_t size; /* mask included */
};

bool ws_guard_code_is_valid(unsigned code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != WS_CLOSE_NO_STATUS && code != WS_CLOSE_ABNORMAL) ||
           (code >= 3000 && code <= 4999);
}

static bool is_control(unsigned opcode)
{
    return opcode >= CLOSE;
}

/* Reads a header; false if not all of it is there. */
static bool read_header(struct span bytes, struct header *header)
{
    const uint8_t *at = (const uint8_t *)bytes.base;
    if (bytes.len < 2)
        return false;
    unsigned len = at[1] & 0x7f, extra = len == 126 ? 2 : len == 127 ? 8 : 0;
    *header = (struct header){.fin = (at[0] & 0x80) != 0,
                              .masked = (at[1] & 0x80) != 0,
                              .reserved = at[0] & 0x70,
                              .opcode = at[0] & 0x0f,
                              .payload = len,
                              .size = HEADER_MIN + extra};
    if (bytes.len < 2 + extra)
        return false;
    if (extra != 0)
        header->payload = 0;
    for (unsigned i = 0; i < extra; i++)
        header->payload = header->payload << 8 | at[2 + i];
    /* Without a mask the header ends earlier, and is refused before anybody looks for its payload. */
    return !header->masked || bytes.len >= header->size;
}

static void fail(struct ws_guard *guard, unsigned code, const char *why)
{
    guard->problem = code;
    guard->why = why;
}

/* What is wrong with a frame by its header alone. */
static bool header_is_sound(struct ws_guard *guard, const struct header *header)
{
    bool control = is_control(header->opcode);
    if (header->reserved != 0)
        fail(guard, WS_CLOSE_PROTOCOL, "reserved bits are set");
    else if ((header->opcode > BINARY && header->opcode < CLOSE) || header->opcode > PONG)
        fail(guard, WS_CLOSE_PROTOCOL, "unknown opcode");
    else if (!header->masked)
        fail(guard, WS_CLOSE_PROTOCOL, "a client's frames must be masked");
    else if (control && (!header->fin || header->payload > 125))
        fail(guard, WS_CLOSE_PROTOCOL, "a control frame is fragmented or too long");
    else if (!control && (header->opcode == CONTINUATION) != guard->_in_message)
        fail(guard, WS_CLOSE_PROTOCOL, guard->_in_message ? "a message begins inside another" : "nothing to continue");
    else if (!control &&
             (header->payload > guard->max_message || guard->_message > guard->max_message - header->payload))
        fail(guard, WS_CLOSE_TOO_BIG, "message too big");
    return guard->problem == 0;
}

/* A bucket of frames, kept as the time at which it would be full again. */
static bool pay(struct ws_guard *guard, unsigned frames, uint64_t now_us)
{
    if (guard->_budget_us < now_us)
        guard->_budget_us = now_us;
    guard->_budget_us += (uint64_t)frames * FRAME_US;
    if (guard->_budget_us - now_us > (uint64_t)WS_GUARD_BURST * FRAME_US)
        fail(guard, WS_CLOSE_POLICY, "too many frames");
    return guard->problem == 0;
}

/* Reads a close frame, all of which is there. */
static bool read_close(struct ws_guard *guard, struct span bytes, const struct header *header)
{
    uint8_t payload[125];
    size_t n = (size_t)header->payload;
    struct utf8_check check = {0};
    const char *mask = bytes.base + header->size - 4;
    for (size_t i = 0; i < n; i++)
        payload[i] = (uint8_t)(bytes.base[header->size + i] ^ mask[i % 4]);
    guard->close_code = n >= 2 ? (unsigned)payload[0] << 8 | payload[1] : WS_CLOSE_NO_STATUS;
    if (n == 1 || (n != 0 && !ws_guard_code_is_valid(guard->close_code))) {
        fail(guard, WS_CLOSE_PROTOCOL, "bad close code");
        return false;
    }
    struct span reason = {(const char *)payload + 2, n >= 2 ? n - 2 : 0};
    if (!utf8_feed(&check, reason) || !utf8_complete(&check)) {
        fail(guard, WS_CLOSE_NOT_UTF8, "the close reason is not UTF-8");
        return false;
    }
    memcpy(guard->reason, reason.base, reason.len);
    guard->reason[reason.len] = '\0';
    guard->closed = true;
    return true;
}

/* Takes the header that `bytes` begin with. Returns how many bytes of it, and of a control frame, may pass; 0: not all
 * is there, or there is a problem. */
static size_t take_header(struct ws_guard *guard, struct span bytes, uint64_t now_us)
{
    struct header header;
    if (!read_header(bytes, &header))
        return 0;
    if (!header_is_sound(guard, &header))
        return 0;
    bool control = is_control(header.opcode);
    size_t whole = header.size + (size_t)(control ? header.payload : 0);
    if (bytes.len < whole)
        return 0;
    if (!pay(guard, control ? WS_GUARD_CONTROL_COST : 1, now_us))
        return 0;
    guard->frames++;
    if (header.opcode == CLOSE)
        return read_close(guard, bytes, &header) ? whole : 0;
    if (!control) {
        guard->_payload = header.payload;
        guard->_message = header.fin ? 0 : guard->_message + header.payload;
        guard->_in_message = !header.fin;
    }
    return whole;
}

size_t ws_guard_pass(struct ws_guard *guard, struct span bytes, uint64_t now_us)
{
    size_t passed = 0;
    while (guard->problem == 0 && !guard->closed && passed < bytes.len) {
        struct span rest = span_skip(bytes, passed);
        size_t n = rest.len < guard->_payload ? rest.len : (size_t)guard->_payload;
        guard->_payload -= n;
        if (n == 0)
            n = take_header(guard, rest, now_us);
        if (n == 0)
            break;
        passed += n;
    }
    return passed;
}
