#include "ratelimit/redis_scripts.h"

/* WEIR_SCRIPTS is this folder's path, given by the build. */
#define TEXT(name, ...)                                                                                                \
    __asm__(".pushsection .rodata\n.hidden " #name "\n.global " #name "\n" #name ":\n" __VA_ARGS__                     \
            ".byte 0\n.popsection\n");                                                                                 \
    extern const char name[] __attribute__((visibility("hidden")))
#define PART(file) ".incbin \"" WEIR_SCRIPTS "/" file "\"\n"

TEXT(redis_script_hit, PART("redis_rules.lua") PART("redis_hit.lua"));
TEXT(redis_script_settle, PART("redis_rules.lua") PART("redis_settle.lua"));
TEXT(redis_script_tend, PART("redis_tend.lua"));

const char *const redis_scripts[REDIS_SCRIPTS] = {
    [REDIS_SCRIPT_HIT] = redis_script_hit,
    [REDIS_SCRIPT_SETTLE] = redis_script_settle,
    [REDIS_SCRIPT_TEND] = redis_script_tend,
};
