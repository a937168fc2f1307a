#include "gateway/security.h"
#include "base/clock.h"
#include "base/log.h"
#include "gateway/worker.h"

static const struct bucket_rate lines = {.burst = 10, .per_second = 1};

static const char *const names[SECURITY_EVENTS] = {
    [SECURITY_BAD_KEY] = "bad_key",         [SECURITY_FLOOD] = "flood",     [SECURITY_MALFORMED] = "malformed",
    [SECURITY_CONNECTIONS] = "connections", [SECURITY_UPLOADS] = "uploads", [SECURITY_ADMIN] = "admin",
};

void security_event(struct worker *worker, enum security_event event, const struct in6_addr *client, struct span detail)
{
    telemetry_security(worker, names[event]);
    if (!bucket_take(&worker->security.events[event].bucket, &lines, clock_us())) {
        worker->security.events[event].left_out++;
        return;
    }
    struct log_line line;
    log_begin(&line, LOG_WARN, "security");
    log_str(&line, "event", span_of(names[event]));
    telemetry_log_client(&line, client);
    log_str(&line, "detail", detail);
    if (worker->security.events[event].left_out != 0)
        log_int(&line, "left_out", (int64_t)worker->security.events[event].left_out);
    worker->security.events[event].left_out = 0;
    log_end(&line);
}
