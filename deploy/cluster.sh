#!/bin/sh
# Join the nodes on the given ports of this network to one cluster, each master with one replica; once.
set -eu
first=$1
nodes=
for port in "$@"; do
    nodes="$nodes 127.0.0.1:$port"
done
if ! redis-cli -p "$first" cluster info | grep -q '^cluster_slots_assigned:16384'; then
    # shellcheck disable=SC2086
    redis-cli --cluster create $nodes --cluster-replicas 1 --cluster-yes
fi

# Up means that every slot is served and that every replica has its copy: without it, it could not take over.
ready() {
    redis-cli -p "$first" cluster info | grep -q '^cluster_state:ok' || return 1
    for port in "$@"; do
        if redis-cli -p "$port" info replication | grep -q '^master_link_status:down'; then return 1; fi
    done
}
tries=0
until ready "$@"; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { echo "the cluster did not come up within 60 s" >&2; exit 1; }
    sleep 1
done
echo "the cluster is up on$nodes"
