# shellcheck shell=sh
# The workloads of the benchmark over each transport. Sourced by run.sh, after peers.sh; POSIX sh.
#
# HTTP/1.1 is driven by load.c, which checks every answer and counts events; HTTP/2 by h2load, whose statuses and bytes
# are checked against what the model server sends. A check that fails makes a measurement "failed", never a number.
# shellcheck disable=SC2154 # tmp, key, fake, address, pids …: set by run.sh and peers.sh

load() {
    mode=$1
    to=$2
    shift 2
    taskset -c 1 "$tmp/load" "$mode" --address "$to" --key "$key" "$@"
}

# load_gateway GATEWAY TRANSPORT MODE ADDRESS OPTIONS...: with what else that gateway's answers must show. What is cached
# gets another prompt each time: otherwise the cache would answer, or join requests into one.
load_gateway() {
    asked=$1
    [ "$2" != tls ] || set -- "$@" --tls
    shift 2
    case $asked in
    weir-cache | weir-all) set -- "$@" --serial "$serial" --header "x-cache: miss" ;;
    weir-limits | weir-tokens) set -- "$@" --header "x-ratelimit-limit" ;;
    esac
    load "$@"
}

# The bodies that load.c makes.
h2_bodies() {
    messages='[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"Why is the sky blue, and why is it red in the evening?"}]'
    printf '{"model":"fake-1","messages":%s,"stream":true}' "$messages" >"$tmp/stream.json"
    printf '{"model":"fake-1","messages":%s}' "$messages" >"$tmp/json.json"
}

# h2_load ADDRESS TRANSPORT stream|json BEHAVIOUR COUNT OPTIONS...: COUNT requests by h2load; prints data=BYTES.
# The transport h1 is for asking the model server directly.
h2_load() {
    case $2 in
    h2tls) uri=https://$1/v1/chat/completions ;;
    *) uri=http://$1/v1/chat/completions ;;
    esac
    carried_by=$2
    body=$tmp/$3.json
    behaviour=$4
    h2_count=$5
    shift 5
    [ "$carried_by" != h1 ] || set -- "$@" --h1
    h2_out=$(mktemp "$tmp/h2load.XXXXXX")
    taskset -c 1 h2load -t 1 -n "$h2_count" -d "$body" -H "authorization: Bearer $key" -H "content-type: application/json" \
        -H "accept: application/json" -H "x-fake: $behaviour" "$@" "$uri" >"$h2_out" 2>&1 || true
    awk -v count="$h2_count" '
        /^requests:/ { good = $8 == count && $2 == count }
        /^status codes:/ { good = good && $3 == count }
        /^TLS Protocol:/ { good = good && $3 == "TLSv1.3" }
        /^Cipher:/ { good = good && $2 == "TLS_AES_128_GCM_SHA256" }
        /^traffic:/ { data = $(NF - 1); gsub(/[()]/, "", data) }
        END {
            if (!good || data == "") exit 1
            print "data=" data
        }' "$h2_out" || {
        echo "run.sh: not all of $h2_count requests over $carried_by were answered:" >&2
        grep -E '^(requests|status|traffic|TLS|Cipher|finished)' "$h2_out" >&2 || tail -n 5 "$h2_out" >&2
        return 1
    }
}

# same_bytes LINE COUNT BYTES: h2_load's line has COUNT answers of so many bytes
same_bytes() {
    [ "$(value data "$1")" = $(($2 * $3)) ] && return
    echo "run.sh: $2 answers have $(value data "$1") bytes, expected $(($2 * $3))" >&2
    return 1
}

# What an answer to BEHAVIOUR is when the model server gives it: sets answer_events and answer_bytes.
learn_answer() {
    line=$(load streams "$fake" --fake "$1") || die "the model-server fake does not answer"
    answer_events=$(value events "$line")
    answer_bytes=$(value body_bytes "$line")
}

# who_was_slow LINE: what LINE of load tells of the processors, on stderr
who_was_slow() {
    echo "$1" | tr ' ' '\n' | awk -F = '
        { value[$1] = $2 }
        END {
            who = "neither processor was full while it was measured"
            if (value["busy0_percent"] >= 95)
                who = "other work on the machine left the gateway too little"
            if (value["busy1_percent"] >= 95)
                who = "load generator and model server (or other work on their processor) were too slow"
            if (value["gateway_percent"] >= 90)
                who = "the gateway was too slow"
            printf "run.sh: %s: the gateway took %d %% of a processor; 0 was %d %% busy, 1 (load, model server) %d %%\n", who,
                value["gateway_percent"], value["busy0_percent"], value["busy1_percent"]
        }' >&2
}

# kept_up SECONDS: prints paced_load's line, if it tells of nine tenths of the events that were due, or has too few to tell
kept_up() {
    echo "$line"
    enough=$((paced_count * 900 / pace))
    [ $(($1 * 1000)) -le "$pace" ] || [ "$(value events_per_second "$line")" -ge $enough ] && return
    echo "run.sh: only $(value events_per_second "$line") events/s of $((paced_count * 1000 / pace))" >&2
    who_was_slow "$line"
    return 1
}

# paced_load GATEWAY TRANSPORT ADDRESS PIDS STREAMS PACE_MS RAMP_MS SECONDS [SPREAD_MS]: all streams open, each with an
# event every PACE_MS, measured for SECONDS; prints cpu_us_per_event and kib_per_stream. Fails if the load could not be
# kept up, and says which side was too slow. With SPREAD_MS the streams' events come evenly spread over so much time,
# however the streams were opened; otherwise those of streams opened together come together.
paced_load() {
    paced_count=$5
    pace=$6
    ramp=$7
    spread=${9:-0}
    tokens=$((($7 + $8 * 1000 + spread + 2500) / pace + 2)) # they may open a little late
    paced_fake="events=$tokens,pace_ms=$pace"
    [ "$spread" = 0 ] || paced_fake="$paced_fake,spread_ms=$spread"
    learn_answer "events=$tokens"
    case $2 in
    h2*)
        paced_h2 "$2" "$3" "$4" "$8"
        return
        ;;
    esac
    line=$(load_gateway "$1" "$2" streams "$3" --pids "$4" --count "$paced_count" --ramp-ms "$ramp" --seconds "$8" \
        --fake "$paced_fake" --events "$answer_events") || {
        [ -z "$line" ] || who_was_slow "$line"
        return 1
    }
    kept_up "$8"
}

# paced_h2 TRANSPORT ADDRESS PIDS SECONDS: the same by h2load, 100 streams a connection. The model server tells how many
# events it sent meanwhile; afterwards h2load's log tells whether all streams were open.
paced_h2() {
    before=$(taskset -c 1 "$tmp/load" use --pids "$3")
    rm -f "$tmp/h2.log"
    h2_load "$2" "$1" stream "$paced_fake" "$paced_count" -c $((paced_count / 100)) -m 100 \
        --rps "$(awk -v ramp="$ramp" 'BEGIN { printf "%.3f", 100000 / ramp }')" --log-file="$tmp/h2.log" >"$tmp/h2.line" &
    h2_pid=$!
    sleep $(((ramp + spread) / 1000 + 1))
    during=$(taskset -c 1 "$tmp/load" use --pids "$3" --seconds "$4" --address "$fake") || true
    wait $h2_pid && [ -n "$during" ] || return 1
    same_bytes "$(cat "$tmp/h2.line")" "$paced_count" "$answer_bytes" || return 1
    opened=$(awk -v from="$(value from "$during")" -v to="$(value to "$during")" '
        $1 <= from && $1 + $3 >= to { open++ }
        END { print open + 0 }' "$tmp/h2.log")
    if [ "$opened" != "$paced_count" ]; then
        echo "run.sh: of $paced_count streams over HTTP/2 $opened were open all the time" >&2
        who_was_slow "$during"
        return 1
    fi
    line="$during $(awk -v cpu="$(value cpu_us "$during")" -v rss="$(value rss_kib "$during")" \
        -v was="$(value rss_kib "$before")" -v count="$paced_count" -v events="$(value events "$during")" \
        -v us=$(($(value to "$during") - $(value from "$during"))) 'BEGIN {
            printf "events_per_second=%.0f cpu_us_per_event=%.3f kib_per_stream=%.3f", events * 1e6 / us, cpu / events,
                (rss - was) / count }')"
    kept_up "$4"
}

# busy_h2 TRANSPORT ADDRESS PIDS stream|json BEHAVIOUR COUNT PER: as fast as it goes, 64 at a time over 4 connections;
# prints how much processor time each has taken of what an answer has PER.
busy_h2() {
    h2_load "$2" "$1" "$4" "$5" $(($6 / 10)) -c 4 -m 16 >/dev/null || return 1
    before=$(taskset -c 1 "$tmp/load" use --pids "$3")
    line=$(h2_load "$2" "$1" "$4" "$5" "$6" -c 4 -m 16) || return 1
    after=$(taskset -c 1 "$tmp/load" use --pids "$3")
    same_bytes "$line" "$6" "$answer_bytes" || return 1
    echo "cpu_us=$(value cpu_us "$before"),$(value cpu_us "$after")" | awk -F '[=,]' -v of="$(($6 * $7))" '{ printf "%.3f\n", ($3 - $2) / of }'
}

measure_flat() {
    learn_answer events=1000
    case $2 in
    h2*) figure=$(busy_h2 "$2" "$address" "$pids" stream events=1000,flood 4000 "$answer_events") ;;
    *)
        line=$(load_gateway "$1" "$2" again "$address" --pids "$pids" --count 32 --requests 4000 --fake events=1000,flood \
            --events "$answer_events") && figure=$(value cpu_us_per_event "$line")
        ;;
    esac && figures="flat_us_per_event=$figure"
}

measure_events() {
    line=$(paced_load "$1" "$2" "$address" "$pids" 500 20 1000 4) &&
        figures="us_per_event=$(value cpu_us_per_event "$line") small_kib_per_stream=$(value kib_per_stream "$line")"
}

measure_requests() {
    case $2 in
    h2*)
        answer_bytes=$plain_bytes
        figure=$(busy_h2 "$2" "$address" "$pids" json events=5 60000 1)
        ;;
    *)
        line=$(load_gateway "$1" "$2" json "$address" --pids "$pids" --count 64 --requests 60000) &&
            figure=$(value cpu_us_per_request "$line")
        ;;
    esac && figures="us_per_request=$figure"
}

measure_memory() {
    line=$(paced_load "$1" "$2" "$address" "$pids" 5000 1000 3000 1) &&
        figures="kib_per_stream=$(value kib_per_stream "$line")"
}

# percentiles FILE: of the third column
percentiles() {
    sort -n -k 3,3 "$1" | awk '{ v[NR] = $3 } END { print "p50_us=" v[int(NR / 2) + 1] " p99_us=" v[int(NR * 99 / 100) + 1] }'
}

# direct-h2 is the model server asked by h2load, which times whole answers.
measure_first() {
    learn_answer events=5
    case $1.$2 in
    *.h2* | direct-h2.*)
        rm -f "$tmp/h2.log"
        options="-c 5 -m 100 --rps 100"
        [ "$1" != direct-h2 ] || options="-c 50 --rps 10"
        # shellcheck disable=SC2086 # a list
        line=$(h2_load "$address" "$2" stream events=5 2000 $options --log-file="$tmp/h2.log") &&
            same_bytes "$line" 2000 "$answer_bytes" && line=$(percentiles "$tmp/h2.log")
        ;;
    *)
        line=$(load_gateway "$1" "$2" paced "$address" --rate 500 --requests 2000 --count 64 \
            --fake events=5 --events "$answer_events")
        ;;
    esac && figures="p50_us=$(value p50_us "$line") p99_us=$(value p99_us "$line")"
}

# What an answer of several prompt sizes costs; fewer at a time where they are large.
measure_prompts() {
    figures=
    for prompt in 1024,64,20000 102400,16,4000 1048576,8,400; do
        bytes=${prompt%%,*}
        requests=${prompt##*,}
        count=${prompt#*,}
        line=$(load_gateway "$1" "$2" json "$address" --pids "$pids" --count "${count%,*}" --requests "$requests" \
            --bytes "$bytes") || return 1
        figures="$figures prompt_$((bytes / 1024))_us=$(value cpu_us_per_request "$line")"
    done
}

# The same 5,000 events each second, evenly in time, from 500, 5,000 or 15,000 streams, which are opened at 2,000 a second.
measure_scale() {
    line=$(paced_load "$1" "$2" "$address" "$pids" "$streams" $((streams / 5)) $((streams / 2)) 6 $((streams / 5))) &&
        figures="scale_${streams}_us_per_event=$(value cpu_us_per_event "$line") scale_${streams}_kib=$(value kib_per_stream "$line")"
}

measure_workers() {
    line=$(paced_load "$1" "$2" "$address" "$pids" 500 20 1000 4) &&
        figures="us_per_event=$(value cpu_us_per_event "$line")"
}

# measure ROUND GATEWAY KIND TRANSPORT: tries once more if something went wrong, as on a machine that was busy just then
measure() {
    measure_once "$@" || measure_once "$@" || note "$1" "$2" "$4.$3${streams:+_$streams}" failed
}

# measure_once ROUND GATEWAY KIND TRANSPORT: one measurement in a fresh process
measure_once() {
    servers=$fake
    # shellcheck disable=SC2034 # for start_gateway
    [ "$3" != scale ] || servers=$both_fakes
    case $2 in
    direct*)
        address=$fake
        pids=
        ;;
    *) start_gateway "$2" "$4" ;;
    esac
    serial=1
    figures=
    "measure_$3" "$2" "$4" && failed=0 || failed=1
    case $2 in
    direct*) ;;
    *) finish_gateway "$2" ;;
    esac
    [ "$failed" = 0 ] || return 1
    for figure in $figures; do
        note "$1" "$2" "$4.${figure%%=*}" "${figure#*=}"
    done
}
