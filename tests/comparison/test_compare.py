"""Runs beside one another: the table of what run folders hold, whatever they hold."""

import csv
import io
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chargen
from chargen.comparison.find_runs import distinct_names
from chargen.data.corpus import Corpus
from chargen.errors import ChargenError, ModelFileError, SettingError
from chargen.storage.model_file import FILE_NAME, save_model
from chargen.training.trainer import Trainer
from tests import runs
from tests.run_folders import curve, final_line, model, write_run
from tests.small_models import small_model

METRICS = "metrics.jsonl"


def rows_of(*folders: Path) -> list[dict[str, Any]]:
    return chargen.compare(folders).as_dict()["rows"]


def test_a_run_of_chargens_own_is_told_while_it_runs_and_at_its_end(tmp_path: Path) -> None:
    trainer = Trainer(Corpus.from_text(runs.TEXT, test_fraction=0.1), runs.model(), runs.config(), tmp_path / "run")
    for progress in trainer.run():
        if progress.step == 13 and progress.doing == "training":
            trainer.save()
            (row,) = chargen.compare(tmp_path / "run").rows
            assert (row.finished, row.figures["step"].mean, row.figures["test_loss"]) == (False, 12, None)
            assert row.figures["valid_loss"].mean == trainer.counters.best_loss
    comparison = chargen.compare(tmp_path)
    (run,), lines = comparison.runs, runs.lines(tmp_path / "run")
    assert run.finished
    assert comparison.warnings == ()
    assert (run.valid_loss, run.test_loss) == (lines[-1]["valid_loss"], lines[-1]["test_loss"])
    assert (run.step, run.seconds, run.whole) == (24, lines[-1]["seconds"], True)
    assert run.parameters == sum(array.size for array in chargen.read_model(tmp_path / "run").arrays.values())
    assert run.settings["hidden_size"] == 12
    assert run.curves.steps.tolist() == [line["step"] for line in lines[:-1]]
    losses = [math.nan if line["valid_loss"] is None else line["valid_loss"] for line in lines[:-1]]
    np.testing.assert_array_equal(run.curves.valid_loss, losses)
    characters = [line["epoch"] * trainer.corpus.counts.sum() for line in lines[:-1]]
    np.testing.assert_allclose(run.curves.characters, characters)
    assert run.chars_per_second == np.median([line["chars_per_second"] for line in lines[:-1]])


def test_a_run_of_parts_of_ones_own_is_another_than_one_without(tmp_path: Path) -> None:
    import torch

    def sgd(network: Any, config: Any) -> Any:
        return torch.optim.SGD(network.parameters(), lr=config.lr)

    for name, own in (("sgd", {"optimizer": sgd}), ("adamw", {})):
        for _ in Trainer(runs.corpus(), runs.model(), runs.config(steps=2), tmp_path / name, **own).run():
            pass
    rows = rows_of(tmp_path)
    assert sorted(str(row["settings"]) for row in rows) == ["{'own_parts': \"['optimizer']\"}", "{'own_parts': None}"]


@given(st.lists(st.tuples(st.floats(0.5, 4), st.sampled_from([0.01, 0.02]), st.booleans()), min_size=1, max_size=7))
def test_seeds_are_one_row_with_the_mean_and_deviation_that_numpy_finds(
    tmp_path_factory: pytest.TempPathFactory, trained: list[tuple[float, float, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    for number, (loss, lr, finished) in enumerate(trained):
        write_run(folder / f"run-{number}", loss, lr=lr, seed=number, finished=finished)
    rows = rows_of(folder)
    assert sum(row["count"] for row in rows) == len(trained)
    assert [row["valid_loss"] for row in rows] == sorted(row["valid_loss"] for row in rows)
    for row in rows:
        losses = [trained[seed][0] for seed in row["seeds"]]
        assert row["runs"] == [f"run-{seed}" for seed in row["seeds"]]
        assert len({trained[seed][1:] for seed in row["seeds"]}) == 1
        assert row["finished"] or row["count"] == 1
        assert row["valid_loss"] == pytest.approx(np.mean(losses), rel=1e-12)
        assert row["valid_bits"] == pytest.approx(np.mean(losses) / np.log(2), rel=1e-12)
        if row["count"] == 1:
            assert row["valid_loss_deviation"] is None
        else:
            assert row["valid_loss_deviation"] == pytest.approx(np.std(losses, ddof=1), abs=1e-9)
    complete = [lr for _, lr, finished in trained if finished]
    assert sum(row["finished"] for row in rows) == len(set(complete))


def test_the_order_of_runs_does_not_matter_and_each_is_there_once(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"a{number % 2}" / f"{number}", 2 + number % 3, seed=number) for number in range(6)]
    folders.append(write_run(tmp_path / "other", 1.5, file=model(counts=[9] * 10)))
    expected = chargen.compare(folders).as_dict()
    for seed in range(5):
        mixed = random.Random(seed).sample(folders, len(folders))
        assert chargen.compare(mixed).as_dict() == expected
    more = [*folders, folders[0] / FILE_NAME, tmp_path / "a1", folders[1] / ".." / "1"]
    assert chargen.compare(more).as_dict() == expected
    assert chargen.compare([str(folder) for folder in folders]).as_dict() == expected


def test_settings_are_told_that_differ_and_no_others(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 2.0, lr=0.02, seed=1, log_every=5, save_minutes=9.0)
    write_run(tmp_path / "b", 2.1, batch_size=8, seed=2)
    write_run(tmp_path / "c", 2.2, file=model("lstm"))
    rows = rows_of(tmp_path)
    assert [row["settings"] for row in rows] == [
        {"cell": "gru", "batch_size": 4, "lr": 0.02},
        {"cell": "gru", "batch_size": 8, "lr": 0.01},
        {"cell": "lstm", "batch_size": 4, "lr": 0.01},
    ]
    assert rows_of(tmp_path / "a")[0]["settings"] == {}


def test_csv_and_json_hold_what_the_table_holds(tmp_path: Path) -> None:
    names = ["plain", 'comma, and "quote"', "=1+1", "två\u202e\x1b[2J", "line\nend"]
    for number, name in enumerate(names):
        write_run(tmp_path / name, 2 + number / 7, lr=0.01 * (number + 1), include=["*.txt"])
    write_run(tmp_path / "more", 2.0, seed=3, include=["*.txt"])
    comparison = chargen.compare(tmp_path)
    described = comparison.as_dict()
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    read = list(csv.DictReader(io.StringIO(comparison.as_csv(), newline="")))
    assert len(read) == len(described["rows"])
    for line, row in zip(read, described["rows"], strict=True):
        flat = {**row, "runs": "; ".join(row["runs"]), "seeds": "; ".join(map(str, row["seeds"]))}
        flat |= flat.pop("settings")
        assert line == {name: "" if value is None else str(value) for name, value in flat.items()}
        assert float(line["valid_loss"]) == row["valid_loss"]


def texts_of(*folders: Path) -> list[int]:
    """The numbers of the texts, in the order of the folders."""
    by_name = {name: row["text"] for row in rows_of(*folders) for name in row["runs"]}
    return [by_name[folder.name] for folder in folders]


def test_runs_that_were_judged_on_another_text_are_named(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", 2.0)
    cases = {
        "same name": write_run(tmp_path / "other", 1.0, file=model(counts=[2, 1, 3, 4, 5, 6, 7, 8, 9, 10])),
        "split": write_run(tmp_path / "split", 1.0, valid_fraction=0.2),
        "test part": write_run(tmp_path / "tested", 1.0, test_fraction=0.1),
        "own file": write_run(tmp_path / "own", 1.0, valid_fraction=0.0,
                              sources={"train": ["novel.txt"], "valid": ["held-out.txt"]}),
    }  # fmt: skip
    write_run(tmp_path / "second", 3.0, seed=1)
    for case, folder in cases.items():
        comparison = chargen.compare([first, folder, tmp_path / "second"])
        assert [row.text for row in comparison.rows] == [0, 1], case
        (warning,) = comparison.warnings
        assert warning.startswith(f"{folder.name} was judged on "), case
        assert warning.endswith(": losses of different texts do not compare")
    assert chargen.compare([first, tmp_path / "second"]).warnings == ()


def test_the_same_text_is_known_whatever_became_of_its_rare_characters(tmp_path: Path) -> None:
    counts = [*range(10, 32)]
    letters = "abcdefghijklmnopqrstuv"
    whole = replace(small_model("gru", num_layers=1, hidden_size=4, characters=letters), counts=np.array(counts))
    folded = small_model("gru", num_layers=1, hidden_size=4, characters=letters[2:], folded="ab")
    folded = replace(folded, counts=np.array([*counts[2:], sum(counts[:2])]))
    in_bytes = small_model("gru", num_layers=1, hidden_size=4, unit="byte")
    in_bytes = replace(in_bytes, counts=np.array([*[0] * 97, *counts, *[0] * (256 - 97 - len(counts))]))
    folders = [
        write_run(tmp_path / "whole", 2.0, file=whole),
        write_run(tmp_path / "folded", 2.0, file=folded, min_count=12),
        write_run(tmp_path / "in bytes", 2.0, file=in_bytes, unit="byte"),
    ]
    assert texts_of(*folders) == [0, 0, 0]
    assert len(rows_of(*folders)) == 3, "but they are no seeds of one another"


def test_a_text_of_its_own_is_told_by_its_length_too(tmp_path: Path) -> None:
    own: dict[str, Any] = {"valid_fraction": 0.0, "sources": {"train": ["a.txt"], "valid": ["held-out.txt"]}}
    folders = [write_run(tmp_path / str(size), 2.0, valid_characters=size, **own) for size in (100, 101)]
    running = write_run(tmp_path / "running", 2.0, finished=False, **own)
    other_train = {**own, "sources": {"train": ["b.txt"], "valid": ["held-out.txt"]}}
    longer = write_run(tmp_path / "longer", 1.9, file=model(counts=[7] * 10), **other_train)
    assert texts_of(folders[0], running, longer) == [0, 0, 0]
    assert [row["settings"] for row in rows_of(folders[0], longer)] == [
        {"train_text": "b.txt", "train_size": 70},
        {"train_text": "a.txt", "train_size": 55},
    ]
    assert sorted(texts_of(*folders)) == [0, 1]
    mixed = write_run(tmp_path / "mixed", 2.0, file=model(counts=[*range(10, 0, -1)]), **own)
    assert len(rows_of(folders[0], mixed)) == 2, "as long as the other training text, but not that"


def test_what_is_no_whole_figure_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "short", 2.0, valid_whole=False)
    write_run(tmp_path / "killed", 2.1, finished=False, test_loss=1.0)
    write_run(tmp_path / "blind", None, valid_fraction=0.0)
    comparison = chargen.compare(tmp_path)
    text = "\n".join(comparison.warnings)
    assert "killed is not finished" in text
    assert "short was judged on a part of the validation text" in text
    assert "blind had no validation text" in text
    assert comparison.as_dict()["rows"][-1]["valid_loss"] is None
    assert [run.whole for run in comparison.runs] == [False] * 3
    assert [run.test_loss for run in comparison.runs] == [None] * 3, "which is that of an earlier end"


def test_tests_on_different_texts_do_not_compare_either(tmp_path: Path) -> None:
    own = {"valid_fraction": 0.0, "test_whole": True, "test_characters": 50, "test_loss": 2.0}
    for name, file in (("a", "t.txt"), ("b", "t.txt"), ("c", "u.txt")):
        write_run(tmp_path / name, sources={"train": ["n"], "valid": ["v"], "test": [file]}, lr=ord(name) / 1e5, **own)
    assert chargen.compare(tmp_path).warnings == (
        "c was tested on another text than the rest: test losses do not compare",
    )


@pytest.mark.parametrize(
    "end",
    [
        '{"step": 44, "seco',
        '{"step": 44',
        "\0" * 9,
        "[" * 9_000,
        '{"step": ' + "9" * 400 + "}",
        '{"step": NaN}',
        "7",
        "é",
    ],
)
def test_a_line_that_a_kill_has_cut_off_is_left_out(end: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 2.0, finished=False)
    expected = chargen.compare(folder)
    with open(folder / METRICS, "ab") as file:
        file.write(end.encode())
    cut = chargen.compare(folder)
    assert cut.as_dict() == expected.as_dict()
    assert cut.runs[0].curves.steps.tolist() == expected.runs[0].curves.steps.tolist()


def test_a_run_without_metrics_has_the_figures_of_its_model(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 2.0)
    with_metrics = chargen.compare(folder).as_dict()["rows"][0]
    (folder / METRICS).unlink()
    without = chargen.compare(folder).as_dict()["rows"][0]
    assert {name for name in without if without[name] != with_metrics[name]} == {"seconds", "chars_per_second"}
    assert without["seconds"] is None
    alone = tmp_path / "novel.safetensors"
    alone.write_bytes((folder / FILE_NAME).read_bytes())
    assert rows_of(alone)[0]["valid_loss"] == 2.0
    assert rows_of(Path("shakespeare"))[0]["parameters"] > 10**6


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
LINE_NAMES = st.sampled_from([*curve()[0], "final"])


@given(st.lists(st.dictionaries(LINE_NAMES, ODD), max_size=4))
def test_metrics_may_hold_anything(tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]]) -> None:
    folder = write_run(tmp_path_factory.mktemp("run"), 2.0)
    mixed = [*curve()[:3], *lines, *curve()[3:], final_line()]
    (folder / METRICS).write_text("\n".join(map(json.dumps, mixed)))
    comparison = chargen.compare(folder)
    json.dumps(comparison.as_dict(), allow_nan=False)
    curves = comparison.runs[0].curves
    assert (np.diff(curves.steps) > 0).all()
    assert all(np.isfinite(getattr(curves, name)).any() for name in ("steps", "train_loss", "lr"))
    assert comparison._repr_html_().startswith("<table>")


SUMMARY_NAMES = st.sampled_from(["step", "settings", "sources", "seconds", "valid_loss", "valid_whole", "test_loss",
                                 "valid_characters", "precision", "init"])  # fmt: skip
FINITE = ODD.filter(lambda value: "nan" not in repr(value) and "inf" not in repr(value))


@given(st.dictionaries(SUMMARY_NAMES, FINITE | st.dictionaries(st.sampled_from(["lr", "seed", "train"]), FINITE)))
def test_the_summary_in_a_model_file_may_hold_anything(
    tmp_path_factory: pytest.TempPathFactory, training: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    save_model(folder / FILE_NAME, replace(model(), training=training))
    comparison = chargen.compare([folder, write_run(folder / "whole", 2.0)])
    json.dumps(comparison.as_dict(), allow_nan=False)
    assert comparison._repr_html_().startswith("<table>")
    assert all(warning.isprintable() for warning in comparison.warnings)


def test_what_is_damaged_is_refused_by_name_and_left_out_of_a_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "good", 2.0)
    damaged = write_run(tmp_path / "damaged", 2.0) / FILE_NAME
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (write_run(tmp_path / "unsaved", 2.0) / FILE_NAME).unlink()
    comparison = chargen.compare(tmp_path)
    assert [run.name for run in comparison.runs] == ["good"]
    assert [warning.split(": ")[0] for warning in comparison.warnings] == ["damaged is left out", "unsaved is left out"]
    for folder in ("damaged", "unsaved"):
        for paths in ([tmp_path, tmp_path / folder], [tmp_path / folder, tmp_path]):
            with pytest.raises(ModelFileError):
                chargen.compare(paths)
    (tmp_path / "none" / "inside").mkdir(parents=True)
    with pytest.raises(ModelFileError, match="holds no run"):
        chargen.compare(tmp_path / "none")
    with pytest.raises(ModelFileError, match="did you mean"):
        chargen.compare(tmp_path / "goood")


@pytest.mark.parametrize("wrong", [[], [3], 3, None, [None], "", [b"x"]])
def test_what_is_no_run_is_refused_in_one_line(wrong: Any) -> None:
    with pytest.raises(ChargenError) as caught:
        chargen.compare(wrong)
    assert str(caught.value).isprintable()


def test_what_train_returned_is_compared(tmp_path: Path) -> None:
    quick = {"steps": 2, "hidden_size": 4, "progress": False}
    (tmp_path / "text.txt").write_text(runs.TEXT)
    run = chargen.train(tmp_path / "text.txt", out=tmp_path / "run", **quick)
    assert chargen.compare([run]).runs[0].valid_loss == run.valid_loss
    assert chargen.compare(run).runs[0].name == "run"
    with pytest.raises(SettingError, match="`out`"):
        chargen.compare(replace(run, path=None))


@given(st.lists(st.lists(st.sampled_from(["a", "b", "a.safetensors"]), min_size=1, max_size=4), min_size=1, max_size=8))
def test_names_tell_runs_apart_and_are_ends_of_paths(parts: list[list[str]]) -> None:
    paths = [Path("/", *each) for each in {tuple(each): None for each in parts}]
    names = distinct_names(paths)
    assert len(set(names)) == len(paths)
    for path, name in zip(paths, names, strict=True):
        short = path.name.removesuffix(".safetensors")
        assert name == short or str(path).endswith(f"/{name}") or str(path) == name
        same_end = [other for other in paths if other.name.removesuffix(".safetensors") == short]
        assert len(same_end) > 1 or name == short


def test_names_of_rows_say_what_their_runs_have_in_common(tmp_path: Path) -> None:
    for name, lr in (("lstm-0", 0.1), ("lstm-1", 0.1), ("x", 0.2), ("yy", 0.2), ("alone", 0.3)):
        write_run(tmp_path / name, 2.0, lr=lr)
    assert sorted(row["name"] for row in rows_of(tmp_path)) == ["alone", "lstm-*", "x +1"]


def test_html_shows_hostile_names_as_text(tmp_path: Path) -> None:
    write_run(tmp_path / "<script>alert(1)<", 2.0, sources={"train": ["<img src=x onerror=y>"]})
    shown = chargen.compare(tmp_path)._repr_html_()
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;" in shown


def test_a_short_run_has_one_line_and_its_loss_is_no_point_of_the_curve(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 2.0)
    (folder / METRICS).write_text(json.dumps(final_line(2.0, step=3) | {"train_loss": 2.5}))
    (run,) = chargen.compare(folder).runs
    assert run.finished
    assert run.curves.train_loss.tolist() == [2.5]
    assert np.isnan(run.curves.valid_loss).all()
