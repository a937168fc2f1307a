/* The configuration file: whatever stands in it, there is a configuration or one message. Input: the file; ${A}, ${B}
 * and ${EMPTY} are known. */
#include "fuzz.h"
#include "gateway/config.h"
#include <sys/mman.h>
#include <unistd.h>

static char *known_variables(const char *name)
{
    static char a[] = "value-of-variable-a", b[] = "127.0.0.1:8081", empty[] = "";
    return strcmp(name, "A") == 0 ? a : strcmp(name, "B") == 0 ? b : strcmp(name, "EMPTY") == 0 ? empty : NULL;
}

static struct config *load(const char *file, char *error, size_t error_size)
{
    struct config_options options = {.file = file};
    memset(error, 0, error_size);
    return config_load(&options, known_variables, error, error_size);
}

static void check(const struct config *config)
{
    MUST(config->backend_count != 0 && config->workers >= 1 && config->workers <= CONFIG_WORKERS_MAX);
    MUST(config->listen_count != 0 && config->limit_count <= CONFIG_LIMITS_MAX && config->max_body >= 1024);
    for (size_t i = 0; i < config->limit_count; i++)
        MUST(config->limits[i].count >= 1 && config->limits[i].count <= LIMIT_LIST_MAX && config->limits[i].cost >= 1);
    for (size_t i = 0; i < config->route_count; i++)
        MUST(config->routes[i].path[0] == '/' && config->routes[i].depend_count <= DEPENDS_MAX);
    for (size_t i = 0; i < config->trusted_proxy_count; i++)
        MUST(config->trusted_proxies[i].prefix <= 128);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int memory = -1;
    static char path[64];
    char error[1024], again_error[1024];
    if (memory == -1) {
        memory = memfd_create("weir.yaml", MFD_CLOEXEC);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
    }
    MUST(memory != -1 && ftruncate(memory, 0) == 0 && pwrite(memory, data, size, 0) == (ssize_t)size);
    struct config *config = load(path, error, sizeof(error)), *again = load(path, again_error, sizeof(again_error));
    MUST((config != NULL) == (again != NULL) && strcmp(error, again_error) == 0);
    MUST((config == NULL) == (error[0] != '\0') && memchr(error, '\0', sizeof(error)) != NULL);
    if (config != NULL) {
        check(config);
        config_release(config);
        config_release(again);
    } else {
        MUST(strchr(error, '\n') == NULL);
    }
    return 0;
}
