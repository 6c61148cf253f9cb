#!/usr/bin/env bash
# Runs the cluster of docker-compose.yml as plain processes on the loopback interface, with a temporary PostgreSQL, an
# S3 server over a directory, and nginx. It runs until it is interrupted, and keeps nothing.
#
#   tests/cluster/run.sh            prints the base URL and waits
#   tests/cluster/run.sh --check    runs a batch through the proxy instead, and exits 0 if every row has its line
#
# The programs are taken from $CARGO_TARGET_DIR/debug, or target/debug: `make cluster` builds them.
set -euo pipefail
# Each process has a group of its own. So an interrupt from the terminal reaches only this script, which stops the
# processes in order.
set -m

root=$(cd "$(dirname "$0")/../.." && pwd)
programs=${CARGO_TARGET_DIR:-$root/target}/debug
rows=2000

fail() {
    echo "run.sh: $1" >&2
    exit 1
}

[[ $# == 0 || ($# == 1 && $1 == --check) ]] || fail 'usage: run.sh [--check]'
[[ -x $programs/batchwright && -x $programs/examples/s3_server ]] || fail 'the programs are not built; run make cluster'
nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || fail 'nginx is not installed; run make nginx'

# The servers are on this machine: no call may go through a proxy that the environment names.
unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY

dir=$(mktemp -d "${TMPDIR:-/tmp}/cluster.XXXXXX")
cd "$dir"
names=() pids=()

# Starts a program under a name. Its output goes to NAME.log.
start() {
    local name=$1
    shift
    "$@" <"${input:-/dev/null}" >"$name.log" 2>&1 9>&- &
    names+=("$name") pids+=("$!")
}

# Waits at most a minute until a command succeeds.
until_it() {
    local what=$1 deadline=$((SECONDS + 60))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "$what"
        sleep 0.1
    done
}

# Stops the processes in the opposite order of their start, so that no process loses one that it needs.
stop() {
    local status=$? at
    trap '' INT TERM HUP
    for ((at = ${#pids[@]} - 1; at >= 0; at--)); do
        [[ ${names[at]} == postgres ]] && exec 9>&-
        kill -TERM "${pids[at]}" 2>/dev/null || true
        wait "${pids[at]}" 2>/dev/null || true
    done
    if ((status != 0 && status != 130)); then
        tail -n 20 "$dir"/*.log >&2 || true
    fi
    cd /
    rm -rf "$dir"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM HUP

# Prints a port without a listener, below the range of outgoing ports.
free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)) && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

# PostgreSQL runs until its input ends: until this script, which alone has descriptor 9 open, closes it.
mkfifo input
input=input start postgres "$root/tests/common/postgres.sh"
exec 9>input
until_it 'PostgreSQL did not start' grep -q '^postgres:' postgres.log
BATCHWRIGHT_DATABASE_URL=$(grep -m 1 '^postgres:' postgres.log)

start s3 "$programs/examples/s3_server" 127.0.0.1:0 "$dir/s3"
until_it 'the S3 server did not start' grep -q '^AWS_SECRET_ACCESS_KEY=' s3.log
set -a
# shellcheck source=/dev/null
source s3.log
set +a

upstream=127.0.0.1:$(free_port)
start simulator "$programs/batchwright" simulate --listen "$upstream"

# The settings of all replicas.
export BATCHWRIGHT_DATABASE_URL BATCHWRIGHT_UPSTREAM=http://$upstream/v1 BATCHWRIGHT_GLOBAL_MAX_CONCURRENCY=64
"$programs/batchwright" migrate >migrate.log 2>&1 || fail 'the database could not be migrated'

workers=() servers=
for replica in worker-1 worker-2 api-1 api-2; do
    address=127.0.0.1:$(free_port)
    start "$replica" "$programs/batchwright" serve --role "${replica%-*}" --listen "$address"
    until_it "$replica did not get ready" curl --fail --silent "http://$address/readyz"
    case $replica in
        worker-*) workers+=("$address") ;;
        api-*) servers+="server $address; " ;;
    esac
done

proxy=127.0.0.1:$(free_port)
# shellcheck disable=SC2016 # These are for envsubst.
LISTEN=$proxy API_SERVERS=$servers envsubst '$LISTEN $API_SERVERS' <"$root/deploy/proxy.conf.template" >proxy.conf
cat >nginx.conf <<END
pid $dir/nginx.pid;
error_log stderr;
events {}
http {
    log_format served '\$status \$upstream_addr \$request';
    access_log $dir/access.log served;
    client_body_temp_path $dir/temp;
    proxy_temp_path $dir/temp;
    fastcgi_temp_path $dir/temp;
    scgi_temp_path $dir/temp;
    uwsgi_temp_path $dir/temp;
    include $dir/proxy.conf;
}
END
# If nginx is started by root, its workers run as another user, who must be able to read the directory.
chmod 755 "$dir"
start proxy "$nginx" -p "$dir" -e stderr -c "$dir/nginx.conf" -g 'daemon off;'
base=http://$proxy/v1
until_it 'the proxy did not get ready' curl --fail --silent "http://$proxy/readyz"

if [[ $# == 0 ]]; then
    echo "The cluster is ready: $base (logs in $dir; Ctrl-C ends it)"
    # For all processes: replicas may be killed meanwhile, which is one use of this cluster.
    wait
    fail 'all processes have ended'
fi

call() { curl --fail --silent --show-error --max-time 60 "$@"; }
# Prints the value of a key of the JSON object in the input.
field() { grep -o "\"$1\": *\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }

for ((row = 0; row < rows; row++)); do
    body='{"model":"m","messages":[{"role":"user","content":"'$row'"}]}'
    echo '{"custom_id":"row-'$row'","method":"POST","url":"/v1/chat/completions","body":'"$body"'}'
done >input.jsonl

file=$(call "$base/files" -F purpose=batch -F file=@input.jsonl | field id)
batch=$(call "$base/batches" -H 'Content-Type: application/json' \
    -d '{"input_file_id":"'"$file"'","endpoint":"/v1/chat/completions","completion_window":"24h"}' | field id)
echo "$rows rows uploaded as $file, and run as $batch"

deadline=$((SECONDS + 120))
ended='^(completed|failed|expired|cancelled)$'
until call "$base/batches/$batch" >batch.json && [[ $(field status <batch.json) =~ $ended ]]; do
    ((SECONDS < deadline)) || fail "the batch is not through: $(cat batch.json)"
    sleep 0.2
done
[[ $(field status <batch.json) == completed ]] || fail "the batch did not complete: $(cat batch.json)"
call "$base/files/$(field output_file_id <batch.json)/content" >output.jsonl
"$programs/batchwright" verify --input input.jsonl --output output.jsonl
lines=$(wc -l <output.jsonl)
((lines == rows)) || fail "$lines of $rows rows succeeded"

for worker in "${workers[@]}"; do
    echo "worker $worker: $(call "http://$worker/metrics" | grep '^batchwright_lines_recorded_total' || echo 'no line')"
done
cut -d ' ' -f 2 access.log | sort | uniq -c | sed 's/^ *\([0-9]*\) \(.*\)/api \2: \1 requests/'
