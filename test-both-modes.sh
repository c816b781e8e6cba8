#!/usr/bin/env bash
# Proves both modes end to end: Rebound inside a program, and as a service. Each has to try again until
# a message arrives, to bring the dead letter where it does not, and to lose nothing when it is killed.
# Usage: ./test-both-modes.sh [STORE_URL]    on an SQLite file of its own, or on your Redis (redis://…)
# Needs bash, curl, and `make setup` or a rebound and a python on the PATH.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
[ -d "$here/.venv/bin" ] && PATH=$here/.venv/bin:$PATH
for program in curl python rebound; do
    command -v "$program" >/dev/null || {
        echo "test-both-modes.sh: there is no $program on the PATH; make setup brings rebound" >&2
        exit 2
    }
done
folder=$(mktemp -d)
# Settings of the shell are not those of this proof.
unset ${!REBOUND_@} ${!REDIS_@} API_KEYS API_KEYS_SUBMIT HTTP_ADDR HTTP_HOST HTTP_PORT
export ENVIRONMENT=dev STORE_URL=${1:-sqlite:///$folder/tasks.db} NAMESPACE=both-modes-$$
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
started=()

finish() {
    { kill ${started[@]+"${started[@]}"}; wait; } 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT

fail() {
    echo "FAILED: $*" >&2
    tail -n 20 "$folder"/*.log >&2
    exit 1
}

# until_said FILE PATTERN: within 20 s
until_said() {
    for _ in $(seq 200); do
        grep -qE -- "$2" "$1" 2>/dev/null && return
        sleep 0.1
    done
    fail "$1 does not say: $2"
}

start() { # NAME COMMAND…: in the background, its output in NAME.log
    "${@:2}" >"$folder/$1.log" 2>&1 &
    started+=($!)
    pid=$!
}

address() { # of what was started as NAME: it is in the first line
    until_said "$folder/$1.log" 'http://'
    grep -oE 'http://[0-9.:]+' "$folder/$1.log" | head -n 1
}

state() { # ID
    local shown
    shown=$(rebound show "$1") || fail "there is no $1"
    python -c 'import json, sys; t = json.load(sys.stdin); print(t["state"], t["attempt"])' <<<"$shown"
}

until_state() { # ID STATE ATTEMPTS
    for _ in $(seq 100); do
        [ "$(state "$1")" = "$2 $3" ] && return
        sleep 0.1
    done
    fail "$1 is $(state "$1"), not $2 after $3 attempts"
}

start flaky rebound receiver --script 503,503,200 --port 0
flaky=$(address flaky)
start broken rebound receiver --script 500 --port 0
broken=$(address broken)
start letters rebound receiver --port 0
letters=$(address letters)

echo "Embedded, on ${STORE_URL%%:*}"
cat >"$folder/program.py" <<'PYTHON'
import asyncio, os, sys
from rebound import Config, Destination, Rebound, State, Task

flaky, broken, letters, crash = sys.argv[1:]

async def main():
    async with Rebound(Config.from_env(prefix="")) as rebound:
        for id_, url in (("embedded-late", flaky), ("embedded-never", broken)):
            await rebound.create_task(Task(
                id=id_, source="both-modes", delay=0.5, base_delay=0.2, max_retries=3,
                destination=Destination(url=f"{url}/{id_}"),
                dead_destination=Destination(url=f"{letters}/{id_}"),
            ))
        if crash == "crash":
            os._exit(9)
        for id_ in ("embedded-late", "embedded-never"):
            while not (await rebound.get_task(id_)).finished_at:
                await asyncio.sleep(0.05)

asyncio.run(main())
PYTHON
code=0
python "$folder/program.py" "$flaky" "$broken" "$letters" crash || code=$?
[ "$code" = 9 ] || fail "the program ended with $code instead of crashing"
[ "$(state embedded-late)" = "scheduled 0" ] || fail "the crash lost embedded-late"
echo "  ok  a program that crashed right after create_task has lost nothing"
python "$folder/program.py" "$flaky" "$broken" "$letters" run
until_state embedded-late succeeded 3
echo "  ok  started again, it delivered on the third attempt"
until_state embedded-never dead 3
until_said "$folder/letters.log" '/embedded-never'
echo "  ok  what failed three times arrived as a dead letter"

echo "As a service"
start service rebound serve --http-port 0
service=$(address service)
until_said "$folder/service.log" 'worker started'
# the fields that clients of the original send, and a delay, in which the service is killed
curl -sSf "$service/tasks" -H 'Content-Type: application/json' -d '{
  "id": "service-late", "source": "both-modes", "destination": {"url": "'"$flaky"'/service-late"},
  "dead_destination": {"url": "'"$letters"'/service-late"}, "max_retries": 3, "base_delay": 0.2,
  "delay": 3, "attempt": 0, "client_id": "both-modes", "is_priority": false, "message_data": "{\"order\": 1}",
  "destination_type": "http"}' | grep -q '"message":"Task service-late scheduled successfully"' ||
    fail "POST /tasks"
curl -sSf "$service/tasks" -d '{"id": "service-never", "source": "both-modes", "max_retries": 3,
  "delay": 3, "base_delay": 0.2, "destination": {"url": "'"$broken"'/service-never"},
  "dead_destination": {"url": "'"$letters"'/service-never"}}' >/dev/null
curl -sSf "$service/health" | grep -q '"status":"healthy"' || fail "GET /health"
echo "  ok  it accepts the fields of the original's clients, and is healthy"
{ kill -9 "$pid"; wait "$pid"; } 2>/dev/null || true # the shell would announce its death
start again rebound serve --http-port 0
service=$(address again)
until_state service-late succeeded 3
echo "  ok  killed and started again, it delivered on the third attempt"
until_state service-never dead 3
until_said "$folder/letters.log" '/service-never'
echo "  ok  what failed three times arrived as a dead letter"
kill "$pid"
wait "$pid" || fail "SIGTERM ended the service with $?"
echo "  ok  SIGTERM ended it with 0"
rebound delete embedded-late embedded-never service-late service-never >/dev/null
echo "Both modes work."
