"""`chargen fill`: write what stands between two texts."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from chargen.api.fill import read_template
from chargen.cli.bars import Bar
from chargen.cli.options import PATH, GroupedCommand, config_option, option, refuse_unused, settings_options
from chargen.cli.signals import stop_on_signals
from chargen.cli.terminal import TextWriter, log, log_compiling, log_literal_escapes, log_unknown_bans, write_separator
from chargen.cli.texts import text_options
from chargen.cli.threads_option import threads_option
from chargen.data.reading import clean
from chargen.decoding.choose import SampleConfig
from chargen.errors import SettingError, amount
from chargen.infill.fill import PARTICLES, Fill, Filler, gap_lengths
from chargen.infill.template import MARKER, Filled, Template, fill_gaps
from chargen.rng import MAX_SEED
from chargen.settings import drop_none
from chargen.storage.model_file import read_model


@click.command("fill", cls=GroupedCommand, exclusive=[("length", "min_length", "max_length")])
@click.argument("model", type=PATH)
@click.argument("source", type=PATH, required=False)
@option("--before", group="Text", metavar="TEXT", help="Text before the gap; without it the gap begins a text.")
@option("--after", group="Text", metavar="TEXT", help="Text behind the gap; without it anything may follow.")
@option("--length", group="Text", type=click.IntRange(0), metavar="N", help="Characters of a gap.")
@option("--min-length", group="Text", type=click.IntRange(0), metavar="N", help="Or at least so many.",
        shown_default="0")  # fmt: skip
@option("--max-length", group="Text", type=click.IntRange(0), metavar="N", help="And at most so many.")
@option("--marker", group="Text", default=MARKER, metavar="TEXT", show_default=True,
        help="What marks a gap in SOURCE; followed by {5} or {3-8} it says the gap's own length.")  # fmt: skip
@text_options("SOURCE", strict=True)
@option("--echo/--no-echo", group="Text", default=True, help="Print the text around the gaps too.", shown_default="yes")
@option("--num", group="Text", type=click.IntRange(1, 1_000_000), default=1, metavar="N", show_default=True,
        help="Alternatives to write, all different, with their scores.")  # fmt: skip
@option("--separator", group="Text", escapes=True, metavar="TEXT",
        help="Between alternatives.", shown_default="NUL, as for xargs -0; on a terminal a blank line")  # fmt: skip
@option("--seed", group="Text", type=click.IntRange(0, MAX_SEED), metavar="N",
        help="Same seed, same text.", shown_default="another one each time, told on standard error")  # fmt: skip
@option("--particles", group="Text", type=click.IntRange(1, 100_000), default=PARTICLES, metavar="N",
        show_default=True, help="Gaps tried side by side where there are too many to score all.")  # fmt: skip
@settings_options(SampleConfig, "Choice of characters")
@option("--format", "form", group="Files", type=click.Choice(["text", "jsonl"]), default="text", show_default=True,
        help="jsonl: one JSON object an alternative, with scores before temperature and filters.")  # fmt: skip
@config_option
@threads_option
def command(
    model: Path,
    source: Path | None,
    before: str | None,
    after: str | None,
    echo: bool,
    num: int,
    separator: str | None,
    seed: int | None,
    form: str,
    **options: Any,
) -> None:
    """Write what stands between two texts, or in the gaps of a file.

    MODEL is a model file or the folder of a run that was trained with --bidirectional. SOURCE is a text file whose gaps
    are marked with ___ (- is standard input). What is written is what the model finds likely there, given both sides;
    the score is the log-probability of the gap and of the 40 characters behind it, in nats. Options that choose
    characters act as in chargen sample, but --temperature acts on the whole gap, and --stop ends it.

    \b
    chargen fill checkpoints/novel --before "It was a dark and " --after " night" --length 6
    chargen fill checkpoints/novel letter.txt --length 8
    """
    if form == "jsonl":
        refuse_unused(("separator",), "--format jsonl")
    if source is not None and (before is not None or after is not None):
        raise SettingError("SOURCE and --before or --after contradict each other: give one way")
    if source is None and before is None and after is None:
        raise SettingError("nothing to fill: give --before and --after, or a SOURCE with gaps")
    reading = {name: options.pop(name) for name in ("encoding", "errors", "marker")}
    limits = [options.pop(name) for name in ("length", "min_length", "max_length")]
    lengths = gap_lengths(*limits) if source is None or limits != [None] * 3 else None
    file = read_model(model)
    log_compiling()
    filler = Filler(file, seed=seed, **drop_none(options))
    config = filler.config
    log_unknown_bans(config.ban, file.vocabulary)
    texts = {"--stop": config.stop, "--ban": [config.ban], "--before": [before or ""], "--after": [after or ""]}
    log_literal_escapes(file.vocabulary, texts)
    if source is not None:
        template = read_template(file, source, lengths=lengths, **reading)
    else:
        refuse_unused(tuple(reading), "--before and --after")
        assert lengths is not None
        parts = clean(before or "", file.reading), clean(after or "", file.reading)
        template = Template(parts, (lengths,))
    if seed is None:
        log(f"seed {filler.seed}")
    writer = TextWriter(raw=file.vocabulary.raw)
    fills: tuple[Fill, ...] = ()
    count = 0
    bar = Bar(total=1 + num * (len(template.lengths) - 1), unit="gap", delay=1)
    with stop_on_signals(), bar:
        for number, filled in enumerate(fill_gaps(filler, template, num, bar.update)):
            fills, count = fills or filled.fills, number + 1
            bar.clear()
            if form == "jsonl":
                writer.write(json.dumps({"alternative": number, "seed": filler.seed, **filled.describe()}) + "\n")
                continue
            scores = _describe_scores(number, filled, num) if num > 1 or sys.stderr.isatty() else []
            write_separator(writer, number, separator, scores)
            for line in () if writer.terminal else scores:
                log(line)
            _write_filled(writer, filled, template.parts if echo else None)
        writer.close()
    _log_search(fills)
    if count < num:
        advice = "there are no more" if fills[0].exact else "raise --particles, or allow more"
        log(f"note: {amount(count, 'different gap')} found, not {num}; {advice}")


def _write_filled(writer: TextWriter, filled: Filled, parts: tuple[str, ...] | None) -> None:
    """Write the gaps in colour between the parts of their text, or without those a line each."""
    gaps = [gap.text for gap in filled.gaps]
    if parts is None:
        writer.write("\n".join(gaps))
        return
    for part, gap in zip(parts, gaps, strict=False):
        writer.write(part)
        writer.write(gap, color="green")
    writer.write(parts[-1])


def _describe_scores(number: int, filled: Filled, num: int) -> list[str]:
    """Describe the scores of an alternative, a line for each gap."""
    lines = []
    for index, gap in enumerate(filled.gaps, start=1):
        label = f" gap {index}:" if len(filled.gaps) > 1 else ""
        lines.append(
            f"{number + 1} of {num}:{label} score {gap.score:.2f} ({gap.log_prob:.2f} for the gap, "
            f"{gap.log_prob_after:.2f} for what follows), probability {gap.probability:.2g}"
        )
    return lines


def _log_search(fills: tuple[Fill, ...]) -> None:
    """Log how thorough the search was, a line for each gap."""
    for index, fill in enumerate(fills, start=1):
        label = f"gap {index}: " if len(fills) > 1 else ""
        if fill.exact:
            log(f"{label}exact: {amount(fill.found, 'possible gap')}, all scored")
        else:
            size = fill.effective_sample_size
            advice = "; raise --particles for a better search" if size < fill.particles / 10 else ""
            gaps = amount(fill.found, "different gap")
            log(f"{label}{gaps} found, effective sample size {size:.1f} of {fill.particles:,}{advice}")
