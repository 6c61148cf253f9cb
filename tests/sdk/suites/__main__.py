"""Runs the SDKs' own tests of their API against a real batchwright server, in fixture mode.

    .suites/venv/bin/python -B -m suites [openai | anthropic] [arguments of pytest]

The source distributions of `openai` and `anthropic` contain tests that were generated with the SDK. Their authors run
them against a mock, which answers each call that is valid by the schema. So the tests name objects that nobody made:
`batch_id`, `file_id`, `upload_abc123`, `message_batch_id`.

In fixture mode a real server can answer these calls. A front (front.py) stands between the tests and the server. For
each placeholder the front makes a real object of the right kind, by calls of its own to the same server: a file, a
completed batch with result lines, a batch in progress for a call that cancels it, an upload with its part, a message
batch that has ended. It writes the object's id in the place of the placeholder, in the path, the query or the body, and
passes the call on. The answer goes back untouched, and the front makes no answer itself. `prepare` of openai_suite.py
and of anthropic_suite.py says what is replaced; all else of a call is as the test sent it.

Some tests mock the answer themselves, with `respx`: those that read the content of a file or the results of a message
batch. In fixture mode such a test gets no mock: the front uploads a file with the content of the mock, or has a message
batch with real result lines, and the server answers (plugin.py).

`tests_not_run` and `files_not_run` of each suite list the tests that cannot hold for a real server, with the reason,
and each run prints them. The SDKs themselves skip tests that mock an answer and use aiohttp; each run prints these too.
run.sh fetches the tests into `.suites`; they are no part of this repository.
"""

import os
import subprocess
import sys
from pathlib import Path

from suites.plugin import SUITES

SDK_TESTS = Path(__file__).resolve().parents[1]


def main(arguments: list[str]) -> int:
    chosen = [arguments.pop(0)] if arguments and arguments[0] in SUITES else list(SUITES)
    # All of them, also if one fails.
    return max([run(SUITES[name], arguments) for name in chosen])


def run(suite, arguments: list[str]) -> int:
    print(f"Tests of the Python SDK {suite.name} itself", flush=True)
    command = [
        *(sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        # The SDKs' own arguments spread the tests over processes, each of which would have its own servers.
        *("-o", "addopts="),
        *suite.arguments,
        *("-p", "suites.plugin", "--suite", suite.name),
        *arguments,
        *suite.files,
    ]
    environment = {**os.environ, "PYTHONPATH": str(SDK_TESTS)}
    return subprocess.run(command, cwd=SDK_TESTS / ".suites" / suite.name, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
