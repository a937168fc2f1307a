/* Commands as Redis reads them (RESP2 arrays of bulk strings). Pure. */
#ifndef WEIR_BASE_REDIS_COMMAND_H
#define WEIR_BASE_REDIS_COMMAND_H

#include "base/strbuf.h"

/* Begins a command of `count` pieces. */
static inline void redis_command_begin(struct strbuf *out, size_t count)
{
    strbuf_putc(out, '*');
    strbuf_u64(out, count);
    strbuf_add(out, SPAN("\r\n"));
}

/* Adds a piece. */
static inline void redis_command_piece(struct strbuf *out, struct span piece)
{
    strbuf_putc(out, '$');
    strbuf_u64(out, piece.len);
    strbuf_add(out, SPAN("\r\n"));
    strbuf_add(out, piece);
    strbuf_add(out, SPAN("\r\n"));
}

/* Adds a whole command. */
static inline void redis_command_write(struct strbuf *out, const struct span *pieces, size_t count)
{
    redis_command_begin(out, count);
    for (size_t i = 0; i < count; i++)
        redis_command_piece(out, pieces[i]);
}

#endif
