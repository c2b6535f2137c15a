"""benchmarks/gpu: the battery's processes, limits, JSON, resume, nvidia-smi, and the steps on a stand-in for a card."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from gridclip import GridClipError
from gridclip.benchmarks import corpus, matrix_rate, pipelines
from gridclip.benchmarks.gpu import (
    battery,
    decode_rates,
    decoder_cache,
    decoding,
    encode_rates,
    encoder,
    job_rates,
    mixed_folder,
    nvidia_smi,
    probe,
    ranking,
    running,
    steps,
)
from gridclip.benchmarks.gpu.checks import Check, judged
from gridclip.benchmarks.gpu.plans import PLANS, SMALL_MODEL, Place, Plan, Work
from gridclip.benchmarks.gpu.videos import Recipe
from gridclip.dali_pipes.nvdali import jpeg_pipeline, nvidia_driver, self_test, video_pipeline
from gridclip.dali_pipes.nvdali.jpeg_pipeline import JpegPipeline
from gridclip.dali_pipes.nvdali.nvidia_driver import DecoderCaps, DecoderLimits
from gridclip.dali_pipes.nvdali.video_pipeline import VideoPipeline
from gridclip.engine.encoding import attention_kernels
from gridclip.engine.encoding.encoder import Encoder

# As drivers 535 and 550 print it: the second has two columns more, and the card may say nothing of some.
DMON = """# gpu     sm    mem    enc    dec
# Idx      %      %      %      %
    0     12      3      0      0
    0     40     10      0     91
# gpu     sm    mem    enc    dec    jpg    ofa
# Idx      %      %      %      %      %      %
    0     44     12      0     95      7      0
    0      -      -      -      -      -      -
"""
SMI = f"""#!{sys.executable}
import sys, time
if sys.argv[1] == "dmon":
    assert sys.argv[2:] == ["-s", "u", "-d", "1", "-i", "0"], sys.argv
    print('''{DMON}''', end="", flush=True)
    time.sleep(600)
assert sys.argv[1].startswith("--query-gpu=name,driver_version,"), sys.argv
print("NVIDIA H100 80GB HBM3, 580.65.06, 81559 MiB, 5, 700.00 W, 1980 MHz, Disabled")
"""


@pytest.fixture
def smi(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A stand-in for nvidia-smi, the first one on the path."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


def test_dmon_is_read_whatever_columns_the_driver_has() -> None:
    loads = nvidia_smi.parse_dmon(DMON)
    assert [dataclasses.astuple(load) for load in loads] == [
        (12, 0, None), (40, 91, None), (44, 95, 7), (None, None, None),
    ]  # fmt: skip
    assert nvidia_smi.busy(loads, "dec") == 93 and nvidia_smi.busy(loads, "jpg") == 7
    assert nvidia_smi.busy([], "dec") is None
    assert nvidia_smi.busy(nvidia_smi.parse_dmon(DMON[: DMON.index("    0     40")]), "dec") == 0


def test_a_watch_asks_dmon_while_it_lasts(smi: pathlib.Path) -> None:
    with nvidia_smi.Watch(0) as watch:
        deadline = time.monotonic() + 20
        while watch._printed.count(b"\n") < len(DMON.splitlines()) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(watch.loads) == 4 and watch.told == "dec 93%, sm 40%"
    with nvidia_smi.Watch(None) as watch:
        pass
    assert watch.loads == [] and watch.told == "load not told"


def test_the_card_is_described(smi: pathlib.Path) -> None:
    told = nvidia_smi.describe(0)
    assert told["name"] == "NVIDIA H100 80GB HBM3" and told["mig_mode_current"] == "Disabled"
    smi.write_text(f"#!{sys.executable}\nimport sys; sys.exit('No devices were found')\n")
    with pytest.raises(GridClipError, match="No devices were found"):
        nvidia_smi.describe(0)
    smi.unlink()
    with pytest.raises(GridClipError, match="cannot be asked"):
        nvidia_smi.describe(0)


def command(program: str) -> list[str]:
    return [sys.executable, "-c", f"import sys, os, signal, time\nout = open(sys.argv[1], 'a')\n{program}"]


LINE = r"""out.write('{"name": "a", "verdict": "pass", "told": "", "values": {}}\n'); out.flush()"""


@pytest.mark.parametrize(
    ("program", "ended"),
    [
        (LINE, running.DONE),
        (f"{LINE}\nos.kill(os.getpid(), signal.SIGSEGV)", "crashed with signal 11"),
        (f"{LINE}\nprint('CUDA error 700')\nsys.exit(3)", "ended with status 3"),
        (f"{LINE}\nprint('hangs', flush=True)\ntime.sleep(600)", "was not done after 3 s"),
    ],
)
def test_what_a_step_had_found_outlives_it(program: str, ended: str, tmp_path: pathlib.Path) -> None:
    outcome = running.run_command(command(program), 3, tmp_path / "logs" / "E1")
    assert outcome.ended == ended
    assert [check["name"] for check in outcome.checks] == ["a"]
    if "print" in program:
        assert outcome.log


def test_a_step_that_is_stopped_takes_what_it_started_along(tmp_path: pathlib.Path) -> None:
    child = (
        "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\nprint(child.pid, flush=True)\ntime.sleep(600)"
    )
    outcome = running.run_command(command(child), 3, tmp_path / "A")
    with pytest.raises(ProcessLookupError):
        for _ in range(200):
            os.kill(int(outcome.log[0]), 0)
            time.sleep(0.05)
            if pathlib.Path(f"/proc/{outcome.log[0]}/stat").read_text().split()[2] == "Z":
                raise ProcessLookupError


def test_limits_add_up_to_what_is_promised() -> None:
    for size, promised_s in (("full", 20 * 60), ("quick", 5 * 60)):
        assert sum(step.limits_s["cuda", size] for step in steps.STEPS) <= promised_s
    assert [step.key for step in steps.STEPS][:3] == ["0", "D", "A"]
    for step in steps.STEPS:
        assert step.limits_s.keys() == PLANS.keys()


def test_steps_are_chosen_by_their_names() -> None:
    assert [step.key for step in steps.choose(["a", " E", "0"])] == ["0", "A", "E1", "E2", "E3", "E4"]
    assert steps.choose([""]) == list(steps.STEPS)
    with pytest.raises(GridClipError, match="--steps H: expected some of 0, D, A"):
        steps.choose(["H"])


def outcomes(monkeypatch: pytest.MonkeyPatch, **verdicts: str) -> list[str]:
    """Steps do not run: each finds one check, with the verdict that is given for it (default pass)."""
    ran: list[str] = []

    def run_step(step: steps.Step, *_: object) -> running.Outcome:
        ran.append(step.key)
        verdict = verdicts.get(step.key, "pass")
        if verdict == "hang":
            return running.Outcome("was not done after 9 s", 9.0, [], ["waiting for the card"])
        return running.Outcome(running.DONE, 1.0, [Check("thing", verdict, "42 dB").to_json()])  # type: ignore[arg-type]

    monkeypatch.setattr(running, "run_step", run_step)
    return ran


def test_json_after_every_step_resume_and_exit_status(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "gpu.json"
    arguments = ["--json", str(target), "--work-dir", str(tmp_path / "work"), "--quick", "--device", "cpu"]
    outcomes(monkeypatch, G="fail", E2="hang")
    with pytest.raises(SystemExit) as stop:
        battery.main([*arguments, "--steps", "A,E2,G"])
    assert stop.value.code == 1
    printed = capsys.readouterr().out
    assert battery.NO_CARD in printed
    assert "FAIL" in printed and "the step was not done after 9 s: waiting for the card" in printed
    content = json.loads(target.read_text())
    assert content["settings"] == {"device": "cpu", "size": "quick", "gpu": None}
    assert content["results"]["steps"]["A"]["checks"] == [
        {"name": "thing", "verdict": "pass", "told": "42 dB", "values": {}}
    ]
    assert content["results"]["predictions"]["hybrid over dali"]["floor"] == 1.2
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["gpu.json"]

    ran = outcomes(monkeypatch)
    with pytest.raises(SystemExit):  # G was done, and had failed
        battery.main([*arguments, "--resume", "--steps", "A,E2,G"])
    assert ran == ["E2"]
    with pytest.raises(SystemExit, match="was written with .*'quick'.* this is .*'full'"):
        battery.main([*arguments[:4], "--device", "cpu", "--resume"])
    target.write_text("[]")
    with pytest.raises(SystemExit, match="holds no result"):
        battery.main([*arguments, "--resume"])
    battery.main([*arguments, "--steps", "G"])
    assert ran == ["E2", "G"]


def test_a_card_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(battery, "first_gpu", lambda: None)
    with pytest.raises(SystemExit, match="shows no GPU"):
        battery.main(["--device", "cuda", "--json", str(tmp_path / "x.json")])
    with pytest.raises(SystemExit, match="--steps X"):
        battery.main(["--steps", "X", "--json", str(tmp_path / "x.json")])


def test_with_a_card_the_cards_plan_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, smi: pathlib.Path
) -> None:
    monkeypatch.setattr(battery, "first_gpu", lambda: 0)
    outcomes(monkeypatch)
    target = tmp_path / "x.json"
    arguments = ["--json", str(target), "--work-dir", str(tmp_path / "work"), "--steps", "0"]
    battery.main(arguments)
    assert json.loads(target.read_text())["settings"]["gpu"]["name"] == "NVIDIA H100 80GB HBM3"
    smi.unlink()
    battery.main(arguments)
    assert "not told" in json.loads(target.read_text())["settings"]["gpu"]["name"]


def test_an_error_of_a_step_is_its_last_check(tmp_path: pathlib.Path) -> None:
    def found() -> Iterator[Check]:
        yield judged("a", True, "fine")
        raise GridClipError("no video decoder")

    running.write_checks(found(), tmp_path / "x.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["pass", "fail"]


# A card that is a stand-in: the card's plan, small, with every call that needs one turned to the CPU.

_VP9 = (("deadline", "realtime"), ("cpu-used", "8"))
_CARD = Place("cuda", 0, ("cuda", "tensorrt"))


def _small(plan: Plan) -> Plan:
    clip = Recipe("VP9", "libvpx-vp9", 96, 64, 20, _VP9, gop=10, suffix="webm")
    return dataclasses.replace(
        plan,
        floors=True,
        clips=(clip, Recipe("MJPEG", "mjpeg", 96, 64, 8, pixel_format="yuvj420p", suffix="avi")),
        offsets=2,
        crop_codec="libvpx-vp9",
        crop_options=_VP9,
        crop_sizes=(((96, 64), (90, 64)),),
        colour_codec="libvpx-vp9",
        colour_size=(96, 64),
        models=(SMALL_MODEL,),
        images=8,
        batch_sizes=(2, 4),
        batches=5,
        matrix_side=64,
        rate_clips=(corpus.Clip("libvpx-vp9", 90, gop_s=2, b_frames=0, duration_s=5),),
        copies=2,
        pipelines=(2,),
        threads=(1,),
        affine=(False, True),
        jpeg_copies=2,
        job_model=SMALL_MODEL,
        repetitions=1,
        mixed_copies=2,
        queries=50,
        candidates=20,
    )


@pytest.fixture
def card(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, smi: pathlib.Path) -> Work:
    """Work for the stand-in: DALI's device, ONNX Runtime's provider, torch's device and the driver are replaced."""

    class Video(VideoPipeline):
        def __init__(self, *arguments, device_id: int | None, **rest) -> None:
            assert device_id in (0, None)  # None: of a job, whose encoder is on the CPU
            super().__init__(*arguments, device_id=None, **rest)

    class Jpeg(JpegPipeline):
        def __init__(self, *arguments, device_id: int | None, **rest) -> None:
            assert device_id in (0, None)
            super().__init__(*arguments, device_id=None, **rest)

    for module in (decoding, decode_rates, pipelines, video_pipeline):
        monkeypatch.setattr(module, "VideoPipeline", Video)
    for module in (pipelines, jpeg_pipeline):
        monkeypatch.setattr(module, "JpegPipeline", Jpeg)
    monkeypatch.setitem(self_test.VIDEOS, "gpu", self_test.VIDEOS["cpu"])

    def on_cpu(folder: pathlib.Path, *, provider: str, device_id: int, cuda_graph: bool = False) -> Encoder:
        if provider == "tensorrt":
            raise GridClipError("this ONNX Runtime has only CUDA")
        assert (provider, device_id) == ("cuda", 0)
        return Encoder(folder, provider="cpu", num_threads=1)

    def made(folder: pathlib.Path, **rest) -> Encoder:
        return Encoder(folder, provider="cpu") if rest == {"provider": "cpu"} else on_cpu(folder, **rest)

    for module in (encoder, encode_rates, job_rates):
        monkeypatch.setattr(module, "Encoder", made)
    monkeypatch.setattr(torch.Tensor, "to", _stays(torch.Tensor.to))
    product = matrix_rate.matrix_product
    monkeypatch.setattr(matrix_rate, "matrix_product", lambda device, dtype, side: product("cpu", torch.float32, side))
    kernels = attention_kernels.parse_choices("Operator=Attention SdpaKernel=FLASH_ATTENTION\n" * 2)
    monkeypatch.setattr(attention_kernels, "find_kernels", lambda folder, *, device_id: kernels)
    placement = functools.partial(_as_on_the_card, encoder.find_placement)
    monkeypatch.setattr(encoder, "find_placement", placement)
    monkeypatch.setattr(probe, "NVJPEG", ("libgridclip-no-such.so", "libc.so.6"))
    monkeypatch.setattr(probe.providers, "available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(nvidia_driver, "ask_decoder", _ask_decoder)
    limits = {codec: DecoderLimits(16, 16, 4096, 4096, 65536) for codec in ("h264", "hevc", "vp9", "vp8", "mjpeg")}
    monkeypatch.setattr(nvidia_driver, "decoder_limits", lambda device_id: limits)
    monkeypatch.setattr(probe.self_test, "check_device", lambda device_id: None)
    monkeypatch.setattr(decoder_cache, "_alone", decoder_cache.decode_file)
    return Work(_CARD, _small(PLANS["cuda", "full"]), tmp_path)


def _stays(to):
    def moved(tensor: torch.Tensor, *arguments, **rest) -> torch.Tensor:
        return tensor if arguments and str(arguments[0]).startswith("cuda") else to(tensor, *arguments, **rest)

    return moved


def _as_on_the_card(find, graph: pathlib.Path, provider: tuple, images: np.ndarray) -> dict:
    assert provider == ("CUDAExecutionProvider", {"device_id": "0"})
    found = find(graph, ("CPUExecutionProvider", {}), images)
    return {"CUDAExecutionProvider": found["CPUExecutionProvider"]}


def _ask_decoder(device_id: int, formats) -> dict[tuple[str, int], DecoderCaps]:
    """An H100's answers: no 10 bits of H.264, seven engines."""
    answers = {}
    for codec, bits in formats:
        caps = DecoderCaps(bIsSupported=codec != "av1", nNumNVDECs=7, nMaxWidth=4096, nMaxHeight=4096)
        answers[codec, bits] = caps
    return answers


def run(work: Work, key: str) -> dict[str, Check]:
    (step,) = [step for step in steps.STEPS if step.key == key]
    found = {check.name: check for check in step.run(work)}
    assert all(json.dumps(check.to_json()) for check in found.values())
    return found


def test_step_0_on_a_card(card: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(card, "0")
    assert found["decoder capabilities"].verdict == "pass"
    assert found["decoder capabilities"].values["engines"] == 7
    assert "av1 8 bit" not in found["decoder capabilities"].values["formats"]
    assert found["NVJPEG library"].told == "libc.so.6"
    assert {check.verdict for check in found.values()} == {"pass", "measured"}

    def silent(*_: object) -> None:
        raise GridClipError("the driver's video decoder, libnvcuvid.so.1, is missing")

    monkeypatch.setattr(nvidia_driver, "decoder_limits", silent)
    monkeypatch.setattr(nvidia_driver, "ask_decoder", silent)
    monkeypatch.setattr(probe.sources, "why_not", lambda: "DALI is not installed")
    monkeypatch.setattr(nvidia_smi, "describe", silent)
    found = run(card, "0")
    failed = [name for name, check in found.items() if check.verdict == "fail"]
    assert failed == ["NVDEC library", "decoder capabilities", "nvidia-smi", "DALI's self-test"]


def test_steps_a_b_c_on_a_card(card: Work) -> None:
    found = run(card, "A")
    assert found["VP9 64p: every frame"].verdict == "pass" and found["VP9 64p: pruned as whole"].verdict == "pass"
    assert "full range" in found["MJPEG 64p: every frame"].told  # NVDEC would take it for limited range
    assert {check.verdict for check in run(card, "B").values()} == {"pass"}
    found = run(card, "C")
    assert found["BT.601, limited range"].verdict == "pass"
    assert found["BT.709, limited range"].verdict == "fail"  # DALI's CPU variant is as far off as a wrong card would be
    assert "must leave such videos to the CPU" in found["BT.709, limited range"].told


def test_step_d_on_a_card(card: Work) -> None:
    found = run(card, "D")
    name = "ViT of width 64, 56 px, fp16"
    assert found[f"{name}, cuda"].verdict == found[f"{name}, cuda, CUDA graph"].verdict == "pass"
    assert found[f"{name}: attention kernels"].told == "FLASH_ATTENTION x 2: all fused"
    assert found[f"{name}: where nodes run"].verdict == "pass"
    assert found[f"{name}, tensorrt"].verdict == "not possible"


def test_step_e_on_a_card(card: Work) -> None:
    found = run(card, "E1")
    assert found["--decoder dali"].verdict == "measured" and "dec 93%" in found["--decoder dali"].told
    assert found["NVDEC busy in --decoder dali"].verdict == "pass"
    assert found["pruned over whole files"].prediction["facts"]["packets"] == 150
    assert found["frames decoded of whole files"].prediction["value"] == 7 * 730
    assert found["hybrid over dali"].prediction["floor"] == 1.2
    tried = [name for name in found if name.startswith("--decoder dali, ") and "threads" in name]
    assert len(tried) == 2 and sum("affine" in name for name in tried) == 1
    assert len(found["fastest settings"].values["per_s"]) == 2

    found = run(card, "E2")
    settings = [name for name in found if "batches of" in name and "best" not in name]
    assert len(settings) == 4 and sum("CUDA graph" in name for name in settings) == 2
    (best,) = [check for name, check in found.items() if "best" in name]
    assert best.verdict in ("pass", "fail") and best.prediction["facts"]["flop_per_image"] > 0

    found = run(card, "E3")
    assert sum("hw_decoder_load" in name for name in found) == 5
    assert found["embed-images"].values["load"].startswith("dec ")

    found = run(card, "E4")
    assert {check.verdict for name, check in found.items() if name.endswith("the card")} == {"measured"}
    assert found["embed-videos --decoder hybrid"].values["super_images"] == 2


def test_step_g_on_a_card(card: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ranks", "best_videos"):
        monkeypatch.setattr(ranking.retrieval, name, _on_the_cpu(getattr(ranking.retrieval, name)))
    assert {check.verdict for check in run(card, "G").values()} == {"pass"}


def _on_the_cpu(rank):
    def ranked(*arguments, device: str, **rest):
        assert device == "cuda:0"
        return rank(*arguments, device="cpu", **rest)

    return ranked


def test_settings_that_do_not_run_cost_themselves_only(card: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_graphs(*_: object, cuda_graph: bool, **__: object) -> Encoder:
        if cuda_graph:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        return encoder.Encoder(*_, provider="cpu")

    monkeypatch.setattr(encode_rates, "Encoder", no_graphs)
    found = run(card, "E2")
    assert sum(check.verdict == "fail" and "stream is capturing" in check.told for check in found.values()) == 2


def test_missing_super_images_are_no_rate(card: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_rates, "_decode_with_pyav", lambda paths: 1)
    found = run(card, "E1")
    assert (
        found["hybrid over dali"].verdict == "fail"
        and "1 super images came out, expected 2" in found["hybrid over dali"].told
    )
    assert "fastest settings" in found  # and the rest goes on


def test_a_store_that_differs_fails(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gridclip.engine.store.rows import SuperImageTable

    times = np.zeros(3)
    rows = np.eye(3, dtype=np.float16)
    tables = {
        "pyav": SuperImageTable(["a", "b"], np.array([0, 1, 3]), rows, times, times),
        "turned": SuperImageTable(["a", "b"], np.array([0, 1, 3]), rows[[0, 2, 1]], times, times),
        "lost": SuperImageTable(["a"], np.array([0, 3]), rows, times, times),
        "cut": SuperImageTable(["a", "b"], np.array([0, 2, 3]), rows, times, times),
    }

    class Opened:
        def __init__(self, path: pathlib.Path) -> None:
            self.read_super_images = lambda: tables[path.name]

    monkeypatch.setattr(mixed_folder.Store, "open", Opened)
    verdicts = {name: mixed_folder.check_same("same", tmp_path / "pyav", tmp_path / name) for name in tables}
    assert {name: check.verdict for name, check in verdicts.items()} == {
        "pyav": "pass", "turned": "fail", "lost": "fail", "cut": "fail",
    }  # fmt: skip
    assert "(b)" in verdicts["turned"].told and "b" in verdicts["lost"].values["differing"]


def test_quick_on_this_machine(tmp_path: pathlib.Path) -> None:
    """What CI runs: all steps, as a user starts them, on the CPU variants."""
    import subprocess

    program = "import sys; from gridclip.cli import main; main()"
    options = ["--quick", "--device", "cpu", "--json", str(tmp_path / "gpu.json"), "--work-dir", str(tmp_path / "work")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        [sys.executable, "-c", program, "bench", "gpu", *options],
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    content = json.loads((tmp_path / "gpu.json").read_text())
    found = content["results"]["steps"]
    assert list(found) == [step.key for step in steps.STEPS]
    assert content["command"].startswith("gridclip bench gpu") and content["settings"]["device"] == "cpu"
    assert all(step["ended"] == running.DONE and step["checks"] for step in found.values())
    assert any(check["verdict"] == "not possible" for check in found["0"]["checks"])
