#!/bin/sh
# Runs the tests that use the official SDKs of OpenAI and Anthropic, in Python and in Node, and the AI SDK, against a
# real server and a simulator.
#
#   tests/sdk/run.sh
#
# BATCHWRIGHT_BIN is the program under test. Without it, that is target/debug/batchwright, which is built if missing.
# The SDKs are installed below tests/sdk, and again only when their versions here have changed. So are the own tests of
# the Python SDKs, which run in fixture mode (suites/__main__.py).
# The reference MCP server, which some rows call, is installed below tests/tools in the same way.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

fail() {
    echo "run.sh: $1" >&2
    exit 2
}

need() {
    command -v "$1" >/dev/null 2>&1 || fail "'$1' is not there. Please install $2."
}

need python3 "Python 3.9 or newer, with its venv module"
need node "Node.js 20.12 or newer"
need npm "npm, which comes with Node.js"
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 12) ? 0 : 1)' ||
    fail "Node.js $(node --version) is too old. Please install Node.js 20.12 or newer."

if [ -n "${BATCHWRIGHT_BIN:-}" ]; then
    [ -x "$BATCHWRIGHT_BIN" ] || fail "BATCHWRIGHT_BIN is '$BATCHWRIGHT_BIN', which is no program."
    BATCHWRIGHT_BIN=$(cd "$(dirname "$BATCHWRIGHT_BIN")" && pwd)/$(basename "$BATCHWRIGHT_BIN")
else
    BATCHWRIGHT_BIN=$root/target/debug/batchwright
    if [ ! -x "$BATCHWRIGHT_BIN" ]; then
        need cargo "Rust, or set BATCHWRIGHT_BIN to a batchwright that is built"
        (cd "$root" && CARGO_TARGET_DIR="$root/target" cargo build)
    fi
fi
export BATCHWRIGHT_BIN

# The servers are on this machine; a proxy of the environment must not come in between.
NO_PROXY=127.0.0.1${NO_PROXY:+,$NO_PROXY}
no_proxy=$NO_PROXY
export NO_PROXY no_proxy

cd "$here"

# Each stamp is written last, so that an installation that broke off is made again.
wanted=$(python3 --version && cat requirements.txt)
if [ ! -x .venv/bin/python ] || [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
    echo "Installing the Python SDKs"
    rm -rf .venv
    python3 -m venv .venv || fail "python3 has no venv module. Please install it (Debian and Ubuntu: python3-venv)."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    echo "$wanted" >.venv/installed
fi

# The SDKs' own tests come with their source distributions. They have an environment of their own, because pytest loads
# each plugin that is installed.
sdks=$(grep -E '^(openai|anthropic)==' requirements.txt)
wanted=$(python3 --version && cat requirements.txt requirements-suites.txt)
if [ "$(cat .suites/installed 2>/dev/null)" != "$wanted" ]; then
    echo "Fetching the tests of the Python SDKs"
    rm -rf .suites
    python3 -m venv .suites/venv
    pip=".suites/venv/bin/python -m pip --quiet --disable-pip-version-check"
    # shellcheck disable=SC2086 # words of a command, and one requirement a word
    $pip install $sdks "$(grep '^pytest==' requirements.txt)" -r requirements-suites.txt
    # shellcheck disable=SC2086
    $pip download --no-deps --no-binary openai,anthropic --dest .suites $sdks
    for sdk in $sdks; do
        name=${sdk%%==*} release=${sdk%%==*}-${sdk##*==}
        mkdir ".suites/$name"
        tar -xzf ".suites/$release.tar.gz" -C ".suites/$name" --strip-components 1 \
            "$release/pyproject.toml" "$release/tests"
        rm ".suites/$release.tar.gz"
    done
    echo "$wanted" >.suites/installed
fi

wanted=$(node --version && cat package.json package-lock.json)
if [ "$(cat node_modules/.installed 2>/dev/null)" != "$wanted" ]; then
    echo "Installing the Node SDKs"
    npm ci --no-audit --no-fund
    echo "$wanted" >node_modules/.installed
fi

status=0
echo "Python SDK"
.venv/bin/python -B -m pytest -p no:cacheprovider -q || status=1
.suites/venv/bin/python -B -m suites || status=1
echo "Node SDK"
node --test --test-reporter=spec ./*.test.mjs || status=1
exit $status
