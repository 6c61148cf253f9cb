"""A real inference server: llama.cpp's, with a tiny model whose words mean nothing."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request

import llama_model

SECONDS = 60


class Llama:
    """A llama.cpp server on a port that stays its own."""

    def __init__(self, directory):
        self.model = directory / "tiny.gguf"
        llama_model.write(self.model)
        self.log = (directory / "llama.log").open("ab")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.start()

    def start(self):
        command = [sys.executable, "llama_server.py", self.model, str(self.port)]
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        health = f"http://127.0.0.1:{self.port}/health"
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=5):
                return
            assert self.child.poll() is None, "llama.cpp has ended"
            time.sleep(0.02)
        raise TimeoutError("llama.cpp does not answer")

    def kill(self):
        self.child.kill()
        self.child.wait()

    def close(self):
        self.kill()
        self.log.close()
