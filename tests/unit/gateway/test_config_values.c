#include "gateway/config_loader.h"
#include "gateway/config_values.h"
#include "gateway/nearest.h"
#include "gateway/processors.h"
#include <arpa/inet.h>
#include <sys/stat.h>

static const struct environment_case {
    char *entries[4];
    const char *error; /* NULL: fine */
} environments[] = {
    {{"PATH=/bin", "WEIRD_THING=1"}, NULL},
    {{"WEIR_LISTEN=x", "WEIR_API_KEY_FILE=x", "WEIR_CONFIG=x", "WEIR_URL=x"}, NULL},
    {{"WEIR_PORT=tcp://10.0.0.1:80", "WEIR_SERVICE_HOST=10.0.0.1", "WEIR_PORT_8080_TCP_ADDR=x"}, NULL},
    {{"WEIR_REDIS_SERVICE_HOST=10.0.0.1", "WEIR_REDIS_PORT=x", "WEIR_REDIS_SERVICE_PORT=1"}, NULL},
    {{"WEIR_LISTEN_PORT=8080"}, "unknown environment variable WEIR_LISTEN_PORT; did you mean WEIR_LISTEN?"},
    {{"WEIR_LISTN=x"}, "unknown environment variable WEIR_LISTN; did you mean WEIR_LISTEN?"},
    {{"WEIR_API_KEYS=x"}, "unknown environment variable WEIR_API_KEYS; did you mean WEIR_API_KEY?"},
    {{"WEIR_=x"}, "unknown environment variable WEIR_ (`weir --help` lists the known ones)"},
    {{"WEIR_SOMETHING_ELSE_ENTIRELY=x"},
     "unknown environment variable WEIR_SOMETHING_ELSE_ENTIRELY (`weir --help` lists the known ones)"},
    {{"WEIR_LIMIT=1/minute", "WEIR_CACHE_TTL=1m"}, NULL},
    {{"WEIR_REDIS=x", "WEIR_REDIS_FILE=x"}, NULL},
};

/* The TLS files themselves are tried against real ones end to end. */
START_TEST(tls_files_are_looked_for)
{
    static const struct {
        struct given given;
        const char *error;
    } cases[] = {
        {{.yaml = "listen:\n  - address: 127.0.0.1:1\n    tls: {cert: no.crt, key: no.key}\n"},
         "weir.yaml:3: \"listen[0].tls\": cannot read the certificate no.crt: No such file or directory"},
        {{.yaml = "listen:\n  - address: 127.0.0.1:1\n    tls: {cert: weir.yaml, key: no.key}\n"},
         "weir.yaml:3: \"listen[0].tls\": weir.yaml holds no certificate, expected one in PEM form"},
        {{.yaml = "backends:\n  - url: https://a\n    tls:\n      ca: no.pem\n"},
         "weir.yaml:4: \"backends[0].tls\": cannot read the certificate authority no.pem: No such file or directory"},
        {{.options = {.tls_cert = "no.crt", .tls_key = "no.key"}},
         "cannot read the certificate no.crt: No such file or directory"},
        {{.yaml = "backends: [{url: https://a}]\n"}, ""},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        char error[1024] = "";
        struct config *config = load_ok(&cases[i].given);
        ck_assert_int_eq(config_tls_check(config, error, sizeof(error)), cases[i].error[0] == '\0');
        ck_assert_str_eq(error, cases[i].error);
        config_release(config);
    }
}
END_TEST

START_TEST(unknown_variables_are_errors)
{
    const struct environment_case *want = &environments[_i];
    char error[256] = "";

    ck_assert_int_eq(config_environment_check(want->entries, error, sizeof(error)), want->error == NULL);
    ck_assert_str_eq(error, want->error != NULL ? want->error : "");
}
END_TEST

START_TEST(the_real_environment_is_checked)
{
    const struct config_options options = {0};
    char error[256];

    write_file("weir.yaml", "", 0);
    setenv("WEIR_LOGLEVEL", "debug", 1);
    ck_assert_ptr_null(config_load(&options, getenv, error, sizeof(error)));
    ck_assert_str_eq(error, "unknown environment variable WEIR_LOGLEVEL; did you mean WEIR_LOG_LEVEL?");
    unsetenv("WEIR_LOGLEVEL");
}
END_TEST

/* ---- values by themselves ---- */

START_TEST(parses_durations)
{
    static const struct {
        const char *text;
        uint64_t us;
    } good[] = {{"300ms", 300000},
                {"0s", 0},
                {"15s", 15 * SECOND},
                {"10m", 600 * SECOND},
                {"1h", 3600 * SECOND},
                {"1d", 86400 * SECOND},
                {"3650d", 3650 * 86400 * SECOND}};
    static const char *const bad[] = {
        "", "15", "s", "1.5s", "-1s", "1 s", "1S", "1w", "3651d", "99999999999999999999s", "1s "};
    uint64_t us;

    for (size_t i = 0; i < COUNT(good); i++) {
        ck_assert_msg(config_parse_duration(span_of(good[i].text), &us), "%s", good[i].text);
        ck_assert_uint_eq(us, good[i].us);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        ck_assert_msg(!config_parse_duration(span_of(bad[i]), &us), "%s", bad[i]);
}
END_TEST

START_TEST(parses_sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},          {"512", 512},  {"512B", 512},    {"64KiB", 65536},    {"32MiB", 32 << 20},
        {"1GiB", 1 << 30}, {"1KB", 1000}, {"2MB", 2000000}, {"3GB", 3000000000}, {"9223372036854775807", INT64_MAX}};
    static const char *const bad[] = {
        "", "KiB", "1.5MiB", "-1", "1 KiB", "1kib", "1K", "9223372036854775808", "8589934592GiB"};
    uint64_t bytes;

    for (size_t i = 0; i < COUNT(good); i++) {
        ck_assert_msg(config_parse_size(span_of(good[i].text), &bytes), "%s", good[i].text);
        ck_assert_uint_eq(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        ck_assert_msg(!config_parse_size(span_of(bad[i]), &bytes), "%s", bad[i]);
}
END_TEST

START_TEST(networks_contain_addresses)
{
    static const struct {
        const char *network, *address;
        bool inside;
    } cases[] = {
        {"10.0.0.0/8", "::ffff:10.255.0.1", true},
        {"10.0.0.0/8", "::ffff:11.0.0.1", false},
        {"10.9.9.9/8", "::ffff:10.0.0.1", true},
        {"0.0.0.0/0", "::ffff:1.2.3.4", true},
        {"0.0.0.0/0", "fd00::1", false},
        {"192.0.2.1", "::ffff:192.0.2.1", true},
        {"192.0.2.1", "::ffff:192.0.2.2", false},
        {"10.0.0.128/25", "::ffff:10.0.0.127", false},
        {"10.0.0.128/25", "::ffff:10.0.0.129", true},
        {"fd00::/7", "fdff::1", true},
        {"fd00::/9", "fdff::1", false},
        {"::/0", "::ffff:1.2.3.4", true},
        {"2001:db8::1", "2001:db8::1", true},
        {"2001:db8::1", "2001:db8::2", false},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        char error[256] = "";
        struct config_report report = {error, sizeof(error)};
        struct span text = span_of(cases[i].network);
        struct config_value value = {&report, "network", text, text};
        struct config_network network;
        struct in6_addr address;
        ck_assert_msg(config_value_network(&value, &network), "%s", error);
        ck_assert_int_eq(inet_pton(AF_INET6, cases[i].address, &address), 1);
        ck_assert_msg(config_network_contains(&network, &address) == cases[i].inside, "%s in %s", cases[i].address,
                      cases[i].network);
    }
}
END_TEST

START_TEST(parses_expiry)
{
    static const struct {
        const char *text;
        int64_t seconds; /* 0: refused */
    } cases[] = {
        {"2027-01-01", 1798761600},
        {"2027-01-01T00:00:00Z", 1798761600},
        {"2027-01-01 01:30:00.25+01:30", 1798761600},
        {"2026-12-31t22:00:00-02:00", 1798761600},
        {"2026-12-31T23:59:60Z", 1798761600},
        {"2028-02-29", 1835395200},
        {"2027-1-1", 0},
        {"2027-02-30", 0},
        {"2027-13-01", 0},
        {"2027-00-01", 0},
        {"2027-01-00", 0},
        {"1969-01-01", 0},
        {"2027-01-01T", 0},
        {"2027-01-01T00:00:00", 0},
        {"2027-01-01T24:00:00Z", 0},
        {"2027-01-01T00:00:00.Z", 0},
        {"2027-01-01T00:00:00+1:00", 0},
        {"2027-01-01T00:00:00Zx", 0},
        {"", 0},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        char error[256];
        struct config_report report = {error, sizeof(error)};
        struct span text = span_of(cases[i].text);
        struct config_value value = {&report, "expires", text, text};
        int64_t seconds = 0;
        ck_assert_msg(config_value_expires(&value, &seconds) == (cases[i].seconds != 0), "%s", cases[i].text);
        if (cases[i].seconds != 0)
            ck_assert_int_eq(seconds, cases[i].seconds);
    }
}
END_TEST

START_TEST(knows_loopback)
{
    static const char *const inside[] = {"127.0.0.1", "127.255.0.9", "::1", "localhost", "LOCALHOST"};
    static const char *const outside[] = {
        "", "0.0.0.0", "::", "128.0.0.1", "127.0.0.1.nip.example", "127", "::ffff:10.0.0.1", "localhost.example"};

    for (size_t i = 0; i < COUNT(inside); i++)
        ck_assert_msg(config_host_is_loopback(span_of(inside[i])), "%s", inside[i]);
    for (size_t i = 0; i < COUNT(outside); i++)
        ck_assert_msg(!config_host_is_loopback(span_of(outside[i])), "%s", outside[i]);
}
END_TEST

START_TEST(knows_the_built_in_routes)
{
    static const char *const known[] = {"/",
                                        "/v1/chat/completions",
                                        "/v1/messages/count_tokens",
                                        "/v1/responses",
                                        "/v1/responses/*",
                                        "/v1/rerank/*",
                                        "/v1/models",
                                        "/v1/realtime",
                                        "/chat",
                                        "/livez",
                                        "/metrics",
                                        "/version"};
    static const char *const unknown[] = {"", "/v1", "/v1/*", "/v1/rerank", "/v1/chat", "/livez/", "/chat/", "livez"};

    for (size_t i = 0; i < COUNT(known); i++)
        ck_assert_msg(config_route_known(span_of(known[i])), "%s", known[i]);
    for (size_t i = 0; i < COUNT(unknown); i++)
        ck_assert_msg(!config_route_known(span_of(unknown[i])), "%s", unknown[i]);
}
END_TEST

START_TEST(finds_the_nearest_name)
{
    static const char *const names[] = {"listen", "log_level", "log_format", "url"};

    ck_assert_str_eq(nearest_name(SPAN("lsiten"), names, COUNT(names)), "listen");
    ck_assert_str_eq(nearest_name(SPAN("loglevel"), names, COUNT(names)), "log_level");
    ck_assert_str_eq(nearest_name(SPAN("uri"), names, COUNT(names)), "url");
    ck_assert_ptr_null(nearest_name(SPAN("xyz"), names, COUNT(names)));
    ck_assert_ptr_null(nearest_name(SPAN(""), names, COUNT(names)));
    ck_assert_ptr_null(nearest_name(SPAN("log_levellog_levellog_levellog_level"), names, COUNT(names)));
}
END_TEST

/* ---- processors ---- */

static void write_group(const char *root, const char *name, const char *text)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", root, name);
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    write_file(path, text, strlen(text));
}

START_TEST(quotas_limit_processors)
{
    ck_assert_uint_eq(processors_quota("nothing-here"), 0);

    write_group("v2", "proc/self/cgroup", "0::/a/b\n");
    write_group("v2", "sys/fs/cgroup/cpu.max", "max 100000\n");
    ck_assert_uint_eq(processors_quota("v2"), 0);
    write_group("v2", "sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
    ck_assert_uint_eq(processors_quota("v2"), 3);
    write_group("v2", "sys/fs/cgroup/a/cpu.max", "50000 100000\n"); /* the group above counts too */
    ck_assert_uint_eq(processors_quota("v2"), 1);

    /* In a container: the path is the host's, the files are at the top. */
    write_group("inside", "proc/self/cgroup", "0::/docker/1234\n");
    write_group("inside", "sys/fs/cgroup/cpu.max", "200000 100000\n");
    ck_assert_uint_eq(processors_quota("inside"), 2);

    write_group("v1", "proc/self/cgroup", "9:cpuset:/\n4:cpu,cpuacct:/x\n0::/\n");
    write_group("v1", "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "150000\n");
    ck_assert_uint_eq(processors_quota("v1"), 0);
    write_group("v1", "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
    ck_assert_uint_eq(processors_quota("v1"), 2);
    write_group("v1", "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n");
    ck_assert_uint_eq(processors_quota("v1"), 0);

    write_group("bad", "proc/self/cgroup", "nonsense\n0::/\n");
    write_group("bad", "sys/fs/cgroup/cpu.max", "many few\n");
    ck_assert_uint_eq(processors_quota("bad"), 0);
    ck_assert_uint_ge(processors_usable(), 1);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("config_values");
    tcase_add_unchecked_fixture(tests, prepare, clean_up);
    tcase_add_test(tests, tls_files_are_looked_for);
    tcase_add_loop_test(tests, unknown_variables_are_errors, 0, COUNT(environments));
    tcase_add_test(tests, the_real_environment_is_checked);
    tcase_add_test(tests, parses_durations);
    tcase_add_test(tests, parses_sizes);
    tcase_add_test(tests, networks_contain_addresses);
    tcase_add_test(tests, parses_expiry);
    tcase_add_test(tests, knows_loopback);
    tcase_add_test(tests, knows_the_built_in_routes);
    tcase_add_test(tests, finds_the_nearest_name);
    tcase_add_test(tests, quotas_limit_processors);
    return run_suite("config_values", tests);
}
