#include "gateway/ask.h"
#include "base/clock.h"
#include "gateway/ask_link.h"
#include "gateway/ask_reply.h"
#include "gateway/cli.h"
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PROMPT_MAX (8 * 1024 * 1024)
#define ANSWER_MAX (8 * 1024 * 1024) /* of an answer, kept for the next turn of a conversation */
#define REQUEST_MAX (64 * 1024 * 1024)
#define RECEIVE_SIZE 16384

struct ask {
    const char *url_text, *key, *model, *ca_file;
    struct strbuf prompt; /* from the arguments */
    bool has_prompt;
    struct ask_url url;
    char own_url[512];    /* what the configuration said */
    char unknown[1024];   /* why it said nothing; empty otherwise */
    char model_name[512]; /* what /v1/models said */
    json_t *messages;     /* the conversation so far */
    bool terminal;        /* stdout is one */
    /* the answer in progress */
    bool dimmed, ends_line, any_content;
    int output_error; /* errno of a write to stdout that failed; 0: none */
    uint64_t started_us, first_us;
    struct strbuf answer;
};

enum { OPTION_URL = 0x100, OPTION_KEY, OPTION_MODEL, OPTION_CA };

static const struct argp_option options[] = {
    {"url", OPTION_URL, "URL", 0, "The gateway (default: WEIR_URL, else where the configuration says it listens)", 0},
    {"key", OPTION_KEY, "KEY", 0, "API key (default: WEIR_API_KEY, which other users of the machine cannot see)", 0},
    {"model", OPTION_MODEL, "MODEL", 0, "Model (default: the first that the gateway lists)", 0},
    {"ca", OPTION_CA, "FILE", 0, "Certificate authorities (PEM) to trust in place of the system's", 0},
    {0},
};

static error_t parse_option(int option, char *value, struct argp_state *state)
{
    struct ask *ask = state->input;
    switch (option) {
    case OPTION_URL:
        ask->url_text = value;
        return 0;
    case OPTION_KEY:
        ask->key = value;
        return 0;
    case OPTION_MODEL:
        ask->model = value;
        return 0;
    case OPTION_CA:
        ask->ca_file = value;
        return 0;
    case ARGP_KEY_ARG:
        if (ask->has_prompt)
            strbuf_putc(&ask->prompt, ' ');
        strbuf_puts(&ask->prompt, value);
        ask->has_prompt = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Whether the terminal's text is dimmed right now, for the handler. */
static volatile sig_atomic_t terminal_is_dimmed, answering;

static void leave_quietly(int signal_number)
{
    static const char normal[] = "\033[0m", line[] = "\n";
    if ((terminal_is_dimmed && write(STDOUT_FILENO, normal, sizeof(normal) - 1) == -1) ||
        (answering && write(STDOUT_FILENO, line, sizeof(line) - 1) == -1))
        _exit(CLI_FAILED);
    _exit(128 + signal_number);
}

static void put(struct ask *ask, struct span text)
{
    if (fwrite(text.base, 1, text.len, stdout) != text.len)
        ask->output_error = errno;
}

static void set_dimmed(struct ask *ask, bool dimmed)
{
    if (ask->dimmed == dimmed)
        return;
    put(ask, dimmed ? SPAN("\033[2m") : SPAN("\033[0m"));
    if (!dimmed)
        put(ask, ask->ends_line ? SPAN("\n") : SPAN("\n\n"));
    ask->dimmed = dimmed;
    terminal_is_dimmed = dimmed;
}

static void on_text(void *ctx, enum ask_text kind, struct span text)
{
    struct ask *ask = ctx;
    if (ask->first_us == 0)
        ask->first_us = clock_us();
    if (kind == ASK_REASONING && !ask->terminal)
        return; /* a file or another program wants the answer alone */
    if (kind == ASK_CONTENT)
        strbuf_add(&ask->answer, text);
    struct strbuf clean;
    strbuf_init(&clean, 3 * text.len);
    ask_clean(text, &clean);
    if (clean.len != 0) {
        set_dimmed(ask, kind == ASK_REASONING);
        put(ask, strbuf_span(&clean));
        ask->ends_line = clean.base[clean.len - 1] == '\n';
        ask->any_content = true;
    }
    strbuf_dispose(&clean);
    if (fflush(stdout) != 0)
        ask->output_error = errno;
}

/* What the user of this command can do about a refusal. */
static const char *advice(const struct ask *ask, const struct ask_reply *reply)
{
    if (reply->status == 401 && ask->key == NULL)
        return "; give the key with --key or in WEIR_API_KEY";
    if (ask->model == NULL && reply->status >= 400 && reply->status != 401)
        return "; that was the list of models, which --model NAME makes needless";
    return "";
}

/* One request on a connection of its own. Returns CLI_OK, or CLI_FAILED after a line on stderr. */
static int exchange(struct ask *ask, struct span request, struct ask_reply *reply)
{
    char error[1024], bytes[RECEIVE_SIZE];
    struct ask_link *link = ask_link_open(&ask->url, ask->ca_file, error, sizeof(error));
    if (link == NULL)
        return cli_fail("%s", error);
    /* A gateway that refuses early may close before it has read everything: its answer counts all the same. */
    bool sent = ask_link_send(link, request);
    enum ask_progress progress = ASK_MORE;
    while (progress == ASK_MORE && ask->output_error == 0) {
        ssize_t got = ask_link_receive(link, bytes, sizeof(bytes));
        if (got == -1)
            progress = ask_reply_broken(reply, !sent                ? "the connection broke while asking"
                                               : reply->status == 0 ? "the connection broke before an answer came"
                                                                    : "the connection broke before the answer's end");
        else
            progress = got > 0 ? ask_reply_feed(reply, (struct span){bytes, (size_t)got}) : ask_reply_end(reply);
    }
    ask_link_close(link);
    set_dimmed(ask, false);
    if (ask->any_content && !ask->ends_line)
        put(ask, SPAN("\n"));
    if (fflush(stdout) != 0 && ask->output_error == 0)
        ask->output_error = errno;
    if (ask->output_error == EPIPE)
        return CLI_FAILED; /* whoever read our output has gone: nothing to complain about */
    if (ask->output_error != 0)
        return cli_fail("cannot write to standard output: %s", strerror(ask->output_error));
    return progress == ASK_DONE ? CLI_OK : cli_fail("%s%s", strbuf_cstr(&reply->error), advice(ask, reply));
}

static void add_head(struct ask *ask, const char *method, const char *path, struct strbuf *out)
{
    strbuf_printf(out, "%s %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: weir/%s\r\nConnection: close\r\n", method,
                  ask->url.base, path, ask->url.authority, WEIR_VERSION);
    if (ask->key != NULL)
        strbuf_printf(out, "Authorization: Bearer %s\r\n", ask->key);
}

/* Asks the gateway for its models and takes the first. */
static int choose_model(struct ask *ask)
{
    char url[1024];
    struct strbuf request;
    strbuf_init(&request, 65536);
    add_head(ask, "GET", "/models", &request);
    strbuf_puts(&request, "Accept: application/json\r\n\r\n");
    struct ask_reply reply;
    ask_reply_init(&reply, NULL, NULL);
    int status = exchange(ask, strbuf_span(&request), &reply);
    if (status == CLI_OK && !ask_first_model(strbuf_span(&reply.body), ask->model_name, sizeof(ask->model_name)))
        status = cli_fail("%s lists no model; name one with --model", cli_url_shown(ask->url_text, url, sizeof(url)));
    ask->model = ask->model_name;
    ask_reply_dispose(&reply);
    strbuf_dispose(&request);
    return status;
}

static void print_closing_line(const struct ask *ask, const struct ask_reply *reply)
{
    if (!isatty(STDERR_FILENO))
        return;
    uint64_t now = clock_us();
    struct strbuf line;
    char memory[1024];
    strbuf_init_fixed(&line, memory, sizeof(memory));
    ask_clean(span_of(ask->model), &line);
    if (reply->usage.known)
        strbuf_printf(&line, ", %lu tokens (%lu of prompt)", (unsigned long)reply->usage.completion,
                      (unsigned long)reply->usage.prompt);
    strbuf_printf(&line, ", %.2f s", (double)(now - ask->started_us) / 1e6);
    if (ask->first_us != 0)
        strbuf_printf(&line, ", first token after %.2f s", (double)(ask->first_us - ask->started_us) / 1e6);
    if (strcmp(reply->finish_reason, "length") == 0)
        strbuf_puts(&line, ", cut at the token limit");
    fprintf(stderr, "\033[2m[%s]\033[0m\n", strbuf_cstr(&line));
}

/* Puts the conversation to the model, prints its answer and adds it to the conversation. */
static int answer(struct ask *ask)
{
    json_t *body = json_pack("{s:s, s:O, s:b, s:{s:b}}", "model", ask->model, "messages", ask->messages, "stream", 1,
                             "stream_options", "include_usage", 1);
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (text == NULL)
        return cli_fail("the model's name is not UTF-8");
    struct strbuf request;
    strbuf_init(&request, REQUEST_MAX);
    add_head(ask, "POST", "/chat/completions", &request);
    strbuf_printf(&request,
                  "Content-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: %zu\r\n\r\n",
                  strlen(text));
    strbuf_puts(&request, text);
    free(text);
    if (request.overflow) {
        strbuf_dispose(&request);
        return cli_fail("the conversation has become larger than 64 MiB");
    }

    struct ask_reply reply;
    ask_reply_init(&reply, on_text, ask);
    ask->dimmed = ask->ends_line = ask->any_content = false;
    ask->first_us = 0;
    ask->started_us = clock_us();
    strbuf_reset(&ask->answer);
    answering = ask->terminal;
    int status = exchange(ask, strbuf_span(&request), &reply);
    answering = 0;
    if (status == CLI_OK) {
        print_closing_line(ask, &reply);
        json_array_append_new(ask->messages, json_pack("{s:s, s:s%}", "role", "assistant", "content",
                                                       strbuf_cstr(&ask->answer), ask->answer.len));
    }
    ask_reply_dispose(&reply);
    strbuf_dispose(&request);
    return status;
}

/* One turn: a prompt and its answer. A turn that fails leaves the conversation as it was. */
static int turn(struct ask *ask, struct span prompt)
{
    json_t *message = json_pack("{s:s, s:s%}", "role", "user", "content", prompt.base, prompt.len);
    if (message == NULL)
        return cli_fail("the prompt is not UTF-8 text");
    json_array_append_new(ask->messages, message);
    int status = answer(ask);
    if (status != CLI_OK)
        json_array_remove(ask->messages, json_array_size(ask->messages) - 1);
    return status;
}

static int converse(struct ask *ask)
{
    char *line = NULL;
    size_t cap = 0; /* bounded by the terminal, which ends a line at 4096 bytes */
    int status = CLI_OK;
    for (;;) {
        fputs("> ", stdout);
        fflush(stdout);
        ssize_t len = getline(&line, &cap, stdin);
        if (len == -1)
            break;
        struct span prompt = {line, (size_t)len};
        if (prompt.len != 0 && prompt.base[prompt.len - 1] == '\n')
            prompt.len--;
        if (span_trim(prompt).len != 0)
            status = turn(ask, prompt);
        if (ask->output_error != 0)
            break;
    }
    fputs("\n", stdout);
    free(line);
    return status;
}

/* The prompt from a pipe or a file, up to its end. */
static int read_prompt(struct strbuf *prompt)
{
    char bytes[RECEIVE_SIZE];
    size_t got;
    while ((got = fread(bytes, 1, sizeof(bytes), stdin)) != 0 && !prompt->overflow)
        strbuf_add(prompt, (struct span){bytes, got});
    if (prompt->len != 0 && prompt->base[prompt->len - 1] == '\n')
        prompt->len--; /* the file's, not the question's */
    if (ferror(stdin) != 0)
        return cli_fail("cannot read the prompt: %s", strerror(errno));
    return CLI_OK;
}

/* Fills in what the options left open. Returns CLI_OK, or CLI_USAGE after a line on stderr. */
static int complete(struct ask *ask, char *env_key)
{
    char error[256], url[1024];
    if (ask->url_text == NULL || ask->url_text[0] == '\0')
        ask->url_text = getenv("WEIR_URL");
    if ((ask->url_text == NULL || ask->url_text[0] == '\0') &&
        cli_own_url(ask->own_url, sizeof(ask->own_url), ask->unknown, sizeof(ask->unknown)))
        ask->url_text = ask->own_url;
    if (ask->url_text == NULL || ask->url_text[0] == '\0')
        ask->url_text = "http://127.0.0.1:8080";
    if (!ask_url_parse(span_of(ask->url_text), &ask->url, error, sizeof(error))) {
        cli_fail("%s: %s", cli_url_shown(ask->url_text, url, sizeof(url)), error);
        return CLI_USAGE;
    }
    if (ask->key == NULL && env_key != NULL && env_key[0] != '\0') {
        env_key[strcspn(env_key, ",")] = '\0'; /* the gateway's own variable may list several */
        ask->key = env_key;
    }
    if (ask->key != NULL && !cli_keys_usable(span_of(ask->key))) {
        cli_fail("the API key is empty, or has blanks, line ends or characters beyond ASCII");
        return CLI_USAGE;
    }
    return CLI_OK;
}

static int run(struct ask *ask)
{
    bool interactive = !ask->has_prompt && isatty(STDIN_FILENO);
    if (!ask->has_prompt && !interactive && read_prompt(&ask->prompt) != CLI_OK)
        return CLI_FAILED;
    if (ask->prompt.overflow)
        return cli_fail("the prompt is larger than 8 MiB");
    if (!interactive && span_trim(strbuf_span(&ask->prompt)).len == 0) {
        cli_fail("the prompt is empty");
        return CLI_USAGE;
    }
    if (ask->model == NULL && choose_model(ask) != CLI_OK)
        return CLI_FAILED;
    return interactive ? converse(ask) : turn(ask, strbuf_span(&ask->prompt));
}

int ask_main(int argc, char **argv)
{
    static const struct argp argp = {.options = options,
                                     .parser = parse_option,
                                     .args_doc = "[PROMPT...]",
                                     .doc = "Asks a running gateway and prints the answer as it comes. Without PROMPT "
                                            "it reads one from standard input; "
                                            "on a terminal it holds a conversation, one line each, until Ctrl-D."};
    struct ask ask = {.terminal = isatty(STDOUT_FILENO)};
    strbuf_init(&ask.prompt, PROMPT_MAX);
    strbuf_init(&ask.answer, ANSWER_MAX);
    cli_parse(&argp, argc, argv, &ask);
    signal(SIGINT, leave_quietly);
    signal(SIGPIPE, SIG_IGN);
    ask.messages = json_array();
    const char *listed_keys = getenv("WEIR_API_KEY");
    char *env_key = listed_keys != NULL ? strdup(listed_keys) : NULL;

    int status = complete(&ask, env_key);
    if (status == CLI_OK)
        status = run(&ask);
    /* Who has a configuration may have meant another gateway; who may not read it has most often asked the right one.
     */
    if (status == CLI_FAILED && ask.unknown[0] != '\0')
        cli_fail("%s was asked because the configuration does not say where: %s", ask.url_text, ask.unknown);

    free(env_key);
    json_decref(ask.messages);
    strbuf_dispose(&ask.answer);
    strbuf_dispose(&ask.prompt);
    return status;
}
