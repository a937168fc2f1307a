#include "gateway/redis_scripts.h"
#include "ratelimit/limit_scripts.h"
#include <stddef.h>

const char *const redis_scripts[REDIS_SCRIPTS + 1] = {
    [REDIS_SCRIPT_LIMIT_HIT] = limit_script_hit,
    [REDIS_SCRIPT_LIMIT_SETTLE] = limit_script_settle,
    [REDIS_SCRIPT_LIMIT_TEND] = limit_script_tend,
    [REDIS_SCRIPTS] = NULL,
};
