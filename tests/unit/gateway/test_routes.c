#include "gateway/realtime.h"
#include "gateway/routes.h"
#include "run_suite.h"
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

START_TEST(patterns_cover_paths)
{
    static const struct {
        const char *pattern, *path;
        bool covers;
    } cases[] = {
        {"/health", "/health", true},
        {"/health", "/health/", false},
        {"/health", "/healthy", false},
        {"/health", "/Health", false},
        {"/health", "/healt", false},
        {"/health", "", false},
        {"/v1/files/*", "/v1/files", true},
        {"/v1/files/*", "/v1/files/", true},
        {"/v1/files/*", "/v1/files/a/b", true},
        {"/v1/files/*", "/v1/file", false},
        {"/v1/files/*", "/v1/filesx", false},
        {"/v1/files/*", "/v1", false},
        {"/v1/files/*", "/v1/files*", false},
        {"/*", "/", true},
        {"/*", "/a", true},
        {"/*", "", false},
        {"*", "", true},
        {"*", "anything", true},
        {"", "", true},
        {"", "/", false},
        {"/", "/", true},
        {"/", "/a", false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        /* in memory of its exact size, so that AddressSanitizer sees a read beyond it */
        size_t len = strlen(cases[i].path);
        char *exact = malloc(len);
        memcpy(exact, cases[i].path, len);
        ck_assert_msg(route_covers(span_of(cases[i].pattern), (struct span){exact, len}) == cases[i].covers, "%s on %s",
                      cases[i].pattern, cases[i].path);
        free(exact);
    }
}
END_TEST

START_TEST(methods_have_bits)
{
    static const struct {
        const char *name;
        unsigned bit;
    } cases[] = {
        {"GET", METHOD_GET},
        {"HEAD", METHOD_HEAD},
        {"POST", METHOD_POST},
        {"PUT", METHOD_PUT},
        {"PATCH", METHOD_PATCH},
        {"DELETE", METHOD_DELETE},
        {"OPTIONS", METHOD_OPTIONS},
        {"get", 0},
        {"GETS", 0},
        {"GE", 0},
        {"", 0},
        {"TRACE", 0},
        {"CONNECT", 0},
    };
    unsigned all = 0;
    for (size_t i = 0; i < COUNT(cases); i++) {
        ck_assert_msg(route_method(span_of(cases[i].name)) == cases[i].bit, "%s", cases[i].name);
        ck_assert_uint_eq(all & cases[i].bit, 0);
        all |= cases[i].bit;
    }
    ck_assert_uint_eq(all, METHOD_ANY);
}
END_TEST

START_TEST(allow_lists_methods)
{
    static const struct {
        unsigned methods;
        const char *allow;
    } cases[] = {
        {0, ""},
        {METHOD_POST, "POST"},
        {METHOD_HEAD | METHOD_GET, "GET, HEAD"},
        {METHOD_ANY, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
        {~0u, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *out = malloc(64);
        memset(out, 'x', 64);
        route_allow(cases[i].methods, out);
        ck_assert_str_eq(out, cases[i].allow);
        free(out);
    }
}
END_TEST

START_TEST(paths_without_v1_mean_those_with)
{
    static const char *const pairs[][2] = {
        {"/chat/completions", "/v1/chat/completions"},
        {"/completions", "/v1/completions"},
        {"/embeddings", "/v1/embeddings"},
        {"/responses", "/v1/responses"},
        {"/models", "/v1/models"},
        {"/v1/models", "/v1/models"},
        {"/messages", "/messages"},
        {"/files", "/files"},
        {"/models/", "/models/"},
        {"/", "/"},
        {"", ""},
    };
    for (size_t i = 0; i < COUNT(pairs); i++)
        ck_assert_msg(span_eq(route_canonical(span_of(pairs[i][0])), span_of(pairs[i][1])), "%s", pairs[i][0]);
}
END_TEST

/* What the rest of the gateway takes for granted of the table. */
START_TEST(the_table_is_sound)
{
    ck_assert_uint_gt(route_count, 15);
    for (size_t i = 0; i < route_count; i++) {
        const struct route *route = &routes[i];
        ck_assert_msg(config_route_known(route->path), "%s cannot be configured", route->path.base);
        ck_assert_ptr_nonnull(route->handle);
        ck_assert_ptr_nonnull(route->summary);
        ck_assert(route->methods != 0 && (route->methods & ~(unsigned)METHOD_ANY) == 0);
        ck_assert_msg((route->methods & METHOD_OPTIONS) == 0, "CORS answers OPTIONS");
        /* What has no answer but a stream or an upgrade has none to HEAD either. */
        ck_assert((route->methods & METHOD_GET) == 0 || route->methods == METHOD_GET ||
                  (route->methods & METHOD_HEAD) != 0);
        ck_assert(route->depends[0] == DEPEND_PUBLIC || route->depends[0] == DEPEND_API_KEY ||
                  route->depends[0] == DEPEND_ADMIN_KEY);
        bool validates = false;
        for (size_t j = 0; j < DEPENDS_MAX; j++)
            validates |= route->depends[j] == DEPEND_VALIDATE;
        ck_assert_msg(validates == (route->body != NULL), "%s", route->path.base);
        ck_assert_msg(!span_starts(route->path, SPAN("/v1/")) || route->depends[0] == DEPEND_API_KEY, "%s",
                      route->path.base);
        for (size_t j = 0; j < i; j++)
            ck_assert(!span_eq(routes[j].path, route->path));
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("routes");

    tcase_add_test(tests, patterns_cover_paths);
    tcase_add_test(tests, methods_have_bits);
    tcase_add_test(tests, allow_lists_methods);
    tcase_add_test(tests, paths_without_v1_mean_those_with);
    tcase_add_test(tests, the_table_is_sound);
    return run_suite("routes", tests);
}
