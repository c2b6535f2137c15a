"""This machine in, a report out: what is usable, which path each stage takes, how to get what is missing."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping

from ... import GridClipError
from ...export.model_info import read_model_info
from .. import routing
from ..encoding import attention_kernels
from . import probes
from .probes import Finding
from .routes import Route, advice, facts, routes


@dataclasses.dataclass(frozen=True)
class Report:
    """What `gridclip doctor` says."""

    machine: str
    findings: tuple[Finding, ...]
    routes: tuple[Route, ...]
    advice: tuple[str, ...]
    attention: str | None = None

    @property
    def healthy(self) -> bool:
        """Every stage has a path."""
        return all(route.path is not None for route in self.routes)

    def to_json(self) -> dict[str, object]:
        """The report as plain dicts and lists."""
        return {**dataclasses.asdict(self), "healthy": self.healthy}


def examine(model_dir: pathlib.Path | None = None) -> Report:
    """Tries everything that gridclip can use. Never raises for what is broken: that is what it reports.

    Args:
        model_dir: a model folder whose attention kernels are looked at where there is a GPU.
    """
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        findings = tuple(pool.map(probes.examine, probes.PROBES))
    machine = f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} CPU cores"
    found = {finding.name: finding for finding in findings}
    kernels = None if model_dir is None else attention(model_dir, found)
    return Report(machine, findings, routes(found), advice(found), kernels)


def attention(model_dir: pathlib.Path, found: Mapping[str, Finding]) -> str:
    """One line on the kernels of the model's attention nodes."""
    obstacle = routing.route(facts(found)).model.why_not
    if obstacle:
        return f"not on a GPU: {obstacle}"
    try:
        nodes = read_model_info(model_dir).fused_attention
        if nodes is None:
            return "not known: the model folder does not say how many attention nodes there are; export it again"
        return attention_kernels.judge(attention_kernels.find_kernels(model_dir), nodes["image"])
    except (GridClipError, subprocess.TimeoutExpired) as error:
        return f"not known: {error}"
