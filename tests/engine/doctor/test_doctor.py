"""engine/doctor/doctor.py: what is usable, whatever is broken."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
from gridclip.engine.doctor import doctor, probes, routes, text
from gridclip.engine.doctor.probes import Finding
from gridclip.engine.encoding import attention_kernels

PRINTS_ITS_ANSWER = 'import json; print(json.dumps(["1.2", "fine", True]))'


@pytest.fixture(scope="module")
def report() -> doctor.Report:
    return doctor.examine()


def examine(monkeypatch: pytest.MonkeyPatch, program: str, *, limit_s: float = 60) -> Finding:
    monkeypatch.setattr(probes, "PROBE_LIMIT_S", limit_s)
    return probes.examine(probes.Probe("thing", program, "pip install thing"))


def everything(**broken: str) -> dict[str, Finding]:
    """Findings of a machine where all is usable but the named things (with dashes as underscores)."""
    found = {probe.name: Finding(probe.name, True, probe.optional, "1", "", None) for probe in probes.PROBES}
    found["onnxruntime"] = dataclasses.replace(found["onnxruntime"], detail="CUDAExecutionProvider")
    found["torch"] = dataclasses.replace(found["torch"], detail="CUDA: A800")
    for name, reason in broken.items():
        name = name.replace("_", "-")
        found[name] = Finding(name, False, found[name].optional, None, reason, f"pip install {name}")
    return found


def test_this_machine(report: doctor.Report) -> None:
    assert report.healthy, text.as_text(report)
    found = {finding.name: finding for finding in report.findings}
    assert "h264" in found["av"].detail
    assert "CPUExecutionProvider" in found["onnxruntime"].detail
    assert all(finding.remedy for finding in report.findings if not finding.usable)


def test_text_and_json_say_the_same(report: doctor.Report) -> None:
    shown = text.as_text(report)
    content = json.loads(json.dumps(report.to_json()))
    assert content["healthy"] is True
    for finding in content["findings"]:
        assert finding["name"] in shown
        assert finding["usable"] or finding["remedy"] in shown
    for route in content["routes"]:
        assert route["stage"] in shown and route["path"] in shown


def test_a_usable_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert examine(monkeypatch, PRINTS_ITS_ANSWER) == Finding("thing", True, False, "1.2", "fine", None)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("raise OSError('libfoo.so.1: cannot open shared object file')", "libfoo.so.1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("import os; os._exit(3)", "status 3"),
        ("print('hello')", "nothing that can be read"),
        ("pass", "nothing that can be read"),
        ("this is no Python", "SyntaxError"),
    ],
)
def test_broken_things_are_reported(monkeypatch: pytest.MonkeyPatch, program: str, reason: str) -> None:
    finding = examine(monkeypatch, program)
    assert not finding.usable
    assert reason in finding.detail
    assert finding.remedy == "pip install thing"


def test_a_hanging_import_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = examine(monkeypatch, "import time; time.sleep(60)", limit_s=0.2)
    assert not finding.usable
    assert "hangs" in finding.detail


def test_a_package_that_breaks_at_import(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "decord.py").write_text("raise ImportError('libdecord.so is for another machine')")
    monkeypatch.syspath_prepend(str(tmp_path))
    probe = next(probe for probe in probes.PROBES if probe.name == "decord")
    finding = probes.examine(probe)
    assert not finding.usable
    assert "libdecord.so is for another machine" in finding.detail


def test_routes_of_a_gpu_machine() -> None:
    paths = {route.stage: route.path for route in routes.routes(everything())}
    assert paths["embed images and texts"] == "ONNX Runtime on CUDA"
    assert paths["evaluate and search"] == "torch on CUDA"
    assert paths["decode videos"] == "DALI on the GPU and PyAV on the CPU (hybrid)"
    assert paths["read JPEG super images"] == "DALI on the GPU"


@pytest.mark.parametrize(
    ("broken", "detail", "reason"),
    [
        ("nvidia_smi", "no NVIDIA driver", "no NVIDIA driver"),
        ("nvidia_dali", "CUDA driver version is insufficient", "CUDA driver version is insufficient"),
        ("onnxruntime", None, "only CPUExecutionProvider"),
        ("torch", None, "this torch has no CUDA"),
    ],
)
def test_every_reason_not_to_take_the_gpu_is_said(broken: str, detail: str | None, reason: str) -> None:
    found = everything(**({broken: detail} if detail else {}))
    if broken == "onnxruntime":
        found[broken] = dataclasses.replace(found[broken], detail="CPUExecutionProvider")
    if broken == "torch":
        found[broken] = dataclasses.replace(found[broken], detail="CPU with 8 threads")
    taken = {route.stage: route for route in routes.routes(found)}
    assert taken["decode videos"].path == "PyAV on the CPU" and reason in taken["decode videos"].why
    assert taken["read JPEG super images"].path == "jpeg4py" and reason in taken["read JPEG super images"].why
    if broken != "nvidia_dali":
        embedding = taken["embed images and texts"]
        assert embedding.path == "ONNX Runtime on the CPU" and reason in embedding.why


def test_attention_kernels_are_told_and_judged() -> None:
    printed = "Operator=Attention Node=a0 DataType=fp16 SdpaKernel=FLASH_ATTENTION\nnoise\n" * 2
    kernels = attention_kernels.parse_choices(printed)
    assert kernels == {"FLASH_ATTENTION": 2}
    assert attention_kernels.judge(kernels, 2) == "FLASH_ATTENTION x 2: all fused"
    assert "1 of 3 nodes run unfused" in attention_kernels.judge(
        attention_kernels.parse_choices(printed + "Operator=Attention Node=a2 DataType=fp32 SdpaKernel=MATH\n"), 3
    )
    assert "did not tell of all" in attention_kernels.judge(kernels, 24)
    assert "did not tell of all" in attention_kernels.judge(attention_kernels.parse_choices(""), 24)


def test_attention_without_a_gpu_is_said(tmp_path: pathlib.Path) -> None:
    assert doctor.attention(tmp_path, everything(nvidia_smi="no driver")) == "not on a GPU: no driver"
    assert "not known" in doctor.attention(tmp_path, everything())  # no model folder


def test_routes_around_what_is_missing() -> None:
    found = everything(libturbojpeg="", decord="", onnxruntime="", av="")
    taken = {route.stage: route for route in routes.routes(found)}
    assert taken["read JPEG super images"].path == "Pillow"
    assert taken["embed images and texts"].path is None
    assert "onnxruntime" in taken["embed images and texts"].why
    assert taken["decode videos"].path is None
    assert taken["evaluate and search"].path == "torch on CUDA"


def test_both_wheels_of_onnx_runtime_are_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second distribution that brings the same folder, as `pip install onnxruntime onnxruntime-gpu` leaves it."""
    (probe,) = [probe for probe in probes.PROBES if probe.name == probes.WHEELS]
    alone = probes.examine(probe)
    assert alone.usable and alone.detail in ("onnxruntime", "onnxruntime-gpu")
    for name in ("onnxruntime", "onnxruntime_gpu"):
        info = tmp_path / f"{name}-1.31.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.31.1\n")
        (info / "RECORD").write_text("onnxruntime/__init__.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    both = probes.examine(probe)
    assert not both.usable and both.optional
    assert "onnxruntime and onnxruntime-gpu are installed side by side" in both.detail
    assert "pip uninstall onnxruntime onnxruntime-gpu" in (both.remedy or "")


def test_dali_that_decodes_garbage_is_not_usable(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (probe,) = [probe for probe in probes.PROBES if probe.name == "nvidia-dali"]
    spoilt = "from gridclip.dali_pipes.nvdali import self_test\nself_test.IMAGE = self_test.SAMPLES / 'vp9.webm'\n"
    finding = probes.examine(dataclasses.replace(probe, program=spoilt + probe.program))
    assert not finding.usable and finding.detail


def test_advice_for_a_gpu_that_is_not_used() -> None:
    found = everything(nvidia_dali="No module named 'nvidia'")
    found["onnxruntime"] = dataclasses.replace(found["onnxruntime"], detail="CPUExecutionProvider")
    found["torch"] = dataclasses.replace(found["torch"], detail="CPU with 8 threads")
    advice = "\n".join(routes.advice(found))
    assert "onnxruntime-gpu" in advice
    assert "CUDA build of torch" in advice
    assert "nvidia-dali: pip install nvidia-dali" in advice


def test_no_report_without_a_path_is_healthy() -> None:
    found = everything(torch="broken")
    assert not doctor.Report("", tuple(found.values()), routes.routes(found), routes.advice(found)).healthy
