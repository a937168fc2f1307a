# shellcheck shell=sh
# The gateways of the benchmark: their configurations, and how they are started and stopped. Sourced by run.sh, whose
# variables it uses; POSIX sh.
#
# A gateway's name is relay, nginx, haproxy or weir, or one of these with something on or off: nginx-cache, weir-limits,
# weir-nolog … A transport is h1 (HTTP/1.1 in clear text), tls (HTTP/1.1 over TLS), h2 (HTTP/2 in clear text) or h2tls.
# All but the relay log each request to a file, keep connections to the model server alive and pass events on at once;
# all have one thread, but weir-2 and nginx-2 two, on both processors.
# shellcheck disable=SC2154,SC2034 # some variables are set, others used, in the other pieces

tmp=$(mktemp -d)
fake_pid=
redis_pid=
turns_pid=
gateway_pids=
stop_gateways() {
    for pid in $gateway_pids; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    gateway_pids=
}
cleanup() {
    stop_gateways
    [ -z "$fake_pid" ] || kill "$fake_pid" 2>/dev/null || true
    [ -z "$redis_pid" ] || kill "$redis_pid" 2>/dev/null || true
    [ -z "$turns_pid" ] || kill "$turns_pid" 2>/dev/null || true
    rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# speaks GATEWAY TRANSPORT
speaks() {
    case $1 in
    relay | weir-limits | weir-all) [ "$2" = h1 ] ;;
    esac
}

# A port below the range from which outgoing connections take theirs.
random_port() {
    echo $((20000 + $(od -An -N2 -tu2 /dev/urandom) % 10000))
}

build_tools() {
    cc -O2 -std=gnu11 -D_GNU_SOURCE tests/bench/load.c -o "$tmp/load" -lssl -lcrypto
    cc -O2 -std=gnu11 -D_GNU_SOURCE tests/bench/relay.c -o "$tmp/relay"
    cc -O2 -std=gnu11 -D_GNU_SOURCE tests/support/model_fake.c -o "$tmp/model_fake" -lssl -lcrypto -lpthread
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$tmp/key.pem" -out "$tmp/cert.pem" \
        -days 2 -subj /CN=127.0.0.1 2>"$tmp/openssl" || die "openssl: $(cat "$tmp/openssl")"
    cat "$tmp/cert.pem" "$tmp/key.pem" >"$tmp/both.pem"
}

# Linux gives connect() the even half of ip_local_port_range first, 14,116 ports by default; once a gateway has so many
# connections to one address, it searches all of them before each further one, for milliseconds. So the model server has
# two addresses; a gateway uses those in `servers`.
start_fake() {
    taskset -c 1 "$tmp/model_fake" --listen 127.0.0.1:0 --listen 127.0.0.1:0 >"$tmp/fake.out" &
    fake_pid=$!
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        both_fakes=$(sed -n 's/^listening on //p' "$tmp/fake.out" | paste -s -d ' ')
        fake=${both_fakes%% *}
        servers=$fake
        [ "$both_fakes" != "$fake" ] && return
        sleep 0.1
    done
    die "the model-server fake does not start"
}

# by_transport TRANSPORT H1 TLS H2 H2TLS: sets how to the words that belong to the transport
by_transport() {
    case $1 in
    h1) how=$2 ;;
    tls) how=$3 ;;
    h2) how=$4 ;;
    h2tls) how=$5 ;;
    esac
}

# nginx_conf NAME ADDRESS TRANSPORT. Bodies stay in memory and are read whole before they are passed on, as weir does it;
# nginx-cache has open_file_cache and no sendfile, with which it is fastest here.
nginx_conf() {
    user=
    [ "$(id -u)" = 0 ] && user="user root;"
    processes=1
    [ "$1" = nginx-2 ] && processes=2
    by_transport "$3" "" " ssl" " http2" " ssl http2"
    cat <<END
$user
daemon off;
worker_processes $processes;
worker_rlimit_nofile $open_files;
pid $tmp/nginx.pid;
error_log $tmp/nginx.error;
events { worker_connections $open_files; }
http {
    access_log $tmp/$1.log;
    client_body_temp_path $tmp/nginx-body;
    proxy_temp_path $tmp/nginx-proxy;
    fastcgi_temp_path $tmp/nginx-fastcgi;
    uwsgi_temp_path $tmp/nginx-uwsgi;
    scgi_temp_path $tmp/nginx-scgi;
    keepalive_requests 1000000;
    client_max_body_size 4m;
    client_body_buffer_size 2m;
    upstream model {
END
    # shellcheck disable=SC2086 # a list
    printf '        server %s;\n' $servers
    cat <<END
        keepalive 1024;
        keepalive_requests 1000000;
    }
END
    [ "$1" != nginx-cache ] || cat <<END
    proxy_cache_path $tmp/nginx-cache levels=1:2 keys_zone=answers:10m max_size=256m inactive=10m use_temp_path=off;
    open_file_cache max=1000;
    client_body_in_single_buffer on;
END
    cat <<END
    server {
        listen $2$how backlog=4096;
        ssl_certificate $tmp/cert.pem;
        ssl_certificate_key $tmp/key.pem;
        ssl_protocols TLSv1.3;
        location / {
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 600s;
END
    if [ "$1" != nginx-cache ]; then
        echo "            proxy_buffering off;"
    else
        cat <<'END'
            proxy_buffering on;
            proxy_cache answers;
            proxy_cache_methods POST;
            proxy_cache_key $request_method$request_uri$http_authorization$request_body;
            proxy_cache_valid 200 10m;
            proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;
            add_header X-Cache $upstream_cache_status;
END
    fi
    cat <<END
        }
    }
}
END
}

# haproxy_conf ADDRESS TRANSPORT: with http-reuse always and http-no-delay, which suit it best here
haproxy_conf() {
    tls=" ssl crt $tmp/both.pem alpn"
    by_transport "$2" "" "$tls http/1.1" " proto h2" "$tls h2"
    cat <<END
global
    nbthread 1
    maxconn $(((open_files - 100) / 2))
    ssl-default-bind-options ssl-min-ver TLSv1.3
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    option http-no-delay
    timeout connect 10s
    timeout client 600s
    timeout server 600s
frontend front
    bind $1$how
    default_backend model
backend model
    http-reuse always
    server model $fake
END
}

# What weir's names have on beyond a key, metrics and the JSON log.
weir_files() {
    three='  per_key: { limit: 1000000000/minute, by: api_key, strategy: fixed_window }
  per_address: { limit: 1000000000/hour, by: address, strategy: sliding_window_counter }
  per_model: { limit: 1000000000/day, by: model, strategy: moving_window }'
    tokens='  tokens: { limit: 100000000000 tokens/minute, by: api_key }'
    printf 'limits:\n%s\n' "$three" >"$tmp/limits.yaml"
    printf 'cache: { ttl: 10m, max_bytes: 64MiB }\n' >"$tmp/full.yaml"
    printf 'limits:\n%s\n' "$tokens" >"$tmp/tokens.yaml"
    printf 'limits:\n%s\n%s\ncache: { ttl: 10m }\n' "$three" "$tokens" >"$tmp/all.yaml"
    # Every look-up has to find its answer, whatever else the machine does.
    echo "redis: { url: 'unix://$tmp/redis.sock', timeout: 2s }" >"$tmp/redis.yaml"
}

# start_weir NAME ADDRESS TRANSPORT
start_weir() {
    name=$1
    transport=$3
    set -- --listen "$2" --log-format json
    for server in $servers; do
        set -- "$@" --backend "http://$server"
    done
    processor=0
    workers=1
    if [ "$name" = weir-2 ]; then
        processor=0,1
        workers=2
    fi
    [ "$name" = weir-nokey ] || set -- "$@" --api-key "$key"
    case $transport in
    *tls) set -- "$@" --tls-cert "$tmp/cert.pem" --tls-key "$tmp/key.pem" ;;
    esac
    case $name in
    weir-cache) set -- "$@" --cache-ttl 10m ;;
    weir-full) set -- "$@" --config "$tmp/full.yaml" ;;
    weir-redis) set -- "$@" --cache-ttl 10m --config "$tmp/redis.yaml" ;;
    weir-limits) set -- "$@" --config "$tmp/limits.yaml" ;;
    weir-tokens) set -- "$@" --config "$tmp/tokens.yaml" ;;
    weir-all) set -- "$@" --config "$tmp/all.yaml" ;;
    weir-nolog) set -- "$@" --log-level warn ;;
    weir | weir-2 | weir-nokey) ;;
    *) die "no such gateway: $name" ;;
    esac
    exec taskset -c "$processor" "$weir" "$@" --workers "$workers" >"$tmp/start" 2>"$tmp/$name.log"
}

# start_nginx NAME ADDRESS TRANSPORT
start_nginx() {
    nginx_conf "$@" >"$tmp/nginx.conf"
    processor=0
    [ "$1" != nginx-2 ] || processor=0,1
    exec taskset -c "$processor" "$nginx" -e "$tmp/nginx.error" -c "$tmp/nginx.conf" 2>"$tmp/start"
}

# start_haproxy NAME ADDRESS TRANSPORT
start_haproxy() {
    haproxy_conf "$2" "$3" >"$tmp/haproxy.conf"
    exec taskset -c 0 "$haproxy" -db -f "$tmp/haproxy.conf" >"$tmp/haproxy.log" 2>"$tmp/start"
}

# start_relay NAME ADDRESS
start_relay() {
    exec taskset -c 0 "$tmp/relay" "$2" "$fake" >"$tmp/start" 2>&1
}

# answers ADDRESS TRANSPORT: whether a gateway answers there; TRANSPORT json: the model server knows nothing but one document
answers() {
    case $2 in
    json) load json "$1" --count 1 --requests 1 ;;
    h1) load streams "$1" --fake events=5 ;;
    tls) load streams "$1" --tls --fake events=5 ;;
    *) h2_load "$1" "$2" stream events=5 1 -c 1 ;;
    esac >/dev/null 2>"$tmp/refused"
}

# start_gateway NAME [TRANSPORT]: sets pids (of all its processes) and address, adds to gateway_pids
start_gateway() {
    carried=${2:-h1}
    earlier_pids=$gateway_pids
    for attempt in 1 2 3 4 5; do
        address=127.0.0.1:$(random_port)
        case $1 in
        relay | nginx* | haproxy | weir*) "start_${1%%-*}" "$1" "$address" "$carried" & ;;
        *) die "no such gateway: $1" ;;
        esac
        gateway_pid=$!
        gateway_pids="$earlier_pids $gateway_pid"
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            kill -0 "$gateway_pid" 2>/dev/null || break
            if answers "$address" "$carried"; then
                # cat goes on when a process is gone meanwhile, awk would not
                children=$(cat /proc/[0-9]*/stat 2>/dev/null | awk -v parent="$gateway_pid" '$4 == parent { printf ",%s", $1 }')
                case $1$children in
                nginx | nginx-cache | nginx-2) die "cannot find nginx's worker" ;;
                esac
                pids=$gateway_pid$children
                return 0
            fi
            sleep 0.1
        done
        kill "$gateway_pid" 2>/dev/null || true
        wait "$gateway_pid" 2>/dev/null || true
    done
    gateway_pids=$earlier_pids
    cat "$tmp/refused" "$tmp/start" "$tmp/$1".log "$tmp/nginx.error" 2>/dev/null | tail -n 20 >&2
    die "$1 does not start (tried $attempt times)"
}

# finish_gateway NAME...: it must have survived, and written its log
finish_gateway() {
    for pid in $gateway_pids; do
        kill -0 "$pid" 2>/dev/null || die "$1 died"
    done
    stop_gateways
    for name in "$@"; do
        case $name in
        relay | weir-nolog) continue ;;
        esac
        [ -s "$tmp/$name.log" ] || die "$name wrote no log"
        rm -f "$tmp/$name.log"
    done
}
