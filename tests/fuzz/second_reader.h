/* Another reader of JSON, jansson, to compare the scanner with. In a file of its own: both define JSON_OBJECT. */
#ifndef WEIR_TESTS_FUZZ_SECOND_READER_H
#define WEIR_TESTS_FUZZ_SECOND_READER_H

#include "base/span.h"

/* Whether jansson would say the same of this text, or has a reason of its own not to (its limits on numbers, depth and
 * surrogates). `message` is the scanner's, if it refused. */
bool second_reader_agrees(struct span text, bool good, const char *message);

/* What the top-level member is: one of "znbsao" (null, number, bool, string, array, object); '-': not there; '?':
 * cannot be told. */
char second_reader_member(struct span text, const char *name);

#endif
