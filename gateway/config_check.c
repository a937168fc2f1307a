#include "gateway/config_check.h"
#include "gateway/nearest.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const struct route *config_check_find_route(struct span path)
{
    for (size_t i = 0; i < route_count; i++) {
        if (span_eq(routes[i].path, path))
            return &routes[i];
    }
    return NULL;
}

bool config_route_known(struct span path)
{
    return config_check_find_route(path) != NULL;
}

/* The host of an address that config_value_listen accepted; SPAN_NONE for a unix socket. */
static struct span host_of(const struct config_listen *listen)
{
    struct config_report unused = {NULL, 0};
    struct span text = span_of(listen->address), host;
    const struct config_value value = {&unused, "", text, text};

    return config_value_listen(&value, &host) ? host : SPAN_NONE;
}

static bool check_listen(const struct config *config, struct config_report *report)
{
    for (size_t i = 0; i < config->listen_count; i++) {
        const char *address = config->listen[i].address;
        for (size_t j = 0; j < i; j++) {
            if (strcasecmp(config->listen[j].address, address) == 0)
                return config_fail(report, "the address %.120s is listened on twice, expected once", address);
        }
        if (config->key_count != 0 || config->open || strncmp(address, "unix:", 5) == 0 ||
            config_host_is_loopback(host_of(&config->listen[i])))
            continue;
        char place[300] = "";
        if (config->listen[i].line != 0)
            snprintf(place, sizeof(place), "%.250s:%d: ", config->file, config->listen[i].line);
        return config_fail(
            report,
            "%sno API key is set and %.120s can be reached from other machines; require a key with --api-key "
            "(WEIR_API_KEY, \"keys\" in the file), or serve everybody with --open (WEIR_OPEN=true)",
            place, address);
    }
    return true;
}

/* Where --listen and --api-key say otherwise than the file, the file's admin part may no longer fit. */
static bool check_admin(const struct config *config, struct config_report *report)
{
    const char *address = config->admin.listen.address;
    for (size_t i = 0; address != NULL && i < config->listen_count; i++) {
        if (strcasecmp(config->listen[i].address, address) == 0)
            return config_fail(report, "%s:%d: admin's address %.120s is listened on for clients too, expected another",
                               config->file, config->admin.listen.line, address);
    }
    for (size_t i = 0; i < config->admin.key_count; i++) {
        const struct config_key *key = &config->admin.keys[i];
        for (size_t j = 0; j < i; j++) {
            const struct config_key *other = &config->admin.keys[j];
            bool same_name = strcmp(key->name, other->name) == 0;
            if (same_name || memcmp(key->hash, other->hash, sizeof(key->hash)) == 0)
                return config_fail(
                    report, "%s:%d: the admin key \"%s\" has the same %s as the one in line %d, expected another",
                    config->file, key->line, key->name, same_name ? "name" : "secret", other->line);
        }
        /* Whoever has the one would have the other: most likely a slip. */
        for (size_t j = 0; j < config->key_count; j++) {
            if (memcmp(key->hash, config->keys[j].hash, sizeof(key->hash)) == 0)
                return config_fail(report,
                                   "%s:%d: the admin key \"%s\" is the API key \"%s\" too, expected another secret",
                                   config->file, key->line, key->name, config->keys[j].name);
        }
    }
    return true;
}

static int compare_names(const void *a, const void *b)
{
    const struct config_key *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* Order, not secrecy: the hashes were made here. */
static int compare_hashes(const void *a, const void *b)
{
    const struct config_key *const *x = a, *const *y = b;

    return memcmp((*x)->hash, (*y)->hash, sizeof((*x)->hash));
}

static bool doubles(const struct config_key *first, const struct config_key *second, const char *what, const char *file,
                    struct config_report *report)
{
    if (first->line > second->line) {
        const struct config_key *later = first;
        first = second;
        second = later;
    }
    if (second->line == 0)
        return config_fail(report,
                           "the keys \"%s\" and \"%s\" of --api-key (or WEIR_API_KEY) are %s, expected different ones",
                           first->name, second->name, what);
    return config_fail(report, "%s:%d: the key \"%s\" has %s as the key \"%s\" in line %d, expected another one", file,
                       second->line, second->name, what, first->name, first->line);
}

static bool check_key_doubles(const struct config *config, const char *file, struct config_report *report)
{
    bool ok = true;
    size_t count = config->key_count;

    if (count < 2)
        return true;
    const struct config_key **sorted = calloc(count, sizeof(*sorted));
    if (sorted == NULL)
        abort();
    for (size_t i = 0; i < count; i++)
        sorted[i] = &config->keys[i];
    qsort(sorted, count, sizeof(*sorted), compare_names);
    for (size_t i = 1; ok && i < count; i++) {
        if (compare_names(&sorted[i - 1], &sorted[i]) == 0)
            ok = doubles(sorted[i - 1], sorted[i], "the same name", file, report);
    }
    qsort(sorted, count, sizeof(*sorted), compare_hashes);
    for (size_t i = 1; ok && i < count; i++) {
        if (compare_hashes(&sorted[i - 1], &sorted[i]) == 0)
            ok = doubles(sorted[i - 1], sorted[i], "the same secret", file, report);
    }
    free(sorted);
    return ok;
}

bool config_check_route_exists(const struct config *config, struct span pattern)
{
    for (size_t i = 0; i < route_count; i++) {
        if (glob_match(pattern, routes[i].path))
            return true;
    }
    for (size_t i = 0; i < config->route_count; i++) {
        if (config->routes[i].proxy != NULL && glob_match(pattern, span_of(config->routes[i].path)))
            return true;
    }
    return false;
}

/* What a key names must be there: a misspelt route would lock its owner out. */
static bool check_key_routes(const struct config *config, const char *file, struct config_report *report)
{
    for (size_t i = 0; i < config->key_count; i++) {
        const struct config_key *key = &config->keys[i];
        for (size_t j = 0; j < key->route_count; j++) {
            if (!config_check_route_exists(config, span_of(key->routes[j])))
                return config_fail(report,
                                   "%s:%d: the key \"%s\" names the route \"%.80s\", which does not exist, expected "
                                   "such as /v1/chat/completions or /v1/*",
                                   file, key->line, key->name, key->routes[j]);
        }
    }
    return true;
}

static bool has_depend(const struct config_route *route, enum depend_id id)
{
    for (size_t i = 0; i < route->depend_count; i++) {
        if (route->depends[i] == id)
            return true;
    }
    return false;
}

bool config_check_route_fail(const struct config_check_route *check, const char *format, ...)
{
    char what[400];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return config_fail(check->report, "%s:%d: the route \"%.80s\" %s", check->file, check->route->line,
                       check->route->path, what);
}

static bool check_depends(const struct config_check_route *check)
{
    const struct config_route *route = check->route;
    const struct route *known = config_check_find_route(span_of(route->path));
    if (known != NULL && known->depends[0] == DEPEND_ADMIN_KEY)
        return config_check_route_fail(check, "is for admin keys and cannot be changed, expected another route");
    bool api_key = has_depend(route, DEPEND_API_KEY), open = has_depend(route, DEPEND_PUBLIC);

    /* Elsewhere the query goes on to a backend, and the key with it. */
    if (route->query_key && (known == NULL || known->methods != METHOD_GET))
        return config_check_route_fail(check,
                                       "may not have \"query_key\", expected it for /ws/chat and its like alone");
    if (!route->has_depends)
        return true;
    if (open && api_key)
        return config_check_route_fail(check, "depends on \"public\" and \"api_key\", expected one of them");
    /* Limits and the cache may come before it if config_check_depends says so. */
    for (size_t i = 0; api_key && route->depends[i] != DEPEND_API_KEY; i++) {
        if (route->depends[i] != DEPEND_LIMIT && route->depends[i] != DEPEND_CACHE)
            return config_check_route_fail(check, "has something before \"api_key\", expected \"api_key\" first");
    }
    if (has_depend(route, DEPEND_VALIDATE) && (known == NULL || known->body == NULL))
        return config_check_route_fail(check, "has no body that \"validate\" knows, expected no \"validate\"");
    if (!api_key && !open && check->config->key_count != 0)
        return config_check_route_fail(
            check, "needs no key although keys are configured, expected \"api_key\", or \"public\" if that is "
                   "meant");
    return config_check_depends(check);
}

/* The names of the backends that there are. */
static void list_backends(const struct config *config, char *out, size_t size)
{
    out[0] = '\0';
    for (size_t i = 0; i < config->backend_count; i++) {
        size_t len = strlen(out);
        snprintf(out + len, size - len, "%s%s", i != 0 ? " or " : "", config->backends[i].name);
    }
}

static bool check_prefix(const struct config_check_route *check, struct span prefix)
{
    const char *path = check->route->path;

    if (strpbrk(path, "?#%\\ ") != NULL || strstr(path, "//") != NULL || strstr(path, "/../") != NULL ||
        strstr(path, "/./") != NULL || memchr(prefix.base, '*', prefix.len) != NULL)
        return config_check_route_fail(check, "is not a plain prefix, expected such as /tools/*");
    for (size_t i = 0; i < route_count; i++) {
        struct span known = routes[i].path;
        struct span alias = span_starts(known, SPAN("/v1/")) ? span_skip(known, 3) : known;
        bool inside = known.base[known.len - 1] == '*' && span_starts(prefix, (struct span){known.base, known.len - 1});
        if (inside || (known.len > 1 && (span_starts(known, prefix) || span_starts(alias, prefix)))) {
            char message[200];
            snprintf(message, sizeof(message), "would hide the built-in route %.*s, expected another prefix",
                     (int)known.len, known.base);
            return config_check_route_fail(check, "%s", message);
        }
    }
    return true;
}

static bool check_proxy(const struct config_check_route *check)
{
    const struct config *config = check->config;
    struct span path = span_of(check->route->path);
    char names[160], message[300];

    if (path.len < 3 || path.base[0] != '/' || memcmp(path.base + path.len - 2, "/*", 2) != 0)
        return config_check_route_fail(check, "has a \"proxy\", expected a prefix that ends in /*, such as /tools/*");
    if (!check_prefix(check, (struct span){path.base, path.len - 1}))
        return false;
    for (size_t i = 0; i < config->backend_count; i++) {
        if (strcmp(config->backends[i].name, check->route->proxy) == 0)
            return config->backends[i].url.kind == BACKEND_HTTP ||
                   config_check_route_fail(
                       check, "goes to the demo model, which has nothing to proxy, expected another backend");
    }
    list_backends(config, names, sizeof(names));
    snprintf(message, sizeof(message), "goes to the backend \"%.64s\", which does not exist, expected %s",
             check->route->proxy, names);
    return config_check_route_fail(check, "%s", message);
}

/* A name in a fallback order that nobody serves would be found out in the middle of an outage. */
static bool check_aliases(const struct config *config, const char *file, struct config_report *report)
{
    for (size_t i = 0; i < config->fleet.alias_count; i++) {
        const struct fleet_alias *alias = &config->fleet.aliases[i];
        for (size_t j = 0; j < alias->step_count; j++) {
            const struct fleet_step *step = &alias->steps[j];
            struct span unused;
            bool known = step->backend == NULL, served = false;
            for (size_t k = 0; k < config->backend_count; k++) {
                const struct backend_settings *backend = &config->backends[k];
                if (step->backend != NULL && strcmp(backend->name, step->backend) != 0)
                    continue;
                known = true;
                served = served || backend_serves(backend, span_of(step->model), &unused);
            }
            if (!known)
                return config_fail(
                    report,
                    "%s:%d: \"models.%.64s\" names the backend \"%.64s\", which does not exist, expected "
                    "the name of one of \"backends\"",
                    file, alias->line, alias->name, step->backend);
            if (!served)
                return config_fail(report,
                                   "%s:%d: \"models.%.64s\" names \"%.64s\", which %s serves, expected one of its "
                                   "\"models\"",
                                   file, alias->line, alias->name, step->model,
                                   step->backend != NULL ? "that backend never" : "no backend");
        }
    }
    return true;
}

static bool check_path(const struct config_check_route *check)
{
    const char *names[route_count];
    char message[160];

    if (config_route_known(span_of(check->route->path)))
        return true;
    for (size_t i = 0; i < route_count; i++)
        names[i] = routes[i].path.base;
    const char *nearest = nearest_name(span_of(check->route->path), names, COUNT(names));
    snprintf(message, sizeof(message), "does not exist%s%s, expected a built-in one, or a prefix with \"proxy\"",
             nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "");
    return config_check_route_fail(check, "%s", message);
}

static bool check_bodies(const struct config *config, struct config_report *report)
{
    return config->body_memory >= config->max_body ||
           config_fail(report, "\"body_memory\" is less than \"max_body\", expected at least as much");
}

bool config_check(const struct config *config, struct config_report *report)
{
    const char *file = config->file;
    struct config_check_route check = {config, NULL, file, report};

    if (!check_listen(config, report) || !check_admin(config, report) || !check_bodies(config, report) ||
        !check_key_doubles(config, file, report) || !check_key_routes(config, file, report) ||
        !config_check_limits(config, file, report) || !check_aliases(config, file, report))
        return false;
    for (size_t i = 0; i < config->route_count; i++) {
        check.route = &config->routes[i];
        if (!(check.route->proxy != NULL ? check_proxy(&check) : check_path(&check)) || !check_depends(&check))
            return false;
    }
    return true;
}
