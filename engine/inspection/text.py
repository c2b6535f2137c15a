"""An inspection in, a table for people out."""

from __future__ import annotations

from collections.abc import Iterator

from .inspection import Inspection, Route, Spread

_KINDS = {
    "keyframe": "a decoder can start here",
    "reference": "others refer to it, or may",
    "disposable": "no other needs it",
    "hidden": "shows no picture",
    "unanalysed": "not known",
}
_HIDDEN = {
    "not_shown": "only others refer to it",
    "cut_off": "an edit list leaves it out",
    "undecodable": "it refers to what came before the file's start",
}
_LEFT_OUT = {
    "disposable": "disposable, and not wanted",
    "leading": "shown before the keyframe of an open GOP",
    "after_last_wanted": "after the last wanted frame of a GOP",
    "gop_unwanted": "of a GOP without a wanted frame",
}
_DECODERS = {"dali": "DALI on a GPU", "dali_cpu": "DALI without GPU", "decord": "decord", "pyav": "PyAV"}


def as_text(found: Inspection) -> str:
    """The inspection for people."""
    lines = [found.file]
    for title, rows in (
        ("", _describe_file(found)),
        ("packets", _describe_packets(found)),
        ("GOPs", _describe_gops(found)),
        (f"wanted frames at {found.fps:g} fps: {found.wanted_frames:,}", _describe_cost(found)),
        ("why so many packets are decoded", ((sentence, "") for sentence in found.why)),
        ("decoders", _describe_routes(found)),
    ):
        body = [f"  {name:18}  {text}".rstrip() for name, text in rows]
        if body:
            lines += ["", title] if title else []
            lines += body
    return "\n".join(lines)


def _describe_file(found: Inspection) -> Iterator[tuple[str, str]]:
    names, suffix = found.container.split(","), found.file.rpartition(".")[2].lower()
    yield "container", f"{suffix if suffix in names else names[0]}, {_bytes(found.file_bytes)}"
    shown = f"{found.codec}, {found.width} x {found.height}, {found.pixel_format}"
    if found.rotation_degrees:
        shown += f", turned by {found.rotation_degrees} degrees"
    if found.interlaced:
        shown += ", may be interlaced"
    yield "video", shown
    rate = " (variable rate: see `mode='time'`)" if found.variable_rate else ""
    yield "frames", f"{found.frames:,} at {found.avg_fps:.4g} fps, {found.duration_s:,.2f} s{rate}"


def _describe_packets(found: Inspection) -> Iterator[tuple[str, str]]:
    for name, kind in found.kinds.items():
        if kind.packets:
            yield name, f"{_share(kind.packets, found.packets)}  {_bytes(kind.bytes):>9}  {_KINDS[name]}"
    for name, count in found.hidden.items():
        if count:
            yield "  of these", f"{_share(count, found.packets)}  {'':9}  {_HIDDEN[name]}"
    yield "all", f"{found.packets:8,}       {'':2}{_bytes(found.packet_bytes):>9}"


def _describe_gops(found: Inspection) -> Iterator[tuple[str, str]]:
    gops = found.gops
    if gops is None:
        yield "none", "nothing tells where decoding can start"
        return
    kinds = f"{gops.closed:,} closed, {gops.open:,} open" if gops.proved else "by the container's flags"
    yield "count", f"{gops.count:,} ({kinds})"
    yield "frames", _spread(gops.frames, "{:,.4g}")
    yield "seconds", _spread(gops.seconds, "{:,.2f}")


def _describe_cost(found: Inspection) -> Iterator[tuple[str, str]]:
    cost = found.decoding
    others = "what these refer to" if found.pruned else "all others up to the last wanted one"
    yield "decoded", f"{_share(cost.needed['wanted'], found.packets)}  wanted frames"
    if cost.needed["references"]:
        yield "decoded", f"{_share(cost.needed['references'], found.packets)}  {others}"
    for name, count in cost.left_out.items():
        if count:
            reason = _LEFT_OUT[name] if found.pruned else "after the last wanted frame"
            yield "left out", f"{_share(count, found.packets)}  {reason}"
    again = f", {cost.again:,} packets are in two of them" if cost.again else ""
    yield "segments", f"{cost.segments:8,}{again}"
    yield "decoding starts", f"{cost.starts:8,}"
    if cost.with_keyframes is not None and cost.with_keyframes < cost.packets:
        yield "with keyframes", f"{_share(cost.with_keyframes, found.packets)}  decoded with `mode='keyframes'`"


def _describe_routes(found: Inspection) -> Iterator[tuple[str, str]]:
    for route in found.routes:
        yield _DECODERS[route.decoder], _describe_route(route, found)


def _describe_route(route: Route, found: Inspection) -> str:
    if route.decoder == "pyav":
        return "takes it" if found.pruned else "takes it, and decodes the whole file up to the last wanted frame"
    if route.why_not is None:
        return f"takes it, where the card decodes {found.codec} of this size" if route.decoder == "dali" else "takes it"
    if route.segments:
        share = f"{route.segments:,} of {found.decoding.segments:,} segments"
        return f"takes {share}, PyAV the others: {route.why_not}"
    return f"does not take it: {route.why_not}"


def _spread(spread: Spread, form: str) -> str:
    shown = [form.format(value) for value in (spread.shortest, spread.median, spread.longest)]
    return f"{shown[0]} shortest, {shown[1]} median, {shown[2]} longest"


def _share(count: int, total: int) -> str:
    return f"{count:8,} {count / total:6.1%}"


def _bytes(count: int) -> str:
    if count < 1 << 10:
        return f"{count:,} B"
    return f"{count / 2**10:,.0f} KiB" if count < 1 << 20 else f"{count / 2**20:,.1f} MiB"
