/* Finding one field in a multipart/form-data body (RFC 7578), to see which model a request names without keeping or
 * copying the files in it. Strict: where two readers could disagree on the field, it says so. Pure; linear in the
 * body's length. */
#ifndef WEIR_GATEWAY_MULTIPART_H
#define WEIR_GATEWAY_MULTIPART_H

#include "base/span.h"

enum multipart_result {
    MULTIPART_NONE,      /* a proper body without the field */
    MULTIPART_FOUND,     /* *value is the field's content */
    MULTIPART_AMBIGUOUS, /* the field stands twice, or the body is not what its type says */
};

/* Whether a Content-Type is multipart/form-data, in any case. */
bool multipart_is_form(struct span content_type);

/* Looks for the field `name`. The boundary comes from `content_type` (RFC 2046 §5.1.1). */
enum multipart_result multipart_field(struct span content_type, struct span body, struct span name, struct span *value);

#endif
