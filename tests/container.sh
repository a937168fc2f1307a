#!/bin/sh
# Builds the images and runs them as deploy/Dockerfile promises: a read-only root, no capabilities, configuration by
# environment alone, health, signals, streams; then compose.yaml with Redis. Uses a container engine of its own and a base
# image made by mmdebstrap, so that no image registry is asked. Takes some minutes. Ends with
# `N passed, N failed, N skipped`.
# shellcheck disable=SC2317 # functions are called through check
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh
# shellcheck source=tests/support/debian_root.sh
. tests/support/debian_root.sh
# shellcheck source=tests/support/check.sh
. tests/support/check.sh

skip() {
    echo "SKIP containers - $1"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

[ "$(id -u)" -eq 0 ] || skip "a container engine takes root"
install_packages docker.io docker-compose mmdebstrap ca-certificates curl python3 openssl iproute2

work=$(mktemp -d /tmp/weir-ct.XXXXXX)
engine=
export DOCKER_HOST="unix://$work/sock" DOCKER_BUILDKIT=0 COMPOSE_PROJECT_NAME=weir-test DOCKER_CONFIG="$work/config"

clean_up() {
    [ -z "$engine" ] || {
        docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1 || :
        kill "$engine" 2>/dev/null || :
        wait "$engine" 2>/dev/null || :
    }
    umount "$work"/exec/netns/* 2>/dev/null || :
    rm -rf "$work" 2>/dev/null || :
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

# An engine of our own, which touches neither the machine's packet filter nor another engine's images.
start_engine() {
    dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" --host "$DOCKER_HOST" \
        --iptables=false --ip6tables=false --bridge=none "$@" >"$work/engine.log" 2>&1 &
    engine=$!
    for _ in $(seq 150); do
        docker info >/dev/null 2>&1 && return 0
        kill -0 "$engine" 2>/dev/null || break
        sleep 0.2
    done
    kill "$engine" 2>/dev/null || :
    wait "$engine" 2>/dev/null || :
    engine=
    return 1
}
start_engine || start_engine --storage-driver=vfs || skip "dockerd does not start here: $(tail -n 1 "$work/engine.log")"

log=$work/log
key=wk-container-0123456789

# free_port: one that nobody listens on right now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_for SECONDS COMMAND...
wait_for() {
    tenths=$(($1 * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || {
            echo "waited in vain for: $*"
            return 1
        }
        sleep 0.1
    done
}

# metric_is PORT NAME VALUE
metric_is() {
    curl -sS --max-time 10 "http://127.0.0.1:$1/metrics" | grep -x "$2 $3"
}

# start NAME IMAGE PORT OPTION...: as strictly as an image can be run.
start() {
    name=$1 image=$2 port=$3
    shift 3
    docker rm -f "$name" >/dev/null 2>&1 || :
    docker run -d --name "$name" --network host --read-only --cap-drop ALL --security-opt no-new-privileges \
        --health-interval 1s -e WEIR_LISTEN="127.0.0.1:$port" -e WEIR_API_KEY="$key" "$@" "$image"
}

health_is() {
    [ "$(docker inspect -f '{{.State.Health.Status}}' "$1")" = "$2" ]
}

# ask PORT BODY [CURL-OPTION...]
ask() {
    port=$1 body=$2
    shift 2
    curl -sSN --max-time 60 "http://127.0.0.1:$port/v1/chat/completions" -H "Authorization: Bearer $key" \
        -H 'Content-Type: application/json' -d "$body" "$@"
}
streamed='{"model":"demo","stream":true,"messages":[{"role":"user","content":"Hello!"}]}'
plain='{"model":"demo","messages":[{"role":"user","content":"Hello!"}]}'

# streams PORT: a whole stream comes.
streams() {
    ask "$1" "$streamed" >"$work/answer"
    grep '^data: \[DONE\]$' "$work/answer" || {
        cat "$work/answer"
        return 1
    }
}

base_image() {
    # What Debian's own slim images leave out.
    debian_root "$work/base.tar" --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*'
    docker import "$work/base.tar" debian:bookworm-slim
    rm "$work/base.tar"
}

build_image() {
    timeout 1200 docker build --network host -f deploy/Dockerfile "$@" .
}

smaller_than() {
    size=$(docker image inspect -f '{{.Size}}' "$1")
    echo "$1 has $size bytes"
    [ "$size" -lt "$2" ]
}

serves() {
    port=$(free_port)
    start weir "$1" "$port" -e WEIR_BACKEND='demo:?delay=1ms&pace=1ms&tokens=5'
    wait_for 30 health_is weir healthy
    docker exec weir /usr/bin/weir health
    streams "$port"
    grep -q '"delta"' "$work/answer"
    [ "$(key=wrong ask "$port" "$plain" -o /dev/null -w '%{http_code}')" = 401 ]
    # Neither root, nor any capability, nor a way to more.
    pid=$(docker inspect -f '{{.State.Pid}}' weir)
    grep -E '^(Uid|CapEff|CapPrm|CapBnd|NoNewPrivs):' "/proc/$pid/status"
    grep -q '^Uid:.65532.65532.65532.65532$' "/proc/$pid/status"
    [ "$(grep -c '^Cap.*:.0000000000000000$' "/proc/$pid/status")" -eq 5 ]
    docker exec weir /usr/bin/weir env | grep 'WEIR_API_KEY .*hidden.*environment'
}

# A body of the largest size, which must not need a disk.
takes_large_bodies() {
    port=$(free_port)
    start weir "$1" "$port" -e WEIR_BACKEND='demo:?delay=1ms&pace=1ms&tokens=1'
    wait_for 30 health_is weir healthy
    python3 -c 'print("{\"model\":\"demo\",\"messages\":[{\"role\":\"user\",\"content\":\"" + "x" * 33000000 + "\"}]}")' >"$work/large"
    [ "$(ask "$port" "@$work/large" -o "$work/answer" -w '%{http_code}')" = 200 ]
}

# Its name servers and /etc/hosts, the authorities' bundle, TLS to a backend.
reaches_backends() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test \
        -addext 'subjectAltName=DNS:model.example' -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
    chmod a+r "$work/cert.pem" "$work/key.pem"
    chmod a+x "$work"
    port=$(free_port) behind=$(free_port)
    docker rm -f behind >/dev/null 2>&1 || :
    docker run -d --name behind --network host -v "$work:$work:ro" weir --listen "127.0.0.1:$behind" \
        --tls-cert "$work/cert.pem" --tls-key "$work/key.pem" --backend 'demo:?delay=1ms&pace=1ms' --api-key "$key"
    printf 'backends: [{ name: b, url: "https://model.example:%s", api_key: %s }]\n' "$behind" "$key" >"$work/b.yaml"
    chmod a+r "$work/b.yaml"
    # OpenSSL looks for an authority in the bundle, or for a file named by its hash. The name stands in /etc/hosts, then on
    # a name server.
    set -- "$1" /etc/ssl/certs/ca-certificates.crt
    [ "$1" = weir:minimal ] || set -- "$1" "/etc/ssl/certs/$(openssl x509 -noout -hash -in "$work/cert.pem").0"
    start weir "$1" "$port" --add-host model.example:127.0.0.1 -v "$work/b.yaml:/etc/weir/weir.yaml:ro" \
        -v "$work/cert.pem:$2:ro"
    wait_for 30 health_is weir healthy
    streams "$port"
    python3 tests/support/name_server.py 127.0.0.77 model.example 127.0.0.1 &
    server=$!
    trap 'kill "$server"' EXIT
    start weir "$1" "$port" --dns 127.0.0.77 -v "$work/b.yaml:/etc/weir/weir.yaml:ro" -v "$work/cert.pem:$2:ro"
    wait_for 30 health_is weir healthy
    streams "$port"
}

obeys_signals() {
    port=$(free_port)
    start weir "$1" "$port" -e WEIR_BACKEND='demo:?delay=1ms&pace=100ms&tokens=20'
    wait_for 30 health_is weir healthy
    ask "$port" '{"model":"demo","stream":true,"messages":[{"role":"user","content":"a b c d e f g h i j k l m n o p q r s t u"}]}' \
        >"$work/answer" &
    reader=$!
    wait_for 20 grep -q '"delta"' "$work/answer"
    docker stop --time 30 weir
    wait "$reader"
    grep -q '^data: \[DONE\]$' "$work/answer"
    [ "$(docker inspect -f '{{.State.ExitCode}}' weir)" = 0 ]
    docker logs weir 2>&1 | grep '"msg":"ended"'
}

refuses_to_be_open() {
    status=0
    docker run --rm --network host "$1" >"$work/said" 2>&1 || status=$?
    cat "$work/said"
    [ "$status" -eq 1 ] && grep -q 'no API key is set' "$work/said" && [ "$(wc -l <"$work/said")" -eq 1 ]
}

holds_the_event_loop_of_websockets() {
    id=$(docker create "$1")
    docker export "$id" | tar t >"$work/files"
    docker rm "$id" >/dev/null
    grep 'libwebsockets-evlib_uv' "$work/files"
    grep 'ca-certificates.crt' "$work/files"
}

# Like the image of that name, it serves its network without a password: protected mode is off.
redis_image() {
    docker build --network host -t redis:7-bookworm - <<'IMAGE'
FROM debian:bookworm-slim
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server \
    && mkdir -p /data && chown redis:redis /data
VOLUME /data
ENTRYPOINT ["/bin/sh", "-c", "exec \"$@\" --protected-mode no", "sh"]
IMAGE
}

compose() {
    docker-compose -f deploy/compose.yaml "$@"
}

compose_is_sound() {
    ! compose config >"$work/said" 2>&1 || return 1
    grep -q WEIR_API_KEY "$work/said"
    WEIR_API_KEY=$key compose config
    WEIR_API_KEY=$key compose --profile monitoring config | grep -q grafana
}

composes() {
    port=$(free_port)
    export WEIR_API_KEY="$key" WEIR_PUBLISH="$port" WEIR_BACKEND='demo:?delay=1ms&pace=1ms&tokens=5'
    compose up -d --no-build weir
    compose ps
    container=$(compose ps -q weir)
    wait_for 60 health_is "$container" healthy
    streams "$port"
    health_is "$(compose ps -q redis)" healthy
    # It is ready without Redis, whose name it may still be looking up.
    wait_for 30 metric_is "$port" weir_redis_up 1
    compose stop -t 30
    [ "$(docker inspect -f '{{.State.ExitCode}}' "$container")" = 0 ]
    compose down -v
}

check "the base image is made" base_image
check "the image builds" build_image -t weir
check "the minimal image builds" build_image --target minimal -t weir:minimal
[ "$failed" -eq 0 ] || finish
check "the image has less than 100 MB" smaller_than weir 100000000
check "the minimal image has less than 15 MB" smaller_than weir:minimal 15000000
for image in weir weir:minimal; do
    check "$image serves with a read-only root and no capability" serves "$image"
    check "$image takes large bodies without a disk" takes_large_bodies "$image"
    check "$image finds and trusts backends" reaches_backends "$image"
    check "$image ends as told, after its streams" obeys_signals "$image"
    check "$image is not open by accident" refuses_to_be_open "$image"
    check "$image holds what is loaded by name" holds_the_event_loop_of_websockets "$image"
done
docker rm -f weir behind >/dev/null 2>&1 || :
check "compose.yaml is sound" compose_is_sound
check "a Redis image builds" redis_image
check "compose.yaml brings gateway and Redis up" composes
finish
