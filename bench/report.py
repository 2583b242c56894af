"""How a bench tells its results: a table, a JSON file, a plot."""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import ssl
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import attrs

ROOT = Path(__file__).resolve().parent.parent


def parser(doc: str, *, rounds: int = 5) -> argparse.ArgumentParser:
    """Return a parser with what all benches have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="only see that it works: seconds, and figures of no worth")
    made.add_argument("--rounds", type=int, default=rounds, help=f"of which the median is taken (default {rounds})")
    made.add_argument("--out", type=Path, help="a directory for NAME.json and NAME.svg (default: none are written)")
    return made


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios round by round: what disturbed a round disturbed both of it."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


@attrs.frozen
class Bar:
    """A figure that a bench has to show, and what it is held against."""

    what: str
    figure: float
    bar: float
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the figure is within the bar."""
        return self.figure <= self.bar

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "MISSED"
        return f"{verdict:6} {self.what}: {self.figure:.2f}{self.unit} (at most {self.bar:g}{self.unit})"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table, the first column to the left, figures to the right."""
    cells = [list(header), *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return str(value)


def machine() -> dict[str, Any]:
    """Return what the figures depend on: machine, commit, versions."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        **{name: importlib.metadata.version(name) for name in ("lxml", "trio", "orjson")},
        "haproxy": _first_line("haproxy", "-v"),
        "sslsplit": _first_line("sslsplit", "-V"),
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return next(iter((done.stdout or done.stderr).splitlines()), None)


def conclude(
    name: str,
    options: argparse.Namespace,
    *,
    results: Mapping[str, Any],
    bars: Sequence[Bar],
    plot: str | None = None,
) -> int:
    """Print the bars, write the files; return the exit code: 1 if a bar is missed, unless it was only tried."""
    for bar in bars:
        print(bar)
    about = machine()
    print(
        f"{about['cpu']}, {about['cores']} cores, load {about['load_at_start']} at the end, Python {about['python']}, "
        f"{about['openssl']}, lxml {about['lxml']}, commit {about['commit']}"
    )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        document = {
            "bench": name,
            "quick": options.quick,
            "rounds": options.rounds,
            "machine": about,
            "bars": [attrs.asdict(bar) | {"holds": bar.holds} for bar in bars],
            **results,
        }
        (options.out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
        if plot is not None:
            (options.out / f"{name}.svg").write_text(plot)
        print(f"written to {options.out}", file=sys.stderr)
    return int(not options.quick and not all(bar.holds for bar in bars))


# Plots ----------------------------------------------------------------------------------------------------------------

_COLOURS = ("#1f6feb", "#8b949e", "#d29922", "#3fb950", "#a371f7", "#f85149", "#56d4dd")
_STYLE = "font:13px sans-serif;fill:#57606a"


def bars_svg(title: str, unit: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Return horizontal bars: groups of named figures on one scale; xproxy's own stand out."""
    top = max((value for group in groups.values() for value in group.values()), default=1.0) or 1.0
    lines: list[str] = []
    y = 48
    for group, figures in groups.items():
        lines.append(f'<text x="8" y="{y}" style="{_STYLE};font-weight:bold">{escape(group)}</text>')
        for name, value in figures.items():
            y += 22
            width = max(1.0, 440 * value / top)
            colour = _COLOURS[0] if name.startswith("xproxy") else _COLOURS[1]
            lines.append(
                f'<text x="140" y="{y}" text-anchor="end" style="{_STYLE}">{escape(name)}</text>'
                f'<rect x="150" y="{y - 12}" width="{width:.1f}" height="15" fill="{colour}"/>'
                f'<text x="{155 + width:.1f}" y="{y}" style="{_STYLE}">{_cell(float(value))} {escape(unit)}</text>'
            )
        y += 34
    return _svg(title, 720, y - 8, lines)


def lines_svg(title: str, x_unit: str, y_unit: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return lines through points, both axes from 0."""
    points = [point for one in series.values() for point in one]
    x_top, y_top = (max((point[axis] for point in points), default=1.0) * 1.05 or 1.0 for axis in (0, 1))

    def place(x: float, y: float) -> str:
        return f"{60 + 600 * x / x_top:.1f},{340 - 280 * y / y_top:.1f}"

    lines = ['<path d="M60,60V340H660" fill="none" stroke="#8b949e"/>']
    for number, (name, values) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        lines.append(
            f'<polyline points="{" ".join(place(*value) for value in values)}" fill="none" stroke="{colour}"'
            ' stroke-width="2"/>'
        )
        for value in values:
            left, top = place(*value).split(",")
            lines.append(f'<circle cx="{left}" cy="{top}" r="3" fill="{colour}"/>')
        lines.append(f'<text x="{80 + 160 * number}" y="52" style="{_STYLE};fill:{colour}">{escape(name)}</text>')
    for part in range(1, 6):
        x, y = x_top * part / 5, y_top * part / 5
        lines.append(
            f'<text x="{place(x, 0).split(",")[0]}" y="358" text-anchor="middle" style="{_STYLE}">{x:.0f}</text>'
            f'<text x="54" y="{place(0, y).split(",")[1]}" text-anchor="end" style="{_STYLE}">{_cell(y)}</text>'
        )
    lines.append(f'<text x="660" y="378" text-anchor="end" style="{_STYLE}">{escape(x_unit)}</text>')
    lines.append(f'<text x="8" y="52" style="{_STYLE}">{escape(y_unit)}</text>')
    return _svg(title, 720, 390, lines)


def _svg(title: str, width: int, height: int, lines: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n'
        '<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="8" y="22" style="font:bold 15px sans-serif;fill:#24292f">{escape(title)}</text>\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )
