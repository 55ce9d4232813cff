#!/bin/sh
# Prepares a server for direct return: it must accept packets for the VIP, but never answer ARP for it.
set -eu

usage() {
    echo "usage: $0 [--dry-run] [--undo] [--tunnel --interface IF] VIP [VIP...]
Prepares this server as a backend of lb, until the next boot:
  - each VIP on loopback, as /32 or /128
  - arp_ignore=1, arp_announce=2: nobody but the balancer answers ARP for a VIP
  --tunnel --interface IF   packets come in IP-in-IP through IF: strip the outer header there
                            (\`lb server decap\`; \`lb\` from the PATH, or named in \$LB_BIN) and
                            open rp_filter for it
  --undo                    take it all back (sysctls to the kernel's defaults)
  --dry-run                 print the commands, do nothing
Needs root."
}

dry_run=no undo=no tunnel=no interface='' vips=''
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help)
        usage
        exit 0
        ;;
    --dry-run) dry_run=yes ;;
    --undo) undo=yes ;;
    --tunnel) tunnel=yes ;;
    --interface)
        if [ $# -lt 2 ]; then
            echo "$0: --interface wants a name" >&2
            exit 2
        fi
        interface=$2
        shift
        ;;
    -*)
        echo "$0: unknown option $1" >&2
        usage >&2
        exit 2
        ;;
    *[!0-9a-fA-F.:]*)
        echo "$0: $1 is not an address (give it without a prefix length)" >&2
        exit 2
        ;;
    *) vips="$vips $1" ;;
    esac
    shift
done

if [ -z "$vips" ]; then
    usage >&2
    exit 2
fi
if [ "$tunnel" = yes ] && [ -z "$interface" ]; then
    echo "$0: --tunnel wants --interface IF, where the tunnelled packets come in" >&2
    exit 2
fi
if [ "$tunnel" = no ] && [ -n "$interface" ]; then
    echo "$0: --interface is for --tunnel" >&2
    exit 2
fi

run() {
    if [ "$dry_run" = yes ]; then
        echo "$*"
    else
        "$@"
    fi
}

# prefix_of VIP: the whole address, in either family.
prefix_of() {
    case "$1" in
    *:*) echo "$1/128" ;;
    *) echo "$1/32" ;;
    esac
}

# holds VIP: whether loopback has it.
holds() {
    ip -o addr show dev lo to "$(prefix_of "$1")" | grep -q .
}

lb=${LB_BIN:-lb}

if [ "$undo" = yes ]; then
    for vip in $vips; do
        if [ "$dry_run" = yes ] || holds "$vip"; then
            run ip addr del "$(prefix_of "$vip")" dev lo
        fi
    done
    run sysctl -q -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0
    if [ "$tunnel" = yes ]; then
        run "$lb" server decap --interface "$interface" --off
    fi
    exit 0
fi

# Before the VIP is there, or the first ARP question for it would be answered.
run sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
for vip in $vips; do
    case "$vip" in
    *:*) run ip addr replace "$(prefix_of "$vip")" dev lo nodad ;;
    *) run ip addr replace "$(prefix_of "$vip")" dev lo ;;
    esac
done
if [ "$tunnel" = yes ]; then
    # A client's packet may come in where its answer does not go out.
    run sysctl -q -w net.ipv4.conf.all.rp_filter=0 "net.ipv4.conf.$interface.rp_filter=0"
    run "$lb" server decap --interface "$interface"
fi
