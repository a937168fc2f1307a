/* What the gateway's processes have used: processor time and resident memory, from /proc. Processor time counts all
 * threads that still live. */
#ifndef WEIR_TESTS_LOAD_USE_H
#define WEIR_TESTS_LOAD_USE_H

#include "load_conn.h"
#include <dirent.h>
#include <limits.h>

struct use {
    uint64_t at_us, cpu_ns, rss_kib;
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

static inline struct use use_of(const int *pids, int count)
{
    struct use use = {.at_us = now_us()};
    for (int i = 0; i < count; i++) {
        use.cpu_ns += cpu_ns_of(pids[i]);
        use.rss_kib += rss_kib_of(pids[i]);
    }
    return use;
}

#endif
