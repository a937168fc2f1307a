/* A stream against a model of it: random pieces go in, several readers come, read, leave and join again at random, and
 * each must see exactly the bytes from where it joined. */
#include "run_suite.h"
#include "stream/stream.h"
#include <stdlib.h>

#define ROUNDS 400
#define STEPS 300
#define READERS 4
#define KEPT 32
#define BYTES_MAX (1 << 21)

static h2o_buffer_prototype_t prototype = {._initial_buf = {.capacity = 512}};

struct reader {
    struct stream_subscriber subscriber;
    bool joined, busy; /* as the model has it */
    uint64_t at;
};

/* The stream under test and what the model knows of it. */
static struct stream *stream;
static struct stream_settings settings;
static char *bytes; /* all of it; byte i is here as bytes[i] */
static uint64_t appended;
static bool paused, cancelled, appending;
static struct reader readers[READERS];
static struct {
    struct chunk *chunk;
    struct span bytes;
    uint64_t at;
} kept[KEPT];
static uint64_t seed;

static unsigned dice(unsigned sides)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(seed >> 33) % sides;
}

static void keep_some(const struct slice *slice, uint64_t at)
{
    unsigned i = dice(KEPT);
    if (kept[i].chunk != NULL) {
        ck_assert_mem_eq(kept[i].bytes.base, bytes + kept[i].at, kept[i].bytes.len);
        chunk_release(kept[i].chunk);
    }
    kept[i].chunk = chunk_retain(slice, &kept[i].bytes);
    kept[i].at = at;
    ck_assert_uint_eq(kept[i].bytes.len, slice->bytes.len);
}

static void read_some(struct reader *reader)
{
    struct slice slices[5];
    size_t count = stream_peek(&reader->subscriber, slices, 1 + dice(5)), seen = 0;
    ck_assert_uint_eq(stream_unread(&reader->subscriber), appended - reader->at);
    ck_assert((count == 0) == (reader->at == appended));
    for (size_t i = 0; i < count; i++) {
        ck_assert_uint_ne(slices[i].bytes.len, 0);
        ck_assert_uint_le(reader->at + seen + slices[i].bytes.len, appended);
        ck_assert_mem_eq(slices[i].bytes.base, bytes + reader->at + seen, slices[i].bytes.len);
        if (dice(20) == 0)
            keep_some(&slices[i], reader->at + seen);
        seen += slices[i].bytes.len;
    }
    size_t take = dice(3) != 0 ? seen : dice((unsigned)seen + 1);
    reader->at += take;
    stream_consume(&reader->subscriber, take);
}

static void leave(struct reader *reader)
{
    reader->joined = false;
    memset(&reader->subscriber._chunk, 0xee, sizeof(reader->subscriber._chunk));
    stream_unsubscribe(&reader->subscriber);
}

static void on_data(struct stream_subscriber *subscriber)
{
    struct reader *reader = H2O_STRUCT_FROM_MEMBER(struct reader, subscriber, subscriber);
    ck_assert(reader->joined && !reader->busy);
    reader->busy = true;
    switch (dice(8)) {
    case 0:
        break;
    case 1:
        reader->busy = false;
        stream_wait(subscriber);
        break;
    case 2:
        if (dice(5) == 0) {
            leave(reader);
            break;
        }
        /* fall through */
    default:
        read_some(reader);
        if (dice(10) == 0) {
            struct reader *other = &readers[dice(READERS)];
            if (other != reader && other->joined)
                leave(other);
        }
        if (reader->at == appended && dice(6) != 0 && stream_state(subscriber->_stream) == STREAM_OPEN) {
            reader->busy = false;
            stream_ready(subscriber);
        }
    }
}

static void on_resume(void *ctx)
{
    (void)ctx;
    ck_assert(paused && !appending && !cancelled);
    paused = false;
}

static void on_cancel(void *ctx)
{
    (void)ctx;
    ck_assert(!cancelled && !appending);
    cancelled = true;
}

/* The lag of the slowest; -1 without readers. */
static int64_t slowest_lag(void)
{
    int64_t lag = -1;
    for (int i = 0; i < READERS; i++)
        if (readers[i].joined && (int64_t)(appended - readers[i].at) > lag)
            lag = (int64_t)(appended - readers[i].at);
    return lag;
}

static void append_some(h2o_buffer_t **input)
{
    size_t len = dice(4) == 0 ? dice(3000) : dice(60);
    if (appended + len > BYTES_MAX)
        return;
    for (size_t i = 0; i < len; i++)
        bytes[appended + i] = (char)dice(256);
    char *exact = malloc(len + 1);
    memcpy(exact, bytes + appended, len);
    appended += len;
    appending = true;
    enum stream_demand demand;
    if (dice(2) != 0) {
        memcpy(h2o_buffer_reserve(input, len + 1).base, exact, len);
        (*input)->size += len;
        demand = stream_append_buffer(stream, input);
        ck_assert_uint_eq((*input)->size, 0);
    } else {
        demand = stream_append(stream, (struct span){exact, len});
    }
    free(exact);
    appending = false;
    if (len == 0)
        return;
    int64_t lag = slowest_lag();
    ck_assert_int_eq(demand, lag < 0                               ? STREAM_UNWANTED
                             : lag >= (int64_t)settings.high_water ? STREAM_PAUSE
                                                                   : STREAM_GO_ON);
    paused = demand == STREAM_PAUSE;
    cancelled = demand == STREAM_UNWANTED;
}

static void join(struct reader *reader)
{
    uint64_t from = dice(3) == 0 ? 0 : dice(2) == 0 ? appended : dice((unsigned)appended + 1);
    int64_t lag = slowest_lag();
    reader->subscriber.on_data = on_data;
    if (stream_subscribe(stream, &reader->subscriber, from))
        *reader = (struct reader){.subscriber = reader->subscriber, .joined = true, .at = from};
    else
        ck_assert_msg((int64_t)(appended - from) > lag, "what a reader still needs must be there for another");
}

static void one_step(h2o_buffer_t **input)
{
    struct reader *reader = &readers[dice(READERS)];
    switch (dice(8)) {
    case 0:
        if (reader->joined && dice(4) == 0)
            leave(reader);
        break;
    case 1:
        if (!reader->joined)
            join(reader);
        break;
    case 2:
    case 3:
        if (reader->joined)
            read_some(reader);
        break;
    case 4:
        if (reader->joined && reader->busy) {
            reader->busy = false;
            stream_ready(&reader->subscriber);
        }
        break;
    default:
        if (!paused)
            append_some(input);
    }
    if (paused && !cancelled)
        ck_assert_msg(slowest_lag() > (int64_t)settings.high_water / 2, "nobody is far behind, and still it pauses");
}

/* Over: whoever is left reads the rest. */
static void drain(void)
{
    paused = false;
    for (int i = 0; i < READERS; i++) {
        while (readers[i].joined && readers[i].at != appended)
            read_some(&readers[i]);
        if (readers[i].joined)
            leave(&readers[i]);
    }
    for (int i = 0; i < KEPT; i++) {
        if (kept[i].chunk == NULL)
            continue;
        ck_assert_mem_eq(kept[i].bytes.base, bytes + kept[i].at, kept[i].bytes.len);
        chunk_release(kept[i].chunk);
        kept[i].chunk = NULL;
    }
}

START_TEST(every_reader_sees_every_byte)
{
    static const size_t keeps[] = {0, 0, 20000, 1 << 22};
    struct stream_producer producer = {.resume = on_resume, .cancel = on_cancel};
    h2o_buffer_t *input;
    h2o_buffer_init(&input, &prototype);
    bytes = malloc(BYTES_MAX);
    uint64_t total = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        seed = round + 1;
        settings = (struct stream_settings){.high_water = 1 + dice(20000), .max_bytes = 1 << 23};
        settings.keep_bytes = keeps[dice(4)];
        settings.sse = dice(2) != 0;
        stream = stream_create(&settings, &producer);
        appended = 0;
        paused = cancelled = false;
        memset(readers, 0, sizeof(readers));
        for (unsigned i = 0; i <= dice(READERS); i++)
            join(&readers[i]);
        for (unsigned step = 0; step < STEPS && !cancelled; step++)
            one_step(&input);
        total += appended;
        if (dice(2) != 0 && !cancelled)
            stream_end(stream);
        else
            stream_break(stream, STREAM_CANCELLED, "enough");
        drain();
    }
    ck_assert_uint_gt(total, ROUNDS * 1000); /* or it proves nothing */
    h2o_buffer_dispose(&input);
    free(bytes);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("stream_random");

    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, every_reader_sees_every_byte);
    return run_suite("stream_random", tests);
}
