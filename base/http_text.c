#include "base/http_text.h"
#include <ctype.h>

bool http_text_is_clean(struct span text)
{
    for (size_t i = 0; i < text.len; i++)
        if (((unsigned char)text.base[i] < 0x20 && text.base[i] != '\t') || text.base[i] == 0x7f)
            return false;
    return true;
}

bool http_text_is_token(struct span text)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < text.len; i++)
        if (!isalnum((unsigned char)text.base[i]) && (text.base[i] == '\0' || strchr(marks, text.base[i]) == NULL))
            return false;
    return text.len != 0;
}

bool http_text_list_has(struct span list, struct span token)
{
    while (list.len != 0) {
        const char *comma = memchr(list.base, ',', list.len);
        size_t n = comma != NULL ? (size_t)(comma - list.base) : list.len;
        if (span_ieq(span_trim((struct span){list.base, n}), token))
            return true;
        list = span_skip(list, n + 1);
    }
    return false;
}
