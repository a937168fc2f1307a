/* The built-in routes: one const table. */
#ifndef WEIR_GATEWAY_ROUTES_H
#define WEIR_GATEWAY_ROUTES_H

#include "gateway/body.h"
#include "gateway/config.h"
#include "stream/dialect.h"

struct call;

enum route_method {
    METHOD_GET = 1,
    METHOD_HEAD = 2,
    METHOD_POST = 4,
    METHOD_PUT = 8,
    METHOD_PATCH = 16,
    METHOD_DELETE = 32,
    METHOD_OPTIONS = 64,
    METHOD_ANY = 127,
};

struct route {
    struct span path; /* "/health", or "/v1/audio/" + '*' */
    unsigned methods;
    enum dialect_id dialect;
    const struct body_descriptor *body;  /* what `validate` checks; NULL: nothing */
    enum depend_id depends[DEPENDS_MAX]; /* unless the configuration says otherwise; zero-terminated */
    void (*handle)(struct call *call);
    const char *summary; /* for people */
};

extern const struct route routes[];
extern const size_t route_count;

/* Whether a route's path, which may end in '*', covers this path. */
bool route_covers(struct span pattern, struct span path);

/* The method's bit; 0 for methods that no route knows. */
unsigned route_method(struct span method);

/* Writes the methods as an Allow header's value (RFC 9110 §10.2.1). `out` holds at least 64 bytes. */
void route_allow(unsigned methods, char *out);

/* Paths without /v1 that mean one with it: the path meant, or the path itself. */
struct span route_canonical(struct span path);

#endif
