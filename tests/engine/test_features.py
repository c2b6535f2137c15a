"""Tests of engine/features.py: features in and out in three formats; broken files cost only themselves."""

import json
import os
import pickle
import socket

import numpy as np
import pyarrow.parquet
import pytest
import safetensors
from gridclip import GridClipError
from gridclip.dali_pipes.contract import VideoError
from gridclip.dali_pipes.image_folders.jpeg import read_image, read_sidecar
from gridclip.dali_pipes.packets.scan import open_video
from gridclip.engine.annotations.annotations import load_annotations
from gridclip.engine.evaluation.evaluation import evaluate
from gridclip.engine.features import export_features, import_features
from gridclip.engine.store.store import Store, VideoEmbedding
from gridclip.export.clip_checkpoint import load_checkpoint
from gridclip.export.model_info import read_model_info


@pytest.fixture
def folder(tmp_path):
    """Three videos and the npz with their queries; rows are not of unit length."""
    folder = tmp_path / "features"
    folder.mkdir()
    for number, name in enumerate(("v_a", "v_b.x", "v_-c")):
        np.save(folder / f"{name}.npy", 3 * np.eye(6, dtype=np.float32)[number : number + 2])
    np.savez(
        tmp_path / "text.npz", video_id=np.array(["v_a", "v_-c", "v_-c", "gone"]), embedding=5 * np.eye(6)[[0, 3, 2, 1]]
    )
    return folder


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store", create=True)


def test_imported_features_can_be_evaluated_at_once(tmp_path, folder, store):
    done = import_features(store, folder, tmp_path / "text.npz")
    assert (done.videos, done.super_images, done.queries, done.failures) == (3, 6, 4, [])
    table = store.read_super_images()
    assert table.video_ids == ["v_-c", "v_a", "v_b.x"]
    np.testing.assert_array_equal(table.vectors[:2], np.eye(6)[2:4])
    assert np.isnan(table.start_s).all()
    found = evaluate(store, topk=[1])
    assert (found.recall, found.queries, found.missing_videos) == ({1: 100}, 3, ["gone"])
    again = import_features(store, folder, tmp_path / "text.npz")
    assert (again.videos, again.already_stored) == (0, 3)
    assert len(store.read_queries().queries) == 4 and len(store.read_super_images().video_ids) == 3


def test_broken_files_are_named_and_the_rest_goes_on(folder, store):
    good = np.ones((2, 6), np.float32)
    np.save(folder / "w_nan.npy", np.where(np.arange(12).reshape(2, 6) == 7, np.nan, good))
    np.save(folder / "w_zero.npy", good * [[1], [0]])
    np.save(folder / "w_wide.npy", np.ones((2, 7), np.float32))
    np.save(folder / "w_flat.npy", np.ones(6, np.float32))
    np.save(folder / "w_none.npy", np.ones((0, 6), np.float32))
    np.save(folder / "w_int.npy", np.ones((2, 6), int))
    np.save(folder / "w_object.npy", np.array([[1.0, 2.0, 0, 0, 0, 0]], object))
    (folder / "w_empty.npy").write_bytes(b"")
    (folder / "w_text.npy").write_bytes(b"not an array")
    (folder / "w_short.npy").write_bytes((folder / "v_a.npy").read_bytes()[:-4])
    (folder / "w_folder.npy").mkdir()
    (folder / "notes.txt").write_text("left alone")
    done = import_features(store, folder)
    assert done.videos == 3 and store.finished_videos() == {"v_a", "v_b.x", "v_-c"}
    reasons = {failure.video_id: failure.reason for failure in done.failures}
    assert {failure.stage for failure in done.failures} == {"read"} and len(reasons) == len(done.failures) == 11
    assert "row 1 is zero or not finite" in reasons["w_nan"] and "row 1 is zero" in reasons["w_zero"]
    assert "7 wide, expected 6" in reasons["w_wide"]
    assert "shape [6]" in reasons["w_flat"] and "shape [0, 6]" in reasons["w_none"]
    assert "type int64" in reasons["w_int"] and "`allow_pickle=True`" in reasons["w_object"]


class Bomb:
    """Makes a file where it is unpickled."""

    def __reduce__(self):
        return open, (self.path, "w")

    def __init__(self, path):
        self.path = path


def test_pickled_features_are_not_even_opened_unless_asked_for(tmp_path, store):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "bomb.npy").write_bytes(pickle.dumps(Bomb(str(tmp_path / "fired"))))
    done = import_features(store, tmp_path / "f")
    assert not (tmp_path / "fired").exists() and "`allow_pickle=True`" in done.failures[0].reason
    np.save(tmp_path / "f" / "rows.npy", np.array([[1.0, 2.0]], object))
    (tmp_path / "f" / "bomb.npy").unlink()
    assert import_features(store, tmp_path / "f", allow_pickle=True).videos == 1


def test_large_and_tiny_values_become_unit_vectors(tmp_path, store):
    (tmp_path / "f").mkdir()
    np.save(tmp_path / "f" / "a.npy", np.array([[3e38, 3e38], [1e-40, 0], [3e-4, 4e-4]], np.float32))
    assert import_features(store, tmp_path / "f").failures == []
    np.testing.assert_allclose(store.read_super_images().vectors, [[0.5**0.5] * 2, [1, 0], [0.6, 0.8]], atol=1e-3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"video_id": ["a"]}, "it has no embedding, only video_id"),
        ({"video_id": ["a"], "embedding": np.ones((2, 6))}, r"shape \[2, 6\], expected \[Q, D\] with Q = 1"),
        ({"video_id": ["a"], "embedding": np.ones(6)}, r"shape \[6\]"),
        ({"video_id": [["a"]], "embedding": np.ones((1, 6))}, "names have shape"),
        ({"video_id": ["a"], "embedding": np.ones((1, 6), int)}, "type int64"),
        ({"video_id": np.array(["a", None], object), "embedding": np.ones((2, 6))}, "`allow_pickle=True`"),
    ],
)
def test_an_unusable_text_file_is_named(tmp_path, folder, store, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(GridClipError, match=rf"cannot use the text file .*bad\.npz: .*{message}"):
        import_features(store, folder, tmp_path / "bad.npz")
    assert store.finished_videos() == set()


def test_rows_of_the_text_file_that_are_no_vectors_are_left_out(tmp_path, folder, store):
    np.savez(
        tmp_path / "t.npz",
        video_id=np.array([b"v_a", b"v_-c"]),
        text=["one", "two"],
        embedding=np.array([[np.nan] * 6, [1] * 6]),
    )
    done = import_features(store, folder, tmp_path / "t.npz")
    assert [(failure.video_id, failure.stage) for failure in done.failures] == [("v_a", "query")]
    assert [(query.video_id, query.text) for query in store.read_queries().queries] == [("v_-c", "two")]


def test_folders_and_files_that_are_not_there(tmp_path, folder, store):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("x")
    np.save(tmp_path / "one.npy", np.ones((2, 6)))
    with pytest.raises(GridClipError, match="cannot read the folder"):
        import_features(store, tmp_path / "nowhere")
    with pytest.raises(GridClipError, match=r"holds no \.npy file"):
        import_features(store, tmp_path / "empty")
    for name, message in (("nowhere.npz", "No such file"), ("text.txt", "cannot use"), ("one.npy", "single array")):
        with pytest.raises(GridClipError, match=message):
            import_features(store, folder, tmp_path / name)


def test_a_store_of_a_real_model_is_not_mixed(folder, store):
    store.claim_model({"name": "tiny", "fingerprint": "aa", "embed_dim": 6})
    with pytest.raises(GridClipError, match=r"\(tiny\), this run has None \(imported features\)"):
        import_features(store, folder)


def test_npy_export_is_what_import_reads(tmp_path, folder, store):
    import_features(store, folder, tmp_path / "text.npz")
    files = export_features(store, tmp_path / "out", "npy")
    assert sorted(path.name for path in files) == ["queries.npz", "v_-c.npy", "v_a.npy", "v_b.x.npy"]
    copy = Store.open(tmp_path / "copy", create=True)
    import_features(copy, tmp_path / "out", tmp_path / "out" / "queries.npz")
    np.testing.assert_array_equal(copy.read_super_images().vectors, store.read_super_images().vectors)
    assert copy.read_queries().queries == store.read_queries().queries


def test_ids_with_slashes_go_out_and_in(tmp_path, store):
    vectors = {"a": [0, 1.0], "a/slash": [1.0, 0], "a.5/é": [0.6, 0.8]}
    store.append_videos(
        [VideoEmbedding(video_id, None, None, np.array([vector], np.float32)) for video_id, vector in vectors.items()]
    )
    export_features(store, tmp_path / "npy", "npy")
    assert (tmp_path / "npy" / "a" / "slash.npy").is_file()
    copy = Store.open(tmp_path / "copy", create=True)
    assert import_features(copy, tmp_path / "npy").videos == 3
    table = copy.read_super_images()
    np.testing.assert_allclose(dict(zip(table.video_ids, table.vectors.tolist(), strict=True))["a/slash"], [1, 0])
    assert table.video_ids == sorted(vectors)


@pytest.mark.parametrize("video_id", ["../out", "/tmp/out", "a/../../out", "nul\0", "..\\out", "x" * 252, ""])
def test_no_feature_file_is_written_outside(tmp_path, store, video_id):
    store.append_videos([VideoEmbedding(name, None, None, np.ones((1, 3), np.float32)) for name in ("a", video_id)])
    with pytest.raises(GridClipError, match="cannot be a path.*use the format parquet or safetensors"):
        export_features(store, tmp_path / "deep" / "npy", "npy")
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["npy"]
    assert len(export_features(store, tmp_path / "parquet", "parquet")) == 1


def test_names_that_are_no_unicode_cost_themselves_only(tmp_path, folder, store):
    os.rename(folder / "v_a.npy", os.fsencode(folder) + b"/v_\xff.npy")
    np.savez(
        tmp_path / "t.npz",
        video_id=np.array([b"v_\xff", b"v_-c", b"v_-c", b"v_-c\0x"]),
        embedding=np.eye(6)[:4],
        text=np.array(["one", "half \ud83d", "two", "three"]),
    )
    done = import_features(store, folder, tmp_path / "t.npz")
    assert store.finished_videos() == {"v_-c", "v_b.x"}
    assert [(failure.video_id, failure.stage) for failure in done.failures] == [
        (r"v_\xff", "read"),
        (r"v_\xff", "query"),
        ("v_-c", "query"),
        ("v_-c\0x", "query"),
    ]
    assert [(query.video_id, query.text) for query in store.read_queries().queries] == [("v_-c", "two")]


def test_parquet_and_safetensors_exports_hold_everything(tmp_path, store):
    store.append_videos(
        [
            VideoEmbedding("b", np.array([0.0, 8]), np.array([8.0, 9]), np.eye(2, 3, dtype=np.float32)),
            VideoEmbedding("a/slash", None, None, np.ones((1, 3), np.float32)),
        ]
    )
    (path,) = export_features(store, tmp_path / "parquet", "parquet")
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert [(row["video_id"], row["index"], row["start_s"], row["end_s"]) for row in rows] == [
        ("a/slash", 0, None, None),
        ("b", 0, 0, 8),
        ("b", 1, 8, 9),
    ]
    assert rows[1]["vector"] == [1, 0, 0]
    (path,) = export_features(store, tmp_path / "safetensors", "safetensors")
    with safetensors.safe_open(path, "np") as file:
        assert json.loads(file.metadata()["video_ids"]) == ["a/slash", "b"]
        assert file.get_tensor("offsets").tolist() == [0, 1, 3]
        np.testing.assert_array_equal(file.get_tensor("vectors")[1:], np.eye(2, 3))
    with pytest.raises(GridClipError, match="is not empty"):
        export_features(store, tmp_path / "parquet", "parquet")
    with pytest.raises(ValueError, match="format .'csv'. must be one of npy, parquet, safetensors"):
        export_features(store, tmp_path / "x", "csv")


@pytest.fixture
def special_files(tmp_path):
    """A function that makes a named pipe, a socket and a link to a device; opening the first waits for ever."""

    def make(folder, suffix):
        os.mkfifo(folder / f"pipe{suffix}")
        (folder / f"device{suffix}").symlink_to("/dev/zero")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / f"socket{suffix}"))
        listener.close()
        return [folder / f"{name}{suffix}" for name in ("pipe", "device", "socket")]

    return make


def test_pipes_sockets_and_devices_are_not_waited_for(special_files, tmp_path, folder, store):
    special_files(folder, ".npy")
    done = import_features(store, folder)
    assert done.videos == 3
    reasons = {failure.video_id: failure.reason for failure in done.failures}
    assert "a named pipe" in reasons["pipe"] and "a socket" in reasons["socket"] and "a device" in reasons["device"]
    for path in special_files(tmp_path, ".npz"):
        with pytest.raises(GridClipError, match="cannot use the text file .* expected an ordinary file"):
            import_features(store, folder, path)


def test_no_input_is_waited_for(special_files, tmp_path):
    for path in special_files(tmp_path, ".json"):
        with pytest.raises(GridClipError, match="expected an ordinary file"):
            load_annotations(path)
    for path in special_files(tmp_path, ".mp4"):
        with pytest.raises(VideoError, match="expected an ordinary file"), open_video(path):
            pass
    for path in special_files(tmp_path, ".jpg"):
        with pytest.raises(VideoError, match="expected an ordinary file"):
            read_image(path)
    for path in special_files(tmp_path, ".pt"):
        with pytest.raises(GridClipError, match="expected an ordinary file"):
            load_checkpoint(path)
    for name in ("model.json", "super_images.json"):
        os.mkfifo(tmp_path / name)
    assert read_sidecar(tmp_path) is None
    with pytest.raises(GridClipError, match="expected an ordinary file"):
        read_model_info(tmp_path)


def test_an_id_with_a_nul_is_no_file_name(tmp_path, store):
    store.append_videos([VideoEmbedding("a\0b", None, None, np.ones((1, 3), np.float32))])
    with pytest.raises(GridClipError, match=r"'a\\x00b' cannot be a path.*use the format parquet or safetensors"):
        export_features(store, tmp_path / "npy", "npy")
    for kind in ("parquet", "safetensors"):
        assert export_features(store, tmp_path / kind, kind)
