/* A relay stream: reads a backend's chat completions stream and makes of it the events that a browser's EventSource
 * listens to.
 *
 *     data: {"choices":…}     ─▶  event: delta  id: STREAM.1     data: the same bytes
 *     data: {"error":…}       ─▶  event: error  id: STREAM.error data: the same bytes, then nothing more
 *     data: [DONE]            ─▶  event: done   id: STREAM.done  data: {"usage":{…}|null}
 *
 * Every event has an id, since EventSource comes back after each ended body, and says with Last-Event-ID that it has
 * had its answer. Comments stay behind, as does the event that holds nothing but usage (an empty `choices`), which weir
 * asked for and which `done` tells.
 *
 *     backend's stream ──subscriber──▶ [relay] ──producer──▶ new stream ──▶ http_stream, as any other
 *
 * Back-pressure passes through: while the new stream says pause, nothing is taken from the old one, which then pauses
 * its own producer. The reader's leaving cancels both. A break of the old stream, or an end without [DONE], breaks the
 * new one. An event of more than CHAT_EVENT_MAX bytes that comes in pieces breaks it too.
 *
 * One thread. The relay frees itself at the end of either stream. */
#ifndef WEIR_GATEWAY_CHAT_EVENTS_H
#define WEIR_GATEWAY_CHAT_EVENTS_H

#include "stream/stream.h"

#define CHAT_EVENT_MAX ((size_t)2 * 1024 * 1024)

struct chat_events;

/* Subscribes to `input`, which must still be whole. `id` (copied) is STREAM. *output receives the new stream, of
 * DIALECT_EVENTS; a reader must subscribe to it before chat_events_run. */
struct chat_events *chat_events_create(struct stream *input, struct span id, struct stream **output);

/* Begins, with what there is already. If nobody has subscribed to the new stream all is let go, and the input's
 * producer cancelled. */
void chat_events_run(struct chat_events *events);

/* Appends a usage object as chat completions have it, or null where usage is not known. */
void chat_events_usage(const struct usage *usage, struct strbuf *out);

#endif
