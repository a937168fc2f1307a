#include "gateway/cli.h"
#include "gateway/config_env.h"
#include "gateway/config_origin.h"
#include "gateway/processors.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define VALUE_MAX 4096

/* Of each setting: where it stands in the file, what it is where nobody says, and whether it is nobody's business. */
static const struct setting {
    const char *key, *fallback;
    bool secret;
} settings[INPUT_COUNT] = {
    [INPUT_CONFIG] = {NULL, "none", false},
    [INPUT_LISTEN] = {"listen", "127.0.0.1:8080", false},
    [INPUT_TLS_CERT] = {NULL, "none", false},
    [INPUT_TLS_KEY] = {NULL, "none", false},
    [INPUT_BACKEND] = {"backends", "demo:", false},
    [INPUT_API_KEY] = {"keys", "none", true},
    [INPUT_OPEN] = {"open", "false", false},
    [INPUT_WORKERS] = {"workers", NULL, false}, /* see fallback_of */
    [INPUT_LOG_LEVEL] = {"log_level", "info", false},
    [INPUT_LOG_FORMAT] = {"log_format", NULL, false},
    [INPUT_DRAIN_TIMEOUT] = {"drain_timeout", "30s", false},
    [INPUT_LIMIT] = {"limits", "none", false},
    [INPUT_CACHE_TTL] = {"cache.ttl", "off", false},
    [INPUT_REDIS] = {"redis", "none", false},
    [INPUT_SUPERVISE] = {"supervise", "false", false},
};

static const char *fallback_of(enum input_id id, char text[16])
{
    if (id == INPUT_WORKERS) {
        unsigned processors = processors_usable();
        snprintf(text, 16, "%u", processors < CONFIG_WORKERS_MAX ? processors : CONFIG_WORKERS_MAX);
        return text;
    }
    if (id == INPUT_LOG_FORMAT)
        return isatty(STDERR_FILENO) ? "text" : "json";
    return settings[id].fallback != NULL ? settings[id].fallback : "none";
}

void cli_env_show(struct span value, struct strbuf *out)
{
    const char *scheme = memmem(value.base, value.len, "://", 3);
    struct span rest = value;
    if (scheme != NULL) {
        rest = span_skip(value, (size_t)(scheme + 3 - value.base));
        strbuf_add(out, (struct span){value.base, value.len - rest.len});
    } /* else a URL without its beginning, perhaps */
    /* User and password end at the last '@': the password may hold what would end it, if nobody escaped it. */
    const char *at = memrchr(rest.base, '@', rest.len);
    if (at != NULL) {
        strbuf_puts(out, "…@");
        rest = span_skip(rest, (size_t)(at - rest.base) + 1);
    }
    if (scheme != NULL) {
        size_t host = 0; /* the authority ends at the path */
        while (host < rest.len && strchr("/?#", rest.base[host]) == NULL)
            host++;
        size_t port = host;
        while (port != 0 && strchr("0123456789]", rest.base[port - 1]) != NULL)
            port--;
        bool odd_port = port != 0 && rest.base[port - 1] != ':' && rest.base[0] != '[';
        const char *colon = odd_port ? memrchr(rest.base, ':', port) : NULL;
        if (colon != NULL) { /* a password whose '@' was forgotten */
            strbuf_add(out, (struct span){rest.base, (size_t)(colon + 1 - rest.base)});
            strbuf_puts(out, "…");
            return;
        }
    }
    const char *query = rest.len != 0 ? memchr(rest.base, '?', rest.len) : NULL;
    if (query != NULL) /* some servers take their key there */
        rest.len = (size_t)(query - rest.base) + 1;
    for (size_t i = 0; i < rest.len; i++)
        strbuf_putc(out, (unsigned char)rest.base[i] < ' ' || rest.base[i] == 0x7f ? '?' : rest.base[i]);
    if (query != NULL)
        strbuf_puts(out, "…");
}

const char *cli_url_shown(const char *url, char *text, size_t size)
{
    struct strbuf shown;
    strbuf_init_fixed(&shown, text, size);
    cli_env_show(span_of(url), &shown);
    return strbuf_cstr(&shown);
}

static void show_input(enum input_id id, const struct config_input *input, struct strbuf *out)
{
    if (settings[id].secret) {
        strbuf_printf(out, "%zu, hidden", input->count);
        return;
    }
    for (size_t i = 0; i < input->count; i++) {
        if (i != 0)
            strbuf_putc(out, ',');
        cli_env_show(span_of(input->items[i]), out);
    }
}

/* One line of the list. */
static void print_setting(enum input_id id, const struct config_input *input, const char *file)
{
    char memory[VALUE_MAX], raw_memory[VALUE_MAX], from[PATH_MAX + 16] = "default", text[16];
    struct strbuf value, raw;
    int line = 0;
    bool is_list;
    strbuf_init_fixed(&value, memory, sizeof(memory));
    strbuf_init_fixed(&raw, raw_memory, sizeof(raw_memory));
    if (input->count != 0) {
        show_input(id, input, &value);
        snprintf(from, sizeof(from), "%s", input->source[0] == '-' ? input->source : "environment");
        if (strcmp(input->source, config_input_variable(id)) != 0 && input->source[0] != '-')
            snprintf(from, sizeof(from), "the file that %s names", input->source);
    } else if (id == INPUT_CONFIG && file != NULL) {
        strbuf_puts(&value, file);
        snprintf(from, sizeof(from), "the usual place");
    } else if (file != NULL && settings[id].key != NULL &&
               (line = config_origin_find(file, settings[id].key, &raw, &is_list)) != 0) {
        if (settings[id].secret && !is_list)
            strbuf_puts(&value, "hidden");
        else
            cli_env_show(strbuf_span(&raw), &value);
        snprintf(from, sizeof(from), "%s:%d", file, line);
    } else {
        strbuf_puts(&value, fallback_of(id, text));
    }
    printf("%-20s %-28s %s\n", config_input_variable(id),
           value.len != 0 || value.overflow ? strbuf_cstr(&value) : "\"\"", from);
    const char *in_file = config_input_file_variable(id), *path = in_file != NULL ? getenv(in_file) : NULL;
    if (in_file != NULL)
        printf("%-20s %-28s %s\n", in_file,
               path == NULL                 ? "none"
               : config_input_is_file(path) ? path
                                            : "hidden",
               path != NULL ? "environment" : "default");
}

int cli_env(int argc, char **argv)
{
    static const char doc[] =
        "Lists the environment variables of `weir run` with the values that count and where these come from: an "
        "option given here, the environment, the file or the default. Keys and passwords are not shown. Exit status "
        "1 and a line if `weir run` would refuse them.";
    struct config_options options;
    struct config_input inputs[INPUT_COUNT] = {0};
    char error[1024];
    struct config_report report = {error, sizeof(error)};
    cli_parse_run(argc, argv, doc, &options);
    bool readable = config_inputs_read(inputs, &options, getenv, &report);
    const struct config_input *asked = &inputs[INPUT_CONFIG];
    const char *file = asked->count != 0 ? asked->items[0] : config_origin_usual();

    printf("%-20s %-28s %s\n", "VARIABLE", "VALUE", "FROM");
    for (size_t id = 0; readable && id < INPUT_COUNT; id++)
        print_setting((enum input_id)id, &inputs[id], file);
    const char *url = getenv("WEIR_URL");
    if (url != NULL && url[0] == '\0')
        url = NULL; /* as `weir ask` sees it */
    char own[512] = "http://127.0.0.1:8080", why_not[1024];
    cli_own_url(own, sizeof(own), why_not, sizeof(why_not));
    struct strbuf shown;
    char memory[VALUE_MAX];
    strbuf_init_fixed(&shown, memory, sizeof(memory));
    if (url != NULL)
        cli_env_show(span_of(url), &shown);
    printf("%-20s %-28s %s\n", "WEIR_URL", url != NULL ? strbuf_cstr(&shown) : own,
           url != NULL ? "environment (of `weir ask`)" : "default (of `weir ask`)");
    int status = readable ? CLI_OK : cli_fail("%s", error);
    struct config *config = readable ? config_load(&options, getenv, error, sizeof(error)) : NULL;
    if (readable && config == NULL)
        status = cli_fail("%s", error);
    config_release(config);
    config_inputs_dispose(inputs);
    free(options.listen);
    return status;
}
