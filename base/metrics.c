#include "base/metrics.h"
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define uthash_fatal(message) abort()
#include <uthash.h>

#define DEFAULT_MAX_SERIES 1000
#define RECENT 8 /* a power of two */
#define KEY_MAX (METRIC_LABELS_MAX * (METRIC_VALUE_MAX + 2))

/* One label set. `values` and all else but the numbers never change once the series can be seen by a scrape. */
struct metric_series {
    const struct family *family;
    UT_hash_handle hh;
    size_t key_len;
    _Atomic int64_t value;   /* counter, gauge */
    _Atomic uint64_t sum_us; /* histogram */
    _Atomic uint64_t *buckets;
    char key[]; /* for each label: length (2 bytes, big-endian), bytes */
};

struct family {
    const struct metric_family *def;
    size_t label_count;
    struct metric_series *series;           /* hash, in order of making */
    struct metric_series *recent[RECENT];   /* the owner's: a few label sets are nearly all that is asked for */
    uint64_t bounds_us[METRIC_BUCKETS_MAX]; /* def->buckets in microseconds */
    size_t bound_count;
};

/* `lock` guards the hash tables between their owner, who alone changes them, and scrapes; the owner reads without it.
 */
struct metrics_shard {
    pthread_mutex_t lock;
    size_t count;
    struct family families[];
};

struct metrics_shard *metrics_shard_create(const struct metric_family *families, size_t count)
{
    struct metrics_shard *shard = calloc(1, sizeof(*shard) + count * sizeof(shard->families[0]));
    if (shard == NULL || pthread_mutex_init(&shard->lock, NULL) != 0)
        abort();
    shard->count = count;
    for (size_t i = 0; i < count; i++) {
        struct family *family = &shard->families[i];
        family->def = &families[i];
        while (family->label_count < METRIC_LABELS_MAX && families[i].labels[family->label_count] != NULL)
            family->label_count++;
        if (families[i].type != METRIC_HISTOGRAM)
            continue;
        if (families[i].bucket_count > METRIC_BUCKETS_MAX)
            abort(); /* the table is the program's own */
        family->bound_count = families[i].bucket_count;
        for (size_t b = 0; b < family->bound_count; b++)
            family->bounds_us[b] = (uint64_t)llround(families[i].buckets[b] * 1e6);
    }
    return shard;
}

void metrics_shard_destroy(struct metrics_shard *shard)
{
    if (shard == NULL)
        return;
    for (size_t i = 0; i < shard->count; i++) {
        struct metric_series *series, *next;
        HASH_ITER(hh, shard->families[i].series, series, next)
        {
            HASH_DEL(shard->families[i].series, series);
            free(series->buckets);
            free(series);
        }
    }
    pthread_mutex_destroy(&shard->lock);
    free(shard);
}

static size_t make_key(const struct family *family, const struct span *values, char *key)
{
    size_t len = 0;
    for (size_t i = 0; i < family->label_count; i++) {
        size_t n = values[i].len;
        if (n > METRIC_VALUE_MAX) {
            n = METRIC_VALUE_MAX;
            while (n > METRIC_VALUE_MAX - 4 && ((unsigned char)values[i].base[n] & 0xC0) == 0x80)
                n--; /* not within a character */
        }
        key[len++] = (char)(n >> 8);
        key[len++] = (char)(n & 0xFF);
        if (n != 0)
            memcpy(key + len, values[i].base, n);
        len += n;
    }
    return len;
}

/* Whether a series has just these values; make_key's way of writing them, read. */
static bool has_values(const struct metric_series *series, size_t label_count, const struct span *values)
{
    const unsigned char *at = (const unsigned char *)series->key;
    for (size_t i = 0; i < label_count; i++) {
        size_t n = (size_t)at[0] << 8 | at[1];
        if (n != values[i].len || (n != 0 && memcmp(at + 2, values[i].base, n) != 0))
            return false;
        at += 2 + n;
    }
    return true;
}

static struct metric_series *find(struct family *family, const char *key, size_t len)
{
    struct metric_series *series;
    HASH_FIND(hh, family->series, key, len, series);
    return series;
}

static struct metric_series *make(struct metrics_shard *shard, struct family *family, const char *key, size_t len)
{
    struct metric_series *series = calloc(1, sizeof(*series) + len + 1);
    if (series == NULL)
        abort();
    series->family = family;
    series->key_len = len;
    memcpy(series->key, key, len);
    if (family->def->type == METRIC_HISTOGRAM) {
        series->buckets = calloc(family->bound_count + 1, sizeof(series->buckets[0]));
        if (series->buckets == NULL)
            abort();
    }
    pthread_mutex_lock(&shard->lock);
    HASH_ADD_KEYPTR(hh, family->series, series->key, len, series);
    pthread_mutex_unlock(&shard->lock);
    return series;
}

struct metric_series *metrics_series(struct metrics_shard *shard, size_t index, const struct span *values)
{
    struct family *family = &shard->families[index];
    unsigned ends = 0; /* of the values: what tells them apart most often */
    for (size_t i = 0; i < family->label_count; i++)
        ends = ends * 5 + (values[i].len != 0 ? (unsigned char)values[i].base[values[i].len - 1] : 0);
    struct metric_series **recent = &family->recent[(ends ^ ends >> 4) & (RECENT - 1)], *series = *recent;
    if (series != NULL && has_values(series, family->label_count, values))
        return series;
    char key[KEY_MAX];
    size_t len = make_key(family, values, key);
    series = find(family, key, len);
    if (series != NULL)
        return *recent = series;
    unsigned max = family->def->max_series != 0 ? family->def->max_series : DEFAULT_MAX_SERIES;
    if (HASH_COUNT(family->series) >= max) {
        const struct span other[METRIC_LABELS_MAX] = {SPAN("other"), SPAN("other"), SPAN("other"), SPAN("other")};
        len = make_key(family, other, key);
        series = find(family, key, len);
        if (series != NULL)
            return series;
    }
    return make(shard, family, key, len);
}

/* The owner is the only one to write, so a load and a store do; they are cheaper than a locked addition. */
static void bump(_Atomic uint64_t *value, uint64_t delta)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + delta, memory_order_relaxed);
}

static uint64_t peek(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

void metric_add(struct metric_series *series, int64_t delta)
{
    int64_t value = atomic_load_explicit(&series->value, memory_order_relaxed);
    atomic_store_explicit(&series->value, (int64_t)((uint64_t)value + (uint64_t)delta), memory_order_relaxed);
}

void metric_observe_us(struct metric_series *series, uint64_t microseconds)
{
    const struct family *family = series->family;
    size_t i = 0;
    while (i < family->bound_count && microseconds > family->bounds_us[i])
        i++;
    bump(&series->buckets[i], 1);
    bump(&series->sum_us, microseconds);
}

int64_t metric_value(const struct metric_series *series)
{
    if (series->family->def->type != METRIC_HISTOGRAM)
        return atomic_load_explicit(&series->value, memory_order_relaxed);
    uint64_t count = 0;
    for (size_t i = 0; i <= series->family->bound_count; i++)
        count += peek(&series->buckets[i]);
    return (int64_t)count;
}

/* The sum over all shards of the series that read the same. */
struct total {
    UT_hash_handle hh;
    int64_t value;
    uint64_t sum_us;
    uint64_t buckets[METRIC_BUCKETS_MAX + 1];
    size_t len;
    char labels[]; /* as written, without braces */
};

/* `quotes` for a label's value, without for a HELP text. */
static void add_escaped(struct strbuf *out, struct span text, bool quotes)
{
    while (text.len != 0) {
        size_t len = strbuf_utf8_len(text);
        char c = text.base[0];
        if (len == 0)
            strbuf_puts(out, "\xEF\xBF\xBD");
        else if (c == '\n')
            strbuf_puts(out, "\\n");
        else if (c == '\\' || (c == '"' && quotes))
            strbuf_add(out, (struct span){(char[]){'\\', c}, 2});
        else
            strbuf_add(out, (struct span){text.base, len});
        text = span_skip(text, len != 0 ? len : 1);
    }
}

static void add_labels(struct strbuf *out, const struct metric_series *series)
{
    const char *at = series->key;
    for (size_t i = 0; i < series->family->label_count; i++) {
        size_t len = (size_t)(unsigned char)at[0] << 8 | (unsigned char)at[1];
        if (i != 0)
            strbuf_putc(out, ',');
        strbuf_puts(out, series->family->def->labels[i]);
        strbuf_puts(out, "=\"");
        add_escaped(out, (struct span){at + 2, len}, true);
        strbuf_putc(out, '"');
        at += 2 + len;
    }
}

static void add_total(struct total **totals, const struct metric_series *series, struct strbuf *scratch)
{
    struct total *total;
    strbuf_reset(scratch);
    add_labels(scratch, series);
    const char *labels = strbuf_cstr(scratch);
    HASH_FIND(hh, *totals, labels, scratch->len, total);
    if (total == NULL) {
        total = calloc(1, sizeof(*total) + scratch->len + 1);
        if (total == NULL)
            abort();
        total->len = scratch->len;
        memcpy(total->labels, labels, scratch->len);
        HASH_ADD_KEYPTR(hh, *totals, total->labels, total->len, total);
    }
    if (series->buckets == NULL) {
        total->value += metric_value(series);
        return;
    }
    total->sum_us += peek(&series->sum_us);
    for (size_t i = 0; i <= series->family->bound_count; i++)
        total->buckets[i] += peek(&series->buckets[i]);
}

/* Adds up one family of one shard. The lock is held only to note which series there are. */
static void add_shard(struct total **totals, struct metrics_shard *shard, size_t index, struct strbuf *scratch)
{
    pthread_mutex_lock(&shard->lock);
    size_t count = HASH_COUNT(shard->families[index].series), n = 0;
    const struct metric_series **all = calloc(count + 1, sizeof(*all));
    if (all == NULL)
        abort();
    for (struct metric_series *series = shard->families[index].series; series != NULL; series = series->hh.next)
        all[n++] = series;
    pthread_mutex_unlock(&shard->lock);
    for (size_t i = 0; i < n; i++)
        add_total(totals, all[i], scratch);
    free(all);
}

static void write_name(struct strbuf *out, const char *name, const char *suffix, const struct total *total,
                       const char *le)
{
    strbuf_puts(out, name);
    strbuf_puts(out, suffix);
    if (total->len != 0 || le != NULL) {
        strbuf_putc(out, '{');
        strbuf_add(out, (struct span){total->labels, total->len});
        if (le != NULL)
            strbuf_printf(out, "%sle=\"%s\"", total->len != 0 ? "," : "", le);
        strbuf_putc(out, '}');
    }
    strbuf_putc(out, ' ');
}

static void write_histogram(struct strbuf *out, const struct family *family, const struct total *total)
{
    const char *name = family->def->name;
    uint64_t count = 0;
    for (size_t i = 0; i <= family->bound_count; i++) {
        char le[40] = "+Inf";
        if (i < family->bound_count)
            snprintf(le, sizeof(le), "%.15g", family->def->buckets[i]);
        count += total->buckets[i];
        write_name(out, name, "_bucket", total, le);
        strbuf_u64(out, count);
        strbuf_putc(out, '\n');
    }
    write_name(out, name, "_sum", total, NULL);
    strbuf_printf(out, "%llu.%06u\n", (unsigned long long)(total->sum_us / 1000000),
                  (unsigned)(total->sum_us % 1000000));
    write_name(out, name, "_count", total, NULL);
    strbuf_u64(out, count);
    strbuf_putc(out, '\n');
}

static void write_family(struct strbuf *out, const struct family *family, struct total *totals)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    const struct metric_family *def = family->def;
    strbuf_printf(out, "# HELP %s ", def->name);
    add_escaped(out, span_of(def->help), false);
    strbuf_printf(out, "\n# TYPE %s %s\n", def->name, types[def->type]);
    struct total *total, *next;
    HASH_ITER(hh, totals, total, next)
    {
        if (def->type == METRIC_HISTOGRAM) {
            write_histogram(out, family, total);
        } else {
            write_name(out, def->name, "", total, NULL);
            strbuf_i64(out, total->value);
            strbuf_putc(out, '\n');
        }
        HASH_DEL(totals, total);
        free(total);
    }
}

void metrics_write(struct metrics_shard *const *shards, size_t count, struct strbuf *out)
{
    if (count == 0)
        return;
    struct strbuf scratch;
    /* A byte of a value grows to three at most; the names are the program's own. */
    strbuf_init(&scratch, 1 << 20);
    for (size_t i = 0; i < shards[0]->count; i++) {
        struct total *totals = NULL;
        for (size_t s = 0; s < count; s++)
            add_shard(&totals, shards[s], i, &scratch);
        write_family(out, &shards[0]->families[i], totals);
    }
    strbuf_dispose(&scratch);
}
