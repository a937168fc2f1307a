/* A backend that comes while the gateway runs: read as if it stood in the file. */
#include "gateway/config_fields.h"
#include <stdio.h>
#include <stdlib.h>

#define SOURCE "body"
#define SUBJECT "backend"

/* The environment is the operator's, not the caller's. */
static char *no_variables(const char *name)
{
    (void)name;
    return NULL;
}

/* `body:1: "backend.weight" is …` becomes `is …` of the member "weight". */
static void tell(const char *text, char member[64], char *error, size_t error_size)
{
    const char *rest = strstr(text, ": ");
    rest = strncmp(text, SOURCE ":", sizeof(SOURCE)) == 0 && rest != NULL ? rest + 2 : text;
    member[0] = '\0';
    if (strncmp(rest, "\"" SUBJECT, sizeof(SUBJECT)) == 0) {
        rest += sizeof(SUBJECT);
        size_t len = *rest == '.' ? strcspn(rest + 1, ".[\"") : 0;
        if (len != 0 && len < 64)
            snprintf(member, 64, "%.*s", (int)len, rest + 1);
        rest += strcspn(rest, "\"");
        rest += *rest == '"';
        rest += *rest == ' ';
        snprintf(error, error_size, "The backend%s%s%s %s", member[0] != '\0' ? "'s \"" : "", member,
                 member[0] != '\0' ? "\"" : "", rest);
        return;
    }
    snprintf(error, error_size, "%s", rest);
}

static bool check_name(struct yaml_reader *reader, const yaml_node_t *root, const struct backend_settings *settings)
{
    if (settings->name == NULL)
        return yaml_reader_fail_value(reader, root, "has no \"name\", expected one");
    return true;
}

struct backend_settings *config_backend_read(const struct config *config, struct span json, char member[64],
                                             char *error, size_t error_size)
{
    char text[1024] = "";
    struct config_report report = {text, sizeof(text)};
    struct config own = {.file = SOURCE};
    struct yaml_reader reader;
    yaml_node_t *root;
    bool ok = false;
    if (yaml_reader_open(&reader, SOURCE, json, no_variables, &report, &root)) {
        size_t mark = yaml_reader_enter(&reader, SUBJECT, 0);
        ok = root != NULL && fields_backend(&reader, root, &own) && check_name(&reader, root, own.backends);
        yaml_reader_leave(&reader, mark);
        yaml_reader_close(&reader);
    }
    if (ok && !config_tls_check(&own, text, sizeof(text))) {
        snprintf(member, 64, "tls");
        const char *why = strstr(text, ".tls\": ");
        snprintf(error, error_size, "%s", why != NULL ? why + strlen(".tls\": ") : text);
        config_backend_free(own.backends);
        return NULL;
    }
    if (!ok) {
        tell(text, member, error, error_size);
        for (size_t i = 0; i < own.backend_count; i++)
            backend_settings_dispose(&own.backends[i]);
        free(own.backends);
        return NULL;
    }
    config_complete_backend(config, own.backends);
    return own.backends;
}

void config_backend_free(void *settings)
{
    backend_settings_dispose(settings);
    free(settings);
}
