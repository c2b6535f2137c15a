"""cli.py: options in, the right calls and exit statuses out. The commands' work is replaced by recorders here."""

from __future__ import annotations

import inspect
import logging
import pathlib
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import click
import fake_model
import gridclip
import pytest
from click.testing import CliRunner, Result
from gridclip import ArgumentError, GridClipError
from gridclip.cli import _in_options, main
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.jobs.progress import Interrupted, JobSummary
from gridclip.export.model_info import ModelInfo

COMMANDS = (
    "doctor plan inspect models export superimages embed-text embed-images embed-videos evaluate compare index search "
    "serve status merge slurm-script import-features export-features reproduce bench"
).split()
HEAVY = {"av", "decord", "lance", "numpy", "onnx", "onnxruntime", "PIL", "pyarrow", "rich", "tokenizers", "torch"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def summary(**changes: Any) -> JobSummary:
    return JobSummary(
        **{
            "action": "embedded",
            "unit": "videos",
            "done": 3,
            "super_images": 7,
            "failures": 0,
            "finished_before": 0,
            "seconds": 1.0,
            "failures_file": "store/failures.jsonl",
            **changes,
        }
    )


class Recorder:
    """Stands for a job: keeps its arguments, returns `result` or raises it."""

    def __init__(self, result: object) -> None:
        self.result = result
        self.arguments: dict[str, Any] = {}
        self.signature: inspect.Signature | None = None

    def replace(self, monkeypatch: pytest.MonkeyPatch, target: str) -> Recorder:
        module, name = target.rsplit(".", 1)
        self.signature = inspect.signature(getattr(__import__(module, fromlist=[name]), name))
        monkeypatch.setattr(target, self)
        return self

    def __call__(self, *positional: Any, **named: Any) -> Any:
        assert self.signature is not None
        self.arguments = dict(self.signature.bind(*positional, **named).arguments)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result(*positional, **named) if callable(self.result) else self.result


@pytest.fixture
def superimages(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(summary()).replace(monkeypatch, "gridclip.engine.jobs.super_images.make_super_images")


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Replaces the model; the recorder shows what was asked of export."""
    info = ModelInfo.from_json(fake_model.model_json(image_size=224, context_length=77))
    monkeypatch.setattr(
        "gridclip.engine.encoding.encoder.Encoder",
        lambda folder, provider, cuda_graph: SimpleNamespace(info=info, provider=provider),
    )
    return Recorder(pathlib.Path("model")).replace(monkeypatch, "gridclip.export.folder.ensure_model_folder")


def test_the_procedures_superimages(superimages: Recorder) -> None:
    result = run(
        *(
            "superimages --save_dir ../dataset/out336 --anno_file ./ms-sl/activitynet/TextData/val_1.json --video_dir "
            "/data/all_videos/ --num_workers 32 --grid_size 2 --super_img_size 336 --resume --fps 0.5"
        ).split()
    )
    assert result.exit_code == 0, result.output
    assert superimages.arguments == {
        "video_dir": "/data/all_videos/",
        "save_dir": pathlib.Path("../dataset/out336"),
        "anno_file": pathlib.Path("ms-sl/activitynet/TextData/val_1.json"),
        "sampling": Sampling(fps=0.5, grid_size=2, super_img_size=336),
        "decoder": "auto",
        "num_workers": 32,
        "time_limit_s": 300.0,
        "resume": True,
        "overwrite": False,
        "on_damage": "nearest",
        "retry_failed": None,
        "metrics_address": None,
        "cluster": None,
        "cpus_per_worker": None,
    }


def test_the_procedures_embed_text(monkeypatch: pytest.MonkeyPatch, encoder: Recorder) -> None:
    job = Recorder(summary(unit="captions")).replace(monkeypatch, "gridclip.engine.jobs.embed_text.embed_text")
    result = run(*"embed-text --model_path ViT-L/14 --batch_size 128 --anno_path ./annos/val_1.json".split())
    assert result.exit_code == 0, result.output
    assert encoder.arguments["model"] == "ViT-L/14"
    assert job.arguments["captions"] == pathlib.Path("annos/val_1.json")
    assert job.arguments["store_path"] == pathlib.Path("gridclip-store")
    assert job.arguments["batch_size"] == 128


def test_the_procedures_embed_images(
    monkeypatch: pytest.MonkeyPatch, encoder: Recorder, tmp_path: pathlib.Path
) -> None:
    job = Recorder(summary()).replace(monkeypatch, "gridclip.engine.jobs.embed_images.embed_images")
    old = "embed-images --batch_size 100 --num_gpus 1 --num_worker 16 --ckpt pretrained/ViT-L-14.pt --image_size 224"
    monkeypatch.chdir(tmp_path)
    result = run(*old.split())
    assert result.exit_code == 1
    assert "no gridclip superimages has been run in this folder: give --image-dir" in result.stderr
    result = run(*old.split(), "--image_dir", "out336")
    assert result.exit_code == 0, result.output
    assert job.arguments["image_dir"] == pathlib.Path("out336")
    assert encoder.arguments["model"] == "pretrained/ViT-L-14.pt"
    assert encoder.arguments["image_size"] == 224
    assert (job.arguments["batch_size"], job.arguments["num_workers"]) == (100, 16)


def test_commands_take_what_those_before_them_wrote(
    monkeypatch: pytest.MonkeyPatch, superimages: Recorder, encoder: Recorder, tmp_path: pathlib.Path
) -> None:
    text = Recorder(summary(unit="captions")).replace(monkeypatch, "gridclip.engine.jobs.embed_text.embed_text")
    images = Recorder(summary()).replace(monkeypatch, "gridclip.engine.jobs.embed_images.embed_images")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    run(*"superimages --save_dir ../first --video_dir v".split())
    superimages.result = summary(done=0, failures=1)
    run(*"superimages --save_dir ../nothing-came-of-it --video_dir v".split())
    missing = run(*"embed-images --batch_size 20".split())
    assert missing.exit_code == 1 and "--model is missing" in missing.stderr and not images.arguments
    run(*"embed-text --model_path ViT-L/14 --anno_path a.json".split())
    assert text.arguments
    result = run(*"embed-images --batch_size 20".split())
    assert result.exit_code == 0, result.output
    assert images.arguments["image_dir"] == pathlib.Path("../first") and encoder.arguments["model"] == "ViT-L/14"
    assert "no --image-dir is given: taking ../first" in result.stderr and "taking ViT-L/14" in result.stderr
    assert sorted(path.name for path in pathlib.Path().iterdir()) == [".gridclip.json"]
    pathlib.Path(".gridclip.json").write_text('["damaged"]')
    assert run(*"embed-images --batch_size 20".split()).exit_code == 1
    monkeypatch.chdir(tmp_path)
    assert run(*"embed-images --batch_size 20".split()).exit_code == 1  # another project


@pytest.mark.parametrize(
    "arguments",
    [
        "embed-text --anno-path a",
        "embed-images --image-dir i",
        "embed-videos --video-dir v",
        "search sentence --store s",
    ],
)
def test_every_command_that_takes_a_checkpoint_takes_its_vocabulary(
    monkeypatch: pytest.MonkeyPatch, encoder: Recorder, arguments: str
) -> None:
    monkeypatch.setattr("gridclip.engine.store.store.Store.open", lambda path: None)
    run(*arguments.split(), "--model", "bare/ViT-L-14.pt", "--tokenizer", "vocabulary")
    assert encoder.arguments["tokenizer"] == pathlib.Path("vocabulary")


def test_embed_videos(monkeypatch: pytest.MonkeyPatch, encoder: Recorder) -> None:
    job = Recorder(summary()).replace(monkeypatch, "gridclip.engine.jobs.embed_videos.embed_videos")
    result = run(*"embed-videos --model m --video-dir v --store s --num-shards 4 --shard-id 3 --num-gpus 0".split())
    assert result.exit_code == 0, result.output
    assert job.arguments["encoder"].provider == "cpu"
    assert job.arguments["sampling"] == Sampling(super_img_size=224)  # the model's
    assert run(*"embed-videos --model m --video-dir v --sampling keyframes".split()).exit_code == 0
    assert job.arguments["sampling"] == Sampling(super_img_size=224, max_shift_s=2.0)
    assert run(*"embed-videos --model m --video-dir v --sampling keyframes --max-shift 0.5".split()).exit_code == 0
    assert job.arguments["sampling"] == Sampling(super_img_size=224, max_shift_s=0.5)
    for mode, expected in {"exact": "frames", "frames": "frames", "time": "time"}.items():  # exact: the older name
        assert run(*f"embed-videos --model m --video-dir v --sampling {mode}".split()).exit_code == 0
        assert job.arguments["sampling"] == Sampling(super_img_size=224, mode=expected)
    assert "--sampling [frames|keyframes|time]" in run("embed-videos", "--help").output
    refused = run(*"embed-videos --model m --video-dir v --sampling time --max-shift 1".split())
    assert refused.exit_code == 2 and "--sampling time frames do not move" in " ".join(refused.output.split())
    assert run(*"embed-videos --model m --video-dir v --store s --num-shards 4 --shard-id 3".split()).exit_code == 0
    assert (job.arguments["num_shards"], job.arguments["shard_id"]) == (4, 3)
    assert run(*"embed-videos --model m --video-dir v --super-img-size 336".split()).exit_code == 0
    assert job.arguments["sampling"] == Sampling(super_img_size=336)
    assert job.arguments["encoder"].provider == "cpu"  # this machine's
    assert job.arguments["num_gpus"] == 1
    assert run(*"embed-videos --model m --video-dir v --cluster auto --cpus-per-worker 8".split()).exit_code == 0
    assert (job.arguments["cluster"], job.arguments["cpus_per_worker"], job.arguments["num_gpus"]) == ("auto", 8, 1)
    assert run(*"embed-videos --model m --video-dir v --cluster auto --provider cpu".split()).exit_code == 0
    assert job.arguments["num_gpus"] == 0
    refused = run(*"embed-videos --model m --video-dir v --cluster auto --num-workers 3".split())
    assert refused.exit_code == 2 and "give --cpus-per-worker" in " ".join(refused.output.split())


def test_embed_videos_with_several_models(monkeypatch: pytest.MonkeyPatch, encoder: Recorder) -> None:
    both = summary(stores=(summary(), summary(failures_file="t/failures.jsonl", stopped="no space left")))
    job = Recorder(both).replace(monkeypatch, "gridclip.engine.jobs.embed_videos.embed_videos_with_models")
    command = "embed-videos --model m --model n --video-dir v --store s --store t --num-gpus 0".split()
    result = run(*command, "--num-shards", 2, "--shard-id", 1)
    assert [target.path for target in job.arguments["targets"]] == [pathlib.Path("s"), pathlib.Path("t")]
    assert [target.sampling for target in job.arguments["targets"]] == [Sampling(super_img_size=224)] * 2
    assert (job.arguments["num_shards"], job.arguments["shard_id"]) == (2, 1)
    lines = result.output.splitlines()
    assert lines[0].startswith("store: embedded 3") and lines[1].endswith("stopped before its end: no space left")
    assert result.exit_code == 1  # a store is not whole
    job.result = summary(stores=(summary(), summary(failures=1)), failures=1)
    assert run(*command).exit_code == 0 and run(*command, "--strict").exit_code == 1
    job.result = Interrupted(both)
    result = run(*command)
    assert result.exit_code == 130 and result.stderr.startswith("Interrupted: store: embedded 3")
    for more, message in (
        (["--store", "u"], "--model is given 2 times and --store 3 times"),
        (["--num-gpus", 2], "--num-gpus 2 is for one model"),
        (["--cluster", "auto"], "--cluster auto takes one model"),
        (["--tokenizer", "x"], "--tokenizer is the vocabulary of one model"),
    ):
        refused = run(*command, *more)
        assert refused.exit_code == 2 and message in " ".join(refused.output.split())
    one_store = run(*"embed-videos --model m --model n --video-dir v --store s --store s --dry-run".split())
    assert one_store.exit_code == 2 and "is given for several models" in " ".join(one_store.output.split())
    script = run(*"slurm-script --model m --model n --video-dir v --store s --tasks 2".split())
    assert script.exit_code == 2 and "slurm-script takes one, not 2" in " ".join(script.output.split())


def test_export(monkeypatch: pytest.MonkeyPatch) -> None:
    info = ModelInfo.from_json(
        fake_model.model_json(
            name="ViT-B/32",
            precision="int8",
            fused_attention={"image": 12, "text": 12},
            smallest_cosine={"image": 0.991, "text": 0.995},
        )
    )
    job = Recorder(info).replace(monkeypatch, "gridclip.export.folder.export_model")
    result = run(*"export ViT-B/32 --out m --precision int8 --activation quick_gelu".split())
    assert result.exit_code == 0, result.output
    assert job.arguments["model"] == "ViT-B/32"
    assert job.arguments["activation"] == "quick_gelu"
    assert job.arguments["verify"] is True
    assert "0.991000 (image), 0.995000 (text)" in result.output


def test_benchmarks_get_their_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr("gridclip.benchmarks.encode.main", lambda: seen.append(sys.argv[1:]))
    assert run("bench", "encode", "--repetitions", "2", "--json", "x.json").exit_code == 0
    assert run("bench", "encode").exit_code == 0
    assert seen == [["--json", "x.json", "--repetitions", "2"], ["--json", "bench-encode.json"]]


@pytest.mark.parametrize(
    "arguments",
    [
        "frobnicate",
        "superimages --video-dir v",
        "superimages --video-dir v --save-dir s --fps 0",
        "superimages --video-dir v --save-dir s --fps nan",
        "superimages --video-dir v --save-dir s --grid-size 0",
        "superimages --video-dir v --save-dir s --grid-size 9 --super-img-size 8",
        "superimages --video-dir v --save-dir s --decoder opencv",
        "superimages --video-dir v --save-dir s --resume --overwrite",
        "superimages --video-dir v --save-dir s --overwrite --resume",
        "superimages --video-dir v --save-dir s --num-workers 0",
        "superimages --video-dir v --save-dir s --max-shift 1",
        "superimages --video-dir v --save-dir s --sampling keyframes --max-shift -1",
        "superimages --video-dir v --save-dir s --sampling nearest",
        "embed-videos --model m --video-dir v --sampling exact --max-shift 1",
        "plan",
        "plan --video-dir v --video-info i",
        "embed-videos --model m --video-dir v --num-shards 2 --shard-id 2",
        "embed-videos --model m --video-dir v --num-shards 2 --overwrite",
        "embed-text --model m --anno-path a --max-text-length 128",
        "evaluate --topk 1,x",
        "evaluate --topk 0",
        "evaluate --topk ,",
        "evaluate --temperature 0",
        "evaluate --missing maybe",
        "evaluate --sweep fps=1",
        "evaluate --sweep temperature=",
        "evaluate --sweep temperature=1,0",
        "evaluate --sweep aggregate=median",
        "evaluate --normalise softly",
        "evaluate --video-dir v",
        "evaluate --predictions p --anno-path a --beside activitynet",
        "search --model m",
        "bench everything",
    ],
)
def test_wrong_usage(encoder: Recorder, arguments: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2, result.output
    assert "Error: " in result.output


def test_an_empty_sentence_is_wrong_usage(encoder: Recorder) -> None:
    assert run("search", "--model", "m", "  ").exit_code == 2


@pytest.mark.parametrize(
    ("outcome", "strict", "status"),
    [
        (summary(), False, 0),
        (summary(failures=1), False, 0),
        (summary(failures=1), True, 1),
        (summary(done=0, failures=2), False, 1),
        (summary(done=0, finished_before=3), False, 0),
        (summary(done=0, finished_before=3), True, 0),
    ],
)
def test_exit_status_of_a_job(superimages: Recorder, outcome: JobSummary, strict: bool, status: int) -> None:
    superimages.result = outcome
    result = run("superimages", "--video-dir", "v", "--save-dir", "s", *(["--strict"] if strict else []))
    assert result.exit_code == status
    assert result.stdout == f"{outcome}\n"


@pytest.mark.parametrize("error", [GridClipError("what to do"), PermissionError(13, "what to do", "file")])
def test_errors_become_one_line(superimages: Recorder, error: Exception) -> None:
    superimages.result = error
    result = run("superimages", "--video-dir", "v", "--save-dir", "s")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and "what to do" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("it has 2 videos: `resume=True` goes on", "it has 2 videos: --resume goes on"),
        ("take another `save_dir`, or `decoder='pyav'`", "take another --save-dir, or --decoder pyav"),
        ("count them: `mode='frames'`", "count them: --sampling frames"),
        ("hung for 3 s: raise `time_limit_s`", "hung for 3 s: raise --time-limit"),
        ("see `gridclip doctor`, or `frobnicate=1`", "see `gridclip doctor`, or `frobnicate=1`"),
        ("/data/resume=True/store is a file", "/data/resume=True/store is a file"),
        ("`anno_file` of another command", "--anno-file of another command"),
    ],
)
def test_parameters_are_shown_as_options(superimages: Recorder, message: str, shown: str) -> None:
    superimages.result = GridClipError(message)
    assert run("superimages", "--video-dir", "v", "--save-dir", "s").stderr == f"Error: {shown}\n"


def library_files() -> dict[str, str]:
    root = pathlib.Path(gridclip.__file__).resolve().parent
    paths = [path for room in ("engine", "dali_pipes", "export") for path in (root / room).rglob("*.py")]
    return {str(path.relative_to(root)): path.read_text("utf-8") for path in [*paths, root / "__init__.py"]}


def test_the_library_knows_no_options() -> None:
    options = {name for command in main.commands.values() for each in command.params for name in each.opts}
    named = re.compile("|".join(rf"(?<![\w-]){name}(?![\w-])" for name in options if name.startswith("--")))
    found = [
        f"{file}: {line.strip()}"
        for file, text in library_files().items()
        for line in text.splitlines()
        if named.search(line) and "nvidia-smi" not in line and "slurm_script" not in str(file)  # it writes commands
    ]
    assert found == []


def test_every_parameter_that_the_library_names_has_an_option() -> None:
    """As `name=value` in backticks, which users of the library can type."""
    settings = {found for text in library_files().values() for found in re.findall(r"`\w+=[^`\n]+`", text)}
    assert len(settings) >= 10
    assert {setting for setting in settings if _in_options(setting) == setting} == set()


def test_log_lines_name_options(superimages: Recorder) -> None:
    def warn(*arguments: object, **named: object) -> JobSummary:
        logging.getLogger("gridclip.engine").warning("the GPU is not used (on purpose: `num_gpus=%d`)", 0)
        return summary()

    superimages.result = warn
    assert "(on purpose: --num-gpus 0)" in run("superimages", "--video-dir", "v", "--save-dir", "s").stderr


def test_wrong_arguments_are_wrong_usage(superimages: Recorder) -> None:
    superimages.result = ArgumentError("`num_workers=0` must be >= 1")
    result = run("superimages", "--video-dir", "v", "--save-dir", "s")
    assert result.exit_code == 2
    assert "superimages [OPTIONS]" in result.stderr and "Error: --num-workers 0 must be >= 1" in result.stderr


def test_a_missing_package_is_named(superimages: Recorder) -> None:
    superimages.result = ModuleNotFoundError("No module named 'decord.bridge'", name="decord.bridge")
    result = run("superimages", "--video-dir", "v", "--save-dir", "s")
    assert result.exit_code == 1
    assert "decord is not installed" in result.stderr and "gridclip doctor" in result.stderr


def test_bugs_are_not_hidden(superimages: Recorder) -> None:
    superimages.result = ValueError("a bug")
    result = run("superimages", "--video-dir", "v", "--save-dir", "s")
    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), Interrupted(summary(done=2))])
def test_ctrl_c(superimages: Recorder, interrupt: KeyboardInterrupt) -> None:
    superimages.result = interrupt
    result = run("superimages", "--video-dir", "v", "--save-dir", "s")
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr
    assert ("embedded 2 videos" in result.stderr) == isinstance(interrupt, Interrupted)


def test_every_command_explains_itself() -> None:
    assert list(main.commands) == COMMANDS
    for command in COMMANDS:
        assert run(command, "--help").exit_code == 0
    for name in ("decode", "encode"):
        assert name in run("bench", "--help").output


def test_defaults_are_those_of_the_engine() -> None:
    context = click.Context(main)
    for name in ("plan", "superimages", "embed-videos"):
        defaults = {option.name: option.get_default(context) for option in main.commands[name].params}
        for setting in ("fps", "grid_size", "min_frames"):
            assert defaults[setting] == getattr(Sampling(), setting)
    defaults = {option.name: option.get_default(context) for option in main.commands["superimages"].params}
    assert defaults["super_img_size"] == Sampling().super_img_size


def test_help_imports_nothing_heavy() -> None:
    program = "import sys, gridclip.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(output.split())


def test_version() -> None:
    assert run("--version").output.strip().endswith(gridclip.__version__)


def test_the_installed_command() -> None:
    command = pathlib.Path(sys.executable).with_name("gridclip")
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert all(name in shown.stdout for name in COMMANDS)
    assert subprocess.run([command, "plan"], capture_output=True).returncode == 2
    failed = subprocess.run([command, "plan", "--video-dir", "/no/such/folder"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr == "Error: --video-dir /no/such/folder does not exist\n"
    assert failed.stdout == ""


def test_evaluate_of_predictions_needs_the_truth(tmp_path: pathlib.Path) -> None:
    record = '{"qid": 1, "query": "x", "vid": "a", "pred_relevant_windows": [[0, 4, 1]]}\n'
    truth = '{"qid": 1, "query": "x", "vid": "a", "relevant_windows": [[0, 4], [6, 8]]}\n'
    (tmp_path / "p.jsonl").write_text(record)
    (tmp_path / "a.jsonl").write_text(truth)
    files = ("evaluate", "--predictions", tmp_path / "p.jsonl")
    assert run(*files).exit_code == 2
    assert run(*files, "--anno-path", tmp_path / "a.jsonl", "--report", "r.html").exit_code == 2
    result = run(*files, "--anno-path", tmp_path / "a.jsonl", "--json", tmp_path / "e.json")
    assert result.exit_code == 0, result.output
    assert "mIoU 100.00" in result.output
    compared = run("compare", tmp_path / "e.json", tmp_path / "e.json")
    assert compared.exit_code == 0 and "the same" in compared.output
    assert run("compare", tmp_path / "e.json", tmp_path / "a.jsonl").exit_code == 1


def test_reproduce_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, encoder: Recorder) -> None:
    job = Recorder("the table").replace(monkeypatch, "gridclip.engine.evaluation.reproduction.activitynet")
    result = run(*"reproduce activitynet --video-dir v --anno-file a.json --super-img-size 224 --num-workers 3".split())
    assert result.exit_code == 0 and result.output == "the table\n"
    assert encoder.arguments["model"] == "ViT-L/14"
    assert job.arguments["work_dir"] == pathlib.Path("reproduce-activitynet")
    assert job.arguments["super_img_size"] == 224 and job.arguments["decoding"].num_workers == 3
    job = Recorder("the table").replace(monkeypatch, "gridclip.engine.evaluation.reproduction.grids")
    assert run(*"reproduce grids --video-dir v --anno-file a --grid-sizes 1,3 --work-dir w".split()).exit_code == 0
    assert job.arguments["grid_sizes"] == (1, 3)


def test_edit_lists(superimages: Recorder) -> None:
    assert run(*"superimages --video-dir v --save-dir s --edit-lists ignore".split()).exit_code == 0
    assert superimages.arguments["sampling"] == Sampling(edit_lists="ignore")
    refused = run(*"superimages --video-dir v --save-dir s --edit-lists ignore --sampling time".split())
    assert refused.exit_code == 2 and "hidden ones have no time" in " ".join(refused.output.split())


def test_decode(superimages: Recorder) -> None:
    assert run(*"superimages --video-dir v --save-dir s --decode fast".split()).exit_code == 0
    assert superimages.arguments["sampling"] == Sampling(decode="fast")
    assert run(*"superimages --video-dir v --save-dir s --decode quick".split()).exit_code == 2
