"""`chargen sample`: write text with a model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from chargen.api.generate import prepare_sampler
from chargen.cli.bars import Bar
from chargen.cli.options import PATH, GroupedCommand, config_option, option, refuse_unused, settings_options
from chargen.cli.signals import StopRequest, stop_on_signals
from chargen.cli.terminal import TextWriter, log, log_compiling, log_literal_escapes, log_unknown_bans, write_separator
from chargen.cli.texts import text_options
from chargen.decoding.choose import WRITING_DEFAULTS, SampleConfig
from chargen.errors import ChargenError, SettingError
from chargen.rng import MAX_SEED
from chargen.sampling.rounding import DEFAULT_LENGTH
from chargen.sampling.sample import Character, Sample
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import read_model
from chargen.storage.quantize import QUANTIZATIONS


@click.command("sample", cls=GroupedCommand, exclusive=[("prime", "prime_file")])
@click.argument("model", type=PATH)
@option("--length", group="Text", type=click.IntRange(0), metavar="N",
        help="Characters to write beside the prime.",
        shown_default=f"{DEFAULT_LENGTH}, rounded up to a line or word")  # fmt: skip
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
@option("--separator", group="Text", escapes=True, metavar="TEXT",
        help="Between samples.", shown_default="NUL, as for xargs -0; on a terminal a blank line")  # fmt: skip
@option("--seed", group="Text", type=click.IntRange(0, MAX_SEED), metavar="N",
        help="Same seed, same text.", shown_default="another one each time, told on standard error")  # fmt: skip
@settings_options(SampleConfig, "Choice of characters", defaults=WRITING_DEFAULTS)
@option("--quantize", group="Files", type=click.Choice(QUANTIZATIONS), metavar="KIND",
        help="Round the weights first, as chargen export does; int8 is the fastest.")  # fmt: skip
@option("--format", "form", group="Files", type=click.Choice(["text", "jsonl"]), default="text", show_default=True,
        help="jsonl: one JSON object a sample, with the model's log-probability of each character in nats, before "
        "temperature and filters.")  # fmt: skip
@option("--state-in", group="Files", type=PATH, help="Go on from a saved state.")
@option("--state-out", group="Files", type=PATH, help="Save the state at the end, to go on tomorrow.")
@option("--device", group="Files", default="cpu", show_default=True, metavar="NAME",
        help="cpu, or cuda or mps through torch.")  # fmt: skip
@config_option
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
    """
    if prime is not None and prime_file is not None:
        raise SettingError("--prime and --prime-file contradict each other: give one")
    if form == "jsonl":
        refuse_unused(("separator",), "--format jsonl")
    file = read_model(model)
    if options["device"] == "cpu":
        log_compiling()
    sampler, text = prepare_sampler(file, prime_file or prime or "", num=num, seed=seed, **options)
    log_unknown_bans(sampler.config.ban, file.vocabulary)
    texts = {"--stop": options["stop"], "--ban": [options["ban"] or ""], "--prime": [prime or ""]}
    log_literal_escapes(file.vocabulary, texts)
    sampler.feed(text, unknown)
    if seed is None and options["state_in"] is None:
        log(f"seed {sampler.seed}")
    state_out = options["state_out"]
    with stop_on_signals() as stop:
        stop.deferred = True  # the state may be wanted
        writer = TextWriter(raw=file.vocabulary.raw)
        printer = _SamplePrinter(num, text if echo else "", writer, form, options["reverse"], separator)
        try:
            _write(sampler, length, printer, stop)
            printer.close(sampler.seed, text)
        except OSError:  # the reader of a pipe has had enough, or the terminal is gone
            if state_out is not None:
                sampler.save_state(state_out)
            raise
        except ChargenError:  # no character is allowed next: what was written is printed
            printer.close(sampler.seed, text)
            raise
    if state_out is not None:
        sampler.save_state(state_out)
    if stop:
        raise stop.error()


def _write(sampler: Sampler, length: int | None, printer: "_SamplePrinter", stop: StopRequest) -> None:
    """Write and print characters until there are enough, or a signal asks for an end."""
    total = DEFAULT_LENGTH if length is None else length
    # A reversed sample is printed at its end, as its last character comes first: only there is a bar of use.
    with Bar(total=total, unit="char", delay=1, disable=None if printer.reverse else True) as bar:
        for characters in sampler.write(total, rounded=length is None):
            for character in characters:
                printer.add(character)
            bar.update()
            if stop:
                break


@dataclass
class _SamplePrinter:
    """Prints the first sample as it comes and the others after it; JSON lines and reversed samples all at the end."""

    num: int
    echo: str
    writer: TextWriter
    form: str
    reverse: bool
    separator: str | None

    def __post_init__(self) -> None:
        self.held: list[list[Character]] = [[] for _ in range(self.num)]
        if not self.reverse:
            self._begin(0)

    def _begin(self, number: int) -> None:
        if self.form == "text":
            headings = [f"{number + 1} of {self.num}"] if self.num > 1 else []
            write_separator(self.writer, number, self.separator, headings)
            self.writer.write("" if self.reverse else self.echo)

    def add(self, character: Character) -> None:
        """Print a character of a sample, or hold it back."""
        if self.form == "text" and character.stream == 0 and not self.reverse:
            self.writer.write(character.character)
        else:
            self.held[character.stream].append(character)

    def close(self, seed: int, prime: str) -> None:
        """Print the characters that were held back."""
        for number, characters in enumerate(self.held):
            sample = Sample.of(characters, self.reverse)
            if self.form == "jsonl":
                line = {"sample": number, "seed": seed, "prime": prime, "text": sample.text, "stopped": sample.stopped}
                line |= {"reverse": True} if self.reverse else {}
                self.writer.write(json.dumps({**line, "log_probs": [round(p, 6) for p in sample.log_probs]}) + "\n")
            elif number or self.reverse:
                self._begin(number)
                self.writer.write(sample.text + self.echo * self.reverse)
        self.writer.close()
