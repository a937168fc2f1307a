/* How long it takes to find that a key is wrong must not tell how much of it is right. A clock would show that only on
 * a quiet machine; here a child process looks keys up while its parent lets it take one instruction at a time, and the
 * instructions must be the same, in the same order, whatever the key. */
#include "base/digest.h"
#include "gateway/site.h"
#include "run_suite.h"
#include <elf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEYS 3
#define LOOKUPS_MAX 64
#define WARM_UP 3
#define CANNOT 77 /* exit status of a child that may not be traced */

static char file[] = "/tmp/weir-timing-XXXXXX";
static struct site *site;

static const char *const keys[KEYS] = {"sk-alice-0123456789abcdef0123456789", "sk-bob---0123456789abcdef0123456789",
                                       "sk-carol-0123456789abcdef0123456789"};

static char *no_environment(const char *name)
{
    (void)name;
    return NULL;
}

static void prepare(void)
{
    int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    FILE *out = fdopen(fd, "w");
    ck_assert_ptr_nonnull(out);
    for (int admin = 0; admin < 2; admin++) {
        fputs(admin ? "admin:\n  keys:\n" : "keys:\n", out);
        for (int i = 0; i < KEYS; i++)
            fprintf(out, "    - {name: k%d, key: %s%s}\n", i, admin ? "admin-" : "", keys[i]);
    }
    ck_assert_int_eq(fclose(out), 0);
    struct config_options options = {.file = file};
    char error[512];
    struct config *config = config_load(&options, no_environment, error, sizeof(error));
    ck_assert_msg(config != NULL, "%s", error);
    site = site_create(config);
}

static void clean_up(void)
{
    site_release(site);
    unlink(file);
}

typedef struct identity *find_function(const struct site *site, const unsigned char hash[32]);

struct lookup {
    find_function *find;
    unsigned char hash[32]; /* never that of a key */
};

/* Always in the same memory: what compares bytes may go by how they are aligned. */
static struct lookup now;

static void look_up(void)
{
    if (now.find(site, now.hash) != NULL)
        _exit(1);
}

/* Stops before and after each look-up. The first one is made again and again, for what is done but once, such as
 * binding a function's name. */
static void child(const struct lookup *lookups, size_t count)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(CANNOT);
    for (size_t i = 0; i < WARM_UP + count; i++) {
        now = lookups[i < WARM_UP ? 0 : i - WARM_UP];
        raise(SIGSTOP);
        look_up();
        raise(SIGSTOP);
    }
    _exit(0);
}

static uint64_t where(pid_t pid)
{
    struct user_regs_struct registers = {0};
    struct iovec place = {&registers, sizeof(registers)};
    ck_assert_int_eq(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &place), 0);
#if defined(__x86_64__)
    return registers.rip;
#elif defined(__aarch64__)
    return registers.pc;
#else
    return 0; /* their number alone */
#endif
}

struct path {
    uint64_t instructions, digest; /* of the places, in order */
};

static int wait_for(pid_t pid)
{
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

static void go_on(pid_t pid)
{
    ck_assert_int_eq(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
    int status = wait_for(pid);
    ck_assert_msg(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "%x", (unsigned)status);
}

/* Lets the child go on to its next stop, instruction by instruction. */
static struct path follow(pid_t pid)
{
    struct path path = {0, UINT64_C(14695981039346656037)}; /* FNV-1a */
    for (;;) {
        ck_assert_int_eq(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        int status = wait_for(pid);
        ck_assert_msg(WIFSTOPPED(status), "the child ended: %x", (unsigned)status);
        if (WSTOPSIG(status) == SIGSTOP)
            return path;
        ck_assert_int_eq(WSTOPSIG(status), SIGTRAP);
        path.instructions++;
        path.digest = (path.digest ^ where(pid)) * UINT64_C(1099511628211);
    }
}

enum ways { ONE_WAY, SEVERAL_WAYS, UNSEEN };

/* Whether all look-ups take the same way; UNSEEN if tracing is not allowed here. */
static enum ways ways_of(const struct lookup *lookups, size_t count)
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0)
        child(lookups, count);
    int status = wait_for(pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT) {
        fputs("skipped: this process may not trace another\n", stderr);
        return UNSEEN;
    }
    ck_assert_msg(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "%x", (unsigned)status);
    for (int i = 0; i < WARM_UP; i++) {
        go_on(pid);
        go_on(pid);
    }
    enum ways ways = ONE_WAY;
    struct path first = follow(pid);
    ck_assert_uint_gt(first.instructions, KEYS * 32 / 8);
    for (size_t i = 1; i < count && ways == ONE_WAY; i++) {
        go_on(pid);
        struct path path = follow(pid);
        if (path.instructions != first.instructions || path.digest != first.digest) {
            fprintf(stderr, "look-up %zu took %llu instructions, the first %llu\n", i,
                    (unsigned long long)path.instructions, (unsigned long long)first.instructions);
            ways = SEVERAL_WAYS;
        }
    }
    kill(pid, SIGKILL);
    wait_for(pid);
    return ways;
}

static void hash_of(const char *prefix, int key, size_t wrong_from, unsigned char hash[32])
{
    char text[64];
    int len = sprintf(text, "%s%s", prefix, keys[key]);
    for (size_t at = wrong_from; at < (size_t)len; at++)
        text[at] ^= 1;
    digest_sha256((struct span){text, (size_t)len}, hash);
}

/* What is wrong begins at one of these bytes of a hash, of the first and of the last key. */
static size_t wrong_hashes(struct lookup *lookups, find_function *find, const char *prefix)
{
    static const int equal[] = {0, 1, 8, 16, 31};
    size_t count = 0;
    for (int key = 0; key < KEYS; key += KEYS - 1)
        for (size_t i = 0; i < sizeof(equal) / sizeof(equal[0]); i++) {
            struct lookup *lookup = &lookups[count++];
            lookup->find = find;
            hash_of(prefix, key, SIZE_MAX, lookup->hash);
            for (int at = equal[i]; at < 32; at++)
                lookup->hash[at] ^= 0x55;
        }
    return count;
}

START_TEST(a_wrong_hash_is_compared_as_long_however_much_of_it_is_right)
{
    struct lookup lookups[LOOKUPS_MAX] = {0};
    ck_assert_int_ne(ways_of(lookups, wrong_hashes(lookups, site_identity_find, "")), SEVERAL_WAYS);
    memset(lookups, 0, sizeof(lookups));
    ck_assert_int_ne(ways_of(lookups, wrong_hashes(lookups, site_admin_find, "admin-")), SEVERAL_WAYS);
}
END_TEST

/* Keys that agree with a good one in nothing, in half and in all but the last byte. */
static size_t wrong_keys(struct lookup *lookups, find_function *find, const char *prefix)
{
    size_t count = 0, len = strlen(prefix) + strlen(keys[0]);
    const size_t wrong_from[] = {0, len / 2, len - 1};
    for (int key = 0; key < KEYS; key += KEYS - 1)
        for (size_t i = 0; i < sizeof(wrong_from) / sizeof(wrong_from[0]); i++) {
            lookups[count].find = find;
            hash_of(prefix, key, wrong_from[i], lookups[count++].hash);
        }
    return count;
}

START_TEST(a_wrong_key_is_refused_as_fast_however_much_of_it_is_right)
{
    struct lookup lookups[LOOKUPS_MAX] = {0};
    ck_assert_int_ne(ways_of(lookups, wrong_keys(lookups, site_identity_find, "")), SEVERAL_WAYS);
    memset(lookups, 0, sizeof(lookups));
    ck_assert_int_ne(ways_of(lookups, wrong_keys(lookups, site_admin_find, "admin-")), SEVERAL_WAYS);
}
END_TEST

static struct identity *find_carelessly(const struct site *of, const unsigned char hash[32])
{
    for (size_t i = 0; i < of->config->key_count; i++) {
        size_t same = 0;
        while (same < 32 && of->config->keys[i].hash[same] == hash[same])
            same++;
        if (same == 32)
            return of->identities[i];
    }
    return NULL;
}

/* That the test itself can fail. */
START_TEST(a_comparison_that_stops_early_takes_another_way)
{
    struct lookup lookups[LOOKUPS_MAX] = {0};
    ck_assert_int_ne(ways_of(lookups, wrong_hashes(lookups, find_carelessly, "")), ONE_WAY);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("key_timing");

    tcase_set_timeout(tests, 120);
    tcase_add_unchecked_fixture(tests, prepare, clean_up);
    tcase_add_test(tests, a_wrong_hash_is_compared_as_long_however_much_of_it_is_right);
    tcase_add_test(tests, a_wrong_key_is_refused_as_fast_however_much_of_it_is_right);
    tcase_add_test(tests, a_comparison_that_stops_early_takes_another_way);
    return run_suite("key_timing", tests);
}
