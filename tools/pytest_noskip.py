"""A pytest plugin under which a skipped or expected-to-fail test is a failure.

A test that does not run proves nothing, and a summary line that counts it apart
is easily overlooked. Loaded by the Makefile with ``-p pytest_noskip``.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

REASON = "skipped, and a skipped test is a failure here: "


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome == "skipped":
        report.outcome = "failed"
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.longrepr = REASON + str(why)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skip or xfail of a test, or of its fixtures, into a failure."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turns a skip of a whole module (``importorskip``) into a failure."""
    report = yield
    _fail_if_skipped(report)
    return report
