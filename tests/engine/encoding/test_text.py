"""engine/encoding/text.py: cleaning, cutting and padding of captions."""

import fake_model
import pytest
from gridclip import GridClipError
from gridclip.engine.encoding.text import Tokenizer, clean_as_clip


def ids(text: str) -> list[int]:
    return [fake_model.LETTERS.index(letter) + 1 for letter in text if letter != " "]


@pytest.fixture
def tokenizer(tmp_path):
    return Tokenizer(fake_model.write(tmp_path / "model"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  A  Man\t\nRuns ", "a man runs"),
        ("Tom &amp;amp; Jerry", "tom & jerry"),
        ("cafÃ©", "café"),  # UTF-8 read as Latin-1
        ("&lt;b&gt;", "<b>"),
        ("a\u00a0b\u3000c", "a b c"),
        ("ﬁne", "fine"),
        ("‘quoted’", "'quoted'"),
        ("", ""),
    ],
)
def test_cleaning(text, expected):
    assert clean_as_clip(text) == expected


def test_ids_stand_between_start_and_end_and_zeros_follow(tokenizer):
    token_ids = tokenizer(["Ab c", ""])
    assert token_ids.shape == (2, 20) and token_ids.dtype == "int64"
    assert token_ids[0].tolist() == [fake_model.START, *ids("abc"), fake_model.END] + [0] * 15
    assert token_ids[1].tolist() == [fake_model.START, fake_model.END] + [0] * 18


def test_long_texts_keep_the_end_token(tokenizer):
    text = "abcdefghijklmnopqrstuvwxyz"
    assert tokenizer([text])[0].tolist() == [fake_model.START, *ids(text[:18]), fake_model.END]
    assert tokenizer([text], max_length=5)[0].tolist() == [fake_model.START, *ids("abc"), fake_model.END]


def test_max_chars_cuts_before_cleaning(tokenizer):
    assert tokenizer(["  ab&amp;cd"], max_chars=9)[0, :5].tolist() == [fake_model.START, *ids("ab&"), fake_model.END]
    assert tokenizer(["  abc"], max_chars=3)[0, :3].tolist() == [fake_model.START, *ids("a"), fake_model.END]


def test_wrong_arguments_are_named(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"max_length \(21\).*20"):
        tokenizer(["a"], max_length=21)
    with pytest.raises(ValueError, match=r"max_chars \(0\)"):
        tokenizer(["a"], max_chars=0)
    (tmp_path / "model" / "tokenizer.json").write_text("{")
    with pytest.raises(GridClipError, match=r"tokenizer\.json.*export"):
        Tokenizer(tmp_path / "model")


def test_openais_ids(shared_data, tmp_path):
    from gridclip.export.tokenizer_files import load_vocabulary

    vocabulary = load_vocabulary(tmp_path, 49408, shared_data / "clip" / "bpe_simple_vocab_16e6.txt.gz")
    folder = fake_model.write(tmp_path / "model", context_length=77, start_token=49406, end_token=49407)
    vocabulary.tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer(folder)
    # From OpenAI's own tokenizer.
    assert tokenizer([" A photo\tof a CAT "])[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]
    assert tokenizer(["cat " * 100])[0].tolist() == [49406, *[2368] * 75, 49407]
    assert tokenizer(["a photo of a cat"], max_chars=7)[0, :4].tolist() == [49406, 320, 1125, 49407]
