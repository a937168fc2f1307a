/* The answer to /metrics: what was counted, and what is looked up when it is asked for. */
#include "base/clock.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

/* The names that Prometheus' own client libraries use for the process. */
static void write_process(struct strbuf *out)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    strbuf_printf(
        out,
        "# HELP process_cpu_seconds_total User and system time used.\n# TYPE process_cpu_seconds_total counter\n"
        "process_cpu_seconds_total %.2f\n",
        cpu);
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm != NULL) {
        if (fscanf(statm, "%*u %lu", &pages) != 1)
            pages = 0;
        fclose(statm);
    }
    strbuf_printf(out,
                  "# HELP process_resident_memory_bytes Resident memory.\n# TYPE process_resident_memory_bytes gauge\n"
                  "process_resident_memory_bytes %lu\n",
                  pages * (unsigned long)sysconf(_SC_PAGESIZE));
    unsigned long descriptors = 0;
    DIR *fds = opendir("/proc/self/fd");
    if (fds != NULL) {
        while (readdir(fds) != NULL)
            descriptors++;
        closedir(fds);
    }
    strbuf_printf(
        out, "# HELP process_open_fds Open file descriptors.\n# TYPE process_open_fds gauge\nprocess_open_fds %lu\n",
        descriptors > 3 ? descriptors - 3 : 0);
}

static void write_one(struct strbuf *out, const char *name, const char *type, const char *help, uint64_t value)
{
    strbuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", name, help, name, type, name,
                  (unsigned long long)value);
}

static void write_cache_redis(struct worker *const *workers, size_t worker_count, struct strbuf *out)
{
    struct redis_cache *stores[CONFIG_WORKERS_MAX];
    size_t count = 0;
    /* After a reload that turns the cache on each has its own as soon as it comes to it. */
    for (size_t i = 0; i < worker_count; i++)
        if ((stores[count] = workers[i]->cache_redis) != NULL)
            count++;
    if (count == 0)
        return;
    strbuf_puts(out, "# HELP weir_cache_redis_total What became of look-ups, writes and replays of answers in Redis.\n"
                     "# TYPE weir_cache_redis_total counter\n");
    for (int event = 0; event < REDIS_CACHE_EVENTS; event++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < count; i++)
            sum += redis_cache_count(stores[i], (enum redis_cache_event)event);
        strbuf_printf(out, "weir_cache_redis_total{event=\"%s\"} %llu\n",
                      redis_cache_event_name((enum redis_cache_event)event), (unsigned long long)sum);
    }
}

/* One line for each backend; `value` reads its number. */
static void write_servers(struct strbuf *out, const struct fleet_set *set, const char *name, const char *type,
                          const char *help, uint64_t (*value)(const struct fleet_server *server))
{
    strbuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
    for (size_t i = 0; i < set->count; i++) {
        strbuf_printf(out, "%s{backend=", name);
        strbuf_json(out, span_of(set->servers[i]->name)); /* names are printable, without quotes */
        strbuf_printf(out, "} %llu\n", (unsigned long long)value(set->servers[i]));
    }
}

static uint64_t ejections_of(const struct fleet_server *server)
{
    return atomic_load_explicit(&server->ejections, memory_order_relaxed);
}

static uint64_t pauses_of(const struct fleet_server *server)
{
    return atomic_load_explicit(&server->pauses, memory_order_relaxed);
}

static uint64_t is_up(const struct fleet_server *server)
{
    return fleet_standing(server, clock_us()) == FLEET_OPEN;
}

static uint64_t is_failing(const struct fleet_server *server)
{
    return fleet_is_avoided(server);
}

static void write_fleet(struct fleet *fleet, struct strbuf *out)
{
    struct fleet_set *set = fleet_set_get(fleet);
    write_servers(out, set, "weir_backend_up", "gauge", "Whether a backend may be given requests.", is_up);
    write_servers(out, set, "weir_backend_failing", "gauge",
                  "Whether a backend fails, but is the last one that serves a model.", is_failing);
    write_servers(out, set, "weir_backend_ejections_total", "counter", "How often a backend was ejected.",
                  ejections_of);
    write_servers(out, set, "weir_backend_pauses_total", "counter",
                  "How often a backend was paused because it asked for it.", pauses_of);
    fleet_set_release(set);
    write_one(out, "weir_queue_waiting", "gauge", "Requests that wait for a backend with a free place.",
              fleet_waiting(fleet));
}

static void write_stores(const struct server *server, struct strbuf *out)
{
    if (server->limits != NULL) {
        struct store_counts counts;
        store_count(server->limits, &counts);
        write_one(out, "weir_limit_entries", "gauge", "Clients whose limits are counted.", counts.entries);
        write_one(out, "weir_limit_bytes", "gauge", "Memory of those counts.", counts.bytes);
        write_one(out, "weir_limit_evictions_total", "counter", "Expired counts that gave way to new ones.",
                  counts.evictions);
        write_one(out, "weir_limit_overflows_total", "counter",
                  "Decisions on counts that clients share for lack of room.", counts.overflows);
    }
    if (server->limits != NULL && server->first->redis.on)
        write_one(out, "weir_limit_gateways", "gauge", "Gateways that share the limits in Redis, when last counted.",
                  atomic_load_explicit(&server->gateways, memory_order_relaxed));
    if (server->cache != NULL) {
        struct cache_memory_counts counts;
        cache_memory_counts(server->cache, &counts);
        write_one(out, "weir_cache_entries", "gauge", "Stored answers.", counts.entries);
        write_one(out, "weir_cache_bytes", "gauge", "Memory of the stored answers.", counts.bytes);
        write_one(out, "weir_cache_stores_total", "counter", "Answers stored.", counts.stores);
        write_one(out, "weir_cache_evictions_total", "counter", "Answers thrown out to make room.", counts.evictions);
        write_one(out, "weir_cache_expirations_total", "counter", "Answers found too old.", counts.expirations);
    }
}

void telemetry_write(struct worker *const *workers, size_t worker_count, struct fleet *fleet, struct strbuf *out)
{
    struct metrics_shard *shards[CONFIG_WORKERS_MAX];
    for (size_t i = 0; i < worker_count; i++)
        shards[i] = workers[i]->telemetry.shard;
    metrics_write(shards, worker_count, out);
    write_fleet(fleet, out);
    write_stores(workers[0]->server, out);
    if (workers[0]->server->first->redis.on)
        redis_state_write(&workers[0]->server->redis, workers, worker_count, out);
    write_cache_redis(workers, worker_count, out);
    strbuf_printf(out,
                  "# HELP weir_log_lines_dropped_total Log lines dropped because their reader was too slow.\n"
                  "# TYPE weir_log_lines_dropped_total counter\nweir_log_lines_dropped_total %llu\n",
                  (unsigned long long)log_dropped());
    strbuf_printf(out,
                  "# HELP weir_build_info The running version.\n# TYPE weir_build_info "
                  "gauge\nweir_build_info{version=\"%s\"} 1\n",
                  WEIR_VERSION);
    write_process(out);
}
