"""Commands with a model of records: what `eval` and `info` tell of it."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from chargen import evaluate
from chargen.storage.model_file import FILE_NAME, save_model
from tests.commands import Run
from tests.judged_records import random_records, record_model
from tests.terminals import harmful

LABELS = ("red", "b\x1b[2J\u202e\nlue, ")


@pytest.fixture
def texts(run: Run) -> None:
    """A model of labelled records, one of records without labels, and a file of either label."""
    for name, labels in (("labelled", LABELS), ("plain", ())):
        save_model(Path(name) / FILE_NAME, record_model(labels=labels))
    Path("lines").mkdir()
    for name, seed in (("red", 1), ("new", 2)):
        Path("lines", f"{name}.txt").write_text("".join(f"{record}\n" for record in random_records(20, seed=seed)))


@pytest.mark.usefixtures("texts")
def test_eval_tells_what_records_and_their_ends_cost(run: Run) -> None:
    result = evaluate("plain", sources="lines")
    shown, figures = run("eval", "plain", "lines"), json.loads(run("eval", "plain", "lines", "--json").out)
    assert shown.out.splitlines()[4:] == [
        f"{result.nats / 40:.4f} nats per record",
        f"{result.nats / 40 / math.log(2):.4f} bits per record",
        f"{result.end_nats / 40:.4f} nats per end of a record, {result.end_nats / 40 / math.log(2):.4f} bits: "
        f"{100 * result.end_nats / result.nats:.1f}% of all",
    ]
    counted = f"{result.characters:,} characters counted, {result.bytes:,} bytes; in 40 records, each one's end among"
    assert counted in shown.err
    assert "context" not in shown.err
    names = "records", "nats_per_record", "bits_per_record", "end_nats", "nats", "characters"
    assert {name: figures[name] for name in names} == {name: getattr(result, name) for name in names}
    assert "by_label" not in figures


@pytest.mark.usefixtures("texts")
def test_eval_tells_what_each_label_costs(run: Run) -> None:
    result = evaluate("labelled", sources="lines", by_label=True)
    shown = run("eval", "labelled", "lines", "--by-label")
    assert shown.out.splitlines()[7:] == [
        f"{name}: {loss.nats_per_character:.4f} nats per character, {loss.nats_per_record:.4f} per record, 20 records"
        for name, loss in (("no label", result.by_label[""]), ("red", result.by_label["red"]))
    ]
    assert "note: 1 label unknown to the model, which reads their records without: new\n" in shown.err
    figures = json.loads(run("eval", "labelled", "lines", "--by-label", "--json").out)
    assert figures["by_label"]["red"]["nats"] == result.by_label["red"].nats
    assert figures["unknown_labels"] == ["new"]
    refused = run("eval", "plain", "lines", "--by-label")
    assert (refused.code, refused.one_line()) == (2, True)
    assert "--by-label is for a model of labelled records" in refused.err


@pytest.mark.usefixtures("texts")
def test_info_lists_labels_with_counts_and_says_that_a_model_writes_records(run: Run) -> None:
    file = record_model(labels=LABELS)
    counts = file.counts.tolist()
    shown = run("info", "labelled")
    assert not harmful(shown.out)
    assert f"\nwrites       records (line), of which it learned {sum(counts[-3:])}\n" in shown.out
    assert f"\nlabels       'b\\x1b[2J\\u202e\\nlue, ' {counts[-1]}, red {counts[-2]}\n" in shown.out
    assert "\nvocabulary   10 characters, the end of a record among them\n" in shown.out
    fields = json.loads(run("info", "labelled", "--json").out)
    assert (fields["records"], fields["labels"]) == (sum(counts[-3:]), dict(zip(LABELS, counts[-2:], strict=True)))
    plain = json.loads(run("info", "plain", "--json").out)
    assert (plain["records"], plain["labels"]) == (counts[-3], {})
    assert "labels" not in run("info", "plain").out
    for name, records, words in (
        ("text", "\n\x1b---\n", "with '\\n\\x1b---\\n' between them"),
        ("poem", "blank-line", ""),
    ):
        save_model(name, replace(record_model(records=records)))
        assert f"records ({words or records})" in run("info", name).out


def test_info_of_running_text_says_nothing_of_records(run: Run, model: Path) -> None:
    assert "record" not in run("info", model).out
    fields = json.loads(run("info", model, "--json").out)
    assert (fields["records"], fields["labels"]) == (None, {})


def test_many_labels_are_listed_in_part(run: Run) -> None:
    labels = tuple(f"l{number}" for number in range(60))
    save_model("many", record_model(labels=labels))
    shown = run("info", "many").out
    assert "\nlabels       l59 70, l58 69, " in shown
    assert "l40 51 and 40 more\n" in shown
    assert "l39" not in shown
    assert len(json.loads(run("info", "many", "--json").out)["labels"]) == 60
