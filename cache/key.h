/* The key of an answer: a digest of everything that an answer depends on, so that two requests have the same key
 * exactly if the same answer does for both. The body counts in a canonical form that is hashed as it is found, and
 * built only where an array's objects are not written so: JSON without white space between its tokens, with object
 * members in one order at every depth, their names escaped in one way, number and string tokens as they were written (1
 * and 1.0 differ, "a" and "\u0061" differ), and without the top-level members `user`, `metadata` and
 * `safety_identifier`. A body that is written so already is hashed as it stands. `stream` is part of it, which keeps
 * streamed and plain answers apart.
 *
 * Clients choose what is digested, and a collision, found at leisure, would hand one client's answer to another. So
 * keys that leave the process, to a Redis that others share, are SHA-256, which is most of what the key of a long
 * prompt costs: 0.65 ms a megabyte with the processor's SHA instructions, some four times that without. Keys that never
 * leave it are GHASH (NIST SP 800-38D), a polynomial of the text's blocks at a point that is a secret of the process: a
 * fifth of that. Who saw such keys could work out the point. Nobody does, and so all that clients can do is guess: two
 * different bodies of up to a megabyte have the same key for fewer than 2^17 of the 2^128 points, whatever they are.
 *
 * Pure but for a scratch memory: no I/O, no clock. A keyer belongs to one thread; it keeps at most CACHE_KEYER_KEEPS
 * bytes between calls. */
#ifndef WEIR_CACHE_KEY_H
#define WEIR_CACHE_KEY_H

#include "base/span.h"
#include <stdint.h>

#define CACHE_KEY_LEN 32
#define CACHE_SECRET_LEN 16
#define CACHE_KEY_MAX_DEPTH 64 /* levels of brackets in a body; beyond it: CACHE_KEY_DEEP */
/* Beyond these: CACHE_KEY_COMPLEX. What is written without white space and with its members in order counts little. */
#define CACHE_KEY_MAX_PARTS 65536 /* objects and members that have to be put in order */
#define CACHE_KEY_MAX_RUNS 262144 /* pieces between which there is white space */
#define CACHE_KEY_MAX_HEADERS 32  /* headers that change answers; beyond it: CACHE_KEY_COMPLEX */
#define CACHE_KEYER_KEEPS 4194304

struct cache_key {
    unsigned char bytes[CACHE_KEY_LEN]; /* under a secret: 16, and then zeros */
};

struct cache_header {
    struct span name; /* lower case */
    struct span value;
};

/* Who may share an answer; answers never cross from one kind of scope to another. */
enum cache_scope {
    CACHE_SCOPE_SHARED,     /* everybody */
    CACHE_SCOPE_KEY,        /* the holder of the API key that has this name */
    CACHE_SCOPE_CREDENTIAL, /* whoever sends this credential, on an open gateway that forwards it */
};

/* What an answer depends on. */
struct cache_question {
    enum cache_scope scope;
    struct span scope_name; /* see above; empty for CACHE_SCOPE_SHARED */
    struct span method, path, query;
    struct span model;                  /* as the backend calls it */
    const struct cache_header *headers; /* all of the request's: those that change no answer are passed over */
    size_t header_count;
    struct span body;
};

/* Whether there is a key; if not, the request passes the cache by. */
enum cache_key_result {
    CACHE_KEY_MADE,
    CACHE_KEY_INVALID,   /* the body is no JSON object, or a member's name is no text (a lone surrogate) */
    CACHE_KEY_DUPLICATE, /* two members of one object have the same name: servers differ in which they believe */
    CACHE_KEY_DEEP,
    CACHE_KEY_COMPLEX,
    CACHE_KEY_RESULTS,
};

/* What the same pass learns about the body's top level. */
struct cache_key_facts {
    bool deterministic; /* temperature is zero, or seed is not null */
    bool stateless; /* /v1/responses: `store` is false, and there is no previous_response_id, conversation or background
                       (null and, of background, false are as good as none) */
};

struct cache_keyer;

/* A keyer and its end. `secret`: CACHE_SECRET_LEN random bytes, for keys that nobody else makes; NULL: keys are the
 * same in all processes. */
struct cache_keyer *cache_keyer_create(const unsigned char *secret);
void cache_keyer_destroy(struct cache_keyer *keyer);

/* Makes the key of a question. `facts` (may be NULL) is filled in if there is a key. The body is checked only as far as
 * needed for different bodies to have different keys; that it is good JSON is for others to see to. */
enum cache_key_result cache_key_make(struct cache_keyer *keyer, const struct cache_question *question,
                                     struct cache_key *key, struct cache_key_facts *facts);

/* Whether answers depend on a request header (name in lower case): anthropic-version, anthropic-beta, openai-*. */
bool cache_key_has_header(struct span name);

static inline bool cache_key_eq(const struct cache_key *a, const struct cache_key *b)
{
    return memcmp(a->bytes, b->bytes, CACHE_KEY_LEN) == 0;
}

/* "invalid", "duplicate", …: the reason of a bypass, for logs and metric labels. */
const char *cache_key_result_name(enum cache_key_result result);

#endif
