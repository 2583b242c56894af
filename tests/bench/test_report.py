"""What the benches compute from what they measure."""

import os
import time
import tomllib
from pathlib import Path

import pytest
from lxml import etree

from bench import kernel
from bench.bench_relay import CELLS, Round, added, bars_of
from bench.bench_soak import growth
from bench.report import Bar, bars_svg, lines_svg, machine, ratio, table


def test_a_ratio_is_taken_round_by_round() -> None:
    """A round in which the machine was busy made both slow: it must not count for one of them."""
    assert ratio([10, 40, 11], [10, 40, 10]) == 1.0
    with pytest.raises(ValueError, match="zip"):
        ratio([1, 2], [1])


def test_a_bar_says_whether_it_holds() -> None:
    assert Bar("x", 1.0, 1.0).holds
    assert str(Bar("CPU", 1.004, 1.0, "x")) == "MISSED CPU: 1.00x (at most 1x)"
    assert str(Bar("memory", 63.1, 80, " KiB")) == "holds  memory: 63.10 KiB (at most 80 KiB)"


def test_a_table_lines_up_and_has_a_sign_for_what_was_not_measured() -> None:
    shown = table(("", "us", "a second"), [("xproxy", 12.345, 12_345.6), ("direct", None, 0.5)]).splitlines()
    assert shown == ["          us  a second", "xproxy  12.3     12346", "direct     -      0.50"]


def round_(cpu_us: float | None, latency_us: float = 0.0) -> Round:
    return Round(cpu_us=cpu_us, per_second=1, p50_us=latency_us, p99_us=2 * latency_us, client_cpu_us=1)


def test_latency_added_is_above_what_there_is_without_a_proxy() -> None:
    results = {"direct": [round_(None, 20)], "sslsplit": [round_(1, 50)], "xproxy": [round_(1, 65)]}
    assert added(results, "p50_us") == pytest.approx(1.5)
    assert added(results | {"xproxy": [round_(1, 10)]}, "p50_us") < 0


def test_bars_are_those_of_what_was_measured() -> None:
    cell = {"xproxy": [round_(30), round_(33)], "sslsplit": [round_(30), round_(30)]}
    (bar,) = bars_of({"50 sessions, 230 B": cell})
    assert (bar.figure, bar.bar, bar.holds) == (pytest.approx(1.05), 1.0, False)
    everything = {name: [round_(1, 1)] for name in ("direct", "haproxy", "sslsplit", "mitmproxy", "xproxy")}
    assert len(bars_of({cell.name: everything for cell in CELLS})) == 6


def test_growth_leaves_the_warming_up_out() -> None:
    assert growth([1, 1, 50, 50, 50, 50, 55, 55]) == pytest.approx(1.1)
    assert growth([50] * 20) == 1.0


def test_processor_time_is_that_of_the_process_and_its_children() -> None:
    before = kernel.cpu_ns(os.getpid())
    until = time.process_time_ns() + 5_000_000
    while time.process_time_ns() < until:
        pass
    assert kernel.cpu_ns(os.getpid()) - before >= 5_000_000
    assert next(iter(kernel.family(os.getpid()))) == os.getpid()
    assert kernel.memory_bytes(os.getpid()) > 1_000_000
    assert kernel.descriptors(os.getpid()) >= 3
    assert kernel.threads(os.getpid()) >= 1


def test_plots_are_well_formed_and_have_the_figures() -> None:
    for plot in (
        bars_svg("a < b", "us", {"cell & more": {"xproxy": 12.5, "haproxy": 25}}),
        lines_svg("t", "sessions", "us", {"a": [(50, 1.0), (500, 2.0)], "b": []}),
        bars_svg("nothing", "us", {}),
    ):
        assert etree.fromstring(plot).tag == "{http://www.w3.org/2000/svg}svg"
    assert "12.5 us" in bars_svg("t", "us", {"": {"xproxy": 12.5}})


def test_the_machine_is_named() -> None:
    about = machine()
    assert about["cores"] == os.cpu_count()
    assert about["lxml"]
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert about["python"] >= pyproject["project"]["requires-python"].removeprefix(">=")
