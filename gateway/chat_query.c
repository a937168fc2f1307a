#include "gateway/chat_query.h"
#include "base/query.h"
#include "base/utf8.h"
#include <math.h>
#include <stdio.h>

#define DETAIL_MAX ((size_t)12288)
#define ECHO_MAX ((size_t)200) /* bytes of a bad value that are shown */
#define NUMBER_MAX 64
#define ESCAPED 6 /* bytes of JSON that one byte can become */

/* One text parameter, decoded. */
struct text {
    bool given;
    struct span value;
};

/* A reading of one query: where problems go, and memory for what is decoded. */
struct reading {
    struct span query;
    char *memory; /* as much as the query is long; decoded values stand in it one after the other */
    struct chat_problem *problem;
    size_t problems;
};

/* ---- problems, as pydantic words them ---- */

/* `input` NULL: the parameter is missing. `context` is a JSON object, or NULL. */
static void complain(struct reading *reading, const char *param, const char *type, const char *message,
                     const struct span *input, const char *context)
{
    struct strbuf *detail = &reading->problem->detail;
    strbuf_puts(detail, reading->problems == 0 ? "[" : ",");
    strbuf_printf(detail, "{\"type\":\"%s\",\"loc\":[\"query\",\"%s\"],\"msg\":\"%s\",\"input\":", type, param,
                  message);
    if (input != NULL)
        strbuf_json(detail, utf8_cut(*input, ECHO_MAX));
    else
        strbuf_puts(detail, "null");
    if (context != NULL)
        strbuf_printf(detail, ",\"ctx\":%s", context);
    strbuf_putc(detail, '}');
    if (reading->problems++ != 0)
        return;
    reading->problem->param = param;
    snprintf(reading->problem->message, sizeof(reading->problem->message), "Invalid query parameter '%s': %s.", param,
             message);
}

/* ---- text ---- */

/* Finds and decodes a parameter. */
static struct text find(struct reading *reading, const char *param)
{
    struct text text = {false, SPAN_NONE};
    struct span raw;
    if (!query_last(reading->query, span_of(param), &raw))
        return text;
    text.given = true;
    text.value = (struct span){reading->memory, query_decode(raw, reading->memory)};
    reading->memory += raw.len;
    return text;
}

/* Checks a text of at most `max` characters. */
static bool check_text(struct reading *reading, const char *param, const struct text *text, size_t max)
{
    char message[80], context[40];
    size_t characters;
    if (!query_is_utf8(text->value, &characters)) {
        complain(reading, param, "string_unicode",
                 "Input should be a valid string, unable to parse raw data as a unicode string", &text->value, NULL);
        return false;
    }
    if (characters > max) {
        snprintf(message, sizeof(message), "String should have at most %zu characters", max);
        snprintf(context, sizeof(context), "{\"max_length\":%zu}", max);
        complain(reading, param, "string_too_long", message, &text->value, context);
        return false;
    }
    return true;
}

static struct span read_message(struct reading *reading)
{
    struct text text = find(reading, "message");
    if (!text.given)
        complain(reading, "message", "missing", "Field required", NULL, NULL);
    else if (check_text(reading, "message", &text, CHAT_MESSAGE_MAX) && text.value.len == 0)
        complain(reading, "message", "string_too_short", "String should have at least 1 character", &text.value,
                 "{\"min_length\":1}");
    return text.value;
}

static struct span read_model(struct reading *reading, struct span fallback)
{
    struct text text = find(reading, "model");
    if (text.value.len == 0 && fallback.len == 0)
        complain(reading, "model", "missing", "Field required", NULL, NULL);
    /* Everything else in the gateway counts a model's name in bytes. */
    else if (text.value.len > CHAT_MODEL_MAX)
        complain(reading, "model", "string_too_long", "String should have at most 256 characters", &text.value,
                 "{\"max_length\":256}");
    else
        check_text(reading, "model", &text, CHAT_MODEL_MAX);
    return text.value.len != 0 ? text.value : fallback;
}

static struct span read_system(struct reading *reading, struct span fallback)
{
    struct text text = find(reading, "system");
    if (!text.given)
        return fallback;
    check_text(reading, "system", &text, CHAT_MESSAGE_MAX);
    return text.value;
}

/* ---- numbers ---- */

static const struct number {
    const char *param;
    bool whole;
    double min, max;
    const char *below, *below_context, *above, *above_context;
} numbers[] = {
    {"temperature", false, 0, 2, "Input should be greater than or equal to 0", "{\"ge\":0.0}",
     "Input should be less than or equal to 2", "{\"le\":2.0}"},
    {"top_p", false, 0, 1, "Input should be greater than or equal to 0", "{\"ge\":0.0}",
     "Input should be less than or equal to 1", "{\"le\":1.0}"},
    {"max_tokens", true, 1, 1e9, "Input should be greater than or equal to 1", "{\"ge\":1}",
     "Input should be less than or equal to 1000000000", "{\"le\":1000000000}"},
    /* As far as every JSON reader is exact. */
    {"seed", true, -9007199254740991, 9007199254740991, "Input should be greater than or equal to -9007199254740991",
     "{\"ge\":-9007199254740991}", "Input should be less than or equal to 9007199254740991",
     "{\"le\":9007199254740991}"},
};

/* Whether all of it is one number of the usual kind: no hexadecimal, no names, no blanks. */
static bool parse_number(struct span value, bool whole, double *out)
{
    char text[NUMBER_MAX + 1], *end;
    if (value.len == 0 || value.len > NUMBER_MAX)
        return false;
    memcpy(text, value.base, value.len);
    text[value.len] = '\0';
    if (strspn(text, whole ? "+-0123456789" : "+-.0123456789eE") != value.len)
        return false;
    *out = strtod(text, &end);
    return end == text + value.len;
}

/* Appends the member, in one spelling however it was written: equal questions have equal bodies. */
static void read_number(struct reading *reading, const struct number *number, struct strbuf *body)
{
    struct text text = find(reading, number->param);
    double value;
    if (!text.given)
        return;
    if (!parse_number(text.value, number->whole, &value))
        complain(reading, number->param, number->whole ? "int_parsing" : "float_parsing",
                 number->whole ? "Input should be a valid integer, unable to parse string as an integer"
                               : "Input should be a valid number, unable to parse string as a number",
                 &text.value, NULL);
    else if (!isfinite(value))
        complain(reading, number->param, "finite_number", "Input should be a finite number", &text.value, NULL);
    else if (value < number->min)
        complain(reading, number->param, "greater_than_equal", number->below, &text.value, number->below_context);
    else if (value > number->max)
        complain(reading, number->param, "less_than_equal", number->above, &text.value, number->above_context);
    else
        strbuf_printf(body, number->whole ? ",\"%s\":%.0f" : ",\"%s\":%.15g", number->param, value != 0 ? value : 0);
}

/* ---- the whole ---- */

static void put_message(struct strbuf *body, const char *role, struct span text)
{
    strbuf_printf(body, "{\"role\":\"%s\",\"content\":", role);
    strbuf_json(body, text);
    strbuf_putc(body, '}');
}

bool chat_query_read(struct span query, const struct chat_defaults *defaults, struct strbuf *body,
                     struct chat_problem *problem)
{
    char *memory = malloc(query.len + 1);
    if (memory == NULL)
        abort();
    struct reading reading = {.query = query, .memory = memory, .problem = problem};
    strbuf_init(&problem->detail, DETAIL_MAX);
    strbuf_init(body, (query.len + defaults->model.len + defaults->system.len) * ESCAPED + 1024);
    struct span message = read_message(&reading), model = read_model(&reading, defaults->model),
                system = read_system(&reading, defaults->system);
    strbuf_puts(body, "{\"model\":");
    strbuf_json(body, model);
    strbuf_puts(body, ",\"messages\":[");
    if (system.len != 0) {
        put_message(body, "system", system);
        strbuf_putc(body, ',');
    }
    put_message(body, "user", message);
    strbuf_puts(body, "],\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        read_number(&reading, &numbers[i], body);
    strbuf_putc(body, '}');
    free(memory);
    if (reading.problems != 0)
        strbuf_putc(&problem->detail, ']');
    return reading.problems == 0;
}
