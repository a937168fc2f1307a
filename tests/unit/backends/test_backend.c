#include "backends/backend.h"
#include "run_suite.h"
#include <stdio.h>
#include <stdlib.h>

#define MS UINT64_C(1000)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct good_url {
    const char *text;
    bool tls;
    const char *host;
    bool is_ip;
    unsigned port;
    const char *unix_path, *authority, *path, *query;
} good_urls[] = {
    {"http://vllm:8000", false, "vllm", false, 8000, NULL, "vllm:8000", "", NULL},
    {"http://vllm", false, "vllm", false, 80, NULL, "vllm", "", NULL},
    {"HTTP://vllm:80/", false, "vllm", false, 80, NULL, "vllm", "", NULL},
    {"https://vllm:80/", true, "vllm", false, 80, NULL, "vllm:80", "", NULL},
    {"https://a.example.com", true, "a.example.com", false, 443, NULL, "a.example.com", "", NULL},
    {"https://a.example.com:443/api/v1", true, "a.example.com", false, 443, NULL, "a.example.com", "/api/v1", NULL},
    {"https://a/api/v1///", true, "a", false, 443, NULL, "a", "/api/v1", NULL},
    {"https://a/o?api-version=1&x=/?", true, "a", false, 443, NULL, "a", "/o", "api-version=1&x=/?"},
    {"http://a?x=http://b@c", false, "a", false, 80, NULL, "a", "", "x=http://b@c"},
    {"http://a/b@c:d", false, "a", false, 80, NULL, "a", "/b@c:d", NULL},
    {"http://10.0.0.5:65535", false, "10.0.0.5", true, 65535, NULL, "10.0.0.5:65535", "", NULL},
    {"http://[::1]:8000/v1", false, "::1", true, 8000, NULL, "[::1]:8000", "/v1", NULL},
    {"https://[fd00::2]", true, "fd00::2", true, 443, NULL, "[fd00::2]", "", NULL},
    {"http://my_service-1.x:1", false, "my_service-1.x", false, 1, NULL, "my_service-1.x:1", "", NULL},
    {"http://unix:/run/a.sock", false, NULL, false, 0, "/run/a.sock", "localhost", "", NULL},
    {"http://unix:/run/a.sock:/api/v1/", false, NULL, false, 0, "/run/a.sock", "localhost", "/api/v1", NULL},
    {"http://unix:/run/a.sock:/v1?q=1", false, NULL, false, 0, "/run/a.sock", "localhost", "/v1", "q=1"},
    {"http://unix:8000", false, "unix", false, 8000, NULL, "unix:8000", "", NULL},
};

static const char *shown(const char *string)
{
    return string != NULL ? string : "(null)";
}

START_TEST(parses_urls)
{
    const struct good_url *want = &good_urls[_i];
    struct backend_settings settings;
    char error[256] = "";

    backend_settings_init(&settings);
    ck_assert_msg(backend_url_parse(span_of(want->text), &settings, error, sizeof(error)), "%s: %s", want->text, error);
    ck_assert_int_eq(settings.url.kind, BACKEND_HTTP);
    ck_assert_int_eq(settings.url.tls, want->tls);
    ck_assert_str_eq(shown(settings.url.host), shown(want->host));
    ck_assert_int_eq(settings.url.host_is_ip, want->is_ip);
    ck_assert_uint_eq(settings.url.port, want->port);
    ck_assert_str_eq(shown(settings.url.unix_path), shown(want->unix_path));
    ck_assert_str_eq(shown(settings.url.authority), shown(want->authority));
    ck_assert_str_eq(shown(settings.url.path), shown(want->path));
    ck_assert_str_eq(shown(settings.url.query), shown(want->query));
    backend_settings_dispose(&settings);
}
END_TEST

static const char ipv6_hint[] =
    "the port is \":1:80\", expected a number from 1 to 65535 (an IPv6 address stands in brackets)";

static const struct bad_url {
    const char *text, *error;
} bad_urls[] = {
    {"", "the url is empty, expected http://, https:// or demo:"},
    {"vllm", "no scheme in the url, expected http://, https:// or demo:"},
    {"localhost:8000", "no scheme before \"localhost\", expected http://, https:// or demo:"},
    {"ftp://a", "unknown scheme \"ftp\", expected http://, https:// or demo:"},
    {"http:a", "no \"//\" after the scheme, expected such as http://127.0.0.1:8000"},
    {"http:/a", "no \"//\" after the scheme, expected such as http://127.0.0.1:8000"},
    {"http://", "no host in the url, expected such as http://127.0.0.1:8000"},
    {"http:///v1", "no host in the url, expected such as http://127.0.0.1:8000"},
    {"http://:8000", "no host in the url, expected such as http://127.0.0.1:8000"},
    {"http://a:", "the port is \"\", expected a number from 1 to 65535"},
    {"http://a:0", "the port is \"0\", expected a number from 1 to 65535"},
    {"http://a:65536", "the port is \"65536\", expected a number from 1 to 65535"},
    {"http://a:80x", "the port is \"80x\", expected a number from 1 to 65535"},
    {"http://a:99999999999999999999999", "the port is \"99999999999999999999999\", expected a number from 1 to 65535"},
    {"http://fd00::1:80", ipv6_hint},
    {"http://[::1", "the \"[\" of the host has no \"]\""},
    {"http://[::1]8", "\"8\" after the host, expected a colon and a port"},
    {"http://[::1]:", "the port is \"\", expected a number from 1 to 65535"},
    {"http://[]:80", "no host in the url, expected such as http://127.0.0.1:8000"},
    {"http://[1.2.3.4]", "\"[1.2.3.4]\" is not an IPv6 address"},
    {"http://[fe80::1%25eth0]", "\"[fe80::1%25eth0]\" is not an IPv6 address"},
    {"http://a,b", "\"a,b\" is not a host name or address"},
    {"http://-a", "\"-a\" is not a host name or address"},
    {"http://bob:secret@a/v1",
     "a user name in the url is refused, expected http://HOST:PORT (credentials go into \"api_key\" "
     "or \"headers\")"},
    {"http://a/b c", "character 11 of the url is a blank, a control character or not ASCII, expected it %-encoded"},
    {"http://a/\r\nx: y",
     "character 10 of the url is a blank, a control character or not ASCII, expected it %-encoded"},
    {"http://a/\xc3\xa4",
     "character 10 of the url is a blank, a control character or not ASCII, expected it %-encoded"},
    {"http://a/#b", "a fragment (\"#\") in the url is never sent, expected none"},
    {"https://unix:/run/a.sock", "TLS over a unix socket is not supported, expected http://unix:/PATH"},
    {"http://unix:run/a.sock", "the port is \"run\", expected a number from 1 to 65535"},
    {"demo", "no scheme in the url, expected http://, https:// or demo:"},
    {"demo://x", "\"//x\" after \"demo:\", expected demo: or demo:?delay=100ms&pace=25ms&tokens=50"},
    {"demo:?speed=1", "unknown parameter \"speed\" of the demo model, expected delay, pace or tokens"},
    {"demo:?", NULL},
    {"demo:?&", "unknown parameter \"\" of the demo model, expected delay, pace or tokens"},
    {"demo:?delay=5", "the demo model's \"delay\" is \"5\", expected a duration such as 300ms, 15s, 10m, 1h or 1d"},
    {"demo:?pace", "the demo model's \"pace\" is \"\", expected a duration such as 300ms, 15s, 10m, 1h or 1d"},
    {"demo:?tokens=0", "the demo model's \"tokens\" is \"0\", expected a number from 1 to 1000000"},
    {"demo:?tokens=1000001", "the demo model's \"tokens\" is \"1000001\", expected a number from 1 to 1000000"},
};

START_TEST(refuses_bad_urls)
{
    const struct bad_url *bad = &bad_urls[_i];
    static const struct backend_url zero;
    struct backend_settings settings;
    char error[256] = "";

    backend_settings_init(&settings);
    bool ok = backend_url_parse(span_of(bad->text), &settings, error, sizeof(error));
    ck_assert_int_eq(ok, bad->error == NULL);
    if (bad->error != NULL) {
        ck_assert_str_eq(error, bad->error);
        ck_assert_mem_eq(&settings.url, &zero, sizeof(zero));
    }
    backend_settings_dispose(&settings);
}
END_TEST

START_TEST(refuses_what_is_too_long)
{
    struct backend_settings settings;
    char url[4096], error[256];

    backend_settings_init(&settings);
    snprintf(url, sizeof(url), "http://a/%02100d", 0);
    ck_assert(!backend_url_parse(span_of(url), &settings, error, sizeof(error)));
    ck_assert_str_eq(error, "the url is too long, expected at most 2048 characters");
    snprintf(url, sizeof(url), "http://%0254d", 0);
    ck_assert(!backend_url_parse(span_of(url), &settings, error, sizeof(error)));
    ck_assert_str_eq(error, "the host is too long, expected at most 253 characters");
    snprintf(url, sizeof(url), "http://unix:/%0107d", 0);
    ck_assert(!backend_url_parse(span_of(url), &settings, error, sizeof(error)));
    ck_assert_str_eq(error, "the path of the unix socket is too long, expected at most 107 characters");
    snprintf(url, sizeof(url), "http://unix:/%0106d", 0);
    ck_assert(backend_url_parse(span_of(url), &settings, error, sizeof(error)));
    backend_settings_dispose(&settings);
}
END_TEST

/* Every prefix of every url, in memory that ends with it: nothing is read beyond, nothing crashes. */
START_TEST(survives_any_prefix)
{
    for (size_t i = 0; i < COUNT(good_urls) + COUNT(bad_urls); i++) {
        const char *text = i < COUNT(good_urls) ? good_urls[i].text : bad_urls[i - COUNT(good_urls)].text;
        for (size_t len = 0; len <= strlen(text); len++) {
            struct backend_settings settings;
            char error[256], *exact = malloc(len != 0 ? len : 1);
            memcpy(exact, text, len);
            backend_settings_init(&settings);
            backend_url_parse((struct span){exact, len}, &settings, error, sizeof(error));
            backend_settings_dispose(&settings);
            free(exact);
        }
    }
}
END_TEST

START_TEST(parses_the_demo)
{
    struct backend_settings settings;
    char error[256];

    backend_settings_init(&settings);
    ck_assert_uint_eq(settings.demo.delay_us, 100 * MS);
    ck_assert_uint_eq(settings.demo.pace_us, 25 * MS);
    ck_assert_uint_eq(settings.demo.tokens, 1000);
    ck_assert(backend_url_parse(SPAN("demo:"), &settings, error, sizeof(error)));
    ck_assert_int_eq(settings.url.kind, BACKEND_DEMO);
    ck_assert_str_eq(settings.url.authority, "demo");
    ck_assert_str_eq(settings.url.path, "");
    ck_assert_ptr_null(settings.url.host);
    ck_assert_uint_eq(settings.demo.tokens, 1000);
    /* A second url takes the first one's place. */
    ck_assert(backend_url_parse(SPAN("demo:?delay=2s&pace=0ms&tokens=50"), &settings, error, sizeof(error)));
    ck_assert_uint_eq(settings.demo.delay_us, 2000 * MS);
    ck_assert_uint_eq(settings.demo.pace_us, 0);
    ck_assert_uint_eq(settings.demo.tokens, 50);
    backend_settings_dispose(&settings);
}
END_TEST

START_TEST(has_defaults)
{
    struct backend_settings settings;

    backend_settings_init(&settings);
    ck_assert_uint_eq(settings.timeouts.connect, 5000 * MS);
    ck_assert_uint_eq(settings.timeouts.first_token, 600000 * MS);
    ck_assert_uint_eq(settings.timeouts.idle, 300000 * MS);
    ck_assert_uint_eq(settings.timeouts.total, 3600000 * MS);
    ck_assert_uint_eq(settings.weight, 1);
    ck_assert(settings.tls.verify);
    ck_assert(!settings.is_default);
    ck_assert_int_eq(settings.auth, BACKEND_AUTH_BEARER);
    ck_assert_ptr_null(settings.name);
    ck_assert_ptr_null(settings.url.authority);
    backend_settings_dispose(&settings);
}
END_TEST

static const struct glob {
    const char *pattern, *text;
    bool matches;
} globs[] = {
    {"", "", true},           {"", "a", false},           {"*", "", true},         {"*", "anything", true},
    {"a", "a", true},         {"a", "A", false},          {"a", "ab", false},      {"ab", "a", false},
    {"qwen*", "qwen", true},  {"qwen*", "qwen2.5", true}, {"qwen*", "qwe", false}, {"*b", "aab", true},
    {"*b", "aba", false},     {"a*c", "abc", true},       {"a*c", "ac", true},     {"a*c", "acb", false},
    {"a*b*c", "aXbYc", true}, {"a*b*c", "aXcYb", false},  {"**", "x", true},       {"*ab*ab", "abab", true},
    {"*ab*ab", "ab", false},  {"?", "a", false},          {"[a]", "a", false},
};

START_TEST(matches_globs)
{
    const struct glob *glob = &globs[_i];

    ck_assert_msg(glob_match(span_of(glob->pattern), span_of(glob->text)) == glob->matches, "\"%s\" and \"%s\"",
                  glob->pattern, glob->text);
}
END_TEST

/* A pattern made to backtrack must not take exponential time. */
START_TEST(globs_stay_cheap)
{
    char text[4097], pattern[201];

    memset(text, 'a', sizeof(text));
    for (size_t i = 0; i < sizeof(pattern) - 1; i += 2)
        memcpy(pattern + i, "*a", 2);
    pattern[sizeof(pattern) - 1] = 'b';
    ck_assert(!glob_match((struct span){pattern, sizeof(pattern)}, (struct span){text, sizeof(text)}));
}
END_TEST

START_TEST(chooses_the_upstream_name)
{
    struct backend_model models[] = {{"gpt-*", "small"}, {"gpt-4o", "large"}, {"gpt-4*", "other"}, {"llama", NULL}};
    struct backend_settings settings = {.models = models, .model_count = COUNT(models)};
    struct span upstream;

    ck_assert(backend_serves(&settings, SPAN("gpt-4o"), &upstream));
    ck_assert(span_eq(upstream, SPAN("large")));
    ck_assert(backend_serves(&settings, SPAN("gpt-4x"), &upstream));
    ck_assert(span_eq(upstream, SPAN("small")));
    struct span llama = SPAN("llama");
    ck_assert(backend_serves(&settings, llama, &upstream));
    ck_assert_ptr_eq(upstream.base, llama.base);
    ck_assert(!backend_serves(&settings, SPAN("mistral"), &upstream));
    ck_assert(!backend_serves(&settings, SPAN_NONE, &upstream));
    settings.model_count = 0;
    ck_assert(backend_serves(&settings, SPAN("mistral"), &upstream));
    ck_assert(span_eq(upstream, SPAN("mistral")));
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("backend");

    tcase_add_loop_test(tcase, parses_urls, 0, COUNT(good_urls));
    tcase_add_loop_test(tcase, refuses_bad_urls, 0, COUNT(bad_urls));
    tcase_add_test(tcase, refuses_what_is_too_long);
    tcase_add_test(tcase, survives_any_prefix);
    tcase_add_test(tcase, parses_the_demo);
    tcase_add_test(tcase, has_defaults);
    tcase_add_loop_test(tcase, matches_globs, 0, COUNT(globs));
    tcase_add_test(tcase, globs_stay_cheap);
    tcase_add_test(tcase, chooses_the_upstream_name);
    return run_suite("backend", tcase);
}
