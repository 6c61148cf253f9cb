"""What the tests do with batches over and over: writing rows, waiting, reading result files."""

import json
import time

# A batch of a few rows ends within a second or two; only a batch that hangs takes this long.
DEADLINE_SECONDS = 60
TERMINAL = {"completed", "failed", "expired", "cancelled"}

CHAT = "/v1/chat/completions"

# In the order in which they are on the wire.
BATCH_KEYS = [
    *("id", "object", "endpoint", "model", "errors", "input_file_id", "completion_window", "status"),
    *("output_file_id", "error_file_id", "created_at", "in_progress_at", "expires_at", "finalizing_at"),
    *("completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"),
    *("request_counts", "usage", "metadata"),
]
FILE_KEYS = [
    *("object", "id", "purpose", "filename", "bytes", "created_at", "expires_at", "status", "status_details"),
]


def chat_row(custom_id, model="simulator", **body):
    messages = [{"role": "user", "content": f"What is {custom_id}?"}]
    return row(custom_id, CHAT, model=model, **{"messages": messages, **body})


def row(custom_id, url, **body):
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def upload(client, content, name="input.jsonl"):
    """Uploads a batch input file: rows, or bytes as they are."""
    content = content if isinstance(content, bytes) else jsonl(content)
    return client.files.create(file=(name, content), purpose="batch")


def create(client, content, endpoint=CHAT, window="24h", **options):
    """A batch for rows, or for the bytes of an input file."""
    input_file = upload(client, content)
    return client.batches.create(
        input_file_id=input_file.id, endpoint=endpoint, completion_window=window, **options
    )


def wait(client, batch, statuses=TERMINAL):
    """Polls a batch until it has one of the statuses."""
    return wait_until(client, batch, lambda batch: batch.status in statuses, f"one of {sorted(statuses)}")


def wait_until(client, batch, condition, wanted):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        batch = client.batches.retrieve(batch.id)
        if condition(batch):
            return batch
        if batch.status in TERMINAL:
            break
        time.sleep(0.05)
    raise AssertionError(f"waited for {wanted}, but the batch is {batch.to_json()}")


def run(client, content, **options):
    """A batch from its rows to its end."""
    return wait(client, create(client, content, **options))


def lines_of(client, file_id):
    """The lines of a result file, each parsed on its own. No file has none."""
    if file_id is None:
        return []
    text = client.files.content(file_id).content.decode("utf-8")
    assert text.endswith("\n"), "the last line of a result file ends like all others"
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def counts(batch):
    return (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed)


def ids(lines):
    """The custom_ids of lines or rows; sorted, because the order of result lines means nothing."""
    return sorted(line["custom_id"] for line in lines)


def is_output_line(line):
    """Asserts the shape of contract §9.2."""
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert line["id"].startswith("batch_req_")
    assert list(line["response"]) == ["status_code", "request_id", "body"]
    assert line["response"]["status_code"] == 200
    assert isinstance(line["response"]["request_id"], str) and line["response"]["request_id"]
    assert isinstance(line["response"]["body"], dict)
    assert line["error"] is None


def is_http_error_line(line, status):
    """Asserts the shape of contract §9.3 for a request that was answered with an error."""
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert line["id"].startswith("batch_req_")
    assert list(line["response"]) == ["status_code", "request_id", "body"]
    assert line["response"]["status_code"] == status
    assert isinstance(line["response"]["request_id"], str) and line["response"]["request_id"]
    assert sorted(line["response"]["body"]["error"]) == ["code", "message", "param", "type"]
    assert line["error"] is None


def is_unexecuted_line(line, code):
    """Asserts the shape of contract §9.3 for a request that was never answered."""
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert line["id"].startswith("batch_req_")
    assert line["response"] is None
    assert list(line["error"]) == ["code", "message"]
    assert line["error"]["code"] == code
    assert line["error"]["message"]
