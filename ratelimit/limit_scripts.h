/* The Lua scripts that count limits in Redis, as texts that end in NUL. They need Redis 5 or newer, and use no key that
 * is not among their KEYS. What they are asked and answer stands in redis_wire.h and at the head of each. */
#ifndef WEIR_RATELIMIT_LIMIT_SCRIPTS_H
#define WEIR_RATELIMIT_LIMIT_SCRIPTS_H

/* Whoever gives scripts to a link lists these in this order, one after the other. */
enum limit_script { LIMIT_SCRIPT_HIT, LIMIT_SCRIPT_SETTLE, LIMIT_SCRIPT_TEND, LIMIT_SCRIPTS };

/* Decides on a request: takes all that it asks for, or nothing. */
extern const char limit_script_hit[] __attribute__((visibility("hidden")));

/* Adds to what a request took, or ends what it holds. */
extern const char limit_script_settle[] __attribute__((visibility("hidden")));

/* Says that this gateway lives, counts those that do, and renews what its requests hold. */
extern const char limit_script_tend[] __attribute__((visibility("hidden")));

#endif
