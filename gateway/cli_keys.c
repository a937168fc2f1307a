#include "base/ids.h"
#include "gateway/cli.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#define NAME_MAX_LEN 64
/* What weir.yaml accepts. */
#define KEY_MIN_LEN 8
#define KEY_MAX_LEN 512

struct keys_call {
    const char *verb;
    const char *name;
};

enum { OPTION_NAME = 0x100 };

static const struct argp_option options[] = {
    {"name", OPTION_NAME, "NAME", 0, "Name for logs and metrics (default: made from the hash)", 0}, {0}};

void cli_keys_make(char key[CLI_KEY_LEN + 1])
{
    unsigned char random[32], text[45];
    ids_random(random, sizeof(random));
    EVP_EncodeBlock(text, random, sizeof(random));
    memcpy(key, "wk-", 3);
    for (size_t i = 0; i != 43; ++i)
        key[3 + i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : (char)text[i];
    key[CLI_KEY_LEN] = '\0';
    OPENSSL_cleanse(random, sizeof(random));
    OPENSSL_cleanse(text, sizeof(text));
}

void cli_keys_hash(struct span key, char hash[CLI_KEY_HASH_LEN + 1])
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)key.base, key.len, digest);
    memcpy(hash, "sha256:", 7);
    for (size_t i = 0; i != sizeof(digest); ++i)
        snprintf(hash + 7 + 2 * i, 3, "%02x", digest[i]);
}

bool cli_keys_usable(struct span key)
{
    for (size_t i = 0; i != key.len; ++i) {
        if (key.base[i] <= ' ' || key.base[i] >= 0x7f)
            return false;
    }
    return key.len != 0;
}

void cli_keys_yaml(struct span name, const char *hash, struct strbuf *out)
{
    strbuf_puts(out, "  - { name: ");
    strbuf_json(out, name); /* a JSON string is a double-quoted YAML scalar (YAML 1.2.2 §1.3) */
    strbuf_printf(out, ", hash: \"%s\" }", hash);
}

static error_t parse_option(int option, char *value, struct argp_state *state)
{
    struct keys_call *call = state->input;
    switch (option) {
    case OPTION_NAME:
        call->name = value;
        if (value[0] == '\0' || strlen(value) > NAME_MAX_LEN)
            argp_error(state, "NAME must have 1 to %d bytes", NAME_MAX_LEN);
        if (!cli_keys_usable(span_of(value)) || strpbrk(value, "\"'\\") != NULL)
            argp_error(state, "NAME must be printable ASCII without blanks, quotes and backslashes");
        return 0;
    case ARGP_KEY_ARG:
        if (call->verb != NULL || (strcmp(value, "create") != 0 && strcmp(value, "hash") != 0))
            argp_error(state, "unexpected '%s'; expected create or hash", value);
        call->verb = value;
        return 0;
    case ARGP_KEY_END:
        if (call->verb == NULL)
            argp_error(state, "expected create or hash");
        else if (call->name != NULL && strcmp(call->verb, "hash") == 0)
            argp_error(state, "--name belongs to create");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int create(const char *name)
{
    char key[CLI_KEY_LEN + 1], hash[CLI_KEY_HASH_LEN + 1], made_name[16], line[1024];
    cli_keys_make(key);
    cli_keys_hash(span_of(key), hash);
    if (name == NULL) {
        snprintf(made_name, sizeof(made_name), "key-%.6s", hash + 7);
        name = made_name;
    }
    struct strbuf yaml;
    strbuf_init_fixed(&yaml, line, sizeof(line));
    cli_keys_yaml(span_of(name), hash, &yaml);

    /* The explanation goes to stderr, so that a script reads two plain lines: the key, then what the file needs. */
    fputs("The key, for whoever will send it (as `Authorization: Bearer KEY`). It is not kept anywhere:\n", stderr);
    printf("%s\n", key);
    fflush(stdout);
    fputs("The line for the list `keys:` of weir.yaml:\n", stderr);
    printf("%s\n", strbuf_cstr(&yaml));
    OPENSSL_cleanse(key, sizeof(key));
    return CLI_OK;
}

static struct termios terminal_before;

/* Ctrl-C must not leave a terminal without echo. */
static void restore_and_leave(int signal_number)
{
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal_before);
    if (write(STDERR_FILENO, "\n", 1) != 1)
        _exit(CLI_FAILED);
    _exit(128 + signal_number);
}

/* Reads all of stdin (one line of a terminal) into `key`, whose room for more than is allowed shows what is too long.
 */
static ssize_t read_key(char *key, size_t cap, bool terminal)
{
    size_t len = 0;
    while (len != cap) {
        ssize_t got = read(STDIN_FILENO, key + len, cap - len);
        if (got == -1 && errno == EINTR)
            continue;
        if (got == -1)
            return -1;
        len += (size_t)got;
        if (got == 0 || (terminal && key[len - 1] == '\n'))
            break;
    }
    return (ssize_t)len;
}

static int hash_stdin(void)
{
    char key[KEY_MAX_LEN + 3], hash[CLI_KEY_HASH_LEN + 1];
    bool terminal = tcgetattr(STDIN_FILENO, &terminal_before) == 0;
    if (terminal) {
        signal(SIGINT, restore_and_leave);
        signal(SIGTERM, restore_and_leave);
        signal(SIGQUIT, restore_and_leave);
        struct termios quiet = terminal_before;
        quiet.c_lflag &= (tcflag_t) ~(ECHO | ECHOE | ECHOK | ECHONL);
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
        fputs("Key (not shown): ", stderr);
    }
    ssize_t len = read_key(key, sizeof(key), terminal);
    int error = errno;
    if (terminal) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal_before);
        fputc('\n', stderr);
    }
    if (len == -1)
        return cli_fail("cannot read the key: %s", strerror(error));
    struct span text = {key, (size_t)len};
    while (text.len != 0 && (text.base[text.len - 1] == '\n' || text.base[text.len - 1] == '\r'))
        text.len--;
    int status = CLI_OK;
    if (text.len == 0)
        status = cli_fail("no key on standard input; expected one line");
    else if (text.len < KEY_MIN_LEN || text.len > KEY_MAX_LEN)
        status = cli_fail("the key has %zu bytes%s, expected %d to %d", text.len,
                          text.len > KEY_MAX_LEN ? " or more" : "", KEY_MIN_LEN, KEY_MAX_LEN);
    else if (!cli_keys_usable(text))
        status = cli_fail("the key has blanks, line ends or characters beyond ASCII; no client could send it");
    else {
        cli_keys_hash(text, hash);
        printf("%s\n", hash);
    }
    OPENSSL_cleanse(key, sizeof(key));
    return status;
}

int cli_keys(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .args_doc = "create\nhash",
        .doc = "`create` makes an API key and prints it with the line for weir.yaml, which holds only its hash. `hash` "
               "reads a key from standard input and prints its hash."};
    struct keys_call call = {NULL, NULL};
    cli_parse(&argp, argc, argv, &call);
    return strcmp(call.verb, "create") == 0 ? create(call.name) : hash_stdin();
}
