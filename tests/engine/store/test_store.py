"""Tests of engine/store/store.py: order, atomic appends of whole videos, several writers, fingerprints, damage."""

import json
import os
import signal
import subprocess
import sys
import time

import lance
import numpy as np
import pyarrow as pa
import pytest
from gridclip import GridClipError
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.store import tables
from gridclip.engine.store.store import Store, VideoEmbedding

MODEL = {"format": 1, "name": "tiny", "embed_dim": 8, "fingerprint": "aa", "precision": "fp32"}


def embedding(video_id: str, count: int, width: int = 8, *, seed: int = 0, times: bool = True) -> VideoEmbedding:
    generator = np.random.default_rng([seed, *video_id.encode()])
    vectors = generator.standard_normal((count, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    starts = np.arange(count) * 8.0
    return VideoEmbedding(video_id, starts if times else None, starts + 8.0 if times else None, vectors)


def assert_whole(store: Store, seed: int = 0) -> list[str]:
    """Every stored video equals the embedding that was made for it; returns the ids."""
    table = store.read_super_images()
    for position, video_id in enumerate(table.video_ids):
        rows = slice(table.offsets[position], table.offsets[position + 1])
        expected = embedding(video_id, rows.stop - rows.start, seed=seed)
        np.testing.assert_array_equal(table.vectors[rows], expected.vectors.astype(np.float16))
        np.testing.assert_array_equal(table.start_s[rows], expected.start_s)
    return table.video_ids


def test_videos_come_back_sorted_by_id_with_vectors_and_times(tmp_path):
    store = Store.open(tmp_path / "new" / "a store #1 %20 é", create=True)
    store.append_videos([embedding("b", 3), embedding("a", 1)])
    store.append_videos([embedding("Z", 2), embedding("é", 4, times=False)])
    table = Store.open(store.path).read_super_images()
    assert table.video_ids == ["Z", "a", "b", "é"]
    assert table.offsets.tolist() == [0, 2, 3, 6, 10]
    assert table.vectors.dtype == np.float16
    np.testing.assert_array_equal(table.vectors[3:6], embedding("b", 3).vectors.astype(np.float16))
    assert table.start_s[3:6].tolist() == [0, 8, 16] and table.end_s[3:6].tolist() == [8, 16, 24]
    assert np.isnan(table.start_s[6:]).all() and np.isnan(table.end_s[6:]).all()
    assert store.finished_videos() == {"Z", "a", "b", "é"}


def test_a_video_stored_twice_is_read_once_even_when_the_copies_differ_in_length(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([embedding("b", 3), embedding("a", 2)])
    store.append_videos([embedding("c", 1), embedding("a", 5, seed=9), embedding("b", 3, seed=9)])
    assert assert_whole(store) == ["a", "b", "c"]
    assert store.read_super_images().offsets.tolist() == [0, 2, 5, 6]
    store.compact()
    assert assert_whole(store) == ["a", "b", "c"]


WRITER = """
import sys
from gridclip.engine.store.store import Store
sys.path.insert(0, {tests!r})
from test_store import MODEL, embedding
store = Store.open({path!r}, create=True)
store.claim_model(MODEL)
for number in range(8):
    store.append_videos([embedding(f"{writer}-{{number}}-{{part}}", 1 + part) for part in range(2)])
store.append_videos([embedding("shared", 3)])
"""


def test_several_processes_write_at_once(tmp_path):
    path = str(tmp_path / "s")
    scripts = [WRITER.format(tests=os.path.dirname(__file__), path=path, writer=writer) for writer in range(3)]
    writers = [subprocess.Popen([sys.executable, "-c", script]) for script in scripts]
    assert [process.wait() for process in writers] == [0, 0, 0]
    store = Store.open(tmp_path / "s")
    assert len(assert_whole(store)) == 3 * 8 * 2 + 1
    before = store.read_super_images()
    store.compact()
    after = store.read_super_images()
    np.testing.assert_array_equal(before.vectors, after.vectors)
    assert before.video_ids == after.video_ids


KILLED_WRITER = """
import sys
from gridclip.engine.store.store import Store
sys.path.insert(0, {tests!r})
from test_store import embedding
store = Store.open({path!r}, create=True)
done = len(store.finished_videos())
while True:
    store.append_videos([embedding(f"{{done + part:06d}}", 20) for part in range(3)])
    done += 3
    print(done, flush=True)
"""


def test_a_killed_writer_leaves_whole_videos_only_and_resumes(tmp_path):
    path = tmp_path / "s"
    script = KILLED_WRITER.format(tests=os.path.dirname(__file__), path=str(path))
    for appends, delay_s in ((1, 0.001), (3, 0.003), (5, 0.005)):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            reported = [process.stdout.readline() for _ in range(appends)]
            time.sleep(delay_s)  # into the middle of the next append
            process.send_signal(signal.SIGKILL)
        store = Store.open(path)
        videos = store.finished_videos()
        assert videos == {f"{number:06d}" for number in range(len(videos))} and len(videos) % 3 == 0
        assert len(videos) >= int(reported[-1])
        assert set(assert_whole(store)) == videos
        assert set(np.diff(store.read_super_images().offsets)) == {20}


FULL_DISK = """
import resource, signal, sys
from gridclip import GridClipError
from gridclip.engine.store.store import Store
sys.path.insert(0, {tests!r})
from test_store import embedding
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))  # a write past it fails, as on a full disk
store = Store.open({path!r}, create=True)
for count in range(10, 1000, 7):
    try:
        store.append_videos([embedding(str(count), count)])
    except GridClipError as error:
        print(error)
"""


def test_a_full_disk_is_reported_and_loses_nothing_written_before(tmp_path):
    script = FULL_DISK.format(tests=os.path.dirname(__file__), path=str(tmp_path / "s"))
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "could not write to the store" in result.stdout and "`resume=True`" in result.stdout
    assert len(assert_whole(Store.open(tmp_path / "s"))) >= 5


def test_queries_are_merged_by_video_and_text(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    first = [Query(0, "a", "one", 0.5, 2.0), Query(1, "a", "twice"), Query(2, "a", "twice"), Query(3, "b", "one")]
    store.put_queries(first, np.eye(8, dtype=np.float32)[:4])
    store.put_queries([Query(0, "a", "one", 0.5, 2.0), Query(1, "c", "new")], np.eye(8, dtype=np.float16)[[5, 6]])
    table = store.read_queries()
    assert [(query.video_id, query.text) for query in table.queries] == [
        ("a", "twice"),
        ("a", "twice"),
        ("b", "one"),
        ("a", "one"),
        ("c", "new"),
    ]
    assert table.queries[3] == Query(0, "a", "one", 0.5, 2.0)
    assert table.vectors.dtype == np.float16
    assert table.vectors.argmax(axis=1).tolist() == [1, 2, 3, 5, 6]


def test_another_model_or_sampling_is_refused_by_name(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    assert store.model is None
    store.claim_model(MODEL)
    store.claim_model({**MODEL, "source": "elsewhere.pt"})  # not part of what the vectors depend on
    with pytest.raises(
        GridClipError, match=r"fingerprint = 'aa' \(tiny\), this run has 'bb' \(large\): .*`overwrite=True`"
    ):
        store.claim_model({**MODEL, "name": "large", "fingerprint": "bb"})
    with pytest.raises(GridClipError, match=r"precision = 'fp32' \(tiny\), this run has 'int8' \(tiny\)"):
        store.claim_model({**MODEL, "fingerprint": "bb", "precision": "int8"})
    store.claim_sampling({"fps": 0.5, "grid_size": 2, "mode": "frames"})
    store.claim_sampling({"mode": "frames", "grid_size": 2, "fps": 0.5})
    for other in ({"fps": 0.5, "grid_size": 3, "mode": "frames"}, {"fps": 0.5, "mode": "frames"}):
        with pytest.raises(GridClipError, match=r"sampling grid_size = 2, this run has (3|None)"):
            Store.open(store.path).claim_sampling(other)
    # Recorded before there was a choice: edit lists were applied.
    assert Store.open(store.path).sampling == {"fps": 0.5, "grid_size": 2, "mode": "frames", "edit_lists": "apply"}
    with pytest.raises(GridClipError, match="sampling edit_lists = 'apply', this run has 'ignore'"):
        store.claim_sampling({"fps": 0.5, "grid_size": 2, "mode": "frames", "edit_lists": "ignore"})


def test_clearing_lets_other_settings_in(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.claim_model(MODEL)
    store.claim_sampling({"fps": 0.5})
    store.append_videos([embedding("a", 2)])
    store.put_queries([Query(0, "a", "one")], np.ones((1, 8), np.float32))
    store.clear_super_images()
    store.claim_sampling({"fps": 1.0})
    assert store.finished_videos() == set() and len(store.read_queries().queries) == 1 and store.model == MODEL
    store.clear()
    store.claim_model({**MODEL, "name": "other", "embed_dim": 4})
    store.append_videos([embedding("a", 2, 4)])
    assert store.finished_videos() == {"a"}


def test_vectors_of_another_width_are_refused(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([embedding("a", 2)])
    for write in (
        lambda: store.append_videos([embedding("b", 2, 4)]),
        lambda: store.put_queries([Query(0, "a", "one")], np.ones((1, 4), np.float32)),
    ):
        with pytest.raises(GridClipError, match="4 wide.* has 8"):
            write()
    with pytest.raises(GridClipError, match="one width"):
        store.append_videos([embedding("b", 2, 4), embedding("c", 2, 8)])
    assert store.finished_videos() == {"a"}


@pytest.mark.parametrize("vectors", [np.zeros((0, 4)), np.zeros(4), np.full((2, 4), np.nan), np.full((2, 4), 1e6)])
def test_an_embedding_that_cannot_be_stored_is_refused_on_its_own(vectors):
    with pytest.raises(ValueError, match="video a"):
        VideoEmbedding("a", None, None, vectors)
    with pytest.raises(ValueError, match="start_s of video a"):
        VideoEmbedding("a", np.zeros(3), None, np.ones((2, 4)))


def test_opening_what_is_no_store(tmp_path):
    with pytest.raises(GridClipError, match="there is no store at .*nowhere"):
        Store.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(GridClipError, match="is a file"):
        Store.open(tmp_path / "file", create=True)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_text("x")
    for create in (False, True):
        with pytest.raises(GridClipError, match="is not a store"):
            Store.open(tmp_path / "videos", create=create)
    empty = Store.open(tmp_path / "empty", create=True)
    assert empty.finished_videos() == set()
    with pytest.raises(GridClipError, match="holds no videos"):
        empty.read_super_images()
    with pytest.raises(GridClipError, match="holds no queries"):
        empty.read_queries()
    record = {"format": 99, "model": None, "sampling": None}
    (empty.path / "store.json").write_text(json.dumps(record))
    with pytest.raises(GridClipError, match="format 99.*upgrade"):
        Store.open(empty.path)
    for text in ("{", "[]", "{}", json.dumps({**record, "format": "x"})):
        (empty.path / "store.json").write_text(text)
        with pytest.raises(GridClipError, match="cannot be read as a store's record"):
            Store.open(empty.path)


def test_a_damaged_store_is_reported(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([embedding("a", 400)])
    (data,) = (store.path / "super_images.lance" / "data").iterdir()
    data.write_bytes(data.read_bytes()[:1000])
    for read in (store.read_super_images, store.finished_videos):
        with pytest.raises(GridClipError, match="is damaged or cannot be read"):
            read()


def test_a_compaction_drops_second_copies_and_keeps_what_was_read(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([embedding("b", 3), embedding("a", 2)])
    store.append_videos([embedding("c", 1), embedding("a", 5, seed=9), embedding("b", 3, seed=9)])
    store.append_videos([embedding("b", 3, seed=7)])
    before = store.read_super_images()
    store.compact()
    assert lance.dataset(str(store.path / "super_images.lance")).count_rows() == 3 + 2 + 1
    after = store.read_super_images()
    assert after.video_ids == before.video_ids == ["a", "b", "c"]
    np.testing.assert_array_equal(after.vectors, before.vectors)
    np.testing.assert_array_equal(after.start_s, before.start_s)
    assert assert_whole(store) == ["a", "b", "c"]
    version = lance.dataset(str(store.path / "super_images.lance")).version
    store.compact()
    assert lance.dataset(str(store.path / "super_images.lance")).version == version


def test_what_others_append_during_a_compaction_stays(tmp_path, monkeypatch):
    store = Store.open(tmp_path / "s", create=True)
    for _ in range(2):
        store.append_videos([embedding("a", 2), embedding("b", 3)])
    settle = tables.settle

    def another_job_appends(uri, fragments):
        monkeypatch.setattr(tables, "settle", settle)
        Store.open(store.path).append_videos([embedding("c", 4), embedding("a", 2)])
        settle(uri, fragments)

    monkeypatch.setattr(tables, "settle", another_job_appends)
    store.compact()
    assert assert_whole(store) == ["a", "b", "c"]
    store.compact()
    assert assert_whole(store) == ["a", "b", "c"]
    assert lance.dataset(str(store.path / "super_images.lance")).count_rows() == 2 + 3 + 4


def test_a_compaction_that_cannot_be_finished_changes_nothing(tmp_path, monkeypatch, caplog):
    store = Store.open(tmp_path / "s", create=True)
    for _ in range(2):
        store.append_videos([embedding("a", 2), embedding("b", 3)])

    def cut_short(uri, fragments):
        raise OSError("is the disk full?")

    with monkeypatch.context() as patch:
        patch.setattr(tables, "settle", cut_short)
        store.compact()
    assert "is the disk full?" in caplog.text
    assert assert_whole(store) == ["a", "b"]
    assert lance.dataset(str(store.path / "super_images.lance")).count_rows() == 2 * (2 + 3)


def tree(folder):
    """Every file's content and time, every folder's time."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None) for path in folder.rglob("*")
    }


def test_reading_writes_nothing_and_takes_no_lock(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([embedding("a", 2)])
    store.put_queries([Query(0, "a", "one")], np.eye(8, dtype=np.float32)[:1])
    (store.path / ".lock").unlink()  # taking the lock would make it again
    before = tree(store.path)
    reader = Store.open(store.path)
    reader.require_model(MODEL)
    assert reader.model is None
    reader.read_super_images(), reader.read_queries(), reader.finished_videos(), reader.has_queries()
    assert tree(store.path) == before
    store.claim_model(MODEL)
    reader.require_model({**MODEL, "name": "the same by another name"})
    with pytest.raises(GridClipError, match="fingerprint = 'aa'"):
        reader.require_model({**MODEL, "fingerprint": "bb"})


def test_a_store_that_must_not_be_written_says_so(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    (store.path / ".lock").unlink()
    (store.path / ".lock").mkdir()  # fails as a missing right does, for the superuser, too
    with pytest.raises(GridClipError, match="cannot write to the store .*another `store`"):
        store.claim_model(MODEL)


@pytest.mark.parametrize(
    "record",
    [
        {"format": 0},
        {"format": -1},
        {"format": True},
        {"format": 1.0},
        {"format": None},
        {"model": 5},
        {"model": [1]},
        {"sampling": "x"},
        {"model": {"embed_dim": "x"}},
        {"model": {"embed_dim": 0}},
        {"model": {"embed_dim": None}},
    ],
)
def test_a_record_of_the_wrong_types_is_named(tmp_path, record):
    store = Store.open(tmp_path / "s", create=True)
    (store.path / "store.json").write_text(json.dumps({"format": 1, "model": None, "sampling": None, **record}))
    with pytest.raises(GridClipError, match=r"store\.json cannot be read as a store's record: .* expected "):
        Store.open(store.path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"model":' * 100_000, "\ud800", "\0"])
def test_a_record_that_is_no_json_is_named(tmp_path, text):
    store = Store.open(tmp_path / "s", create=True)
    (store.path / "store.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(GridClipError, match=r"store\.json cannot be read as a store's record"):
        Store.open(store.path)


def super_image_columns(**changed):
    columns = {
        "video_id": pa.array(["a", "a", "b"], pa.string()),
        "index": pa.array([0, 1, 0], pa.int32()),
        "start_s": pa.array([0.0, 8.0, 0.0]),
        "end_s": pa.array([8.0, 16.0, None], pa.float64()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.eye(3, 8, dtype=np.float16).reshape(-1)), 8),
    }
    return pa.table({name: column for name, column in (columns | changed).items() if column is not None})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"video_id": pa.array([1, 1, 2])}, "video_id is int64, expected string"),
        ({"video_id": pa.array(["a", "a", None], pa.string())}, "1 of 3 rows have no video_id"),
        ({"video_id": None}, "video_id is missing"),
        ({"index": pa.array([0, 1, 0], pa.int64())}, "index is int64, expected int32"),
        ({"index": pa.array([0, 1, None], pa.int32())}, "1 of 3 rows have no index"),
        ({"index": pa.array([0, 2, 0], pa.int32())}, "not in order"),
        ({"vector": pa.array([1.0, 2.0, 3.0])}, "vector is double"),
        ({"vector": None}, "vector is null"),
        ({"vector": pa.array([[1.0] * 8, [1.0] * 8, None], pa.list_(pa.float16(), 8))}, "damaged"),
        (
            {"vector": pa.array([[np.nan] * 8, [1.0] * 8, [1.0] * 8], pa.list_(pa.float16(), 8))},
            r"1 vectors of 1 videos .* are not finite \(a\)",
        ),
        (
            {"vector": pa.array([[1.0] * 8, [np.inf] * 8, [-np.inf] * 8], pa.list_(pa.float16(), 8))},
            r"2 vectors of 2 videos .* are not finite \(a, b\)",
        ),
    ],
)
def test_tables_that_another_program_wrote_are_checked(tmp_path, changed, message):
    store = Store.open(tmp_path / "s", create=True)
    lance.write_dataset(super_image_columns(**changed), str(store.path / "super_images.lance"))
    with pytest.raises(GridClipError, match=message):
        store.read_super_images()


def test_the_table_that_the_others_differ_from_is_read(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    lance.write_dataset(super_image_columns(more=pa.array([1, 2, 3])), str(store.path / "super_images.lance"))
    assert store.read_super_images().video_ids == ["a", "b"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_queries_that_are_not_finite_are_named(tmp_path, value):
    store = Store.open(tmp_path / "s", create=True)
    vectors = np.eye(2, 8, dtype=np.float32)
    vectors[1, 3] = value
    with pytest.raises(GridClipError, match="1 of 2 queries are not finite .*'two' of video b"):
        store.put_queries([Query(0, "a", "one"), Query(1, "b", "two")], vectors)
    assert not store.has_queries()


PANIC = """
import resource
from gridclip import GridClipError
from gridclip.engine.store.store import Store
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000,) * 2)  # too little for the threads of Lance
try:
    Store.open({path!r}).read_super_images()
except GridClipError as error:
    print(error)
"""


def test_a_panic_of_lance_is_an_error(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([embedding("a", 2)])
    script = PANIC.format(path=str(store.path))
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "ulimit -v" in result.stdout, result.stderr
