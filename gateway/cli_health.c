#include "gateway/ask_link.h"
#include "gateway/cli.h"
#include "gateway/config.h"
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ANSWER_MAX 4096

/* Where the gateway is asked. */
struct target {
    bool tls;
    char unix_path[PATH_MAX]; /* "": TCP */
    char host[256], port[6];
    char display[300]; /* for the line that is printed */
};

struct health_question {
    const char *url;
    struct config_options options;
    const char *listen[1];
    bool live;
    const char *timeout; /* as it was given */
    uint64_t timeout_us;
};

enum { OPTION_URL = 0x100, OPTION_CONFIG, OPTION_LISTEN, OPTION_LIVE, OPTION_TIMEOUT };

static const struct argp_option options[] = {
    {"url", OPTION_URL, "URL", 0, "The gateway (default: the first address of its configuration)", 0},
    {"config", OPTION_CONFIG, "FILE", 0, "Configuration, as for `weir run`", 0},
    {"listen", OPTION_LISTEN, "[HOST]:PORT", 0, "Address that it was started with, also unix:PATH", 0},
    {"live", OPTION_LIVE, NULL, 0, "Ask whether it is alive (/livez); it may be draining (default: /readyz)", 0},
    {"timeout", OPTION_TIMEOUT, "DURATION", 0, "Give up after so long (default 5s)", 0},
    {0},
};

static error_t parse_option(int option, char *value, struct argp_state *state)
{
    struct health_question *health = state->input;
    switch (option) {
    case OPTION_URL:
        health->url = value;
        return 0;
    case OPTION_CONFIG:
        health->options.file = value;
        return 0;
    case OPTION_LISTEN:
        health->listen[0] = value;
        health->options.listen = health->listen;
        health->options.listen_count = 1;
        return 0;
    case OPTION_LIVE:
        health->live = true;
        return 0;
    case OPTION_TIMEOUT:
        health->timeout = value;
        if (!config_parse_duration(span_of(value), &health->timeout_us) || health->timeout_us == 0)
            argp_error(state, "--timeout is \"%s\", expected a duration such as 5s", value);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static bool target_of_url(struct target *target, const char *text, char *error, size_t error_size)
{
    struct ask_url url;
    if (!ask_url_parse(span_of(text), &url, error, error_size))
        return false;
    *target = (struct target){.tls = url.tls};
    snprintf(target->unix_path, sizeof(target->unix_path), "%s", url.unix_path);
    if (url.unix_path[0] != '\0') {
        snprintf(target->display, sizeof(target->display), "unix:%s", url.unix_path);
        return true;
    }
    snprintf(target->host, sizeof(target->host), "%s", url.host);
    snprintf(target->port, sizeof(target->port), "%s", url.port);
    snprintf(target->display, sizeof(target->display), "%s://%s", url.tls ? "https" : "http", url.authority);
    return true;
}

/* Of an address in the configuration: a gateway that listens on all addresses is asked on loopback. */
static bool target_of_listen(struct target *target, const struct config_listen *listen, char *error, size_t error_size)
{
    const char *address = listen->address, *colon = strrchr(address, ':');
    *target = (struct target){.tls = listen->tls_cert != NULL};
    if (strncmp(address, "unix:", 5) == 0) {
        snprintf(target->unix_path, sizeof(target->unix_path), "%s", address + 5);
        snprintf(target->display, sizeof(target->display), "%.290s", address);
        return true;
    }
    size_t len = (size_t)(colon - address);
    if (len >= 2 && address[0] == '[') {
        address++;
        len -= 2;
    }
    snprintf(target->host, sizeof(target->host), "%.*s", (int)len, address);
    snprintf(target->port, sizeof(target->port), "%s", colon + 1);
    if (len == 0 || strcmp(target->host, "0.0.0.0") == 0)
        strcpy(target->host, "127.0.0.1");
    else if (strcmp(target->host, "::") == 0)
        strcpy(target->host, "::1");
    bool v6 = strchr(target->host, ':') != NULL;
    snprintf(target->display, sizeof(target->display), "%s://%s%.255s%s:%s", target->tls ? "https" : "http",
             v6 ? "[" : "", target->host, v6 ? "]" : "", target->port);
    if (strcmp(target->port, "0") != 0)
        return true;
    snprintf(error, error_size, "it listens on a port that the system chose; say where with --url");
    return false;
}

/* What the line says if the time is up; made before the alarm is set. */
static char late[512];

static void on_alarm(int signal_number)
{
    (void)signal_number;
    if (write(STDERR_FILENO, late, strlen(late)) == -1)
        _exit(CLI_USAGE + 1);
    _exit(CLI_FAILED);
}

/* Blocks; the alarm ends it. Returns -1 with a message. */
static int connect_to(const struct target *target, char *error, size_t error_size)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list = NULL;
    int fd = -1, reason = EADDRNOTAVAIL;
    if (target->unix_path[0] != '\0') {
        fd = ask_connect_unix(target->unix_path);
        reason = errno;
    } else {
        int failure = getaddrinfo(target->host, target->port, &hints, &list);
        if (failure != 0) {
            snprintf(error, error_size, "cannot find %s: %s", target->host, gai_strerror(failure));
            return -1;
        }
    }
    for (const struct addrinfo *address = list; address != NULL && fd == -1; address = address->ai_next) {
        fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, address->ai_protocol);
        if (fd == -1 || connect(fd, address->ai_addr, address->ai_addrlen) == 0)
            continue;
        reason = errno;
        close(fd);
        fd = -1;
    }
    if (list != NULL)
        freeaddrinfo(list);
    if (fd == -1)
        snprintf(error, error_size, "cannot connect: %s", strerror(reason));
    return fd;
}

/* The first bytes of the answer. The certificate is not checked: it names the gateway as others know it, not this
 * address, and nothing is sent that others may not see. */
static bool exchange(const struct target *target, int fd, const char *request, struct strbuf *answer, char *error,
                     size_t error_size)
{
    SSL_CTX *ctx = target->tls ? SSL_CTX_new(TLS_client_method()) : NULL;
    SSL *ssl = ctx != NULL ? SSL_new(ctx) : NULL;
    int len = (int)strlen(request);
    char bytes[1024];
    bool ok = !target->tls || (ssl != NULL && SSL_set_fd(ssl, fd) == 1 && SSL_connect(ssl) == 1);
    if (!ok)
        snprintf(error, error_size, "no TLS there");
    else if ((ssl != NULL ? SSL_write(ssl, request, len) : (int)send(fd, request, (size_t)len, MSG_NOSIGNAL)) != len) {
        ok = false;
        snprintf(error, error_size, "the connection broke");
    }
    while (ok && !answer->overflow) {
        int got = ssl != NULL ? SSL_read(ssl, bytes, sizeof(bytes)) : (int)recv(fd, bytes, sizeof(bytes), 0);
        if (got <= 0)
            break;
        strbuf_add(answer, (struct span){bytes, (size_t)got});
    }
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    return ok;
}

/* The status of the answer, 0 if it is none. */
static int status_of(struct span answer)
{
    int status = 0;
    if (answer.len < 13 || !span_starts(answer, SPAN("HTTP/1.")) || answer.base[8] != ' ')
        return 0;
    for (size_t i = 9; i < 12; i++) {
        if (answer.base[i] < '0' || answer.base[i] > '9')
            return 0;
        status = status * 10 + (answer.base[i] - '0');
    }
    return status;
}

static int ask_health(const struct target *target, const char *path)
{
    char request[512], memory[ANSWER_MAX], error[512] = "";
    struct strbuf answer;
    snprintf(request, sizeof(request),
             "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: weir/%s\r\nConnection: close\r\n\r\n", path,
             target->unix_path[0] != '\0' ? "localhost" : strchr(target->display, '/') + 2, WEIR_VERSION);
    strbuf_init_fixed(&answer, memory, sizeof(memory));
    int fd = connect_to(target, error, sizeof(error));
    bool done = fd != -1 && exchange(target, fd, request, &answer, error, sizeof(error));
    if (fd != -1)
        close(fd);
    if (!done)
        return cli_fail("%s: %s", target->display, error);
    int status = status_of(strbuf_span(&answer));
    switch (status) {
    case 200:
        printf("%s%s: ok\n", target->display, path);
        return CLI_OK;
    case 0:
        return cli_fail("%s%s: no HTTP answer", target->display, path);
    case 503:
        return cli_fail("%s%s: 503, it is starting or draining", target->display, path);
    case 401:
    case 403:
        return cli_fail("%s%s: %d, its `routes:` guard this path; make it public", target->display, path, status);
    default:
        return cli_fail("%s%s: %d", target->display, path, status);
    }
}

/* Where a gateway with this configuration is asked: in the clear if it can be. */
static const struct config_listen *choose_listen(const struct config *config)
{
    for (size_t i = 0; i < config->listen_count; i++)
        if (config->listen[i].tls_cert == NULL)
            return &config->listen[i];
    return &config->listen[0];
}

/* Whether a gateway may listen there: at an address of this machine. */
static bool is_own(const char *host)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *found;
    if (strcmp(host, "localhost") == 0)
        return true;
    if (getaddrinfo(host, NULL, &hints, &found) != 0)
        return false;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool own = fd != -1 && bind(fd, found->ai_addr, found->ai_addrlen) == 0;
    if (fd != -1)
        close(fd);
    freeaddrinfo(found);
    return own;
}

/* http://unix:/PATH of the socket, whose name may count from the working directory. False with a message if it cannot
 * be asked. */
static bool url_of_unix(const struct target *target, char *text, size_t size, char *error, size_t error_size)
{
    char here[PATH_MAX] = "";
    bool whole = target->unix_path[0] == '/' || getcwd(here, sizeof(here)) != NULL;
    if (!whole || target->tls) {
        snprintf(error, error_size, "it listens on %s%s", target->display, target->tls ? ", with TLS" : "");
        return false;
    }
    snprintf(text, size, "http://unix:%s%s%s", here, here[0] != '\0' ? "/" : "", target->unix_path);
    return true;
}

bool cli_own_url(char *text, size_t size, char *error, size_t error_size)
{
    struct config_options none = {0};
    struct target target;
    struct config *config = config_load(&none, getenv, error, error_size);
    bool known = config != NULL && target_of_listen(&target, choose_listen(config), error, error_size);
    if (known && target.unix_path[0] != '\0')
        known = url_of_unix(&target, text, size, error, error_size);
    else if (known && !is_own(target.host)) {
        snprintf(error, error_size, "%s is no address of this machine", target.host);
        known = false;
    } else if (known) {
        snprintf(text, size, "%s", target.display);
    }
    config_release(config);
    return known;
}

int cli_health(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc = "Asks a running gateway whether it is ready: exit status 0 and a line if it is, else 1 and a line that "
               "says why not. Finds it by the configuration that `weir run` reads: file and environment."};
    struct health_question health = {.timeout = "5s", .timeout_us = 5000000};
    struct target target;
    struct config *config = NULL;
    char error[1024], url[1024];
    cli_parse(&argp, argc, argv, &health);
    if (health.url == NULL && (config = config_load(&health.options, getenv, error, sizeof(error))) == NULL)
        return cli_fail("%s", error);
    bool known = config != NULL ? target_of_listen(&target, choose_listen(config), error, sizeof(error))
                                : target_of_url(&target, health.url, error, sizeof(error));
    int status = CLI_FAILED;
    if (known) {
        snprintf(late, sizeof(late), "weir: %s: no answer within %s\n", target.display, health.timeout);
        signal(SIGALRM, on_alarm);
        signal(SIGPIPE, SIG_IGN);
        struct itimerval timer = {
            .it_value = {(time_t)(health.timeout_us / 1000000), (suseconds_t)(health.timeout_us % 1000000)}};
        setitimer(ITIMER_REAL, &timer, NULL);
        status = ask_health(&target, health.live ? "/livez" : "/readyz");
    } else {
        cli_fail("%s%s%s", health.url != NULL ? cli_url_shown(health.url, url, sizeof(url)) : "",
                 health.url != NULL ? ": " : "", error);
    }
    config_release(config);
    return status;
}
