#!/bin/sh
# Removes the laboratory that lab-up.sh left standing; fine if there is none.
set -eu

if [ $# -ne 0 ]; then
    echo "usage: $0
Removes the laboratory that scripts/lab-up.sh (or \`cargo xtask demo --keep\`) left standing. Needs root." >&2
    [ "$1" = --help ] || [ "$1" = -h ] || exit 2
    exit 0
fi

cd "$(dirname "$0")/.."
exec cargo xtask lab down
