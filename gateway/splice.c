#include "gateway/splice.h"

void splice_body(struct span body, struct splice *splices, size_t count, struct span pieces[EXCHANGE_BODY_PIECES])
{
    if (count == 2 && splices[1].old.base < splices[0].old.base) {
        struct splice first = splices[1];
        splices[1] = splices[0];
        splices[0] = first;
    }
    for (size_t i = 0; i < count; i++) {
        size_t before = (size_t)(splices[i].old.base - body.base);
        *pieces++ = (struct span){body.base, before};
        *pieces++ = splices[i].text;
        body = span_skip(body, before + splices[i].old.len);
    }
    *pieces = body;
}

bool splice_usage(const struct json_value *root, const struct json_value *options, struct splice *splice)
{
    static const struct span names[] = {SPAN("include_usage")};
    struct json_value include;
    struct json_error error;
    /* Which of two counts is anybody's guess. */
    if (root->type != JSON_OBJECT || root->count == 0 || options->duplicate)
        return false;
    switch (options->type) {
    case JSON_MISSING:
        *splice = (struct splice){{root->raw.base + 1, 0}, SPAN("\"stream_options\":{\"include_usage\":true},")};
        return true;
    case JSON_NULL:
        *splice = (struct splice){options->raw, SPAN("{\"include_usage\":true}")};
        return true;
    case JSON_OBJECT:
        break;
    default:
        return false;
    }
    if (!json_scan(options->raw, names, 1, &include, NULL, &error) || include.duplicate)
        return false;
    if (include.type == JSON_MISSING) {
        *splice = (struct splice){{options->raw.base + 1, 0}, SPAN("\"include_usage\":true,")};
        if (options->count == 0)
            splice->text.len--; /* without the comma */
        return true;
    }
    if (include.type != JSON_NULL && (include.type != JSON_BOOL || include.truth))
        return false;
    *splice = (struct splice){include.raw, SPAN("true")};
    return true;
}
