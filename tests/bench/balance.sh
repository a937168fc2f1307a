#!/bin/sh
# Builds and runs balance.c: what choosing among 100 servers costs.
set -eu
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# shellcheck disable=SC2046 # a list
cc -O2 -DNDEBUG -D_GNU_SOURCE -DH2O_USE_EPOLL=1 -fno-strict-aliasing -I. -o "$out/balance" tests/bench/balance.c \
    backends/?*.c stream/?*.c base/?*.c $(pkg-config --cflags --libs libh2o-evloop jansson hiredis) -lssl -lcrypto -lpthread -lm
"$out/balance"
