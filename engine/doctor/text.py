"""A report in, text for people out."""

from __future__ import annotations

from .doctor import Report


def as_text(report: Report) -> str:
    """The report for people."""
    width = max(len(finding.name) for finding in report.findings)
    lines = [report.machine, "", "Found:"]
    for finding in report.findings:
        mark = "ok" if finding.usable else "--" if finding.optional else "NO"
        lines.append(f"  {mark}  {finding.name:{width}}  {finding.version or '':10}  {finding.detail}".rstrip())
    lines += ["", "Paths:"]
    stages = max(len(route.stage) for route in report.routes)
    lines += [f"  {route.stage:{stages}}  {route.path or 'NONE'} ({route.why})" for route in report.routes]
    if report.attention:
        lines += ["", f"Attention kernels: {report.attention}"]
    if report.advice:
        lines += ["", "To get more:", *(f"  {line}" for line in report.advice)]
    return "\n".join(lines)
