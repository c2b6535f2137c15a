"""This machine in, a report out: what is usable, which path each stage takes, how to get what is missing."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping

from ... import GridClipError
from ...export.model_info import read_model_info
from ..encoding import attention_kernels

CUDA_PROVIDER = "CUDAExecutionProvider"
WHEELS = "onnxruntime wheels"
PROBE_LIMIT_S = 120.0  # torch from a cold network drive
# A broken library may crash or hang the process that imports it, so each one is tried in a process of its own, which
# ends by printing a JSON list: version, detail, usable.
_PRINT = "import json; print(); print(json.dumps([version, detail, usable]))"


@dataclasses.dataclass(frozen=True)
class _Probe:
    name: str
    program: str
    remedy: str
    optional: bool = False


def _package(module: str, *, name: str = "", remedy: str = "", optional: bool = False, more: str = "") -> _Probe:
    """A probe that imports a module; `more` is code that may set `detail` and `usable`."""
    name = name or module
    program = (
        "import importlib.metadata; detail = ''; usable = True\n"
        f"import {module} as module\n"
        "version = getattr(module, '__version__', None)\n"
        f"version = version or importlib.metadata.version({name!r})\n{more}\n{_PRINT}"
    )
    return _Probe(name, program, remedy or f"pip install {name}", optional)


_NVIDIA_SMI = f"""
import subprocess
query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
version, detail, usable = None, "no NVIDIA driver: nvidia-smi is not there", False
try:
    asked = subprocess.run(query, capture_output=True, text=True, timeout=30)
    told = asked.stdout if asked.returncode == 0 else asked.stderr or asked.stdout
    detail = "; ".join(told.strip().splitlines())
    usable = asked.returncode == 0 and bool(detail)
except OSError:
    pass
{_PRINT}
"""
_TURBOJPEG = f"""
from gridclip.dali_pipes.image_folders import jpeg_decoding
version, detail = None, jpeg_decoding.turbojpeg_library() or "jpeg4py or libturbojpeg cannot be loaded"
usable = jpeg_decoding.turbojpeg_library() is not None
{_PRINT}
"""
_TORCH = """
usable = True
if torch_cuda := module.cuda.is_available():
    detail = "CUDA: " + ", ".join(module.cuda.get_device_name(i) for i in range(module.cuda.device_count()))
else:
    detail = f"CPU with {module.get_num_threads()} threads"
"""
_PYAV = """
codecs = [name for name in ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg") if name in module.codecs_available]
detail = "decodes " + ", ".join(codecs)
"""
# A driver that is too old for DALI's CUDA shows when something runs, one that decodes wrongly when pixels are compared.
_DALI = """
from gridclip.dali_pipes.nvdali import nvidia_driver, self_test
detail, gpu = "no GPU: only its CPU variant (VP8, VP9, MJPEG, JPEG)", nvidia_driver.first_gpu()
self_test.check_device(gpu)
if gpu is not None:
    detail = f"GPU {gpu} decodes the test files, and " + ", ".join(nvidia_driver.decoder_limits(gpu))
"""
_PROVIDERS = """
from gridclip.engine.encoding import providers
detail = ", ".join(providers.available_providers())
"""
_WHEELS = f"""
from gridclip.engine.encoding import providers
wheels = providers.installed_wheels()
version, detail, usable = None, " and ".join(wheels) or "none that pip knows of", len(wheels) < 2
if not usable:
    detail += " are installed side by side: they overwrite each other's files, and CUDA may be gone"
{_PRINT}
"""
_RUNTIME_REMEDY = "pip install one of: onnxruntime (CPU), 'onnxruntime-gpu[cuda,cudnn]' (NVIDIA GPU)"
_WHEELS_REMEDY = f"pip uninstall onnxruntime onnxruntime-gpu, then {_RUNTIME_REMEDY}"
_DALI_REMEDY = "pip install nvidia-dali-cuda130 (its GPU path needs an NVIDIA driver for CUDA 13)"
_TURBOJPEG_REMEDY = (
    "make setup (in a checkout), or apt install libturbojpeg0 (Debian), libturbojpeg (Ubuntu); or name the file in "
    "GRIDCLIP_LIBTURBOJPEG"
)

PROBES = (
    _Probe("nvidia-smi", _NVIDIA_SMI, "install NVIDIA's driver (only for machines with an NVIDIA GPU)", optional=True),
    _package("nvidia.dali", name="nvidia-dali", remedy=_DALI_REMEDY, optional=True, more=_DALI),
    _package("av", more=_PYAV),
    _package("decord", remedy="pip install decord (wheels for x86-64 only)", optional=True),
    _package("PIL", name="Pillow"),
    _Probe("libturbojpeg", _TURBOJPEG, _TURBOJPEG_REMEDY, optional=True),
    _package("onnxruntime", more=_PROVIDERS, remedy=_RUNTIME_REMEDY),
    _Probe(WHEELS, _WHEELS, _WHEELS_REMEDY, optional=True),
    _package("torch", more=_TORCH),
    _package("lance", name="pylance"),
    _package("pyarrow"),
    _package("numpy"),
    _package("tokenizers"),
    _package("ftfy"),
    _package("safetensors"),
    _package("onnx", optional=True, remedy="pip install onnx (for gridclip export)"),
    _package("huggingface_hub", optional=True, remedy="pip install huggingface_hub (for vocabularies from the hub)"),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that gridclip can use.

    Attributes:
        name: of the package, library or program.
        usable: it was tried and works.
        optional: gridclip goes on without it, by another path.
        version: None where it has none, or is not usable.
        detail: what it offers, or why it is not usable.
        remedy: how to get it, None where it is usable.
    """

    name: str
    usable: bool
    optional: bool
    version: str | None
    detail: str
    remedy: str | None


@dataclasses.dataclass(frozen=True)
class Route:
    """What a stage of the work will use on this machine; path is None where nothing can."""

    stage: str
    path: str | None
    why: str


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
        findings = tuple(pool.map(_try, PROBES))
    machine = f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} CPU cores"
    found = {finding.name: finding for finding in findings}
    kernels = None if model_dir is None else attention(model_dir, found)
    return Report(machine, findings, routes(found), advice(found), kernels)


def attention(model_dir: pathlib.Path, found: Mapping[str, Finding]) -> str:
    """One line on the kernels of the model's attention nodes."""
    obstacle = _encoder_obstacle(found)
    if obstacle:
        return f"not on a GPU: {obstacle}"
    try:
        nodes = read_model_info(model_dir).fused_attention
        if nodes is None:
            return "not known: the model folder does not say how many attention nodes there are; export it again"
        return attention_kernels.verdict(attention_kernels.attention_kernels(model_dir), nodes["image"])
    except (GridClipError, subprocess.TimeoutExpired) as error:
        return f"not known: {error}"


def advice(found: Mapping[str, Finding]) -> tuple[str, ...]:
    """What to do for what is missing, one sentence each."""
    lines = [f"{finding.name}: {finding.remedy}" for finding in found.values() if finding.remedy]
    runtime = found["onnxruntime"]
    if found["nvidia-smi"].usable and runtime.usable and CUDA_PROVIDER not in runtime.detail:
        lines.append(
            "the GPU is not used for embedding: pip uninstall onnxruntime onnxruntime-gpu, then pip install "
            "'onnxruntime-gpu[cuda,cudnn]'"
        )
    if found["nvidia-smi"].usable and found["torch"].usable and not found["torch"].detail.startswith("CUDA"):
        lines.append("the GPU is not used for evaluation: install a CUDA build of torch")
    return tuple(lines)


def routes(found: Mapping[str, Finding]) -> tuple[Route, ...]:
    """The path that each stage takes, given what is usable."""

    def usable(name: str) -> bool:
        return found[name].usable

    runtime_cuda = usable("onnxruntime") and _encoder_obstacle(found) is None
    torch_cuda = usable("torch") and found["torch"].detail.startswith("CUDA")
    second = "decord steps in when PyAV fails" if usable("decord") else "without a second decoder: decord is not usable"
    obstacle = gpu_obstacle(found)
    decoding, jpeg_on_gpu = "PyAV on the CPU", f"; not on a GPU: {obstacle}"
    if obstacle is None:
        decoding, jpeg_on_gpu = "DALI on the GPU and PyAV on the CPU (hybrid)", ""
        second = f"`decoder='dali'` leaves the CPU out; {second}"
    else:
        second += jpeg_on_gpu
    if usable("libturbojpeg"):
        jpeg, jpeg_why = "jpeg4py", found["libturbojpeg"].detail
    else:
        jpeg, jpeg_why = "Pillow", "slower; libturbojpeg is not usable"
    if obstacle is None:
        jpeg, jpeg_why = "DALI on the GPU", f"{jpeg} for what it cannot read"
    return (
        _route("find and prune packets", "PyAV", "packets only, nothing is decoded", needs=[found["av"]]),
        _route("decode videos", decoding, second, needs=[found["av"], found["Pillow"]]),
        _route("read JPEG super images", jpeg, jpeg_why + jpeg_on_gpu, needs=[found["Pillow"]]),
        _route(
            "embed images and texts",
            "ONNX Runtime on CUDA" if runtime_cuda else "ONNX Runtime on the CPU",
            found["onnxruntime"].detail if runtime_cuda else f"not on a GPU: {_encoder_obstacle(found)}",
            needs=[found["onnxruntime"], found["tokenizers"], found["ftfy"]],
        ),
        _route("store", "Lance", "one append per batch of whole videos", needs=[found["pylance"], found["pyarrow"]]),
        _route(
            "evaluate and search",
            "torch on CUDA" if torch_cuda else "torch on the CPU",
            found["torch"].detail,
            needs=[found["torch"]],
        ),
        _route(
            "export checkpoints",
            "torch to ONNX",
            "only for gridclip export, and `model` with a checkpoint",
            needs=[found[name] for name in ("torch", "onnx", "onnxruntime", "safetensors", "tokenizers")],
        ),
    )


def gpu_obstacle(found: Mapping[str, Finding]) -> str | None:
    """Why videos and JPEG files are not decoded on a GPU; None where they are."""
    dali = found["nvidia-dali"]
    if not found["nvidia-smi"].usable:
        return found["nvidia-smi"].detail
    if not dali.usable:
        return f"DALI is not usable ({dali.detail})"
    obstacle = _encoder_obstacle(found)
    return f"the pixels would have to leave it again: {obstacle}" if obstacle else None


def _encoder_obstacle(found: Mapping[str, Finding]) -> str | None:
    runtime, torch = found["onnxruntime"], found["torch"]
    if not found["nvidia-smi"].usable:
        return found["nvidia-smi"].detail
    if CUDA_PROVIDER not in runtime.detail:
        return f"this ONNX Runtime has only {runtime.detail or 'errors'}"
    if not torch.detail.startswith("CUDA"):
        return "this torch has no CUDA, and ONNX Runtime shares memory and stream with it"
    return None


def _route(stage: str, path: str, why: str, *, needs: list[Finding]) -> Route:
    missing = [finding.name for finding in needs if not finding.usable]
    return Route(stage, None, f"needs {', '.join(missing)}") if missing else Route(stage, path, why)


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


def _try(probe: _Probe) -> Finding:
    """Runs one probe; whatever goes wrong becomes the finding."""

    def broken(reason: str) -> Finding:
        return Finding(probe.name, False, probe.optional, None, reason, probe.remedy)

    program = f"import json, sys; sys.path[:] = json.loads(sys.argv[1])\n{probe.program}"
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program, json.dumps(sys.path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return broken(f"hangs: no answer in {PROBE_LIMIT_S:g} s")
    except OSError as error:
        return broken(f"cannot be tried: {error}")
    if ended.returncode < 0:
        return broken(f"crashes with signal {-ended.returncode}")
    if ended.returncode > 0:
        return broken((ended.stderr.strip() or f"ends with status {ended.returncode}").splitlines()[-1])
    try:
        version, detail, usable = json.loads(ended.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return broken("printed nothing that can be read")
    return Finding(probe.name, usable, probe.optional, version, detail, None if usable else probe.remedy)
