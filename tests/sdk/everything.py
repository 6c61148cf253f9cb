"""The reference MCP server, `@modelcontextprotocol/server-everything`, which the tests in Rust install and use too."""

import contextlib
import os
import socket
import subprocess
import time

from servers import ROOT, START_SECONDS

HERE = ROOT / "tests" / "tools"
SERVER = HERE / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"


@contextlib.contextmanager
def running(directory):
    """A server with its log in `directory`, ended at the end: its URL."""
    _install()
    # Between the look for a free port and its use another process may take it.
    for attempt in range(5):
        port = _free_port()
        log_path = directory / f"everything-{attempt}.log"
        with log_path.open("wb") as log:
            server = subprocess.Popen(
                ["node", SERVER, "streamableHttp"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PORT": str(port)},
            )
        try:
            if _listens(server, log_path):
                yield f"http://127.0.0.1:{port}/mcp"
                return
        finally:
            server.kill()
            server.wait()
    raise RuntimeError(f"no port stays free:\n{log_path.read_text(errors='replace')}")


def _install():
    """Installs the server, unless this very version is there, by the same stamp as the tests in Rust."""
    wanted = "".join((HERE / name).read_text() for name in ("package.json", "package-lock.json"))
    stamp = HERE / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, stdin=subprocess.DEVNULL, check=True)
    stamp.write_text(wanted)


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _listens(server, log_path):
    """Waits until the server listens. False if it ends instead."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if "listening on port" in log_path.read_text(errors="replace"):
            return True
        if server.poll() is not None:
            return False
        time.sleep(0.02)
    raise TimeoutError(f"the MCP server did not listen within {START_SECONDS} s")
