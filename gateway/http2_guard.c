#include "gateway/http2_guard.h"
#include "base/bucket.h"
#include "base/clock.h"
#include "gateway/connection.h"
#include "gateway/http2_bodies.h"
#include "gateway/http2_rules.h"
#include "gateway/large_buffer.h"
#include <h2o/http1.h>
#include <h2o/http2.h>
#include <h2o/http2_internal.h>

#define FRAME_HEAD 9    /* RFC 9113 §4.1 */
#define FRAME_MAX 16384 /* what libh2o's settings say */
#define BLOCK_MAX                                                                                                      \
    (128 << 10) /* bytes of a header block; a request may have half of it, the rest is for a polite 431                \
                 */
#define CONTINUATIONS_MAX 64
#define SMALL_DATA 64
#define LOOK_EVERY 64   /* DATA frames */
#define BODY_GROWS 4096 /* a DATA frame */
#define STREAM_COST ((size_t)6144)
#define FIELD_COST ((size_t)64)

enum kind {
    NONE,
    RESET,
    ABORTED,
    REQUEST, /* header blocks of which no handler hears */
    PRIORITY,
    SETTINGS,
    PING,
    WINDOW_UPDATE,
    EMPTY_DATA,
    SMALL_FRAMES,
    OTHER, /* frames of kinds that are not known, and GOAWAY */
    HEADER_BLOCK,
    KINDS,
};

/* A client that cancels a hundred streams at once, and again a second later, is within bounds; so is one that gives
 * window for each DATA frame of a hundred fast streams. */
static const struct {
    const char *name;
    struct bucket_rate rate;
} kinds[KINDS] = {
    [RESET] = {"reset", {400, 100}},
    [ABORTED] = {"aborted", {400, 100}},
    [REQUEST] = {"request", {2000, 500}},
    [PRIORITY] = {"priority", {1000, 500}},
    [SETTINGS] = {"settings", {100, 10}},
    [PING] = {"ping", {500, 100}},
    [WINDOW_UPDATE] = {"window_update", {50000, 40000}},
    [EMPTY_DATA] = {"empty_data", {200, 50}},
    [SMALL_FRAMES] = {"small_data", {20000, 10000}},
    [OTHER] = {"other", {1000, 500}},
    [HEADER_BLOCK] = {"header_block", {1, 1}},
};

typedef ssize_t (*expect_cb)(h2o_http2_conn_t *conn, const uint8_t *src, size_t len, const char **err_desc);

struct http2_guard {
    h2o_http2_conn_t *conn;
    expect_cb preface, frames; /* what libh2o expects at first, and between header blocks */
    expect_cb next;            /* what it expects now */
    h2o_socket_cb on_read;     /* libh2o's; what the socket's stands as for as long as `conn` lives */
    h2o_socket_t *sock;
    struct http2_rules rules;
    struct http2_bodies bodies;
    struct bucket buckets[KINDS];
    enum kind doomed; /* NONE: no */
    unsigned continuations, data_frames;
    size_t block;
};

bool http2_guard_fits(void)
{
    /* The name that a server has unless it is given one is the only place where the library tells its version. */
    h2o_globalconf_t globalconf;
    h2o_config_init(&globalconf);
    bool fits = strcmp(H2O_VERSION, "2.2.5") == 0 &&
                h2o_memis(globalconf.server_name.base, globalconf.server_name.len, H2O_STRLIT("h2o/2.2.5"));
    h2o_config_dispose(&globalconf);
    return fits;
}

struct http2_guard *http2_guard_create(void)
{
    struct http2_guard *guard = h2o_mem_alloc(sizeof(*guard));
    *guard = (struct http2_guard){.doomed = NONE};
    return guard;
}

void http2_guard_destroy(struct http2_guard *guard)
{
    free(guard);
}

static void take(struct http2_guard *guard, enum kind kind)
{
    if (!bucket_take(&guard->buckets[kind], &kinds[kind].rate, clock_us()) && guard->doomed == NONE)
        guard->doomed = kind;
}

void http2_guard_request(struct http2_guard *guard)
{
    bucket_give(&guard->buckets[REQUEST], &kinds[REQUEST].rate);
}

void http2_guard_aborted(struct http2_guard *guard)
{
    take(guard, ABORTED);
}

void http2_guard_too_many_fields(struct http2_guard *guard)
{
    guard->doomed = HEADER_BLOCK;
}

/* ---- requests that are not whole ---- */

static bool is_unfinished(const h2o_http2_stream_t *stream)
{
    return stream->state == H2O_HTTP2_STREAM_STATE_RECV_HEADERS || stream->state == H2O_HTTP2_STREAM_STATE_RECV_BODY;
}

static size_t cost_of(const h2o_http2_stream_t *stream)
{
    size_t cost = STREAM_COST + stream->req.headers.size * FIELD_COST;
    for (size_t i = 0; i < stream->req.headers.size; i++)
        cost += stream->req.headers.entries[i].value.len;
    return cost + (stream->_req_body != NULL ? stream->_req_body->size : 0);
}

/* Must not be used after. */
static void refuse(h2o_http2_conn_t *conn, h2o_http2_stream_t *stream)
{
    uint32_t id = stream->stream_id;
    h2o_http2_stream_reset(conn, stream);
    h2o_http2__encode_rst_stream_frame(&conn->_write.buf, id, -H2O_HTTP2_ERROR_REFUSED_STREAM);
    h2o_http2_conn_request_write(conn);
}

static bool is_open(const struct http2_guard *guard)
{
    return guard->sock != NULL && guard->sock->_cb.read == guard->on_read &&
           guard->conn->state < H2O_HTTP2_CONN_STATE_IS_CLOSING;
}

size_t http2_guard_sweep(struct http2_guard *guard, const struct timeval *since)
{
    size_t held = 0;
    if (!is_open(guard))
        return 0;
    khash_t(h2o_http2_stream_t) *streams = guard->conn->streams;
    for (khiter_t i = 0; i != kh_end(streams); i++) {
        if (!kh_flags_live(streams->flags, i) || !is_unfinished(kh_val(streams, i)))
            continue;
        h2o_http2_stream_t *stream = kh_val(streams, i);
        if (timercmp(&stream->req.timestamps.request_begin_at, since, <))
            refuse(guard->conn, stream);
        else
            held += cost_of(stream);
    }
    return held;
}

size_t http2_guard_refuse_newest(struct http2_guard *guard)
{
    h2o_http2_stream_t *newest = NULL;
    if (!is_open(guard))
        return 0;
    khash_t(h2o_http2_stream_t) *streams = guard->conn->streams;
    for (khiter_t i = 0; i != kh_end(streams); i++)
        if (kh_flags_live(streams->flags, i) && is_unfinished(kh_val(streams, i)) &&
            (newest == NULL || kh_val(streams, i)->stream_id > newest->stream_id))
            newest = kh_val(streams, i);
    if (newest == NULL)
        return 0;
    size_t cost = cost_of(newest);
    refuse(guard->conn, newest);
    return cost;
}

/* ---- frames ---- */

static void weigh_data(struct http2_guard *guard, const struct http2_frame *frame)
{
    static const struct timeval never = {0};
    bool last = (frame->flags & H2O_HTTP2_FRAME_FLAG_END_STREAM) != 0;
    if (frame->length == 0 && !last)
        take(guard, EMPTY_DATA);
    else if (frame->length < SMALL_DATA && !last)
        take(guard, SMALL_FRAMES);
    if (++guard->data_frames % LOOK_EVERY != 0)
        return;
    size_t held = http2_guard_sweep(guard, &never), most = connection_upload_max(guard->conn->sock), freed;
    while (held > most && (freed = http2_guard_refuse_newest(guard)) != 0) {
        held -= freed;
        take(guard, ABORTED);
    }
}

static void weigh(struct http2_guard *guard, const struct http2_frame *frame)
{
    static const enum kind kind_of[] = {
        [H2O_HTTP2_FRAME_TYPE_HEADERS] = REQUEST,    [H2O_HTTP2_FRAME_TYPE_PRIORITY] = PRIORITY,
        [H2O_HTTP2_FRAME_TYPE_RST_STREAM] = RESET,   [H2O_HTTP2_FRAME_TYPE_SETTINGS] = SETTINGS,
        [H2O_HTTP2_FRAME_TYPE_PUSH_PROMISE] = OTHER, [H2O_HTTP2_FRAME_TYPE_PING] = PING,
        [H2O_HTTP2_FRAME_TYPE_GOAWAY] = OTHER,       [H2O_HTTP2_FRAME_TYPE_WINDOW_UPDATE] = WINDOW_UPDATE,
    };
    if (frame->type == H2O_HTTP2_FRAME_TYPE_DATA) {
        weigh_data(guard, frame);
        return;
    }
    if (frame->type == H2O_HTTP2_FRAME_TYPE_HEADERS) {
        guard->continuations = 0;
        guard->block = frame->length;
    } else if (frame->type == H2O_HTTP2_FRAME_TYPE_CONTINUATION) {
        guard->block += frame->length;
        if (++guard->continuations > CONTINUATIONS_MAX || guard->block > BLOCK_MAX)
            guard->doomed = HEADER_BLOCK;
        return;
    }
    take(guard, frame->type < sizeof(kind_of) / sizeof(kind_of[0]) ? kind_of[frame->type] : OTHER);
}

/* libh2o's own buffer for a body grows by doubling, with a copy each time. This lets it fit what was announced, but
 * never have much more room than has come. */
static void make_room(struct http2_guard *guard, const struct http2_frame *frame)
{
    if (frame->type != H2O_HTTP2_FRAME_TYPE_DATA || frame->length < BODY_GROWS)
        return;
    h2o_http2_stream_t *stream = h2o_http2_conn_get_stream(guard->conn, frame->stream_id);
    if (stream == NULL || !is_unfinished(stream) || stream->_req_body == NULL ||
        stream->_expected_content_length == SIZE_MAX)
        return;
    h2o_buffer_t *body = stream->_req_body;
    size_t needed = body->size + frame->length, total = stream->_expected_content_length, most = needed * 4;
    if (body->capacity - body->size < frame->length && total > needed)
        large_buffer_move(&stream->_req_body, total < most ? total : most);
}

/* A short block can stand for a great many fields (RFC 7541 §7.3); those of a request that is never finished would
 * stay. */
static void look_at_fields(struct http2_guard *guard, const struct http2_frame *frame)
{
    if ((frame->type != H2O_HTTP2_FRAME_TYPE_HEADERS && frame->type != H2O_HTTP2_FRAME_TYPE_CONTINUATION) ||
        (frame->flags & H2O_HTTP2_FRAME_FLAG_END_HEADERS) == 0)
        return;
    h2o_http2_stream_t *stream = h2o_http2_conn_get_stream(guard->conn, frame->stream_id);
    if (stream != NULL && is_unfinished(stream) && stream->req.headers.size > HTTP2_GUARD_FIELDS_MAX)
        guard->doomed = HEADER_BLOCK;
}

static ssize_t on_frame(h2o_http2_conn_t *conn, const uint8_t *src, size_t len, const char **err_desc)
{
    struct http2_guard *guard = connection_guard(conn->sock);
    struct http2_frame frame = {0};
    bool whole = guard->next != guard->preface && len >= FRAME_HEAD;
    if (whole) {
        frame = (struct http2_frame){
            .length = (size_t)src[0] << 16 | (size_t)src[1] << 8 | src[2],
            .type = src[3],
            .flags = src[4],
            .stream_id =
                ((uint32_t)src[5] << 24 | (uint32_t)src[6] << 16 | (uint32_t)src[7] << 8 | src[8]) & 0x7fffffff,
            .payload = src + FRAME_HEAD};
        whole = frame.length <= FRAME_MAX && len >= FRAME_HEAD + frame.length;
    }
    if (whole && guard->doomed == NONE)
        weigh(guard, &frame);
    if (guard->doomed != NONE) {
        connection_flooded(conn->sock, kinds[guard->doomed].name);
        *err_desc = "flood";
        return H2O_HTTP2_ERROR_ENHANCE_YOUR_CALM;
    }
    int error = whole ? http2_rules_check(&guard->rules, conn, &frame, err_desc) : 0;
    if (error != 0) {
        connection_broke_rule(conn->sock, *err_desc);
        return error;
    }
    /* Extensions are to be ignored (RFC 9113 §5.5); libh2o does, but writes a line about each to stderr. */
    if (whole && guard->next == guard->frames &&
        (frame.type > H2O_HTTP2_FRAME_TYPE_CONTINUATION || http2_rules_pass_over(&guard->rules, conn, &frame) ||
         http2_bodies_refuse(&guard->bodies, conn, &frame)))
        return (ssize_t)(FRAME_HEAD + frame.length);

    if (whole)
        make_room(guard, &frame);
    ssize_t consumed = guard->next(conn, src, len, err_desc);
    if (conn->_read_expect != on_frame) {
        if (guard->next == guard->preface)
            guard->frames = conn->_read_expect;
        guard->next = conn->_read_expect;
        conn->_read_expect = on_frame;
    }
    if (consumed == 0) {
        /* A header block that goes on after the last GOAWAY: libh2o would ask for ever. */
        *err_desc = "no progress";
        return H2O_HTTP2_ERROR_PROTOCOL;
    }
    if (whole && consumed > 0) {
        http2_rules_complete(&guard->rules, conn, &frame);
        look_at_fields(guard, &frame);
    }
    /* That code is libh2o's own; it comes of trailers alone. */
    return consumed == H2O_HTTP2_ERROR_INVALID_HEADER_CHAR ? H2O_HTTP2_ERROR_PROTOCOL : consumed;
}

void http2_guard_accept(struct http2_guard *guard, h2o_accept_ctx_t *accept_ctx, h2o_socket_t *sock,
                        struct timeval connected_at)
{
    /* What has come already is kept back until the guard stands. */
    h2o_buffer_t *input = sock->input;
    h2o_buffer_init(&sock->input, &h2o_socket_buffer_prototype);
    h2o_http2_accept(accept_ctx, sock, connected_at);
    h2o_buffer_dispose(&sock->input);
    sock->input = input;
    h2o_buffer_set_prototype(&sock->input, &h2o_socket_buffer_prototype); /* the next is for libh2o's reads */
    h2o_http2_conn_t *conn = sock->data;
    if (conn->sock != sock || conn->super.ctx != accept_ctx->ctx)
        h2o_fatal("libh2o is not the one that weir was built for");
    guard->conn = conn;
    guard->sock = sock;
    guard->on_read = sock->_cb.read;
    guard->preface = guard->next = conn->_read_expect;
    conn->_read_expect = on_frame;
    if (sock->input->size != 0)
        sock->_cb.read(sock, NULL);
}
