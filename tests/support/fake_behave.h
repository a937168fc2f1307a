/* How the model-server fake answers one request: parsed from `key=value,key=value` (the X-Fake header or --behave),
 * where a key alone means 1. Counts of events are content events; the opening events of a dialect come before the first
 * of them. */
#ifndef WEIR_TESTS_FAKE_BEHAVE_H
#define WEIR_TESTS_FAKE_BEHAVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct behave {
    /* when */
    long delay_ms;  /* before the head */
    long first_ms;  /* between the head and the first byte of the body */
    long pace_ms;   /* between events */
    long end_ms;    /* between the last event and the end of the body */
    long spread_ms; /* the first event comes within so many ms, evenly over the requests; all last as long */
    /* what */
    long events, size; /* content events, and bytes of text in each */
    long big_line;     /* the first content event has one data line of so many bytes; 0: no */
    long usage;        /* send a usage event even if it was not asked for */
    long status;       /* 0: 200 */
    long retry_after;  /* seconds; -1: no header */
    long crlf, comments, setcookie;
    long error_event; /* an error event after so many events, then the end; a plain answer is one; -1: never */
    /* how the body is framed */
    long chunked, close_body, length_body;
    long split; /* every piece in two writes */
    long bytes; /* every byte in a write of its own */
    long flood; /* as fast as the socket takes it */
    /* how it goes wrong; -1: never */
    long stall_after; /* nothing more, connection kept */
    long cut_after;   /* closed without the end of the body's framing */
    long reset_after; /* RST */
    long cut_inside;  /* closed in the middle of the event with this number (from 1) */
    long end_after;   /* the body ends properly, the dialect's terminal event is missing */
    long end_inside;  /* the body ends properly in the middle of an event */
    long early;       /* 1: answers before reading the body, then reads on until the peer closes; 2: closes at once */
    long drop;        /* no answer: 1 closes, 2 resets */
    long garbage, head_endless, interim, interim_forever, bad_chunk, half_chunk, gzip_te, short_length;
    long bad_length; /* 1: not a number; 2: two that differ; 3: with Transfer-Encoding */
    long close_idle; /* closes the kept connection right after the answer */
    long stale;      /* closes it when the next request arrives on it */
};

static const struct behave_key {
    const char *name;
    size_t offset;
    long initial;
} behave_keys[] = {
#define KEY(name, initial)                                                                                             \
    {                                                                                                                  \
#name, offsetof(struct behave, name), initial                                                                  \
    }
    KEY(delay_ms, 0),
    KEY(first_ms, 0),
    KEY(pace_ms, 0),
    KEY(end_ms, 0),
    KEY(spread_ms, 0),
    KEY(events, 5),
    KEY(size, 8),
    KEY(big_line, 0),
    KEY(usage, 0),
    KEY(status, 0),
    KEY(retry_after, -1),
    KEY(crlf, 0),
    KEY(comments, 0),
    KEY(setcookie, 0),
    KEY(error_event, -1),
    KEY(chunked, 0),
    KEY(close_body, 0),
    KEY(length_body, 0),
    KEY(split, 0),
    KEY(bytes, 0),
    KEY(flood, 0),
    KEY(stall_after, -1),
    KEY(cut_after, -1),
    KEY(reset_after, -1),
    KEY(cut_inside, -1),
    KEY(end_after, -1),
    KEY(end_inside, -1),
    KEY(early, 0),
    KEY(drop, 0),
    KEY(garbage, 0),
    KEY(head_endless, 0),
    {"1xx", offsetof(struct behave, interim), 0},
    {"1xx_forever", offsetof(struct behave, interim_forever), 0},
    KEY(bad_chunk, 0),
    KEY(half_chunk, 0),
    KEY(gzip_te, 0),
    KEY(short_length, 0),
    KEY(bad_length, 0),
    KEY(close_idle, 0),
    KEY(stale, 0),
#undef KEY
};

#define BEHAVE_KEYS (sizeof(behave_keys) / sizeof(behave_keys[0]))

static long *behave_field(struct behave *behave, size_t key)
{
    return (long *)((char *)behave + behave_keys[key].offset);
}

static void behave_init(struct behave *behave)
{
    for (size_t i = 0; i != BEHAVE_KEYS; i++)
        *behave_field(behave, i) = behave_keys[i].initial;
}

static bool behave_set(struct behave *behave, const char *item, size_t len)
{
    char text[64], *value, *end;
    if (len == 0)
        return true;
    if (len >= sizeof(text))
        return false;
    memcpy(text, item, len);
    text[len] = '\0';
    if ((value = strchr(text, '=')) != NULL)
        *value++ = '\0';
    for (size_t i = 0; i != BEHAVE_KEYS; i++) {
        if (strcmp(behave_keys[i].name, text) != 0)
            continue;
        long number = value != NULL ? strtol(value, &end, 10) : 1;
        if (value != NULL && (end == value || *end != '\0' || number < -1 || number > 100000000))
            return false;
        *behave_field(behave, i) = number;
        return true;
    }
    return false;
}

/* Changes *behave as `text` says. False at the first key that does not exist or value that is not a number. */
static bool behave_parse(struct behave *behave, const char *text, size_t len)
{
    const char *end = text + len;
    while (text < end) {
        const char *comma = memchr(text, ',', (size_t)(end - text));
        const char *stop = comma != NULL ? comma : end;
        while (text < stop && *text == ' ')
            text++;
        size_t item = (size_t)(stop - text);
        while (item != 0 && text[item - 1] == ' ')
            item--;
        if (!behave_set(behave, text, item))
            return false;
        text = stop + 1;
    }
    return true;
}

#endif
