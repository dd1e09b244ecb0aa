"""A model card: what a model is, what it learned from and how good it is, as `model_card.md` words it."""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from chargen.errors import amount, truncate
from chargen.storage.model_file import ModelFile
from chargen.storage.quantize import quantization_of

MAX_LISTED = 20
"""Texts and labels that are named."""
LOSSES = {
    "loss": "",
    "loss_forward": ", forward",
    "loss_backward": ", backward",
    "loss_network": ", without counts",
}
"""Losses of a part as training names them, and how the card does."""


def write_model_card(name: str, file: ModelFile, digest: str) -> str:
    """Write a model card in Markdown, with a head in YAML as hubs read it.

    Whatever stands in the file may be hostile: texts from it stand in code spans, in one line each, and nothing but
    words of chargen stands in the head.

    Args:
        name: of the model.
        file: the model.
        digest: the SHA-256 of its file.
    """
    template = files("chargen.exporting").joinpath("model_card.md").read_text("utf-8")
    card = template.format(
        cell=file.config.cell,
        name=quote(name),
        description=_describe(file),
        texts=_describe_texts(file),
        losses=_describe_losses(file),
        unit=file.vocabulary.unit,
        unknown=_describe_unknown(file),
        counts="counts, " * bool(file.mixtures),
        digest=digest,
    )
    return card + _signature(card.encode())


def is_own_card(data: bytes) -> bool:
    """Whether a file is a card as `write_model_card` wrote it: nobody has changed it since.

    Args:
        data: its bytes.
    """
    size = len(_signature(b""))
    return _signature(data[:-size]) == data[-size:].decode("utf-8", "replace")


def _signature(card: bytes) -> str:
    return f"\n<!-- Written by chargen: {hashlib.sha256(card).hexdigest()} -->\n"


def quote(text: object) -> str:
    """Write any text as a code span of Markdown, in one line: what is in it is no markup.

    Args:
        text: as a file has it.
    """
    characters = truncate(text, 100)
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in characters)
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    if "`" in shown or shown.strip() not in ("", shown):
        shown = f" {shown} "  # Markdown takes a blank away at both ends
    return f"{fence}{shown or ' '}{fence}"


def _list(texts: Any) -> str:
    texts = list(texts)
    more = f" and {len(texts) - MAX_LISTED:,} more" if len(texts) > MAX_LISTED else ""
    return ", ".join(map(quote, texts[:MAX_LISTED])) + more


def _describe(file: ModelFile) -> str:
    config, vocabulary = file.config, file.vocabulary
    quantization = quantization_of(file.arrays)
    unit, networks = vocabulary.unit, amount(len(file.networks), "network") + " of " if file.members else ""
    known = amount(len(vocabulary) - vocabulary.begin_symbols, unit)
    text = (
        f"A language model that writes one {unit} after the other: {networks}{config.cell.upper()} {config.num_layers} "
        f"x {config.hidden_size} over {known}, {file.parameters:,} parameters"
        f"{f' in {quantization}' * bool(quantization)}. "
    )
    text += "It reads both ways: a second stack reads backward." if config.bidirectional else "It reads forward."
    text += " The probabilities of all networks are averaged." * bool(file.members)
    if file.teachers:
        text += f" It has also learned what {amount(file.teachers, 'teacher')} wrote, networks that had read its texts."
    if file.mixtures:
        contexts = sum(len(mixture.tree.labels) for mixture in file.mixtures.values())
        text += f" Beside the network it has counts of its texts: what stood behind {amount(contexts, 'context')}."
    if vocabulary.records:
        text += " It writes whole records, each of which begins anew."
    if vocabulary.labels:
        text += f" Records have {amount(len(vocabulary.labels), 'label')}: {_list(vocabulary.labels)}."
    return text


def _describe_texts(file: ModelFile) -> str:
    sources = file.training.get("sources")
    lines = [f"- {amount(int(file.counts.sum()), file.vocabulary.unit)} for training"]
    for role, word in (("train", "from"), ("valid", "validated on"), ("test", "tested on")):
        names = sources.get(role) if isinstance(sources, Mapping) else None
        if isinstance(names, list) and names:
            lines.append(f"- {word} {_list(names)}")
    step, epoch = (_number(file.training.get(name)) for name in ("step", "epoch"))
    if step is not None and epoch is not None:
        lines.append(f"- step {step:,.0f}, epoch {epoch:.2f}")
    return "\n".join(lines)


def _describe_losses(file: ModelFile) -> str:
    rows = list(_loss_rows(file.training))
    if not rows:
        return "The file tells no loss."
    table = ["| text | nats per character | bits per character | measured on |", "|---|---|---|---|", *rows]
    ends = " The end of a record counts as a character." * file.vocabulary.records
    quantization = quantization_of(file.arrays)
    rounded = f" They were measured before the weights were rounded to {quantization}." * bool(quantization)
    how = (
        "The mean of -ln p, in nats, or -log2 p, in bits, of each character given those before it, in text that it did "
        f"not learn from, read as a whole with its state carried along and no adaptation.{ends} The weights are those "
        f"that validated best, which favours the validation text a little.{rounded}"
    )
    return "\n".join(table) + f"\n\n{how}"


def _loss_rows(training: Mapping[str, Any]) -> Iterator[str]:
    for role, word in (("valid", "validation"), ("test", "test")):
        for key, way in LOSSES.items():
            if (loss := _number(training.get(f"{role}_{key}"))) is None:
                continue
            characters = _number(training.get(f"{role}_characters"))
            share = "the whole" if training.get(f"{role}_whole") is True else "a part"
            where = share + (f", {amount(int(characters), 'character')}" if characters is not None else "")
            yield f"| {word}{way} | {loss:.4f} | {loss / math.log(2):.4f} | {where} |"


def _number(value: Any) -> float | None:
    """A number that a summary holds, which may hold anything."""
    valid = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**53
    return value if valid else None


def _describe_unknown(file: ModelFile) -> str:
    if file.vocabulary.unit == "byte":
        return "It knows every character, as bytes."
    known = amount(len(file.vocabulary.characters), "character")
    return f"It knows {known} and can read and write no others."
