"""What all tests share: hypothesis profiles, and which tests run where.

``integration``: ``@pytest.mark.integration("prosody", "go-sendxmpp")`` names the programs a test needs. Without one it
skips and says so; with XPROXY_REQUIRE_INTEGRATION=1, as in CI, a skipped integration test is a failure.
``long``: deselected unless ``--long``.
"""

import os
import shutil
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

# fast: on every commit, and the same examples every time in CI, so that a red run can be run again.
# Timings are not judged: the machines are small and shared.
settings.register_profile(
    "fast", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", settings.get_profile("fast"), max_examples=5_000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

REQUIRE_INTEGRATION = os.environ.get("XPROXY_REQUIRE_INTEGRATION", "") not in ("", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked long (minutes)")


def pytest_configure() -> None:
    # A shell starts background jobs with SIGINT ignored; what a test starts would inherit that and never be stopped.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        if long:
            config.hook.pytest_deselected(items=long)
            items[:] = [item for item in items if not item.get_closest_marker("long")]
    whole_run = config.args == config.getini("testpaths") and not config.option.markexpr and not config.option.keyword
    if REQUIRE_INTEGRATION and whole_run and not any(item.get_closest_marker("integration") for item in items):
        raise pytest.UsageError("integration tests are required, and none was collected")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in programs_of(item):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed (as root: sh tests/run.sh --install)")


def programs_of(item: pytest.Item) -> Iterator[str]:
    """Yield the programs that the item's ``integration`` marks name."""
    for mark in item.iter_markers("integration"):
        yield from mark.args


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if REQUIRE_INTEGRATION and report.skipped and item.get_closest_marker("integration"):
        refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    # A module that skips itself has no items that could carry the mark.
    if REQUIRE_INTEGRATION and report.skipped and "integration" in collector.path.parts:
        refuse_skip(report)
    return report


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn the skip into a failure with the same reason."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: integration tests are required here, and this one skipped: {reason}"
