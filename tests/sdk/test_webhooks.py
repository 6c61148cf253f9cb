"""Webhooks, as the SDK's `unwrap` reads and checks them (contract §10.5)."""

import contextlib
import http.server
import queue
import threading

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from batches import CHAT, chat_row, create
from servers import running

SECRET = "whsec_c2VjcmV0IG9mIGEgdGVzdA=="


@contextlib.contextmanager
def receiver():
    """An HTTP server that puts each body and its headers into a queue: its URL, and the queue."""
    received: queue.Queue = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.put((self.rfile.read(int(self.headers["Content-Length"])), dict(self.headers.items())))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", received
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def told_client(tmp_path_factory):
    flags = ("--webhook-allow-private", "--completion-windows", "24h,1s")
    with running(tmp_path_factory.mktemp("webhooks"), *flags) as client:
        yield client


def end_completed(client, webhook):
    return create(client, [chat_row("one")], extra_body={"webhook": webhook})


def end_failed(client, webhook):
    return client.batches.create(
        input_file_id="file-0000000000000000000000",
        endpoint=CHAT,
        completion_window="24h",
        extra_body={"webhook": webhook},
    )


def end_expired(client, webhook):
    return create(client, [chat_row("one", model="simulator-hang")], window="1s", extra_body={"webhook": webhook})


def end_cancelled(client, webhook):
    batch = create(client, [chat_row("one", model="simulator-hang")], extra_body={"webhook": webhook})
    return client.batches.cancel(batch.id)


@pytest.mark.parametrize("end", [end_completed, end_failed, end_expired, end_cancelled])
@pytest.mark.parametrize("secret", [SECRET, "a plain secret"])
def test_unwrap_takes_the_event(told_client, end, secret):
    with receiver() as (url, received):
        batch = end(told_client, {"url": url, "secret": secret})
        body, headers = received.get(timeout=60)

    event = OpenAI(api_key="any", webhook_secret=secret).webhooks.unwrap(body, headers)

    status = end.__name__.removeprefix("end_")
    assert type(event).__name__ == f"Batch{status.capitalize()}WebhookEvent"
    assert (event.type, event.data.id, event.object) == (f"batch.{status}", batch.id, "event")
    ended = told_client.batches.retrieve(batch.id)
    assert event.created_at == getattr(ended, f"{status}_at")
    with pytest.raises(InvalidWebhookSignatureError):
        OpenAI(api_key="any", webhook_secret="another").webhooks.unwrap(body, headers)
