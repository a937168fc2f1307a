#include "backends/resolve.h"
#include "base/clock.h"
#include "base/log.h"
#include <h2o/hostinfo.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#define FIRST_US 1000
#define ADDRESS_LEN 64
#define BY_NAME "" /* the address of a server that is connected to by name */

/* A server that stands for a name, or for one of its addresses. */
struct place {
    char address[ADDRESS_LEN];
    struct fleet_server *server; /* counted */
};

/* A name that is looked up. */
struct host {
    struct host *next;
    struct resolver *resolver;
    struct fleet_server *root; /* counted: whose name it is */
    h2o_hostinfo_getaddr_req_t *lookup;
    struct deadline due;
    size_t count;
    struct place places[RESOLVE_ADDRESSES_MAX];
    bool failing; /* which the log has been told */
};

struct resolver {
    struct pool *pool;
    struct deadlines *deadlines;
    struct host *hosts;
    uint64_t version;
};

/* What a lookup has found. */
struct found {
    size_t count;
    struct {
        char text[ADDRESS_LEN];
        struct sockaddr_storage address;
        socklen_t len;
    } at[RESOLVE_ADDRESSES_MAX];
};

static void log_name(enum log_level level, const struct host *host, size_t addresses, const char *problem)
{
    struct log_line line;
    if (!log_enabled(level))
        return;
    log_begin(&line, level, "name");
    log_str(&line, "backend", span_of(host->root->settings->name));
    log_str(&line, "host", span_of(host->root->settings->url.host));
    if (addresses != 0)
        log_int(&line, "addresses", (int64_t)addresses);
    log_str(&line, "problem", span_of(problem));
    log_end(&line);
}

static void gather(const struct addrinfo *res, struct found *found)
{
    found->count = 0;
    for (; res != NULL && found->count < RESOLVE_ADDRESSES_MAX; res = res->ai_next) {
        char text[ADDRESS_LEN];
        bool known = res->ai_addrlen > sizeof(found->at[0].address) ||
                     getnameinfo(res->ai_addr, res->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST) != 0;
        for (size_t i = 0; i < found->count && !known; i++)
            known = strcmp(found->at[i].text, text) == 0;
        if (known)
            continue;
        memcpy(&found->at[found->count].address, res->ai_addr, res->ai_addrlen);
        found->at[found->count].len = res->ai_addrlen;
        strcpy(found->at[found->count++].text, text);
    }
    if (found->count == 1) {
        found->at[0].len = 0;
        strcpy(found->at[0].text, BY_NAME);
    }
}

static bool is_among(const struct found *found, const char *address)
{
    for (size_t i = 0; i < found->count; i++)
        if (strcmp(found->at[i].text, address) == 0)
            return true;
    return false;
}

static bool has_place(const struct host *host, const char *address)
{
    for (size_t i = 0; i < host->count; i++)
        if (strcmp(host->places[i].address, address) == 0)
            return true;
    return false;
}

/* Whether the one server that stood for all addresses is drained: then each of them is. */
static bool is_drained(const struct host *host)
{
    return host->count == 1 && strcmp(host->places[0].address, BY_NAME) == 0 &&
           atomic_load_explicit(&host->places[0].server->_draining, memory_order_relaxed);
}

/* New addresses first: there is always somebody to serve. */
static void apply(struct host *host, const struct found *found)
{
    struct fleet *fleet = pool_fleet(host->resolver->pool);
    struct place places[RESOLVE_ADDRESSES_MAX];
    size_t count = 0, changes = 0;
    bool drained = is_drained(host);
    for (size_t i = 0; i < found->count; i++) {
        char name[BACKEND_NAME_MAX + ADDRESS_LEN + 4];
        struct fleet_server *server;
        if (has_place(host, found->at[i].text))
            continue;
        snprintf(name, sizeof(name), found->at[i].len != 0 ? "%.*s [%s]" : "%.*s", BACKEND_NAME_MAX,
                 host->root->settings->name, found->at[i].text);
        server = fleet_add_place(fleet, host->root, name, (const struct sockaddr *)&found->at[i].address,
                                 found->at[i].len, drained);
        if (server == NULL) {
            log_name(LOG_ERROR, host, found->count, "there are too many servers");
            continue;
        }
        strcpy(places[count].address, found->at[i].text);
        places[count++].server = fleet_server_retain(server);
        changes++;
    }
    /* Where there was no room for any, the old ones had better stay. */
    bool keep = count == 0;
    for (size_t i = 0; i < host->count; i++)
        keep &= !is_among(found, host->places[i].address);
    for (size_t i = 0; i < host->count; i++) {
        struct place *place = &host->places[i];
        if ((keep || is_among(found, place->address)) && count < RESOLVE_ADDRESSES_MAX) {
            places[count++] = *place;
            continue;
        }
        fleet_leave(place->server);
        fleet_server_release(place->server);
        changes++;
    }
    memcpy(host->places, places, count * sizeof(places[0]));
    host->count = count;
    if (changes != 0)
        log_name(LOG_INFO, host, found->count, NULL);
}

static void on_found(h2o_hostinfo_getaddr_req_t *req, const char *error, struct addrinfo *res, void *ctx)
{
    struct host *host = ctx;
    struct found found;
    (void)req;
    host->lookup = NULL;
    if (error == NULL)
        gather(res, &found);
    if (error == NULL && found.count != 0) {
        apply(host, &found);
        host->failing = false;
    } else if (!host->failing) {
        log_name(LOG_WARN, host, 0, error != NULL ? error : "it has no address");
        host->failing = true;
    }
    uint64_t us = fleet_settings(pool_fleet(host->resolver->pool))->resolve_us;
    us += pool_random(host->resolver->pool) % (us / 10 + 1);
    deadline_arm(host->resolver->deadlines, &host->due, clock_us() + us);
}

static void on_due(struct deadline *deadline)
{
    struct host *host = H2O_STRUCT_FROM_MEMBER(struct host, due, deadline);
    const struct backend_url *url = &host->root->settings->url;
    char port[6];
    snprintf(port, sizeof(port), "%u", url->port);
    host->lookup =
        h2o_hostinfo_getaddr(&pool_context(host->resolver->pool)->receivers.hostinfo_getaddr,
                             h2o_iovec_init(url->host, strlen(url->host)), h2o_iovec_init(port, strlen(port)),
                             AF_UNSPEC, SOCK_STREAM, IPPROTO_TCP, AI_ADDRCONFIG | AI_NUMERICSERV, on_found, host);
}

static struct host *find(const struct resolver *resolver, const struct fleet_server *root)
{
    struct host *host = resolver->hosts;
    while (host != NULL && host->root != root)
        host = host->next;
    return host;
}

static void begin(struct resolver *resolver, struct fleet_server *root)
{
    struct host *host = calloc(1, sizeof(*host));
    if (host == NULL)
        abort();
    host->next = resolver->hosts;
    host->resolver = resolver;
    host->root = fleet_server_retain(root);
    host->due.cb = on_due;
    host->places[host->count++].server = fleet_server_retain(root);
    resolver->hosts = host;
    deadline_arm(resolver->deadlines, &host->due, clock_us() + FIRST_US);
}

static void end(struct host *host)
{
    deadline_disarm(host->resolver->deadlines, &host->due);
    if (host->lookup != NULL)
        h2o_hostinfo_getaddr_cancel(host->lookup);
    for (size_t i = 0; i < host->count; i++)
        fleet_server_release(host->places[i].server);
    fleet_server_release(host->root);
    free(host);
}

static void retire(const struct host *host)
{
    for (size_t i = 0; i < host->count; i++)
        fleet_leave(host->places[i].server);
}

/* Those that an administrator has removed, with what a lookup may have added at the same time. */
static void end_retired(struct resolver *resolver)
{
    for (struct host **slot = &resolver->hosts, *host; (host = *slot) != NULL;) {
        if (!atomic_load_explicit(&host->root->retired, memory_order_relaxed)) {
            slot = &host->next;
            continue;
        }
        *slot = host->next;
        retire(host);
        end(host);
    }
}

void resolver_follow(struct resolver *resolver)
{
    struct fleet *fleet = pool_fleet(resolver->pool);
    end_retired(resolver);
    if (fleet_settings(fleet)->resolve_us == 0 || resolver->version == fleet_version(fleet))
        return;
    resolver->version = fleet_version(fleet);
    struct fleet_set *set = fleet_set_get(fleet);
    for (size_t i = 0; i < set->count; i++) {
        struct fleet_server *server = set->servers[i];
        const struct backend_url *url = &server->settings->url;
        if (server->root == NULL && url->kind == BACKEND_HTTP && url->host != NULL && !url->host_is_ip &&
            !atomic_load_explicit(&server->retired, memory_order_relaxed) && find(resolver, server) == NULL)
            begin(resolver, server);
    }
    fleet_set_release(set);
}

struct resolver *resolver_create(struct pool *pool, struct deadlines *deadlines)
{
    struct resolver *resolver = calloc(1, sizeof(*resolver));
    if (resolver == NULL)
        abort();
    *resolver = (struct resolver){.pool = pool, .deadlines = deadlines};
    resolver_follow(resolver);
    return resolver;
}

void resolver_destroy(struct resolver *resolver)
{
    for (struct host *host = resolver->hosts, *next; host != NULL; host = next) {
        next = host->next;
        end(host);
    }
    free(resolver);
}
