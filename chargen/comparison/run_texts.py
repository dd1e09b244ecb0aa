"""Which texts a run learned and was judged on: losses of different texts, or parts of a text, do not compare."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chargen.errors import truncate
from chargen.storage.model_file import ModelFile

COMMON = 20
"""Characters whose counts tell one text from another; rarer ones may be folded in one run and not in the other."""
READING = ("encoding", "errors", "newline", "normalize", "documents", "between", "include", "exclude", "records",
           "text_field", "label_field", "label_from")  # fmt: skip
SPLITTING = ("records", "valid_fraction", "test_fraction", "shuffle", "split_seed")


@dataclass(frozen=True)
class RunText:
    """A text that a run learned, or was judged on.

    Args:
        name: of its files and, where it is a part of the training text, of that part.
        key: equal of equal texts, as far as a model file knows: of the training text its length, and how often its
            commonest characters occur; of a part cut off it these, and how it was cut; of a text of its own its files,
            and how they are read.
        characters: how many were scored, where that was all of it.
    """

    name: str
    key: tuple[Any, ...]
    characters: int | None = None


def run_texts(model: ModelFile, settings: Mapping[str, Any]) -> dict[str, RunText]:
    """Say which texts a run learned and was judged on.

    Args:
        model: of the run; its training summary may hold anything.
        settings: of the run.

    Returns:
        By "train" and, where there is such a part, "valid" and "test".
    """
    training, counts = model.training, _count(model)
    learned = source_names(training, "train")
    texts = {"train": RunText(learned, counts)}
    for role in ("valid", "test"):
        names, share = source_names(training, role), settings.get(f"{role}_fraction")
        if names:
            key = names, *(settings.get(name) for name in READING)
        elif share:
            names = f"{share} of {learned or 'a text'}"
            key = *(settings.get(name) for name in SPLITTING), counts
        else:
            continue
        characters = training.get(f"{role}_characters")
        is_whole = training.get(f"{role}_whole") is True and type(characters) is int
        texts[role] = RunText(names, key, characters if is_whole else None)
    return texts


def source_names(training: Mapping[str, Any], role: str) -> str:
    """List the files of a role, without their folders; "" where there are none.

    Args:
        training: the summary in a model file, which may hold anything.
        role: "train", "valid" or "test".
    """
    sources = training.get("sources")
    names = sources.get(role) if isinstance(sources, dict) else None
    return truncate(names, 200, lambda listed: ", ".join(map(str, names))) if isinstance(names, list) else ""


def _count(model: ModelFile) -> tuple[Any, ...]:
    """How long the training text is, and how often its commonest characters occur; of ASCII in bytes the same."""
    vocabulary, counts = model.vocabulary, model.counts.tolist()
    characters = "".join(map(chr, range(128))) if vocabulary.unit == "byte" else vocabulary.characters
    common = sorted(zip(counts, characters, strict=False), key=lambda pair: (-pair[0], pair[1]))[:COMMON]
    return sum(counts), *common


def number_texts(texts: Sequence[RunText]) -> list[int]:
    """Give equal texts equal numbers, from 0 for the one that most runs have.

    Args:
        texts: of runs. One whose length is not known equals those of its key, where these have one length.
    """
    lengths = {text.key: {other.characters or 0 for other in texts if other.key == text.key} - {0} for text in texts}
    same = [(text.key, text.characters or (max(lengths[text.key]) if len(lengths[text.key]) == 1 else None))
            for text in texts]  # fmt: skip
    counts, names = Counter(same), {identity: text.name for identity, text in zip(same, texts, strict=True)}
    ranked = sorted(counts, key=lambda identity: (-counts[identity], names[identity], repr(identity)))
    return [ranked.index(identity) for identity in same]
