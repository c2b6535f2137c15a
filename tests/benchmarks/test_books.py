"""benchmarks/books.py: what it times is a whole job, whose store holds what was asked for."""

from __future__ import annotations

import pathlib

import pytest
from gridclip.benchmarks import books
from gridclip.engine.store.store import Store


def test_a_job_fills_the_store_and_a_second_one_does_only_what_failed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "FILES_PER_FOLDER", 10)
    monkeypatch.setattr(books, "FAILING", 20)
    books.make_folder(tmp_path / "videos", 45)
    first = books.job(tmp_path / "videos", tmp_path / "store", 3)
    assert (first["videos"], first["failures"]) == (43, 2)
    table = Store.open(tmp_path / "store").read_super_images()
    assert len(table.video_ids) == 43 and len(table.vectors) == 43 * 3
    assert books.ask_status(tmp_path / "videos", tmp_path / "store", 3)["failed"] == 2
    again = books.job(tmp_path / "videos", tmp_path / "store", 3)
    assert (again["videos"], again["failures"]) == (2, 0)


def test_each_phase_is_a_process_that_tells_its_memory(tmp_path: pathlib.Path) -> None:
    books.make_folder(tmp_path / "videos", 5)
    found = books.run_phase("first run", tmp_path / "videos", tmp_path / "store", 2)
    assert found["videos"] == 5 and found["peak_mib"] > 10
