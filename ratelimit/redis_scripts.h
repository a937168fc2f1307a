/* The Lua scripts that count limits in Redis, as texts that end in NUL. They need Redis 5 or newer, and use no key that
 * is not among their KEYS. What they are asked and answer stands in redis_wire.h and at the head of each. */
#ifndef WEIR_RATELIMIT_REDIS_SCRIPTS_H
#define WEIR_RATELIMIT_REDIS_SCRIPTS_H

enum redis_script { REDIS_SCRIPT_HIT, REDIS_SCRIPT_SETTLE, REDIS_SCRIPT_TEND, REDIS_SCRIPTS };

extern const char *const redis_scripts[REDIS_SCRIPTS];

#endif
