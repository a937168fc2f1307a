/* What the parts of a cache miss cost in the memory's and the processor's caches' state that a busy gateway leaves
 * them in: a 2 KB request is digested and looked up, its answer of 254 bytes collected and stored, and between
 * the parts of each request 64 others come and other memory is read and written.
 *
 *   cc -O2 -DNDEBUG -D_GNU_SOURCE -DH2O_USE_EPOLL=1 -fno-strict-aliasing -I. -o /tmp/miss-bench tests/bench/miss.c \
 *      cache/[bekmw]*.c cache/control.c stream/[cdsw]*.c base/{json_scan,strbuf,slab,utf8}.c -lh2o-evloop -lcrypto
 *   miss-bench [MISSES] [MAX_BYTES]        default 100000, 256 MiB
 *
 * Prints medians in nanoseconds; the clock's own cost is taken off. */
#include "base/clock.h"
#include "cache/key.h"
#include "cache/writer.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define AT_ONCE 64
#define OTHERS ((size_t)192 << 10) /* bytes of other memory used between two parts */
#define PARTS 4

static const char *const names[PARTS] = {"digest", "look-up", "writer's start", "store"};
static uint32_t *samples[PARTS];
static size_t sample_count[PARTS];
static char others[OTHERS * 8];
static size_t other;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void use_other_memory(void)
{
    for (size_t i = 0; i < OTHERS; i += 64)
        others[(other + i) % sizeof(others)]++;
    other += OTHERS / 4;
}

static void note(int part, uint64_t since)
{
    uint64_t took = now_ns() - since;
    samples[part][sample_count[part]++] = (uint32_t)(took < UINT32_MAX ? took : UINT32_MAX);
}

static void nothing(void *ctx)
{
    (void)ctx;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static size_t make_body(char *body, unsigned long serial)
{
    int len = sprintf(body,
                      "{\"model\":\"fake-1\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful "
                      "assistant.\"},{\"role\":\"user\",\"content\":\"%012lu",
                      serial);
    memset(body + len, 'x', 2044 - (size_t)len);
    memcpy(body + 2044, "\"}]}", 4);
    return 2048;
}

int main(int argc, char **argv)
{
    static const struct span answer = SPAN(
        "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"fake-1\",\"choices\":"
        "[{"
        "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"tok1 tok2 tok3\"},\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}");
    static const struct cache_header headers[] = {{SPAN("content-type"), SPAN("application/json")},
                                                  {SPAN("date"), SPAN("Tue, 04 Aug 2026 10:00:00 GMT")},
                                                  {SPAN("server"), SPAN("fake")},
                                                  {SPAN("x-request-id"), SPAN("req_1234567")}};
    unsigned long misses = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
    struct cache_memory *memory = cache_memory_create(&(struct cache_memory_settings){
        .max_bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : (size_t)256 << 20, .max_entry = 1 << 20});
    struct cache_keyer *keyer = cache_keyer_create((const unsigned char *)"a secret of ours");
    struct stream_settings settings = {.dialect = dialect_get(DIALECT_CHAT), .json = true};
    struct stream_producer producer = {nothing, nothing, NULL};
    h2o_buffer_prototype_t prototype = {._initial_buf = {.capacity = 4096}};
    struct cache_key keys[AT_ONCE];
    struct stream *streams[AT_ONCE];
    char body[4096];
    if (misses == 0) {
        fprintf(stderr, "usage: %s [MISSES] [MAX_BYTES]\n", argv[0]);
        return 2;
    }
    for (int i = 0; i < PARTS; i++)
        samples[i] = malloc((misses + AT_ONCE) * sizeof(uint32_t));
    for (unsigned long done = 0; done < misses; done += AT_ONCE) {
        for (unsigned i = 0; i < AT_ONCE; i++) {
            size_t len = make_body(body, done + i);
            use_other_memory();
            (void)*(volatile char *)&body[7];
            struct cache_question question = {.scope = CACHE_SCOPE_KEY,
                                              .scope_name = SPAN("alice"),
                                              .method = SPAN("POST"),
                                              .path = SPAN("/v1/chat/completions"),
                                              .model = SPAN("fake-1"),
                                              .body = {body, len}};
            struct cache_key_facts facts;
            uint64_t since = now_ns();
            if (cache_key_make(keyer, &question, &keys[i], &facts) != CACHE_KEY_MADE)
                return 1;
            note(0, since);
            since = now_ns();
            if (cache_memory_lookup(memory, &keys[i], clock_us()) != NULL)
                return 1;
            note(1, since);
        }
        for (unsigned i = 0; i < AT_ONCE; i++) {
            struct cache_writer_settings writer = {.memory = memory,
                                                   .key = keys[i],
                                                   .ttl_us = 600000000,
                                                   .birth = {.purges = cache_memory_purges(memory)},
                                                   .scope_name = SPAN("alice"),
                                                   .model = SPAN("fake-1"),
                                                   .status = 200,
                                                   .headers = headers,
                                                   .header_count = 4};
            streams[i] = stream_create(&settings, &producer);
            h2o_buffer_t *buffer;
            h2o_buffer_init(&buffer, &prototype);
            memcpy(h2o_buffer_reserve(&buffer, answer.len).base, answer.base, answer.len);
            buffer->size = answer.len;
            use_other_memory();
            uint64_t since = now_ns();
            if (!cache_writer_start(&writer, streams[i]))
                return 1;
            note(2, since);
            stream_append_last(streams[i], &buffer);
            since = now_ns();
            stream_end(streams[i]);
            note(3, since);
            h2o_buffer_dispose(&buffer);
        }
    }
    struct cache_memory_counts counts;
    cache_memory_counts(memory, &counts);
    uint64_t start = now_ns(), sum = 0;
    for (int i = 0; i < 1000; i++)
        now_ns();
    uint64_t clock = (now_ns() - start) / 1000;
    for (int i = 0; i < PARTS; i++) {
        qsort(samples[i], sample_count[i], sizeof(uint32_t), compare);
        uint64_t mean = 0;
        size_t count = sample_count[i] * 995 / 1000; /* without what was interrupted */
        for (size_t k = 0; k < count; k++)
            mean += samples[i][k];
        mean = mean / count - clock;
        printf("%-16s %5lu median, %5lu mean\n", names[i], samples[i][sample_count[i] / 2] - clock, mean);
        sum += mean;
    }
    printf("%-16s %5lu mean; %lu entries, %lu evictions\n", "all", sum, counts.entries, counts.evictions);
    return 0;
}
