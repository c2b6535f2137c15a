"""A card (or none) in, a table of checks and their JSON out: an acceptance test of a machine, `gridclip bench gpu`.

    gridclip bench gpu                       every step, under 20 minutes on an H100
    gridclip bench gpu --quick               under 5 minutes; rates are told, not held against their floors
    gridclip bench gpu --steps 0,D,A         some of them
    gridclip bench gpu --resume              what an earlier run with the same --json did not finish

Each step runs in a process of its own with a time limit, and the JSON is written after every step, so that a crash, a
hang or the end of a lease costs one step. Without a GPU the steps run what DALI's and ONNX Runtime's CPU variants can.
Exit status 1: a check failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gridclip import GridClipError
from gridclip.dali_pipes.nvdali.nvidia_driver import first_gpu

from .. import measure
from . import nvidia_smi, running
from .plans import Device, Size
from .predictions import formulas
from .steps import STEPS, Step, choose

PACKAGES = (
    "torch",
    "onnxruntime-gpu",
    "onnxruntime",
    "nvidia-dali-cuda130",
    "nvidia-cudnn-cu13",
    "av",
    "pylance",
    "numpy",
    "onnx",
    "gridclip",
)
NO_CARD = "No GPU here (the driver shows none): the CPU variants are run instead, and no figure below is a GPU's."
WORDS = {"pass": "PASS", "fail": "FAIL", "measured": "measured", "not possible": "not possible here"}
NAME_WIDTH = 48


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = _parser().parse_args(argv)
    card = first_gpu()
    if arguments.device == "cuda" and card is None:
        raise SystemExit(
            "--device cuda: the NVIDIA driver shows no GPU here; leave --device out to run the CPU variants"
        )
    device: Device = arguments.device or ("cpu" if card is None else "cuda")
    if card is None:
        print(NO_CARD, flush=True)
    try:
        steps = choose((arguments.steps or "").split(","))
    except GridClipError as error:
        raise SystemExit(str(error)) from None
    size: Size = "quick" if arguments.quick else "full"
    report = run(steps, device, size, arguments.work_dir, arguments.json, resume=arguments.resume)
    print(f"\n{summary(report['steps'])}\nwritten to {arguments.json}")
    if failed(report["steps"]):
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gridclip bench gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="bounded sizes: under 5 minutes on a card")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: cuda where the driver shows a GPU")
    parser.add_argument("--steps", metavar="A,B,...", help=f"default all: {', '.join(step.key for step in STEPS)}")
    parser.add_argument("--resume", action="store_true", help="leave out the steps that --json has from an earlier run")
    parser.add_argument("--json", type=pathlib.Path, default=pathlib.Path("bench-gpu.json"))
    parser.add_argument(
        "--work-dir",
        type=pathlib.Path,
        default=pathlib.Path("bench-output") / "gpu",
        help="for generated videos, models, stores and logs: kept, a second run finds them",
    )
    return parser


def run(
    steps: Iterable[Step], device: Device, size: Size, work_dir: pathlib.Path, target: pathlib.Path, *, resume: bool
) -> dict[str, Any]:
    """Runs the steps one after the other, each in its own process, and writes the JSON after each.

    Returns:
        "predictions" (the formulas, as they stood before), and under "steps", by key, title, limit, how it ended and
        the checks.
    """
    settings = {"device": device, "size": size, "gpu": _describe_gpu(device)}
    report: dict[str, Any] = {"predictions": formulas(), "steps": _earlier(target, settings) if resume else {}}
    work_dir = work_dir.resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    for step in steps:
        if report["steps"].get(step.key, {}).get("ended") == running.DONE:
            print(f"{step.key:2} {step.title}: done before", flush=True)
            continue
        limit_s = step.limits_s[device, size]
        print(f"{step.key:2} {step.title} (at most {limit_s:g} s) ...", flush=True)
        outcome = running.run_step(step, device, size, work_dir)
        report["steps"][step.key] = {"title": step.title, "limit_s": limit_s, **dataclasses.asdict(outcome)}
        _write(target, settings, report)
        print(textwrap.indent(table({step.key: report["steps"][step.key]}), "   "), flush=True)
    return report


def _describe_gpu(device: Device) -> dict[str, str] | None:
    """What nvidia-smi says of the card; None without one."""
    if device == "cpu":
        return None
    try:
        return nvidia_smi.describe(0)
    except GridClipError as error:
        return {"name": f"not told: {error}"}


def _earlier(target: pathlib.Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The steps of an earlier run; raises SystemExit where it was on another device, card or size."""
    if not target.exists():
        return {}
    try:
        content = json.loads(target.read_text("utf-8"))
        before, steps = content["settings"], content["results"]["steps"]
    except (ValueError, KeyError, TypeError):
        raise SystemExit(
            f"--resume: {target} holds no result of this command: remove it, or name another --json"
        ) from None
    if _same_run(before) != _same_run(settings):
        told = f"{target} was written with {_same_run(before)}, this is {_same_run(settings)}"
        raise SystemExit(f"--resume: {told}: name another --json")
    return dict(steps)


def _same_run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must share: clocks and links of a card change by themselves."""
    card = settings.get("gpu") or {}
    return {"device": settings.get("device"), "size": settings.get("size"), "gpu": card.get("name")}


def _write(target: pathlib.Path, settings: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """The whole result so far; whoever reads it, or stops us, meanwhile finds the old file or the new one."""
    unfinished = target.with_name(f"unfinished-{target.name}")
    measure.write(unfinished, packages=PACKAGES, settings=settings, results=report)
    os.replace(unfinished, target)


def table(steps: Mapping[str, Mapping[str, Any]]) -> str:
    """Every check of these steps: a line with its verdict and its name, what was found beside it or below."""
    lines = []
    for key, step in steps.items():
        rows = [(check["name"], check["verdict"], check["told"]) for check in step["checks"]]
        if step["ended"] != running.DONE:
            last = f": {step['log'][-1]}" if step.get("log") else ""
            rows.append((step["title"], "fail", f"the step {step['ended']}{last}"))
        lines += [f"{key:2}  {WORDS[verdict]:17}  {name:{NAME_WIDTH}}  {told}" for name, verdict, told in rows]
    return "\n".join(lines)


def summary(steps: Mapping[str, Mapping[str, Any]]) -> str:
    """A line per step: how many checks have which verdict, and how long it took; then what failed, once more."""
    lines = [f"{'':39} {'  '.join(WORDS.values())}  seconds"]
    for key, step in steps.items():
        verdicts = [check["verdict"] for check in step["checks"]]
        counts = "  ".join(f"{verdicts.count(verdict) or '-':>{len(word)}}" for verdict, word in WORDS.items())
        stopped = "" if step["ended"] == running.DONE else f"  {step['ended']}"
        lines.append(f"{key:2}  {step['title'][:35]:35} {counts}  {step['seconds']:7.1f}{stopped}")
    wrong = {
        key: {**step, "checks": [check for check in step["checks"] if check["verdict"] == "fail"]}
        for key, step in steps.items()
    }
    return "\n".join([*lines, *filter(None, [table(wrong)])])


def failed(steps: Mapping[str, Mapping[str, Any]]) -> bool:
    """A check failed, or a step was stopped."""
    return any(
        step["ended"] != running.DONE or any(check["verdict"] == "fail" for check in step["checks"])
        for step in steps.values()
    )


if __name__ == "__main__":
    sys.argv[0] = "gridclip bench gpu"  # what the JSON says
    main()
