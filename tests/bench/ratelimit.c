/* What a decision of the memory store costs: threads that decide on requests of random clients, several limits each.
 *
 *   cc -O2 -D_GNU_SOURCE -I. -o /tmp/ratelimit-bench tests/bench/ratelimit.c ratelimit/key.c ratelimit/limit.c \
 *      ratelimit/st*.c base/digest.c base/ids.c base/strbuf.c -lcrypto -lpthread
 *   ratelimit-bench [CLIENTS [THREADS [LIMITS [SECONDS]]]]        default 100000 2 3 2
 *
 * Prints, for each strategy, nanoseconds per decision as one thread sees it while all threads decide; the keys' digests
 * and the reading of the clock are included. So is the growth of the logs of moving windows, which all begin with one
 * time, and the kernel's zeroing of the pages that this takes; but not what a virtual machine's host does when its
 * guest touches memory that had been given back to it, which costs ten times that and comes once in a page's life. For
 * that the memory is touched, and freed, before the store is made. */
#include "base/clock.h"
#include "ratelimit/store.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define THREADS_MAX 64
#define LIMITS_MAX 8
#define STORE_BYTES (STORE_BYTES_DEFAULT * 4)

struct bench {
    struct store *store;
    struct key_secret secret;
    struct key_kind kind;
    struct limit limits[LIMITS_MAX];
    struct key digests[LIMITS_MAX];
    struct key shares[LIMITS_MAX];
    enum limit_strategy strategy;
    unsigned long clients, limit_count;
    uint64_t end_us;
    atomic_uint ready;
    unsigned long threads;
};

struct runner {
    struct bench *bench;
    uint64_t seed, decisions, admitted, ns, cpu_ns;
    unsigned long index;
};

static uint64_t next_random(struct runner *runner)
{
    runner->seed ^= runner->seed << 13;
    runner->seed ^= runner->seed >> 7;
    runner->seed ^= runner->seed << 17;
    return runner->seed;
}

static bool decide(struct bench *bench, uint64_t client)
{
    struct store_ask asks[LIMITS_MAX];
    struct store_answer answers[LIMITS_MAX];
    char value[24] = "client-";

    for (int i = 0; i < 16; i++)
        value[7 + i] = "0123456789abcdef"[(client >> (4 * i)) & 15];
    struct key key = key_of_kind(&bench->kind, (struct span){value, 23});
    for (unsigned long i = 0; i < bench->limit_count; i++) {
        asks[i].key = key_for(&bench->digests[i], &key);
        asks[i].share = bench->shares[i];
        asks[i].limit = &bench->limits[i];
        asks[i].strategy = bench->strategy;
        asks[i].cost = 1;
    }
    return store_hit(bench->store, asks, bench->limit_count, clock_us(), answers, NULL);
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void *run(void *arg)
{
    struct runner *runner = arg;
    struct bench *bench = runner->bench;
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET(runner->index % (unsigned long)sysconf(_SC_NPROCESSORS_ONLN), &cpus);
    pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus); /* best effort: two threads on one processor mislead */
    atomic_fetch_add(&bench->ready, 1);
    while (atomic_load(&bench->ready) < bench->threads)
        ;
    uint64_t start = clock_us(), now = start, cpu_start = cpu_ns();
    while (now < bench->end_us) {
        for (int i = 0; i < 256; i++)
            runner->admitted += decide(bench, next_random(runner) % bench->clients);
        runner->decisions += 256;
        now = clock_us();
    }
    runner->ns = (now - start) * 1000;
    runner->cpu_ns = cpu_ns() - cpu_start;
    return NULL;
}

static void touch_memory(size_t bytes)
{
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return; /* best effort */
    madvise(memory, bytes, MADV_HUGEPAGE);
    for (size_t at = 0; at < bytes; at += 4096)
        ((volatile char *)memory)[at] = 1;
    munmap(memory, bytes);
}

static void measure(struct bench *bench, uint64_t seconds)
{
    struct runner runners[THREADS_MAX];
    pthread_t threads[THREADS_MAX];
    struct store_counts counts;
    uint64_t decisions = 0, admitted = 0, ns = 0, cpu = 0;

    touch_memory(STORE_BYTES);
    bench->store = store_create(STORE_BYTES);
    for (unsigned long i = 0; i < bench->clients; i++)
        decide(bench, i);
    bench->end_us = clock_us() + seconds * 1000000;
    atomic_store(&bench->ready, 0);
    for (unsigned long i = 0; i < bench->threads; i++) {
        runners[i] = (struct runner){.bench = bench, .index = i, .seed = 88172645463325252u + i * 7919};
        pthread_create(&threads[i], NULL, run, &runners[i]);
    }
    for (unsigned long i = 0; i < bench->threads; i++) {
        pthread_join(threads[i], NULL);
        decisions += runners[i].decisions;
        admitted += runners[i].admitted;
        ns += runners[i].ns;
        cpu += runners[i].cpu_ns;
    }
    store_count(bench->store, &counts);
    printf("%-24s %6.0f ns per decision (%.0f of processor time)  %4.1f M decisions/s  %3.0f %% admitted  %lu entries  "
           "%.1f MiB\n",
           limit_strategy_name(bench->strategy), (double)ns / (double)decisions, (double)cpu / (double)decisions,
           (double)decisions / (double)seconds / 1e6, 100.0 * (double)admitted / (double)decisions,
           (unsigned long)counts.entries, (double)counts.bytes / (1 << 20));
    store_destroy(bench->store);
}

int main(int argc, char **argv)
{
    static struct bench bench;
    static const char *const texts[LIMITS_MAX] = {"60/minute", "1000/hour", "10/second", "5000/day",
                                                  "50/minute", "900/hour",  "4000/day",  "8/second"};
    unsigned long values[4] = {100000, 2, 3, 2};
    struct limit_error error;
    size_t count;

    for (int i = 1; i < argc && i <= 4; i++)
        values[i - 1] = strtoul(argv[i], NULL, 10);
    if (values[0] == 0 || values[1] == 0 || values[1] > THREADS_MAX || values[2] == 0 || values[2] > LIMITS_MAX ||
        values[3] == 0) {
        fprintf(stderr, "usage: %s [CLIENTS [THREADS (1-64) [LIMITS (1-8) [SECONDS]]]]\n", argv[0]);
        return 2;
    }
    bench.clients = values[0];
    bench.threads = values[1];
    bench.limit_count = values[2];
    key_secret_random(&bench.secret);
    bench.kind = key_kind_of(&bench.secret, SPAN("api_key")); /* as the gateway does, once */
    printf("%lu clients, %lu threads, %lu limits each\n", values[0], values[1], values[2]);
    for (int strategy = LIMIT_FIXED_WINDOW; strategy <= LIMIT_SLIDING_WINDOW_COUNTER; strategy++) {
        bench.strategy = (enum limit_strategy)strategy;
        for (unsigned long i = 0; i < bench.limit_count; i++) {
            limit_parse(span_of(texts[i]), &bench.limits[i], 1, &count, &error);
            bench.digests[i] = key_of_limit(&bench.secret, SPAN("per_key"), &bench.limits[i], bench.strategy);
            bench.shares[i] = key_of_share(&bench.secret, SPAN("per_key"), &bench.limits[i], bench.strategy);
        }
        measure(&bench, values[3]);
    }
    return 0;
}
