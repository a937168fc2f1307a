/* How many processors this process may use. Reads files of the kernel; at the start only. */
#ifndef WEIR_GATEWAY_PROCESSORS_H
#define WEIR_GATEWAY_PROCESSORS_H

/* The smaller of the processors that the affinity mask allows and the cgroup's quota (version 2 `cpu.max`, version 1
 * `cpu.cfs_quota_us`) of this group and those above it, rounded up; at least 1. */
unsigned processors_usable(void);

/* The quota alone, rounded up to whole processors; 0: none. `root` stands before /proc/self/cgroup and /sys/fs/cgroup:
 * "", or a test's directory. */
unsigned processors_quota(const char *root);

#endif
