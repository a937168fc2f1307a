#include "base/digest.h"
#include "gateway/handle_model.h"
#include "gateway/site.h"
#include "run_suite.h"
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ADMIN_ROUTES 4

static char file[] = "/tmp/weir-site-XXXXXX";

static char *no_environment(const char *name)
{
    (void)name;
    return NULL;
}

static void prepare(void)
{
    int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void clean_up(void)
{
    unlink(file);
}

/* The site that a configuration file makes. */
static struct site *site_of(const char *yaml)
{
    FILE *out = fopen(file, "w");
    ck_assert_ptr_nonnull(out);
    ck_assert_int_ge(fputs(yaml, out), 0);
    ck_assert_int_eq(fclose(out), 0);
    struct config_options options = {.file = file};
    char error[512];
    struct config *config = config_load(&options, no_environment, error, sizeof(error));
    ck_assert_msg(config != NULL, "%s", error);
    return site_create(config);
}

/* What a path leads to, as "pattern [proxy] depends…". */
static const char *find(const struct site *site, const char *path)
{
    static const char *const names[] = {"?", "public", "api_key", "validate", "limit", "cache", "admin_key"};
    static char out[512];
    size_t len = strlen(path);
    char *exact = malloc(len);
    memcpy(exact, path, len);
    const struct site_route *route = site_route_find(site, (struct span){exact, len});
    free(exact);
    if (route == NULL)
        return "none";
    sprintf(out, "%.*s", (int)route->route.path.len, route->route.path.base);
    if (route->proxy != NULL)
        sprintf(out + strlen(out), " [%s]", route->proxy);
    for (size_t i = 0; i < route->depend_count; i++)
        sprintf(out + strlen(out), " %s", names[route->depends[i]]);
    return out;
}

START_TEST(administration_is_there_with_a_key_for_it)
{
    struct site *site = site_of("admin: {keys: [{name: root, key: abcdefgh}]}\n");
    unsigned char hash[32];
    ck_assert_uint_eq(site->route_count, route_count);
    ck_assert_str_eq(find(site, "/admin/cache/purge"), "/admin/cache/purge admin_key");
    const struct site_route *purge = site_route_find(site, SPAN("/admin/cache/purge"));
    const struct site_route *chat = site_route_find(site, SPAN("/v1/chat/completions"));
    ck_assert(site_route_is_at(site, purge, false) && site_route_is_at(site, chat, false));
    digest_sha256(SPAN("abcdefgh"), hash);
    ck_assert_str_eq(site_admin_find(site, hash)->name, "root");
    ck_assert_ptr_null(site_identity_find(site, hash));
    hash[31] ^= 1;
    ck_assert_ptr_null(site_admin_find(site, hash));
    site_release(site);
    site = site_of("admin: {listen: \":1\", keys: [{name: root, key: abcdefgh}]}\n"
                   "backends: [{name: one, url: \"http://a\"}]\n"
                   "routes: [{path: /tools/*, proxy: one, depends: [public]}, {path: /metrics, depends: [api_key]}]\n");
    purge = site_route_find(site, SPAN("/admin/cache/purge"));
    chat = site_route_find(site, SPAN("/v1/chat/completions"));
    const struct site_route *metrics = site_route_find(site, SPAN("/metrics"));
    const struct site_route *tools = site_route_find(site, SPAN("/tools/x"));
    ck_assert(!site_route_is_at(site, purge, false) && site_route_is_at(site, purge, true));
    ck_assert(site_route_is_at(site, chat, false) && !site_route_is_at(site, chat, true));
    ck_assert(site_route_is_at(site, metrics, false) && site_route_is_at(site, metrics, true));
    ck_assert(site_route_is_at(site, tools, false) && !site_route_is_at(site, tools, true));
    site_release(site);
}
END_TEST

START_TEST(the_table_is_the_default)
{
    struct site *site = site_of("");
    ck_assert_uint_eq(site->route_count, route_count - ADMIN_ROUTES);
    ck_assert_str_eq(find(site, "/v1/chat/completions"), "/v1/chat/completions api_key limit validate cache");
    ck_assert_str_eq(find(site, "/v1/models"), "/v1/models api_key");
    ck_assert_str_eq(find(site, "/health"), "/health public");
    ck_assert_str_eq(find(site, "/"), "/ public");
    ck_assert_str_eq(find(site, "/v1/files"), "/v1/files/* api_key limit");
    ck_assert_str_eq(find(site, "/v1/files/a/content"), "/v1/files/* api_key limit");
    ck_assert_str_eq(find(site, "/v1/responses"),
                     "/v1/responses api_key limit validate cache"); /* exact before a prefix */
    ck_assert_str_eq(find(site, "/v1/responses/resp_1"), "/v1/responses/* api_key limit");
    ck_assert_str_eq(find(site, "/v1/messages/count_tokens"), "/v1/messages/count_tokens api_key limit");
    static const char *const unknown[] = {
        "",         "/x",        "/v1",      "/v1/",           "/v1/chat/completions/",
        "/health/", "/v1/filex", "//health", "/v1/models/gpt", "health"};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
        ck_assert_msg(strcmp(find(site, unknown[i]), "none") == 0, "%s", unknown[i]);
    const struct site_route *chat = site_route_find(site, SPAN("/v1/chat/completions"));
    ck_assert(chat->route.dialect == DIALECT_CHAT && chat->route.body == &body_chat && chat->proxy == NULL);
    ck_assert(chat->route.handle == handle_model);
    site_release(site);
}
END_TEST

START_TEST(the_configuration_overrides_dependencies)
{
    struct site *site = site_of("routes:\n"
                                "  - {path: /v1/chat/completions, depends: [api_key]}\n"
                                "  - {path: /metrics, depends: [api_key]}\n"
                                "  - {path: /v1/models, depends: [public]}\n"
                                "  - {path: /v1/embeddings, depends: [public, validate]}\n"
                                "  - {path: /v1/files/*, depends: [public]}\n");
    ck_assert_uint_eq(site->route_count, route_count - ADMIN_ROUTES);
    ck_assert_str_eq(find(site, "/v1/chat/completions"), "/v1/chat/completions api_key");
    ck_assert_str_eq(find(site, "/metrics"), "/metrics api_key");
    ck_assert_str_eq(find(site, "/v1/models"), "/v1/models public");
    ck_assert_str_eq(find(site, "/v1/embeddings"), "/v1/embeddings public validate");
    ck_assert_str_eq(find(site, "/v1/files/x"), "/v1/files/* public");
    ck_assert_str_eq(find(site, "/v1/completions"), "/v1/completions api_key limit validate cache");
    ck_assert_str_eq(find(site, "/v1/images/x"), "/v1/images/* api_key limit");
    site_release(site);
    site = site_of(""); /* the table itself was not changed */
    ck_assert_str_eq(find(site, "/metrics"), "/metrics public");
    site_release(site);
}
END_TEST

START_TEST(prefixes_go_to_one_backend)
{
    struct site *site = site_of("backends: [{name: one, url: \"http://a\"}, {name: two, url: \"http://b\"}]\n"
                                "routes:\n"
                                "  - {path: /tools/*, proxy: one}\n"
                                "  - {path: /tools/deep/er/*, proxy: one, depends: [public]}\n"
                                "  - {path: /tools/deep/*, proxy: two}\n");
    ck_assert_uint_eq(site->route_count, route_count - ADMIN_ROUTES + 3);
    ck_assert_str_eq(find(site, "/tools"), "/tools/* [one] api_key limit");
    ck_assert_str_eq(find(site, "/tools/x"), "/tools/* [one] api_key limit");
    ck_assert_str_eq(find(site, "/tools/deeper"), "/tools/* [one] api_key limit");
    ck_assert_str_eq(find(site, "/tools/deep"), "/tools/deep/* [two] api_key limit");
    ck_assert_str_eq(find(site, "/tools/deep/x"), "/tools/deep/* [two] api_key limit");
    ck_assert_str_eq(find(site, "/tools/deep/er/x"), "/tools/deep/er/* [one] public");
    ck_assert_str_eq(find(site, "/toolsx"), "none");
    ck_assert_str_eq(find(site, "/v1/files/x"), "/v1/files/* api_key limit");
    const struct site_route *route = site_route_find(site, SPAN("/tools/x"));
    ck_assert(route->route.handle == handle_pass && route->route.body == NULL);
    ck_assert(route->route.dialect == DIALECT_NONE && (route->route.methods & METHOD_PATCH) != 0);
    site_release(site);
}
END_TEST

static struct identity *holder_of(const struct site *site, const char *key)
{
    unsigned char hash[32];
    SHA256((const unsigned char *)key, strlen(key), hash);
    return site_identity_find(site, hash);
}

START_TEST(keys_have_identities)
{
    struct site *site = site_of("keys:\n"
                                "  - {name: first, key: secret-number-one, models: [gpt-*], routes: [/v1/models]}\n"
                                "  - {name: second, key: secret-number-two, expires: 2099-12-31}\n"
                                "  - {name: third, key: secret-number-three}\n");
    struct identity *first = holder_of(site, "secret-number-one"), *second = holder_of(site, "secret-number-two");
    ck_assert_str_eq(first->name, "first");
    ck_assert(identity_may_use_model(first, SPAN("gpt-4")) && !identity_may_use_model(first, SPAN("x")));
    ck_assert(identity_may_use_route(first, SPAN("/v1/models")) && !identity_may_use_route(first, SPAN("/metrics")));
    ck_assert(first->expires == 0 && second->expires > INT64_C(4000000000));
    ck_assert_str_eq(second->name, "second");
    ck_assert_str_eq(holder_of(site, "secret-number-three")->name, "third");
    ck_assert(second->model_count == 0 && identity_may_use_route(second, SPAN("/any")));
    ck_assert_ptr_null(holder_of(site, "secret-number-four"));
    ck_assert_ptr_null(holder_of(site, ""));

    struct identity *kept = identity_retain(second); /* outlives its site, as a running call's does */
    ck_assert_ptr_eq(site_retain(site), site);
    site_release(site);
    ck_assert_ptr_eq(holder_of(site, "secret-number-one"), first);
    site_release(site);
    ck_assert_str_eq(kept->name, "second");
    identity_release(kept);
    site_release(NULL);

    site = site_of("");
    ck_assert_ptr_null(holder_of(site, "secret-number-one"));
    site_release(site);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("site");

    tcase_add_unchecked_fixture(tests, prepare, clean_up);
    tcase_add_test(tests, the_table_is_the_default);
    tcase_add_test(tests, administration_is_there_with_a_key_for_it);
    tcase_add_test(tests, the_configuration_overrides_dependencies);
    tcase_add_test(tests, prefixes_go_to_one_backend);
    tcase_add_test(tests, keys_have_identities);
    return run_suite("site", tests);
}
