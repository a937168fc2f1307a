/* The command line: `weir COMMAND [options]`. Each command reads its own arguments and returns the process's exit
 * status: 0 done, 1 it failed (stderr says why), 2 it was called wrongly. Main thread only, before any
 * other exists. */
#ifndef WEIR_GATEWAY_CLI_H
#define WEIR_GATEWAY_CLI_H

#include "base/span.h"
#include "base/strbuf.h"
#include <argp.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* Finds the command among `argv` (none: run) and does it. */
int cli_main(int argc, char **argv);

/* The commands. argv[0] is "weir COMMAND", for messages. */
int cli_init(int argc, char **argv);
int cli_keys(int argc, char **argv);
int cli_health(int argc, char **argv);
int cli_env(int argc, char **argv);

/* Where the gateway is asked that the environment and the configuration file of `weir run` describe, as a URL: in the
 * clear if it can be. False, and why in `error`, if they cannot be read, or it listens on a port that the system chose,
 * or on a unix socket with TLS, or says that it listens on another machine: a weir.yaml that somebody left in a
 * directory must not tell where a key is sent. */
bool cli_own_url(char *text, size_t size, char *error, size_t error_size);

/* Prints "weir: MESSAGE" to stderr, or a line of the log after cli_fail_into_log. Returns CLI_FAILED. */
int cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void cli_fail_into_log(void);

/* argp_parse with the habits that all commands share: exit status CLI_USAGE for a wrong call. Does not return after
 * --help, --usage, --version or a wrong call. */
void cli_parse(const struct argp *argp, int argc, char **argv, void *input);

struct config_options;

/* Parses the options of `weir run` into `options`, whose lists are made here: free options->listen afterwards. `doc`
 * is what --help says above the options; NULL: as for `weir run`. */
void cli_parse_run(int argc, char **argv, const char *doc, struct config_options *options);

/* Appends a value as `weir env` shows it: without the password in a URL, nor its query. */
void cli_env_show(struct span value, struct strbuf *out);

/* A URL of a command line in the same way, for errors; in `text`, which may cut it short. */
const char *cli_url_shown(const char *url, char *text, size_t size);

/* The weir.yaml that `weir init` writes: deploy/weir.example.yaml, embedded when weir was built. */
struct span cli_init_text(void);

#define CLI_KEY_LEN 46
#define CLI_KEY_HASH_LEN 71

/* Makes an API key: "wk-" and 43 characters of base64url (RFC 4648 §5) without padding, from 32 random bytes. */
void cli_keys_make(char key[CLI_KEY_LEN + 1]);

/* The form in which weir.yaml keeps a key: "sha256:" and 64 hexadecimal digits. */
void cli_keys_hash(struct span key, char hash[CLI_KEY_HASH_LEN + 1]);

/* Whether the text can travel as a bearer token: printable ASCII without blanks. */
bool cli_keys_usable(struct span key);

/* Appends the line for the list `keys:` of weir.yaml. */
void cli_keys_yaml(struct span name, const char *hash, struct strbuf *out);

#endif
