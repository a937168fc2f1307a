#include "base/utf8.h"

/* Opens the sequence that `c`, not ASCII, begins; false if none begins with it (RFC 3629 §4). */
static bool begin(struct utf8_check *check, uint8_t c)
{
    check->_low = 0x80;
    check->_high = 0xbf;
    if (c >= 0xc2 && c <= 0xdf) {
        check->_left = 1;
    } else if (c >= 0xe0 && c <= 0xef) {
        check->_left = 2;
        if (c == 0xe0)
            check->_low = 0xa0; /* else overlong */
        else if (c == 0xed)
            check->_high = 0x9f; /* else a surrogate */
    } else if (c >= 0xf0 && c <= 0xf4) {
        check->_left = 3;
        if (c == 0xf0)
            check->_low = 0x90; /* else overlong */
        else if (c == 0xf4)
            check->_high = 0x8f; /* else above U+10FFFF */
    } else {
        return false;
    }
    return true;
}

bool utf8_feed(struct utf8_check *check, struct span bytes)
{
    if (bytes.len == 0) /* NULL then, perhaps */
        return true;
    const uint8_t *at = (const uint8_t *)bytes.base, *end = at + bytes.len;
    while (at < end) {
        uint64_t eight;
        if (check->_left != 0) {
            if (*at < check->_low || *at > check->_high)
                return false;
            check->_low = 0x80;
            check->_high = 0xbf;
            check->_left--;
            at++;
        } else if (end - at >= 8 && (memcpy(&eight, at, 8), (eight & 0x8080808080808080) == 0)) {
            at += 8;
        } else if (*at < 0x80) {
            at++;
        } else if (!begin(check, *at++)) {
            return false;
        }
    }
    return true;
}

bool utf8_complete(const struct utf8_check *check)
{
    return check->_left == 0;
}

struct span utf8_cut(struct span text, size_t max)
{
    if (text.len <= max)
        return text;
    while (max != 0 && ((unsigned char)text.base[max] & 0xc0) == 0x80)
        max--;
    return (struct span){text.base, max};
}
