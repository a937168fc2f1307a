#include "gateway/cli.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* WEIR_EXAMPLE_FILE is the path of deploy/weir.example.yaml, given by the build. */
__asm__(".pushsection .rodata\n"
        ".global weir_example_begin, weir_example_end\n"
        ".hidden weir_example_begin, weir_example_end\n"
        "weir_example_begin:\n"
        ".incbin \"" WEIR_EXAMPLE_FILE "\"\n"
        "weir_example_end:\n"
        ".byte 0\n"
        ".popsection\n");
extern const char weir_example_begin[] __attribute__((visibility("hidden")));
extern const char weir_example_end[] __attribute__((visibility("hidden")));

struct span cli_init_text(void)
{
    return (struct span){weir_example_begin, (size_t)(weir_example_end - weir_example_begin)};
}

static error_t parse_option(int option, char *value, struct argp_state *state)
{
    const char **file = state->input;
    if (option != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    if (*file != NULL)
        argp_error(state, "one FILE at a time");
    *file = value;
    return 0;
}

/* Makes the file, readable by its owner alone because keys will be put into it. Returns 0 or errno. */
static int write_new(const char *file, struct span text)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd == -1)
        return errno;
    int error = 0;
    while (text.len != 0) {
        ssize_t written = write(fd, text.base, text.len);
        if (written > 0)
            text = span_skip(text, (size_t)written);
        else if (written == 0 || errno != EINTR) {
            error = written == 0 ? EIO : errno;
            break;
        }
    }
    if (close(fd) != 0 && error == 0)
        error = errno;
    if (error != 0)
        unlink(file);
    return error;
}

int cli_init(int argc, char **argv)
{
    static const struct argp argp = {.parser = parse_option,
                                     .args_doc = "[FILE]",
                                     .doc = "Writes a commented configuration file that works as it is (default "
                                            "weir.yaml). Never overwrites one."};
    const char *file = NULL;
    cli_parse(&argp, argc, argv, &file);
    if (file == NULL)
        file = "weir.yaml";
    int error = write_new(file, cli_init_text());
    if (error == EEXIST)
        return cli_fail("%s is there already and was left as it is; name another file: weir init FILE", file);
    if (error != 0)
        return cli_fail("cannot write %s: %s", file, strerror(error));

    const char *weir = program_invocation_name;
    printf("%s is written. Next:\n", file);
    printf("  %s --config %s\n      serves the demo model on http://127.0.0.1:8080\n", weir, file);
    printf("  %s ask \"What is a weir?\"\n      asks it, from another terminal\n", weir);
    printf("  %s keys create --name me\n      makes an API key and the line for the file\n", weir);
    printf("  %s check %s\n      finds mistakes after you have changed the file\n", weir, file);
    return CLI_OK;
}
