"""`chargen sample`: write text with a model."""

import re
from pathlib import Path
from typing import Any

import click

from chargen.api.generate import new_selection, prepare_sampler, writes_many
from chargen.cli.bars import Bar, TaskBar
from chargen.cli.options import PATH, GroupedCommand, config_option, option, refuse_unused, settings_options
from chargen.cli.print_samples import SamplePrinter
from chargen.cli.signals import StopRequest, stop_on_signals
from chargen.cli.terminal import TextWriter, log, log_compiling, log_literal_escapes, log_unknown_bans
from chargen.cli.texts import text_options
from chargen.cli.threads_option import threads_option
from chargen.decoding.choose import WRITING_DEFAULTS, SampleConfig
from chargen.errors import ChargenError, SettingError, amount, repr_short
from chargen.rng import MAX_SEED
from chargen.sampling.records import write_records
from chargen.sampling.rounding import DEFAULT_LENGTH, MAX_RECORD, default_length
from chargen.sampling.sampler import MAX_FIRST, Sampler
from chargen.sampling.selection import Selection
from chargen.storage.model_file import read_model
from chargen.storage.quantize import QUANTIZATIONS


def _read_neurons(
    ctx: click.Context, parameter: click.Parameter, words: tuple[str, ...]
) -> dict[tuple[int, int], float]:
    """Values of hidden units by layer and number."""
    neurons: dict[tuple[int, int], float] = {}
    for word in words:
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9})=(.+)", word, re.ASCII | re.DOTALL)
        try:
            place, value = (int(match[1]), int(match[2])), float(match[3])  # type: ignore[index]  # caught below
        except (TypeError, ValueError) as error:
            needed = "it must be a layer, a hidden unit and a number, such as 1:37=0.9"
            raise SettingError(f"--set-neuron is {repr_short(word)}: {needed}", "set_neurons") from error
        if place in neurons:
            raise SettingError(f"--set-neuron names hidden unit {place[0]}:{place[1]} twice: give it one value")
        neurons[place] = value
    return neurons


@click.command("sample", cls=GroupedCommand, exclusive=[("prime", "prime_file")])
@click.argument("model", type=PATH)
@option("--length", group="Text", type=click.IntRange(0), metavar="N",
        help="Characters to write beside the prime, of a record at most.",
        shown_default=f"{DEFAULT_LENGTH}, rounded up to a line or word; a record as long as it is")  # fmt: skip
@option("--prime", group="Text", metavar="TEXT", help="Text to go on from.")
@option("--prime-file", group="Text", type=PATH, metavar="FILE",
        help="The same from a file, of any length; - is standard input.")  # fmt: skip
@text_options("that file", strict=True)
@option("--adapt", group="Text", type=click.IntRange(0), default=0, metavar="N",
        help="Learn from the prime first, N times over, in a copy of the model: it shapes what follows.")  # fmt: skip
@option("--reverse", group="Text", is_flag=True,
        help="Write what comes before the prime; for a model trained with --bidirectional.")  # fmt: skip
@option("--echo/--no-echo", group="Text", default=True, help="Print the prime with the text.", shown_default="yes")
@option("--num", group="Text", type=click.IntRange(1), default=1, metavar="N", show_default=True,
        help="Samples to write side by side.")  # fmt: skip
@option("--first", group="Text", type=click.IntRange(1, MAX_FIRST), default=1, metavar="N", show_default=True,
        help="Begin with sample N, counted from 1 as --pick does: --num 500, and --num 500 --first 501, with one "
        "--seed, are the halves of --num 1000.")  # fmt: skip
@option("--separator", group="Text", escapes=True, metavar="TEXT",
        help="Between samples.", shown_default="NUL, as for xargs -0; on a terminal a blank line; of records what "
        "stood between them in training, a line end where they are lines")  # fmt: skip
@option("--seed", group="Text", type=click.IntRange(0, MAX_SEED), metavar="N",
        help="Same seed, same text.", shown_default="another one each time, told on standard error")  # fmt: skip
@settings_options(SampleConfig, "Choice of characters", defaults=WRITING_DEFAULTS)
@option("--label", group="Records", metavar="NAME", help="Write records with this label, where the model has labels.")
@option("--unique", group="Records", is_flag=True, help="Write no record twice.")
@option("--novel", group="Records", multiple=True, metavar="SOURCE",
        help="Write no record that occurs in this text, which is read once, as in training; may be given several "
        "times.")  # fmt: skip
@option("--best-of", group="Records", type=click.IntRange(1), default=1, metavar="K", show_default=True,
        help="Of each K records, write the one whose characters are the most likely on average.")  # fmt: skip
@option("--quantize", group="Files", type=click.Choice(QUANTIZATIONS), metavar="KIND",
        help="Round the weights first, as chargen export does; int8 is the fastest.")  # fmt: skip
@option("--set-neuron", "set_neurons", group="Files", multiple=True, callback=_read_neurons, metavar="LAYER:UNIT=X",
        help="Hold a hidden unit at a value, such as 1:37=0.9; layers count from 1, hidden units from 0. May be given "
        "several times.")  # fmt: skip
@option("--format", "form", group="Files", type=click.Choice(["text", "jsonl"]), default="text", show_default=True,
        help="jsonl: one JSON object a sample, with the model's log-probability of each character in nats, before "
        "temperature and filters.")  # fmt: skip
@option("--state-in", group="Files", type=PATH, help="Go on from a saved state.")
@option("--pick", group="Files", type=click.IntRange(1), metavar="N",
        help="Of a saved state of several samples, go on from this one: 1 is the first.")  # fmt: skip
@option("--state-out", group="Files", type=PATH, help="Save the state at the end, to go on tomorrow.")
@option("--device", group="Files", default="cpu", show_default=True, metavar="NAME",
        help="cpu, or cuda or mps through torch.")  # fmt: skip
@config_option
@threads_option
def command(
    model: Path,
    length: int | None,
    prime: str | None,
    prime_file: Path | None,
    unknown: str,
    echo: bool,
    num: int,
    separator: str | None,
    seed: int | None,
    form: str,
    **options: Any,
) -> None:
    """Write text with a model.

    MODEL is a model file, the folder of a run, or shakespeare, a model that comes with chargen.

    \b
    chargen sample shakespeare --prime "ROMEO:"
    chargen sample checkpoints/novel --length 2000 --temperature 0.8
    chargen sample checkpoints/novel --prime "It was a" --num 3
    chargen sample checkpoints/novel --reverse --prime "ever after."
    chargen sample checkpoints/names --num 50 --unique --novel names.txt
    """
    if prime is not None and prime_file is not None:
        raise SettingError("--prime and --prime-file contradict each other: give one")
    if form == "jsonl":
        refuse_unused(("separator",), "--format jsonl")
    file = read_model(model)
    if options["device"] == "cpu":
        log_compiling()
    filters = {"novel": options.pop("novel"), "unique": options.pop("unique"), "accept": None}
    filters["best_of"] = options.pop("best_of")
    saved = options["state_in"] is not None or options["state_out"] is not None
    many = writes_many(file, num if num > 1 else None, saved, filters, options["first"])
    sampler, text = prepare_sampler(file, prime_file or prime or "", num=1 if many else num, seed=seed, **options)
    log_unknown_bans(sampler.config.ban, file.vocabulary)
    texts = {"--stop": options["stop"] or (), "--ban": [options["ban"] or ""], "--prime": [prime or ""]}
    log_literal_escapes(file.vocabulary, texts)
    sampler.feed(text, unknown)
    if seed is None and options["state_in"] is None:
        log(f"seed {sampler.seed}")
    state_out = options["state_out"]
    selection = new_selection(sampler, text, options["encoding"], options["errors"], **filters) if many else None
    with stop_on_signals() as stop:
        stop.deferred = not many  # the state may be wanted
        writer = TextWriter(raw=file.vocabulary.raw)
        shown = {"seed": sampler.seed, "prime": text, "label": options["label"]}
        printer = SamplePrinter(
            num, text if echo else "", writer, form, options["reverse"], separator, shown,
            first=sampler.snapshot().streams[0].index, continues=options["first"] > 1,
        )  # fmt: skip
        if not saved:
            printer.separate_records(file)
        _write_and_print(sampler, length, selection, printer, stop, state_out)
    if state_out is not None:
        sampler.save_state(state_out)
    if stop:
        raise stop.error()


def _write_and_print(
    sampler: Sampler, length: int | None, selection: Selection | None, printer: SamplePrinter, stop: StopRequest,
    state_out: Path | None,
) -> None:  # fmt: skip
    """Write and print samples until there are enough, or a signal asks for an end."""
    try:
        if selection:
            _write_many(sampler, length, selection, printer)
        else:
            _write(sampler, length, printer, stop)
        printer.close()
    except OSError:  # the reader of a pipe has had enough, or the terminal is gone
        if state_out is not None:
            sampler.save_state(state_out)
        raise
    except ChargenError:  # no character is allowed next: what was written is printed
        printer.close()
        raise


def _write(sampler: Sampler, length: int | None, printer: SamplePrinter, stop: StopRequest) -> None:
    """Write and print characters until there are enough."""
    total = default_length(sampler.vocabulary) if length is None else length
    cut = sum(not stream.ended for stream in sampler.snapshot().streams)
    printer.begin()
    # A reversed sample is printed at its end, as its last character comes first: only there is a bar of use.
    with Bar(total=total, unit="char", delay=1, disable=None if printer.reverse else True) as bar:
        for characters in sampler.write(total, rounded=length is None):
            for character in characters:
                printer.add(character)
                cut -= character.stopped
            bar.update()
            if stop:
                return
    if sampler.vocabulary.records and length is None:
        _log_cut(cut)


def _log_cut(records: int) -> None:
    if records:
        log(f"note: {amount(records, 'record')} cut at {MAX_RECORD:,} characters: no end came")


def _write_many(sampler: Sampler, length: int | None, selection: Selection, printer: SamplePrinter) -> None:
    """Write and print records until there are enough."""
    cut = 0
    with TaskBar("record") as bar:
        for number, sample in enumerate(write_records(sampler, printer.num, length=length, selection=selection)):
            printer.print_sample(number, sample)
            cut += length is None and not sample.stopped
            if not printer.writer.terminal:  # where they are seen, they show how far they are
                bar.show("records", number + 1, printer.num)
    _log_cut(cut)
    if selection.thrown_away:
        log(f"note: {selection}")
