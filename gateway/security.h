/* What somebody who guards the gateway wants to hear of: counted in weir_security_events_total, and one line of the log
 * each, {"msg":"security","event":…,"client":…}. A kind of event that comes in masses writes ten lines, then one a
 * second, which say how many were left out. No secrets: details are weir's own words. One worker's thread. */
#ifndef WEIR_GATEWAY_SECURITY_H
#define WEIR_GATEWAY_SECURITY_H

#include "base/bucket.h"
#include "base/span.h"
#include <netinet/in.h>

struct worker;

enum security_event {
    SECURITY_BAD_KEY,     /* a key that is wrong or has expired */
    SECURITY_FLOOD,       /* an HTTP/2 connection was closed for flooding */
    SECURITY_MALFORMED,   /* a request that looks like smuggling; an HTTP/2 connection that broke one of http2_rules */
    SECURITY_CONNECTIONS, /* a connection was refused */
    SECURITY_UPLOADS,     /* uploads were refused for lack of memory */
    SECURITY_ADMIN,       /* an admin's key was used */
    SECURITY_EVENTS,
};

/* Of each worker; zero-initialised. */
struct security {
    struct {
        struct bucket bucket;
        uint64_t left_out;
    } events[SECURITY_EVENTS];
};

/* `client` may be unspecified; `detail` (static, or of this call) says more, and may be empty. */
void security_event(struct worker *worker, enum security_event event, const struct in6_addr *client,
                    struct span detail);

#endif
