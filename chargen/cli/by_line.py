"""What `chargen score` prints of records, or of lines: one line or JSON object for each, then what all cost."""

import heapq
import json
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from chargen.api.records import RecordScores, RecordTotals
from chargen.cli.report import list_characters, name_label
from chargen.cli.terminal import escape_control, log, print_line
from chargen.cli.texts import log_text_report, log_unknown_labels
from chargen.data.utf8 import as_json_text
from chargen.errors import amount

if TYPE_CHECKING:
    from chargen.evaluation.record_scores import RecordScore


def print_records(
    scores: RecordScores, noun: str, *, raw: bool, worst: int | None, as_json: bool, brief: bool, skips: bool,
    close_bar: Callable[[], object],
) -> None:  # fmt: skip
    """Print the scores of records in their order, or of the least likely; then tell what all cost.

    Args:
        scores: those.
        noun: what a record is called.
        raw: whether lone surrogates are bytes.
        worst: print so many, those of the least mean log-probability, the least likely first; None for all.
        as_json: print JSON objects in place of lines.
        brief: print totals only.
        skips: whether unknown characters were left out.
        close_bar: called before something is printed, where that waits for all scores.
    """
    chosen: Iterable[RecordScore] = scores
    if worst is not None:  # it holds so many at a time
        chosen = heapq.nsmallest(worst, scores, key=lambda score: score.mean)
        close_bar()
    elif not as_json and not brief:
        log(f"nats per character, nats in all, place, {noun}")
    for score in chosen:
        if as_json and not brief:
            click.echo(json.dumps(_to_json(score, raw), separators=(",", ":")))
        elif not brief:
            print_line(_describe(score, raw))
    close_bar()
    totals = scores.totals
    if as_json and brief:
        click.echo(json.dumps(_totals_to_json(totals), separators=(",", ":")))
    else:
        _write_totals(totals, noun, print_line if brief else log)
    charged = totals.unknown * (not skips)
    log_text_report(totals.replaced, totals.passed_over, totals.unseen, charged, totals.unknown - charged)
    log_unknown_labels(sorted(totals.unknown_labels))


def _describe(score: "RecordScore", raw: bool) -> str:
    """A record's line: its figures, where it stands, its likeliest label, its text, and unknown characters by name."""
    place = f"{score.name}:{score.line}" if score.name else str(score.line)
    text = score.text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if raw else score.text
    columns = [f"{score.mean:9.4f} {score.log_prob:10.2f}", escape_control(place, newlines=True)]
    if score.label_probs is not None and score.guess is not None:
        columns.append(f"{escape_control(name_label(score.guess))} {score.label_probs[score.guess]:.3f}")
    columns.append(escape_control(text, newlines=True))
    if score.unknown:
        columns.append(f"(unknown: {escape_control(list_characters(score.unknown), newlines=True)})")
    return "  ".join(columns)


def _to_json(score: "RecordScore", raw: bool) -> dict[str, Any]:
    figures = {
        "source": score.name,
        "line": score.line,
        "mean": round(score.mean, 6),
        "log_prob": round(score.log_prob, 4),
        "end_log_prob": None if score.end_log_prob is None else round(score.end_log_prob, 4),
        "characters": score.characters,
        "unknown": as_json_text(score.unknown, raw),
    }
    if score.label is not None or score.label_probs is not None:
        figures["label"] = score.label
    if score.label_probs is not None and score.guess is not None:
        figures |= {"guess": score.guess, "guess_probability": round(score.label_probs[score.guess], 6)}
    return figures | {"text": as_json_text(score.text, raw)}


def _totals_to_json(totals: RecordTotals) -> dict[str, Any]:
    names = ["records", "characters", "ends", "log_prob", "end_log_prob", "mean", "unknown", "replaced", "passed_over"]
    figures = {name: getattr(totals, name) for name in names}
    return figures | ({"labelled": totals.labelled, "right": totals.right} if totals.labelled else {})


def _write_totals(totals: RecordTotals, noun: str, write_line: Callable[[str], None]) -> None:
    """Write what all records cost, and how many labels were guessed."""
    if totals.records:
        mean, each = -totals.mean, -totals.log_prob / totals.records
        write_line(
            f"{amount(totals.records, noun)}: {mean:.4f} nats, {mean / math.log(2):.4f} bits per character; "
            f"{each:.4f} nats, {each / math.log(2):.4f} bits per {noun}"
        )
    else:
        write_line(f"no {noun}s")
    if totals.ends:
        end = -totals.end_log_prob / totals.ends
        write_line(f"{end:.4f} nats, {end / math.log(2):.4f} bits per end of a {noun}, which counts as a character")
    if totals.labelled:
        share = totals.right / totals.labelled
        write_line(f"{totals.right:,} of {amount(totals.labelled, 'label')} guessed ({share:.1%})")
