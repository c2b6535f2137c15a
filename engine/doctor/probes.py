"""What gridclip can use in, a finding about each out: usable or not, and why; each is tried in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

WHEELS = "onnxruntime wheels"
PROBE_LIMIT_S = 120.0  # torch from a cold network drive
# A broken library may crash or hang the process that imports it, so each one is tried in a process of its own, which
# ends by printing a JSON list: version, detail, usable.
_PRINT = "import json; print(); print(json.dumps([version, detail, usable]))"


@dataclasses.dataclass(frozen=True)
class Probe:
    """What to try: a program that prints version, detail and whether it is usable, and how to get what is missing."""

    name: str
    program: str
    remedy: str
    optional: bool = False


def _package(module: str, *, name: str = "", remedy: str = "", optional: bool = False, more: str = "") -> Probe:
    """A probe that imports a module; `more` is code that may set `detail` and `usable`."""
    name = name or module
    program = (
        "import importlib.metadata; detail = ''; usable = True\n"
        f"import {module} as module\n"
        "version = getattr(module, '__version__', None)\n"
        f"version = version or importlib.metadata.version({name!r})\n{more}\n{_PRINT}"
    )
    return Probe(name, program, remedy or f"pip install {name}", optional)


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
    Probe("nvidia-smi", _NVIDIA_SMI, "install NVIDIA's driver (only for machines with an NVIDIA GPU)", optional=True),
    _package("nvidia.dali", name="nvidia-dali", remedy=_DALI_REMEDY, optional=True, more=_DALI),
    _package("av", more=_PYAV),
    _package("decord", remedy="pip install decord (wheels for x86-64 only)", optional=True),
    _package("PIL", name="Pillow"),
    Probe("libturbojpeg", _TURBOJPEG, _TURBOJPEG_REMEDY, optional=True),
    _package("onnxruntime", more=_PROVIDERS, remedy=_RUNTIME_REMEDY),
    Probe(WHEELS, _WHEELS, _WHEELS_REMEDY, optional=True),
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


def examine(probe: Probe) -> Finding:
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
