"""The gridclip command: click options in, calls of the library's face out, its results and errors as lines of text.

Nothing is decided here: names and defaults are those of engine/choices.py, and what is wrong is found by the library,
whose messages name its parameters; here they get the names of the options (see `_in_options`). Every command imports
what it calls when it is called, so that `gridclip --help` is there at once.
"""

from __future__ import annotations

import functools
import importlib
import inspect as inspect_module
import io
import json
import logging
import math
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
import gridclip

from .dali_pipes.places import is_url
from .engine import choices

if TYPE_CHECKING:
    from .dali_pipes.sampling import Sampling
    from .engine.jobs.progress import JobSummary

Command = TypeVar("Command", bound=Callable[..., Any])

INTERRUPTED = 130


class _Commands(click.Group):
    """The commands in the order of the work, and the one place where exceptions become messages and exit statuses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            summary = getattr(interrupt, "summary", None)  # of a job: see engine.jobs.progress.Interrupted
            click.echo(f"Interrupted: {summary}; go on with --resume" if summary else "Interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            raise
        except ModuleNotFoundError as error:
            missing = (error.name or "").split(".")[0]
            if missing in ("", __package__):
                raise
            raise click.ClickException(f"{missing} is not installed: `gridclip doctor` says how to get it") from error
        except MemoryError as error:
            raise click.ClickException(
                f"there is not enough memory ({str(error) or 'no more is given'}): give the "
                "command more, or less to do at once"
            ) from error
        except (gridclip.GridClipError, OSError) as error:
            logging.getLogger(__name__).debug("", exc_info=True)
            command = self.commands.get(ctx.invoked_subcommand or "", self)
            message = _in_options(str(error), command)
            if isinstance(error, gridclip.ArgumentError):
                raise click.UsageError(message, click.Context(command, ctx, ctx.invoked_subcommand)) from error
            raise click.ClickException(message) from error


_PARAMETER = re.compile(r"`(\w+)(?:=([^`]*))?`")


def _in_options(message: str, command: click.Command | None = None) -> str:
    """A message of the library with the names of options for those of parameters, which it has in backticks.

    `resume=True` becomes --resume, `decoder='pyav'` --decoder pyav, and `store` --store. What is no option stays.

    Args:
        message: a line.
        command: whose options come first; options of one name may be spelled in several ways.
    """
    options: dict[str | None, str] = {"to_json": "--json"}  # for what a plan does not show
    for each in (*main.commands.values(), *([command] if command else [])):
        options |= {option.name: option.opts[0] for option in each.params if option.opts[0].startswith("--")}

    def spell(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in options:
            return found.group()
        return options[name] if value in (None, "True") else f"{options[name]} {value.strip(chr(34) + chr(39))}"

    return _PARAMETER.sub(spell, message)


class _LogLines(logging.Handler):
    """Log lines on standard error, above the progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        progress = sys.modules.get(f"{__package__}.engine.jobs.progress")
        if progress is None:
            click.echo(_in_options(self.format(record)), err=True)
        else:
            progress.console.print(_in_options(self.format(record)), markup=False, highlight=False, soft_wrap=True)


# The scripts of the original procedure spell their options with underscores.
@click.group(
    cls=_Commands,
    context_settings={
        "token_normalize_func": lambda name: name.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
        "show_default": True,
    },
)
@click.version_option(gridclip.__version__, prog_name="gridclip")
@click.option("-v", "--verbose", count=True, show_default=False, help="Say more (-v), or everything (-vv).")
def main(verbose: int) -> None:
    """From a folder of videos to ranked answers for a sentence.

    Long commands end with one summary line and write failures.jsonl beside their output. Exit status: 0 when something
    succeeded, 1 when nothing did (with --strict: when anything failed), 2 for wrong usage.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a path in a summary need not be Unicode text
    logging.basicConfig(format="%(levelname)s: %(message)s", handlers=[_LogLines()], force=True)
    logging.getLogger(__package__).setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a scheduler sends ends a job as Ctrl-C does


class _FiniteRange(click.FloatRange):
    """A number in a range; nan, inf and what is too large for a number are refused, open ranges or not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class _Numbers(click.ParamType):  # type: ignore[type-arg]  # a generic class in newer versions only
    """Comma-separated whole numbers >= 1."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            numbers = [int(part) for part in value.split(",")]
        except ValueError:
            numbers = []
        if not numbers or min(numbers) < 1:
            self.fail(f"{value!r} is not a list of numbers >= 1, such as 1,5,10", param, ctx)
        return numbers


class _LocalPath(click.Path):
    """A path on this machine; one that cannot be there is checked by the engine, whose messages say more."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and is_url(value):
            self.fail(
                f"{value} is a URL, expected a path: only --video-dir of plan, superimages and embed-videos takes URLs",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


# Options that several commands have.
_PATH = _LocalPath(path_type=pathlib.Path)


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_MODEL_HELP = "A model folder, or what `gridclip export` takes: then exported once into the cache folder."
_tokenizer = click.option(
    "--tokenizer", type=_PATH, help="Vocabulary: tokenizer.json or bpe_simple_vocab_16e6.txt.gz, or a folder."
)
_model = _options(
    click.option("--model", "--model-path", "--ckpt", required=True, metavar="MODEL", help=_MODEL_HELP), _tokenizer
)
_noted_model = _options(
    click.option(
        "--model",
        "--model-path",
        "--ckpt",
        metavar="MODEL",
        show_default="that of the last embed-text in this folder",
        help=_MODEL_HELP,
    ),
    _tokenizer,
)
_VIDEO_DIR_HELP = (
    "A folder of videos, searched with its subfolders; or a text file of their paths, a tar or a folder of tars "
    "(WebDataset), or a URL: s3://, gs://, hf://, https://."
)
# Text, for a path object would make one slash of the two in a URL.
_video_dir = click.option("--video-dir", required=True, metavar="PATH|URL", help=_VIDEO_DIR_HELP)
_store = click.option("--store", type=_PATH, default=choices.STORE, help="The folder of the embeddings.")
_anno_file = click.option(
    "--anno-file",
    "--anno-path",
    type=_PATH,
    help="Annotations: ActivityNet, TVR, QVHighlights, Charades-STA or MS-SL, by content; or WebDataset tars.",
)
_sampling = _options(
    click.option(
        "--fps", type=_FiniteRange(min=0, min_open=True), default=choices.FPS, help="Wanted frames per second."
    ),
    click.option(
        "--grid-size",
        type=_Numbers(),
        default=choices.GRID_SIZE,
        help="Cells per row of a super image. Several (1,2): every frame is decoded once and laid out in each.",
    ),
    click.option(
        "--stride",
        type=click.IntRange(min=1),
        show_default="as many as a super image has cells",
        help="Frames from the start of one super image to that of the next; fewer make them overlap.",
    ),
    click.option(
        "--min-frames",
        type=click.IntRange(0, 1),
        default=choices.MIN_FRAMES,
        help="1: a video shorter than one period gives its first frame; 0: it counts as failed.",
    ),
)


_cells = click.option(
    "--cells/--no-cells",
    default=choices.CELLS,
    show_default="as the store has it; in a new one, on where the model can",
    help="Also store a vector of each frame, from its cell, in the same pass: moments begin and end at frames.",
)
_view = _options(
    click.option(
        "--level",
        type=click.Choice(choices.LEVELS),
        show_default="cell where the store has them",
        help="Vectors of super images, or of the frames in their cells (see --cells of embed-videos).",
    ),
    click.option(
        "--grid-size",
        type=click.IntRange(min=1),
        show_default="the finest of the store",
        help="Cells per row of the super images, where the store has several grid sizes.",
    ),
)


_index = click.option(
    "--index",
    type=click.Choice(choices.INDEX_MODES),
    default=choices.INDEX,
    help="Score every video (exact), or those that `gridclip index` made findable (ann). auto: by the store's size.",
)


class _Mode(click.Choice[str]):
    """How wanted frames are found. `frames` was called `exact`."""

    def __init__(self) -> None:
        super().__init__(choices.SAMPLING_MODES)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert("frames" if value == "exact" else value, param, ctx)


_mode = click.option(
    "--sampling",
    "mode",
    type=_Mode(),
    default=choices.SAMPLING_MODE,
    help="frames: evenly spaced by count, as the reference does. keyframes: each of them moves to the nearest keyframe "
    "within --max-shift; faster, not exact. time: what is shown every 1/fps seconds by time stamps, for variable frame "
    "rates.",
)
_edit_lists = click.option(
    "--edit-lists",
    type=click.Choice(choices.EDIT_LIST_RULES),
    default=choices.EDIT_LISTS,
    help="apply: the frames of a video are those that a player shows; ignore: frames that an edit list hides count, "
    "too, as decord (and so the reference) counts them.",
)
_keyframes = _options(
    _mode,
    _edit_lists,
    click.option(
        "--decode",
        type=click.Choice(choices.DECODE_MODES),
        default=choices.DECODE,
        help="fast: leaves out the loop filter but in keyframes, by PyAV on the CPU; faster, not exact.",
    ),
    click.option(
        "--max-shift",
        "max_shift_s",
        type=_FiniteRange(min=0),
        show_default=f"{choices.MAX_SHIFT_S} with --sampling keyframes",
        help="Seconds by which a frame may move.",
    ),
)


def _exclusive(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """For --overwrite, which is read after --resume."""
    if value and ctx.params.get("resume"):
        raise click.UsageError("--resume and --overwrite exclude each other", ctx)
    return value


def _only_one(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> str:
    """For an option that may be repeated elsewhere."""
    if len(values) > 1:
        raise click.BadParameter(
            f"{ctx.command.name} takes one, not {len(values)}: write a script for each model, with its own --store",
            ctx,
            parameter,
        )
    return values[0]


_resume = _options(
    click.option("--resume", is_flag=True, is_eager=True, help="Leave out what an earlier run has finished."),
    click.option("--overwrite", is_flag=True, callback=_exclusive, help="Do everything again."),
)
_watched = _options(
    click.option(
        "--retry-failed",
        is_flag=False,
        flag_value=choices.ANY_STAGE,
        type=click.Choice(choices.RETRIED_STAGES),
        metavar="[STAGE]",
        help="Do only what failed before, according to failures.jsonl: at STAGE (open, decode, ...), or at any.",
    ),
    click.option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        help="Show Prometheus how the job gets on, at this port (0: any free one).",
    ),
    click.option("--metrics-host", default=choices.METRICS_HOST, help="The address of --metrics-port."),
)
_on_cluster = _options(
    click.option(
        "--cluster",
        metavar="auto|ADDRESS",
        help="Work on a Ray cluster (auto: that of this machine), a worker for each GPU; without GPUs on its cores.",
    ),
    click.option(
        "--cpus-per-worker",
        type=click.IntRange(min=1),
        show_default="a node's cores, shared out among its GPUs",
        help="Cores, and worker processes, of each worker of a cluster.",
    ),
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done; nothing is written.")
_num_workers = click.option(
    "--num-workers",
    "--num-worker",
    type=click.IntRange(min=1),
    show_default="one per CPU core",
    help="Decoding processes.",
)
_num_gpus = click.option(
    "--num-gpus",
    type=click.IntRange(min=0),
    default=choices.NUM_GPUS,
    help="0: the CPU; 1: a GPU where ONNX Runtime has one.",
)
_several_gpus = click.option(
    "--num-gpus",
    type=click.IntRange(min=0),
    default=choices.NUM_GPUS,
    help="0: the CPU; 1: a GPU where ONNX Runtime has one; more: a process for each, one queue, one store.",
)
_provider = _options(
    click.option(
        "--provider",
        type=click.Choice(choices.PROVIDERS),
        default=choices.PROVIDER,
        help="Where ONNX Runtime runs the model; tensorrt is only taken when named.",
    ),
    click.option("--cuda-graph", is_flag=True, help="Record the GPU's work of a batch once and replay it."),
)
_decoder = click.option(
    "--decoder",
    type=click.Choice(choices.DECODERS),
    default=choices.DECODER,
    help="dali: NVDEC (without a GPU: DALI's CPU decoders); hybrid: NVDEC and the worker processes; "
    "auto: hybrid where there are a GPU and DALI, else pyav.",
)
_batch_size = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    show_default=f"{choices.GPU_BATCH_SIZE} on a GPU, {choices.CPU_BATCH_SIZE} on the CPU",
    help="Super images per pass.",
)
_time_limit = click.option(
    "--time-limit",
    "time_limit_s",
    type=_FiniteRange(min=0, min_open=True),
    default=choices.TIME_LIMIT_S,
    help="Seconds without a result after which a decoder counts as hung.",
)
_on_damage = click.option(
    "--on-damage",
    type=click.Choice(choices.DAMAGE_RULES),
    default=choices.ON_DAMAGE,
    help="Where a wanted frame cannot be decoded: nearest: the nearest one that can, at most 1/fps seconds away, is "
    "taken, with a notice; a video that has lost more than a tenth of them fails. fail: one is enough to fail.",
)
_strict = click.option("--strict", is_flag=True, help="Exit with status 1 when anything failed.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_scoring = _options(
    click.option(
        "--aggregate",
        type=click.Choice(choices.AGGREGATES),
        default=choices.AGGREGATE,
        help="How the super images of a video make its score.",
    ),
    click.option(
        "--temperature",
        type=_FiniteRange(min=0, min_open=True),
        default=choices.TEMPERATURE,
        help="Of the softmax; smaller ones look more at the best super image.",
    ),
)


@main.command()
@click.option("--model", type=_PATH, help="A model folder: also say which kernels its attention runs on a GPU.")
@_as_json
def doctor(model: pathlib.Path | None, as_json: bool) -> None:
    """Say what this machine has and what is missing.

    For every stage of the work: which path it takes here, and why not the GPU's. And how to get what is missing.
    """
    from .engine.doctor import doctor, text

    report = doctor.examine(model)
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else _in_options(text.as_text(report)))
    if not report.healthy:
        sys.exit(1)


@main.command()
@click.option("--video-dir", metavar="PATH|URL", help=f"{_VIDEO_DIR_HELP} Packets are read, nothing is decoded.")
@click.option("--video-info", type=_PATH, help="Or a JSON file with the videos' frame counts and rates.")
@_anno_file
@click.option(
    "--exclude",
    multiple=True,
    metavar="ID|FILE",
    help="A video to leave out, or a file with one id per line. May be repeated.",
)
@_sampling
@_mode
@_edit_lists
@_num_workers
@click.option(
    "--cards", type=click.IntRange(min=1), help="Also say what so many GPUs would take: hours, bytes, what bounds."
)
@click.option("--card", type=click.Choice(choices.CARDS), default=choices.CARDS[0], help="Their kind.")
@click.option(
    "--videos",
    "count",
    type=click.IntRange(min=1),
    help="For --cards: so many videos, like those that are counted, or of 2 minutes each.",
)
@click.option("--super-img-size", type=click.IntRange(min=1), default=choices.SUPER_IMG_SIZE, help="For --cards.")
@_as_json
def plan(
    fps: float,
    grid_size: Sequence[int],
    stride: int | None,
    min_frames: int,
    mode: choices.SamplingMode,
    edit_lists: choices.EditLists,
    cards: int | None,
    card: str,
    count: int | None,
    super_img_size: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Say how big a job is before it runs.

    Counts videos, wanted frames, super images and queries; nothing is decoded. With --cards it says how long it would
    take, and from which numbers that follows; then --videos alone is enough.
    """
    from .engine.planning import forecast
    from .engine.planning.plan import as_text

    sampling = _make_sampling(
        mode,
        None,
        fps=fps,
        grid_size=grid_size,
        stride=stride,
        min_frames=min_frames,
        edit_lists=edit_lists,
        super_img_size=super_img_size,
    )
    folder = options["video_dir"]
    alone = cards is not None and count is not None and folder is None and options["video_info"] is None
    found = None if alone else gridclip.plan(sampling=sampling, **options)
    shown: dict[str, Any] = {} if found is None else found.to_json()
    lines = [] if found is None else [as_text(found)]
    if cards is not None and (found is None or found.videos):
        size = forecast.measure_bytes(folder) if folder is not None and not options["anno_file"] else None
        takes = forecast.forecast(found, sampling, card=card, cards=cards, videos=count, video_bytes=size)
        shown["forecast"] = takes.to_json()
        lines.append(str(takes))
    click.echo(json.dumps(shown, indent=2) if as_json else _in_options("\n".join(lines)))
    if found is not None and not found.videos:
        sys.exit(1)


@main.command()
@click.argument("video", type=_PATH)
@click.option("--fps", type=_FiniteRange(min=0, min_open=True), default=0.5, help="Wanted frames per second.")
@_edit_lists
@_as_json
def inspect(video: pathlib.Path, fps: float, edit_lists: choices.EditLists, as_json: bool) -> None:
    """Say why decoding VIDEO costs what it costs.

    Its packets by kind, its GOPs, what is decoded for its wanted frames and why not less. Nothing is decoded.
    """
    from .engine.inspection.inspection import inspect_video
    from .engine.inspection.text import as_text

    found = inspect_video(
        video, _make_sampling("frames", None, fps=fps, edit_lists=edit_lists), max_shift_s=choices.MAX_SHIFT_S
    )
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else _in_options(as_text(found)))


@main.command()
@click.option("--download", multiple=True, metavar="NAME", help="Bring this model into the cache. May be repeated.")
@_as_json
def models(download: tuple[str, ...], as_json: bool) -> None:
    """List the models that are known, and those in the cache; or download some.

    A download that broke off goes on where it ended, and every file must have its checksum. `--model NAME` and
    `gridclip export NAME` take the model from the cache, or download it first.
    """
    for name in download:
        path = gridclip.download_model(name)
        click.echo(f"{name}: {path}", err=as_json)
    if download and not as_json:
        return
    found = gridclip.list_models()
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else str(found))


@main.command()
@click.argument("model")
@click.option("--out", type=_PATH, required=True, help="The model folder to write.")
@click.option("--image-size", type=click.IntRange(min=1), show_default="the model's", help="Side of its images, px.")
@click.option("--context-length", type=click.IntRange(min=3), show_default="the model's", help="Longest text, tokens.")
@click.option(
    "--precision",
    type=click.Choice(choices.PRECISIONS),
    default=choices.PRECISION,
    help="fp16 is for GPUs, int8 for CPUs.",
)
@_tokenizer
@click.option(
    "--activation",
    type=click.Choice([name.replace("_", "-") for name in choices.ACTIVATIONS]),
    help="For checkpoints that do not say.",
)
@click.option("--verify/--no-verify", default=True, help="Compare the graphs with torch and fail where they differ.")
def export(model: str, out: pathlib.Path, activation: str | None, verify: bool, **options: Any) -> None:
    """Write a model folder from a checkpoint of CLIP, SigLIP, SigLIP 2, PE-Core, EVA02-CLIP or MetaCLIP 2.

    MODEL is a name that `gridclip models` lists (downloaded, checksum checked), or the path of an OpenAI archive or
    state dict, an open_clip file, a PE-Core, EVA02-CLIP or MetaCLIP 2 file, or a Hugging Face folder of CLIP, SigLIP or
    MetaCLIP 2.
    """
    options["activation"] = activation and activation.replace("-", "_")
    info = gridclip.export_model(model, out, verify=verify, **options)
    fused = info.fused_attention or {}
    click.echo(
        f"{out}: {info.name}, {info.precision}, {info.image_size} pixels, {info.context_length} tokens, "
        f"{info.embed_dim} wide, fused attention nodes: {fused['image']} (image), {fused['text']} (text)"
    )
    if info.smallest_cosine is not None:
        cosines = ", ".join(f"{value:.6f} ({graph})" for graph, value in info.smallest_cosine.items())
        click.echo(f"smallest cosine between ONNX and torch: {cosines}")


@main.command()
@_video_dir
@_anno_file
@click.option("--save-dir", type=_PATH, required=True, help="Gets <video id>/img_0001.jpg ...")
@_sampling
@_keyframes
@click.option(
    "--super-img-size",
    type=click.IntRange(min=1),
    default=choices.SUPER_IMG_SIZE,
    help="Side of a super image in pixels.",
)
@_num_workers
@_decoder
@_on_damage
@_time_limit
@_resume
@_watched
@_dry_run
@_on_cluster
@_strict
def superimages(
    video_dir: str,
    save_dir: pathlib.Path,
    fps: float,
    grid_size: Sequence[int],
    stride: int | None,
    super_img_size: int,
    min_frames: int,
    mode: choices.SamplingMode,
    edit_lists: choices.EditLists,
    decode: choices.Decode,
    max_shift_s: float | None,
    dry_run: bool,
    strict: bool,
    **options: Any,
) -> None:
    """Write super images of videos as JPEG files.

    With several grid sizes those of each lie in a folder of their own: SAVE_DIR/grid_1/<video id>/img_0001.jpg ...
    """
    from .dali_pipes.image_folders.grids import folders
    from .engine.jobs import handover

    sampling = _make_sampling(
        mode,
        max_shift_s,
        fps=fps,
        grid_size=grid_size,
        stride=stride,
        super_img_size=super_img_size,
        min_frames=min_frames,
        edit_lists=edit_lists,
        decode=decode,
    )
    if dry_run:
        _say_what_would_be_done("of_superimages", video_dir, save_dir, sampling, **options)
        return
    summary = gridclip.superimages(video_dir, save_dir, sampling=sampling, **options)
    if summary.succeeded:
        handover.note(image_dir=next(iter(folders(save_dir, sampling))))
    _finish(summary, strict)


@main.command()
@_model
@click.option(
    "--anno-path",
    "--anno-file",
    type=_PATH,
    required=True,
    help="The annotation file with the captions, or WebDataset tars.",
)
@_store
@click.option("--batch-size", type=click.IntRange(min=1), default=choices.TEXT_BATCH_SIZE, help="Captions per pass.")
@click.option(
    "--max-text-length",
    type=click.IntRange(min=3),
    show_default="the model's, 77 for CLIP",
    help="Most tokens of a caption; longer ones are cut, the end token is kept.",
)
@click.option("--max-chars", type=click.IntRange(min=1), help="First cut captions to so many characters.")
@_num_gpus
@_strict
def embed_text(
    model: str,
    tokenizer: pathlib.Path | None,
    anno_path: pathlib.Path,
    store: pathlib.Path,
    num_gpus: int,
    strict: bool,
    **options: Any,
) -> None:
    """Embed the captions of a file into a store."""
    from .engine.jobs import handover

    encoder = gridclip.load_model(model, num_gpus=num_gpus, tokenizer=tokenizer)
    summary = gridclip.embed_text(encoder, anno_path, store, **options)
    handover.note(model=model)
    _finish(summary, strict)


@main.command()
@_noted_model
@click.option(
    "--image-dir",
    type=_PATH,
    show_default="that of the last superimages in this folder",
    help="What `gridclip superimages` was given as --save-dir.",
)
@_store
@_batch_size
@_several_gpus
@_provider
@click.option(
    "--num-workers",
    "--num-worker",
    type=click.IntRange(min=1),
    show_default=str(choices.IMAGE_WORKERS),
    help="Reading processes.",
)
@click.option("--image-size", type=click.IntRange(min=1), show_default="the model's", help="Side of its images, px.")
@_cells
@_time_limit
@_resume
@_watched
@_dry_run
@_on_cluster
@_strict
def embed_images(
    model: str | None,
    tokenizer: pathlib.Path | None,
    image_dir: pathlib.Path | None,
    store: pathlib.Path,
    num_gpus: int,
    provider: choices.Provider,
    cuda_graph: bool,
    image_size: int | None,
    dry_run: bool,
    strict: bool,
    **options: Any,
) -> None:
    """Embed JPEG super images into a store."""
    from .engine.jobs import handover

    folder = image_dir or pathlib.Path(handover.noted("image_dir", "--image-dir", "gridclip superimages"))
    if dry_run:
        _say_what_would_be_done("of_embed_images", folder, store, **options)
        return
    encoder = gridclip.load_model(
        model or handover.noted("model", "--model", "gridclip embed-text"),
        num_gpus=num_gpus,
        provider=provider,
        cuda_graph=cuda_graph,
        image_size=image_size,
        tokenizer=tokenizer,
    )
    if provider == "cpu":
        num_gpus = 0  # also those of a cluster
    _finish(gridclip.embed_images(encoder, folder, store, num_gpus=num_gpus, **options), strict)


@main.command()
@click.option(
    "--model",
    "--model-path",
    "--ckpt",
    required=True,
    multiple=True,
    metavar="MODEL",
    help=f"{_MODEL_HELP} May be repeated, with a --store for each: every video is decoded once for all of them.",
)
@_tokenizer
@_video_dir
@_anno_file
@click.option(
    "--store",
    type=_PATH,
    default=[choices.STORE],
    multiple=True,
    help="The folder of the embeddings; as many as models, in the same order.",
)
@_sampling
@_keyframes
@click.option(
    "--super-img-size",
    type=click.IntRange(min=1),
    show_default="the model's image size",
    help="Side of a super image in pixels; resized where the model's image size differs.",
)
@_cells
@_batch_size
@_decoder
@_on_damage
@_several_gpus
@_provider
@_num_workers
@_time_limit
@_resume
@_watched
@_dry_run
@click.option("--num-shards", type=click.IntRange(min=1), default=1, help="Jobs that share the work and the store.")
@click.option("--shard-id", type=click.IntRange(min=0), default=0, help="Which of them this one is, from 0.")
@_on_cluster
@_strict
def embed_videos(
    model: Sequence[str],
    tokenizer: pathlib.Path | None,
    video_dir: str,
    store: Sequence[pathlib.Path],
    fps: float,
    grid_size: Sequence[int],
    stride: int | None,
    super_img_size: int | None,
    min_frames: int,
    mode: choices.SamplingMode,
    edit_lists: choices.EditLists,
    decode: choices.Decode,
    max_shift_s: float | None,
    num_gpus: int,
    provider: choices.Provider,
    cuda_graph: bool,
    dry_run: bool,
    strict: bool,
    **options: Any,
) -> None:
    """Embed videos into a store, without JPEG files.

    Several models (--model A --model B --store SA --store SB) embed the same decoded frames, each into its own store;
    one that fails leaves the stores of the others as they are.
    """
    settings: dict[str, Any] = {
        "fps": fps,
        "grid_size": grid_size,
        "stride": stride,
        "min_frames": min_frames,
        "edit_lists": edit_lists,
        "decode": decode,
    }
    from .engine.jobs.several_models import check_counts

    if provider == "cpu":
        num_gpus = 0  # also those of a cluster
    check_counts(len(model), store, num_gpus=num_gpus, cluster=options["cluster"])
    if dry_run:
        sampling = _make_sampling(mode, max_shift_s, **settings)
        _say_what_would_be_done("of_embed_videos_into", video_dir, store, sampling, **options)
        return
    if tokenizer is not None and len(model) > 1:
        raise click.UsageError(
            "--tokenizer is the vocabulary of one model: run gridclip export for each model first, and give the folders"
        )
    encoders = [
        gridclip.load_model(each, num_gpus=num_gpus, provider=provider, cuda_graph=cuda_graph, tokenizer=tokenizer)
        for each in model
    ]
    samplings = [
        _make_sampling(mode, max_shift_s, super_img_size=super_img_size or encoder.info.image_size, **settings)
        for encoder in encoders
    ]
    done = gridclip.embed_videos(encoders, video_dir, store, sampling=samplings, num_gpus=num_gpus, **options)
    _finish(done, strict)


_refine = _options(
    click.option(
        "--refine",
        metavar="N",
        type=click.IntRange(min=1),
        show_default="no",
        help="For stores of a coarse grid: decode the N best videos again around their best moments, one frame a pass. "
        "Needs --video-dir.",
    ),
    click.option(
        "--refine-cache",
        "refine_cache_frames",
        metavar="FRAMES",
        type=click.IntRange(min=0),
        default=choices.REFINE_CACHE_FRAMES,
        help="With --refine: so many frames at most are kept beside the store for the next query.",
    ),
)


class _Sweep(click.ParamType):  # type: ignore[type-arg]  # a generic class in newer versions only
    """A setting and the values to try, such as temperature=1,0.1."""

    name = "SETTING=VALUE,VALUE,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        setting, _, listed = value.partition("=")
        values = [part for part in listed.split(",") if part]
        numbers = _FiniteRange(min=0, min_open=True)
        kinds: dict[str, Any] = {"temperature": numbers, "aggregate": click.Choice(choices.AGGREGATES)}
        if setting not in kinds or not values:
            self.fail(f"{value!r} is not a setting and its values, such as temperature=1,0.1", param, ctx)
        return setting, [kinds[setting].convert(part, param, ctx) for part in values]


@main.command()
@_store
@click.option(
    "--anno-path",
    "--anno-file",
    "anno_file",
    type=_PATH,
    help="Only the captions of this annotation file, and only its videos as candidates.  [default: all of the store]",
)
@_scoring
@_view
@click.option(
    "--topk", type=_Numbers(), metavar="K,K,...", default=",".join(map(str, choices.TOPK)), help="The K of R@K."
)
@click.option(
    "--missing",
    type=click.Choice(choices.MISSING_RULES),
    default=choices.MISSING,
    help="What becomes of captions whose video has no embeddings.",
)
@click.option(
    "--moments",
    is_flag=True,
    help="Also measure moments, for captions with times: R@K at IoU 0.3, 0.5 and 0.7 in the own video and in all "
    "videos, mean IoU, mAP, and what the sampling allows at most.",
)
@click.option(
    "--beside",
    type=click.Choice(choices.BENCHMARKS),
    help="Also print what others have published on this benchmark, with the source of each.",
)
@click.option(
    "--sweep",
    type=_Sweep(),
    multiple=True,
    help="Also print the recall with other settings, from the same pass: temperature=1,0.3,0.1, aggregate=max,windows.",
)
@click.option(
    "--normalise",
    type=click.Choice(choices.NORMALISATIONS),
    default=choices.NORMALISATION,
    help="Against videos that are near to every caption. sinkhorn sees all captions together (transductive).",
)
@click.option(
    "--query-bank",
    type=_PATH,
    help="For qb-norm: a store with other captions, or an npz with `embedding` [B, D].",
)
@_refine
@click.option("--model", "--model-path", "--ckpt", metavar="MODEL", show_default="none", help="For --refine.")
@click.option("--json", "json_file", type=_PATH, help="Write the numbers to this file, too.")
@click.option(
    "--report",
    type=_PATH,
    help="Write one HTML page to this file: recall, ranks, where it is lost, and the hardest queries.",
)
@click.option(
    "--video-dir", type=_PATH, help="The videos: for --refine, or for pictures of super images in the report."
)
@click.option("--image-dir", type=_PATH, help="Or what `gridclip superimages` wrote, for the same.")
@click.option(
    "--write-predictions",
    type=_PATH,
    help="Write the ranked moments to this file: QVHighlights' JSON lines where it ends in .jsonl, else TVRetrieval's "
    "JSON. With --anno-path queries go by the file's own numbers. Implies --moments.",
)
@click.option(
    "--predictions",
    type=_PATH,
    help="Evaluate the moments in this file, of either format, instead of a store: needs --anno-path.",
)
def evaluate(
    store: pathlib.Path,
    json_file: pathlib.Path | None,
    report: pathlib.Path | None,
    write_predictions: pathlib.Path | None,
    predictions: pathlib.Path | None,
    moments: bool,
    beside: str | None,
    sweep: tuple[tuple[str, list[Any]], ...],
    video_dir: pathlib.Path | None,
    image_dir: pathlib.Path | None,
    **options: Any,
) -> None:
    """Print the recall of a store: its captions against its videos."""
    from .engine.evaluation import published
    from .engine.evaluation.outcomes import as_text
    from .engine.report.page import write_report
    from .engine.report.pictures import choose_pictures

    if predictions is not None:
        if options["anno_file"] is None:
            raise click.UsageError("--predictions needs --anno-path: the true moments are there")
        if report or write_predictions or beside or options["refine"]:
            raise click.UsageError(
                "--report, --write-predictions, --beside and --refine need a store: leave out --predictions"
            )
        found = gridclip.evaluate_predictions(predictions, options["anno_file"], topk=options["topk"])
        click.echo(str(found))
        if json_file:
            _write_text(json_file, as_text(found.to_json()))
        return
    if (image_dir or (video_dir and not options["refine"])) and not report:
        raise click.UsageError("--video-dir and --image-dir are for the pictures of --report")
    options["video_dir"] = video_dir if options["refine"] else None
    options["moments"] = moments or write_predictions is not None
    options["sweep"] = {
        name: [value for other, values in sweep if other == name for value in values] for name, _ in sweep
    }
    result = gridclip.evaluate(store, examples=choices.REPORT_EXAMPLES if report else 0, **options)
    click.echo(str(result))
    if beside:
        own = {f"this store, {result.scoring}": result.sum_over(published.SUM_CUTOFFS)}
        click.echo("\n" + published.as_text(beside, own))
    if json_file:
        figures = {"beside": published.to_json(beside)} if beside else {}
        _write_text(json_file, as_text({**result.to_json(), **figures}))
    if write_predictions:
        result.write_predictions(write_predictions)
    if report:
        pictures = choose_pictures(video_dir, image_dir, result.sampling, result.view)
        write_report(result, report, beside=beside, pictures=pictures)


@main.command()
@click.argument("first", metavar="A.json", type=_PATH)
@click.argument("second", metavar="B.json", type=_PATH)
@click.option(
    "--other-queries",
    type=click.Choice(choices.OTHER_QUERY_RULES),
    default=choices.OTHER_QUERIES,
    help="What becomes of queries that only one of the two has.",
)
@_as_json
def compare(first: pathlib.Path, second: pathlib.Path, as_json: bool, **options: Any) -> None:
    """Say whether two evaluations differ beyond chance.

    A.json and B.json are what `gridclip evaluate --json` has written, of the same queries: paired bootstrap.
    """
    found = gridclip.compare(first, second, **options)
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else str(found))


@main.command()
@_store
@_view
@_as_json
def index(store: pathlib.Path, as_json: bool, **options: Any) -> None:
    """Make a large store's videos findable without reading all of it.

    Lance's own index of the videos' means and of all super images. `search` and `serve` take the best videos from it
    and score them exactly. Videos that come later are all scored, until the command is run again, which adds only them.
    """
    os.environ.setdefault("LANCE_LOG", "error")  # Lance warns of clusters without vectors, which do no harm here
    found = gridclip.index(store, **options)
    click.echo(json.dumps(found.to_json()) if as_json else str(found))


@main.command()
@click.argument("sentence", required=False)
@_store
@_model
@click.option("--then", multiple=True, metavar="SENTENCE", help="What comes after SENTENCE. May be repeated.")
@click.option("--not", "unwanted", multiple=True, metavar="SENTENCE", help="What counts against a video. Repeatable.")
@click.option("--image", type=_PATH, help="A picture to search for, in place of SENTENCE or before it.")
@click.option("--top", type=click.IntRange(min=1), default=choices.TOP, help="Videos to print.")
@click.option("--moments", type=click.IntRange(min=1), default=1, help="Moments of each video to print.")
@_scoring
@_view
@_index
@click.option(
    "--video-dir",
    metavar="PATH|URL",
    help="The videos, as for embed-videos, for links to them (in terminals that have them) and clips.",
)
@click.option("--clip-dir", type=_PATH, help="Write the moments that are printed to this folder, as clips (MP4).")
@_refine
@_as_json
@_num_gpus
def search(
    sentence: str | None,
    store: pathlib.Path,
    model: str,
    tokenizer: pathlib.Path | None,
    then: tuple[str, ...],
    unwanted: tuple[str, ...],
    image: pathlib.Path | None,
    top: int,
    moments: int,
    video_dir: str | None,
    clip_dir: pathlib.Path | None,
    refine: int | None,
    refine_cache_frames: int,
    as_json: bool,
    num_gpus: int,
    **options: Any,
) -> None:
    """Print the best videos and moments for SENTENCE.

    With --then, videos that show one thing after the other: the mean of the cosines of the best moments in that order.
    With --not, the score of what is not wanted is taken off. SENTENCE may be `-`: every line of standard input is one.
    A model with sigmoid loss (SigLIP) also says how probably the video's best super image matches the sentence.
    """
    from .engine.search import files as search_files
    from .engine.search import questions
    from .engine.search import text as search_text
    from .engine.search.matches import match_probabilities
    from .engine.search.search import Searcher

    if clip_dir is not None and video_dir is None:
        raise click.UsageError("--clip-dir needs --video-dir, the videos to cut")
    if refine is not None and video_dir is None:
        raise click.UsageError("--refine needs --video-dir, the videos to look at again")
    firsts = [[sentence]] if sentence not in (None, "-") else [[]]
    if sentence == "-":
        firsts = [[line] for line in sys.stdin.read().splitlines() if line.strip()]
    asked = [questions.Question([*first, *then], unwanted, image) for first in firsts]
    opened = gridclip.Store.open(store)  # where there is none, no checkpoint is exported for it
    encoder = gridclip.load_model(model, num_gpus=num_gpus, tokenizer=tokenizer)
    opened.require_model(encoder.info.to_json())
    searcher = Searcher(opened, **options)
    refiner, answer = None, questions.answer
    if refine is not None and video_dir is not None:
        from .engine.refinement.refiner import Refiner, Refining, answer_refined

        refiner = Refiner(opened, searcher.view, Refining(refine, video_dir, encoder, refine_cache_frames))
        answer = functools.partial(answer_refined, refiner)
    style = search_text.TERMINAL if sys.stdout.isatty() and not as_json else search_text.PLAIN
    for question in asked:
        hits = answer(searcher, encoder, question, top=top, moments=moments)
        videos = search_files.find_videos(video_dir, hits) if video_dir else {}
        clips = search_files.write_clips(hits, videos, clip_dir) if clip_dir else {}
        files = search_files.Files(videos, clips)
        matches: dict[str, float] = {}
        if encoder.info.logit_bias is not None and len(question.sentences) == 1 and image is None:
            sentence_vector = encoder.encode_texts(question.sentences)[0]
            matches = match_probabilities(hits, searcher, sentence_vector, encoder.info)
        if as_json:
            cost = {} if refiner is None else {"refined": refiner.cost.to_json()}
            asked_for = {**question.to_json(), "index": questions.way(searcher, question, max(top, refine or 0))}
            click.echo(search_text.as_json(hits, {**asked_for, **cost}, files, matches))
            continue
        if len(asked) > 1:
            click.echo(style.strong(question.sentences[0]))
        for line in search_text.as_lines(hits, style, files, matches):
            click.echo(line)
    if refiner is not None and not as_json:
        click.echo(style.faint(f"refined: {refiner.cost}"))


@main.command()
@_store
@_model
@click.option(
    "--video-dir",
    metavar="PATH|URL",
    help="Where the videos are, as for embed-videos; without it nothing can be looked at or played.",
)
@click.option("--host", default=choices.SERVE_HOST, help="Another address than this machine's own needs --token.")
@click.option("--port", type=click.IntRange(0, 65535), default=choices.SERVE_PORT, help="0: any free one.")
@click.option(
    "--token",
    envvar="GRIDCLIP_TOKEN",
    show_envvar=True,
    help="What a visitor has to know, at least 16 characters; it travels unencrypted.",
)
@_view
@_scoring
@_index
@_num_gpus
def serve(
    store: pathlib.Path,
    model: str,
    tokenizer: pathlib.Path | None,
    video_dir: str | None,
    num_gpus: int,
    **options: Any,
) -> None:
    """Serve a page to search a store with, play the moments, and the same as JSON.

    It follows a store that a job is filling. /openapi.json describes the JSON interface. Ctrl-C stops it.
    """
    from .engine.serve import addresses, server

    addresses.check_host(options["host"], options["token"])
    opened = gridclip.Store.open(store)
    encoder = gridclip.load_model(model, num_gpus=num_gpus, tokenizer=tokenizer)
    server.serve(
        encoder, opened, video_dir, started=lambda address: click.echo(f"Serving {store} at {address}"), **options
    )


@main.command()
@_store
@_as_json
def status(store: pathlib.Path, as_json: bool) -> None:
    """Say how far the jobs on a store are.

    Done, left, failed and why, the rate, and whether a job is alive; shards side by side. STORE may also be the folder
    that superimages writes to. Nothing is written.
    """
    found = gridclip.status(store)
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else _in_options(str(found)))


@main.command()
@_store
@click.argument("sources", metavar="STORE...", nargs=-1, type=_PATH)
@click.option("--compact", is_flag=True, help="At the end join the small files of many appends; needs no STORE.")
def merge(store: pathlib.Path, sources: tuple[pathlib.Path, ...], compact: bool) -> None:
    """Copy the videos and queries of each STORE into one store.

    What that store has is not copied again, so the command can be repeated: after a kill, or when a STORE has grown.
    All must be of one model and one sampling.
    """
    if not sources and not compact:
        raise click.UsageError("there is nothing to do: give the stores to merge, or --compact")
    click.echo(str(gridclip.merge_stores(store, sources, compact=compact)))


@main.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--model", required=True, multiple=True, callback=_only_one, metavar="MODEL", help="As for embed-videos; one."
)
@click.option("--video-dir", required=True, help="As for embed-videos.")
@_store
@click.option("--tasks", type=click.IntRange(min=1), required=True, help="Tasks of the array, a shard each.")
@click.option("--gpus-per-task", type=click.IntRange(min=0), default=choices.NUM_GPUS, help="0: the CPU.")
@click.option("--cpus-per-task", type=click.IntRange(min=1), default=8, help="So many decode.")
@click.option("--time", help="Of a task, as sbatch takes it; one that needs more queues itself again.")
@click.option("--partition")
@click.option("--account")
@click.option("--sbatch-option", "sbatch_options", multiple=True, help="Any other, such as --mem=64G. Repeatable.")
@click.option(
    "--own-stores", is_flag=True, help="A store for each shard, merged at the end: where disks lock no files."
)
@click.argument("options", metavar="[OPTIONS OF EMBED-VIDEOS]...", nargs=-1, type=click.UNPROCESSED)
def slurm_script(
    model: str,
    video_dir: str,
    store: pathlib.Path,
    own_stores: bool,
    sbatch_options: tuple[str, ...],
    options: tuple[str, ...],
    **asked: Any,
) -> None:
    """Print a script that embeds videos on a Slurm cluster.

    Run it with bash: it submits an array of shards, which go on from where they stopped when they are queued again, and
    the step that closes the store. What embed-videos takes besides is passed on: --fps 1 --grid-size 2 ...
    """
    from .engine.jobs.slurm_script import Cluster, write_script

    cluster = Cluster(options=sbatch_options, **asked)
    click.echo(write_script(model, video_dir, store, cluster, own_stores=own_stores, options=options), nl=False)


@main.command()
@click.option("--image-dir", type=_PATH, required=True, help="Holds one <video id>.npy, float [L, D], per video.")
@click.option("--text-file", type=_PATH, help="An npz with video_id [Q], embedding [Q, D] and perhaps text [Q].")
@_store
@click.option("--allow-pickle", is_flag=True, help="Also read pickled arrays: such files can run code when read.")
@_strict
def import_features(
    image_dir: pathlib.Path, text_file: pathlib.Path | None, store: pathlib.Path, allow_pickle: bool, strict: bool
) -> None:
    """Fill a store with features made elsewhere."""
    from .engine.jobs.failures import FailureLog, failures_path

    opened = gridclip.Store.open(store, create=True)
    imported = gridclip.import_features(image_dir, opened, text_file=text_file, allow_pickle=allow_pickle)
    with FailureLog(failures_path(opened.path)) as log:
        for failure in imported.failures:
            log.add(failure)
    lost = f"{len(imported.failures):,} failed, see {log.path}" if imported.failures else "none failed"
    click.echo(
        f"imported {imported.videos:,} videos ({imported.super_images:,} super images), {imported.queries:,} queries; "
        f"{imported.already_stored:,} videos were there before; {lost}"
    )
    if not (imported.videos or imported.already_stored or imported.queries) or (strict and imported.failures):
        sys.exit(1)


@main.command()
@_store
@click.option("--out", type=_PATH, required=True, help="A new or empty folder.")
@click.option("--format", type=click.Choice(choices.FEATURE_FORMATS), default=choices.FEATURE_FORMAT)
@_view
def export_features(store: pathlib.Path, out: pathlib.Path, format: str, **options: Any) -> None:
    """Write a store's embeddings as files for elsewhere."""
    files = gridclip.export_features(store, out, format, **options)
    click.echo(f"wrote {len(files):,} files to {out}")


@main.group()
def reproduce() -> None:
    """Measure a published procedure again, in one command that goes on from where it stopped.

    Exports the model, embeds the videos and the captions, evaluates, and prints a table.
    """


def _reproduction(work_dir: str) -> Callable[[Command], Command]:
    """The options of a reproduction; `work_dir` is the default of its folder."""
    return _options(
        click.option("--video-dir", type=_PATH, required=True, help="A folder of videos, or a list of their paths."),
        click.option("--anno-file", "--anno-path", type=_PATH, required=True, help="The captions of these videos."),
        click.option("--model", "--model-path", "--ckpt", default="ViT-L/14", metavar="MODEL", help=_MODEL_HELP),
        _tokenizer,
        click.option("--work-dir", type=_PATH, default=work_dir, help="Gets the stores and the tables."),
        click.option(
            "--super-img-size",
            type=click.IntRange(min=1),
            default=choices.SUPER_IMG_SIZE,
            help="Side of a super image in pixels; resized where the model's image size differs.",
        ),
        _batch_size,
        _decoder,
        _on_damage,
        _several_gpus,
        _num_workers,
    )


@reproduce.command()
@_reproduction("reproduce-activitynet")
def activitynet(**options: Any) -> None:
    """The super-image procedure on ActivityNet Captions val_1.

    Its own settings (0.5 frames a second as decord counts them, 2 x 2 grids, captions of 77 characters, softmax of
    temperature 1, without 16 unreadable videos) beside this program's, and beside what others have published.
    """
    click.echo(str(gridclip.reproduce("activitynet", **options)))


@reproduce.command()
@_reproduction("reproduce-grids")
@click.option("--grid-sizes", type=_Numbers(), default="1,2,3,4,5", help="The grid sizes, all from one decode.")
def grids(**options: Any) -> None:
    """The ablation of the super-image method: grid sizes, each with attention (softmax) and without (mean)."""
    click.echo(str(gridclip.reproduce("grids", **options)))


@main.group()
def bench() -> None:
    """Measure this machine beside other programs."""


def _benchmark(name: str, help: str, module: str | None = None) -> None:
    """Adds a benchmark; it reads its own options, as it does without this command. `module`: where not of its name."""
    module = module or name.replace("-", "_")

    @bench.command(name, help=help, context_settings={"ignore_unknown_options": True}, add_help_option=False)
    @click.option("--json", "json_file", type=_PATH, default=f"bench-{name}.json")
    @click.argument("options", nargs=-1, type=click.UNPROCESSED)
    def run(json_file: pathlib.Path, options: tuple[str, ...]) -> None:
        sys.argv = [f"gridclip bench {name}", "--json", str(json_file), *options]
        importlib.import_module(f".benchmarks.{module}", __package__).main()


_benchmark("decode", "Frames per second of the decoders.")
_benchmark("reading", "Bytes of a file that are read: all of it, and what wanted frames need.")
_benchmark("clips", "Processor milliseconds a clip of 1 to 3 seconds: what opening costs.")
_benchmark("sweep", "How the gain of pruning grows with the interval between wanted frames.")
_benchmark("keyframes", "What --sampling keyframes gains in speed, and what it costs in recall.")
_benchmark("decode-modes", "What --decode fast and --sampling keyframes gain in speed, and cost in recall.")
_benchmark("pipelines", "Frames per second into the encoder: DALI, hybrid, worker processes.")
_benchmark("encode", "Super images per second of ViT-L/14 in ONNX Runtime and torch.")
_benchmark("end-to-end", "Videos per second to a store: the two-stage procedure and the fused path.")
_benchmark("scaling", "Time and memory over workers and over videos.")
_benchmark("gpu", "Prove the GPU path on this machine: frames, embeddings, ranks, rates.", module="gpu.battery")
_benchmark("moments", "Recall and moments of every way to score, over encoder passes, on long generated videos.")
_benchmark("retrieve", "Seconds to rank ActivityNet's videos for its captions.")
_benchmark("books", "Videos per second, memory and resume of everything but decoding and encoding.")
_benchmark("search", "Recall, latency, memory and disk of exact search and the index, beside faiss and a product.")
_benchmark("serve", "Milliseconds of the page's answers to many clients at once, errors and memory.")


def _write_text(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _make_sampling(mode: choices.SamplingMode, max_shift_s: float | None, **settings: Any) -> Sampling:
    if mode == "keyframes" and max_shift_s is None:
        max_shift_s = choices.MAX_SHIFT_S
    if mode != "keyframes" and max_shift_s is not None:
        raise click.UsageError(f"--max-shift is for --sampling keyframes: with --sampling {mode} frames do not move")
    try:
        return gridclip.Sampling(mode=mode, max_shift_s=max_shift_s, **settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _say_what_would_be_done(job: str, *arguments: Any, **options: Any) -> None:
    """The one line of a dry run.

    Args:
        job: a function of engine/jobs/dry_run.py; of the options it gets those that it takes.
    """
    from .engine.jobs import dry_run

    preview = getattr(dry_run, job)
    options["num_workers"] = options.get("num_workers") or os.cpu_count() or 1
    taken = inspect_module.signature(preview).parameters
    click.echo(str(preview(*arguments, **{name: value for name, value in options.items() if name in taken})))


def _finish(summary: JobSummary, strict: bool) -> None:
    """The last line of a job, and its exit status."""
    click.echo(str(summary))
    if not summary.succeeded or (strict and summary.failures):
        sys.exit(1)


if __name__ == "__main__":
    main()
