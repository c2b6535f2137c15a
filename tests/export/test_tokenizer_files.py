"""Vocabulary files against OpenAI's tokenizer, written here a second time from its definition."""

import functools
import gzip
import html
import itertools
import json
import pathlib
import re
import shutil
import unicodedata

import ftfy
import huggingface_hub.constants
import pytest
import tokenizers
from gridclip import GridClipError
from gridclip.export.tokenizer_files import END_TOKEN, OPENAI_VOCAB_SIZE, START_TOKEN, load_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import MERGES

TINY_SIZE = 512 + len(MERGES) + 2

ODD_TEXTS = [
    "",
    " ",
    "Rock &amp; roll, 5 &lt; 6 &amp;amp; &quot;so&quot; it&#39;s",
    "a cat 😺 and 👩‍👩‍👧‍👦 on a 🏳️‍🌈 beach ☀️",
    "schÃ¶n, donâ€™t, â€œquotedâ€\x9d, MÃ©tro",
    "ＦＵＬＬ　ｗｉｄｔｈ ＴＥＸＴ",
    "UPPER Case, İstanbul, ΣΊΣΥΦΟΣ, straße, ǅ",
    "tabs\tand\nnew\r\nlines \u2003 and\u00a0odd\u3000spaces  \x85 here",
    "I'm, you're, he'd, she'll, we've, it's, can't, 'twas, rock'n'roll, ''s, 'S 'LL 'ſ",
    "1234567890 3.14 1,000 ½ ² ٣ Ⅳ 10x 2nd",
    "snake_case __init__ a_b _ ___",
    "<|endoftext|>",
    "before <|endoftext|> after",
    "word<|endoftext|>word <|startoftext|>",
    "<|ENDOFTEXT|> < |endoftext| >",
    "!!! ... --- ?!? (a) [b] {c} #tag @me $5 50% a/b \\ ~ ^ `",
    "中文 日本語 한국어 हिन्दी ไทย עברית العربية",
    "e\u0301 combining a\u0308\u0323, zero\u200bwidth, soft\u00adhyphen, \ufeffbom, \x00\x01\x7f",
    "e&#769; and &#x1F600;",
    "antidisestablishmentarianism supercalifragilisticexpialidocious " * 3,
    "a" * 300,
]


class OpenAITokenizer:
    """Cleaning, splitting and byte-pair merging, all plain Python; \\p{L} and \\p{N} by Unicode category."""

    def __init__(self, path: pathlib.Path, vocab_size: int = OPENAI_VOCAB_SIZE) -> None:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
        merges = [tuple(line.split()) for line in lines[1 : vocab_size - 512 - 2 + 1]]
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        visible = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
        hidden = [b for b in range(256) if b not in visible]
        self.letter = {b: chr(b) for b in visible} | {b: chr(256 + n) for n, b in enumerate(hidden)}
        alphabet = [self.letter[b] for b in visible + hidden]
        tokens = alphabet + [a + "</w>" for a in alphabet] + ["".join(pair) for pair in merges]
        self.ids = {token: index for index, token in enumerate([*tokens, START_TOKEN, END_TOKEN])}

    @staticmethod
    def clean(text: str) -> str:
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
        return re.sub(r"\s+", " ", text.strip()).strip().lower()

    @staticmethod
    def pieces(text: str) -> list[str]:
        def kind(char: str) -> str:
            if char.isspace():
                return "space"
            category = unicodedata.category(char)[0]
            return category if category in "LN" else "other"

        found = []
        while text:
            fixed = re.match(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d", text, re.IGNORECASE)
            if fixed:
                length = fixed.end()
            elif kind(text[0]) in ("space", "N"):
                length = 1
            else:
                length = next((i for i, char in enumerate(text) if kind(char) != kind(text[0])), len(text))
            if kind(text[0]) != "space":
                found.append(text[:length])
            text = text[length:]
        return found

    @functools.cache  # noqa: B019 (one instance per test session)
    def merge(self, piece: str) -> list[int]:
        if piece in (START_TOKEN, END_TOKEN):
            return [self.ids[piece]]
        word = [self.letter[byte] for byte in piece.encode("utf-8")]
        word[-1] += "</w>"
        while len(word) > 1:
            rank, first = min((self.ranks.get(pair, 1 << 30), pair) for pair in itertools.pairwise(word))
            if rank == 1 << 30:
                break
            merged, i = [], 0
            while i < len(word):
                both = i + 1 < len(word) and (word[i], word[i + 1]) == first
                merged.append(word[i] + word[i + 1] if both else word[i])
                i += 2 if both else 1
            word = merged
        return [self.ids[token] for token in word]

    def __call__(self, text: str) -> list[int]:
        return [token for piece in self.pieces(self.clean(text)) for token in self.merge(piece)]


@pytest.fixture(scope="module")
def openai_file(shared_data) -> pathlib.Path:
    return shared_data / "clip" / "bpe_simple_vocab_16e6.txt.gz"


@pytest.fixture(scope="module")
def openai(openai_file) -> OpenAITokenizer:
    return OpenAITokenizer(openai_file)


@pytest.fixture(scope="module")
def exported(openai_file) -> tokenizers.Tokenizer:
    vocabulary = load_vocabulary(pathlib.Path("clip.pt"), OPENAI_VOCAB_SIZE, openai_file)
    assert (vocabulary.start_token, vocabulary.end_token) == (49406, 49407)
    return vocabulary.tokenizer


def _ids(tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(OpenAITokenizer.clean(text), add_special_tokens=False).ids


def test_known_ids_of_openai(openai, exported):
    # The example of OpenAI's README, and words whose ids are widely quoted.
    for tokenize in (openai, functools.partial(_ids, exported)):
        assert tokenize("a diagram") == [320, 22697]
        assert tokenize("a photo of a cat") == [320, 1125, 539, 320, 2368]


def test_all_captions_of_activitynet_have_openai_s_ids(shared_data, openai, exported):
    data = json.loads((shared_data / "annotations" / "activitynet_val_1.json").read_text("utf-8"))
    captions = [sentence for video in data.values() for sentence in video["sentences"]]
    assert len(captions) == 17505
    encodings = exported.encode_batch([openai.clean(text) for text in captions], add_special_tokens=False)
    different = [text for text, found in zip(captions, encodings, strict=True) if found.ids != openai(text)]
    assert different == []


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_texts_have_openai_s_ids(openai, exported, text):
    assert _ids(exported, text) == openai(text)


@settings(max_examples=300)
@given(st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"], max_codepoint=0x1FFFF), max_size=40))
def test_any_text_has_openai_s_ids(openai, exported, text):
    assert _ids(exported, text) == openai(text)


def test_every_kind_of_file_gives_the_same_vocabulary(tmp_path, openai_file, exported):
    exported.save(str(tmp_path / "tokenizer.json"))
    model = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))["model"]
    split = tmp_path / "split"
    split.mkdir()
    (split / "vocab.json").write_text(json.dumps(model["vocab"]), "utf-8")
    (split / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])) + "\n", "utf-8")
    (tmp_path / "plain.txt").write_bytes(gzip.decompress(openai_file.read_bytes()))
    # As Hugging Face saves it: with its own normaliser, and merges as single strings.
    saved = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    saved["normalizer"] = {"type": "Lowercase"}
    saved["model"]["merges"] = [" ".join(pair) for pair in model["merges"]]
    (tmp_path / "hub.json").write_text(json.dumps(saved), "utf-8")
    for source in (
        tmp_path / "tokenizer.json",
        tmp_path / "hub.json",
        tmp_path / "plain.txt",
        split,
        split / "vocab.json",
        split / "merges.txt",
        openai_file.parent,
    ):
        loaded = load_vocabulary(pathlib.Path("clip.pt"), OPENAI_VOCAB_SIZE, source).tokenizer
        assert loaded.to_str() == exported.to_str(), source


def test_vocabulary_beside_the_checkpoint_is_found(checkpoint, tmp_path):
    assert load_vocabulary(checkpoint, TINY_SIZE).end_token == TINY_SIZE - 1
    shutil.copy(checkpoint, tmp_path / "other.pt")
    shutil.copy(checkpoint.with_suffix(".tokenizer.json"), tmp_path / "tokenizer.json")
    for place in (tmp_path / "other.pt", tmp_path):
        vocabulary = load_vocabulary(place, TINY_SIZE)
        assert vocabulary.tokenizer.encode("the and").tokens == ["the</w>", "and</w>"]


def test_foreign_tokenizers_are_kept_as_they_are(tmp_path):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "red": 1}, unk_token="<unk>"))
    words.normalizer = tokenizers.normalizers.Lowercase()
    words.enable_truncation(3)
    words.save(str(tmp_path / "tokenizer.json"))
    vocabulary = load_vocabulary(tmp_path, 2)
    assert vocabulary.tokenizer.encode("RED").ids == [1]
    assert vocabulary.tokenizer.truncation is None
    assert (vocabulary.start_token, vocabulary.end_token) == (None, None)


def test_vocabulary_of_another_model_is_refused(checkpoint, openai_file, tmp_path):
    with pytest.raises(GridClipError, match=r"has 49408 tokens, but .* has embeddings for 49407"):
        load_vocabulary(tmp_path / "clip.pt", 49407, _saved(openai_file, tmp_path))
    with pytest.raises(GridClipError, match=f"has {TINY_SIZE} tokens, but .* has embeddings for 600"):
        load_vocabulary(checkpoint, 600)


def _saved(openai_file: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    vocabulary = load_vocabulary(pathlib.Path("clip.pt"), OPENAI_VOCAB_SIZE, openai_file)
    vocabulary.tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b'{"model": {}}'),
        ("vocab.json", b"{}"),
        ("bpe.txt.gz", b"not gzip"),
        ("bpe.txt", b"#version\nonly-one-part\n"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GridClipError, match=f"{name} cannot be read as a vocabulary"):
        load_vocabulary(tmp_path / "clip.pt", OPENAI_VOCAB_SIZE, tmp_path / name)


def test_missing_tokenizer_option_is_named(tmp_path):
    with pytest.raises(GridClipError, match="nowhere does not exist: expected a tokenizer.json"):
        load_vocabulary(tmp_path / "clip.pt", OPENAI_VOCAB_SIZE, tmp_path / "nowhere")
    with pytest.raises(GridClipError, match="holds no vocabulary: expected a tokenizer.json"):
        load_vocabulary(tmp_path / "clip.pt", OPENAI_VOCAB_SIZE, tmp_path)


def test_hub_is_asked_only_for_openai_s_vocabulary(tmp_path, monkeypatch, openai_file):
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(_saved(openai_file, tmp_path))

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_args: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda _url: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_vocabulary(tmp_path / "none" / "clip.pt", OPENAI_VOCAB_SIZE).end_token == 49407
    assert asked == [("openai/clip-vit-large-patch14", "tokenizer.json")]
    with pytest.raises(GridClipError, match=r"vocabulary of its own \(700 tokens\): pass a `tokenizer`"):
        load_vocabulary(tmp_path / "none" / "clip.pt", 700)
    assert len(asked) == 1


def test_offline_there_is_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        GridClipError, match="the hub cannot be reached: pass a `tokenizer` .a tokenizer.json, "
    ) as caught:
        load_vocabulary(tmp_path / "clip.pt", OPENAI_VOCAB_SIZE)
    assert "\n" not in str(caught.value)
