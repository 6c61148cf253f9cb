"""An HTTP front between the tests of an SDK and a batchwright server.

Each call is prepared, which gives it ids of real objects, and then passed on. The answer goes back as it came: its
status, its headers and its bytes are the server's. The front never makes an answer: if a call cannot be prepared or
passed on, the connection is closed.
"""

import contextlib
import http.client
import http.server
import json
import threading
import traceback
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

# What belongs to one connection and not to the message, or is set anew for the connection that comes next.
OF_THE_CONNECTION = {"connection", "content-length", "keep-alive", "transfer-encoding"}

ANSWER_SECONDS = 60


@dataclass
class Call:
    """One request, as it came until it is prepared."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def route(self) -> tuple[str, ...]:
        """The method and the parts of the path below `/v1`."""
        return (self.method, *urlsplit(self.target).path.removeprefix("/v1/").split("/"))

    @property
    def json(self):
        return json.loads(self.body)

    def set_in_path(self, placeholder: str, value: str) -> None:
        path, query = urlsplit(self.target).path, urlsplit(self.target).query
        parts = [value if part == placeholder else part for part in path.split("/")]
        self.target = "/".join(parts) + (f"?{query}" if query else "")

    def set_in_query(self, name: str, placeholder: str, value: str) -> None:
        """Sets a parameter, if the call has it with the placeholder as its value."""
        query = parse_qsl(urlsplit(self.target).query, keep_blank_values=True)
        if (name, placeholder) in query:
            real = [(key, value if (key, text) == (name, placeholder) else text) for key, text in query]
            self.target = f"{urlsplit(self.target).path}?{urlencode(real)}"

    def set_in_body(self, name: str, placeholder, value) -> None:
        """Sets a member of the JSON body, if the call has it with the placeholder as its value."""
        body = self.json
        if body.get(name) == placeholder:
            self.body = json.dumps({**body, name: value}).encode()


@dataclass
class Answer:
    """What the server said: what goes back."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


class Front:
    """The front, listening on a port of its own. `calls` and `faults` say what happened, for the one who reports."""

    def __init__(self, server_address: str, prepare):
        self.calls: list[tuple[str, int]] = []
        self.faults: list[str] = []
        self._server_address = server_address
        self._prepare = prepare
        # Objects are made one after another, so that two calls cannot both make the one that is shared.
        self._preparing = threading.Lock()

    @contextlib.contextmanager
    def listening(self):
        """Listens until the end of the block: the URL."""
        front = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                front._handle(self)

            do_POST = do_DELETE = do_GET

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()

    def _handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        try:
            call = Call(handler.command, handler.path, list(handler.headers.items()), _body(handler))
            with self._preparing:
                self._prepare(call)
            answer = self._pass_on(call)
            self.calls.append((f"{call.method} {call.target}", answer.status))
            _give_back(handler, answer)
        except Exception:
            self.faults.append(f"{handler.command} {handler.path}\n{traceback.format_exc()}")
            handler.close_connection = True

    def _pass_on(self, call: Call) -> Answer:
        connection = http.client.HTTPConnection(self._server_address, timeout=ANSWER_SECONDS)
        try:
            connection.putrequest(call.method, call.target, skip_host=True, skip_accept_encoding=True)
            for name, value in call.headers:
                if name.lower() not in OF_THE_CONNECTION:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(call.body)))
            connection.endheaders(call.body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.reason, answer.getheaders(), answer.read())
        finally:
            connection.close()


def _body(handler: http.server.BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    chunks = []
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        chunks.append(handler.rfile.read(size))
        handler.rfile.readline()
    # No client here sends trailers: what follows is the empty line at the end.
    handler.rfile.readline()
    return b"".join(chunks)


def _give_back(handler: http.server.BaseHTTPRequestHandler, answer: Answer) -> None:
    # Not `send_response`, which adds headers of its own.
    handler.send_response_only(answer.status, answer.reason)
    for name, value in answer.headers:
        if name.lower() not in OF_THE_CONNECTION:
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(answer.body)))
    handler.end_headers()
    handler.wfile.write(answer.body)
