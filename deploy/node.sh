#!/bin/sh
# Start one Redis of a topology on port $1, with the further options that follow.
set -eu
here=$(dirname "$0") port=$1
shift
exec redis-server "$here/redis.conf" --port "$port" --requirepass "$REDISCLI_AUTH" --masterauth "$REDISCLI_AUTH" "$@"
