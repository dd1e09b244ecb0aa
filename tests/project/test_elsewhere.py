"""What the documents print for programs without chargen runs without chargen, as printed there."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import chargen
from chargen.data.vocabulary import Vocabulary
from chargen.model.config import ModelConfig
from chargen.model.language_model import CharModel
from chargen.model.weights import weights_of
from chargen.storage.model_file import FILE_NAME, ModelFile, build_model, save_model
from tests.exporting.models import exported_model

PAGES = Path(__file__).parents[2] / "docs/pages"


def printed(page: str, name: str) -> str:
    """The fenced block of a page that follows the comment `name`."""
    return re.search(rf"<!-- {name} -->\n```python\n(.*?)```", (PAGES / page).read_text("utf-8"), re.DOTALL)[1]


def run_alone(program: str, folder: Path) -> str:
    """Run a program that can import neither chargen nor torch, and return what it prints."""
    missing = "import sys\nsys.modules.update(chargen=None, torch=None)\n"
    command = [sys.executable, "-I", "-W", "error", "-c", missing + program]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def likely(file: ModelFile, *ids: int) -> ModelFile:
    """The same model, which writes these ids more often."""
    bias = file.arrays["output.bias"].copy()
    bias[[*ids]] += 4
    return replace(file, arrays=file.arrays | {"output.bias": bias})


@pytest.mark.parametrize(
    ("kind", "start", "letters"),
    [
        ("three layers", " a", r"[a-h \n]{298}"),
        ("folded", "<unk><unk> <unk>a<unk>", r"[a-h \n]{294}"),
        ("bytes", "It was", r"[\0-\ufffd]{100,294}"),
        ("records", " a", r"[a-f ]{1,200}"),
    ],
)
def test_a_program_writes_with_onnxruntime_and_tokenizers_alone(
    kind: str, start: str, letters: str, tmp_path: Path
) -> None:
    file = exported_model("gru", kind)
    often = [file.vocabulary.end_id] if kind == "records" else [file.vocabulary.unknown_id] if kind == "folded" else []
    chargen.export(likely(file, *file.vocabulary.encode("abc"), *often), tmp_path / "novel.onnx")
    program = printed("guides/elsewhere.md", "writes with onnxruntime")
    assert len([line for line in program.splitlines() if line]) <= 20
    written = run_alone(program, tmp_path)
    assert re.fullmatch(re.escape(start) + letters + "\n", written), written
    if kind == "three layers":
        assert run_alone(program.replace("seed=1", "seed=2"), tmp_path) != written


def wide_model() -> ModelFile:
    """A model of the usual sizes."""
    config = ModelConfig()
    network = CharModel(config, 10)
    return ModelFile(config, Vocabulary("abcdefghij"), weights_of(network), np.ones(10, np.int64))


def test_five_lines_load_a_file_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = wide_model()
    save_model(tmp_path / "checkpoints/novel" / FILE_NAME, file)
    expected, _ = build_model(file)(torch.tensor([[1, 2, 3]]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "chargen", None)
    names: dict[str, torch.Tensor] = {}
    exec(printed("reference/files.md", "loads by hand"), names)
    assert (names["logits"] - expected).abs().max() < 1e-6
