#include "gateway/clients.h"
#include "base/bucket.h"
#include "base/ids.h"
#include <h2o/memory.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SETS 4096 /* a power of two */
#define WAYS 8
#define PENALTY_US 10000000
#define FLOOD_US 10000000 /* a flood is forgotten after so long */
#define FLOODS_MAX 5

static const struct bucket_rate key_failures = {.burst = 20, .per_second = 1};

struct client {
    uint64_t network[2]; /* all zero: free */
    uint32_t connections;
    uint64_t floods_until_us; /* FLOOD_US beyond now for each flood that counts */
    uint64_t shut_out_until_us;
    struct bucket failures;
    uint64_t seen_us;
};

struct clients {
    pthread_mutex_t lock; /* guards the sets */
    uint64_t secret[2];   /* so that nobody can choose addresses that share a set */
    struct client sets[SETS][WAYS];
};

struct clients *clients_create(void)
{
    struct clients *clients = calloc(1, sizeof(*clients));
    if (clients == NULL)
        abort();
    pthread_mutex_init(&clients->lock, NULL);
    ids_random(clients->secret, sizeof(clients->secret));
    return clients;
}

void clients_destroy(struct clients *clients)
{
    if (clients == NULL)
        return;
    pthread_mutex_destroy(&clients->lock);
    free(clients);
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The address, or the /64 that it is in. False for the unspecified one. */
static bool network_of(const struct in6_addr *address, uint64_t network[2])
{
    memcpy(network, address, sizeof(*address));
    bool known = (network[0] | network[1]) != 0;
    if (!IN6_IS_ADDR_V4MAPPED(address))
        network[1] = 1; /* ::/64 is a network too, and not free */
    return known;
}

static struct client *set_of(struct clients *clients, const uint64_t network[2])
{
    uint64_t hash = mix(network[0] ^ clients->secret[0], network[1] ^ clients->secret[1] ^ 0x9e3779b97f4a7c15);
    return clients->sets[mix(hash, clients->secret[0] | 1) & (SETS - 1)];
}

static struct client *find(struct clients *clients, const uint64_t network[2])
{
    struct client *set = set_of(clients, network);
    for (size_t i = 0; i < WAYS; i++)
        if (set[i].network[0] == network[0] && set[i].network[1] == network[1])
            return &set[i];
    return NULL;
}

/* Finds it, or makes it in place of the one that was not seen for longest and has no connections. NULL: no room. */
static struct client *get(struct clients *clients, const uint64_t network[2], uint64_t now_us)
{
    struct client *found = find(clients, network), *set = set_of(clients, network);
    if (found == NULL) {
        for (size_t i = 0; i < WAYS; i++)
            if (set[i].connections == 0 && (found == NULL || set[i].seen_us < found->seen_us))
                found = &set[i];
        if (found == NULL)
            return NULL;
        *found = (struct client){.network = {network[0], network[1]}};
    }
    found->seen_us = now_us;
    return found;
}

enum clients_verdict clients_enter(struct clients *clients, const struct in6_addr *address, unsigned per_address,
                                   uint64_t now_us)
{
    uint64_t network[2];
    enum clients_verdict verdict = CLIENTS_ADMITTED;
    if (!network_of(address, network))
        return verdict;
    pthread_mutex_lock(&clients->lock);
    struct client *client = get(clients, network, now_us);
    if (client != NULL && now_us < client->shut_out_until_us)
        verdict = CLIENTS_PENALTY;
    else if (client != NULL && client->connections >= per_address)
        verdict = CLIENTS_TOO_MANY;
    else if (client != NULL)
        client->connections++;
    pthread_mutex_unlock(&clients->lock);
    return verdict;
}

void clients_leave(struct clients *clients, const struct in6_addr *address)
{
    uint64_t network[2];
    if (!network_of(address, network))
        return;
    pthread_mutex_lock(&clients->lock);
    struct client *client = find(clients, network);
    if (client != NULL && client->connections != 0)
        client->connections--;
    pthread_mutex_unlock(&clients->lock);
}

void clients_flooded(struct clients *clients, const struct in6_addr *address, uint64_t now_us)
{
    uint64_t network[2];
    if (!network_of(address, network))
        return;
    pthread_mutex_lock(&clients->lock);
    struct client *client = get(clients, network, now_us);
    if (client != NULL) {
        if (client->floods_until_us < now_us)
            client->floods_until_us = now_us;
        client->floods_until_us += FLOOD_US;
        if (client->floods_until_us > now_us + (FLOODS_MAX - 1) * FLOOD_US) {
            client->floods_until_us = now_us + (FLOODS_MAX - 1) * FLOOD_US;
            client->shut_out_until_us = now_us + PENALTY_US;
        }
    }
    pthread_mutex_unlock(&clients->lock);
}

unsigned clients_key_failed(struct clients *clients, const struct in6_addr *address, uint64_t now_us)
{
    uint64_t network[2], wait_us = 0;
    if (!network_of(address, network))
        return 0;
    pthread_mutex_lock(&clients->lock);
    struct client *client = get(clients, network, now_us);
    if (client != NULL && !bucket_take(&client->failures, &key_failures, now_us))
        wait_us = bucket_wait_us(&client->failures, &key_failures, now_us);
    pthread_mutex_unlock(&clients->lock);
    return (unsigned)((wait_us + 999999) / 1000000);
}
