# Reads "ROUND GATEWAY MEASURE VALUE" lines; prints tables in markdown: each gateway's median and range, the medians of the
# rounds' ratios, what weir's features cost, and the goals. Exits 1 if a measurement failed.

function add(list, count, value,    i) { # keeps list[1..count] sorted
    for (i = count; i > 0 && list[i] > value; i--)
        list[i + 1] = list[i]
    list[i + 1] = value
}

function middle(list, count) {
    return count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
}

function digits(x) {
    return x >= 1000 || x <= -1000 ? sprintf("%.0f", x) : sprintf("%.1f", x)
}

# The value of a measurement, into `found`; false if it is missing or failed. "added NAME" is what a gateway adds to the
# model server asked directly; "more NAME" what weir uses with something on more than without.
function get(round, gateway, name,    direct) {
    if (name ~ /^more /) {
        sub(/^more /, "", name)
        if (!((round, "weir-on", name) in value) || !((round, "weir-off", name) in value))
            return 0
        found = value[round, "weir-on", name] - value[round, "weir-off", name]
        return 1
    }
    if (name ~ /^added /) {
        sub(/^added /, "", name)
        direct = name
        sub(/^[^.]*/, "h1", direct)
        if (!((round, gateway, name) in value) || !((round, name ~ /^h2/ ? "direct-h2" : "direct", direct) in value))
            return 0
        found = value[round, gateway, name] - value[round, name ~ /^h2/ ? "direct-h2" : "direct", direct]
        return 1
    }
    if (!((round, gateway, name) in value))
        return 0
    found = value[round, gateway, name]
    return 1
}

# The median over the rounds into `median`, what to print of it into `text`; false if there is none.
function over_rounds(gateway, name, format,    round, list, count) {
    count = 0
    for (round = 1; round <= rounds; round++)
        if (get(round, gateway, name))
            add(list, count++, found)
    return summary(list, count, format)
}

# The same of the rounds' ratios.
function ratios(gateway, name, other, other_name,    round, list, count, ours) {
    count = 0
    for (round = 1; round <= rounds; round++) {
        if (!get(round, gateway, name))
            continue
        ours = found
        if (get(round, other, other_name) && found > 0 && ours > 0) # an added time may drown in the noise
            add(list, count++, ours / found)
    }
    return summary(list, count, "%.2f")
}

function summary(list, count, format) {
    text = "-"
    if (count == 0)
        return 0
    median = middle(list, count)
    text = show(median, format)
    if (count > 1)
        text = text " (" show(list[1], format) " to " show(list[count], format) ")"
    return 1
}

function show(x, format) {
    return format == "" ? digits(x) : sprintf(format, x)
}

# A table is kept until its columns' widths are known; cells are split at "|".
function begin(heading) {
    lines = 0
    line(heading)
}

function line(cells,    list, i) {
    rows[++lines] = cells
    columns = split(cells, list, "|")
    for (i = 1; i <= columns; i++)
        if (lines == 1 || length(list[i]) > width[i])
            width[i] = length(list[i])
}

function flush_table(    i, j, list, rule) {
    if (lines > 1)
        for (i = 1; i <= lines; i++) {
            split(rows[i], list, "|")
            rule = "|"
            for (j = 1; j <= columns; j++) {
                printf "| %-" width[j] "s ", list[j]
                rule = rule (j == 1 ? "---|" : "---:|")
            }
            print "|"
            if (i == 1)
                print rule
        }
    if (lines > 1)
        print ""
}

function row(label, name,    cells, i, any) {
    cells = label
    any = 0
    for (i = 1; i <= gateways; i++) {
        any = over_rounds(gateway[i], name, "") || any
        cells = cells "|" text
    }
    if (!any)
        return
    ratios("weir", name, "nginx", name)
    cells = cells "|" text
    ratios("weir", name, "relay", name)
    line(cells "|" text)
}

# Over each transport.
function rows_over(label, name,    i) {
    for (i = 1; i <= 4; i++)
        row(label ", " words[i], (name ~ /^added / ? "added " : "") transport[i] "." substr(name, name ~ /^added / ? 7 : 1))
}

function feature(label, request, event,    cells, any) {
    any = over_rounds("weir", request, "%.2f")
    cells = label "|" text
    any = over_rounds("weir", event, "%.3f") || any
    if (any)
        line(cells "|" text)
}

# What the cache's key of a body of this shape costs; its name has - for each space.
function digest(shape,    cells) {
    cells = shape
    gsub("-", " ", cells)
    over_rounds("weir", "digest_memory-" shape, "%.2f")
    cells = cells "|" text
    over_rounds("weir", "digest_redis-" shape, "%.2f")
    line(cells "|" text)
}

# A measure of "scale" over both transports; the label has a %s for the number of streams.
function scale(name, label,    i, k, streams, words_of) {
    split("500 5000 15000", streams, " ")
    split("500 5,000 15,000", words_of, " ")
    for (i = 1; i <= 3; i += 2)
        for (k = 1; k <= 3; k++)
            row(sprintf(label, words_of[k]) (i == 1 ? "" : ", HTTP/2"),
                transport[i] ".scale_" streams[k] "_" name)
}

# The goal that an event costs with so many streams what it costs with 500.
function linear(transport, streams, label) {
    goal(label, 1.2, transport ".scale_" streams "_us_per_event", "self", transport ".scale_500_us_per_event")
}

# A goal: that a ratio (or with other = "" the value itself) of weir is at most `most`. It is promised with limits too, but
# not with the cache, which keeps each answer: how weir with all on does is told, but no failure.
function goal(label, most, name, other, other_name,    who, cells, i) {
    cells = label
    for (i = 1; i <= 3; i++) {
        who = i == 1 ? "weir" : i == 2 ? "weir-limits" : "weir-all"
        if (other == "" ? over_rounds(who, name, "") : ratios(who, name, other == "self" ? who : other, other_name))
            text = text (median <= most ? ", reached" : i == 3 ? ", beyond it" : ", NOT REACHED")
        else if (i == 1)
            return
        cells = cells "|" text
    }
    line(cells)
}

BEGIN {
    all_gateways = split("relay nginx haproxy weir weir-limits weir-all", known, " ")
    titles["weir-limits"] = "weir, three limits"
    titles["weir-all"] = "weir, all on"
    split("h1 tls h2 h2tls", transport, " ")
    split("HTTP/1.1;HTTP/1.1 TLS;HTTP/2;HTTP/2 TLS", words, ";")
}

$4 == "failed" { failed++; next }
$1 == 1 && sub(/^digest_memory-/, "", $3) { shapes[++shape_count] = $3; $3 = "digest_memory-" $3 }
{ value[$1, $2, $3] = $4 + 0; seen[$2] = 1 }

END {
    heading = "medians of " rounds " round(s) (range)"
    for (i = 1; i <= all_gateways; i++)
        if (known[i] in seen || known[i] == "weir") {
            gateway[++gateways] = known[i]
            heading = heading "|" (known[i] in titles ? titles[known[i]] : known[i])
        }
    begin(heading "|weir/nginx|weir/relay")
    rows_over("W1 32 streams flat out: CPU us/event", "flat_us_per_event")
    rows_over("W2 500 streams x 50 events/s: CPU us/event", "us_per_event")
    row("W2 both at once, 250 streams each: CPU us/event", "pair_us_per_event")
    rows_over("W3 small JSON, 64 at a time: CPU us/request", "us_per_request")
    rows_over("W4 5,000 open streams: KiB each", "kib_per_stream")
    rows_over("W5 500 requests/s: added p50 us", "added p50_us")
    rows_over("W5 500 requests/s: added p99 us", "added p99_us")
    scale("us_per_event", "5,000 events/s of %s streams: CPU us/event")
    scale("kib", "%s of these streams: KiB each")
    row("W2's 500 streams after some 250 events: KiB each", "h1.small_kib_per_stream")
    row("W2's 500 streams after some 250 events, HTTP/2: KiB each", "h2.small_kib_per_stream")
    row("W2 with two workers: CPU us/event", "h1.two_us_per_event")
    row("prompt of 1 KB: CPU us/request", "h1.prompt_1_us")
    row("prompt of 100 KB: CPU us/request", "h1.prompt_100_us")
    row("prompt of 1 MB: CPU us/request", "h1.prompt_1024_us")
    row("cache hit, 100 events: CPU us", "cpu_us_per_hit")
    row("cache hit, 100 events: hits/s", "hits_per_second")
    row("meanwhile: part of a processor, %", "hit_busy_percent")
    row("cache hit in memory, Redis behind it: CPU us", "us_per_hit_of_two")
    row("cache hit from Redis, 2 KB request: CPU us", "us_per_redis_hit")
    row("cache hit from Redis, 2 KB request: hits/s", "redis_hits_per_second")
    row("three limits, fixed_window: ns/decision", "fixed_window_passed")
    row("three limits, moving_window: ns/decision", "moving_window_passed")
    row("three limits, sliding_window_counter: ns/decision", "sliding_window_counter_passed")
    row("three limits, fixed_window: CPU ns/decision", "fixed_window_used")
    row("three limits, moving_window: CPU ns/decision", "moving_window_used")
    row("three limits, sliding_window_counter: CPU ns", "sliding_window_counter_used")
    flush_table()

    begin("what a feature of weir adds|CPU us/request of 2 KB, 6,400/s|CPU us/event")
    feature("an API key", "key_request", "")
    feature("the JSON log", "log_request", "")
    feature("metrics (by themselves, not paired)", "metrics_request", "metrics_event")
    feature("three limits", "limits_request", "")
    feature("a token limit", "tokens_request", "more tokens_event")
    feature("the cache, on a miss", "miss_request", "more cache_event")
    feature("the cache, full (64 MiB), on a miss", "full_miss_request", "")
    feature("three limits, a token limit and the cache", "all_request", "more all_event")
    flush_table()

    begin("the cache's key of a body of 1 MB|CPU ms/MB|with a Redis")
    for (i = 1; i <= shape_count; i++)
        digest(shapes[i])
    flush_table()

    begin("goal|weir|weir, three limits|weir, all on")
    goal("W2 CPU/event at most 1.00 x nginx", 1, "h1.us_per_event", "nginx", "h1.us_per_event")
    goal("W2 CPU/event at most 1.05 x the relay", 1.05, "h1.us_per_event", "relay", "h1.us_per_event")
    goal("W2 over HTTP/2 at most the relay's over HTTP/1.1", 1, "h2.us_per_event", "relay", "h1.us_per_event")
    goal("W3 CPU/request at most 1.00 x nginx", 1, "h1.us_per_request", "nginx", "h1.us_per_request")
    goal("W4 at most 12 KiB a stream", 12, "h1.kib_per_stream", "")
    goal("W5 added p50 at most nginx's", 1, "added h1.p50_us", "nginx", "added h1.p50_us")
    goal("W5 added p99 at most nginx's", 1, "added h1.p99_us", "nginx", "added h1.p99_us")
    goal("cache hit at most nginx's proxy_cache", 1, "cpu_us_per_hit", "nginx", "cpu_us_per_hit")
    goal("a cache miss adds at most 5 us to a 2 KB request", 5, "miss_request", "")
    goal("the cache's key at most 1 ms/MB, whatever the body", 1, "slowest_digest_memory", "")
    goal("the same with a Redis", 1, "slowest_digest_redis", "")
    goal("prompt of 100 KB at most 1.50 x nginx", 1.5, "h1.prompt_100_us", "nginx", "h1.prompt_100_us")
    linear("h1", "5000", "5,000 streams: CPU/event at most 1.20 x that of 500")
    linear("h1", "15000", "15,000 streams: CPU/event at most 1.20 x that of 500")
    linear("h2", "5000", "5,000 over HTTP/2: CPU/event at most 1.20 x that of 500")
    linear("h2", "15000", "15,000 over HTTP/2: CPU/event at most 1.20 x that of 500")
    goal("two workers: CPU/event at most 1.20 x that of one", 1.2, "h1.two_us_per_event", "self", "h1.us_per_event")
    flush_table()
    if (failed) {
        print failed " measurement(s) FAILED and are left out"
        exit 1
    }
}
