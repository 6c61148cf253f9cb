"""What there is to say about the tests of one SDK: which of them run, and what their placeholders stand for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """The tests of one SDK, in the folder of its name below `.suites`."""

    name: str
    # The files that run, as paths in the SDK's source distribution.
    files: tuple[str, ...]
    # Files about paths that batchwright has too, but answers in another way, each with the reason.
    files_not_run: dict[str, str]
    # Tests that cannot hold for a server with real objects, as `file::test` (in all classes and with all parameters),
    # each with the reason.
    tests_not_run: dict[str, str]
    # Further arguments of pytest.
    arguments: tuple[str, ...]
    # The path that the SDK expects in its base URL.
    base_path: str
    # The fixture by which a test mocks an answer. It is replaced by one that lets the server answer.
    mock_fixture: str
    # Makes, for a client of the server, the object whose `prepare(call)` replaces placeholders, and whose
    # `expect(path, content)` is told what a test would have mocked.
    placeholders: type
