"""benchmarks/results/*.json in, the tables of measurements of both READMEs out: no figure there is typed.

python -m gridclip.benchmarks.readme_table         rewrites the part between the two markers in both files

README.md has the headlines, benchmarks/README.md every row.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from . import measure, search_table
from .charts import crossing_text
from .charts_decode_modes import BOTH, EXACT, WAYS

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
BENCHMARKS_README = README.parent / "benchmarks" / "README.md"
BEGIN, END = "<!-- measured: written by benchmarks/readme_table.py -->", "<!-- end of measured -->"


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        what, beside, outcome: in words, with the figures.
        name: the raw file in `results/`.
        headline: whether README.md shows it.
    """

    what: str
    beside: str
    outcome: str
    name: str
    headline: bool = False

    def line(self, results: str) -> str:
        """The row in Markdown; `results` is the path to the raw files from where the table stands."""
        return f"| {self.what} | {self.beside} | {self.outcome} | [{self.name}]({results}/{self.name}) |"


def rows() -> list[Row]:
    """Every measurement that is committed."""
    return [
        *_decode("decode_generated.json"),
        *_decode_real("decode_real_files.json"),
        _pruning("decode_generated.json", "decode_real_files.json"),
        *(_sweep("sweep.json") if (measure.RESULTS / "sweep.json").exists() else []),
        *_keyframes("keyframes.json"),
        *_decode_modes("decode_modes.json"),
        *_moments("moments.json"),
        *_pipelines("pipelines_cpu.json"),
        *_encode("encode_cpu.json"),
        *_end_to_end("end_to_end.json"),
        *_growth("scaling.json"),
        *_long_video("long_video.json"),
        *_reading("reading.json"),
        *_retrieve("retrieve_cpu.json"),
        *_search("search.json"),
    ]


def headlines(readme: str) -> str:
    """README.md's text with its table made anew."""
    return _rewritten(readme, [row for row in rows() if row.headline], "benchmarks/results")


def everything(readme: str) -> str:
    """The text of benchmarks/README.md with its tables made anew."""
    return search_table.rewritten(_rewritten(readme, rows(), "results"), _load("search.json"))


def _rewritten(readme: str, shown: Sequence[Row], results: str) -> str:
    lines = ["| what | beside | result | raw |", "|---|---|---|---|", *(row.line(results) for row in shown)]
    return re.sub(f"{BEGIN}.*?{END}", "\n".join([BEGIN, *lines, END]), readme, flags=re.DOTALL)


def _load(name: str) -> dict[str, Any]:
    return json.loads((measure.RESULTS / name).read_text())


def _decode(name: str) -> list[Row]:
    """A row for each file; the headlines are those of the largest and the smallest gain."""
    results = _load(name)["results"]
    gains = [entry["ratio_to_peer"]["decord"] for entry in results]
    rows = []
    for entry in results:
        ratios = entry["ratio_to_peer"]
        peers = [peer for peer in ("decord", "torchcodec approximate", "OpenCV") if peer in ratios]
        shares = ", ".join(f"{peer} {ratios[peer]:.1f}" for peer in peers)
        what = f"decode `{entry['video']}`, {entry['packets_decoded']} of {entry['packets']} packets, one core"
        headline = ratios["decord"] in (min(gains), max(gains))
        rows.append(Row(what, "decord, torchcodec, OpenCV", f"times as fast as {shares}", name, headline))
    return rows


def _decode_real(name: str) -> list[Row]:
    report = _load(name)
    rows = []
    for beside, chosen in (
        ("the better of decord and torchcodec", ("decord", "torchcodec")),
        ("the best of all peers", ("",)),
    ):
        ratios = {
            entry["video"]: min(ratio for peer, ratio in entry["ratio_to_peer"].items() if peer.startswith(chosen))
            for entry in report["results"]
        }
        worst = min(ratios, key=lambda video: ratios[video])
        mean = measure.geometric_mean(ratios.values())
        result = f"{mean:.2f} times as fast in geometric mean, {ratios[worst]:.2f} at worst (`{worst}`)"
        headline = beside == "the best of all peers"
        rows.append(Row(f"decode {len(ratios)} real files, one core", beside, result, name, headline))
    return rows


def _pruning(*names: str) -> Row:
    entries = [entry for name in names for entry in _load(name)["results"]]
    shares = {entry["video"]: entry["pruning_to_decoding"] for entry in entries}
    worst = max(shares, key=lambda video: shares[video])
    result = f"{statistics.median(shares.values()):.1%} in the median, {shares[worst]:.1%} at most (`{worst}`)"
    return Row("choose the packets of these files", "decoding them afterwards", result, names[-1])


def _sweep(name: str) -> list[Row]:
    rows = []
    for entry in _load(name)["results"]:
        rates = [rate for rate in entry["rates"] if rate["ratio_to_best_peer"]]
        if not rates:
            continue
        sparsest, densest = rates[0], rates[-1]
        what = f"decode `{entry['video']}` at {sparsest['fps']:g} to {densest['fps']:g} fps, one core"
        gains = " to ".join(f"{rate['ratio_to_best_peer']:.1f}" for rate in (sparsest, densest))
        result = f"{gains} times as fast; pruning {crossing_text(entry['crossover_fps'])}"
        rows.append(Row(what, "the best of decord, torchcodec and PyAV", result, name))
    return rows


def _keyframes(name: str) -> list[Row]:
    """Speed and shifts of each set of videos, then the recall, at the default --max-shift; nothing before it is run."""
    if not (measure.RESULTS / name).exists():
        return []
    report = _load(name)
    settings, results = report["settings"], report["results"]
    way = f"max shift {settings['default_max_shift_s']:g} s"
    rows = []
    for kind in dict.fromkeys(entry["set"] for entry in results["decode"]):
        entries = [entry for entry in results["decode"] if entry["set"] == kind]
        rows.append(_keyframes_decode(entries, way, name))
    for corpus, recall in results["recall"].items():
        losses = [
            f"R@1 {recall[way][temperature]['R@1']:.1f} for {recall['exact'][temperature]['R@1']:.1f} ({temperature})"
            for temperature in ("temperature 1", "temperature 0.1")
        ]
        queries = recall[way]["queries"]
        rows.append(Row(f"`--sampling keyframes`: {corpus}, {queries} queries", "exact", ", ".join(losses), name))
    return rows


def _keyframes_decode(entries: list[dict[str, Any]], way: str, name: str) -> Row:
    gains = {entry["name"]: entry["times_as_fast"][way] for entry in entries}
    shifts = [entry["shifts"][way] for entry in entries]
    moved = sum(each["moved_share"] * each["wanted_frames"] for each in shifts)
    share = moved / sum(each["wanted_frames"] for each in shifts)
    result = f"{measure.geometric_mean(gains.values()):.2f} times as fast in geometric mean"
    if len(entries) > 1:
        result += f", {min(gains.values()):.2f} to {max(gains.values()):.2f}"
    result += f"; {share:.0%} of the frames move, at most {max(each.get('max_s', 0) for each in shifts):.1f} s"
    of = {"generated": "generated files", "real files": "real files", "demo": "ways to encode the demo's videos"}
    what = f"`--sampling keyframes`: decode {len(entries)} {of[entries[0]['set']]}, one core"
    return Row(what, "exact", result, name)


def _decode_modes(name: str) -> list[Row]:
    """What each way beside an exact decode gains and costs, on files and on the demo; nothing before it is run."""
    if not (measure.RESULTS / name).exists():
        return []
    report = _load(name)
    files, demos = report["results"]["files"], report["results"]["demo"]
    return [
        Row(
            f"{'both' if way == BOTH else f'`{way}`'}: decode {len(files)} files, one core; "
            f"the demo's videos, {report['settings']['model']}",
            "exact",
            "; ".join([_way_on_files(files, way), *(_way_on_demo(demo, way) for demo in demos)]),
            name,
        )
        for way in WAYS[1:]
    ]


def _way_on_files(entries: list[dict[str, Any]], way: str) -> str:
    gain = measure.geometric_mean(entry["times_as_fast"][way] for entry in entries)
    least = min(entry["times_as_fast"][way] for entry in entries)
    most = max(entry["times_as_fast"][way] for entry in entries)
    found = [entry["pictures"][way] for entry in entries if entry["pictures"][way]["psnr_db"] is not None]
    pictures = "the same pictures"
    if found:
        median_db = statistics.median(each["psnr_db"] for each in found)
        least_db = min(each["least_psnr_db"] for each in found)
        pictures = f"PSNR {median_db:.1f} dB in the median of files, {least_db:.1f} of the worst picture"
    return f"{gain:.2f} times as fast in geometric mean, {least:.2f} to {most:.2f}; {pictures}"


def _way_on_demo(demo: dict[str, Any], way: str) -> str:
    recall, exact, cosine = demo["recall"][way], demo["recall"][EXACT], demo["cosine"][way]
    losses = ", ".join(
        f"R@1 {recall[temperature]['R@1']:.1f} for {exact[temperature]['R@1']:.1f} ({temperature})"
        for temperature in ("temperature 1", "temperature 0.1")
    )
    return (
        f"{demo['name']}: {demo['times_as_fast'][way]:.2f} times as fast, cosine {cosine['mean']:.5f} in the mean and "
        f"{cosine['least']:.5f} at least, {losses} of {recall['queries']} queries"
    )


def _moments(name: str) -> list[Row]:
    """What won on the development videos, on the held ones, beside the procedure; nothing before it is run."""
    if not (measure.RESULTS / name).exists():
        return []
    results = _load(name)["results"]
    facts = results["sets"]["held"]
    rows = []
    for purpose, metric in (("videos", "R@1"), ("moments", "VCMR R@1")):
        chosen = results["chosen"][purpose]
        key = {"R@1": "R@1", "VCMR R@1": "vcmr_R@1_iou_0.5"}[metric]
        value = chosen["held"][key]
        gain, low, high = chosen[f"{metric}_less_reference"]
        what = f"find {purpose}: {facts['queries']:,} queries, {facts['videos']:,} generated videos, {results['model']}"
        result = f"{metric} {value:.1f} for {value - gain:.1f} ({low:+.1f} to {high:+.1f}) with {chosen['setting']}"
        rows.append(Row(what, results["reference"], result, name, headline=purpose == "videos"))
    return rows


def _pipelines(name: str) -> list[Row]:
    videos = _load(name)["results"]["videos"]
    rates = videos["wanted_frames_per_s"]
    ours = {way: rates[f"gridclip --decoder {way}"] for way in ("dali", "hybrid", "pyav")}
    result = ", ".join(f"{way} {rate:.1f}" for way, rate in ours.items())
    whole = rates.get("DALI on whole files")
    beside = f"DALI's CPU variant on whole files: {whole:.1f} frames/s" if whole else "DALI on whole files: failed"
    what = f"decode {videos['videos']} VP8 and VP9 files into the encoder, all cores"
    return [Row(what, beside, f"wanted frames/s: {result}", name)]


def _end_to_end(name: str) -> list[Row]:
    rows = []
    for model, entry in _load(name)["results"].items():
        rate, busy = entry["videos_per_s"]["fused"], entry["encoder_busy"]["fused"]
        result = f"{entry['fused_to_two_stages']:.2f} times as fast, {rate:.2f} videos/s, the encoder busy {busy:.0%}"
        what, beside = f"videos to a store, {model}", "super images to JPEG, then embed-images"
        rows.append(Row(what, beside, result, name, headline=model.startswith("ViT")))
    return rows


def _growth(name: str) -> list[Row]:
    results = _load(name)["results"]
    fit, sizes, workers = results["line"], results["by_videos"], results["by_workers"]
    deviation = f"{fit['largest_deviation']:.0%} off at most"
    straight = f"{1000 * fit['seconds_per_video']:.0f} ms a video and {fit['start_s']:.1f} s to start, {deviation}"
    memory = " to ".join(f"{sizes[at]['parent_peak_mib']:.0f}" for at in (0, -1))
    what = f"embed-videos, {sizes[0]['videos']:,} to {sizes[-1]['videos']:,} short videos"
    rows = [Row(what, "a straight line", f"{straight}; memory {memory} MiB", name)]
    gain = workers[0]["seconds"] / workers[-1]["seconds"]
    what = f"embed-videos, {workers[-1]['workers']} worker processes"
    return [*rows, Row(what, "one", f"{gain:.2f} times as fast", name)]


def _encode(name: str) -> list[Row]:
    report = _load(name)
    has_vnni = any("vnni" in flag for flag in report["settings"]["int8_flags"])
    entries = {candidate: entry for candidate, entry in report["results"].items() if "images_per_s" in entry}
    eager = next(iter(entries))
    rows = []
    for candidate, entry in entries.items():
        if not candidate.startswith("onnxruntime"):
            continue
        result = f"{entry['times_torch_eager']:.2f} times as fast, {entry['images_per_s']:.2f} images/s"
        if "share_of_peak" in entry:
            result += f", {entry['share_of_peak']:.0%} of the rate of a large {_precision(eager)} matrix product"
        if "int8" in candidate and not has_vnni:
            result += " (a processor without VNNI)"
        what = f"ViT-L/14 with random weights, {candidate.replace('onnxruntime', 'ONNX Runtime')}"
        rows.append(Row(what, eager, result, name, headline="fp16" not in candidate))
    return rows + _encode_peers(entries, eager, name)


def _encode_peers(entries: Mapping[str, Mapping[str, Any]], eager: str, name: str) -> list[Row]:
    """ONNX Runtime in the peers' own precision beside all of them."""
    peers = [candidate for candidate in entries if not candidate.startswith("onnxruntime") and candidate != eager]
    ours = f"onnxruntime {_precision(eager)}"
    if not peers or ours not in entries:
        return []
    speed = entries[ours]["images_per_s"]
    ratios = ", ".join(f"{peer} {speed / entries[peer]['images_per_s']:.2f}" for peer in peers)
    what = f"ViT-L/14 with random weights, {ours.replace('onnxruntime', 'ONNX Runtime')}"
    return [Row(what, "torch.compile and other runtimes", f"times as fast as {ratios}", name, headline=True)]


def _precision(candidate: str) -> str:
    return candidate.rsplit(maxsplit=1)[-1]


def _long_video(name: str) -> list[Row]:
    """One video by two workers, measured, and jobs on many cores, simulated."""
    results = _load(name)["results"]
    one, two = results["by_workers"]["1"], results["by_workers"]["2"]
    more = two["worker_cpu_s"] / one["worker_cpu_s"] - 1
    took = f"{one['seconds'] / two['seconds']:.2f} times as fast, {more:.1%} more processor time, the same bits"
    rows = [Row("one long video (480p), 2 workers", "one", took, name)]
    for job, found in results.get("simulated", {}).items():
        gains = [
            f"{cores} cores {each['whole']['seconds'] / each['divided']['seconds']:.2f} times as fast, "
            f"tail {each['divided']['tail_s']:.1f} s instead of {each['whole']['tail_s']:.1f}"
            for cores, each in found.items()
        ]
        rows.append(Row(f"simulated: {job}", "whole videos", "; ".join(gains), name))
    return rows


def _reading(name: str) -> list[Row]:
    """A row per rate: bytes and seconds of the files whose wanted frames are found by their index."""
    report = _load(name)
    rows = []
    for fps in report["settings"]["fps"]:
        entries = [entry for entry in report["results"]["files"] if entry["fps"] == fps]
        shares = {e["file"]: e["bytes_read"]["needed"] / e["bytes_read"]["scan"] for e in entries if e["by_index"]}
        faster = [e["median_s"]["scan"] / e["median_s"]["needed"] for e in entries if e["by_index"]]
        result = "; ".join(f"`{file}` {share:.1%}" for file, share in shares.items())
        result += f" of the bytes ({measure.geometric_mean(faster):.2f} times as fast)"
        what = f"read {len(shares)} of {len(entries)} files by their index, {fps:g} fps, not in memory"
        rows.append(Row(what, "a scan of the whole file", result, name))
    return rows


def _retrieve(name: str) -> list[Row]:
    report = _load(name)
    settings, results = report["settings"], report["results"]
    what = (
        f"evaluate {settings['queries']:,} queries x {settings['videos']:,} videos"
        f" ({settings['super_images']:,} super images)"
    )
    took = f"{results['medians']['evaluation']:.0f} s, {results['evaluation_to_bare_product']:.2f} times its time"
    memory = f"{results['peak_mib_above_embeddings']:.0f} MiB above the embeddings"
    rows = [Row(what, "the bare matrix product", f"{took}; {memory}", name, headline=True)]
    peers = {peer: entry for peer, entry in results.get("peers", {}).items() if entry["times_kernel"] > 1}
    if peers:
        ratios = ", ".join(f"{peer} {entry['times_kernel']:.1f}" for peer, entry in peers.items())
        beside = "other ways to the same scores"
        rows.append(Row("rank by the kernel", beside, f"times as fast as {ratios}", name, headline=True))
    return rows + _scaling(results.get("scaling", []), name)


def _scaling(entries: Sequence[Mapping[str, Any]], name: str) -> list[Row]:
    """The largest size that was measured in full, and the range of all sizes' ratios to the floor."""
    full = [entry for entry in entries if "extrapolated_from" not in entry]
    if not full:
        return []
    largest = max(full, key=lambda entry: entry["queries"] * entry["super_images"])
    ratios = [entry["times_floor"] for entry in entries]
    what = f"search {largest['queries']:,} queries x {largest['videos']:,} videos, generated in blocks"
    others = f"{min(ratios):.2f} to {max(ratios):.2f} at {len(entries)} sizes"
    took = f"{largest['seconds']:.3g} s, {largest['times_floor']:.2f} times its time ({others})"
    return [Row(what, "the bare matrix product", f"{took}; {largest['peak_mib']} MiB", name)]


def _search(name: str) -> list[Row]:
    report = _load(name)
    found = search_table.rows(report)
    return [Row(what, beside, told, name, headline) for what, beside, told, headline in found]


def main() -> None:
    for path, made_anew in ((README, headlines), (BENCHMARKS_README, everything)):
        path.write_text(made_anew(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
