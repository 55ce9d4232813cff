#!/bin/sh
# Builds the laboratory (client, router, balancer, three backends in network namespaces) and leaves it standing.
set -eu

if [ $# -ne 0 ]; then
    echo "usage: $0
Builds a laboratory of network namespaces with lb running in it, and prints what to try.
Needs root. scripts/lab-down.sh removes it." >&2
    [ "$1" = --help ] || [ "$1" = -h ] || exit 2
    exit 0
fi

cd "$(dirname "$0")/.."
exec cargo xtask lab up
