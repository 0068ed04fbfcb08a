"""Train ``SentenceEncoder`` and its tokenizer on the docstrings of installed Python packages.

Run ``python specs/models/train_sentence_encoder.py`` (needs the package ``tokenizers``; a few
minutes on one core). It writes, below ``specs/``:

* ``tokenizers/sentence_embedding.json``: a WordPiece vocabulary of 4096 lower-case pieces;
* ``weights/sentence_encoder.safetensors``: the state dict, in float16 to halve its size.

Two sentences of one docstring are a pair that belongs together, all others of the batch are what
they are told apart from (a softmax over the batch, as in arXiv 1705.00652). The words' vectors
are trained alone at first, where a step is cheap, then the whole network.

The text: the docstrings of Python's standard library (PSF-2.0) and of PACKAGES, read from the
installed files. Their licences allow any use. None of that text is in what is written: the weights
and the 4096 word pieces are figures learned from it. No weights and no vocabulary of another model
go in. One docstring in twenty is held out.

A vocabulary that is there already is kept, since the library's trainer breaks ties at random. With
it, the seed and the thread count fixed, two runs on one machine with the same packages write the
same weights; delete the file to learn another one.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (torch, safetensors and tokenizers leave some of their own types unknown)

from __future__ import annotations

import ast
import csv
import hashlib
import importlib.util
import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from sentence_encoder import SentenceEncoder
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional

SPECS = Path(__file__).resolve().parents[1]
PACKAGES = {
    "BSD-3-Clause": ("networkx", "numpy", "scipy", "sklearn", "sympy", "torch", "torchvision"),
    "Apache-2.0": ("onnx", "openvino", "ray", "requests"),
    "MIT": ("pydantic", "setuptools", "urllib3"),
    "PSF-based": ("matplotlib",),
    "MIT-CMU": ("PIL",),
}
"""Packages that this project's own requirements install, by their licence."""
SKIPPED = {"site-packages", "test", "tests", "testing", "idlelib", "lib2to3", "turtledemo"}
BORROWED = {"_vendor", "extern", "externals", "third_party", "thirdparty", "thirdparty_files"}
"""Folders of code that packages took over from others, under other licences."""
TOKENIZER = SPECS / "tokenizers" / "sentence_embedding.json"
SEED = 0
VOCABULARY = 4096
LONGEST = 40  # tokens of a sentence in training
HELD_OUT = 20  # one docstring in so many
MOST_SENTENCES = 16  # of a docstring
DROPPED = 0.25  # share of tokens that are left out in training
SHARPNESS = 20.0  # what cosines are multiplied with before the softmax


class Stage(NamedTuple):
    """A part of the training: whether blocks take part, steps, pairs a step, peak rate."""

    whole: bool
    steps: int
    pairs: int
    rate: float


STAGES = (
    Stage(whole=False, steps=1500, pairs=512, rate=5e-3),
    Stage(whole=True, steps=500, pairs=128, rate=1e-3),
)

Document = tuple[str, ...]
"""The sentences of one docstring."""


# --- the text


def documents() -> list[Document]:
    """Return every docstring of two sentences or more, each once, in the order of the files."""
    folders = [Path(sysconfig.get_paths()["stdlib"])]
    for name in sorted(name for names in PACKAGES.values() for name in names):
        found = importlib.util.find_spec(name)
        folders += [Path(place) for place in (found and found.submodule_search_locations) or ()]
    texts = (text for folder in folders for file in python_files(folder) for text in docs(file))
    unique = dict.fromkeys(sentences(text) for text in dict.fromkeys(texts))
    return [document for document in unique if len(document) > 1]


def python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files of a package, without its tests and what it borrowed."""
    for file in sorted(folder.rglob("*.py")):
        if not (SKIPPED | BORROWED) & set(file.relative_to(folder).parts):
            yield file


def docs(file: Path) -> Iterator[str]:
    """Yield the docstrings in a file, each after its object's name in words."""
    try:
        tree = ast.parse(file.read_text("utf-8"))
    except (SyntaxError, ValueError):  # templates, and files that are broken on purpose
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            name = f"{file.stem} {getattr(node, 'name', '')}"
            if text:
                yield f"{in_words(name)}.\n\n{text}"


def in_words(name: str) -> str:
    """Turn ``_LinkedList.popLast`` into ``linked list pop last``."""
    return " ".join(re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)).lower()


def sentences(text: str) -> Document:
    """Return the prose of a docstring: no examples, headings, tables or lists of names."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        if re.search(r">>>|^\s*\.\. |-{3}|={3}|[|{}]", paragraph, re.MULTILINE):
            continue
        joined = " ".join(paragraph.split())
        found += [part for part in re.split(r"(?<=[.!?])\s+(?=[A-Z])", joined) if is_prose(part)]
    return tuple(dict.fromkeys(found))[:MOST_SENTENCES]


def is_prose(sentence: str) -> bool:
    """Whether most of it is words, and at least two."""
    words = re.findall(r"[A-Za-z]{2,}", sentence)
    return len(words) > 1 and sum(map(len, words)) > 0.6 * len(sentence)


def is_held_out(document: Document) -> bool:
    """Whether a docstring is kept from training; the same ones whatever the others are."""
    digest = hashlib.sha256("\n".join(document).encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT == 0


# --- the tokenizer


def tokenizer_of(texts: Sequence[Document]) -> Tokenizer:
    """Return the tokenizer that is there already, or else a new one, which is written."""
    if TOKENIZER.exists():
        return Tokenizer.from_file(str(TOKENIZER))
    tokenizer = train_tokenizer(texts)
    TOKENIZER.parent.mkdir(parents=True, exist_ok=True)
    TOKENIZER.write_bytes(tokenizer.to_str(pretty=True).encode() + b"\n")
    return tokenizer


def train_tokenizer(texts: Sequence[Document]) -> Tokenizer:
    """Return a WordPiece tokenizer as BERT's: lower case, ``[CLS]`` first and ``[SEP]`` last."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - a word piece
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=special, limit_alphabet=100, show_progress=False
    )
    tokenizer.train_from_iterator((line for text in texts for line in text), trainer)
    ends = [(name, special.index(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return tokenizer


# --- training


class Batch(NamedTuple):
    """Token ids and mask, int64 [n, tokens]."""

    ids: torch.Tensor
    mask: torch.Tensor


Ids = list[list[list[int]]]
"""Token ids by docstring and sentence."""


def encode(tokenizer: Tokenizer, texts: Sequence[Document]) -> Ids:
    """Return the token ids of every sentence, cut to LONGEST."""
    tokenizer.enable_truncation(LONGEST)
    flat = tokenizer.encode_batch([line for text in texts for line in text])
    tokenizer.no_truncation()
    lines = iter(flat)
    return [[next(lines).ids for _ in text] for text in texts]


def stack(rows: Sequence[Sequence[int]]) -> Batch:
    """Return rows of different lengths as one batch; padding is token 0."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return Batch(torch.from_numpy(ids), torch.from_numpy(mask))


def draw(
    texts: Ids, count: int, rng: np.random.Generator, dropped: float = 0.0
) -> tuple[Batch, Batch]:
    """Draw ``count`` docstrings, and two sentences of each, without some of their tokens."""
    chosen = [texts[i] for i in rng.choice(len(texts), count, replace=False)]
    pairs = [rng.choice(len(text), 2, replace=False) for text in chosen]
    sides = (stack([t[p[side]] for t, p in zip(chosen, pairs, strict=True)]) for side in (0, 1))
    left, right = (without_some(batch, dropped, rng) for batch in sides)
    return left, right


def without_some(batch: Batch, share: float, rng: np.random.Generator) -> Batch:
    """Mask a share of the tokens, never the first."""
    keep = torch.from_numpy(rng.random(batch.mask.shape) >= share).to(batch.mask.dtype)
    keep[:, 0] = 1
    return Batch(batch.ids, batch.mask * keep)


def embed(network: SentenceEncoder, batch: Batch, *, whole: bool = True) -> torch.Tensor:
    """Return the mean over a sentence's tokens, of length 1: float32 [n, width]."""
    hidden = network(batch.ids, batch.mask) if whole else network.words(batch.ids)
    weights = batch.mask.unsqueeze(2).to(hidden.dtype)
    return functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)


def loss_of(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return how badly each sentence finds its partner among all, both ways."""
    scores = SHARPNESS * left @ right.T
    partner = torch.arange(len(scores))
    one_way = functional.cross_entropy(scores, partner)
    return (one_way + functional.cross_entropy(scores.T, partner)) / 2


def train(texts: Ids) -> SentenceEncoder:
    """Fit a fresh network with Adam and a one-cycle rate, stage by stage."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    network = SentenceEncoder(VOCABULARY)
    torch.nn.init.normal_(network.words.weight, std=0.1)
    for stage in STAGES:
        optimizer = torch.optim.Adam(network.parameters(), stage.rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, stage.rate, total_steps=stage.steps, pct_start=0.1
        )
        for step in range(stage.steps):
            left, right = draw(texts, stage.pairs, rng, DROPPED)
            pair = (embed(network, side, whole=stage.whole) for side in (left, right))
            loss = loss_of(*pair)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if (step + 1) % 100 == 0:
                print(f"{'network' if stage.whole else 'words'} {step + 1}: {loss.item():.3f}")
    return network.eval()


# --- what came of it


def found_share(network: SentenceEncoder, texts: Ids, pool: int = 200) -> float:
    """Share of held-out sentences whose partner is the nearest of ``pool`` others."""
    rng = np.random.default_rng(SEED)
    right = 0
    for start in range(0, len(texts) - pool + 1, pool):
        left, partner = draw(texts[start : start + pool], pool, rng)
        with torch.inference_mode():
            scores = embed(network, left) @ embed(network, partner).T
        right += int((scores.argmax(1) == torch.arange(pool)).sum())
    return right / (len(texts) // pool * pool)


def committed_share(network: SentenceEncoder, tokenizer: Tokenizer) -> str:
    """How many of the committed sentences are nearest to their partner."""
    with (SPECS / "samples" / "sentences" / "pairs.csv").open(encoding="utf-8") as file:
        rows = [[row["first"], row["second"]] for row in csv.DictReader(file)]
    ids = encode(tokenizer, [tuple(row) for row in rows])
    with torch.inference_mode():
        first, second = (embed(network, stack([pair[side] for pair in ids])) for side in (0, 1))
        scores = first @ second.T
    right = int((scores.argmax(1) == torch.arange(len(rows))).sum())
    return f"{right} of {len(rows)}"


def main() -> None:
    """Train, report, write the weights, and the tokenizer where there is none."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    texts = documents()
    training = [text for text in texts if not is_held_out(text)]
    held_out = [text for text in texts if is_held_out(text)]
    print(f"{len(training)} docstrings to train on, {len(held_out)} held out")
    tokenizer = tokenizer_of(training)
    network = train(encode(tokenizer, training))
    print(f"held out: {found_share(network, encode(tokenizer, held_out)):.3f} nearest of 200")
    print(f"committed sentences: {committed_share(network, tokenizer)}")
    state = network.state_dict().items()
    file = SPECS / "weights" / "sentence_encoder.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(save({name: tensor.half() for name, tensor in state}))


if __name__ == "__main__":
    main()
