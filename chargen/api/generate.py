"""Write text in one call."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from chargen.api.texts import Sources, read_single
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import WRITING_DEFAULTS, SampleConfig
from chargen.errors import SettingError
from chargen.insight.steering import Neurons
from chargen.insight.steering import set_neurons as hold_neurons
from chargen.model.config import require_bidirectional
from chargen.sampling.pieces import write_pieces
from chargen.sampling.processors import LogitsProcessor
from chargen.sampling.sampler import MAX_FIRST, Sampler
from chargen.sampling.selection import Accept, Selection, hash_sources
from chargen.sampling.start import Label
from chargen.settings import check_int, check_path, drop_none, make_settings
from chargen.storage.model_file import AnyModel, ModelFile, as_model_file
from chargen.storage.quantize import quantize as quantize_arrays


@overload
def generate(model: AnyModel, prime: str | Path = "", *, num: None = None, **settings: Any) -> str: ...


@overload
def generate(model: AnyModel, prime: str | Path = "", *, num: int, **settings: Any) -> list[str]: ...


def generate(
    model: AnyModel,
    prime: str | Path = "",
    *,
    length: int | None = None,
    num: int | None = None,
    first: int = 1,
    seed: int | None = None,
    reverse: bool = False,
    echo: bool = True,
    adapt: int = 0,
    encoding: str | None = None,
    errors: str = "strict",
    unknown: str = "error",
    quantize: str | None = None,
    set_neurons: Neurons | None = None,
    state_in: str | os.PathLike[str] | None = None,
    pick: int | None = None,
    state_out: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    vocabulary: Vocabulary | None = None,
    logits_processors: Sequence[LogitsProcessor] = (),
    label: Label = None,
    unique: bool = False,
    novel: Sources | None = None,
    accept: Accept | None = None,
    best_of: int = 1,
    **settings: Any,
) -> str | list[str]:
    """Write text, as `chargen sample` does. A `Sampler` goes on where it stopped, and writes character by character.

    With a model of records each text is one record. Filters throw records away and write on until there are enough:
    first `novel`, then `unique`, `accept` and, of those that are left, `best_of`.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        prime: text to go on from; or the Path of a file that holds it.
        length: characters to write beside the prime, of a record at most; None: 500, and on to the end of the line or
            word, or to the end of the record, which is cut at 10,000.
        num: how many texts, as a list; None: one, as a str.
        first: the number of the first text, counted from 1: `num=500` and `first=501` with `num=500` are, with the same
            seed, the two halves of `num=1000`. Filters that throw records away do not allow it.
        seed: 0 to 2**64 - 1, for the same text again; drawn by the system where None.
        reverse: write what comes before the prime, with a bidirectional model.
        echo: whether the prime, cleaned as the text that the model learned, is part of what is returned.
        adapt: learn from the prime first, so many times over, in a copy of the model.
        encoding: of the prime's file; None: that of the training text.
        errors: what to do with bytes that do not fit it, "strict" or "replace".
        unknown: what to do with characters of the prime that the model does not know: "error", "skip" or "replace".
        quantize: round the weights first, to "int8" or "bf16".
        set_neurons: hold hidden units at values, by layer, from 1, and number, from 0: {(1, 37): 0.9}.
        state_in: go on from a saved state, with its seed unless one is given.
        pick: of a saved state of several samples, which one goes on, counted from 1.
        state_out: save the state to this file at the end.
        device: "cpu", "cuda" or "mps".
        vocabulary: of a CharModel, which has none.
        logits_processors: functions (ids, logits) -> logits, as of a `Sampler`.
        label: of the records; or several labels with their weights.
        unique: whether each record comes once.
        novel: a source or several, of whose records none comes; read once, as the training text was.
        accept: a function of a list of records, called with many at once, that returns a list of bool: which to keep.
        best_of: K: of so many records the one whose symbols have the highest mean log-probability.
        **settings: fields of SampleConfig, such as `temperature` (0.8 by default) and `stop`.

    Returns:
        The text, a str; with `num` a list of them.

    Raises:
        SettingError: a setting is unknown or out of range, or contradicts another.
        ModelFileError: the model file is missing or damaged.
        DataError: the model does not know some characters of the prime.
        ChargenError: bans and no_repeat leave no character to write, filters keep no record of very many, or the
            model's numbers overflow.
    """
    file, first = as_model_file(model, vocabulary), check_int("first", first, 1, MAX_FIRST)
    filters: dict[str, Any] = {"unique": unique, "novel": novel, "accept": accept, "best_of": best_of}
    many = writes_many(file, num, state_in is not None or state_out is not None, filters, first)
    sampler, text = prepare_sampler(
        file, prime, num=1 if many or num is None else num, first=first, seed=seed, reverse=reverse, adapt=adapt,
        encoding=encoding, errors=errors, quantize=quantize, set_neurons=set_neurons, state_in=state_in,
        pick=pick, state_out=state_out, device=device, logits_processors=logits_processors, label=label,
        **settings,
    )  # fmt: skip
    sampler.feed(text, unknown)
    selection = new_selection(sampler, text, encoding, errors, **filters) if many else None
    written: list[list[str]] = [[text] if echo else [] for _ in range(1 if num is None else num)]
    for pieces in write_pieces(sampler, length, num=len(written), selection=selection):
        for number, piece in pieces:
            written[number].append(piece.text)
    if state_out is not None:
        sampler.save_state(state_out)
    texts = ["".join(reversed(parts) if reverse else parts) for parts in written]
    return texts[0] if num is None else texts


def prepare_sampler(
    file: ModelFile,
    prime: str | Path,
    *,
    num: int,
    first: int,
    seed: int | None,
    reverse: bool,
    adapt: int,
    encoding: str | None,
    errors: str,
    quantize: str | None,
    set_neurons: Neurons | None,
    state_in: str | os.PathLike[str] | None,
    pick: int | None,
    state_out: str | os.PathLike[str] | None,
    device: str,
    logits_processors: Sequence[LogitsProcessor] = (),
    label: Label = None,
    **settings: Any,
) -> tuple[Sampler, str]:
    """Make the sampler of `generate`, where its arguments are described, and clean the prime that it is to be fed."""
    config = make_settings(SampleConfig, WRITING_DEFAULTS | drop_none(settings))
    if device not in ("cpu", "cuda", "mps"):
        raise SettingError(f"device is {device!r}: it must be cpu, cuda or mps", "device")
    text = read_single(prime, file.reading, encoding, errors, "prime")
    if reverse:
        require_bidirectional(file.config, "`reverse`")
    if first != 1 and state_in is not None:
        problem = f"first is {first}: samples of a saved state have numbers of their own"
        raise SettingError(f"{problem}; leave out `first` or `state_in`", "first")
    if first != 1 and seed is None:
        raise SettingError(f"first is {first}: parts of one result have one seed; give `seed`", "first")
    for name, path in (("state_in", state_in), ("state_out", state_out)):
        if path is not None:
            check_path(name, path)
    direction = "backward" if reverse else "forward"
    if check_int("adapt", adapt, 0):
        file = _adapt(file, text, adapt, direction)
    file = hold_neurons(file, set_neurons, direction)
    if quantize:
        file = file.with_networks(quantize_arrays(arrays, quantize) for arrays in file.networks)
    sampler = Sampler(
        file, config, num=num, first=first, seed=seed, device=device, direction=direction,
        logits_processors=logits_processors, label=label,
    )  # fmt: skip
    if state_out is not None:
        sampler.check_state_path(state_out)
    _load_state(sampler, state_in, pick, seed)
    return sampler, text


def _load_state(
    sampler: Sampler, state_in: str | os.PathLike[str] | None, pick: int | None, seed: int | None
) -> None:  # fmt: skip
    """Go on from a saved state, where there is one."""
    if pick is not None and state_in is None:
        raise SettingError(f"pick is {pick}: it chooses among the samples of a saved state; give `state_in`", "pick")
    if state_in is not None:
        sampler.load_state(state_in, pick=pick)
        if seed is not None:
            sampler.reseed(seed)


def writes_many(file: ModelFile, num: int | None, saved: bool, filters: dict[str, Any], first: int = 1) -> bool:
    """Whether records are written in rows that are refilled, rather than by a sampler of as many samples.

    Args:
        file: the model.
        num: how many texts; None: one, as a str.
        saved: whether a saved state is read or written, which is one of a sampler.
        filters: by the names of the arguments of `generate`.
        first: the number of the first text.

    Raises:
        SettingError: there are filters, but no records, or a saved state; or texts are numbered of which some are
            thrown away.
    """
    active = [name for name, value in filters.items() if (value != 1 if name == "best_of" else value)]
    if active and not file.vocabulary.records:
        raise SettingError(f"{active[0]} is for records: this model was trained on running text", active[0])
    if active and saved:
        raise SettingError(f"{active[0]} chooses among whole records: leave out `state_in` and `state_out`", active[0])
    if first != 1 and (dropping := [name for name in active if name != "best_of"]):
        problem = f"first is {first}: which records `{dropping[0]}` keeps depends on all that come before"
        raise SettingError(f"{problem}; give each part a `seed` of its own", "first")
    return bool(file.vocabulary.records and not saved and (active or num is not None))


def new_selection(
    sampler: Sampler, prime: str, encoding: str | None, errors: str, *, unique: bool, novel: Sources | None,
    accept: Accept | None, best_of: int,
) -> Selection:  # fmt: skip
    """Make the filters of `generate`, where the arguments are described, for records that begin with a prime."""
    names = [novel] if isinstance(novel, (str, os.PathLike)) else novel
    known = hash_sources(names, sampler.reading, encoding, errors) if names else None
    backward = sampler.direction == "backward"
    return Selection(known=known, unique=unique, accept=accept, best_of=best_of, prime=prime, backward=backward)


def _adapt(file: ModelFile, prime: str, times: int, direction: str) -> ModelFile:
    """The model, once it has learned from the prime."""
    if not prime:
        raise SettingError("adapt learns from the prime: give `prime`", "adapt")
    from chargen.evaluation.dynamic import adapt_model

    return adapt_model(file, prime, times, direction=direction)
