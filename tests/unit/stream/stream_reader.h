/* A producer and readers of every manner, for the tests of stream/stream. One stream at a time. */
#ifndef WEIR_TESTS_STREAM_READER_H
#define WEIR_TESTS_STREAM_READER_H

#include "run_suite.h"
#include "stream/stream.h"
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Recycles nothing, so that AddressSanitizer sees every use of a buffer that was let go. */
static h2o_buffer_prototype_t prototype = {._initial_buf = {.capacity = 4096}};

/* What the producer was asked. */
static struct stream *stream;
static h2o_buffer_t *input;
static unsigned resumes, cancels;

enum manner {
    HOLD,       /* takes nothing and does not ask again */
    WAIT,       /* takes nothing, but wants to hear of more */
    TAKE,       /* takes everything, asks again; leaves when the stream is over */
    TAKE_HOLD,  /* takes everything, does not ask again */
    NIBBLE,     /* takes one byte, asks again */
    LEAVE,      /* unsubscribes */
    TAKE_LEAVE, /* takes everything and unsubscribes */
    EVICT,      /* takes everything, unsubscribes and frees `victim`, asks again */
    DIE,        /* unsubscribes and is gone */
};

struct reader {
    struct stream_subscriber subscriber;
    enum manner manner;
    struct reader *victim;
    struct strbuf got;
    const char *base; /* where the last slice stood */
    unsigned calls, slices, depth, deepest;
    bool over;
    enum stream_state state;
    enum stream_failure failure;
};

static inline void leave(struct reader *reader)
{
    reader->over = true;
    reader->state = stream_state(reader->subscriber._stream);
    reader->failure = stream_failure(reader->subscriber._stream);
    stream_unsubscribe(&reader->subscriber);
}

static inline void take(struct reader *reader, size_t most)
{
    struct slice slice;
    while (most != 0 && stream_peek(&reader->subscriber, &slice, 1) != 0) {
        size_t n = slice.bytes.len < most ? slice.bytes.len : most;
        ck_assert_uint_ne(n, 0);
        reader->base = slice.bytes.base;
        reader->slices++;
        strbuf_add(&reader->got, (struct span){slice.bytes.base, n});
        stream_consume(&reader->subscriber, n);
        most -= n;
    }
}

static inline void reader_free(struct reader *reader)
{
    stream_unsubscribe(&reader->subscriber);
    strbuf_dispose(&reader->got);
    free(reader);
}

static inline void on_data(struct stream_subscriber *subscriber)
{
    struct reader *reader = H2O_STRUCT_FROM_MEMBER(struct reader, subscriber, subscriber);
    reader->calls++;
    if (++reader->depth > reader->deepest)
        reader->deepest = reader->depth;
    if (reader->manner == DIE) {
        reader_free(reader);
        return;
    }
    if (reader->manner == EVICT && reader->victim != NULL) {
        reader_free(reader->victim);
        reader->victim = NULL;
    }
    if (reader->manner == NIBBLE)
        take(reader, 1);
    else if (reader->manner != HOLD && reader->manner != WAIT && reader->manner != LEAVE)
        take(reader, SIZE_MAX);
    if (reader->manner == LEAVE || reader->manner == TAKE_LEAVE)
        leave(reader);
    else if (reader->manner == WAIT)
        stream_wait(subscriber);
    else if (reader->manner != HOLD && reader->manner != TAKE_HOLD) {
        if (stream_state(subscriber->_stream) != STREAM_OPEN && stream_unread(subscriber) == 0)
            leave(reader);
        else
            stream_ready(subscriber);
    }
    reader->depth--;
}

static inline struct reader *reader_create(enum manner manner)
{
    struct reader *reader = calloc(1, sizeof(*reader));
    ck_assert_ptr_nonnull(reader);
    reader->manner = manner;
    reader->subscriber.on_data = on_data;
    strbuf_init(&reader->got, 1 << 24);
    return reader;
}

static inline struct reader *join(enum manner manner)
{
    struct reader *reader = reader_create(manner);
    ck_assert(stream_subscribe(stream, &reader->subscriber, 0));
    ck_assert_uint_eq(reader->calls, 0);
    return reader;
}

/* Whether somebody could still join at `from`. */
static inline bool may_join(uint64_t from)
{
    struct stream_subscriber probe = {.on_data = on_data};
    bool joined = stream_subscribe(stream, &probe, from);
    stream_unsubscribe(&probe);
    return joined;
}

static inline void expect_got(struct reader *reader, const char *text)
{
    ck_assert_str_eq(strbuf_cstr(&reader->got), text);
}

static inline void on_resume(void *ctx)
{
    ck_assert_ptr_eq(ctx, &resumes);
    resumes++;
}

static inline void on_cancel(void *ctx)
{
    ck_assert_ptr_eq(ctx, &resumes);
    cancels++;
    stream_break(stream, STREAM_CANCELLED, NULL);
    stream = NULL;
}

static inline void begin(const struct stream_settings *settings)
{
    struct stream_producer producer = {on_resume, on_cancel, &resumes};
    stream = stream_create(settings, &producer);
    ck_assert_int_eq(stream_state(stream), STREAM_OPEN);
    ck_assert(!stream_is_wanted(stream));
}

static inline void begin_plain(void)
{
    begin(&(struct stream_settings){0});
}

static inline enum stream_demand text(const char *string)
{
    return stream_append(stream, span_of(string));
}

/* Appends through a buffer of its own; *base is where its bytes were. */
static inline enum stream_demand buffer_at(const char *string, const char **base)
{
    size_t len = strlen(string);
    memcpy(h2o_buffer_reserve(&input, len).base, string, len);
    input->size += len;
    *base = input->bytes;
    enum stream_demand demand = stream_append_buffer(stream, &input);
    ck_assert_uint_eq(input->size, 0);
    return demand;
}

static inline enum stream_demand buffer(const char *string)
{
    const char *base;
    return buffer_at(string, &base);
}

static inline enum stream_demand zeros(size_t len)
{
    char *bytes = calloc(1, len);
    enum stream_demand demand = stream_append(stream, (struct span){bytes, len});
    free(bytes);
    return demand;
}

static inline void setup(void)
{
    h2o_buffer_init(&input, &prototype);
    resumes = cancels = 0;
}

static inline void teardown(void)
{
    h2o_buffer_dispose(&input);
}

/* Runs the tests; the program's exit status. */
static inline int run_tests(const char *name, TCase *tests)
{
    tcase_add_checked_fixture(tests, setup, teardown);
    return run_suite(name, tests);
}

#endif
