#!/bin/sh
# Runs lb on an interface of this machine.
set -eu

usage() {
    echo "usage: $0 INTERFACE [CONFIG]
Builds lb and runs it in the background on INTERFACE, with CONFIG or else /etc/lb/lb.toml.
Needs root. \`cargo xtask detach\` stops it."
}

case "${1-}" in
-h | --help)
    usage
    exit 0
    ;;
esac
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    usage >&2
    exit 2
fi

set -- --iface "$@"
if [ $# -eq 3 ]; then
    # The configuration is named from where the caller stands.
    set -- --iface "$2" --config "$(realpath -- "$3")"
fi
cd "$(dirname "$0")/.."
exec cargo xtask attach "$@"
