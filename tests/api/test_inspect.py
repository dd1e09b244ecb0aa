"""`inspect`: what is told of a text is what the other calls tell of it."""

from pathlib import Path

import numpy as np
import pytest

import chargen
from chargen.data.code_points import END_MARK
from chargen.errors import DataError, SettingError
from chargen.insight.predictions import PIECE
from chargen.storage.model_file import save_model
from tests.evaluation.judges import model, text_of
from tests.insight.pages import data_of
from tests.record_models import record_model


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("ways", ["one", "two"])
def test_it_tells_what_scores_and_activations_tell(ways: str) -> None:
    file, text = model("gru", "character", ways), text_of("character", 3 * PIECE)
    inspection = chargen.inspect(file, text, precision="fp32")
    scores = chargen.score(file, text)
    costs = inspection.predictions.log_probs["forward"]
    assert costs == pytest.approx([each.forward for each in scores], rel=1e-5)
    assert inspection.activations is not None
    np.testing.assert_array_equal(
        inspection.activations.hidden, chargen.activations(file, text, precision="fp32").hidden
    )
    fresh, carried = inspection.by_distance.values()
    assert fresh.counts.tolist() == carried.counts.tolist()
    assert fresh.counts.sum() == 2 * PIECE
    assert inspection.left_out == 0
    patterns = {"a or b": "[ab]"}
    inspection = chargen.inspect(file, text, patterns=patterns)
    assert inspection.neurons == chargen.rank_neurons(file, text, patterns=patterns)
    assert "a or b" in {neuron.feature for neuron in inspection.neurons}
    gates = chargen.gate_saturation(chargen.activations(file, text, gates=True))
    assert {name: each.by_layer for name, each in inspection.saturation.items()} == {
        name: each.by_layer for name, each in gates.items()
    }


def test_of_files_as_of_words_and_no_more_than_asked() -> None:
    file, text = model("lstm", "character", "one"), text_of("character", 300)
    Path("text.txt").write_text(text)
    save_model("model.safetensors", file)
    expected = chargen.inspect(file, text[:120]).page()
    for named in ({"text": text}, {"text": Path("text.txt")}, {"sources": "text.txt"}):
        inspection = chargen.inspect(file, **named, length=120)
        assert inspection.left_out == 180
        assert inspection.page().replace("120 characters of 300", "120 characters") == expected
        assert "120 characters of 300" in inspection.page()
    written = chargen.inspect("model.safetensors", text, length=120, out="page.html")
    assert written.name == "model.safetensors"
    assert Path("page.html").read_text("utf-8") == written.page()
    assert chargen.inspect(file, text, length=0).predictions.text == ""


def test_records_are_read_whole_with_their_labels() -> None:
    file = record_model()
    inspection = chargen.inspect(file, ["abc", "de", "f"], label=["sun", None, "sea"], length=5, precision="fp32")
    assert inspection.predictions.text == f"abc{END_MARK}de{END_MARK}"
    assert inspection.left_out == 1
    scores = chargen.score(file, ["abc", "de"], label=["sun", None])
    costs = [each.forward for record in scores for each in [*record, record.end]]
    assert inspection.predictions.log_probs["forward"] == pytest.approx(costs, rel=1e-5)
    (table,) = inspection.by_distance.values()
    assert table.counts.tolist() == [2, 2, 3]
    long_record = chargen.inspect(file, ["abcdef"], length=2)
    assert long_record.predictions.text.replace(END_MARK, "|") == "abcdef|", "no record is cut"
    data = data_of(inspection.page())
    assert [(layer["units"], layer["stop"]) for layer in data["layers"]] == [(12, 7)]


def test_no_file_but_a_page_is_overwritten() -> None:
    file = model("gru", "character", "one")
    chargen.inspect(file, "abc", out="page.html")
    chargen.inspect(file, "abcd", out="page.html")
    save_model("model.safetensors", file)
    before = Path("model.safetensors").read_bytes()
    with pytest.raises(DataError, match="is no page that chargen wrote and is not overwritten"):
        chargen.inspect(file, "abc", out="model.safetensors")
    assert Path("model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"length": -1}, "length is -1"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"unknown": "ignore"}, "unknown is 'ignore'"),
        ({"out": ""}, "out is ''"),
        ({"patterns": {"a": "("}}, "no regular expression"),
        ({"label": "sun"}, "has no records"),
    ],
)
def test_what_is_wrong_is_told_before_the_model_reads(
    wrong: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("chargen.api.inspect.prepare_networks", refuse)
    with pytest.raises(SettingError, match=message):
        chargen.inspect(model("gru", "character", "one"), "abc", **wrong)
