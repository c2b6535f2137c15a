"""export/model_info.py: model.json is read as it was written, old ones included, and damage is named."""

import dataclasses
import json

import fake_model
import pytest
from gridclip import GridClipError
from gridclip.export.model_info import (
    _CHECKS,
    POOLINGS,
    TEXT_CLEANINGS,
    ModelFacts,
    ModelInfo,
    read_model_info,
    write_model_info,
)
from hypothesis import given
from hypothesis import strategies as st

OLD = fake_model.model_json(
    source="clip.pt",
    source_sha256="0" * 64,
    patch_size=8,
    activation="quick_gelu",
    logit_scale=14.27,
    fused_attention={"image": 2, "text": 3},
    smallest_cosine={"image": 0.9999, "text": 1.0},
)
WHOLE = ModelInfo.from_json(OLD)


def write_json(folder, content) -> None:
    (folder / "model.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_folder_from_before_there_were_families_is_clips(tmp_path):
    write_json(tmp_path, OLD)
    info = read_model_info(tmp_path)
    assert (info.family, info.causal_text, info.pooling) == ("clip", True, "end_token")
    assert (info.pad_token, info.text_cleaning, info.ignores_padding) == (0, "clip", True)
    assert info.to_json().items() >= OLD.items()
    write_json(tmp_path, fake_model.model_json())
    assert read_model_info(tmp_path).fused_attention is None


def test_what_is_written_is_read(tmp_path):
    info = dataclasses.replace(
        WHOLE, family="toy", start_token=None, pad_token=1, causal_text=False, pooling="mean", text_cleaning="none"
    )
    write_model_info(info, tmp_path)
    assert read_model_info(tmp_path) == info and not info.ignores_padding
    assert json.loads((tmp_path / "model.json").read_text())["start_token"] is None


def test_unknown_keys_are_kept(tmp_path):
    write_json(tmp_path, OLD | {"trained_on": ["a", "b"]})
    info = read_model_info(tmp_path)
    assert info.others == {"trained_on": ["a", "b"]}
    write_model_info(info, tmp_path)
    assert read_model_info(tmp_path) == info


def test_every_field_is_checked():
    names = {field.name for field in dataclasses.fields(ModelInfo)} - {"others"}
    assert names == set(_CHECKS)
    assert {field.name for field in dataclasses.fields(ModelFacts)} < names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 9}, "has format 9, expected 1"),
        ({"format": True}, "has format True, expected 1"),
        ({"image_size": 0}, "has image_size 0, expected a whole number from 1 to 8192"),
        ({"image_size": 64.0}, "has image_size 64.0, expected a whole number"),
        ({"embed_dim": None}, "has embed_dim None, expected a whole number"),
        ({"start_token": "x"}, "has start_token 'x', expected a whole number from 0 to 2147483648, or null"),
        ({"logit_scale": float("nan")}, "has logit_scale nan, expected a finite number"),
        ({"logit_scale": True}, "has logit_scale True, expected a finite number"),
        ({"fused_attention": {"image": 2}}, "has fused_attention .*expected .* for each of image, text"),
        ({"smallest_cosine": {"image": 1, "text": "x"}}, "has smallest_cosine .*expected a finite number for each"),
        ({"family": "toy"}, "lacks pad_token, causal_text, pooling, text_cleaning"),
        ({"pooling": "mean"}, "lacks family, pad_token, causal_text, text_cleaning"),
        (WHOLE.to_json() | {"pooling": "maximum"}, "has pooling 'maximum', expected one of end_token, last_token"),
        (WHOLE.to_json() | {"pooling": []}, r"has pooling \[\], expected one of"),
        (WHOLE.to_json() | {"causal_text": 1}, "has causal_text 1, expected true or false"),
        (WHOLE.to_json() | {"text_cleaning": None}, "has text_cleaning None, expected one of clip, siglip, none"),
    ],
)
def test_damage_is_named(tmp_path, changes, message):
    write_json(tmp_path, OLD | changes)
    with pytest.raises(GridClipError, match=rf"model\.json {message}.*: export the model again"):
        read_model_info(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\ud800"])
def test_what_is_no_json_is_named(tmp_path, text):
    (tmp_path / "model.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(GridClipError, match=r"model\.json cannot be read: .*export the model again"):
        read_model_info(tmp_path)


@pytest.mark.parametrize("text", ["[]", "5", "null", '"format"', "{}"])
def test_json_that_is_no_model_is_named(tmp_path, text):
    write_json(tmp_path, text)
    with pytest.raises(GridClipError, match="has format None, expected 1"):
        read_model_info(tmp_path)


def test_no_model_folder(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(GridClipError, match=r"is not a model folder \(it has no model\.json\)"):
            read_model_info(folder)


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(GridClipError, match="the model fake has image_size 9000, expected a whole number"):
        write_model_info(dataclasses.replace(WHOLE, image_size=9000), tmp_path)
    assert not list(tmp_path.iterdir())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["format", *_CHECKS]) | st.text(max_size=5), json_values, max_size=4))
def test_any_value_is_taken_or_refused(changes):
    try:
        info = ModelInfo.from_json(WHOLE.to_json() | changes)
    except ValueError as error:
        assert "expected" in str(error) or "lacks" in str(error)
    else:
        assert info.to_json().keys() >= {"format", "name", "end_token"}
        json.dumps(info.to_json())


@given(
    ids=st.lists(st.integers(5, 99), max_size=30),
    start=st.none() | st.just(3),
    longest=st.none() | st.integers(3, 20),
    causal=st.booleans(),
    pooling=st.sampled_from(POOLINGS),
)
def test_token_rows(ids, start, longest, causal, pooling):
    facts = ModelFacts(
        image_size=8,
        embed_dim=4,
        context_length=20,
        start_token=start,
        end_token=4,
        pad_token=1,
        causal_text=causal,
        pooling=pooling,
        text_cleaning=TEXT_CLEANINGS[-1],
    )
    row = facts.make_token_row(ids, longest)
    most = longest or 20
    assert len(row) == (most if causal and pooling == "end_token" else 20)
    end = row.index(4)
    assert end < most and set(row[end + 1 :]) <= {1}
    text = row[:end] if start is None else row[1:end]
    assert start is None or row[0] == 3
    assert text == ids[: len(text)] and (len(text) == len(ids) or end == most - 1)
