/* What the canonical digest of a body costs, for bodies in several shapes: of a megabyte, or as long as they may be
 * before they have too many parts to have a key.
 *
 *   cc -O2 -DNDEBUG -D_GNU_SOURCE -DH2O_USE_EPOLL=1 -fno-strict-aliasing -I. -o /tmp/key-bench tests/bench/key.c \
 *      cache/key.c cache/body_*.c cache/blanks.c base/json_scan.c base/strbuf.c \
 *      -lh2o-evloop -lcrypto
 *   key-bench [RUNS [shared]]        default 50; shared: the keys of a cache that has a Redis behind it
 *
 * Prints, for each shape, the quickest of the runs: milliseconds of processor time a megabyte, or why there is no key.
 */
#include "cache/key.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SIZE ((size_t)1 << 20)

struct shape {
    const char *name, *open, *piece, *close;
};

static const struct shape shapes[] = {
    {"one long text", "{\"model\":\"m\",\"prompt\":\"", "some words of a prompt ", "\"}"},
    {"text with escapes", "{\"model\":\"m\",\"prompt\":\"", "line\\n\\\"q\\\" ", "\"}"},
    {"tokens", "{\"model\":\"m\",\"prompt\":[", "12345,", "1]}"},
    {"tokens and blanks", "{\"model\":\"m\",\"prompt\":[", "12345, ", "1]}"},
    {"short texts", "{\"model\":\"m\",\"input\":[", "\"word\",", "\"\"]}"},
    {"messages", "{\"model\":\"m\",\"messages\":[", "{\"role\":\"user\",\"content\":\"What is the time?\"},", "{}]}"},
    {"messages and blanks", "{\"model\":\"m\",\"messages\":[",
     "{\n  \"role\": \"user\",\n  \"content\": \"What is the time?\"\n},\n", "{}]}"},
    {"a long chat", "{\"model\":\"m\",\"messages\":[",
     "{\"role\":\"user\",\"content\":\"Why is the sky blue at noon, and why is it red in the evening?\"},"
     "{\"role\":\"assistant\",\"content\":\"Air scatters short waves more than long ones, so blue light comes from all "
     "sides.\\n"
     "In the evening the light has a longer way through the air: what is left of it is what was not scattered, "
     "which is \\\"the rest\\\", the long waves: red.\"},",
     "{}]}"},
    {"members to be sorted", "{\"model\":\"m\",\"messages\":[",
     "{\"content\":\"What is the time?\",\"role\":\"user\"},", "{}]}"},
    {"parts", "{\"model\":\"m\",\"messages\":[",
     "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"What is the time?\"}]},", "{}]}"},
    {"parts and blanks", "{\"model\": \"m\", \"messages\": [",
     "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"What is the time?\"}]}, ", "{}]}"},
    {"tool calls", "{\"model\":\"m\",\"messages\":[",
     "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\","
     "\"function\":{\"name\":\"get_weather\",\"arguments\":\"{\\\"city\\\":\\\"Paris\\\"}\"}}]},"
     "{\"role\":\"tool\",\"tool_call_id\":\"call_1\",\"content\":\"11 degrees and cloudy\"},",
     "{}]}"},
    {"tools", "{\"model\":\"m\",\"tools\":[",
     "{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":\"The weather of a city\","
     "\"parameters\":{\"type\":\"object\",\"properties\":{\"location\":{\"type\":\"string\",\"description\":\"A "
     "city\"},"
     "\"unit\":{\"type\":\"string\",\"enum\":[\"celsius\",\"fahrenheit\"]}},\"required\":[\"location\"]}}},",
     "{}]}"},
    {"tiny objects", "{\"model\":\"m\",\"tools\":[", "{\"a\":1},", "{}]}"},
    {"empty objects", "{\"model\":\"m\",\"tools\":[", "{},", "{}]}"},
    {"arrays in arrays", "{\"model\":\"m\",\"tools\":[", "[[1],[]],", "1]}"},
};

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static size_t fill(const struct shape *shape, size_t pieces, char *text)
{
    size_t piece = strlen(shape->piece), len = strlen(shape->open);
    memcpy(text, shape->open, len);
    for (size_t i = 0; i < pieces; i++, len += piece)
        memcpy(text + len, shape->piece, piece);
    memcpy(text + len, shape->close, strlen(shape->close));
    return len + strlen(shape->close);
}

/* The least time in ms, of `runs`; negative if the body has more parts than a key is made of. */
static double measure(struct cache_keyer *keyer, struct span body, unsigned long runs)
{
    struct cache_question question = {
        .method = SPAN("POST"), .path = SPAN("/v1/completions"), .model = SPAN("m"), .body = body};
    struct cache_key key;
    double least = 1e9;
    for (unsigned long run = 0; run < runs; run++) {
        double start = cpu_ms();
        if (cache_key_make(keyer, &question, &key, NULL) != CACHE_KEY_MADE)
            return -1;
        double took = cpu_ms() - start;
        least = took < least ? took : least;
    }
    return least;
}

int main(int argc, char **argv)
{
    unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 10) : 50;
    char *text = malloc(SIZE);
    const unsigned char *secret =
        argc > 2 && strcmp(argv[2], "shared") == 0 ? NULL : (const unsigned char *)"a secret of ours";
    struct cache_keyer *keyer = cache_keyer_create(secret);
    if (runs == 0 || text == NULL) {
        fprintf(stderr, "usage: %s [RUNS [shared]]\n", argv[0]);
        return 2;
    }
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        size_t pieces = (SIZE - 128) / strlen(shapes[i].piece), len;
        double least;
        /* Shorter by a twentieth until there is a key. */
        while (len = fill(&shapes[i], pieces, text), (least = measure(keyer, (struct span){text, len}, runs)) < 0)
            pieces -= pieces / 20 + 1;
        printf("%-20s %5.2f ms for %7zu bytes: %5.2f ms/MB\n", shapes[i].name, least, len,
               least * (double)SIZE / (double)len);
    }
    cache_keyer_destroy(keyer);
    free(text);
    return 0;
}
