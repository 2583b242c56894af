"""A report as JUnit XML, in the shape pytest writes (xunit2) and GitLab, GitHub actions and Jenkins read.

Text of a peer goes through ``clean``: what XML 1.0 cannot hold (section 2.2) becomes U+FFFD, so that a stanza cannot
make the file unreadable.
"""

import re
from typing import Final

from lxml import etree

from xproxy.replay.report import Case, Report

_ILLEGAL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """Return ``text`` with each character that XML 1.0 cannot hold replaced."""
    return _ILLEGAL.sub("\ufffd", text)


def render_junit(report: Report) -> bytes:
    """Return the report as an XML document in UTF-8."""
    root = etree.Element("testsuites")
    suite = etree.SubElement(
        root,
        "testsuite",
        {
            "name": clean(report.name),
            "tests": str(len(report.cases)),
            "failures": str(report.count("failed")),
            "errors": "0",
            "skipped": str(report.count("skipped")),
            "time": f"{report.seconds:.3f}",
            **({"timestamp": report.started} if report.started else {}),
            **({"hostname": clean(report.host)} if report.host else {}),
        },
    )
    for case in report.cases:
        _add_case(suite, case)
    etree.indent(root)
    document: bytes = etree.tostring(root, xml_declaration=True, encoding="utf-8")
    return document + b"\n"


def _add_case(suite: etree._Element, case: Case) -> None:
    element = etree.SubElement(
        suite,
        "testcase",
        {
            "classname": clean(case.file),
            "name": clean(case.name),
            "file": clean(case.file),
            **({"line": str(case.line)} if case.line else {}),
            "time": f"{case.seconds:.3f}",
        },
    )
    if case.properties:
        properties = etree.SubElement(element, "properties")
        for name, value in case.properties:
            etree.SubElement(properties, "property", {"name": clean(name), "value": clean(value)})
    if case.skipped is not None:
        etree.SubElement(element, "skipped", {"message": clean(case.skipped)})
    # JUnit knows one failure a case: the first gives type and message, the text has all.
    if case.failures:
        first = case.failures[0]
        failure = etree.SubElement(element, "failure", {"type": first.kind.value, "message": clean(first.message)})
        failure.text = clean(
            "\n\n".join(
                f"{each.file or case.file}:{each.line or case.line or 1}: {each.kind.value}: {each.message}"
                + (f"\n{each.detail}" if each.detail else "")
                for each in case.failures
            )
        )
    if case.notes:
        out = etree.SubElement(element, "system-out")
        out.text = clean("\n".join(f"let pass: {note}" for note in case.notes))
