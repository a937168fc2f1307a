/* Where a request goes: routes by path and method, and the model that a form names. Input: a line with the method, one
 * with the path, one with the content type, then the body. */
#include "fuzz.h"
#include "gateway/multipart.h"
#include "gateway/site.h"
#include <sys/mman.h>
#include <unistd.h>

static char *no_variables(const char *name)
{
    (void)name;
    return NULL;
}

static const struct site *site(void)
{
    static const char yaml[] =
        "backends:\n- {name: a, url: 'http://127.0.0.1:1'}\n- {name: b, url: 'http://127.0.0.1:2'}\n"
        "routes:\n- {path: /x/*, proxy: b}\n- {path: /x/y/*, proxy: a}\n- {path: /v1/audio/*, depends: [public]}\n";
    static struct site *made;
    if (made == NULL) {
        char path[64], error[1024];
        int memory = memfd_create("weir.yaml", MFD_CLOEXEC);
        MUST(memory != -1 && write(memory, yaml, sizeof(yaml) - 1) == (ssize_t)sizeof(yaml) - 1);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
        struct config_options options = {.file = path};
        struct config *config = config_load(&options, no_variables, error, sizeof(error));
        if (config == NULL)
            fprintf(stderr, "%s\n", error);
        MUST(config != NULL);
        made = site_create(config);
        close(memory);
    }
    return made;
}

static void check_path(struct span path)
{
    const struct site_route *found = site_route_find(site(), path);
    struct span canonical = route_canonical(path);
    MUST(span_eq(route_canonical(canonical), canonical));
    MUST(found == NULL || route_covers(found->route.path, path));
    for (size_t i = 0; i < site()->route_count; i++) {
        const struct route *route = &site()->routes[i].route;
        if (!route_covers(route->path, path))
            continue;
        MUST(found != NULL);
        bool exact = span_eq(found->route.path, path);
        MUST(exact || found->route.path.len >= route->path.len);
        MUST(!span_eq(route->path, path) || exact);
        /* What a prefix covers is at or below it. */
        if (route->path.base[route->path.len - 1] == '*')
            MUST(path.len + 2 >= route->path.len && memcmp(path.base, route->path.base, route->path.len - 2) == 0);
    }
}

static void check_method(struct span method)
{
    char allow[64];
    unsigned bit = route_method(method);
    MUST((bit & (bit - 1)) == 0 && (bit & ~(unsigned)METHOD_ANY) == 0);
    for (unsigned methods = 0; methods <= METHOD_ANY; methods += 1 + (unsigned)method.len) {
        route_allow(methods, allow);
        MUST(strlen(allow) < sizeof(allow));
    }
    route_allow(METHOD_ANY, allow);
    MUST(strlen(allow) < sizeof(allow));
}

static void check_form(struct span type, struct span body)
{
    struct span value = SPAN_NONE;
    if (!multipart_is_form(type))
        return;
    enum multipart_result result = multipart_field(type, body, SPAN("model"), &value);
    if (result != MULTIPART_FOUND)
        return;
    /* It stands in the body, and a delimiter follows. */
    MUST(value.len == 0 || (value.base >= body.base && value.base + value.len + 4 <= body.base + body.len &&
                            memcmp(value.base + value.len, "\r\n--", 4) == 0));
    MUST(multipart_field(type, body, SPAN("none of that name"), &value) != MULTIPART_FOUND);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span input = {(const char *)data, size}, lines[3], rest;
    for (size_t i = 0; i < 3; i++) {
        struct span line = fuzz_line(&input);
        lines[i] = (struct span){fuzz_exact(line), line.len};
    }
    rest = (struct span){fuzz_exact(input), input.len};
    check_method(lines[0]);
    check_path(lines[1]);
    check_form(lines[2], rest);
    for (size_t i = 0; i < 3; i++)
        free((char *)lines[i].base);
    free((char *)rest.base);
    return 0;
}
