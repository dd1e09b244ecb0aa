"""A folder for a hub or a release: what is in it, what it replaces, and a card that a hostile file cannot write in."""

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import chargen
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError, SettingError, WriteError
from chargen.exporting import folder as folder_export
from chargen.exporting.folder import CARD, TOKENIZER
from chargen.exporting.model_card import is_own_card, quote, write_model_card
from chargen.storage.model_file import FILE_NAME, ModelFile, read_model, save_model
from chargen.storage.quantize import quantization_of
from tests.commands import Run
from tests.record_models import record_model
from tests.small_models import small_model

CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
"""As CommonMark has it."""
HOSTILE = (
    "---\nlicense: mit\n---\n# I am safe",
    "` `` ``` <script>alert(1)</script>",
    "](javascript:alert) | a | b |\r\n<!-- -->",
    "\u202egnp.exe\u2028\x1b[2J\x00\ud800",
    "`",
    " ",
    "",
)
ANY_TEXT = st.text(st.one_of(st.sampled_from("`` \n\r-#|<>[]()\\!*_~&;:\u2028\u202e"), st.characters()), max_size=30)


def trained(**training: object) -> ModelFile:
    """A model that says how it was trained."""
    summary = {
        "step": 1234,
        "epoch": 5.678,
        "sources": {"train": ["novel.txt"], "valid": ["other.txt"]},
        "valid_loss": 1.5,
        "valid_characters": 4321,
        "valid_whole": True,
        "settings": {"lr": 0.1},
    }
    return replace(small_model("gru"), training={**summary, **training})


def card_of(file: ModelFile, name: str = "novel") -> str:
    return write_model_card(name, file, "0" * 64)


def test_the_folder_is_a_model(tmp_path: Path, run: Run) -> None:
    file = trained()
    save_model(tmp_path / "run" / FILE_NAME, file)
    assert run("export", "run", "out/").code == 0
    assert sorted(os.listdir("out")) == sorted([CARD, FILE_NAME, TOKENIZER])
    assert Path("out", FILE_NAME).read_bytes() == Path("run", FILE_NAME).read_bytes()
    sampled = [run("sample", name, "--seed", 1, "--length", 50).out for name in ("run", "out", "out/")]
    assert sampled[0] == sampled[1] == sampled[2] != ""
    code, _, err = run("export", "run", "v1.5/", "--quantize", "int8")
    assert (code, quantization_of(read_model("v1.5").arrays)) == (0, "int8")
    cards = [Path(name, CARD).read_text() for name in ("out", "v1.5")]
    assert ["before the weights were rounded to int8." in card for card in cards] == [False, True]
    assert [line.split(":")[0] for line in err.splitlines()] == [f"v1.5/{name}" for name in sorted(os.listdir("v1.5"))]


def test_the_card_tells_what_the_file_knows(tmp_path: Path) -> None:
    folder = chargen.export(trained(), tmp_path / "novel")
    card = (folder / CARD).read_text()
    digest = hashlib.sha256((folder / FILE_NAME).read_bytes()).hexdigest()
    assert card.startswith("---\n# license: choose")
    for fact in (
        "\n- gru\n---\n",
        "\n# `novel`\n",
        "GRU 2 x 12 over 10 characters",
        f"{sum(array.size for array in trained().arrays.values()):,} parameters",
        "- from `novel.txt`\n- validated on `other.txt`\n- step 1,234, epoch 5.68\n",
        "| validation | 1.5000 | 2.1640 | the whole, 4,321 characters |",
        f"as `sha256sum` computes it (`chargen info` shows another, of the file without its own digest): `{digest}`",
    ):
        assert fact in card
    both = record_model(labels=("sea", "sun"))
    card = card_of(replace(both, training={"test_loss": 1.0, "test_loss_backward": 2.0, "test_whole": False}))
    assert "| test | 1.0000 | 1.4427 | a part |\n| test, backward | 2.0000 | 2.8854 | a part |\n" in card
    assert "Records have 2 labels: `sea`, `sun`." in card
    assert "It reads both ways" in card
    assert "The file tells no loss" in card_of(small_model())
    assert "It knows every character, as bytes." in card_of(small_model(unit="byte"))
    many = card_of(trained(sources={"train": [f"{number}.txt" for number in range(30)]}))
    assert "`19.txt` and 10 more" in many


def test_the_python_of_the_card_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = chargen.export(trained(), tmp_path / "novel")
    (program,) = re.findall("```python\n(.*?)```", (folder / CARD).read_text(), re.DOTALL)
    exec(program.replace("FOLDER", str(folder)))
    assert len(capsys.readouterr().out) >= 500


@given(ANY_TEXT)
@example("`a`")
@example("")
@example(" ")
def test_quoted_text_is_one_code_span(text: str) -> None:
    quoted = quote(text)
    assert quoted.isprintable()
    span = CODE_SPAN.fullmatch(quoted)
    assert span
    inner = span[2]
    if inner.strip(" ") and inner[0] == inner[-1] == " ":
        inner = inner[1:-1]
    if text and text.isprintable():
        assert inner == text


@given(st.lists(ANY_TEXT, min_size=3, max_size=3, unique=True))
@example([*HOSTILE[:3]])
@example([*HOSTILE[3:6]])
def test_a_hostile_file_writes_in_code_spans_only(texts: list[str]) -> None:
    def card(name: str, source: str, label: str) -> str:
        records = record_model()
        vocabulary = Vocabulary(records.vocabulary.characters, records=True, labels=("other", label))
        return card_of(replace(records, vocabulary=vocabulary, training={"sources": {"train": [source]}}), name)

    plain = card("a", "b", "c")
    texts[2] = texts[2].encode("utf-8", "ignore").decode() or "x"  # a label is a text
    hostile = card(*texts) if texts[2] != "other" else plain
    outside = [CODE_SPAN.sub("CODE", text[: text.rindex("<!--")]) for text in (plain, hostile)]
    assert outside[0] == outside[1]
    assert outside[1].count("\n---\n") == 1


@pytest.mark.parametrize("value", ["x", None, True, [], {}, -1.0, float("nan"), float("inf"), 10**400, 2**53])
def test_a_summary_that_lies_about_types_is_left_out(value: object) -> None:
    names = "step", "epoch", "valid_loss", "valid_characters", "valid_whole", "sources", "valid_loss_forward"
    card = card_of(trained(**dict.fromkeys(names, value)))
    assert "The file tells no loss" in card
    assert "step" not in card
    nested: list[object] = []
    for _ in range(20_000):
        nested = [nested]
    assert "too large to show" in card_of(trained(sources={"train": [nested]}))


def test_what_an_export_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = chargen.export(trained(), tmp_path / "out")
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert is_own_card(first[CARD])
    chargen.export(trained(step=99), folder)
    assert b"step 99" in (folder / CARD).read_bytes()
    chargen.export(trained(), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first

    def refuse(path: Path, *rest: object) -> None:
        raise WriteError(f"cannot write {path}")

    with monkeypatch.context() as patch:  # one that was interrupted is done again
        patch.setattr(folder_export, "save_model", refuse)
        with pytest.raises(WriteError):
            chargen.export(trained(step=99), folder)
    assert (folder / FILE_NAME).read_bytes() == first[FILE_NAME]
    (folder / TOKENIZER).unlink()
    (folder / FILE_NAME).unlink()
    chargen.export(trained(), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_what_others_wrote_is_not_touched(tmp_path: Path) -> None:
    file = trained()
    folder = tmp_path / "out"

    def refused(words: str) -> None:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(DataError, match=words) as error:
            chargen.export(trained(step=99), folder)
        assert "\n" not in str(error.value)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    folder.write_text("a file")
    refused("out is no folder")
    folder.unlink()
    folder.mkdir()
    (folder / "thesis.txt").write_text("dear")
    refused("holds thesis.txt, which export did not write; name an empty folder")
    (folder / "thesis.txt").unlink()
    (folder / TOKENIZER).write_text("{}")
    refused("holds tokenizer.json, and no README.md that export wrote")
    (folder / TOKENIZER).unlink()
    save_model(folder / FILE_NAME, file)  # which may be the only copy
    refused("holds model.safetensors, and no README.md that export wrote")
    (folder / FILE_NAME).unlink()
    chargen.export(file, folder)
    (folder / CARD).write_text("license: mit\n" + (folder / CARD).read_text())
    refused("README.md is changed since it was written, and is not overwritten; move it away")
    (folder / CARD).write_text("")
    refused("README.md is changed")
    for name in (CARD, TOKENIZER):
        (folder / name).unlink()
        (folder / name).mkdir()
        refused(f"holds {name}, which export did not write")
        (folder / name).rmdir()
    (tmp_path / "tokenizer of others").write_text("{}")
    (folder / TOKENIZER).symlink_to(tmp_path / "tokenizer of others")
    refused("holds tokenizer.json, which export did not write")
    (folder / TOKENIZER).unlink()
    (folder / ".thesis.txt.0123456789abcdef.tmp").write_text("dear")
    refused("holds .thesis.txt")


@pytest.mark.parametrize("name", [FILE_NAME, CARD])
def test_what_a_killed_export_left_is_removed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    if name == CARD:
        chargen.export(trained(), folder)
    folder.mkdir(exist_ok=True)
    (folder / f".{name}.0123456789abcdef.tmp").write_text("half")
    chargen.export(trained(), folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted((FILE_NAME, TOKENIZER, CARD))


def test_the_model_itself_is_not_overwritten(tmp_path: Path) -> None:
    save_model(tmp_path / "run" / FILE_NAME, small_model())
    for model in (tmp_path / "run", tmp_path / "run" / FILE_NAME):
        with pytest.raises(DataError, match="is the model itself; choose another name"):
            chargen.export(model, tmp_path / "run", quantize="int8")
    with pytest.raises(SettingError, match="already"):
        chargen.export("shakespeare", tmp_path / "out", quantize="int8")
    assert not (tmp_path / "out").exists()
