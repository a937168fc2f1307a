/* A peer's address in the one form that weir keeps addresses in: IPv6, with IPv4 mapped into it. */
#ifndef WEIR_GATEWAY_ADDRESS_H
#define WEIR_GATEWAY_ADDRESS_H

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* The unspecified address for NULL and for unix sockets. */
static inline struct in6_addr address_of(const struct sockaddr_storage *sa)
{
    struct in6_addr address = IN6ADDR_ANY_INIT;
    if (sa != NULL && sa->ss_family == AF_INET6) {
        address = ((const struct sockaddr_in6 *)sa)->sin6_addr;
    } else if (sa != NULL && sa->ss_family == AF_INET) {
        address.s6_addr[10] = address.s6_addr[11] = 0xff;
        memcpy(&address.s6_addr[12], &((const struct sockaddr_in *)sa)->sin_addr, 4);
    }
    return address;
}

#endif
