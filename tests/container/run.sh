#!/usr/bin/env bash
# Builds the image, runs it as the README says, brings docker-compose.yml up, and calls every server from the host.
# Then runs the tests of the sandbox inside the container, in each way to start it, and servers that npx and uvx fetch.
# Leaves nothing behind: each container, volume, network and folder made here is removed at exit, by its own name.
#
# Env: SLUICE_BIN             the binary that calls (default target/debug/sluice)
#      SLUICE_TEST_IMAGE      an image that is already built, tested instead of building one
#      SLUICE_REQUIRE_DOCKER  1: no Docker engine is a failure (default: the test is skipped, with the reason)
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
SLUICE=${SLUICE_BIN:-$ROOT/target/debug/sluice}

RUN_ID=sluice-test-$$-$RANDOM
WORK=$(mktemp -d)
IMAGE=${SLUICE_TEST_IMAGE:-$RUN_ID}
CONTAINER=
COMPOSE_IS_UP=0
PASSED=0

say() { echo "container: $*"; }
pass() { PASSED=$((PASSED + 1)); say "ok - $*"; }
fail() { say "FAILED - $*" >&2; exit 1; }

skip() {
    [ "${SLUICE_REQUIRE_DOCKER:-0}" != 1 ] || fail "$1 (SLUICE_REQUIRE_DOCKER=1)"
    say "skipped: $1"
    exit 0
}

# wait_for SECONDS WHAT COMMAND…: until the command succeeds, or fails with WHAT.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "waited in vain for: $what"
        sleep 0.2
    done
}

compose() {
    SLUICE_IMAGE=$IMAGE SLUICE_PORT=$COMPOSE_PORT SLUICE_KEY_FILE=$KEY_FILE \
        docker compose --project-name "$RUN_ID" --file "$ROOT/docker-compose.yml" "$@"
}

clean_up() {
    local code=$?
    trap - EXIT INT TERM
    set +e
    if [ "$code" -ne 0 ]; then
        [ -z "$CONTAINER" ] || docker logs --tail 60 "$CONTAINER"
        [ "$COMPOSE_IS_UP" = 0 ] || compose logs --tail 60
    fi
    [ "$COMPOSE_IS_UP" = 0 ] || compose down --volumes --timeout 10 >/dev/null 2>&1
    [ -z "$CONTAINER" ] || docker rm --force --volumes "$CONTAINER" >/dev/null
    # What the container wrote belongs to its user; only root, or the engine, may remove it.
    rm -rf "$WORK" 2>/dev/null ||
        docker run --rm --entrypoint rm --volume "$WORK:/mnt" "$IMAGE" -rf /mnt/workspace >/dev/null && rm -rf "$WORK"
    [ "$IMAGE" != "$RUN_ID" ] || docker image rm --force "$IMAGE" >/dev/null 2>&1
    say "$PASSED passed, $([ "$code" -eq 0 ] && echo 0 || echo 1) failed"
    exit "$code"
}

command -v docker >/dev/null || skip "there is no docker command"
docker info >/dev/null 2>&1 || skip "no Docker engine answers"
docker compose version >/dev/null 2>&1 || skip "there is no docker compose"
[ -x "$SLUICE" ] || fail "no binary at $SLUICE: run 'cargo build' first, or set SLUICE_BIN"
trap clean_up EXIT
trap 'exit 130' INT TERM

# --- helpers of the checks -------------------------------------------------------------------------------------

# called WHAT WANTED COMMAND…: the output of the command contains WANTED.
called() {
    local what=$1 wanted=$2 output
    shift 2
    output=$("$@" 2>&1) || fail "$what: exit code $?: $output"
    [[ $output == *"$wanted"* ]] || fail "$what: wanted $wanted, got: $output"
    pass "$what"
}

# status WANTED URL [HEADER]: the HTTP status of an initialize.
status() {
    local wanted=$1 url=$2 got
    got=$(curl --silent --output /dev/null --max-time 20 --write-out '%{http_code}' \
        --header 'Content-Type: application/json' --header 'Accept: application/json, text/event-stream' \
        ${3:+--header "$3"} --data '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":
        "2025-06-18","capabilities":{},"clientInfo":{"name":"container-test","version":"1"}}}' "$url") || true
    [ "$got" = "$wanted" ] || fail "$url: wanted HTTP $wanted, got $got"
    local with=${3:+the wrong key}
    pass "HTTP $wanted with ${with:-no key}"
}

is_healthy() {
    case $(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$1") in
        'running healthy') ;;
        running*) return 1 ;;
        *) fail "the container has ended" ;;
    esac
}

# Every process of a container as "uid state command".
processes() { docker top "$1" -eo pid,uid,stat,args | awk 'NR > 1 { $1 = ""; print substr($0, 2) }'; }

no_root_in() {
    processes "$1" >"$WORK/processes"
    ! grep -q '^0 ' "$WORK/processes" || fail "root runs in the container: $(cat "$WORK/processes")"
    pass "no process of the $2 container is root's"
}

# has_ended CONTAINER PATTERN: no process has such a command.
has_ended() {
    processes "$1" >"$WORK/processes"
    ! grep -qE "$2" "$WORK/processes"
}

# The engine does not list zombies, so the container is asked.
has_zombie() { docker exec "$1" sh -c 'cat /proc/[0-9]*/stat 2>/dev/null' | grep -q ') Z '; }

# Neither a server nor a zombie is left; the health check that may be running is no server.
only_the_gateway_in() { has_ended "$1" 'stdio-demo|mcp-server' && ! has_zombie "$1"; }

stops_well() {
    local start=$SECONDS
    docker stop --time 30 "$1" >/dev/null
    local took=$((SECONDS - start)) code
    code=$(docker inspect --format '{{.State.ExitCode}}' "$1")
    [ "$code" = 0 ] || fail "docker stop: exit code $code after $took s: $(docker logs --tail 20 "$1" 2>&1)"
    [ "$took" -lt 30 ] || fail "docker stop took $took s"
    pass "the $2 container stops within its grace ($took s), exit code 0"
}

# Process 1 has to reap what somebody else leaves behind.
reaps_orphans() {
    docker exec "$1" sh -c 'sleep 1 >/dev/null 2>&1 & exit'
    processes "$1" | grep -q 'sleep 1' || fail "$2: there is no orphan to reap"
    wait_for 10 "the end of an orphan, in the $2 container" has_ended "$1" 'sleep 1'
    ! has_zombie "$1" || fail "$2: an orphan became a zombie"
    pass "the $2 container reaps orphans"
}

# --- the image -------------------------------------------------------------------------------------------------

if [ "$IMAGE" = "$RUN_ID" ]; then
    say "building the image"
    "$ROOT/scripts/image.sh" "$IMAGE"
    pass "the image builds"
fi

# As typed in the README: the folder does not exist yet, so the engine makes it, and it is root's.
cd "$WORK"
CONTAINER=$(docker run --detach --publish 127.0.0.1::8081 --volume ./workspace:/workspace "$IMAGE")
address=$(docker port "$CONTAINER" 8081 | head -n1)
wait_for 60 "a healthy container" is_healthy "$CONTAINER"
pass "docker run: healthy"

has_key() { SLUICE_KEY=$(docker logs "$CONTAINER" 2>&1 | grep -oE 'slk_[A-Za-z0-9_-]+' | head -n1) && [ -n "$SLUICE_KEY" ]; }
wait_for 10 "the key in the log" has_key
export SLUICE_KEY
called "docker run: add over HTTP+SSE" 7 "$SLUICE" call "http://$address/sse" add a=2 b=5
called "docker run: add over Streamable HTTP" 7 "$SLUICE" call "http://$address/mcp" add a=2 b=5
"$SLUICE" call "http://$address/mcp" write_file path=hello.txt content=hello >/dev/null || fail "write_file"
[ "$(cat workspace/hello.txt)" = hello ] || fail "workspace/hello.txt is not there: $(ls -la workspace)"
pass "docker run: write_file writes to ./workspace on the host"
no_root_in "$CONTAINER" "docker run"
wait_for 30 "the end of every server" only_the_gateway_in "$CONTAINER"
pass "docker run: no server and no zombie is left after the calls"
reaps_orphans "$CONTAINER" "docker run"
stops_well "$CONTAINER" "docker run"

# --- the sandbox, inside ---------------------------------------------------------------------------------------

# The tests of the sandbox that run on the host, on the same binaries, under the rules of a container.
tests=$(cd "$ROOT" && cargo test --locked --quiet --no-run --test it --message-format json |
    python3 -c 'import json, sys
for line in sys.stdin:
    found = json.loads(line)
    if found.get("executable") and found["target"]["name"] == "it": print(found["executable"])')
(cd "$ROOT" && cargo build --locked --quiet --bins --examples)
target=${tests%/deps/*}
printf '#!/bin/sh\nexec %s "$@"\n' "$tests" >"$WORK/as-sluice"
chmod 755 "$WORK" "$WORK/as-sluice"

# inside HOW ARGUMENT…: the tests of the sandbox hold in a container that is started with these arguments.
inside() {
    local how=$1 output
    shift
    output=$(docker run --rm --init --volume "$target:$target:ro" "$@" sandbox:: 2>&1) || fail "$how: $output"
    [[ $output == *' 0 failed'* && $output != *' 0 passed'* ]] || fail "$how: $output"
    pass "the sandbox holds $how: $(sed -n 's/^test result: ok. \([0-9]* passed\).*/\1/p' <<<"$output")"
}

hardened=(--read-only --tmpfs /tmp:size=64m,mode=1777 --cap-drop ALL --security-opt no-new-privileges)
if docker run --rm --volume "$target:$target:ro" --entrypoint "$tests" "$IMAGE" --list >"$WORK/list" 2>&1; then
    inside "as root that gives up root" --volume "$WORK/as-sluice:/usr/local/bin/sluice:ro" "$IMAGE"
    inside "as user 10001 without capabilities" --user 10001:10001 "${hardened[@]}" --entrypoint "$tests" "$IMAGE"
    inside "as root, with servers of root's and of another user" --entrypoint "$tests" "$IMAGE"
elif grep -q GLIBC "$WORK/list" && [ "${SLUICE_REQUIRE_DOCKER:-0}" != 1 ]; then
    say "skipped: the tests of the sandbox are built for a newer C library than the image has"
else
    fail "the tests of the sandbox do not run in the image: $(cat "$WORK/list")"
fi

# --- what npx and uvx fetch ------------------------------------------------------------------------------------

cat >"$WORK/fetched.toml" <<'TOML'
[http]
listen = "0.0.0.0:8081"
[tenants.main]
[servers.npx]
command = "npx"
args = ["-y", "@modelcontextprotocol/server-everything"]
pass_env = ["NODE_EXTRA_CA_CERTS"]
[servers.uvx]
command = "uvx"
args = ["mcp-server-time"]
pass_env = ["SSL_CERT_FILE"]
TOML

# fetches HOW ARGUMENT…: npx and uvx start a server with a cold cache and with a warm one, in such a container.
fetches() {
    local how=$1 cache
    shift
    docker rm --force --volumes "$CONTAINER" >/dev/null
    CONTAINER=$(docker run --detach --publish 127.0.0.1::8081 --env SLUICE_KEY \
        --volume "$WORK/fetched.toml:/etc/sluice/sluice.toml:ro" "$@" "$IMAGE" serve --config /etc/sluice/sluice.toml)
    address=$(docker port "$CONTAINER" 8081 | head -n1)
    wait_for 60 "a healthy container" is_healthy "$CONTAINER"
    for cache in cold warm; do
        called "$how: npx, $cache" 'Echo: hello' \
            "$SLUICE" call --timeout 120s "http://$address/servers/npx/mcp" echo message=hello
        called "$how: uvx, $cache" '"timezone"' \
            "$SLUICE" call --timeout 120s "http://$address/servers/uvx/mcp" get_current_time timezone=UTC
    done
    docker exec "$CONTAINER" sluice check --config /etc/sluice/sluice.toml >"$WORK/check" 2>&1 || fail "$(cat "$WORK/check")"
    [ "$(grep -c 'standard, network on' "$WORK/check")" = 2 ] || fail "$how: no sandbox: $(cat "$WORK/check")"
}

fetches "as root that gives up root"
fetches "as the compose file does" --user 10001:10001 "${hardened[@]}" \
    --tmpfs /home/sluice:size=512m,exec,uid=10001,gid=10001,mode=0700

# --- the compose file ------------------------------------------------------------------------------------------

unset SLUICE_KEY
mkdir -m 700 "$WORK/secrets"
KEY_FILE=$WORK/secrets/key
echo "slk_test_$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" >"$KEY_FILE"
COMPOSE_PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

if message=$(KEY_FILE='' compose config 2>&1 >/dev/null); then fail "compose takes an empty key"; fi
[[ $message == *'slk_local_'* ]] || fail "compose does not say how to make a key: $message"
pass "compose without a key says how to make one"

COMPOSE_IS_UP=1
compose up --detach --no-build --wait --wait-timeout 90
pass "docker compose up --wait: healthy"
gateway=$(compose ps --quiet sluice)
base=http://127.0.0.1:$COMPOSE_PORT

status 401 "$base/servers/time/mcp"
status 401 "$base/servers/time/mcp" "Authorization: Bearer slk_test_0000000000000000000000000000000000000000"
export SLUICE_KEY_FILE=$KEY_FILE
for transport in sse mcp; do
    called "compose: the Python server over /$transport" '"timezone"' \
        "$SLUICE" call "$base/servers/time/$transport" get_current_time timezone=UTC
    called "compose: the Node server over /$transport" 'Echo: hello' \
        "$SLUICE" call "$base/servers/everything/$transport" echo message=hello
    called "compose: the built-in server over /$transport" 7 "$SLUICE" call "$base/servers/demo/$transport" add a=2 b=5
done
called "compose: the default server" 7 "$SLUICE" call "$base/mcp" add a=2 b=5

"$SLUICE" call "$base/servers/demo/mcp" write_file path=kept.txt content=kept >/dev/null || fail "write_file"
[ "$(compose exec -T sluice cat /workspace/kept.txt)" = kept ] || fail "the volume has no kept.txt"
pass "compose: write_file writes to the volume"
! docker inspect "$gateway" | grep -qF "$(cat "$KEY_FILE")" || fail "the key is in what the engine knows of the container"
! compose logs sluice 2>&1 | grep -F 'not safe' || fail "the gateway warns of how compose gives it the key"
pass "compose: the key is in its file only, and nothing is said against that"
no_root_in "$gateway" compose
[ "$(compose exec -T sluice id -u)" = 10001 ] || fail "docker exec runs as another user"
compose exec -T sluice grep -q '^NoNewPrivs:.*1' /proc/1/status || fail "the gateway may gain privileges"
! compose exec -T sluice touch /etc/written 2>/dev/null || fail "the root file system can be written"
pass "compose: user 10001, no new privileges, a read-only root file system"
wait_for 30 "the end of every server" only_the_gateway_in "$gateway"
pass "compose: no server and no zombie is left after the calls"
reaps_orphans "$gateway" compose
stops_well "$gateway" compose

compose up --detach --no-build --wait --wait-timeout 90
[ "$(compose exec -T sluice cat /workspace/kept.txt)" = kept ] || fail "the volume did not keep its file"
pass "compose: the volume outlives the container"
