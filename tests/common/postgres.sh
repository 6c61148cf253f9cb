#!/usr/bin/env bash
# A throw-away PostgreSQL server: prints its URL once it answers, and lives until the standard input ends, which is when
# whoever started it ends, however that came about. Nothing of it is kept. `stop` and `start` on the standard input take
# it away without a word to anybody, and bring it back; each is answered by a line.
set -euo pipefail

# An interrupt from the terminal reaches this script too; the end of the input is what counts.
trap '' INT HUP

# The newest server installed the Debian way, else what is on the PATH.
initdb=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
[[ -x $initdb ]] || initdb=$(command -v initdb || true)
if [[ -z $initdb ]]; then
    echo 'no PostgreSQL server is installed' >&2
    exit 1
fi
bin=$(dirname "$(readlink -f "$initdb")")

dir=$(mktemp -d "${TMPDIR:-/tmp}/postgres.XXXXXX")

# The server refuses to run as root.
as_owner() { "$@"; }
if [[ $(id -u) == 0 ]]; then
    chown postgres "$dir"
    as_owner() { runuser -u postgres -- "$@"; }
fi
cd "$dir"

stop() {
    as_owner "$bin/pg_ctl" stop --pgdata="$dir/data" --mode=immediate --silent || true
    cd /
    rm -rf "$dir"
}
trap stop EXIT

as_owner "$bin/initdb" --pgdata="$dir/data" --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1 || {
    cat "$dir/initdb.log" >&2
    exit 1
}

# A port can be taken by the time the server binds it, so some are tried. They are below the range of outgoing ones.
for _ in {1..20}; do
    port=$((20000 + RANDOM % 12000))
    options="-h 127.0.0.1 -p $port -k $dir -c max_connections=300 -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    # Without the script's input and output, which would outlive it in the server.
    if as_owner "$bin/pg_ctl" start --pgdata="$dir/data" --log="$dir/server.log" --options="$options" --wait --silent </dev/null >/dev/null 2>&1; then
        echo "postgres://postgres@127.0.0.1:$port/postgres"
        exec 2>/dev/null
        while read -r order; do
            case $order in
            stop) as_owner "$bin/pg_ctl" stop --pgdata="$dir/data" --mode=immediate --silent ;;
            start) as_owner "$bin/pg_ctl" start --pgdata="$dir/data" --log="$dir/server.log" --options="$options" --wait --silent ;;
            esac </dev/null >/dev/null
            echo "$order: done"
        done
        exit 0
    fi
done
cat "$dir/server.log" >&2
exit 1
