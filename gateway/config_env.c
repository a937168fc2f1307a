#include "gateway/config_env.h"
#include "gateway/nearest.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SECRET_FILE_MAX (1 << 20)

static const struct variable {
    const char *name;
    const char *option;
    bool list;           /* separated by commas */
    const char *in_file; /* the variable that names a file with one value a line; NULL: none */
} variables[INPUT_COUNT] = {
    [INPUT_CONFIG] = {"WEIR_CONFIG", "--config", false, NULL},
    [INPUT_LISTEN] = {"WEIR_LISTEN", "--listen", true, NULL},
    [INPUT_TLS_CERT] = {"WEIR_TLS_CERT", "--tls-cert", false, NULL},
    [INPUT_TLS_KEY] = {"WEIR_TLS_KEY", "--tls-key", false, NULL},
    [INPUT_BACKEND] = {"WEIR_BACKEND", "--backend", true, NULL},
    [INPUT_API_KEY] = {"WEIR_API_KEY", "--api-key", true, "WEIR_API_KEY_FILE"},
    [INPUT_OPEN] = {"WEIR_OPEN", "--open", false, NULL},
    [INPUT_SUPERVISE] = {"WEIR_SUPERVISE", "--supervise", false, NULL},
    [INPUT_WORKERS] = {"WEIR_WORKERS", "--workers", false, NULL},
    [INPUT_LOG_LEVEL] = {"WEIR_LOG_LEVEL", "--log-level", false, NULL},
    [INPUT_LOG_FORMAT] = {"WEIR_LOG_FORMAT", "--log-format", false, NULL},
    [INPUT_DRAIN_TIMEOUT] = {"WEIR_DRAIN_TIMEOUT", "--drain-timeout", false, NULL},
    [INPUT_LIMIT] = {"WEIR_LIMIT", "--limit", false, NULL}, /* commas in it are its own */
    [INPUT_CACHE_TTL] = {"WEIR_CACHE_TTL", "--cache-ttl", false, NULL},
    [INPUT_REDIS] = {"WEIR_REDIS", "--redis", false, "WEIR_REDIS_FILE"},
};

/* Of the commands beside `weir run`. */
static const char *const others[] = {"WEIR_URL"};

const char *config_input_variable(enum input_id id)
{
    return variables[id].name;
}

const char *config_input_file_variable(enum input_id id)
{
    return variables[id].in_file;
}

bool config_input_is_file(const char *path)
{
    return path[0] == '/' || path[0] == '.' || access(path, F_OK) == 0;
}

static void add(struct config_input *input, struct span value, const char *source)
{
    char **item = config_append(&input->items, &input->count, sizeof(*input->items));

    *item = span_dup(value);
    input->source = source;
}

/* A variable's items, blanks around them trimmed. */
static bool add_list(struct config_input *input, const char *text, const char *source, struct config_report *report)
{
    for (;;) {
        const char *comma = strchrnul(text, ',');
        struct span item = span_trim((struct span){text, (size_t)(comma - text)});
        if (item.len == 0)
            return config_fail(report, "%s has an empty item, expected values separated by commas", source);
        add(input, item, source);
        if (*comma == '\0')
            return true;
        text = comma + 1;
    }
}

/* One value a line; blank lines and those that start with '#' are skipped. */
static bool add_file(struct config_input *input, const char *path, const char *source, struct config_report *report)
{
    size_t len;
    char *text = config_read_whole(path, SECRET_FILE_MAX, &len);

    if (text == NULL) {
        const char *problem = errno == EFBIG ? "it is larger than 1 MiB" : strerror(errno);
        if (!config_input_is_file(path))
            return config_fail(report, "%s: cannot read what it names (is it the secret, not a file?): %s", source,
                               problem);
        return config_fail(report, "%s: cannot read %s: %s", source, path, problem);
    }
    /* A key would end at it, unnoticed. */
    bool binary = memchr(text, '\0', len) != NULL;
    struct span rest = {text, binary ? 0 : len};
    while (rest.len != 0) {
        const char *end = memchr(rest.base, '\n', rest.len);
        struct span line = {rest.base, end != NULL ? (size_t)(end - rest.base) : rest.len};
        rest = span_skip(rest, line.len + 1);
        if (line.len != 0 && line.base[line.len - 1] == '\r')
            line.len--;
        line = span_trim(line);
        if (line.len != 0 && line.base[0] != '#')
            add(input, line, source);
    }
    OPENSSL_cleanse(text, len);
    free(text);
    if (binary)
        return config_fail(report, "%s: %s holds a NUL character, expected text", source, path);
    if (input->count == 0)
        return config_fail(report, "%s: nothing in %s, expected one value a line", source, path);
    return true;
}

static bool read_variable(struct config_input *input, const struct variable *variable, char *(*getenv_fn)(const char *),
                          struct config_report *report)
{
    const char *value = getenv_fn(variable->name);
    const char *path = variable->in_file != NULL ? getenv_fn(variable->in_file) : NULL;
    const char *empty = value != NULL && value[0] == '\0' ? variable->name : NULL;

    if (path != NULL && path[0] == '\0')
        empty = variable->in_file;
    /* Most often a secret that was lost on its way: to go on without it would be to go on without keys. */
    if (empty != NULL)
        return config_fail(report, "%s is set but empty, expected a value (unset it for the default)", empty);
    if (value != NULL && path != NULL)
        return config_fail(report, "%s and %s are both set, expected one of them", variable->name, variable->in_file);
    if (input->count != 0) /* the option beats it */
        return true;
    if (path != NULL)
        return add_file(input, path, variable->in_file, report);
    if (value == NULL)
        return true;
    if (variable->list)
        return add_list(input, value, variable->name, report);
    add(input, span_of(value), variable->name);
    return true;
}

bool config_inputs_read(struct config_input inputs[INPUT_COUNT], const struct config_options *options,
                        char *(*getenv_fn)(const char *), struct config_report *report)
{
    const struct {
        enum input_id id;
        const char *const *items;
        size_t count;
    } given[] = {
        {INPUT_CONFIG, (const char *const *)&options->file, options->file != NULL},
        {INPUT_LISTEN, (const char *const *)options->listen, options->listen_count},
        {INPUT_TLS_CERT, (const char *const *)&options->tls_cert, options->tls_cert != NULL},
        {INPUT_TLS_KEY, (const char *const *)&options->tls_key, options->tls_key != NULL},
        {INPUT_BACKEND, (const char *const *)options->backends, options->backend_count},
        {INPUT_API_KEY, (const char *const *)options->api_keys, options->api_key_count},
        {INPUT_OPEN, (const char *const[]){"true"}, options->open},
        {INPUT_SUPERVISE, (const char *const[]){"true"}, options->supervise},
        {INPUT_WORKERS, (const char *const *)&options->workers, options->workers != NULL},
        {INPUT_LOG_LEVEL, (const char *const *)&options->log_level, options->log_level != NULL},
        {INPUT_LOG_FORMAT, (const char *const *)&options->log_format, options->log_format != NULL},
        {INPUT_DRAIN_TIMEOUT, (const char *const *)&options->drain_timeout, options->drain_timeout != NULL},
        {INPUT_LIMIT, (const char *const *)&options->limit, options->limit != NULL},
        {INPUT_CACHE_TTL, (const char *const *)&options->cache_ttl, options->cache_ttl != NULL},
        {INPUT_REDIS, (const char *const *)&options->redis, options->redis != NULL},
    };

    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
        for (size_t j = 0; j < given[i].count; j++)
            add(&inputs[given[i].id], span_of(given[i].items[j]), variables[given[i].id].option);
    }
    for (size_t id = 0; id < INPUT_COUNT; id++) {
        if (!read_variable(&inputs[id], &variables[id], getenv_fn, report))
            return false;
    }
    return true;
}

void config_inputs_dispose(struct config_input inputs[INPUT_COUNT])
{
    for (size_t id = 0; id < INPUT_COUNT; id++) {
        for (size_t i = 0; i < inputs[id].count; i++)
            config_free_secret(inputs[id].items[i]);
        free(inputs[id].items);
    }
    memset(inputs, 0, INPUT_COUNT * sizeof(*inputs));
}

static bool is_set(char *const *environment, struct span prefix, const char *suffix)
{
    for (; *environment != NULL; environment++) {
        struct span entry = span_of(*environment);
        if (span_starts(entry, prefix) && span_starts(span_skip(entry, prefix.len), span_of(suffix)))
            return true;
    }
    return false;
}

/* Kubernetes sets SERVICE_SERVICE_HOST, SERVICE_PORT and more for each service of the namespace: those of one named
 * "weir" and of any named "weir-…" are not ours. */
static bool is_service_link(char *const *environment, struct span name)
{
    static const struct span own[] = {SPAN("WEIR_SERVICE_"), SPAN("WEIR_PORT_")};

    if (span_eq(name, SPAN("WEIR_PORT")) || span_starts(name, own[0]) || span_starts(name, own[1]))
        return true;
    for (size_t i = sizeof("WEIR_"); i < name.len; i++) {
        struct span rest = span_skip(name, i);
        if ((span_starts(rest, SPAN("_SERVICE_")) || span_starts(rest, SPAN("_PORT"))) &&
            is_set(environment, (struct span){name.base, i}, "_SERVICE_HOST="))
            return true;
    }
    return false;
}

bool config_environment_check(char *const *environment, char *error, size_t error_size)
{
    struct config_report report = {error, error_size};
    const char *known[INPUT_COUNT * 2 + sizeof(others) / sizeof(others[0])];
    size_t count = 0;

    for (size_t id = 0; id < INPUT_COUNT; id++) {
        known[count++] = variables[id].name;
        if (variables[id].in_file != NULL)
            known[count++] = variables[id].in_file;
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        known[count++] = others[i];
    for (char *const *entry = environment; *entry != NULL; entry++) {
        struct span name = {*entry, strcspn(*entry, "=")};
        bool ours = !span_starts(name, SPAN("WEIR_")) || is_service_link(environment, name);
        for (size_t i = 0; !ours && i < count; i++)
            ours = span_eq(name, span_of(known[i]));
        if (ours)
            continue;
        const char *nearest = nearest_name(name, known, count);
        int len = (int)(name.len < 64 ? name.len : 64);
        if (nearest != NULL)
            return config_fail(&report, "unknown environment variable %.*s; did you mean %s?", len, name.base, nearest);
        return config_fail(&report, "unknown environment variable %.*s (`weir --help` lists the known ones)", len,
                           name.base);
    }
    return true;
}
