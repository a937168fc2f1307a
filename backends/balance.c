#include "backends/balance.h"
#include <string.h>

/* How far above its share of the load a server may be for the sake of a key or a prefix: Mirrokni et al., "Consistent
 * Hashing with Bounded Loads". The constant lets a few conversations share a server that is otherwise idle. */
#define BOUND_NUMERATOR 5
#define BOUND_DENOMINATOR 4
#define BOUND_MIN 2
#define LATENCY_TAU_US UINT64_C(10000000)
/* What a server without an average costs per request in flight: one idle is tried, several at once are not. */
#define LATENCY_UNKNOWN_US UINT64_C(1000000)

static uint64_t mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static const uint64_t secret[4] = {UINT64_C(0xa0761d6478bd642f), UINT64_C(0xe7037ed1a0b428db),
                                   UINT64_C(0x8ebc6af09c88c6e3), UINT64_C(0x589965cc75374cc3)};

static uint64_t read64(const unsigned char *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

uint64_t balance_hash(const void *bytes, size_t len, uint64_t seed)
{
    const unsigned char *at = bytes;
    size_t left = len;
    uint64_t lanes[4] = {seed ^ secret[0], seed ^ secret[1], seed ^ secret[2], seed ^ secret[3]};
    for (; left >= 64; at += 64, left -= 64)
        for (int i = 0; i < 4; i++)
            lanes[i] = mix(read64(at + 16 * i) ^ secret[i], read64(at + 16 * i + 8) ^ lanes[i]);
    /* Turned, or lanes that are still equal would cancel the seed out. */
    uint64_t hash = lanes[0];
    for (int i = 1; i < 4; i++)
        hash = (hash << 13 | hash >> 51) ^ lanes[i];
    for (; left >= 8; at += 8, left -= 8)
        hash = mix(read64(at) ^ secret[1], hash ^ secret[2]);
    unsigned char tail[8] = {0};
    if (left != 0)
        memcpy(tail, at, left);
    return mix(mix(read64(tail) ^ secret[3], hash ^ secret[0]), len ^ secret[1]);
}

uint64_t balance_random(uint64_t *state)
{
    *state += secret[0];
    return mix(*state, *state ^ secret[1]);
}

/* ---- policies ---- */

/* a.in_flight / a.weight against b's, without division. */
static int compare_load(const struct balance_candidate *a, const struct balance_candidate *b)
{
    uint64_t x = (uint64_t)a->in_flight * b->weight, y = (uint64_t)b->in_flight * a->weight;
    return x < y ? -1 : x > y;
}

/* nginx's smooth weighted round robin over those that `marked` marks (NULL: all): 5, 1, 1 give a a b a c a a. */
static size_t take_turns(const struct balance_candidate *candidates, size_t count, const uint8_t *marked)
{
    size_t best = count;
    int64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        if (marked != NULL && !marked[i])
            continue;
        *candidates[i].turn += candidates[i].weight;
        total += candidates[i].weight;
        if (best == count || *candidates[i].turn > *candidates[best].turn)
            best = i;
    }
    *candidates[best].turn -= total;
    return best;
}

static size_t choose_least_requests(const struct balance_candidate *candidates, size_t count)
{
    uint8_t marked[BALANCE_CANDIDATES_MAX];
    size_t least = 0, equals = 0;
    for (size_t i = 1; i < count; i++)
        if (compare_load(&candidates[i], &candidates[least]) < 0)
            least = i;
    for (size_t i = 0; i < count; i++)
        equals += marked[i] = compare_load(&candidates[i], &candidates[least]) == 0;
    return equals == 1 ? least : take_turns(candidates, count, marked);
}

static size_t draw(const struct balance_candidate *candidates, size_t count, uint64_t random, uint64_t total,
                   size_t without)
{
    uint64_t at = (uint64_t)((__uint128_t)random * total >> 64);
    size_t last = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == without)
            continue;
        last = i;
        if (at < candidates[i].weight)
            return i;
        at -= candidates[i].weight;
    }
    return last;
}

static size_t choose_power_of_two(const struct balance_candidate *candidates, size_t count, uint64_t random)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += candidates[i].weight;
    if (count == 1)
        return 0;
    size_t one = draw(candidates, count, random, total, count);
    size_t two = draw(candidates, count, mix(random, secret[2]), total - candidates[one].weight, one);
    return compare_load(&candidates[two], &candidates[one]) < 0 ? two : one;
}

/* Whether a server is so far above its share that a key or prefix must do without it. */
static bool is_overloaded(const struct balance_candidate *candidate, uint64_t total_in_flight, uint64_t total_weight)
{
    uint64_t load = (uint64_t)candidate->in_flight + 1;
    if (load <= BOUND_MIN)
        return false;
    return load * BOUND_DENOMINATOR * total_weight >
           BOUND_NUMERATOR * (total_in_flight + 1) * candidate->weight + BOUND_DENOMINATOR * total_weight;
}

static void add_up(const struct balance_candidate *candidates, size_t count, uint64_t *in_flight, uint64_t *weight)
{
    *in_flight = *weight = 0;
    for (size_t i = 0; i < count; i++) {
        *in_flight += candidates[i].in_flight;
        *weight += candidates[i].weight;
    }
}

/* log2 of a positive float, within 0.0001: enough for shares, and fifty times as fast as the library's. */
static float log2_rough(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    float exponent = (float)(int)((bits >> 23) - 127);
    bits = (bits & 0x7fffff) | 0x3f800000;
    memcpy(&x, &bits, sizeof(x));
    x -= 1;
    return exponent +
           x * (1.4425449f +
                x * (-0.7181452f + x * (0.4575485f + x * (-0.2779042f + x * (0.1213780f + x * -0.0254229f)))));
}

/* Rendezvous hashing (Thaler and Ravishankar; weighted by -w / ln h): a server that comes or goes moves only its own
 * keys. */
static float score(const struct balance_candidate *candidate, uint64_t key)
{
    /* 23 bits and a half are exact in a float: strictly between 0 and 1. */
    float h = ((float)(mix(candidate->hash ^ secret[0], key ^ secret[3]) >> 41) + 0.5f) * (1.0f / 8388608.0f);
    return (float)candidate->weight / -log2_rough(h);
}

static size_t choose_by_key(const struct balance_candidate *candidates, size_t count, uint64_t key)
{
    uint64_t in_flight, weight;
    size_t best = count;
    float best_score = 0;
    add_up(candidates, count, &in_flight, &weight);
    for (size_t i = 0; i < count; i++) {
        float own = score(&candidates[i], key);
        if ((best == count || own > best_score) && !is_overloaded(&candidates[i], in_flight, weight)) {
            best = i;
            best_score = own;
        }
    }
    return best != count ? best : choose_least_requests(candidates, count);
}

static size_t choose_warm(const struct balance_candidate *candidates, size_t count, uint32_t warm)
{
    uint64_t in_flight, weight;
    for (size_t i = 0; i < count && warm != BALANCE_NOBODY; i++) {
        if (candidates[i].id != warm)
            continue;
        add_up(candidates, count, &in_flight, &weight);
        if (!is_overloaded(&candidates[i], in_flight, weight))
            return i;
        break;
    }
    return choose_least_requests(candidates, count);
}

static size_t choose_fastest(const struct balance_candidate *candidates, size_t count)
{
    uint8_t marked[BALANCE_CANDIDATES_MAX];
    double least = 0;
    size_t equals = 0, best = 0;
    for (size_t i = 0; i < count; i++) {
        const struct balance_candidate *candidate = &candidates[i];
        double in_flight = (double)candidate->in_flight;
        double cost = candidate->latency_us != 0 ? (double)candidate->latency_us * (in_flight + 1)
                                                 : (double)LATENCY_UNKNOWN_US * in_flight;
        cost /= (double)candidate->weight;
        if (i == 0 || cost < least) {
            least = cost;
            best = i;
            equals = 1;
            memset(marked, 0, i);
            marked[i] = 1;
        } else {
            marked[i] = cost == least;
            equals += marked[i];
        }
    }
    return equals == 1 ? best : take_turns(candidates, count, marked);
}

size_t balance_choose(const struct balance_request *request, const struct balance_candidate *candidates, size_t count)
{
    if (count == 1)
        return 0;
    switch (request->policy) {
    case BALANCE_ROUND_ROBIN:
        return take_turns(candidates, count, NULL);
    case BALANCE_POWER_OF_TWO:
        return choose_power_of_two(candidates, count, request->random);
    case BALANCE_CONSISTENT_HASH:
        if (request->has_key)
            return choose_by_key(candidates, count, request->key);
        break;
    case BALANCE_PREFIX:
        return choose_warm(candidates, count, request->warm);
    case BALANCE_LATENCY:
        return choose_fastest(candidates, count);
    case BALANCE_LEAST_REQUESTS:
        break;
    }
    return choose_least_requests(candidates, count);
}

/* ---- latency ---- */

uint64_t balance_latency_now(uint64_t average_us, uint64_t since_us, uint64_t now_us)
{
    /* 1 / (1 + t) in place of e^-t: the same slope at the start, and one division. */
    uint64_t passed = now_us > since_us ? now_us - since_us : 0;
    return average_us == 0
               ? 0
               : 1 + (uint64_t)((double)average_us * ((double)LATENCY_TAU_US / (double)(LATENCY_TAU_US + passed)));
}

uint64_t balance_latency_add(uint64_t average_us, uint64_t since_us, uint64_t sample_us, uint64_t now_us)
{
    uint64_t passed = now_us > since_us ? now_us - since_us : 0;
    if (sample_us == 0)
        sample_us = 1;
    if (average_us == 0 || sample_us >= average_us)
        return sample_us;
    /* The share of the new sample grows with the time since the last one, and is never less than an eighth: a burst of
     * good ones must be able to clear one bad one. */
    uint64_t share = passed * 256 / (LATENCY_TAU_US + passed);
    if (share < 32)
        share = 32;
    return (average_us * (256 - share) + sample_us * share) / 256;
}
