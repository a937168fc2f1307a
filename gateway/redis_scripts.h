/* The Lua scripts that the gateway runs in Redis. Each connection loads them all; redis_link_run names one by its
 * number. Static; all threads may read them. */
#ifndef WEIR_GATEWAY_REDIS_SCRIPTS_H
#define WEIR_GATEWAY_REDIS_SCRIPTS_H

/* Numbers of scripts, as redis_link_run takes them. A new one gets its name here and its text in redis_scripts.c. */
enum redis_script {
    REDIS_SCRIPT_LIMIT_HIT, /* the three of ratelimit/limit_scripts.h, in their order */
    REDIS_SCRIPT_LIMIT_SETTLE,
    REDIS_SCRIPT_LIMIT_TEND,
    REDIS_SCRIPTS, /* how many there are */
};

/* Their texts, by number. */
extern const char *const redis_scripts[REDIS_SCRIPTS + 1];

#endif
