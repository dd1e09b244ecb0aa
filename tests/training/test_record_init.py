"""Records learned from a model that is there already: ids keep their rows by name, and reading is as it was."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen import Corpus, Trainer, evaluate, read_model
from chargen.errors import SettingError
from chargen.model.weights import weights_of
from chargen.storage.model_file import ModelFile
from chargen.training.plan import RunPlan
from tests.commands import QUICK
from tests.runs import config, model
from tests.texts import names


def jsonl(found: list[str], labels: str) -> str:
    return "".join(json.dumps({"text": text, "l": labels[number % len(labels)]}) + "\n"
                   for number, text in enumerate(found))  # fmt: skip


FIRST, SECOND = jsonl(names(1, 60), "yx"), jsonl([name.replace("e", "é") for name in names(1, 60)], "zxy")
LABELLED: dict[str, Any] = {"records": "jsonl", "label_field": "l"}


def trained(folder: Path, text: str = FIRST, both: bool = False, **settings: Any) -> ModelFile:
    corpus = Corpus.from_text(text, **settings)
    for _ in Trainer(corpus, model(bidirectional=both), config(steps=3), folder).run():
        pass
    return read_model(folder)


def started(file: ModelFile, text: str, **settings: Any) -> Trainer:
    return Trainer(Corpus.from_text(text, known=file.vocabulary, **settings), None, config(steps=2), init=file)


@pytest.mark.parametrize("unit", ["character", "byte"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_rows_are_taken_over_by_name(unit: str, both: bool, labels: bool, tmp_path: Path) -> None:
    settings = {**LABELLED, "unit": unit} if labels else {"records": "jsonl", "unit": unit}
    file = trained(tmp_path, both=both, **settings)
    trainer = started(file, SECOND, **LABELLED, unit=unit)
    before, after = file.vocabulary, trainer.corpus.vocabulary
    assert after.labels == (("y", "x", "z") if labels else ("z", "x", "y"))
    assert trainer.model.config.begin_symbols == 4
    places = [after.names().index(name) for name in before.names()]
    assert after.end_id in places
    weights = weights_of(trainer.model)
    for name, array in file.arrays.items():
        by_id = len(array) == len(before)
        assert np.array_equal(weights[name][places] if by_id else weights[name], array), name
    new = np.setdiff1d(np.arange(len(after)), places)
    assert len(new) == (1 if labels else 3) + (unit == "character")
    assert (weights["output.bias"][new] == file.arrays["output.bias"].min()).all()
    assert trainer.checkpointer.origin["new"] == ("é" if unit == "character" else "")
    for _ in trainer.run():
        pass


def test_a_text_without_new_characters_is_scored_as_by_the_model_itself(tmp_path: Path) -> None:
    file = trained(tmp_path, **LABELLED)
    trainer = started(file, FIRST, **LABELLED)
    assert trainer.corpus.vocabulary == file.vocabulary
    found = evaluate(trainer.model, trainer.corpus.vocabulary, FIRST, reading=file.reading)
    assert found == evaluate(file, FIRST)


def test_records_are_learned_from_a_model_of_running_text_and_not_the_other_way(tmp_path: Path) -> None:
    for unit in ("character", "byte"):
        plain = trained(tmp_path / unit, "\n".join(names(1, 200)), unit=unit)
        trainer = started(plain, FIRST, **LABELLED, unit=unit)
        assert len(trainer.corpus.vocabulary) == len(plain.vocabulary) + 2 + (unit == "character")
        old = plain.arrays["embedding.weight"][plain.vocabulary.encode("a")]
        assert np.array_equal(weights_of(trainer.model)["embedding.weight"][trainer.corpus.vocabulary.encode("a")], old)
        file = trained(tmp_path / f"{unit} records", **LABELLED, unit=unit)
        with pytest.raises(SettingError, match=r"learned records: say by `records` what they are here$") as caught:
            started(file, "running text", unit=unit)
        assert caught.value.setting == "records"
    with pytest.raises(SettingError, match="begin_symbols is 9: leave it out, the corpus has 3"):
        Trainer(Corpus.from_text(FIRST, **LABELLED), model(begin_symbols=9), config())
    with pytest.raises(SettingError, match="give known="):
        Trainer(Corpus.from_text(SECOND, **LABELLED), None, config(), init=trained(tmp_path / "c", **LABELLED))


def test_a_text_is_read_as_the_models_own_but_for_what_is_asked(tmp_path: Path) -> None:
    file = trained(tmp_path / "run", **LABELLED, text_field="text")
    (tmp_path / "x.jsonl").write_text(SECOND)
    (tmp_path / "y.txt").write_text("Ab\nCd\n")

    def reading(name: str, **settings: Any) -> tuple[Any, ...]:
        found = RunPlan(str(tmp_path / name), settings, init=file).read_corpus()
        return found.config.records, found.config.text_field, found.config.label_field, found.config.label_from

    assert reading("x.jsonl") == ("jsonl", "text", "l", None)
    assert reading("x.jsonl", label_from="file") == ("jsonl", "text", None, "file")
    assert reading("x.jsonl", text_field="l", label_field="text") == ("jsonl", "l", "text", None)
    plain = trained(tmp_path / "lines", "ab\ncd", records="line")
    assert RunPlan(str(tmp_path / "y.txt"), {}, init=plain).read_corpus().config.records == "line"
    assert RunPlan(str(tmp_path / "y.txt"), {"records": "file"}, init=plain).read_corpus().count_records("train") == 1


def test_the_command_goes_on_from_a_model_of_records(run: Any, tmp_path: Path) -> None:
    (tmp_path / "first.jsonl").write_text(FIRST)
    (tmp_path / "second.jsonl").write_text(SECOND)
    first = run("train", "first.jsonl", "--records", "jsonl", "--label-field", "l", "--steps", 2, "--out", "a", *QUICK)
    assert first.code == 0
    assert "text     first.jsonl: 60 records of" in first.err
    assert "2 labels: y, x" in first.err
    second = run("train", "second.jsonl", "--init-from", "a", "--steps", 2, "--out", "b", *QUICK[4:])
    assert second.code == 0, second.err
    assert "known; 1 new: 'é'" in second.err
    assert read_model("b").vocabulary.labels == ("y", "x", "z")
    assert run("eval", "b", "second.jsonl", "--part", "valid").code == 0
    third = run("train", "text.txt", "--init-from", "a", "--steps", 1, *QUICK[4:])
    assert third.code == 3
    assert "line 1 is no JSON" in third.last
