"""Records and lines scored one after the other: against reading each step by step, and their labels by Bayes' rule."""

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chargen
from chargen import evaluate, score, score_records
from chargen.data.code_points import CODE_POINTS
from chargen.data.reading_config import ReadingConfig
from chargen.data.records import MARK
from chargen.errors import ChargenError, DataError, SettingError
from chargen.storage.model_file import ModelFile, build_model
from tests import naive
from tests.judged_records import LETTERS, random_records, record_model
from tests.pairs import all_pairs
from tests.small_models import count_ids_read, small_model

LABELS = ("red", "green", "blue")
UNITS = {"character": LETTERS, "folded": LETTERS + "xyzé", "byte": LETTERS + "é字"}
records_module = chargen.api.records


def model(cell: str = "lstm", unit: str = "character", both: bool = False) -> ModelFile:
    kind, folded = "byte" if unit == "byte" else "character", "xyz" if unit == "folded" else ""
    return record_model(cell, labels=LABELS, unit=kind, folded=folded, bidirectional=both)


def write(folder: Path, by_name: dict[str, list[str]]) -> Path:
    for name, records in by_name.items():
        (folder / "texts").mkdir(exist_ok=True)
        (folder / "texts" / name).write_text("".join(f"{record}\n" for record in records), "utf-8")
    return folder / "texts"


@pytest.mark.parametrize(
    ("cell", "unit", "by"), all_pairs(("lstm", "gru"), tuple(UNITS), ("forward", "backward"))
)  # fmt: skip
def test_a_record_is_scored_as_it_is_read_step_by_step(tmp_path: Path, cell: str, unit: str, by: str) -> None:
    file, by_label = model(cell, unit, by == "backward"), {}
    for seed, label in enumerate(("red", "blue", "new")):
        by_label[label] = random_records(20, UNITS[unit], seed, longest=30)
    scores = list(
        score_records(file, sources=write(tmp_path, {f"{label}.txt": by_label[label] for label in by_label}), by=by)
    )
    assert [(entry.text, entry.label) for entry in scores] == [
        (record, label) for label in sorted(by_label) for record in by_label[label]
    ]
    for entry in scores:
        characters, end = naive.record_log_probs(file, entry.text, entry.label if entry.label != "new" else None, by)
        assert entry.end_log_prob == pytest.approx(end, abs=1e-5)
        assert entry.log_prob == pytest.approx(characters + end, abs=1e-4)
        assert entry.characters == len(entry.text)
        assert entry.mean == entry.log_prob / (len(entry.text) + 1)
        assert entry.label_probs is entry.guess is None


@pytest.mark.parametrize("begin", ["\n", "\r\n", ""])
@pytest.mark.parametrize("by", ["forward", "backward"])
def test_a_line_of_running_text_stands_between_two_begin_texts(tmp_path: Path, begin: str, by: str) -> None:
    file = replace(small_model(characters="abc\r\n", bidirectional=True, scale=1.5), begin=begin)
    (tmp_path / "text.txt").write_bytes(b"abc\r\nca\n\nb")
    scores = list(score_records(file, sources=tmp_path / "text.txt", by=by))
    assert [(entry.text, entry.line) for entry in scores] == [("abc", 1), ("ca", 2), ("b", 4)]
    for entry in scores:
        engine, scores_of_counts, state = naive.start(file, by)
        order = 1 if by == "forward" else -1
        ids, border = (file.vocabulary.encode(text)[::order] for text in (entry.text, begin))
        _, logits, state = naive.read(engine, scores_of_counts, state, border)
        total, logits, state = naive.read(engine, logits, state, ids)
        end, _, _ = naive.read(engine, logits, state, border)
        assert entry.log_prob == pytest.approx(total + end, abs=1e-5)
        assert entry.end_log_prob is None if not begin else entry.end_log_prob == pytest.approx(end, abs=1e-5)
        assert entry.mean == entry.log_prob / (len(entry.text) + bool(begin))
    (alone,) = score(file, ["abc"], by=by)
    expected = scores[0].log_prob - (scores[0].end_log_prob or 0)
    assert alone.totals[f"log_prob_{by}"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("unit", "by"), all_pairs(("character", "byte"), ("forward", "backward")))
def test_what_a_sampler_writes_is_as_likely_as_it_says(unit: str, by: str) -> None:
    file = replace(model(unit=unit, both=True), reading=ReadingConfig(records="file"))  # which keep carriage returns
    sampler = chargen.Sampler(file, num=12, seed=2, direction=by, label="green", temperature=0.7)
    written = [sample for sample in sampler.generate_all(500) if sample.end_log_prob is not None]
    assert len(written) > 3
    scores = score_records(file, [sample.text for sample in written], label="green", by=by)
    for sample, entry in zip(written, scores, strict=True):
        assert entry.end_log_prob == pytest.approx(sample.end_log_prob, abs=1e-4)
        assert entry.log_prob == pytest.approx(math.fsum(sample.log_probs) + sample.end_log_prob, abs=1e-3)


@pytest.mark.parametrize("by", ["forward", "backward"])
def test_all_records_cost_what_their_text_costs(tmp_path: Path, by: str) -> None:
    file = model(unit="folded", both=True)
    sources = write(tmp_path, {"red.txt": random_records(50, UNITS["folded"]), "x.txt": random_records(9, seed=1)})
    scores = score_records(file, sources=sources, by=by)
    total = math.fsum(entry.log_prob for entry in scores)
    result, totals = evaluate(file, sources=sources, direction=by), scores.totals
    assert -total == pytest.approx(result.nats, rel=1e-5)
    assert totals.log_prob == pytest.approx(total)
    assert -totals.end_log_prob == pytest.approx(result.end_nats, rel=1e-5)
    assert -totals.mean == pytest.approx(result.nats_per_character, rel=1e-5)
    assert (totals.records, totals.ends, totals.characters) == (59, 59, result.characters - 59)
    assert (totals.unknown, totals.unseen) == (result.unseen, "é")
    assert totals.unknown_labels == {"x"}
    assert (totals.labelled, totals.right) == (0, 0), "nothing was guessed"


def test_batches_change_nothing_and_are_read_only_when_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    file, texts = model(), random_records(50)
    whole = list(score_records(file, texts))
    assert [(entry.text, entry.line, entry.name) for entry in whole] == [
        (text, line, "") for line, text in enumerate(texts, 1)
    ]
    read = []

    def many() -> Iterator[str]:
        for number in range(10_000):
            read.append(number)
            yield texts[number % 50]

    monkeypatch.setattr(records_module, "BATCH", 40)
    scores = score_records(file, many())
    assert read == []
    for number, expected in zip(range(150), whole * 3, strict=True):
        entry = next(scores)
        assert entry.log_prob == pytest.approx(expected.log_prob, abs=1e-5)
        assert len(read) <= number + 1 + 40, "what is not asked for is hardly read"
    assert scores.totals.records == 150
    read.clear()
    next(score_records(file, many(), guess_label=True))
    assert sum(len(text) for text in texts[: len(read) - 1]) < 10, "each is read four times"
    monkeypatch.setattr(records_module, "MAX_RECORDS", 7)
    read.clear()
    next(score_records(file, (text[:0] for text in many())))
    assert len(read) == 7


def test_progress_counts_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "BATCH", 4)
    seen: list[Any] = []
    list(score_records(model(), ["abc", "de", "f"], progress=lambda *arguments: seen.append(arguments)))
    assert seen == [("scoring", 5, None), ("scoring", 6, None)]


# Unknown characters.


def test_unknown_characters_are_surprises_and_named() -> None:
    plain, folded = record_model(), record_model(folded="xyz")
    (entry,), (without,) = (list(score_records(plain, [text])) for text in ("aéb字é", "ab"))
    # As what occurs once in N + 1 characters, and is any of those that were never seen.
    each = math.log(plain.counts.sum() + 1) + math.log(CODE_POINTS - len(LETTERS))
    assert entry.log_prob == pytest.approx(without.log_prob - 3 * each)
    assert (entry.characters, entry.unknown) == (5, "é字")
    assert entry.mean == entry.log_prob / 6
    (entry,) = score_records(folded, ["aéxb"])
    characters, end = naive.record_log_probs(folded, "aéxb")
    assert entry.log_prob == pytest.approx(characters + end, abs=1e-5)
    assert entry.unknown == "é", "a folded character is not unknown"
    assert list(score_records(folded, ["aéxb"], unknown="replace")) == [entry]
    scores = score_records(plain, ["aéb字é", "ab", "é"])
    list(scores)
    assert (scores.totals.unknown, scores.totals.unseen) == (4, "é字")


def test_unknown_characters_may_be_left_out_or_stop() -> None:
    plain, folded = record_model(), record_model(folded="xyz")
    for file in (plain, folded):
        (entry,), (without,) = (list(score_records(file, [text], unknown="skip")) for text in ("éaéb", "ab"))
        assert (entry.log_prob, entry.characters, entry.unknown) == (pytest.approx(without.log_prob), 2, "é")
        with pytest.raises(DataError, match="unknown to the model: 'é'"):
            list(score_records(file, ["ab", "aéb"], unknown="error"))
    assert list(score_records(folded, ["ax"], unknown="skip")) == list(score_records(folded, ["ax"]))
    (nothing,) = score_records(small_model(), ["é"], unknown="skip")
    assert (nothing.log_prob, nothing.mean, nothing.characters) == (0.0, 0.0, 0)
    with pytest.raises(DataError, match="no unknown symbol"):
        list(score_records(plain, ["é"], unknown="replace"))


# Labels.


@pytest.mark.parametrize("prior", ["counts", "uniform"])
def test_a_label_is_guessed_by_the_rule_of_bayes(tmp_path: Path, prior: str) -> None:
    counted = model()
    file = replace(counted, counts=np.array([*[9] * len(LETTERS), 5, 300, 0, 40]))
    texts = {"red.txt": random_records(9), "blue.txt": random_records(9, seed=1), "new.txt": random_records(3, seed=2)}
    scores = score_records(file, sources=write(tmp_path, texts), guess_label=True, prior=prior)
    plain = list(score_records(file, sources=tmp_path / "texts"))
    for entry, without in zip(scores, plain, strict=True):
        weights = dict.fromkeys(LABELS, 1.0) if prior == "uniform" else {"red": 300.0, "green": 1.0, "blue": 40.0}
        joint = {
            label: math.exp(sum(naive.record_log_probs(counted, entry.text, label))) * weights[label]
            for label in LABELS
        }
        assert entry.label_probs == pytest.approx(
            {label: joint[label] / sum(joint.values()) for label in LABELS}, rel=1e-3
        )
        assert entry.guess == max(joint, key=joint.__getitem__)
        assert entry.log_prob == pytest.approx(without.log_prob, abs=1e-5), "guessing changes no score"
        assert entry.end_log_prob == pytest.approx(without.end_log_prob, abs=1e-5)
        assert (entry.label, entry.line, entry.name) == (without.label, without.line, without.name)
    unlabelled = score_records(file, random_records(3), guess_label=True)
    assert all(entry.guess for entry in unlabelled)
    assert unlabelled.totals.labelled == 0
    again = list(score_records(file, sources=tmp_path / "texts", guess_label=True, prior=prior))
    known = [entry for entry in again if entry.label in LABELS]
    assert (scores.totals.labelled, scores.totals.right) == (18, sum(entry.guess == entry.label for entry in known))


def test_labels_of_records_of_all_lengths_are_guessed_together() -> None:
    for entry in score_records(model(), ["a", "abcdefgh " * 200], guess_label=True):
        assert sum(entry.label_probs.values()) == pytest.approx(1)


def test_a_label_of_all_records_stands_in_place_of_their_own(tmp_path: Path) -> None:
    file, texts = model(), random_records(5)
    for entry in score_records(file, sources=write(tmp_path, {"red.txt": texts}), label="blue"):
        assert entry.log_prob == pytest.approx(sum(naive.record_log_probs(file, entry.text, "blue")), abs=1e-4)
        assert entry.label == "blue"
    assert [entry.label for entry in score_records(file, texts)] == [None] * 5


def test_each_record_is_read_once_with_each_label(monkeypatch: pytest.MonkeyPatch) -> None:
    file, texts = model(), ["abc deh f"] * 20
    network = build_model(file)
    sizes = count_ids_read(network, monkeypatch)
    for guess_label, times in ((False, 1), (True, 4)):
        sizes.clear()
        options = {"vocabulary": file.vocabulary, "counts": file.counts, "guess_label": guess_label}
        list(score_records(network, texts, **options))
        assert sum(sizes) == times * 20 * 10
    assert len(sizes) == 1, "side by side"


# Files.


def test_records_come_from_many_files_with_their_places(tmp_path: Path) -> None:
    file = model()
    folder = write(tmp_path, {"red.txt": ["ab", "", "c"], "blue.txt": ["d"]})
    with gzip.open(folder / "green.log.gz", "wt") as packed:
        packed.write("e\n\nf")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    (folder / "bad.txt").write_bytes(b"a\xff\n")
    scores = score_records(file, sources=[folder], errors="replace")
    places = [(Path(entry.name).name, entry.line, entry.text, entry.label) for entry in scores]
    assert places == [
        ("bad.txt", 1, "a\ufffd", "bad"), ("blue.txt", 1, "d", "blue"), ("green.log.gz", 1, "e", "green"),
        ("green.log.gz", 3, "f", "green"), ("red.txt", 1, "ab", "red"), ("red.txt", 3, "c", "red"),
    ]  # fmt: skip
    assert (scores.totals.replaced, scores.totals.passed_over) == (1, 1)
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    (entry,) = score_records(record_model(characters="é"), sources=tmp_path / "latin.txt", encoding="latin-1")
    assert (entry.text, entry.unknown) == ("é", "")


def test_the_records_of_a_part_are_those_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chargen.evaluation.parts.TOGETHER", 7)
    settings = {"records": "line", "valid_fraction": 0.3, "test_fraction": 0.2, "split_seed": 3}
    file, records = replace(model(), training={"settings": settings}), [*random_records(60), "ab", "ab"]
    sources = write(tmp_path, {"red.txt": records[:30], "new.txt": records[30:]})
    corpus = chargen.Corpus.from_text("\n".join(records), **settings)
    for part in ("train", "valid", "test"):
        entries = list(score_records(file, sources=sources, part=part))
        texts = MARK.split(corpus.vocabulary.decode(getattr(corpus, part)))[1:]
        assert sorted(entry.text for entry in entries) == sorted(texts)
        assert 3 < len(texts) < 45
        assert [entry.line for entry in entries if entry.label == "red"] == sorted(
            records.index(entry.text) + 1 for entry in entries if entry.label == "red"
        )
        result = evaluate(file, sources=sources, part=part)
        assert -math.fsum(entry.log_prob for entry in entries) == pytest.approx(result.nats, rel=1e-5)
    unknown, ordered = (
        record_model(),
        replace(file, training={"settings": settings | {"split_seed": 0, "shuffle": False}}),
    )
    for judged, words in ((unknown, "does not say how its text was cut"), (ordered, "split by a hash of their text")):
        with pytest.raises(SettingError, match=words):
            score_records(judged, sources=sources, part="valid")
        assert len(list(score_records(judged, sources=sources))) == 62


def test_a_table_may_have_labels_or_not(tmp_path: Path) -> None:
    file = replace(model(), reading=ReadingConfig(records="jsonl", label_field="colour"))
    rows = [{"text": "ab", "colour": "red"}, {"text": "ab"}, {"text": "ab", "colour": "new"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scores = list(score_records(file, sources=tmp_path / "rows.jsonl"))
    assert [entry.label for entry in scores] == ["red", None, "new"]
    assert scores[1].log_prob == pytest.approx(scores[2].log_prob) != scores[0].log_prob


def test_lines_of_any_bytes_are_scored_too(tmp_path: Path) -> None:
    raw = chargen.Vocabulary.from_counts(np.zeros(1, np.int64), unit="byte", raw=True)
    file = small_model(unit="byte")
    file = replace(file, vocabulary=raw, reading=ReadingConfig(encoding="raw"))
    (tmp_path / "any").write_bytes(b"ab\xff\r\nc")
    assert [(entry.text, entry.line) for entry in score_records(file, sources=tmp_path / "any")] == [
        ("ab\udcff", 1),
        ("c", 2),
    ]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"texts": "abc"}, SettingError, "texts is of type str: it must be a list of texts"),
        ({"texts": 5}, SettingError, "texts is of type int"),
        ({"texts": [5]}, SettingError, "text is of type int"),
        ({"texts": ["a\udfff"]}, DataError, "lone surrogate"),
        ({}, SettingError, "give `texts` or `sources`"),
        ({"texts": [], "sources": "x"}, SettingError, "give `texts` or `sources`"),
        ({"sources": "nowhere.txt"}, DataError, "no file, folder or pattern 'nowhere.txt'"),
        ({"texts": ["a"], "by": "cloze"}, SettingError, "by is 'cloze': it must be one of forward, backward"),
        (
            {"texts": ["a"], "label": "rde"},
            SettingError,
            "label is 'rde': this model has no such label; did you mean red",
        ),
        ({"texts": ["a"], "label": "red", "guess_label": True}, SettingError, "give one"),
        ({"texts": ["a"], "part": "rest"}, SettingError, "part is 'rest': it must be one of all, train, valid, test"),
        ({"texts": ["a"], "prior": "flat"}, SettingError, "prior is 'flat': it must be one of counts, uniform"),
        ({"texts": ["a"], "unknown": "drop"}, SettingError, "unknown is 'drop'"),
        ({"texts": ["a"], "precision": "fp8"}, SettingError, "precision is 'fp8'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    options: dict[str, Any], error: type[ChargenError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        list(score_records(model(), **options))
    assert "\n" not in str(caught.value)


def test_what_a_model_lacks_is_told_before_anything_is_read() -> None:
    for file in (record_model(), small_model()):
        with pytest.raises(SettingError, match="guess_label is for a model of labelled records"):
            score_records(file, ["a"], guess_label=True)
    with pytest.raises(SettingError, match="backward"):
        score_records(small_model(), ["a"], by="backward")
    with pytest.raises(SettingError, match="no records: it was trained on running text"):
        score_records(small_model(), ["a"], label="red")


@pytest.mark.parametrize("by", ["forward", "backward"])
def test_a_long_record_costs_what_it_costs_in_one_row(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, text = model(both=True), "abc dah" * 900 + "h"
    (cut,) = score_records(file, [text], label="red", by=by)
    monkeypatch.setattr("chargen.evaluation.layout.SPAN", 10**9)
    (whole,) = score_records(file, [text], label="red", by=by)
    assert cut.log_prob == pytest.approx(whole.log_prob, abs=1e-5 * len(text))
    assert cut.end_log_prob == pytest.approx(whole.end_log_prob, abs=1e-5)
    (alone,) = score(file, [text], label="red")
    assert cut.log_prob == pytest.approx(alone.totals[f"log_prob_{by}"], abs=1e-5 * len(text))
