"""What all tests share: reproducible hypothesis, a cache of their own, commands in a folder of their own."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small models on busy machines want one thread

import pytest
from hypothesis import HealthCheck, settings

from chargen.cache_folder import cache_folder

# Every test has a cache of its own, but kernels are compiled once for all.
os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "kernels"))

# What tests share fails as readably as they do.
pytest.register_assert_rewrite(*(f"tests.{path.stem}" for path in Path(__file__).parent.glob("[a-z]*")))

from chargen.data.named_corpora import NamedCorpus  # noqa: E402
from chargen.sampling.sampler import Sampler  # noqa: E402
from tests.commands import TEXT, Run, run_command  # noqa: E402
from tests.small_models import small_model  # noqa: E402
from tests.web import TALE, Web, name_corpus, running_web  # noqa: E402

for profile, examples in ("chargen", 20), ("thorough", 200):
    settings.register_profile(
        profile,
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
settings.load_profile("chargen")


@pytest.fixture(autouse=True, scope="session")
def warm_kernels() -> None:
    """Commands say when they compile: on a new machine that would stand between what tests look at."""
    Sampler(small_model(), seed=0).generate(1)
    gc.freeze()  # all that is loaded and collected by now stays: looking through it again takes much of the time


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the caches of all tests are: to number thousands of folders, pytest looks through them for each."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def own_cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the cache of the person who runs it."""
    folder = Path(tempfile.mkdtemp(dir=caches))
    monkeypatch.setenv("CHARGEN_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def seed_torch() -> None:
    """Weights that a test draws are the same whatever ran before it."""
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)  # torch.manual_seed keeps a stack for each GPU that may come


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands in this process, in a folder of the test's own with text.txt."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    return run_command


@pytest.fixture(scope="module")
def server() -> Iterator[Web]:
    """A web server on this machine."""
    with running_web() as web:
        yield web


@pytest.fixture
def tale(server: Web, monkeypatch: pytest.MonkeyPatch) -> NamedCorpus:
    """A corpus that is on the server."""
    return name_corpus(server, monkeypatch, TALE)
