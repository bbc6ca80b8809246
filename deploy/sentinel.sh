#!/bin/sh
# Start one Sentinel on port $1, watching the master "mymaster" on port $2 of this network.
# A Sentinel keeps what it learns in its own configuration file, in the working directory: it is written only once.
set -eu
port=$1 master=$2 file=$PWD/sentinel-$1.conf
if [ ! -s "$file" ]; then
    cat > "$file" <<END
port $port
sentinel announce-ip 127.0.0.1
sentinel announce-port $port
sentinel monitor mymaster 127.0.0.1 $master 2
sentinel auth-pass mymaster "$REDISCLI_AUTH"
sentinel down-after-milliseconds mymaster 3000
sentinel failover-timeout mymaster 15000
sentinel parallel-syncs mymaster 1
END
fi
unset REDISCLI_AUTH
exec redis-server "$file" --sentinel
