"""The servers that the tests talk to. Most share one; those with settings of their own start when first asked for."""

import pytest

from llama import Llama
from servers import running, show_logs


@pytest.fixture(scope="session")
def client(tmp_path_factory):
    """A client of the shared server, with the SDK's own retries."""
    with running(tmp_path_factory.mktemp("all")) as client:
        yield client


@pytest.fixture(scope="session")
def idle_client(tmp_path_factory):
    """A client of a server without a worker: batches stay `validating`, and `cancelling` once they are called off."""
    with running(tmp_path_factory.mktemp("idle"), "--role", "api") as client:
        yield client


@pytest.fixture(scope="session")
def short_window_client(tmp_path_factory):
    """A client of a server whose batches may ask for a window of two seconds."""
    with running(tmp_path_factory.mktemp("window"), "--completion-windows", "24h,2s") as client:
        yield client


@pytest.fixture(scope="session")
def single_model_client(tmp_path_factory):
    """A client of a server that takes one model for each batch, as OpenAI does."""
    with running(tmp_path_factory.mktemp("model"), "--single-model") as client:
        yield client


@pytest.fixture(scope="session")
def broken_upstream_client(tmp_path_factory):
    """A client of a server whose inference server answers every request with HTTP 500."""
    failing = ("--fail-rate", "1")
    with running(tmp_path_factory.mktemp("broken"), "--max-retries", "0", simulator_arguments=failing) as client:
        yield client


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """llama.cpp's server."""
    llama = Llama(tmp_path_factory.mktemp("llama"))
    yield llama
    llama.close()


def pytest_terminal_summary(terminalreporter, exitstatus):
    """What the servers said, if a test failed."""
    if exitstatus != 0:
        show_logs(terminalreporter)
