"""engine/routing.py: all combinations of facts against a table in words, and the doctor's paths against the jobs'."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.cpu.decoders import DECODERS
from gridclip.dali_pipes.nvdali import sources
from gridclip.engine import choices, routing
from gridclip.engine.doctor import probes, routes
from gridclip.engine.doctor.probes import Finding
from gridclip.engine.encoding import providers
from gridclip.engine.jobs import sources as job_sources
from gridclip.engine.routing import Facts, route

EITHER = (None, "broken")
# Provider asked for, whether CUDA works, whether TensorRT works: the model's path.
MODELS = {
    ("auto", True, True): "cuda",
    ("auto", True, False): "cuda",
    ("auto", False, True): "cpu",
    ("auto", False, False): "cpu",
    ("cpu", True, True): "cpu",
    ("cpu", True, False): "cpu",
    ("cpu", False, True): "cpu",
    ("cpu", False, False): "cpu",
    ("cuda", True, True): "cuda",
    ("cuda", True, False): "cuda",
    ("cuda", False, True): None,
    ("cuda", False, False): None,
    ("tensorrt", True, True): "tensorrt",
    ("tensorrt", True, False): None,
    ("tensorrt", False, True): "tensorrt",
    ("tensorrt", False, False): None,
}
# Decoder asked for, whether decord and DALI are there; "auto" has its own rule below.
VIDEOS = (
    {("dali", has_decord, True): "dali" for has_decord in (True, False)}
    | {("dali", has_decord, False): None for has_decord in (True, False)}
    | {("hybrid", has_decord, True): "hybrid" for has_decord in (True, False)}
    | {("hybrid", has_decord, False): None for has_decord in (True, False)}
    | {("decord", True, has_dali): "decord" for has_dali in (True, False)}
    | {("decord", False, has_dali): None for has_dali in (True, False)}
    | {("pyav", has_decord, has_dali): "pyav" for has_decord in (True, False) for has_dali in (True, False)}
)


def all_facts() -> list[Facts]:
    return [
        Facts(*each)
        for each in itertools.product(
            choices.DECODERS, choices.PROVIDERS, EITHER, EITHER, EITHER, EITHER, (True, False), (True, False)
        )
    ]


def test_every_combination_of_facts() -> None:
    assert len(all_facts()) == 5 * 4 * 2**6
    for facts in all_facts():
        taken = route(facts)
        cuda, tensorrt = facts.cuda_obstacle is None, facts.tensorrt_obstacle is None
        assert taken.model.path == MODELS[facts.provider, cuda, tensorrt], facts
        assert (taken.model.why_not is None) == (taken.model.path in ("cuda", "tensorrt")), facts
        pixels_on_gpu = (
            facts.gpu_obstacle is None and facts.dali_obstacle is None and taken.model.path in ("cuda", "tensorrt")
        )
        if facts.decoder == "auto":
            expected = "hybrid" if pixels_on_gpu else "pyav"
        else:
            expected = VIDEOS[facts.decoder, facts.has_decord, facts.dali_obstacle is None]
        assert taken.videos.path == expected, facts
        assert (taken.videos.why_not is None) == (expected in ("dali", "hybrid")), facts
        on_cpu = "jpeg4py" if facts.has_turbojpeg else "Pillow"
        assert taken.images.path == ("dali" if pixels_on_gpu else on_cpu), facts
        assert (taken.images.why_not is None) == pixels_on_gpu, facts


def test_what_nobody_has_looked_up_is_not_used() -> None:
    assert route(Facts()) == routing.Routes(
        routing.Model("cpu", routing.NOT_LOOKED_UP),
        routing.Videos("pyav", routing.NOT_LOOKED_UP),
        routing.Images("Pillow", routing.NOT_LOOKED_UP),
    )


# Without those whose torch shows a GPU where the driver shows none.
MACHINES = [machine for machine in itertools.product((True, False), repeat=5) if machine[0] or not machine[3]]


@pytest.mark.parametrize(("gpu", "dali", "runtime", "torch", "decord"), MACHINES)
def test_the_doctor_and_the_jobs_agree(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, dali: bool, runtime: bool, torch: bool, decord: bool
) -> None:
    """The doctor's findings of a machine, and the jobs' own look at the same machine."""
    found = {probe.name: Finding(probe.name, True, probe.optional, "1", "", None) for probe in probes.PROBES}
    for name, usable in (("nvidia-smi", gpu), ("nvidia-dali", dali), ("decord", decord)):
        found[name] = dataclasses.replace(found[name], usable=usable, detail="" if usable else "not there")
    names = ["CUDAExecutionProvider"] * runtime + ["CPUExecutionProvider"]
    found["onnxruntime"] = dataclasses.replace(found["onnxruntime"], detail=", ".join(names))
    found["torch"] = dataclasses.replace(found["torch"], detail="CUDA: A800" if torch else "CPU with 8 threads")
    paths = {each.stage: each.path for each in routes.routes(found)}

    monkeypatch.setattr(providers, "available_providers", lambda: names)
    monkeypatch.setattr(providers, "_torch_has_cuda", lambda: torch)
    monkeypatch.setattr(providers, "first_gpu", lambda: 0 if gpu else None)
    monkeypatch.setattr(sources, "why_not", lambda: None if dali else "DALI is not installed")
    monkeypatch.setitem(
        DECODERS, "decord", dataclasses.replace(DECODERS["decord"], module="decord" if decord else "gone")
    )
    provider = providers.choose_provider("auto")
    device_id = None if provider == "cpu" else 0
    assert paths["embed images and texts"] == f"ONNX Runtime on {'the CPU' if provider == 'cpu' else 'CUDA'}"
    on_gpu = job_sources.uses_dali("auto", device_id)
    assert paths["decode videos"] == ("DALI on the GPU and PyAV on the CPU (hybrid)" if on_gpu else "PyAV on the CPU")
    images = job_sources.image_source(32, device_id=device_id, num_workers=1, time_limit_s=1)
    assert (paths["read JPEG super images"] == "DALI on the GPU") == (images.func is sources.decode_images)
    for decoder, usable in (("decord", decord), ("dali", dali)):
        if not usable:
            with pytest.raises(GridClipError, match=decoder):
                job_sources.uses_dali(decoder, device_id)
