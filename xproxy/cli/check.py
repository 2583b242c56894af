"""``xproxy check``: would ``xproxy run`` with these options work here?"""

import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from xproxy.cli.output import is_terminal, make_console, print_json
from xproxy.cli.run import run
from xproxy.errors import EXIT_NO, EXIT_OK

_EPILOG = """
Problems keep the proxy from starting or from doing what it is told; warnings will be trouble one day or under load.

Exit codes: 0 no problem, 1 problems, 2 usage, 3 the configuration file cannot be read.
"""

_MARKS: Final = {
    "problem": ("x", "bold red"),
    "warning": ("!", "yellow"),
    "ok": ("+", "green"),
    "unknown": ("?", "dim"),
}


@click.command(epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal; piped it is JSON anyway.")
@click.option("--quiet", "-q", is_flag=True, help="Only what is wrong.")
def check(as_json: bool, quiet: bool, config_file: Path | None, **options: object) -> int:
    """Look at everything `xproxy run` with the same options would meet, and change nothing.

    Configuration, certificates, keys, permissions, limits, disk, clock, ports, and the server's name; all problems at
    once, each with its place and what to write instead. Neither the CA nor the journal is made, and nobody is connected
    to. Run it as the user that the proxy will run as.
    """
    from xproxy.check.run import run_checks

    report = run_checks(options, os.environ, config_file)
    found = [finding for finding in report.findings if not quiet or finding.severity.value in ("problem", "warning")]
    counts = {severity: sum(each.severity.value == severity for each in report.findings) for severity in _MARKS}
    if as_json or not is_terminal(sys.stdout):
        print_json(
            {
                "config": str(report.file) if report.file is not None else None,
                "counts": counts,
                "findings": [
                    {
                        "severity": finding.severity.value,
                        "topic": finding.topic,
                        "where": finding.where,
                        "message": finding.message,
                        "hint": finding.hint,
                    }
                    for finding in found
                ],
            }
        )
    else:
        _print(found, counts)
    return EXIT_NO if counts["problem"] else EXIT_OK


def _print(findings: list[Any], counts: dict[str, int]) -> None:
    from rich.text import Text

    console = make_console()
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            console.print(Text(topic, style="bold"))
        mark, style = _MARKS[finding.severity.value]
        is_wrong = finding.severity.value in ("problem", "warning")
        line = Text.assemble(("  "), (mark, style), " ", f"{finding.where}: " if is_wrong else "", finding.message)
        console.print(line, soft_wrap=True)
        if finding.hint:
            console.print(Text(f"    {finding.hint}", style="dim"), soft_wrap=True)
    words = [f"{counts[name]} {name}{'' if counts[name] == 1 else 's'}" for name in ("problem", "warning")]
    console.print(Text(", ".join(words), style="bold red" if counts["problem"] else "bold"))


# The same options as the command whose start this looks at: they are one list.
check.params = [*(each for each in run.params if each.name != "ready_file"), *check.params]
