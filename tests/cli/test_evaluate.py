"""The options of `gridclip evaluate` that choose scores: --sweep, --normalise, --query-bank, on a small store."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from click.testing import CliRunner
from gridclip.cli import main
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.store.store import Store, VideoEmbedding


@pytest.fixture
def store(tmp_path: pathlib.Path) -> pathlib.Path:
    opened = Store.open(tmp_path / "store", create=True)
    opened.append_videos(
        [
            VideoEmbedding(name, None, None, np.eye(4, dtype=np.float32)[rows])
            for name, rows in (("a", [0, 1]), ("b", [2]))
        ]
    )
    opened.put_queries([Query(0, "a", "one"), Query(1, "b", "two")], np.eye(4, dtype=np.float32)[[0, 2]])
    return tmp_path / "store"


def test_a_sweep_is_a_table_and_in_the_json(store: pathlib.Path, tmp_path: pathlib.Path) -> None:
    arguments = ["evaluate", "--store", str(store), "--json", str(tmp_path / "r.json"), "--topk", "1"]
    sweeps = ["--sweep", "temperature=1,0.1", "--sweep", "aggregate=max,windows", "--sweep", "temperature=0.01"]
    result = CliRunner().invoke(main, [*arguments, *sweeps])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "r.json").read_text())
    assert [(entry["aggregate"], entry["temperature"]) for entry in content["sweep"]] == [
        ("softmax", 1),
        ("softmax", 0.1),
        ("softmax", 0.01),
        ("max", 1),
        ("windows", 1),
    ]
    assert all(entry["R@1"] == entry["SumR"] == 100 for entry in content["sweep"])
    assert "softmax, temperature 0.01   100.00   100.00" in result.output


def test_normalising_says_what_it_used(store: pathlib.Path) -> None:
    arguments = ["evaluate", "--store", str(store), "--normalise"]
    result = CliRunner().invoke(main, [*arguments, "qb-norm", "--query-bank", str(store)])
    assert result.exit_code == 0 and f"normalised: qb-norm, bank of 2 queries from {store}" in result.output
    for options, told in (
        (["qb-norm"], "--normalise qb-norm needs a bank of queries"),
        (["sinkhorn", "--query-bank", str(store)], "--query-bank is for --normalise qb-norm"),
        (["sinkhorn", "--sweep", "temperature=1"], "--sweep and --normalise sinkhorn cannot be combined"),
    ):
        result = CliRunner().invoke(main, [*arguments, *options])
        assert result.exit_code == 2 and told in result.output, result.output
