"""A pytest plugin for the tests of an SDK: starts the servers and the front, and says which tests did not run.

A test fails also if it passes without a call to the server, unless it is about an id that the SDK refuses by itself,
and if a call was answered with an error or could not be passed on: the SDKs try such calls again, which would hide it.
"""

import contextlib
import os
import tempfile
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from servers import running, show_logs
from suites import anthropic_suite, openai_suite
from suites.front import Front

SUITES = {suite.name: suite for suite in (openai_suite.SUITE, anthropic_suite.SUITE)}

# Tests of what the client refuses without a call.
REFUSED_BY_CLIENT = "test_path_params_"


def pytest_addoption(parser):
    parser.addoption("--suite", choices=sorted(SUITES), help="Whose tests these are")


def pytest_load_initial_conftests(early_config):
    """Starts everything before the SDK's conftest.py is read, which reads the URL from the environment."""
    run = Run(SUITES[early_config.known_args_namespace.suite])
    early_config.add_cleanup(run.stack.close)
    run.start()
    early_config.pluginmanager.register(run)


def pytest_configure(config):
    # After the SDK's own plugins, so that its fixture is the last of that name.
    run = next(plugin for plugin in config.pluginmanager.get_plugins() if isinstance(plugin, Run))
    config.pluginmanager.register(_real_in_place_of_mocks(run))


def _real_in_place_of_mocks(run):
    class Fixtures:
        @pytest.fixture(name=run.suite.mock_fixture)
        def real_in_place_of_mocks(self):
            yield Mocks(run.placeholders)
            run.placeholders.expect("", None)

    return Fixtures()


class Mocks:
    """In place of `respx`: what a test would have as an answer is what the real object is to hold, where it can."""

    def __init__(self, placeholders, path=None):
        self.placeholders = placeholders
        self.path = path

    def get(self, path):
        return Mocks(self.placeholders, path)

    def mock(self, return_value):
        self.placeholders.expect(self.path, return_value.content)


class Run:
    """One run of the tests of one SDK."""

    def __init__(self, suite):
        self.suite = suite
        self.stack = contextlib.ExitStack()
        self.not_run: Counter[str] = Counter()
        self.answered: set[str] = set()
        self.without_call: set[str] = set()

    def start(self):
        directory = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="batchwright-suites-")))
        client = self.stack.enter_context(running(directory))
        self.placeholders = self.suite.placeholders(client)
        self.front = Front(urlsplit(str(client.base_url)).netloc, self.placeholders.prepare)
        url = self.stack.enter_context(self.front.listening())
        os.environ["TEST_API_BASE_URL"] = url + self.suite.base_path

    def pytest_collection_modifyitems(self, config, items):
        kept, dropped = [], []
        for item in items:
            test = f"{item.nodeid.split('::')[0]}::{item.originalname}"
            self.not_run[test] += test in self.suite.tests_not_run
            (dropped if test in self.suite.tests_not_run else kept).append(item)
        if missing := [test for test in self.suite.tests_not_run if not self.not_run[test]]:
            raise pytest.UsageError(f"tests that are said not to run, but are not there: {', '.join(missing)}")
        items[:] = kept
        config.hook.pytest_deselected(items=dropped)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        calls, faults = len(self.front.calls), len(self.front.faults)
        try:
            result = yield
        finally:
            made, faults = self.front.calls[calls:], self.front.faults[faults:]
            said = [f"{call}: {status}" for call, status in made] + faults
            item.add_report_section("call", "at the front", "\n".join(said))
        if errors := [f"{call}: {status}" for call, status in made if status >= 400]:
            pytest.fail(f"the server answered {'; '.join(errors)}")
        if faults:
            pytest.fail(f"the front could not pass on {'; '.join(faults)}")
        if not made and not item.name.startswith(REFUSED_BY_CLIENT):
            pytest.fail("the test passed without a call to the server")
        (self.answered if made else self.without_call).add(item.nodeid)
        return result

    def pytest_terminal_summary(self, terminalreporter, exitstatus):
        write = terminalreporter.write_line
        terminalreporter.section(f"tests of {self.suite.name} itself")
        write(f"{len(self.answered)} passed on answers of batchwright alone, in {len(self.front.calls)} calls.")
        write(f"{len(self.without_call)} passed without a call: the SDK refuses an empty id by itself.")
        for report in terminalreporter.stats.get("skipped", []):
            write(f"skipped by the SDK itself: {report.nodeid}: {report.longrepr[2].removeprefix('Skipped: ')}")
        for test, reason in self.suite.tests_not_run.items():
            write(f"not run ({self.not_run[test]} times): {test}: {reason}")
        for file, reason in self.suite.files_not_run.items():
            write(f"not run: {file}: {reason}")
        if exitstatus != 0:
            show_logs(terminalreporter)
