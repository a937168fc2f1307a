#include "gateway/redis_scripts.h"
#include <stddef.h>

const char *const redis_scripts[REDIS_SCRIPTS + 1] = {
    [REDIS_SCRIPTS] = NULL,
};
