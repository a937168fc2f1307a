/* What the gateway's processes have used: processor time and resident memory, from /proc. Processor time counts all
 * threads that still live. And how busy, with whatever, processor 0 (the gateway's) and 1 (load and model server) were.
 */
#ifndef WEIR_TESTS_LOAD_USE_H
#define WEIR_TESTS_LOAD_USE_H

#include "load_conn.h"
#include <dirent.h>
#include <limits.h>

struct use {
    uint64_t at_us, cpu_ns, rss_kib;
    uint64_t ticks[2], idle[2]; /* of processors 0 and 1 */
};

static inline uint64_t cpu_ns_of(int pid)
{
    char path[64 + NAME_MAX], line[128];
    uint64_t sum = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *dir = opendir(path);
    if (dir == NULL)
        fail("process %d is gone", pid);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pid, entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (file == NULL)
            continue;
        if (fgets(line, sizeof(line), file) != NULL)
            sum += strtoull(line, NULL, 10);
        fclose(file);
    }
    closedir(dir);
    if (sum == 0)
        fail("no processor time in /proc/%d/task/*/schedstat: the kernel does not count it", pid);
    return sum;
}

static inline uint64_t rss_kib_of(int pid)
{
    char path[64], line[256];
    uint64_t kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        fail("process %d is gone", pid);
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, "VmRSS:", 6) == 0)
            kib = strtoull(line + 6, NULL, 10);
    fclose(file);
    return kib;
}

static inline void read_processors(struct use *use)
{
    char line[512];
    FILE *file = fopen("/proc/stat", "r");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        unsigned processor;
        uint64_t ticks[8] = {0};
        if (sscanf(line, "cpu%u %lu %lu %lu %lu %lu %lu %lu %lu", &processor, &ticks[0], &ticks[1], &ticks[2],
                   &ticks[3], &ticks[4], &ticks[5], &ticks[6], &ticks[7]) != 9 ||
            processor > 1)
            continue;
        for (int i = 0; i < 8; i++)
            use->ticks[processor] += ticks[i];
        use->idle[processor] = ticks[3] + ticks[4]; /* nothing to do, or nothing but disks to wait for */
    }
    if (file != NULL)
        fclose(file);
}

/* How much of a processor the gateway took between two times, and how busy both were: three percentages. */
static inline void print_busy(const struct use *from, const struct use *to)
{
    printf(" gateway_percent=%.0f", (double)(to->cpu_ns - from->cpu_ns) / (double)(to->at_us - from->at_us) / 10);
    for (int i = 0; i < 2; i++) {
        uint64_t ticks = to->ticks[i] - from->ticks[i];
        printf(" busy%d_percent=%.0f", i,
               ticks != 0 ? 100 - 100 * (double)(to->idle[i] - from->idle[i]) / (double)ticks : 0);
    }
}

/* How many events the model-server fake at `address` has sent in its life. */
static inline uint64_t events_sent(const struct sockaddr_in *address)
{
    static const char ask[] = "GET /fake/stats HTTP/1.1\r\nHost: fake\r\n\r\n";
    char answer[2048] = "";
    size_t len = 0;
    ssize_t n = 1;
    const char *events = NULL;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 ||
        write(fd, ask, sizeof(ask) - 1) != (ssize_t)sizeof(ask) - 1)
        fail("cannot ask the model server: %s", strerror(errno));
    while (n > 0 && strstr(answer, "now_us") == NULL && len + 1 < sizeof(answer)) {
        n = read(fd, answer + len, sizeof(answer) - len - 1);
        len += n > 0 ? (size_t)n : 0;
        answer[len] = '\0';
    }
    close(fd);
    if ((events = strstr(answer, "\"events\":")) == NULL)
        fail("the model server does not tell what it sent");
    return strtoull(events + 9, NULL, 10);
}

static inline struct use use_of(const int *pids, int count)
{
    struct use use = {.at_us = now_us()};
    for (int i = 0; i < count; i++) {
        use.cpu_ns += cpu_ns_of(pids[i]);
        use.rss_kib += rss_kib_of(pids[i]);
    }
    read_processors(&use);
    return use;
}

#endif
