"""Counts beside a network: which forms hold them, and what is told where they are left out."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chargen
from chargen.errors import SettingError
from chargen.exporting.folder import CARD
from chargen.exporting.page_model import write_model
from chargen.storage.model_file import FILE_NAME, ModelFile, read_model, save_model
from chargen.storage.quantize import quantization_of
from tests.commands import Run
from tests.small_models import small_model, with_counts

TEXT = "bad cab face\nhead bead deaf\nabc abc abd\n" * 4
FIGURES = {
    "step": 7, "epoch": 1.5,
    "valid_loss": 1.25, "valid_characters": 400, "valid_whole": True, "valid_loss_forward": 1.2,
    "valid_loss_backward": 1.3, "valid_cloze": 0.9, "valid_loss_network": 1.75,
}  # fmt: skip


def counted(*, counts: bool = True) -> ModelFile:
    file = replace(small_model(bidirectional=True), training=FIGURES)
    return with_counts(file, TEXT) if counts else file


@pytest.mark.parametrize("name", ["a.html", "a.onnx", "A.HTML", "a.safetensors", "a", "there.html"])
def test_a_form_without_counts_says_so_once(name: str, run: Run) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnx")
    Path("there.html").mkdir()
    quantize = ["--quantize", "bf16"] * (name == "a.safetensors")
    notes = []
    for folder, counts in (("with", True), ("without", False)):
        save_model(Path(folder, FILE_NAME), counted(counts=counts))
        result = run("export", folder, name, *quantize)
        assert (result.code, result.out) == (0, "")
        notes.append(re.findall("^.*counts.*$", result.err, re.MULTILINE))
    alone = name.lower() in ("a.html", "a.onnx")
    assert notes == [[f"note: {name} holds the network alone, without the counts beside it"] * alone, []]


def test_a_page_and_an_onnx_file_are_those_of_the_network(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    for folder, counts in (("with", True), ("without", False)):
        for form in ("a.onnx", "a.html"):
            chargen.export(counted(counts=counts), tmp_path / folder / form)
    assert (tmp_path / "with/a.onnx").read_bytes() == (tmp_path / "without/a.onnx").read_bytes()
    assert write_model(counted()) == write_model(counted(counts=False))
    pages = [(tmp_path / folder / "a.html").read_text("utf-8") for folder in ("with", "without")]
    words = "; the network alone, without the counts beside it"
    assert pages[0].count(words) == 1
    assert pages[0].replace(words, "") == pages[1]


@pytest.mark.parametrize("quantize", [None, "int8", "bf16"])
def test_model_files_and_folders_keep_counts_or_leave_them_out(quantize: str | None, tmp_path: Path) -> None:
    file, options = counted(), {} if quantize is None else {"quantize": quantize}
    for name in ("a.safetensors", "a/"):
        if quantize or name == "a/":
            kept = read_model(chargen.export(file, f"{tmp_path}/{name}", **options))
            assert quantization_of(kept.arrays) == (quantize or "")
            for direction, mixture in file.mixtures.items():
                np.testing.assert_array_equal(kept.mixtures[direction].cells, mixture.cells)
                for array, values in mixture.tree.arrays.items():
                    np.testing.assert_array_equal(kept.mixtures[direction].tree.arrays[array], values)
            assert kept.training == FIGURES
        alone = read_model(chargen.export(file, f"{tmp_path}/{name}", **options, no_counts=True))
        assert alone.mixtures == {}
        figures = {key: value for key, value in FIGURES.items() if not key.startswith("valid_loss")}
        assert alone.training == {**figures, "valid_loss": 1.75}
        expected = chargen.evaluate(replace(counted(counts=False), arrays=alone.arrays), "abd face")
        assert chargen.evaluate(alone, "abd face") == expected
    assert file.training == FIGURES, "the model that was exported has changed"


def test_there_must_be_counts_to_leave_out(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a/"):
        with pytest.raises(SettingError, match="this model has no counts: leave `no_counts` out") as error:
            chargen.export(counted(counts=False), f"{tmp_path}/{name}", no_counts=True)
        assert error.value.setting == "no_counts"
    for name in ("a.html", "a.onnx"):
        with pytest.raises(SettingError, match="`no_counts` is not for"):
            chargen.export(counted(), tmp_path / name, no_counts=True)


def test_a_card_tells_of_counts_and_of_both_losses(tmp_path: Path) -> None:
    card, alone, plain = (
        (chargen.export(file, tmp_path / name, **options) / CARD).read_text()
        for name, file, options in (
            ("with", counted(), {}), ("alone", counted(), {"no_counts": True}), ("plain", counted(counts=False), {}),
        )
    )  # fmt: skip
    contexts = sum(len(mixture.tree.labels) for mixture in counted().mixtures.values())
    assert f"Beside the network it has counts of its texts: what stood behind {contexts} contexts." in card
    assert "weights, counts, settings and vocabulary;" in card
    assert "| validation | 1.2500 |" in card
    assert "| validation, without counts | 1.7500 |" in card
    assert "Beside" not in alone + plain
    assert "weights, settings and vocabulary;" in alone
    assert "| validation | 1.7500 |" in alone
    assert "1.2" not in re.sub("`[^`]*`", "", alone)


@pytest.mark.parametrize("value", [None, "1.5", [1], {"a": 1}, True, -1.0, 1e300])
def test_figures_may_be_anything(value: Any, tmp_path: Path) -> None:
    file = replace(counted(), training={"valid_loss": 1.0, "valid_loss_network": value, "test_loss_network": 2.0})
    card = (chargen.export(file, tmp_path / "a") / CARD).read_text()
    assert "validation, the network alone" not in card
    assert json.dumps(read_model(chargen.export(file, tmp_path / "b", no_counts=True)).training)
