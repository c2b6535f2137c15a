"""A vocabulary in any of its usual files in, one tokenizer.json for the model folder out.

The file splits and merges as OpenAI's tokenizer does after its cleaning (ftfy, HTML entities, white space, lower case),
which is the reader's business: it has no normaliser, adds no start or end token, and does not truncate.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers

from .. import GridClipError

logger = logging.getLogger(__name__)

START_TOKEN = "<|startoftext|>"
END_TOKEN = "<|endoftext|>"
OPENAI_VOCAB_SIZE = 49408

_WORD_END = "</w>"
_HUB_REPOSITORY = "openai/clip-vit-large-patch14"
_HUB_FILE = "tokenizer.json"
_BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
_EXPECTED = f"a tokenizer.json, a vocab.json with its merges.txt, or OpenAI's {_BPE_FILE}"
# The pieces that OpenAI's tokenizer cuts a cleaned text into. Its regular expression ignores case, which matters for
# one lower-case letter alone: the long s is an s.
_PIECES = r"""'[sſ]|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and its special tokens; None where it does not name them."""

    tokenizer: tokenizers.Tokenizer
    start_token: int | None
    end_token: int | None

    @property
    def named_tokens(self) -> dict[str, Any]:
        """The special tokens that it names, as fields of a model's config."""
        named = {"start_token": self.start_token, "end_token": self.end_token}
        return {name: token for name, token in named.items() if token is not None}


def load_vocabulary(checkpoint: pathlib.Path, vocab_size: int, tokenizer: pathlib.Path | None = None) -> Vocabulary:
    """Find and read the vocabulary of a checkpoint.

    Args:
        checkpoint: the checkpoint's file or folder. Its vocabulary is looked for beside it: `<stem>.tokenizer.json`,
            then the usual names in its folder.
        vocab_size: tokens that the checkpoint has embeddings for. With OpenAI's number, and no vocabulary at hand,
            the one of OpenAI's model is fetched from the hub.
        tokenizer: a file or folder to take instead.

    Raises:
        GridClipError: there is no vocabulary, or it is another model's.
    """
    source = vocabulary_file(tokenizer) if tokenizer is not None else _find_beside(checkpoint)
    if source is None:
        source = _fetch_from_hub(checkpoint, vocab_size)
    try:
        loaded = _read(source, vocab_size)
    except Exception as error:  # the tokenizers package raises bare Exceptions
        raise GridClipError(f"{source} cannot be read as a vocabulary: {error!r}; expected {_EXPECTED}") from error
    found = loaded.get_vocab_size(with_added_tokens=True)
    if found != vocab_size:
        raise GridClipError(
            f"{source} has {found} tokens, but {checkpoint} has embeddings for {vocab_size}: it is the vocabulary of "
            "another model; pass the right one as `tokenizer`"
        )
    logger.info("vocabulary: %s", source)
    return Vocabulary(loaded, loaded.token_to_id(START_TOKEN), loaded.token_to_id(END_TOKEN))


def clip_tokenizer(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> tokenizers.Tokenizer:
    """OpenAI's byte-level BPE over a vocabulary that holds START_TOKEN and END_TOKEN."""
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=list(merges), end_of_word_suffix=_WORD_END, unk_token=END_TOKEN)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([START_TOKEN, END_TOKEN])
    return tokenizer


def vocabulary_file(path: pathlib.Path) -> pathlib.Path:
    """A vocabulary's file: `path` itself, or the one in this folder; raises GridClipError where there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise GridClipError(f"`tokenizer` {path} does not exist: expected {_EXPECTED}")
    found = _find_in_folder(path)
    if found is None:
        raise GridClipError(f"`tokenizer` {path} holds no vocabulary: expected {_EXPECTED}")
    return found


def _find_beside(checkpoint: pathlib.Path) -> pathlib.Path | None:
    if checkpoint.is_dir():
        return _find_in_folder(checkpoint)
    sidecar = checkpoint.with_suffix(".tokenizer.json")
    return sidecar if sidecar.is_file() else _find_in_folder(checkpoint.parent)


def _find_in_folder(folder: pathlib.Path) -> pathlib.Path | None:
    for name in ("tokenizer.json", "vocab.json", _BPE_FILE):
        if (folder / name).is_file():
            return folder / name
    return None


def _fetch_from_hub(checkpoint: pathlib.Path, vocab_size: int) -> pathlib.Path:
    advice = f"pass a `tokenizer` ({_EXPECTED}), or put one beside the checkpoint"
    if vocab_size != OPENAI_VOCAB_SIZE:
        raise GridClipError(f"{checkpoint} has a vocabulary of its own ({vocab_size} tokens): {advice}")
    import huggingface_hub  # with its HTTP client: a machine without a network can do without both

    cached = huggingface_hub.try_to_load_from_cache(_HUB_REPOSITORY, _HUB_FILE)
    if isinstance(cached, str):
        return pathlib.Path(cached)
    try:
        # A download is tried again for half a minute without a network; this fails at once.
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(_HUB_REPOSITORY, _HUB_FILE))
        return pathlib.Path(huggingface_hub.hf_hub_download(_HUB_REPOSITORY, _HUB_FILE))
    except Exception as error:  # the hub's HTTP client has errors of its own, and it changes with the version
        logger.debug("hub: %s", error)
        raise GridClipError(f"no vocabulary for {checkpoint}, and the hub cannot be reached: {advice}") from error


def _read(path: pathlib.Path, vocab_size: int) -> tokenizers.Tokenizer:
    if path.suffix in (".gz", ".txt") and path.name != "merges.txt":
        return _read_openai(path, vocab_size)
    if path.name == "merges.txt" or path.name == "vocab.json":
        vocabulary = json.loads(path.with_name("vocab.json").read_text("utf-8"))
        lines = path.with_name("merges.txt").read_text("utf-8").splitlines()
        return clip_tokenizer(vocabulary, [_pair(line) for line in lines if line and not line.startswith("#version")])
    data = json.loads(path.read_text("utf-8"))
    model = data["model"]
    vocabulary = model.get("vocab")
    if model.get("end_of_word_suffix") == _WORD_END and {START_TOKEN, END_TOKEN} <= set(vocabulary):
        # Built anew, because these files come with normalisers that differ from OpenAI's cleaning in details.
        return clip_tokenizer(vocabulary, [_pair(merge) for merge in model["merges"]])
    loaded = tokenizers.Tokenizer.from_file(str(path))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def _read_openai(path: pathlib.Path, vocab_size: int) -> tokenizers.Tokenizer:
    """OpenAI's list of merges: bytes, bytes that end a word, one token per merge, and the two special tokens."""
    raw = path.read_bytes()
    lines = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8").split("\n")
    letters = _byte_letters()
    # The file has more merges than the model has tokens for, after a line that names its version.
    merges = [_pair(line) for line in lines[1 : 1 + vocab_size - 2 * len(letters) - 2] if line]
    tokens = letters + [letter + _WORD_END for letter in letters]
    tokens += ["".join(pair) for pair in merges] + [START_TOKEN, END_TOKEN]
    return clip_tokenizer({token: index for index, token in enumerate(tokens)}, merges)


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _byte_letters() -> list[str]:
    """The letter that stands for each byte, in the order of OpenAI's vocabulary.

    Printable Latin-1 bytes stand for themselves and come first; the others follow, as the letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(others)]
