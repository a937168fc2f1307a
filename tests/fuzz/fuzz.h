/* What the fuzz targets share. Each defines LLVMFuzzerTestOneInput: it is given any bytes, keeps nothing between calls
 * that could change an answer, and aborts where a promise of a header is broken. */
#ifndef WEIR_TESTS_FUZZ_H
#define WEIR_TESTS_FUZZ_H

#include "base/span.h"
#include <stdint.h>
#include <stdio.h>

/* libFuzzer's entry: one input, valid during the call only. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* As assert, whatever NDEBUG is. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition);                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The next byte of the input as a number that a text editor can write: '0' is 0, 'a' is 49. 0 at the end. */
static inline unsigned fuzz_byte(struct span *input)
{
    if (input->len == 0)
        return 0;
    unsigned byte = (unsigned char)input->base[0];
    *input = span_skip(*input, 1);
    return (byte - '0') & 255;
}

/* The next line of the input, without its end. */
static inline struct span fuzz_line(struct span *input)
{
    const char *end = input->len != 0 ? memchr(input->base, '\n', input->len) : NULL;
    struct span line = {input->base, end != NULL ? (size_t)(end - input->base) : input->len};
    *input = span_skip(*input, line.len + 1);
    return line;
}

/* A copy in memory of its exact size, so that AddressSanitizer sees a read beyond it. Free it. */
static inline char *fuzz_exact(struct span text)
{
    char *copy = malloc(text.len != 0 ? text.len : 1);
    if (copy == NULL)
        abort();
    if (text.len != 0)
        memcpy(copy, text.base, text.len);
    return copy;
}

#endif
