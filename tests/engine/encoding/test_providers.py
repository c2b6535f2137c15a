"""engine/encoding/providers.py: CUDA is taken where it can be, and never left out without a word."""

from __future__ import annotations

import logging
import types

import onnxruntime
import pytest
from gridclip import GridClipError
from gridclip.engine.encoding import providers


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an NVIDIA driver and an ONNX Runtime that has only the CPU."""
    monkeypatch.setattr(providers, "first_gpu", lambda: 0)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "get_ep_devices", list)


def test_a_gpu_that_is_not_used_is_a_warning(gpu, caplog):
    assert providers.choose_provider("auto") == "cpu"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "GPU IS NOT USED" in record.message and "onnxruntime-gpu[cuda,cudnn]" in record.message


def test_both_wheels_are_named_as_the_cause(gpu, caplog, monkeypatch):
    monkeypatch.setattr(providers, "installed_wheels", lambda: ["onnxruntime", "onnxruntime-gpu"])
    providers.choose_provider("auto")
    assert "onnxruntime and onnxruntime-gpu overwrite each other's files" in caplog.text


def test_the_cpu_by_name_or_without_a_gpu_needs_no_warning(gpu, caplog, monkeypatch):
    assert providers.choose_provider("cpu") == "cpu"
    monkeypatch.setattr(providers, "first_gpu", lambda: None)
    assert providers.choose_provider("auto") == "cpu"
    assert not caplog.records


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_named_provider_that_is_missing_is_an_error(gpu, name):
    with pytest.raises(
        GridClipError, match=rf"`provider='{name}'` cannot be used: this ONNX Runtime has only CPUExecutionProvider"
    ):
        providers.choose_provider(name)


def test_a_torch_without_cuda_is_an_error_or_a_warning(gpu, caplog, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(providers, "_torch_has_cuda", lambda: False)
    assert providers.choose_provider("auto") == "cpu" and "torch shows no GPU" in caplog.text
    with pytest.raises(GridClipError, match="torch shows no GPU"):
        providers.choose_provider("cuda")
    monkeypatch.setattr(providers, "_torch_has_cuda", lambda: True)
    assert providers.choose_provider("auto") == providers.choose_provider("cuda") == "cuda"


def test_a_provider_that_registered_itself_counts(gpu, monkeypatch):
    plugin = types.SimpleNamespace(ep_name="CUDAExecutionProvider")
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [plugin, plugin])
    assert providers.available_providers() == ["CPUExecutionProvider", "CUDAExecutionProvider"]
    monkeypatch.setattr(providers, "_torch_has_cuda", lambda: True)
    assert providers.choose_provider("auto") == "cuda"


def test_libraries_are_loaded_first_and_what_is_printed_stays_out_of_the_output(monkeypatch, capsys):
    order = []

    def preload_dlls():
        print("Failed to load libcublas.so.13")  # noqa: T201 - as ONNX Runtime does
        order.append("preload")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload_dlls)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: order.append("ask") or [])
    providers._load_cuda.cache_clear()
    providers.available_providers()
    providers.available_providers()
    assert order == ["preload", "ask", "ask"] and capsys.readouterr().out == ""


def test_this_machines_wheels_are_found():
    assert {"onnxruntime"} <= {wheel.removesuffix("-gpu") for wheel in providers.installed_wheels()}
