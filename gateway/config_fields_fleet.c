/* Choosing, watching, trying again and waiting. */
#include "gateway/config_fields.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MODEL_NAME_MAX 256
#define ALIASES_MAX 256
#define STEPS_MAX 16
#define HEADER_NAME_MAX 64
#define PATH_MAX_LEN 1024
#define PROBE_INTERVAL_MIN_US 100000

static bool read_number(struct yaml_reader *reader, const yaml_node_t *node, uint64_t min, uint64_t max,
                        uint64_t *number)
{
    FIELDS_READ_VALUE(reader, node, value, config_value_number(&value, min, max, number));
}

static bool read_unsigned(struct yaml_reader *reader, const yaml_node_t *node, uint64_t min, uint64_t max,
                          unsigned *target)
{
    uint64_t number = 0;

    if (!read_number(reader, node, min, max, &number))
        return false;
    *target = (unsigned)number;
    return true;
}

/* "20%"; the sign may be left out. */
static bool read_percent(struct yaml_reader *reader, const yaml_node_t *node, uint64_t *percent)
{
    struct config_value value;
    char subject[512];
    char *text = yaml_reader_value(reader, node, &value, subject);

    if (text == NULL)
        return false;
    if (value.text.len != 0 && value.text.base[value.text.len - 1] == '%')
        value.text.len--;
    bool ok = config_value_number(&value, 0, 100, percent);
    config_free_secret(text);
    return ok;
}

/* ---- backends ---- */

bool fields_backend_weight(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return read_unsigned(reader, node, 1, BACKEND_WEIGHT_MAX, target);
}

bool fields_backend_max_concurrent(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return read_unsigned(reader, node, 1, 1000000, target);
}

/* ---- balance ---- */

bool fields_balance_policy(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    static const struct fields_word words[] = {
        [BALANCE_ROUND_ROBIN] = {"round_robin", false},         [BALANCE_LEAST_REQUESTS] = {"least_requests", false},
        [BALANCE_POWER_OF_TWO] = {"power_of_two", false},       [BALANCE_LATENCY] = {"latency", false},
        [BALANCE_CONSISTENT_HASH] = {"consistent_hash", false}, [BALANCE_PREFIX] = {"prefix", false},
    };
    size_t which;

    if (!fields_word(reader, node, words, COUNT(words), &which))
        return false;
    *(enum balance_policy *)target = (enum balance_policy)which;
    return true;
}

bool fields_balance_by(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    static const struct fields_word words[] = {[BALANCE_BY_KEY] = {"key", false},
                                               [BALANCE_BY_USER] = {"user", false},
                                               [BALANCE_BY_HEADER] = {"header", false}};
    struct fleet_settings *fleet = target;
    size_t which;

    if (!fields_word(reader, node, words, COUNT(words), &which))
        return false;
    fleet->by = (enum balance_by)which;
    return true;
}

bool fields_balance_header(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    char **header = target;

    if (!fields_string(reader, node, header))
        return false;
    if (strlen(*header) > HEADER_NAME_MAX)
        return yaml_reader_fail_value(reader, node, "is too long, expected at most %d characters", HEADER_NAME_MAX);
    for (char *c = *header; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_')
            return yaml_reader_fail_value(reader, node,
                                          "has no valid header name, expected letters, digits and dashes");
        *c = (char)tolower((unsigned char)*c);
    }
    return true;
}

bool fields_balance(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct fleet_settings *fleet = target;

    if (!yaml_reader_is_mapping(node))
        return fields_balance_policy(reader, node, &fleet->policy);
    fleet->by = FIELDS_BALANCE_BY_DEFAULT;
    if (!fields_section(reader, node, SECTION_BALANCE, fleet))
        return false;
    if (fleet->policy != BALANCE_CONSISTENT_HASH && (fleet->by != FIELDS_BALANCE_BY_DEFAULT || fleet->header != NULL))
        return yaml_reader_fail_value(
            reader, node, "has \"by\" or \"header\", which mean something to the policy consistent_hash only");
    if (fleet->by == FIELDS_BALANCE_BY_DEFAULT)
        fleet->by = fleet->header != NULL ? BALANCE_BY_HEADER : BALANCE_BY_KEY;
    if ((fleet->by == BALANCE_BY_HEADER) != (fleet->header != NULL))
        return yaml_reader_fail_value(reader, node,
                                      "needs \"by: header\" and \"header\" together, expected such as "
                                      "{ policy: consistent_hash, by: header, header: x-session }");
    return true;
}

/* ---- health ---- */

bool fields_health(struct yaml_reader *reader, const yaml_node_t *node, void *health)
{
    return fields_section(reader, node, SECTION_HEALTH, health);
}

bool fields_health_failures(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return read_number(reader, node, 0, 1000000, target);
}

/* Where probes go: a path, or "off". */
bool fields_health_path(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    char **path = target;

    if (!fields_string(reader, node, path))
        return false;
    if (strcmp(*path, "off") == 0) {
        **path = '\0';
        return true;
    }
    if (**path != '/' || strlen(*path) > PATH_MAX_LEN)
        return yaml_reader_fail_value(reader, node, "is \"%.64s\", expected a path such as /health, or off", *path);
    for (const char *c = *path; *c != '\0'; c++)
        if (*c <= ' ' || *c > '~' || *c == '#')
            return yaml_reader_fail_value(
                reader, node, "holds a blank, a '#', a control character or what is not ASCII, expected it %%-encoded");
    return true;
}

bool fields_health_series(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return read_number(reader, node, 1, 1000, target);
}

static bool read_interval(struct yaml_reader *reader, const yaml_node_t *node, uint64_t *us)
{
    struct config_value value;
    char subject[512];
    char *text = yaml_reader_value(reader, node, &value, subject);

    if (text == NULL)
        return false;
    bool ok = config_value_duration(&value, 0, us);
    config_free_secret(text);
    return ok;
}

/* Asking a server all the time does it no good. */
bool fields_probe_interval(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    uint64_t *us = target;

    if (!read_interval(reader, node, us))
        return false;
    if (*us < PROBE_INTERVAL_MIN_US)
        return yaml_reader_fail_value(reader, node, "is shorter than 100ms, expected 100ms or more");
    return true;
}

/* Nor does it a name server. */
bool fields_resolve(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    uint64_t *us = target;

    if (!read_interval(reader, node, us))
        return false;
    if (*us != 0 && *us < PROBE_INTERVAL_MIN_US)
        return yaml_reader_fail_value(reader, node, "is shorter than 100ms, expected 100ms or more, or 0s for never");
    return true;
}

bool fields_health_error_rate(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return read_percent(reader, node, target);
}

/* ---- retries, queue ---- */

bool fields_retries(struct yaml_reader *reader, const yaml_node_t *node, void *retries)
{
    return fields_section(reader, node, SECTION_RETRIES, retries);
}

bool fields_retries_attempts(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    return read_unsigned(reader, node, 1, 100, target);
}

bool fields_retries_budget(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    uint64_t percent = 0;

    if (!read_percent(reader, node, &percent))
        return false;
    *(unsigned *)target = (unsigned)percent;
    return true;
}

bool fields_queue(struct yaml_reader *reader, const yaml_node_t *node, void *fleet)
{
    return fields_section(reader, node, SECTION_QUEUE, fleet);
}

bool fields_queue_max(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    uint64_t number = 0;

    if (!read_number(reader, node, 0, 1000000, &number))
        return false;
    *(size_t *)target = (size_t)number;
    return true;
}

bool fields_key_priority(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    static const struct fields_word words[] = {
        [QUEUE_HIGH] = {"high", false}, [QUEUE_NORMAL] = {"normal", false}, [QUEUE_LOW] = {"low", false}};
    struct fields_key *fields = target;
    size_t which;

    if (!fields_word(reader, node, words, COUNT(words), &which))
        return false;
    fields->key->priority = (enum queue_class)which;
    return true;
}

/* ---- fallback orders ---- */

/* "gpt-x@cloud" or "gpt-x". A model's name may hold an '@' itself: the last one counts, and check_aliases says whether
 * there is such a backend. */
static bool read_step(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct fleet_alias *alias = target;
    char *text = NULL;

    if (alias->step_count == STEPS_MAX)
        return yaml_reader_fail_value(reader, node, "is one too many, expected at most %d", STEPS_MAX);
    if (!fields_string(reader, node, &text)) {
        free(text);
        return false;
    }
    struct fleet_step *step = config_append(&alias->steps, &alias->step_count, sizeof(*step));
    char *at = strrchr(text, '@');
    step->model = text;
    if (at != NULL) {
        *at = '\0';
        step->backend = span_dup(span_of(at + 1));
    }
    if (step->model[0] == '\0' || (at != NULL && at[1] == '\0'))
        return yaml_reader_fail_value(reader, node, "is \"%.64s\", expected MODEL or MODEL@BACKEND",
                                      (const char *)node->data.scalar.value);
    if (strlen(step->model) > MODEL_NAME_MAX || strchr(step->model, '*') != NULL)
        return yaml_reader_fail_value(reader, node, "is \"%.64s\", expected the name of one model, without \"*\"",
                                      (const char *)node->data.scalar.value);
    return true;
}

bool fields_models(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct fleet_settings *fleet = target;
    size_t count;

    if (!yaml_reader_mapping(reader, node, &count))
        return false;
    if (count > ALIASES_MAX)
        return yaml_reader_fail_value(reader, node, "has too many models, expected at most %d", ALIASES_MAX);
    for (size_t i = 0; i < count; i++) {
        const yaml_node_t *key_node;
        const char *name;
        const yaml_node_t *item = yaml_reader_member(reader, node, i, &name, &key_node);
        struct fleet_alias *alias = config_append(&fleet->aliases, &fleet->alias_count, sizeof(*alias));
        alias->name = span_dup(span_of(name));
        alias->line = yaml_reader_line(key_node);
        size_t mark = yaml_reader_enter(reader, name, 0);
        if (name[0] == '\0' || strlen(name) > MODEL_NAME_MAX)
            return yaml_reader_fail_value(reader, key_node, "has no usable name, expected 1 to %d characters",
                                          MODEL_NAME_MAX);
        if (!fields_items(reader, item, read_step, alias) ||
            !fields_not_empty(reader, item, alias->step_count, "at least one model"))
            return false;
        yaml_reader_leave(reader, mark);
    }
    return fields_not_empty(reader, node, count, "at least one model (leave it out for none)");
}

/* ---- routes ---- */

bool fields_route_timeouts(struct yaml_reader *reader, const yaml_node_t *node, void *target)
{
    struct config_route *route = target;

    route->has_timeouts = true;
    return fields_section(reader, node, SECTION_TIMEOUTS, &route->timeouts);
}
