#include "ratelimit/limit_scripts.h"

/* WEIR_SCRIPTS is this folder's path, given by the build. */
#define TEXT(name, ...)                                                                                                \
    __asm__(".pushsection .rodata\n.hidden " name "\n.global " name "\n" name ":\n" __VA_ARGS__ ".byte 0\n"            \
            ".popsection\n")
#define PART(file) ".incbin \"" WEIR_SCRIPTS "/" file "\"\n"

TEXT("limit_script_hit", PART("redis_rules.lua") PART("redis_hit.lua"));
TEXT("limit_script_settle", PART("redis_rules.lua") PART("redis_settle.lua"));
TEXT("limit_script_tend", PART("redis_tend.lua"));
