/* Options, variables and files of secrets, and what the file says together with them. */
#include "gateway/config_refusals.h"

static const struct bad bad_inputs[] = {
    OPTIONS("cannot read nowhere.yaml: No such file or directory", .file = "nowhere.yaml"),
    OPTIONS("cannot read /: Is a directory", .file = "/"),
    OPTIONS("--listen is \"8080\", " ADDRESS, LISTEN("8080")),
    OPTIONS(NO_KEY("0.0.0.0:8080"), LISTEN("127.0.0.1:1", "0.0.0.0:8080")),
    OPTIONS("the address [::1]:1 is listened on twice, expected once", LISTEN("[::1]:1", "[::1]:1")),
    OPTIONS("--tls-cert is given without --tls-key, expected both", .tls_cert = "a"),
    OPTIONS("--tls-key is given without --tls-cert, expected both", .tls_key = "a"),
    OPTIONS("--tls-key is empty, expected a file", .tls_cert = "a", .tls_key = ""),
    {{.yaml = "listen: [\"localhost:1\"]\n", .options = {.tls_cert = "a", .tls_key = "b"}},
     "--tls-cert applies to --listen addresses and none is given, expected --listen, or \"tls\" under \"listen\" in "
     "the file"},
    OPTIONS("--backend: unknown scheme \"ftp\", expected http://, https:// or demo:", BACKENDS("http://a", "ftp://b")),
    OPTIONS("--api-key is too short for a key, expected at least 8 characters", KEYS("short")),
    OPTIONS("--api-key is an empty key, expected at least 8 characters", KEYS("")),
    OPTIONS(
        "the keys \"key-1\" and \"key-3\" of --api-key (or WEIR_API_KEY) are the same secret, expected different ones",
        KEYS("secret-1", "secret-2", "secret-1")),
    OPTIONS("--workers is \"many\", expected a number from 1 to 64", .workers = "many"),
    OPTIONS("--workers is empty, expected a number from 1 to 64", .workers = ""),
    OPTIONS("--log-level is \"loud\", expected debug, info, warn or error", .log_level = "loud"),
    OPTIONS("--log-format is \"xml\", expected json or text", .log_format = "xml"),
    OPTIONS("--drain-timeout is \"30\", " DURATION, .drain_timeout = "30"),
    OPTIONS("--cache-ttl is \"30\", " DURATION, .cache_ttl = "30"),
    OPTIONS("--cache-ttl is \"0s\", expected a duration longer than 0", .cache_ttl = "0s"),
    OPTIONS("--redis is no address of a Redis: the database is not a number, expected such as 0",
            .redis = "redis://:hush@a/x"),
    ENV("WEIR_REDIS is no address of a Redis: the database is not a number, expected such as 0", "WEIR_REDIS",
        "redis://:hush@a/x"),
    ENV("WEIR_REDIS and WEIR_REDIS_FILE are both set, expected one of them", "WEIR_REDIS", "/a", "WEIR_REDIS_FILE",
        "/b"),
    ENV("WEIR_REDIS_FILE: nothing in no-keys.txt, expected one value a line", "WEIR_REDIS_FILE", "no-keys.txt"),
    ENV("WEIR_REDIS_FILE holds 2 addresses, expected one", "WEIR_REDIS_FILE", "two-redis.txt"),

    ENV("WEIR_LISTEN is \"x\", " ADDRESS, "WEIR_LISTEN", "127.0.0.1:1,x"),
    ENV("WEIR_LISTEN has an empty item, expected values separated by commas", "WEIR_LISTEN", "127.0.0.1:1,"),
    ENV("WEIR_LISTEN is set but empty, expected a value (unset it for the default)", "WEIR_LISTEN", ""),
    ENV(NO_KEY("0.0.0.0:8080"), "WEIR_LISTEN", "0.0.0.0:8080", "WEIR_OPEN", "false"),
    ENV("WEIR_API_KEY is set but empty, expected a value (unset it for the default)", "WEIR_API_KEY", ""),
    ENV("WEIR_API_KEY_FILE is set but empty, expected a value (unset it for the default)", "WEIR_API_KEY_FILE", ""),
    ENV("WEIR_API_KEY is too short for a key, expected at least 8 characters", "WEIR_API_KEY", "secret-1,short"),
    ENV("WEIR_API_KEY and WEIR_API_KEY_FILE are both set, expected one of them", "WEIR_API_KEY", "secret-1",
        "WEIR_API_KEY_FILE", "keys.txt"),
    ENV("WEIR_API_KEY_FILE: cannot read what it names (is it the secret, not a file?): No such file or directory",
        "WEIR_API_KEY_FILE", "nowhere.txt"),
    ENV("WEIR_API_KEY_FILE: nothing in no-keys.txt, expected one value a line", "WEIR_API_KEY_FILE", "no-keys.txt"),
    ENV("WEIR_API_KEY_FILE is too short for a key, expected at least 8 characters", "WEIR_API_KEY_FILE",
        "short-key.txt"),
    ENV("WEIR_API_KEY_FILE: binary-key.txt holds a NUL character, expected text", "WEIR_API_KEY_FILE",
        "binary-key.txt"),
    ENV("WEIR_API_KEY_FILE: cannot read large.txt: it is larger than 1 MiB", "WEIR_API_KEY_FILE", "large.txt"),
    ENV("WEIR_TLS_CERT is given without WEIR_TLS_KEY, expected both", "WEIR_TLS_CERT", "a"),
    ENV("WEIR_BACKEND: no scheme in the url, expected http://, https:// or demo:", "WEIR_BACKEND", "vllm"),
    ENV("WEIR_OPEN is \"maybe\", expected true or false", "WEIR_OPEN", "maybe"),
    ENV("WEIR_WORKERS is \"0\", expected a number from 1 to 64", "WEIR_WORKERS", "0"),
    ENV("WEIR_LOG_LEVEL is \"x\", expected debug, info, warn or error", "WEIR_LOG_LEVEL", "x"),
    ENV("WEIR_LOG_FORMAT is \"x\", expected json or text", "WEIR_LOG_FORMAT", "x"),
    ENV("WEIR_DRAIN_TIMEOUT is \"1\", " DURATION, "WEIR_DRAIN_TIMEOUT", "1"),
    ENV("WEIR_CACHE_TTL is \"x\", " DURATION, "WEIR_CACHE_TTL", "x"),
    ENV("WEIR_LIMIT is set but empty, expected a value (unset it for the default)", "WEIR_LIMIT", ""),
    ENV("WEIR_CONFIG: cannot read nowhere.yaml: No such file or directory", "WEIR_CONFIG", "nowhere.yaml"),
    ENV("WEIR_CONFIG: cannot read large.txt: it is larger than 1 MiB", "WEIR_CONFIG", "large.txt"),

    /* A message never shows what a variable holds. */
    {{.yaml = "workers: ${SECRET}\n", .env = {"SECRET", "hunter2"}},
     "weir.yaml:1: \"workers\" is \"${SECRET}\", expected a number from 1 to 64"},
    {{.yaml = "backends: [{url: \"http://u:${SECRET}@a\"}]\n", .env = {"SECRET", "hunter2"}},
     "weir.yaml:1: \"backends[0].url\": a user name in the url is refused, expected http://HOST:PORT (credentials go "
     "into "
     "\"api_key\" or \"headers\")"},
    /* An option that replaces the file's backends leaves its routes without them. */
    {{.yaml = "backends: [{url: http://a}]\nroutes: [{path: /t/*, proxy: a}]\n", .options = {BACKENDS("http://b")}},
     "weir.yaml:2: the route \"/t/*\" goes to the backend \"a\", which does not exist, expected b"},
    /* The keys may come from elsewhere: the routes still fail closed. */
    {{.yaml = "routes: [{path: /livez, depends: []}]\n", .options = {KEYS("secret-1")}},
     "weir.yaml:1: the route \"/livez\" needs no key although keys are configured, expected \"api_key\", or \"public\" "
     "if that "
     "is meant"},
    {{.yaml = "limits: {a: {limit: \"${SECRET}\"}}\n", .env = {"SECRET", "hunter2"}},
     "weir.yaml:1: \"limits.a.limit\" is \"${SECRET}\", expected limits such as 60/minute;1000/hour"},
    /* --limit replaces all limits of the file, and is by key where there are keys. */
    {{.yaml = LIMIT "routes: [{path: /v1/messages, depends: [\"limit:a\"]}]\n", .options = {.limit = "1/second"}},
     "weir.yaml:4: the route \"/v1/messages\" depends on \"limit:a\", which does not exist, expected limit:default"},
    {{.yaml = "routes: [{path: /v1/messages, depends: [public, limit]}]\n",
      .options = {KEYS("secret-1"), .limit = "1/second"}},
     "weir.yaml:1: the route \"/v1/messages\" runs the limit \"default\", which is by api_key, without \"api_key\", "
     "expected another \"by\""},
    /* What is replaced must be right all the same. */
    {{.yaml = "workers: x\n", .options = {.workers = "2"}},
     "weir.yaml:1: \"workers\" is \"x\", expected a number from 1 to 64"},
};

START_TEST(refuses_bad_inputs)
{
    check_bad(&bad_inputs[_i]);
}
END_TEST

START_TEST(large_files_are_refused)
{
    char *text = malloc((1 << 20) + 1);
    static const char *const none[] = {NULL};
    const struct config_options options = {0};
    char error[256];

    memset(text, '#', (1 << 20) + 1);
    environment = none;
    write_file("weir.yaml", text, (1 << 20) + 1);
    ck_assert_ptr_null(config_load(&options, fake_getenv, error, sizeof(error)));
    ck_assert_str_eq(error, "cannot read weir.yaml: it is larger than 1 MiB");
    write_file("weir.yaml", text, 1 << 20);
    struct config *config = config_load(&options, fake_getenv, error, sizeof(error));
    ck_assert_ptr_nonnull(config);
    config_release(config);
    free(text);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("config_refusals_inputs");
    tcase_add_unchecked_fixture(tests, prepare, clean_up);
    tcase_add_loop_test(tests, refuses_bad_inputs, 0, COUNT(bad_inputs));
    tcase_add_test(tests, large_files_are_refused);
    return run_suite("config_refusals_inputs", tests);
}
