"""Runs on records: resumed byte for byte, scored as the text they came from, and gone on with from another model."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chargen import Corpus, Trainer, Vocabulary, check, check_causality, evaluate, read_model
from chargen.data.reading_config import ReadingConfig
from chargen.errors import SettingError
from chargen.storage.model_file import FILE_NAME, ModelFile, build_model
from chargen.training.cloze_task import MARGIN, cloze_loss
from tests.commands import QUICK
from tests.pairs import all_pairs
from tests.runs import assert_same_runs, config, long_rows, model, run_until
from tests.small_models import small_model
from tests.texts import names

ROWS = [
    {"text": name, "by": "dé" if " " in name else name[-1], "n": number} for number, name in enumerate(names(1, 200))
]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)


def corpus(labels: bool = True, **settings: Any) -> Corpus:
    if labels:
        settings["label_field"] = "by"
    return Corpus.from_text(TEXT, records="jsonl", **{"valid_fraction": 0.2, **settings})


def record_model(labels: int = 0, **settings: Any) -> ModelFile:
    """A model whose last ids begin records."""
    characters = "abcdefgh" + "".join(map(chr, range(0x4E00, 0x4E01 + labels)))
    file = small_model(characters=characters, bidirectional=True, cloze=1.0, **settings)
    vocabulary = Vocabulary("abcdefgh", records=True, labels=[f"l{number}" for number in range(labels)])
    shape = replace(file.config, begin_symbols=1 + labels)
    return replace(file, vocabulary=vocabulary, config=shape, reading=ReadingConfig(records="line"))


def finish(trainer: Trainer) -> Trainer:
    for _ in trainer.run():
        pass
    return trainer


CASES = all_pairs(["lstm", "gru"], ["consecutive", "random"], ["character", "byte"], [False, True], [False, True],
                  [True, False])  # fmt: skip


@pytest.mark.parametrize(("cell", "batching", "unit", "labels", "both", "shuffle"), CASES)
def test_a_run_is_resumed_exactly_and_scored_as_its_text_is(
    cell: str, batching: str, unit: str, labels: bool, both: bool, shuffle: bool, tmp_path: Path
) -> None:
    text = corpus(labels, unit=unit, shuffle=shuffle, test_fraction=0.1)
    shape = model(cell, dropout=0.2, bidirectional=both)
    train = long_rows(steps=11, batching=batching)
    whole = finish(Trainer(text, shape, train, tmp_path / "whole"))
    run_until(Trainer(text, shape, train, tmp_path / "parts"), 4)
    run_until(Trainer.resume(tmp_path / "parts", text), 8)
    finish(Trainer.resume(tmp_path / "parts", text))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")

    file = read_model(tmp_path / "whole")
    assert file.vocabulary == text.vocabulary
    assert rb"\"format\":2," in (tmp_path / "whole" / FILE_NAME).read_bytes()
    (tmp_path / "x.jsonl").write_text(TEXT)
    for part in ("valid", "test"):
        for direction in shape.directions:
            found = evaluate(file, TEXT, part=part, direction=direction)
            name = f"{part}_loss_{direction}" if both else f"{part}_loss"
            assert found.nats_per_character == whole.summary[name]
            assert found.characters == whole.summary[f"{part}_characters"]
            assert found.records == text.count_records(part)
            assert found == evaluate(file, tmp_path / "x.jsonl", part=part, direction=direction)
            assert 0 < found.end_nats < found.nats


@pytest.mark.parametrize("both", [False, True])
def test_a_device_that_is_not_waited_for_learns_records_the_same(both: bool, tmp_path: Path) -> None:
    shape, train = model("gru", bidirectional=both), long_rows(steps=11)
    finish(Trainer(corpus(), shape, train, tmp_path / "waited"))
    trainer = Trainer(corpus(), shape, train, tmp_path / "ahead")
    trainer.max_pending, trainer.train_step.on_device = 16, True
    finish(trainer)
    assert_same_runs(tmp_path / "waited", tmp_path / "ahead")


def test_other_fractions_of_the_model_hold_and_a_text_without_parts_is_named(tmp_path: Path) -> None:
    text = Corpus.from_text(TEXT, records="jsonl", valid_fraction=0.3, split_seed=7)
    trainer = finish(Trainer(text, model(), config(steps=2), tmp_path / "run"))
    assert evaluate(tmp_path / "run", TEXT, part="valid").nats_per_character == trainer.summary["valid_loss"]
    more = TEXT + json.dumps({"text": "zzz"}).replace("z", "e") + "\n"  # moves no other record
    added = evaluate(tmp_path / "run", more, part="all").records - len(ROWS)
    found = [evaluate(tmp_path / "run", more, part=part).records for part in ("train", "valid")]
    assert sum(found) == len(ROWS) + added
    assert text.count_records("valid") in (found[1], found[1] - added)
    with pytest.raises(SettingError, match="no test part"):
        evaluate(tmp_path / "run", TEXT, part="test")


def test_a_record_of_a_run_is_described_and_its_settings_kept(tmp_path: Path) -> None:
    finish(Trainer(corpus(split_seed=3), model(), config(steps=1), tmp_path / "run"))
    file = read_model(tmp_path / "run")
    assert (file.reading.records, file.reading.label_field) == ("jsonl", "by")
    assert file.training["settings"]["split_seed"] == 3
    assert file.begin == ""
    assert file.config.begin_symbols == 1 + len(file.vocabulary.labels)
    plain = finish(Trainer(Corpus.from_text("abc\n" * 99), model(), config(steps=1), tmp_path / "plain"))
    assert rb"\"format\":1," in (tmp_path / "plain" / FILE_NAME).read_bytes()
    assert plain.model.config.begin_symbols == 0


def test_a_run_on_files_is_found_again_and_a_changed_label_noticed(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(TEXT)
    text = Corpus.from_files(tmp_path / "x.jsonl", records="jsonl", label_field="by")
    run_until(Trainer(text, model(), config(steps=6), tmp_path / "run"), 3)
    trainer = Trainer.resume(tmp_path / "run")
    assert (trainer.counters.step, trainer.corpus.key) == (3, text.key)
    assert trainer.model.config.begin_symbols == text.vocabulary.begin_symbols
    with pytest.raises(SettingError, match="the corpus is not the one"):
        Trainer.resume(tmp_path / "run", corpus(split_seed=1))


def test_state_reset_is_for_running_text(run: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="state_reset is for running text") as caught:
        Trainer(corpus(), model(), config(state_reset=0.2))
    assert caught.value.setting == "state_reset"
    (tmp_path / "x.txt").write_text("\n".join(names(1, 100)))
    code, _, said = run("train", "x.txt", "--records", "line", "--state-reset", 0.2, "--steps", 1, *QUICK)
    assert (code, said.splitlines()[-1]) == (
        2, "chargen: --state-reset is for running text: records begin with a fresh state")  # fmt: skip


@pytest.mark.parametrize("labels", [0, 2])
def test_a_model_of_records_knows_nothing_too_early(labels: int) -> None:
    results = check(record_model(labels))
    assert len(results) == 4 + 4 + 3
    assert [result.violations for result in results] == [()] * len(results)


@pytest.mark.parametrize("begins", [1, 3])
def test_a_prediction_that_knows_too_much_is_caught_among_records(begins: int) -> None:
    borders = []

    def predict(leak: Callable[[np.ndarray], np.ndarray], ids: np.ndarray) -> np.ndarray:
        borders.append((ids >= 9 - begins).tolist())
        logits = np.zeros((len(ids), 9))
        logits[1:, 0] = ids[:-1]
        return logits + leak(ids)[:, None]

    for leak, least in ((lambda ids: 0 * ids, 0), (lambda ids: ids % 7, 8), (lambda ids: np.roll(ids, -1), 8)):
        violations = check_causality(partial(predict, leak), 9, "before", begin_symbols=begins)
        assert len(violations) >= least
        assert bool(violations) == bool(least)
    assert borders == borders[:1] * len(borders)
    assert 0 < sum(borders[0]) < len(borders[0])
    assert check_causality(lambda ids: np.ones((len(ids), 9)), 9, "before", begin_symbols=begins)
    with pytest.raises(SettingError, match="begin_symbols is 8: it must be 0 to 7"):
        check_causality(partial(predict, np.zeros_like), 9, "before", begin_symbols=8)
    assert check(replace(record_model(), config=replace(record_model().config, begin_symbols=8))) == []


# The cloze layer.


def test_cloze_losses_know_no_other_record_and_not_its_label() -> None:
    file = record_model(labels=3)
    network, end = build_model(file), file.vocabulary.end_id
    draws = np.random.default_rng(0)
    window = draws.integers(0, end, (1, 80))
    borders = [5, 20, 33, 47, 60, 75]
    window[0, borders] = end + 1 + np.arange(6) % 3
    counted = np.setdiff1d(np.arange(MARGIN, 80 - MARGIN), borders)

    def costs(ids: np.ndarray) -> np.ndarray:
        """The loss at each counted place, by leaving the others out of the mean."""
        with torch.no_grad():
            return np.array([cloze_at(network, ids, place) for place in counted])

    before, number = costs(window), cloze_loss(network, window)[1]
    assert number == len(counted)
    np.testing.assert_allclose(cloze_loss(network, window)[0].item(), before.mean(), rtol=1e-5)
    for first, last in pairwise(borders):
        for changed in (np.arange(first + 1, last), np.array([first])):
            other = window.copy()
            other[0, changed] = np.where(other[0, changed] < end, (other[0, changed] + 1) % end, end)
            inside = (counted > first) & (counted < last)
            after = costs(other)
            np.testing.assert_allclose(cloze_loss(network, other)[0].item(), after.mean(), rtol=1e-5)
            moved = after != before
            assert not moved[~inside].any()
            assert moved[inside].any() == inside.any()


def cloze_at(network: Any, ids: np.ndarray, place: int) -> float:
    """The loss of one place, of a window that ends where it needs no more: read step by step, from either side."""
    begins = np.flatnonzero(ids[0] >= network.first_begin)
    start, end = begins[begins < place][-1], begins[begins > place][0]
    behind = ids[0, place + 1 : end + 1][::-1].copy()
    behind[0] = ids[0, start]  # the label of its own record
    read = network.read(torch.from_numpy(ids[:, start:place]))[0][:, -1:]
    other = network.read(torch.from_numpy(behind[None]), direction="backward")[0][:, -1:]
    logits = network.cloze_logits(read, other)
    return float(-torch.log_softmax(logits.double(), -1)[0, 0, ids[0, place]])


def test_the_shortest_window_may_be_a_border() -> None:
    file = record_model(labels=2)
    window = np.zeros((1, 2 * MARGIN + 1), np.int64)
    for begin in range(file.vocabulary.end_id, len(file.vocabulary)):
        window[0, MARGIN] = begin
        loss, number = cloze_loss(build_model(file), window)
        assert number == 1
        assert torch.isfinite(loss)
