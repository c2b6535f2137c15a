"""Tests of engine/annotations.py: the five formats told apart by content, and what bad files get."""

import gzip
import json

import pytest
from gridclip import GridClipError
from gridclip.engine.annotations.annotations import (
    Annotations,
    Query,
    VideoInfo,
    load_annotations,
    load_video_info,
)
from gridclip.engine.annotations.formats import FORMATS, Caption, Format

ACTIVITYNET = {
    "v_b": {"duration": 9, "timestamps": [[0, 1.5], [2, 9]], "sentences": ["One.", "  Two é."]},
    "v_a": {"sentences": ["Three."]},
}
TVR = [
    {"vid_name": "s01_clip_1", "duration": 9.0, "ts": [1, 2.5], "desc": "One.", "type": "v", "desc_id": 7},
    {"vid_name": "s01_clip_0", "ts": [0, 1], "desc": "Two #1 ##.", "desc_id": 8},
]
QVHIGHLIGHTS = [
    {
        "qid": 2579,
        "query": "One.",
        "duration": 150,
        "vid": "NUsG9BgSes0_210.0_360.0",
        "relevant_clip_ids": [0, 1],
        "saliency_scores": [[4, 4, 2], [3, 4, 2]],
        "relevant_windows": [[0, 14], [30, 36], [40, 42]],
    },
    {"qid": 9, "query": "Two.", "vid": "b"},  # of the test split, which has no windows
]
CHARADES = "AAAAA 24.3 30.4##person turns on a light.\nBBBBB 0.0 1.0##two ## signs #enc#0 here.\n"
MS_SL = "v_b#enc#0 One.\nv_b#enc#1 Two ##.\nv_a#enc#0 Three 1 2##x.\n"
EXPECTED = {
    "activitynet": [Query(0, "v_b", "One.", 0, 1.5), Query(1, "v_b", "  Two é.", 2, 9), Query(2, "v_a", "Three.")],
    "tvr": [
        Query(0, "s01_clip_1", "One.", 1, 2.5, official_id=7),
        Query(1, "s01_clip_0", "Two #1 ##.", 0, 1, official_id=8),
    ],
    "qvhighlights": [
        Query(0, "NUsG9BgSes0_210.0_360.0", "One.", 0, 14, ((30, 36), (40, 42)), official_id=2579),
        Query(1, "b", "Two.", official_id=9),
    ],
    "charades-sta": [
        Query(0, "AAAAA", "person turns on a light.", 24.3, 30.4),
        Query(1, "BBBBB", "two ## signs #enc#0 here.", 0, 1),
    ],
    "ms-sl": [Query(0, "v_b", "One."), Query(1, "v_b", "Two ##."), Query(2, "v_a", "Three 1 2##x.")],
}
TEXTS = {
    "activitynet": json.dumps(ACTIVITYNET, indent=2),
    "tvr": "\n".join(map(json.dumps, TVR)),
    "qvhighlights": "\n".join(map(json.dumps, QVHIGHLIGHTS)),
    "charades-sta": CHARADES,
    "ms-sl": MS_SL,
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text.encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: ("\n" + text.rstrip("\n")).replace("\n", "\r\n").encode(),
        lambda text: gzip.compress(text.encode()),
    ],
    ids=["plain", "byte order mark", "CRLF", "gzip"],
)
def test_formats_are_recognised_by_content(tmp_path, name, wrap):
    file = tmp_path / "captions.unknown"
    file.write_bytes(wrap(TEXTS[name]))
    found = load_annotations(file)
    assert (found.format, found.queries, found.problems) == (name, EXPECTED[name], [])
    assert found.video_ids == list(dict.fromkeys(query.video_id for query in EXPECTED[name]))


def test_one_line_files(tmp_path):
    file = tmp_path / "f"
    file.write_text(json.dumps(ACTIVITYNET))
    assert load_annotations(file).format == "activitynet"
    file.write_text(json.dumps(TVR[0]))
    assert load_annotations(file).queries == EXPECTED["tvr"][:1]


def test_bad_captions_are_left_out_and_named(tmp_path):
    file = tmp_path / "val.json"
    file.write_text(
        json.dumps(
            {
                "a": {"sentences": ["good", "", "   ", 7, None, "also good"]},
                "b": {"timestamps": []},
                "c": [],
                "d": {"sentences": "text"},
                "e": {"sentences": ["x", "y"], "timestamps": [[0, 1]]},
                "f": {"sentences": ["x", "y"], "timestamps": [[0, "1"], [0]]},
            }
        )
    )
    found = load_annotations(file)
    assert [(query.video_id, query.text) for query in found.queries] == [
        ("a", "good"),
        ("a", "also good"),
        ("e", "x"),
        ("e", "y"),
        ("f", "x"),
        ("f", "y"),
    ]
    assert [query.query_id for query in found.queries] == list(range(6))
    assert [query.end_s for query in found.queries] == [None, None, None, None, 1.0, None]
    assert found.video_ids == list("abcdef")
    assert [problem.split(":")[0] for problem in found.problems] == [
        "video a, sentence 1",
        "video a, sentence 2",
        "video a, sentence 3",
        "video a, sentence 4",
        "video b",
        "video c",
        "video d",
        "video e",
        "video f, sentence 1",
    ]


def test_text_that_is_no_unicode_costs_its_caption_only(tmp_path):
    file = tmp_path / "val.json"
    file.write_text(r"""{"good": {"sentences": ["one", "half \ud83d", "whole \ud83d\ude00"]},
        "\ud800": {"sentences": ["two"]}, "nul\u0000": {"sentences": ["three"]}, "\udcff": {"sentences": null}}""")
    found = load_annotations(file)
    assert [(query.video_id, query.text) for query in found.queries] == [("good", "one"), ("good", "whole \U0001f600")]
    assert found.video_ids == ["good", "\ud800", "nul\0", "\udcff"]  # so that a job can say what it has lost
    assert [problem.split(":")[0] for problem in found.problems] == [
        "video good, sentence 1",
        r"video \ud800, sentence 0",
        "video nul\0, sentence 0",
        r"video \xff",
    ]
    assert all(problem.encode() for problem in found.problems)
    file.write_text('{"vid_name": "a", "desc": "x"}\n{"vid_name": "\\udfff", "desc": "x"}\n')
    assert [query.video_id for query in load_annotations(file).queries] == ["a"]


def test_bad_lines_are_left_out_and_named(tmp_path):
    file = tmp_path / "f"
    file.write_text(CHARADES + "no format\nCCCCC x 2##text\nDDDDD 0 1##  \n")
    found = load_annotations(file)
    assert [query.video_id for query in found.queries] == ["AAAAA", "BBBBB", "CCCCC"]
    assert found.queries[2].start_s is None
    assert [problem.split(":")[0] for problem in found.problems] == ["line 3", "line 4", "line 5"]
    file.write_text(MS_SL + "v_c#enc#0\nv_c#enc#1 \n")
    assert [problem.split(":")[0] for problem in load_annotations(file).problems] == ["line 4", "line 5"]
    file.write_text(TEXTS["tvr"] + '\n[]\n{"vid_name": 3, "desc": "x"}\n{"vid_name": "v"}\n')
    assert [problem.split(":")[0] for problem in load_annotations(file).problems] == ["line 3", "line 4", "line 5"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": {"sentences": ["x"],\n  "timestamps": oops}}', r"f\.json, line 2: malformed JSON"),
        (b'{"a": {"sentences": ["x"]', r"f\.json, line 1: malformed JSON"),
        (b'{"vid_name": "a", "desc": "x"}\n\n{"vid_name": "a", "desc"\n', r"f\.json, line 3: malformed JSON"),
        (b'{"vid_name": "a", "desc": "x"\n', r"f\.json, line 1: malformed JSON"),
        (b"[" * 100_000, r"malformed JSON"),
        (b'{"a": 1}', "no known annotation file"),
        (b"[1, 2]", "no known annotation file"),
        (b"hello\nworld\n", "no known annotation file.*'hello'"),
        (b"", "no known annotation file.*nothing"),
        (b"ok 0 1##x\n\xff\xfe\n", "line 2: not UTF-8"),
        (b"\x1f\x8bbroken", "cannot read"),
        (b'{"a": {"sentences": [""]}}', "no usable caption; first problem: video a, sentence 0"),
    ],
)
def test_unusable_files_get_file_line_and_reason(tmp_path, content, message):
    file = tmp_path / "f.json"
    file.write_bytes(content)
    with pytest.raises(GridClipError, match=message):
        load_annotations(file)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(GridClipError, match="cannot read"):
            load_annotations(path)


def test_video_info(tmp_path):
    file = tmp_path / "info.json"
    entry = {"video_name": "v_-a.b.mp4", "video_frames": 1651, "video_fps": 29.97, "video_duration": 55.088}
    file.write_text(json.dumps([entry, {**entry, "video_name": "v_2.x"}]))
    assert load_video_info(file) == [VideoInfo("v_-a.b", 1651, 29.97, 55.088), VideoInfo("v_2.x", 1651, 29.97, 55.088)]
    names = ["v_1.OGV", "sub/v_1.mts", "sub/v_1.m2ts", "./v_3.mp4"]
    file.write_text(json.dumps([{**entry, "video_name": name} for name in names]))
    assert [info.video_id for info in load_video_info(file)] == ["v_1", "sub/v_1.mts", "sub/v_1.m2ts", "v_3"]
    for broken, message in (
        (entry, "JSON object, expected a list"),
        ([{**entry, "video_frames": None}], "entry 0"),
        ([entry, 3], "entry 1"),
        ([{"video_name": "x"}], "KeyError 'video_frames'"),
    ):
        file.write_text(json.dumps(broken))
        with pytest.raises(GridClipError, match=message):
            load_video_info(file)


def test_the_real_files(shared_data):
    folder = shared_data / "annotations"
    activitynet = load_annotations(folder / "activitynet_val_1.json")
    assert (activitynet.format, len(activitynet.video_ids), len(activitynet.queries)) == ("activitynet", 4917, 17505)
    assert activitynet.problems == []
    charades = load_annotations(folder / "charades_sta_first200.txt")
    assert (charades.format, len(charades.queries), charades.problems) == ("charades-sta", 200, [])
    tvr = load_annotations(folder / "tvr_val_first200.jsonl")
    assert (tvr.format, len(tvr.queries), tvr.problems) == ("tvr", 200, [])
    assert {info.video_id for info in load_video_info(folder / "activitynet_val_1_video_info.json")} <= set(
        activitynet.video_ids
    )


def test_a_format_joins_through_the_table(tmp_path, monkeypatch):
    """What docs/recipes/annotation-format.md says, with a toy: a JSON list of videos with one caption each."""

    def is_toy(file):
        return sum("caption" in entry for entry in file.json) if file.text.startswith("[") else 0

    def read_toy(file):
        for number, entry in enumerate(file.json):
            yield Caption(f"entry {number}", entry["video"], entry["caption"], entry.get("span"))

    file = tmp_path / "toy.json"
    file.write_text(
        json.dumps([{"video": "a", "caption": "one", "span": [1, 2]}, {"video": "b/c", "caption": " "}]), "utf-8"
    )
    with pytest.raises(GridClipError, match=r"no known annotation file: expected TVR .*, ActivityNet .* or Charades"):
        load_annotations(file)
    monkeypatch.setitem(FORMATS, "toy", Format("a toy", is_toy, read_toy))
    found = load_annotations(file)
    assert found == Annotations(
        "toy",
        [Query(0, "a", "one", 1.0, 2.0)],
        ["a", "b/c"],
        ["entry 1: the caption is ' ', expected text; caption left out"],
    )
    for name, text in TEXTS.items():  # the others are recognised as before
        file.write_text(text)
        assert load_annotations(file).format == name
