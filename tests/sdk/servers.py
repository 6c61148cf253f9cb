"""Starting and stopping `batchwright` processes, each on a free port of its own choice, and connecting to them.

And plain HTTP servers, for what the simulator cannot say and for tools.
"""

import contextlib
import http.server
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from openai import DefaultHttpxClient, OpenAI

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("BATCHWRIGHT_BIN", ROOT / "target" / "debug" / "batchwright")).resolve()

# Generous, because machines that run tests are often busy. Nothing waits this long unless something is wrong.
START_SECONDS = 60
STOP_SECONDS = 20

ADDRESS = re.compile(r"(?:listening|simulating) address=(http://\S+)")


class Process:
    """One `batchwright` process. Its log goes to a file, so that a test that fails can show it."""

    # Every process of this run, for the report at its end.
    started: list["Process"] = []

    def __init__(self, directory: Path, name: str, *arguments: str):
        self.name = name
        self.log_path = directory / f"{name}.log"
        # Settings of the shell that runs the tests must not change the servers under test.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("BATCHWRIGHT_")}
        with self.log_path.open("wb") as log:
            self.child = subprocess.Popen(
                [BINARY, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        Process.started.append(self)
        try:
            self.base_url = self._wait_for_address()
        except BaseException:
            self.stop()
            raise

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self) -> None:
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def _wait_for_address(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if found := ADDRESS.search(self.log()):
                return found.group(1)
            if self.child.poll() is not None:
                raise RuntimeError(f"{self.name} ended with status {self.child.returncode}:\n{self.log()}")
            time.sleep(0.02)
        raise TimeoutError(f"{self.name} did not say where it listens within {START_SECONDS} s:\n{self.log()}")


def simulate(directory: Path, *arguments: str) -> Process:
    """An inference server. Without further arguments it answers nearly at once."""
    latency = () if "--latency" in arguments else ("--latency", "5ms")
    return Process(directory, "simulate", "simulate", "--listen", "127.0.0.1:0", *latency, *arguments)


def serve(directory: Path, upstream: str, *arguments: str, name: str = "serve") -> Process:
    """A batch server with its data in `directory`, once it says that it is ready."""
    process = Process(
        directory,
        name,
        "serve",
        *("--listen", "127.0.0.1:0"),
        *("--upstream", upstream),
        *("--data-dir", str(directory / "data")),
        # Calls that hang on purpose must not hold up the end of the run.
        *("--grace", "100ms"),
        *arguments,
    )
    try:
        _wait_until_ready(process)
    except BaseException:
        process.stop()
        raise
    return process


def _wait_until_ready(process: Process) -> None:
    url = process.base_url.removesuffix("/v1") + "/readyz"
    deadline = time.monotonic() + START_SECONDS
    answer = "nothing"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            answer = error.read().decode(errors="replace")
        except OSError as error:
            answer = str(error)
        if process.child.poll() is not None:
            raise RuntimeError(f"{process.name} ended with status {process.child.returncode}:\n{process.log()}")
        time.sleep(0.02)
    raise TimeoutError(f"{process.name} was not ready within {START_SECONDS} s; /readyz said {answer}:\n{process.log()}")


@contextlib.contextmanager
def running(directory: Path, *arguments: str, name: str = "serve", simulator_arguments: tuple[str, ...] = ()):
    """A simulator and a batch server in front of it, both stopped at the end: a client of the batch server."""
    upstream = simulate(directory, *simulator_arguments)
    try:
        with in_front_of(upstream.base_url, directory, *arguments, name=name) as client:
            yield client
    finally:
        upstream.stop()


@contextlib.contextmanager
def in_front_of(upstream: str, directory: Path, *arguments: str, name: str = "serve"):
    """A batch server in front of an inference server, stopped at the end: a client of it."""
    server = serve(directory, upstream, *arguments, name=name)
    try:
        with _connect(server) as client:
            yield client
    finally:
        server.stop()


@contextlib.contextmanager
def answering(answer):
    """An HTTP server that answers each POST with `answer(path, body)`, a status and a text: its base URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            status, text = answer(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def show_logs(terminalreporter) -> None:
    """Writes what the servers said into pytest's report. The logs of tests that passed are gone with their directories."""
    for process in Process.started:
        if process.log_path.exists():
            terminalreporter.section(f"log of {process.log_path.parent.name}/{process.name}")
            terminalreporter.write_line(process.log())


def _connect(server: Process) -> OpenAI:
    """The official client, changed in nothing but its base URL, that keeps the requests it sends."""
    sent: list = []
    http_client = DefaultHttpxClient(event_hooks={"request": [sent.append]})
    client = OpenAI(base_url=server.base_url, api_key="any", http_client=http_client)
    client.sent = sent
    return client
