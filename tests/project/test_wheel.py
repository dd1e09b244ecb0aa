"""What an installed chargen has: a wheel, made from a source archive as installers do, holds the whole package."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = """
import os
import tarfile
from setuptools import build_meta
with tarfile.open(build_meta.build_sdist(".")) as archive:
    archive.extractall("unpacked", filter="data")
os.chdir(os.path.join("unpacked", os.listdir("unpacked")[0]))
build_meta.build_wheel("../..")
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source archive and the wheel that was made from it; the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("built")
    for name in ("chargen", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return HeaderParser().parsestr(wheel.read(name).decode())


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built: Path, wheel: zipfile.ZipFile) -> None:
    files = {path.relative_to(built).as_posix() for path in (built / "chargen").rglob("*") if path.is_file()}
    assert {"chargen/py.typed", "chargen/pretrained/shakespeare.safetensors"} < files
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == files


def test_the_source_archive_holds_them_too_and_no_part_of_the_tests(built: Path, wheel: zipfile.ZipFile) -> None:
    """setuptools adds tests/test*.py by itself, which could not run without the files beside them."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {file.name.partition("/")[2] for file in archive.getmembers() if file.isfile()}
    package = {name for name in wheel.namelist() if ".dist-info/" not in name}
    others = {name for name in names - package if not name.startswith("chargen.egg-info/")}
    assert package <= names
    assert others == {"README.md", "LICENSE", "pyproject.toml", "setup.cfg", "PKG-INFO"}


def test_the_metadata_is_complete(wheel: zipfile.ZipFile) -> None:
    fields = metadata(wheel)
    for name in ("Summary", "Author", "Keywords", "Classifier", "Requires-Python", "Description-Content-Type"):
        assert fields[name], name
    assert fields["License-Expression"] == "MIT"
    assert fields.get_payload().strip() == (ROOT / "README.md").read_text("utf-8").strip()
    (name,) = (name for name in wheel.namelist() if name.endswith("/LICENSE"))
    assert wheel.read(name) == (ROOT / "LICENSE").read_bytes()


def test_an_installed_wheel_finds_its_model_by_name(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "installed")
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "chargen", "info", "shakespeare", "--json"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = Path(json.loads(done.stdout)["path"])
    assert found.is_relative_to(tmp_path / "installed")
    assert found.read_bytes() == (ROOT / "chargen/pretrained/shakespeare.safetensors").read_bytes()
