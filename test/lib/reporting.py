"""What a failure shows, and what counts as one. For a conftest.py to import."""

import contextlib
import os

import pytest

LOGS = pytest.StashKey()


def logs_of(node):
    return node.stash.setdefault(LOGS, {})


@contextlib.contextmanager
def making(request, kind, describe):
    """A function that makes one more `kind`, to be closed in the end: its log is shown under what
    `describe` calls it."""
    with contextlib.ExitStack() as cleanup:

        def make(*arguments, **options):
            made = cleanup.enter_context(kind(*arguments, **options))
            logs_of(request.node)[describe(made)] = made.log
            return made

        yield make


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """A failure shows the logs. In CI a test that did not run has failed."""
    report = (yield).get_result()
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    if report.failed:
        for node in item.listchain():
            for what, log in node.stash.get(LOGS, {}).items():
                report.sections.append((f"log of {what}", log.text()))
