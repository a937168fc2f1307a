/* What happens to an HTTP answer by the clock: an early head, pings, and clients that take nothing. */
#include "base/clock.h"
#include "gateway/http_stream_own.h"
#include "gateway/worker.h"
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define STALLED_LOOK_US 1000000
static const char ping[] = ": ping\n"; /* no blank line: some SDKs make an event of that */

static void on_deadline(struct deadline *deadline);

static void arm(struct http_call *http, uint64_t at_us)
{
    http->deadline.cb = on_deadline;
    deadline_arm(&http->call.worker->deadlines, &http->deadline, at_us);
}

void http_stream_arm(struct http_call *http)
{
    const struct config *config = http->call.site->config;
    uint64_t at = UINT64_MAX, now = clock_us();
    if (http->sending)
        at = http->sent_us + config->send_timeout_us;
    /* Once armed it is left alone at each event; so, while something is being sent, it must look again in time for a
     * ping, and, while nothing is, for a client that takes nothing from then on. */
    if (http->streamed && config->sse_ping_us != 0) {
        uint64_t ping_at = (http->sending ? now : http->sent_us) + config->sse_ping_us;
        if (now + config->send_timeout_us < at)
            at = now + config->send_timeout_us;
        if (ping_at < at)
            at = ping_at;
    }
    if (at != UINT64_MAX)
        arm(http, at);
}

void http_stream_arm_early_head(struct http_call *http)
{
    uint64_t wait = http->call.site->config->early_head_us;
    if (wait == 0 || !call_wants_stream(&http->call))
        return;
    arm(http, http->call.record.started_us + wait);
}

static void send_ping(struct http_call *http)
{
    h2o_iovec_t out = h2o_iovec_init(ping, sizeof(ping) - 1);
    http->sending = true;
    http->sent_us = clock_us();
    h2o_send(http->req, &out, 1, H2O_SEND_STATE_IN_PROGRESS);
}

/* Whether the client has taken nothing since the last time that it was asked about, or for send_timeout. A slow reader
 * of a large piece shows in what its TCP has acknowledged; on HTTP/2 that says nothing about the one stream. */
static bool is_stalled(struct http_call *http, uint64_t now_us)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);
    if (now_us < http->sent_us + http->call.site->config->send_timeout_us)
        return false;
    int fd = h2o_socket_get_fd(http->req->conn->callbacks->get_socket(http->req->conn));
    if (http->req->version >= 0x200 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        info.tcpi_bytes_acked == http->acknowledged)
        return true;
    http->acknowledged = info.tcpi_bytes_acked;
    http->sent_us = now_us;
    return false;
}

void http_stream_watch_end(struct http_call *http)
{
    arm(http, http->sent_us + http->call.site->config->send_timeout_us);
}

/* A client that takes nothing for so long holds memory, a connection and a backend's attention for nobody. On HTTP/2
 * other requests may share the connection, and libh2o cannot reset one alone: the backend is let go at once, the
 * connection when nothing else is under way on it. */
static void cut_off_stalled(struct http_call *http)
{
    if (!http->stalled) {
        http->stalled = true;
        http->call.record.end = "send_timeout";
        http_stream_stop_reading(http);
    }
    if (http->req->version < 0x200 || connection_stalled(http->connection, http->connection_knows_stalled))
        shutdown(h2o_socket_get_fd(http->req->conn->callbacks->get_socket(http->req->conn)), SHUT_RDWR);
    else
        arm(http, clock_us() + STALLED_LOOK_US);
    http->connection_knows_stalled = true;
}

static void on_deadline(struct deadline *deadline)
{
    struct http_call *http = H2O_STRUCT_FROM_MEMBER(struct http_call, deadline, deadline);
    const struct config *config = http->call.site->config;
    uint64_t now = clock_us();
    if (http->phase == HTTP_WAITING) {
        if (http_stream_start_early(http)) {
            send_ping(http);
            http_stream_arm(http);
        }
        return;
    }
    if (http->phase == HTTP_ENDED) {
        if (is_stalled(http, now))
            cut_off_stalled(http);
        else
            http_stream_watch_end(http);
        return;
    }
    if (http->sending) {
        if (http->stalled || is_stalled(http, now)) {
            cut_off_stalled(http);
            return;
        }
    } else if (!http->streamed || config->sse_ping_us == 0) {
        return;
    } else if (now >= http->sent_us + config->sse_ping_us &&
               (http->subscriber._stream == NULL || stream_at_boundary(&http->subscriber))) {
        send_ping(http);
    } else if (now >= http->sent_us + config->sse_ping_us) {
        http->sent_us = now; /* in the middle of an event: look again later */
    }
    http_stream_arm(http);
}
