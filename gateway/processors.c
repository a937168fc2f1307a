#include "gateway/processors.h"
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The smallest quota seen so far, in thousandths of a processor; 0: none. */
static void lower(unsigned long *millis, long quota_us, long period_us)
{
    if (quota_us <= 0 || period_us <= 0 || quota_us > LONG_MAX / 1000)
        return;
    unsigned long found = ((unsigned long)quota_us * 1000 + (unsigned long)period_us - 1) / (unsigned long)period_us;
    if (*millis == 0 || found < *millis)
        *millis = found;
}

/* Reads up to two words of a small file; false if it is not there. */
static bool read_words(const char *directory, const char *name, char first[32], char second[32])
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/%s", directory, name) >= (int)sizeof(path))
        return false;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    first[0] = second[0] = '\0';
    bool found = fscanf(file, "%31s %31s", first, second) >= 1;
    fclose(file);
    return found;
}

static void read_quota(const char *directory, unsigned long *millis)
{
    char quota[32], period[32], unused[32];

    if (read_words(directory, "cpu.max", quota, period) && strcmp(quota, "max") != 0)
        lower(millis, strtol(quota, NULL, 10), strtol(period, NULL, 10));
    if (read_words(directory, "cpu.cfs_quota_us", quota, unused) &&
        read_words(directory, "cpu.cfs_period_us", period, unused))
        lower(millis, strtol(quota, NULL, 10), strtol(period, NULL, 10));
}

/* The group and all above it up to the mount; in a container without a cgroup namespace the lower ones are not visible.
 */
static void read_groups(const char *mount, const char *group, unsigned long *millis)
{
    char path[PATH_MAX];
    size_t mount_len = strlen(mount);

    if (snprintf(path, sizeof(path), "%s%s", mount, group) >= (int)sizeof(path))
        return;
    for (;;) {
        read_quota(path, millis);
        char *slash = strrchr(path, '/');
        if (slash == NULL || (size_t)(slash - path) < mount_len)
            return;
        *slash = '\0';
    }
}

/* Whether a list such as "cpu,cpuacct" names the controller `cpu`. */
static bool names_cpu(const char *controllers)
{
    for (const char *at = controllers; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, "cpu", 3) == 0 && (at[3] == ',' || at[3] == '\0'))
            return true;
    }
    return false;
}

unsigned processors_quota(const char *root)
{
    char path[PATH_MAX], mount[PATH_MAX], line[PATH_MAX];
    unsigned long millis = 0;

    if (snprintf(path, sizeof(path), "%s/proc/self/cgroup", root) >= (int)sizeof(path))
        return 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    /* Lines of "ID:CONTROLLERS:PATH", cgroups(7); version 2 names no controllers. */
    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL)
            continue;
        *group++ = '\0';
        controllers++;
        if (controllers[0] != '\0' && !names_cpu(controllers))
            continue;
        int len = snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup%s%s", root, controllers[0] != '\0' ? "/" : "",
                           controllers);
        if (len < (int)sizeof(mount))
            read_groups(mount, group, &millis);
        /* "cpu" is a link to "cpu,cpuacct" on most systems, but not on all. */
        if (controllers[0] != '\0' && snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup/cpu", root) < (int)sizeof(mount))
            read_groups(mount, group, &millis);
    }
    fclose(file);
    return (unsigned)((millis + 999) / 1000);
}

unsigned processors_usable(void)
{
    cpu_set_t set;
    unsigned count = 1, quota = processors_quota("");

    /* Fails on machines with more processors than the set holds: then the affinity is not what limits. */
    count = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : CPU_SETSIZE;
    if (quota != 0 && quota < count)
        count = quota;
    return count != 0 ? count : 1;
}
