"""`chargen corpus info`: tell what is in a text before a model learns it."""

import json
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import click

from chargen.api.corpus_info import CorpusInfo, InfoConfig, corpus_info
from chargen.cli.bars import TaskBar
from chargen.cli.flags import write_settings
from chargen.cli.options import GroupedCommand, option, settings_options
from chargen.cli.report import describe_left_out, name_label
from chargen.cli.signals import stop_on_signals
from chargen.cli.terminal import cut_into_rows, escape_control, log_compiling, print_line, terminal_width
from chargen.counting.baselines import Baselines
from chargen.counting.characters import CharacterCount
from chargen.counting.lines import Lines
from chargen.data.corpus_config import CorpusConfig
from chargen.data.repeats import BLOCK_LENGTH
from chargen.data.utf8 import as_json_text
from chargen.errors import SettingError, amount
from chargen.training.autosize import Sizes

LABEL_WIDTH, BASELINE_WIDTH = 14, 9
"""Columns of what stands before values and before figures: rows of figures fit 40 columns."""
MOST_GROUPS, MOST_LABELS = 12, 10
"""Scripts and labels that are listed."""
TOGETHER = "\xa0"
"""Stands for a blank at which no row is cut."""
Rows = Iterator[tuple[str, str]]


@click.command("info", cls=GroupedCommand)
@click.argument("sources", metavar="SOURCE...", nargs=-1)
@option("--valid", group="Files", multiple=True, metavar="SOURCE", help="Validate on this text instead of a part.")
@option("--test", group="Files", multiple=True, metavar="SOURCE", help="Test on this text instead of a part.")
@settings_options(CorpusConfig, "Text", escapes=("between", "records"))
@settings_options(InfoConfig, "Figures")
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object.")
def command(sources: tuple[str, ...], as_json: bool, **settings: Any) -> None:
    """Tell what is in a text before a model learns it.

    Files, characters by script, lines and copies; what the validation part costs simple models, which is what a network
    has to beat; what n-grams write; with --minutes, what chargen train would choose. SOURCE and the options of texts
    are those of chargen train, and so is the split. Warnings say what might be wrong, and what to do.

    \b
    chargen corpus info novel.txt
    chargen corpus info names.txt --records line --minutes 5
    """
    if not sources:
        raise SettingError("no text to look at: give a SOURCE, such as a file, a folder, - or python")
    names = {name: value for name, value in settings.items() if value is not None}
    if "minutes" in names:
        log_compiling()
    with stop_on_signals(), TaskBar("") as bar:
        info = corpus_info(sources, progress=bar.show, **names)
    if as_json:
        described = info.as_dict() | {"sample": as_json_text(info.sample, info.config.encoding == "raw")}
        click.echo(json.dumps(described))
        return
    _print_section("Text", _describe_text(info))
    _print_section("Characters", _describe_characters(info))
    if info.baselines:
        _print_baselines(info.baselines, info)
    if info.sample:
        click.echo(f"\nWhat {names.get('order', InfoConfig.order)}-grams write")
        text = info.sample.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        for line in escape_control(text).rstrip("\n").split("\n"):
            print_line(line)
    if info.sizes:
        _print_section(f"What train would choose for {amount(names['minutes'], 'minute')}", _describe_sizes(info.sizes))
    if info.warnings:
        click.echo("")
    for warning in info.warnings:
        print_line(f"warning: {escape_control(write_settings(warning), newlines=True)}")


def _print_section(title: str, rows: Rows) -> None:
    """Print rows under a title, with values below one another."""
    if title != "Text":
        click.echo("")
    print_line(title)
    width = terminal_width(sys.stdout)
    for label, value in rows:
        value = escape_control(value, newlines=True)
        pieces = [value] if width is None else cut_into_rows(value, max(width - LABEL_WIDTH, 20))
        for number, piece in enumerate(pieces):
            piece = piece.lstrip() if number else piece
            click.echo(f"{'' if number else label:{LABEL_WIDTH}}{piece}".rstrip().replace(TOGETHER, " "))


def _describe_files(info: CorpusInfo) -> Rows:
    """How many files there are, and which were not read."""
    report = info.report
    if report.files:
        yield "files", f"{amount(report.files, 'file')}, {amount(report.bytes, 'byte')}"
    if report.joined:
        between = "line end" if info.config.between is None else "separator"
        yield "", f"{amount(report.joined, between)} put between them"
    yield from (("", line) for line in describe_left_out(report, info.hidden_entries))


def _describe_text(info: CorpusInfo) -> Rows:
    """Files, sizes, parts, labels, lines, line ends and normal form."""
    unit = info.config.unit
    yield from _describe_files(info)
    sizes = {name: sum(getattr(part, name) for part in info.parts.values()) for name in ("ids", "characters")}
    sizes["characters"] -= sum(part.records for part in info.parts.values())
    amounts = [amount(sizes["characters"], "character")] * (info.facts.characters is not None)
    yield "size", ", ".join(amounts + [amount(sizes["ids"], "byte")] * (unit == "byte"))
    for role, part in info.parts.items():
        if part.ids or role != "test":
            records = f"{amount(part.records, 'record')}, " * (info.config.records is not None)
            ends = ", ends included" * (info.config.records is not None)
            yield role, records + amount(part.ids, unit) + ends + _describe_overlap(info, role)
    if info.labels:
        ranked = sorted(info.labels, key=lambda label: -info.labels[label])
        listed = ", ".join(f"{name_label(label)} {info.labels[label]:,}" for label in ranked[:MOST_LABELS])
        yield "labels", listed + f" and {len(ranked) - MOST_LABELS:,} more" * (len(ranked) > MOST_LABELS)
    yield from _describe_lines(info.facts.lines, info)
    if info.facts.line_ends:
        advice = " (--newline lf makes them LF)" * ([*info.facts.line_ends] == ["CR LF"])
        yield "line ends", ", ".join(f"{name} {count:,}" for name, count in info.facts.line_ends.items()) + advice
    if info.facts.characters:
        yield "normal form", "not NFC" if info.facts.not_nfc else "NFC"


def _describe_overlap(info: CorpusInfo, role: str) -> str:
    """How much of a part stands in the training part too."""
    noun = "records" if info.config.records is not None else "lines"
    shares = [(info.facts.lines.in_train[role], f"of its {noun}")] if role in info.facts.lines.in_train else []
    shares *= info.facts.characters is not None
    if role != "train" and info.repeated[role]:
        shares.append((info.repeated[role], f"of its stretches of {BLOCK_LENGTH} {info.config.unit}s"))
    listed = " and ".join(f"{share:.1%} {what}" for share, what in shares)
    return f"; {listed} stand in train too" if listed else ""


def _describe_lines(lines: Lines, info: CorpusInfo) -> Rows:
    noun = "record" if info.config.records is not None else "line"
    empty = f" and {amount(lines.empty, 'empty one')}" if lines.empty and noun == "line" else ""
    if not lines.count or info.facts.characters is None:
        return
    lengths = f"of {lines.shortest:,} to {amount(lines.longest, info.config.unit)}, half of them up to {lines.median:,}"
    yield f"{noun}s", f"{lines.count:,}{empty}, {lengths}"
    part = f" of {lines.compared:,} compared" * (lines.compared < lines.count)
    shares = f"{lines.repeated / lines.compared:.1%}, {lines.repeated_ids / lines.ids:.1%} of the {info.config.unit}s"
    yield "", f"{lines.repeated:,}{part} have stood there before ({shares})"
    if info.sorted_lines:
        yield "", "sorted"


def _describe_characters(info: CorpusInfo) -> Rows:
    characters = info.facts.characters
    if characters is None:
        yield "bytes", "any: they are not read as characters"
        return
    total = max(sum(group.count for group in characters.groups), 1)
    yield "distinct", f"{characters.distinct:,}, of which {characters.once:,} occur once"
    if info.folded:
        yield "", f"{info.folded:,} rarer ones share the unknown symbol and are not counted here"
    width = max((len(f"{group.count:,}") for group in characters.groups), default=0)
    if characters.groups:
        yield "", f"{'count':>{max(width, 9)}} {'share':>6} distinct"
    for group in characters.groups[:MOST_GROUPS]:
        figures = f"{group.count:>{max(width, 9)},} {group.count / total:>6.1%} {group.distinct:>8,}"
        yield group.name[: LABEL_WIDTH - 1], figures
    if len(characters.groups) > MOST_GROUPS:
        yield "", f"and {len(characters.groups) - MOST_GROUPS:,} more"
    if characters.common:
        yield "most common", "  ".join(f"{name_character(each.character)}{TOGETHER}{each.count / total:.1%}"
                                       for each in characters.common[:10])  # fmt: skip
    for label, counts in (("least common", characters.rare[:10]), ("controls", characters.controls),
                          ("invisible", characters.invisible)):  # fmt: skip
        if counts:
            yield label, _list_counts(counts)


def _list_counts(counts: tuple[CharacterCount, ...]) -> str:
    listed = "  ".join(f"{name_character(each.character)}{TOGETHER}{each.count:,}" for each in counts[:10])
    return listed + f"  and {len(counts) - 10:,} more" * (len(counts) > 10)


def name_character(character: str) -> str:
    """Write a character so that it can be seen: as it is, by a word, or by its code point.

    Args:
        character: one.
    """
    words = {" ": "space", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    visible = unicodedata.category(character)[0] in "LNPS"
    return words.get(character) or (character if visible else f"U+{ord(character):04X}")


def _print_baselines(baselines: Baselines, info: CorpusInfo) -> None:
    """Print what a network has to beat."""
    unit = info.config.unit if info.facts.characters is None else "character"
    each = info.config.unit
    notes = {"uniform": f"every {each} as likely", "entropy": f"single {each}s, by their own shares"}
    notes |= {"zlib": "gzip", "bz2": "bzip2", "lzma": "xz"}
    grams = [row.name for row in baselines.rows if row.name.endswith("-gram")]
    best = min((row for row in baselines.rows if row.name in grams), key=lambda row: row.nats_per_character).name
    notes[best] = "best n-gram" * (len(grams) > 1)
    left_out = {name for number, name in enumerate(grams[:-1], 1) if number > 10 and number % 10 and name != best}
    print_line("\nWhat a network has to beat on the validation part")
    print_line(f"{'':{BASELINE_WIDTH}}{'nats':>7} {'bits':>7}  per {unit}")
    for row in baselines.rows:
        figures = f"{row.nats_per_character:>7.4f} {row.bits_per_character:>7.4f}"
        if row.name not in left_out:
            print_line(f"{row.name:{BASELINE_WIDTH}}{figures}  {notes.get(row.name, '')}".rstrip())
    counted = ", each record's end among them" if info.config.records is not None else " behind the first"
    start = "On" if baselines.whole else "At the beginning of that part, on"
    notes_below = [f"{start} {amount(baselines.characters, unit)}{counted}."]
    within = ", within records" * (info.config.records is not None)
    learned = f"N-grams learn from the training part{within} (interpolated modified Kneser-Ney)"
    notes_below.append(learned + _describe_last(baselines.train_ids, info))
    if baselines.rows[-1].name == "lzma":
        added = "Compressors: what this text adds behind the training part"
        notes_below.append(added + _describe_last(baselines.compressed_ids, info))
    print_line(" ".join(notes_below))


def _describe_last(ids: int, info: CorpusInfo) -> str:
    """Say of how much of the training part figures are, where that is not the whole."""
    return f", of which they read the last {amount(ids, info.config.unit)}." if ids < info.parts["train"].ids else "."


def _describe_sizes(sizes: Sizes) -> Rows:
    model = sizes.model
    yield "model", f"{model.cell.upper()} {model.num_layers} x {model.hidden_size}"
    for number, reason in enumerate(sizes.reasons):
        yield "" if number else "chosen", reason
