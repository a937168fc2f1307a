/* For LD_PRELOAD: getaddrinfo finds the names of the file FAKE_NAMES, lines of "NAME ADDRESS...", in that file only,
 * which is read again each time. A name without an address does not exist. */
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*lookup)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
    lookup real = (lookup)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("FAKE_NAMES");
    FILE *file = path != NULL && name != NULL ? fopen(path, "r") : NULL;
    char line[1024], *save, *word;
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if ((word = strtok_r(line, " \n", &save)) == NULL || strcmp(word, name) != 0)
            continue;
        struct addrinfo **end = result;
        *result = NULL;
        while ((word = strtok_r(NULL, " \n", &save)) != NULL && real(word, service, hints, end) == 0)
            while (*end != NULL)
                end = &(*end)->ai_next;
        fclose(file);
        return *result != NULL ? 0 : EAI_NONAME;
    }
    if (file != NULL)
        fclose(file);
    return real(name, service, hints, result);
}
