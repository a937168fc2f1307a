#include "gateway/body.h"
#include "run_suite.h"
#include <stdlib.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Scans and checks a body as `validate` does. */
static bool check(const struct body_descriptor *body, const char *text, struct body_problem *problem)
{
    struct span names[BODY_FIELDS_MAX];
    struct json_value values[BODY_FIELDS_MAX], root;
    struct json_error error;
    for (size_t i = 0; i < body->field_count; i++)
        names[i] = body->fields[i].name;
    ck_assert_msg(json_scan(span_of(text), names, body->field_count, values, &root, &error), "%s", text);
    memset(problem, 0x7f, sizeof(*problem));
    return body_check(body, &root, values, problem);
}

static const struct {
    const struct body_descriptor *body;
    const char *text, *param, *message; /* no message: it is fine */
} cases[] = {
    {&body_chat, "{\"model\":\"m\",\"messages\":[{}]}", NULL, NULL},
    {&body_chat, "{\"messages\":[1],\"stream\":true,\"model\":\"m\",\"other\":{\"model\":1},\"x\":null}", NULL, NULL},
    {&body_chat, "{\"model\":\"m\",\"messages\":[{}],\"stream\":null}", NULL, NULL},
    {&body_chat, "{\"model\":\"m\",\"messages\":[{}],\"stream\":false}", NULL, NULL},
    {&body_chat, "{\"model\":\"m\",\"messages\":[{}],\"extra\":1,\"extra\":2}", NULL, NULL},
    {&body_chat, "[]", NULL, "The request body must be a JSON object, not an array."},
    {&body_chat, "null", NULL, "The request body must be a JSON object, not null."},
    {&body_chat, "\"{}\"", NULL, "The request body must be a JSON object, not a string."},
    {&body_chat, "1", NULL, "The request body must be a JSON object, not a number."},
    {&body_chat, "true", NULL, "The request body must be a JSON object, not a boolean."},
    {&body_chat, "{}", "model", "Missing required parameter: 'model'."},
    {&body_chat, "{\"Model\":\"m\",\"messages\":[1]}", "model", "Missing required parameter: 'model'."},
    {&body_chat, "{\"model\":\"m\"}", "messages", "Missing required parameter: 'messages'."},
    {&body_chat, "{\"model\":null,\"messages\":[1]}", "model", "Invalid type for 'model': expected a string."},
    {&body_chat, "{\"model\":7,\"messages\":[1]}", "model", "Invalid type for 'model': expected a string."},
    {&body_chat, "{\"model\":\"\",\"messages\":[1]}", "model", "'model' must not be empty."},
    {&body_chat, "{\"model\":\"m\",\"messages\":[]}", "messages", "'messages' must not be empty."},
    {&body_chat, "{\"model\":\"m\",\"messages\":[ ]}", "messages", "'messages' must not be empty."},
    {&body_chat, "{\"model\":\"m\",\"messages\":null}", "messages", "Invalid type for 'messages': expected an array."},
    {&body_chat, "{\"model\":\"m\",\"messages\":\"hi\"}", "messages",
     "Invalid type for 'messages': expected an array."},
    {&body_chat, "{\"model\":\"m\",\"messages\":[1],\"stream\":\"true\"}", "stream",
     "Invalid type for 'stream': expected a boolean."},
    {&body_chat, "{\"model\":\"m\",\"messages\":[1],\"stream\":1}", "stream",
     "Invalid type for 'stream': expected a boolean."},
    {&body_chat, "{\"model\":\"a\",\"model\":\"b\",\"messages\":[1]}", "model",
     "'model' stands more than once in the request body."},
    {&body_chat, "{\"model\":\"a\",\"m\\u006fdel\":\"a\",\"messages\":[1]}", "model",
     "'model' stands more than once in the request body."},
    {&body_chat, "{\"model\":\"a\",\"stream\":true,\"messages\":[1],\"stream\":true}", "stream",
     "'stream' stands more than once in the request body."},
    {&body_completions, "{\"model\":\"m\"}", NULL, NULL},
    {&body_completions, "{\"model\":\"m\",\"prompt\":\"\"}", NULL, NULL},
    {&body_completions, "{\"model\":\"m\",\"prompt\":[1,2]}", NULL, NULL},
    {&body_completions, "{\"prompt\":\"x\"}", "model", "Missing required parameter: 'model'."},
    {&body_embeddings, "{\"model\":\"m\",\"input\":\"x\"}", NULL, NULL},
    {&body_embeddings, "{\"model\":\"m\",\"input\":[[1]]}", NULL, NULL},
    {&body_embeddings, "{\"model\":\"m\"}", "input", "Missing required parameter: 'input'."},
    {&body_responses, "{\"model\":\"m\"}", NULL, NULL},
    {&body_responses, "{\"model\":\"m\",\"input\":[]}", NULL, NULL},
    {&body_responses, "{}", "model", "Missing required parameter: 'model'."},
    {&body_messages, "{\"model\":\"m\",\"messages\":[1]}", NULL, NULL},
    {&body_messages, "{\"model\":\"m\",\"messages\":{}}", "messages",
     "Invalid type for 'messages': expected an array."},
    {&body_any, "{}", NULL, NULL},
    {&body_any, "{\"model\":5}", NULL, NULL},
};

START_TEST(bodies_are_checked)
{
    struct body_problem problem;
    bool fine = check(cases[_i].body, cases[_i].text, &problem);
    ck_assert_msg(fine == (cases[_i].message == NULL), "%s: %s", cases[_i].text, fine ? "fine" : problem.message);
    if (fine)
        return;
    ck_assert_str_eq(problem.message, cases[_i].message);
    if (cases[_i].param == NULL)
        ck_assert_ptr_null(problem.param);
    else
        ck_assert_str_eq(problem.param, cases[_i].param);
}
END_TEST

/* What the rest of the gateway takes for granted of the descriptors. */
START_TEST(descriptors_follow_the_convention)
{
    static const struct body_descriptor *const all[] = {&body_chat,      &body_completions, &body_embeddings,
                                                        &body_responses, &body_messages,    &body_any};
    for (size_t i = 0; i < COUNT(all); i++) {
        ck_assert_uint_le(all[i]->field_count, BODY_FIELDS_MAX);
        ck_assert(span_eq(all[i]->fields[BODY_MODEL].name, SPAN("model")));
        ck_assert(span_eq(all[i]->fields[BODY_STREAM].name, SPAN("stream")));
        ck_assert_ptr_nonnull(all[i]->title);
        for (size_t j = 0; j < BODY_FIELDS_MAX; j++) {
            ck_assert_int_eq(all[i]->fields[j].name.len != 0, j < all[i]->field_count);
            ck_assert_int_eq(all[i]->fields[j].description != NULL, j < all[i]->field_count);
            ck_assert_uint_lt(all[i]->fields[j].name.len, 64); /* fits body_problem.message */
        }
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("body");

    tcase_add_loop_test(tests, bodies_are_checked, 0, COUNT(cases));
    tcase_add_test(tests, descriptors_follow_the_convention);
    return run_suite("body", tests);
}
