/* Metrics in the Prometheus sense. Families are const tables; each worker has a shard of its own, written only by that
 * worker without locks (relaxed atomics, so that a scrape from any thread may read); a scrape adds the shards up. The
 * number of series in a family is bounded: beyond its `max_series` all further label sets share one series whose labels
 * all say "other". */
#ifndef WEIR_BASE_METRICS_H
#define WEIR_BASE_METRICS_H

#include "base/span.h"
#include "base/strbuf.h"
#include <stdint.h>

#define METRIC_LABELS_MAX 4
#define METRIC_BUCKETS_MAX 24
#define METRIC_VALUE_MAX 256 /* bytes of a label's value; what is longer is cut */

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_family {
    const char *name; /* with its unit and `_total` where Prometheus wants them; no `_bucket` */
    const char *help;
    enum metric_type type;
    const char *labels[METRIC_LABELS_MAX]; /* NULL-terminated unless full */
    const double *buckets;                 /* histogram: ascending upper bounds in seconds, without +Inf */
    size_t bucket_count;
    unsigned max_series; /* 0 means 1000 */
};

struct metrics_shard; /* one worker's values */
struct metric_series; /* one label set of one family in one shard; lives as long as the shard */

/* A shard for the families `families[0..count)`, which must outlive it. */
struct metrics_shard *metrics_shard_create(const struct metric_family *families, size_t count);
void metrics_shard_destroy(struct metrics_shard *shard);

/* Finds or makes the series of families[family] with these label values (as many as the family has labels; copied;
 * invalid UTF-8 is replaced on output). Owner thread only. Keep the pointer where it is used per event. */
struct metric_series *metrics_series(struct metrics_shard *shard, size_t family, const struct span *values);

/* Adds to a counter or gauge. Owner thread only. */
void metric_add(struct metric_series *series, int64_t delta);

/* Records a duration in a histogram. Owner thread only; a few nanoseconds. */
void metric_observe_us(struct metric_series *series, uint64_t microseconds);

/* The present value of a counter or gauge, or a histogram's count. Any thread. */
int64_t metric_value(const struct metric_series *series);

/* Writes all families, also those without series, added up over `shards`, in the text format 0.0.4 of Prometheus: HELP
 * and TYPE once per family, label values escaped, histograms with cumulative buckets, sum in seconds and count. Any
 * thread. The shards must be of the same family table. */
void metrics_write(struct metrics_shard *const *shards, size_t count, struct strbuf *out);

#endif
