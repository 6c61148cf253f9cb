#!/bin/sh
# Looks at the dashboard in Chromium.
#
#   tests/dashboard/run.sh            runs the tests
#   tests/dashboard/run.sh pictures   makes the pictures of docs/pictures
#
# BATCHWRIGHT_BIN is the program under test (target/debug/batchwright), and CHROMIUM the browser (/usr/bin/chromium).
set -eu

cd "$(dirname "$0")"
wanted=$(node --version && cat package.json package-lock.json)
if [ "$(cat node_modules/.installed 2>/dev/null)" != "$wanted" ]; then
    echo "Installing playwright-core and axe"
    PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund
    echo "$wanted" >node_modules/.installed
fi
if [ "${1:-}" = pictures ]; then
    exec node pictures.mjs
fi
exec node --test --test-reporter=spec ./*.test.mjs
