"""Machine code is kept where it can be found again, and everything works without a compiler."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chargen
from chargen.kernels import jit
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import save_model
from tests.decoding.engines import model
from tests.small_models import small_model
from tests.yardstick import HANG


def run_python(code: str, *, folder: Path | None = None, **environment: str) -> str:
    """What a fresh process prints that starts in a folder."""
    whole_environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, env=whole_environment, cwd=folder, capture_output=True, text=True, timeout=HANG)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_without_numba_the_same_text_is_written_in_numpy(tmp_path: Path) -> None:
    file = small_model(scale=1.0)
    save_model(tmp_path / "m", file)
    code = f"""
import sys
sys.modules["numba"] = None
from chargen.cli.main import main
from chargen.sampling.sampler import Sampler
sampler = Sampler.from_file({str(tmp_path / "m")!r}, seed=5, num=2)
print(type(sampler.engine).__name__, [sample.text for sample in sampler.generate_all(40)])
assert "chargen.decoding.compiled_engine" not in sys.modules
main(["sample", {str(tmp_path / "m")!r}, "--seed", "5", "--length", "40", "--temperature", "1"])
"""
    texts = [sample.text for sample in Sampler(file, seed=5, num=2).generate_all(40)]
    assert run_python(code) == f"NumpyEngine {texts}\n{texts[0]}"


SIGMOID = "import numpy; from chargen.kernels import decode_gates; print(decode_gates.sigmoid(numpy.float32(1)))"


def machine_code(folder: Path) -> dict[Path, tuple[int, int]]:
    """Files of machine code, each with its size and when it was written."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*.nb?")}


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def blanked(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2] + bytes(size - size // 2))


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), halved, blanked, Path.unlink])
def test_machine_code_that_a_crash_has_cut_is_compiled_again(
    damage: Callable[[Path], object], pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(number: int) -> int:
        return 3 * number + 1

    def run() -> tuple[int, int]:
        """The result, and how many times machine code was taken from the cache."""
        new: Any = jit.compiled(function)
        return new(5), sum(new.stats.cache_hits.values())

    monkeypatch.setattr(jit, "MACHINE_CODE_FOLDER", str(tmp_path))
    assert [run(), run()] == [(16, 0), (16, 1)]
    (path,) = tmp_path.rglob(pattern)
    damage(path)
    assert [run(), run()] == [(16, 0), (16, 1)]


def test_kernels_are_compiled_once_for_all_processes(tmp_path: Path) -> None:
    assert float(run_python(SIGMOID, NUMBA_CACHE_DIR=str(tmp_path))) == pytest.approx(0.7310586, abs=1e-7)
    first = machine_code(tmp_path)
    assert len(first) >= 4
    assert {path.relative_to(tmp_path).parts[0] for path in first} == {Path(jit.MACHINE_CODE_FOLDER).name}
    run_python(SIGMOID, NUMBA_CACHE_DIR=str(tmp_path))
    assert machine_code(tmp_path) == first


def test_kernels_are_kept_in_the_cache_of_chargen(own_cache: Path) -> None:
    run_python("import os; os.environ.pop('NUMBA_CACHE_DIR', None); " + SIGMOID, CHARGEN_CACHE=str(own_cache))
    assert {path.relative_to(own_cache).parts[:2] for path in machine_code(own_cache)} == {
        ("kernels", Path(jit.MACHINE_CODE_FOLDER).name)
    }


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    """What this process has compiled, a sampler in another finds."""
    save_model(tmp_path / "m", model("gru", 2, 12))
    code = f"""
from chargen.kernels.decode_step import read_or_write
from chargen.sampling.sampler import Sampler
print(len(Sampler.from_file({str(tmp_path / "m")!r}, seed=1, num=2).generate_all(30)))
print(sum(read_or_write.stats.cache_misses.values()))
"""
    Sampler(model("gru", 2, 12), seed=1).generate(3)
    assert run_python(code).split() == ["2", "0"]


def test_a_change_of_any_kernel_is_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in Path(jit.__file__).parent.glob("*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    assert jit._machine_code_folder() == jit.MACHINE_CODE_FOLDER
    for path in sorted(tmp_path.glob("*.py")):
        before = jit._machine_code_folder()
        path.write_text(path.read_text() + "\n")
        assert jit._machine_code_folder() != before


def copied_package(folder: Path) -> dict[str, str]:
    """Copy chargen there; the environment of a process that has no place for a cache but its own folder."""
    shutil.copytree(Path(chargen.__file__).parent, folder / "chargen", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "file").touch()
    nowhere = str(folder / "file" / "below")
    return {"NUMBA_CACHE_DIR": nowhere, "CHARGEN_CACHE": nowhere, "HOME": nowhere, "XDG_CACHE_HOME": nowhere}


def test_where_nothing_can_be_written_every_process_compiles(tmp_path: Path) -> None:
    environment = copied_package(tmp_path)
    (tmp_path / "chargen" / "kernels" / "__pycache__").touch()
    code = f"import chargen; assert chargen.__file__.startswith({str(tmp_path)!r}); {SIGMOID}"
    assert float(run_python(code, folder=tmp_path, **environment)) == pytest.approx(0.7310586, abs=1e-7)
    assert not machine_code(tmp_path)


def test_without_a_cache_nothing_is_kept_beside_the_sources(tmp_path: Path) -> None:
    run_python(SIGMOID, folder=tmp_path, **copied_package(tmp_path))
    assert not machine_code(tmp_path)


def test_the_setting_of_numba_is_given_back() -> None:
    code = "from numba import config as c; c.CACHE_DIR = 'mine'; import chargen.kernels.decode_step; print(c.CACHE_DIR)"
    assert run_python(code).split() == ["mine"]
