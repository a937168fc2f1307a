#include "gateway/cli.h"
#include "base/log.h"
#include "base/units.h"
#include "gateway/ask.h"
#include "gateway/crash.h"
#include "gateway/notify.h"
#include "gateway/server.h"
#include "gateway/supervise.h"
#include <errno.h>
#include <h2o.h>
#include <jansson.h>
#include <libwebsockets.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

enum run_option {
    OPTION_CONFIG = 0x100,
    OPTION_LISTEN,
    OPTION_TLS_CERT,
    OPTION_TLS_KEY,
    OPTION_BACKEND,
    OPTION_API_KEY,
    OPTION_OPEN,
    OPTION_SUPERVISE,
    OPTION_WORKERS,
    OPTION_LOG_LEVEL,
    OPTION_LOG_FORMAT,
    OPTION_DRAIN_TIMEOUT,
    OPTION_LIMIT,
    OPTION_CACHE_TTL,
    OPTION_REDIS,
};

/* argp sorts options inside a group, and a headline starts a paragraph of the help. */
static const struct argp_option run_options[] = {
    {NULL, 0, NULL, 0, "Where it listens:", 1},
    {"listen", OPTION_LISTEN, "[HOST]:PORT", 0,
     "Address to serve on, also unix:PATH; repeatable (default 127.0.0.1:8080)", 1},
    {"tls-cert", OPTION_TLS_CERT, "FILE", 0, "Certificate chain (PEM); serves TLS on the --listen addresses", 1},
    {"tls-key", OPTION_TLS_KEY, "FILE", 0, "Private key (PEM) of that certificate", 1},
    {NULL, 0, NULL, 0, "Where answers come from:", 2},
    {"backend", OPTION_BACKEND, "URL", 0, "Model server: http://, https:// or demo: ; repeatable (default demo:)", 2},
    {"cache-ttl", OPTION_CACHE_TTL, "DURATION", 0, "Keep answers and repeat them for so long, as in 10m", 2},
    {NULL, 0, NULL, 0, "Who may use it:", 3},
    {"api-key", OPTION_API_KEY, "KEY", 0,
     "Key that clients must send; repeatable. Other users of the machine can see options: prefer WEIR_API_KEY_FILE, "
     "or `keys:` in the file",
     3},
    {"open", OPTION_OPEN, NULL, 0, "Serve without keys on addresses that other machines can reach", 3},
    {"limit", OPTION_LIMIT, "LIMITS", 0,
     "How much may be asked, such as \"60/minute;1000/hour\" or \"100000 tokens/minute\", for each key (each address "
     "where there are no keys)",
     3},
    {NULL, 0, NULL, 0, "How it runs:", 4},
    {"redis", OPTION_REDIS, "URL", 0,
     "Redis that several gateways share their counts and answers in: redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], "
     "redis+sentinel://HOST[:PORT],HOST[:PORT]/MASTER[/DB] or unix:///PATH (default: none; with a password prefer "
     "WEIR_REDIS_FILE)",
     4},
    {"config", OPTION_CONFIG, "FILE", 0, "Configuration (default: ./weir.yaml, then /etc/weir/weir.yaml, if there)", 4},
    {"workers", OPTION_WORKERS, "N", 0, "Threads (default: the processors this process may use)", 4},
    {"supervise", OPTION_SUPERVISE, NULL, 0, "Keep a parent process that starts the serving one again if it dies", 4},
    {"log-level", OPTION_LOG_LEVEL, "LEVEL", 0, "debug, info, warn or error", 4},
    {"log-format", OPTION_LOG_FORMAT, "FORMAT", 0, "json, or text (default: text on a terminal, else json)", 4},
    {"drain-timeout", OPTION_DRAIN_TIMEOUT, "DURATION", 0,
     "How long streams may take to finish after SIGTERM, as in 30s", 4},
    {NULL, 0, NULL, 0, "Help:", -1},
    {0},
};

static const char run_doc[] =
    "A gateway that streams tokens from model servers to their readers. Without options it serves a built-in demo "
    "model on http://127.0.0.1:8080."
    "\v"
    "Commands:\n"
    "  run                Serve (the default)\n"
    "  check [FILE]       Look for mistakes in a configuration file\n"
    "  init [FILE]        Write a commented configuration file (default weir.yaml)\n"
    "  keys create|hash   Make an API key; hash one for the configuration file\n"
    "  ask [PROMPT]       Ask a running gateway and print its answer as it comes\n"
    "  health             Ask a running gateway whether it is ready\n"
    "  env                Show each variable's value and where it comes from\n"
    "  version            Print the version\n"
    "`weir COMMAND --help` tells more about each.\n"
    "\n"
    "Each option has an environment variable (lists separated by commas): WEIR_CONFIG, WEIR_LISTEN, WEIR_TLS_CERT, "
    "WEIR_TLS_KEY, WEIR_BACKEND, WEIR_API_KEY or WEIR_API_KEY_FILE (one key a line), WEIR_OPEN=true, "
    "WEIR_SUPERVISE=true, WEIR_LIMIT, WEIR_CACHE_TTL, WEIR_REDIS or WEIR_REDIS_FILE, WEIR_WORKERS, WEIR_LOG_LEVEL, "
    "WEIR_LOG_FORMAT, WEIR_DRAIN_TIMEOUT. The option beats the variable, the variable beats the file, "
    "which can set all of this and more.";

/* Reached by `weir version` and every command's --version. */
static void print_version(FILE *stream, struct argp_state *state)
{
    (void)state;
    int yaml_major, yaml_minor, yaml_patch;
    const char *sockets = lws_get_library_version(); /* with a '-' and, where it was built from git, the commit */
    yaml_get_version(&yaml_major, &yaml_minor, &yaml_patch);
    fprintf(stream, "weir %s\n", WEIR_VERSION);
    fprintf(stream, "h2o %s, OpenSSL %s, libyaml %d.%d.%d, jansson %s, libwebsockets %.*s\n", H2O_VERSION,
            OpenSSL_version(OPENSSL_VERSION_STRING), yaml_major, yaml_minor, yaml_patch, jansson_version_str(),
            (int)strcspn(sockets, "-"), sockets);
}

static bool fails_into_log;

void cli_fail_into_log(void)
{
    fails_into_log = true;
}

int cli_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (fails_into_log) {
        char message[1024];
        vsnprintf(message, sizeof(message), format, args);
        va_end(args);
        log_text(LOG_ERROR, "%s", message);
        return CLI_FAILED;
    }
    fflush(stdout);
    fputs("weir: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return CLI_FAILED;
}

/* argp knows --help and -? only. */
static error_t parse_short_help(int option, char *value, struct argp_state *state)
{
    (void)value;
    if (option != 'h')
        return ARGP_ERR_UNKNOWN;
    argp_state_help(state, state->out_stream, ARGP_HELP_STD_HELP);
    return 0;
}

void cli_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    static const struct argp_option help_options[] = {{NULL, 'h', NULL, OPTION_HIDDEN, NULL, -1}, {0}};
    static const struct argp help = {.options = help_options, .parser = parse_short_help};
    const struct argp_child children[] = {{&help, 0, NULL, 0}, {0}};
    struct argp with_help = *argp;
    with_help.children = children;
    argp_err_exit_status = CLI_USAGE;
    argp_program_version_hook = print_version;
    if (argp_parse(&with_help, argc, argv, 0, NULL, input) != 0)
        exit(CLI_USAGE);
}

static error_t parse_run_option(int option, char *value, struct argp_state *state)
{
    struct config_options *options = state->input;
    switch (option) {
    case OPTION_CONFIG:
        options->file = value;
        return 0;
    case OPTION_LISTEN:
        options->listen[options->listen_count++] = value;
        return 0;
    case OPTION_TLS_CERT:
        options->tls_cert = value;
        return 0;
    case OPTION_TLS_KEY:
        options->tls_key = value;
        return 0;
    case OPTION_BACKEND:
        options->backends[options->backend_count++] = value;
        return 0;
    case OPTION_API_KEY:
        options->api_keys[options->api_key_count++] = value;
        return 0;
    case OPTION_OPEN:
        options->open = true;
        return 0;
    case OPTION_SUPERVISE:
        options->supervise = true;
        return 0;
    case OPTION_LIMIT:
        options->limit = value;
        return 0;
    case OPTION_CACHE_TTL:
        options->cache_ttl = value;
        return 0;
    case OPTION_REDIS:
        options->redis = value;
        return 0;
    case OPTION_WORKERS:
        options->workers = value;
        return 0;
    case OPTION_LOG_LEVEL:
        options->log_level = value;
        return 0;
    case OPTION_LOG_FORMAT:
        options->log_format = value;
        return 0;
    case OPTION_DRAIN_TIMEOUT:
        options->drain_timeout = value;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state,
                   "unexpected '%s'; a command comes first and is run, check, init, keys, ask, health, env or version",
                   value);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* In the role that the process before this one has for it, or the one that the options say. */
static int serve(const struct config_options *options, struct handover *handover)
{
    char error[1024];
    crash_hide_memory();
    struct config *config = config_load(options, getenv, error, sizeof(error));
    bool usable = config != NULL && config_tls_check(config, error, sizeof(error));
    if (usable && handover->role == HANDOVER_RUN && config->supervise)
        return supervise_run(config, handover);
    if (usable && handover->role != HANDOVER_CHECK)
        return server_run(config, options, handover);
    if (config != NULL)
        config_release(config);
    if (usable)
        return CLI_OK;
    return handover->old != 0 ? supervise_old(handover, error) : cli_fail("%s", error);
}

void cli_parse_run(int argc, char **argv, const char *doc, struct config_options *options)
{
    const struct argp argp = {
        .options = run_options, .parser = parse_run_option, .args_doc = "", .doc = doc != NULL ? doc : run_doc};
    /* No list can be longer than the command line. */
    const char **lists = calloc((size_t)argc * 3, sizeof(*lists));
    if (lists == NULL)
        abort();
    *options = (struct config_options){.listen = lists, .backends = lists + argc, .api_keys = lists + 2 * (size_t)argc};
    cli_parse(&argp, argc, argv, options);
}

static int cli_run(int argc, char **argv)
{
    struct config_options options;
    cli_parse_run(argc, argv, NULL, &options);

    notify_begin();
    struct handover handover;
    handover_receive(&handover);
    if (handover.logs)
        cli_fail_into_log();
    int status = serve(&options, &handover);
    handover_dispose(&handover);
    free(options.listen);
    return status;
}

/* "per_key (60 per 1 minute, 1000 per 1 hour; by api_key)". */
static void print_limit(const struct config_limit *limit)
{
    char text[64];
    printf("%s (", limit->name);
    for (size_t i = 0; i != limit->count; ++i) {
        struct strbuf out;
        strbuf_init_fixed(&out, text, sizeof(text));
        limit_print(&limit->limits[i], &out);
        printf("%s%s", i != 0 ? ", " : "", strbuf_cstr(&out));
    }
    printf("; by %s)", config_limit_by_name(limit->by));
}

static void print_summary(const struct config *config)
{
    printf("  listeners  ");
    for (size_t i = 0; i != config->listen_count; ++i)
        printf("%s%s%s", i != 0 ? ", " : "", config->listen[i].address,
               config->listen[i].tls_cert != NULL ? " (TLS)" : "");
    printf("\n  backends   ");
    for (size_t i = 0; i != config->backend_count; ++i) {
        const struct backend_settings *backend = &config->backends[i];
        const struct backend_url *url = &backend->url;
        printf("%s%s", i != 0 ? ", " : "", backend->name);
        if (url->kind == BACKEND_DEMO)
            printf(" (demo:)");
        else if (url->unix_path != NULL)
            printf(" (http://unix:%s%s%s)", url->unix_path, url->path[0] != '\0' ? ":" : "", url->path);
        else
            printf(" (%s://%s%s)", url->tls ? "https" : "http", url->authority, url->path);
    }
    for (size_t i = 0; i != config->fleet.alias_count; ++i) {
        const struct fleet_alias *alias = &config->fleet.aliases[i];
        printf("%s%s", i == 0 ? "\n  models     " : "; ", alias->name);
        for (size_t n = 0; n != alias->step_count; ++n)
            printf("%s%s%s%s", n == 0 ? " = " : ", then ", alias->steps[n].model,
                   alias->steps[n].backend != NULL ? "@" : "",
                   alias->steps[n].backend != NULL ? alias->steps[n].backend : "");
    }
    printf("\n  keys       ");
    if (config->key_count == 0)
        printf("none: whoever can connect may ask");
    for (size_t i = 0; i != config->key_count; ++i)
        printf("%s%s", i != 0 ? ", " : "", config->keys[i].name);
    printf("\n  limits     ");
    if (config->limit_count == 0)
        printf("none");
    for (size_t i = 0; i != config->limit_count; ++i) {
        printf("%s", i != 0 ? ", " : "");
        print_limit(&config->limits[i]);
    }
    char ttl[UNITS_TEXT_MAX], most[UNITS_TEXT_MAX];
    printf("\n  cache      ");
    if (config->cache.on)
        printf("for %s, at most %s", units_print_duration(config->cache.ttl_us, ttl),
               units_print_size(config->cache.max_bytes, most));
    else
        printf("off");
    char redis[512] = "none";
    if (config->redis.on)
        redis_url_print(&config->redis.url, redis, sizeof(redis));
    printf("\n  redis      %s", redis);
    printf("\n  admin      %s", config->admin.key_count == 0           ? "off"
                                : config->admin.listen.address != NULL ? config->admin.listen.address
                                                                       : "on the listeners");
    for (size_t i = 0; i < config->admin.key_count; i++)
        printf("%s%s", i != 0 ? ", " : ", for ", config->admin.keys[i].name);
    printf("\n  routes     built-in");
    for (size_t i = 0; i != config->route_count; ++i)
        printf("%s%s", i != 0 ? ", " : "; in the file: ", config->routes[i].path);
    printf("\n");
}

static error_t parse_check_option(int option, char *value, struct argp_state *state)
{
    const char **file = state->input;
    switch (option) {
    case ARGP_KEY_ARG:
        if (*file != NULL)
            argp_error(state, "one FILE at a time");
        *file = value;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int cli_check(int argc, char **argv)
{
    static const struct argp argp = {.parser = parse_check_option,
                                     .args_doc = "[FILE]",
                                     .doc = "Looks for mistakes in a configuration file (default: ./weir.yaml, then "
                                            "/etc/weir/weir.yaml) and in the certificates and keys that it names, "
                                            "opening no port. Stops at the first. The environment counts as it does "
                                            "for `weir run`."};
    struct config_options options = {.file = NULL};
    cli_parse(&argp, argc, argv, &options.file);
    char error[1024];
    struct config *config = config_load(&options, getenv, error, sizeof(error));
    if (config == NULL)
        return cli_fail("%s", error);
    int status = CLI_OK;
    if (config->file == NULL) {
        status = cli_fail("there is neither ./weir.yaml nor /etc/weir/weir.yaml; name a file: weir check FILE");
    } else if (!config_tls_check(config, error, sizeof(error))) {
        status = cli_fail("%s", error);
    } else {
        printf("%s: ok\n", config->file);
        print_summary(config);
    }
    config_release(config);
    return status;
}

static int cli_version(int argc, char **argv)
{
    static const struct argp argp = {.doc = "Prints the version of weir and of the libraries it runs with."};
    cli_parse(&argp, argc, argv, NULL);
    print_version(stdout, NULL);
    return CLI_OK;
}

static const struct command {
    const char *name;
    char *title; /* argv[0] of the command, for messages */
    int (*run)(int argc, char **argv);
} commands[] = {
    {"run", "weir", cli_run},        {"check", "weir check", cli_check},
    {"init", "weir init", cli_init}, {"keys", "weir keys", cli_keys},
    {"ask", "weir ask", ask_main},   {"health", "weir health", cli_health},
    {"env", "weir env", cli_env},    {"version", "weir version", cli_version},
};

int cli_main(int argc, char **argv)
{
    char *help[] = {"weir", "--help", NULL}, *bare[] = {"weir", NULL};
    if (argc < 1)
        return cli_run(1, bare);
    int (*run)(int, char **) = cli_run;
    if (argc > 1 && strcmp(argv[1], "help") == 0)
        return cli_run(2, help);
    for (size_t i = 0; argc > 1 && i != sizeof(commands) / sizeof(*commands); ++i) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            run = commands[i].run;
            --argc;
            ++argv;
            argv[0] = commands[i].title;
            break;
        }
    }
    if (run == cli_run)
        argv[0] = "weir";
    int status = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout) != 0)
        return status != CLI_OK ? status : cli_fail("cannot write to standard output: %s", strerror(errno));
    return status;
}
