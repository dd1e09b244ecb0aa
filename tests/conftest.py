"""What all tests share: reproducible hypothesis, a cache of their own, a small model to look at."""

import gc
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small models on busy machines want one thread

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from chargen.cache_folder import cache_folder

# Every test has a cache of its own, but kernels are compiled once for all.
os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "kernels"))

from chargen.data.vocabulary import Vocabulary
from chargen.model.config import ModelConfig
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import ModelFile

settings.register_profile(
    "chargen",
    derandomize=True,
    deadline=None,
    database=None,
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


def small_model(
    cell: str = "lstm",
    *,
    num_layers: int = 2,
    hidden_size: int = 12,
    characters: str = "abcdefgh \n",
    unit: str = "character",
    folded: str = "",
    seed: int = 0,
    scale: float = 3.0,
    bidirectional: bool = False,
    tie_weights: bool = False,
) -> ModelFile:
    """A model with random weights, large enough that its predictions differ from character to character."""
    from chargen.model.language_model import CharModel

    vocabulary = Vocabulary(unit=unit) if unit == "byte" else Vocabulary("".join(sorted(characters)), folded=folded)
    config = ModelConfig(
        cell=cell,
        num_layers=num_layers,
        hidden_size=hidden_size,
        embedding_size=None if tie_weights else 8,
        tie_weights=tie_weights,
        bidirectional=bidirectional,
    )
    model = CharModel(config, len(vocabulary), seed)
    arrays = {name: weight.detach().numpy() * np.float32(scale) for name, weight in model.named_parameters()}
    return ModelFile(config, vocabulary, arrays, np.arange(1, len(vocabulary) + 1))
