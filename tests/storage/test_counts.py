"""Model files with counts come back as they were, and files without are those that they were before."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from chargen import Sampler, score
from chargen.counting.grow_tree import grow_tree
from chargen.counting.mixture import Mixture, cell_count
from chargen.data.vocabulary import Vocabulary
from chargen.model.config import ModelConfig, parameter_shapes
from chargen.storage.model_file import ModelFile, read_model, save_model
from tests.record_models import record_model
from tests.small_models import small_model, with_counts
from tests.storage.counted_files import FILES, SMALL
from tests.trees import NAMES

GOLDEN = Path(__file__).parents[1] / "golden" / "counts.safetensors"
GOLDEN_TEXT = "acabaaaabbababaadababcaaabcbra"
GOLDEN_SCORES = [-0.7885, -1.3466, -3.2391, -0.0347, -1.369, -0.0557, -0.9146, -0.0587, -0.3422, -0.8786, -0.0355]


def golden_model() -> ModelFile:
    """What tests/golden/counts.safetensors holds; `save_model(GOLDEN, golden_model())` made it."""
    config, vocabulary, arrays = ModelConfig("gru", 1, 4, 3), Vocabulary("abcdr"), {}
    for name, shape in parameter_shapes(config, 5).items():
        arrays[name] = ((np.arange(np.prod(shape)) * 7919 % 193 - 96) / 64).astype("f4").reshape(shape)
    tree = grow_tree(vocabulary.encode("abracadabra" * 3), 5, 4, np.inf)
    weights = np.linspace(0.125, 0.375, 2 * cell_count(4)).reshape(-1, 2)
    return ModelFile(
        config, vocabulary, arrays, np.array([5, 2, 1, 1, 2]), mixtures={"forward": Mixture(tree, weights)}
    )


def same(file: ModelFile, other: ModelFile) -> None:
    """Check that models are equal to the last bit."""
    assert file.describe() == other.describe()
    assert file.all_arrays.keys() == other.all_arrays.keys()
    for name, array in file.all_arrays.items():
        assert (array.dtype, array.shape) == (other.all_arrays[name].dtype, other.all_arrays[name].shape), name
        assert array.tobytes() == other.all_arrays[name].tobytes(), name
    for direction, mixture in file.mixtures.items():
        sizes = [(each.size, each.order, each.predictable) for each in (mixture.tree, other.mixtures[direction].tree)]
        assert sizes[0] == sizes[1]


@pytest.mark.parametrize("kind", FILES)
def test_counts_come_back_from_a_file_as_they_were(kind: str, tmp_path: Path) -> None:
    file = FILES[kind]()
    save_model(tmp_path / "m", file)
    again = read_model(tmp_path / "m")
    same(again, file)
    assert set(again.mixtures) == set(file.config.directions)
    assert not [name for name in again.arrays if name.endswith(NAMES)], "the weights are apart"
    save_model(tmp_path / "again", again)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


@pytest.mark.parametrize("kind", ["both ways", "labelled records"])
def test_counts_that_were_read_write_the_same_text(kind: str, tmp_path: Path) -> None:
    file = FILES[kind]()
    save_model(tmp_path / "m", file)
    for direction in file.config.directions:
        texts = [
            Sampler(model, seed=3, direction=direction).generate(30) for model in (file, read_model(tmp_path / "m"))
        ]
        assert texts[0] == texts[1]


def test_one_direction_may_have_counts_alone(tmp_path: Path) -> None:
    file = FILES["both ways"]()
    for direction in file.config.directions:
        one = dataclasses.replace(file, mixtures={direction: file.mixtures[direction]})
        save_model(tmp_path / "m", one)
        same(read_model(tmp_path / "m"), one)


def test_the_golden_file_with_counts_is_still_read_and_gives_the_stored_numbers(tmp_path: Path) -> None:
    file = read_model(GOLDEN)
    same(file, golden_model())
    save_model(tmp_path / "again", file)
    assert (tmp_path / "again").read_bytes() == GOLDEN.read_bytes()
    assert GOLDEN.stat().st_size <= 7000
    assert Sampler(file, seed=7, temperature=1).generate(30) == GOLDEN_TEXT
    judged = [character.forward for character in score(GOLDEN, "abracadabra")]
    assert judged == pytest.approx(GOLDEN_SCORES, abs=1e-4)


def test_only_counts_need_the_format_of_counts(tmp_path: Path) -> None:
    for file, number in ((small_model(**SMALL), 1), (record_model(), 2), (FILES["one way"](), 3)):
        assert file.format == file.describe()["format"] == number
        assert ("mixtures" in file.describe()) == (number == 3)
        save_model(tmp_path / "m", file)
        assert rf"\"format\":{number},".encode() in (tmp_path / "m").read_bytes()
        same(read_model(tmp_path / "m"), file)


def test_a_tree_of_another_vocabulary_is_not_saved(tmp_path: Path) -> None:
    file, other = FILES["one way"](), with_counts(small_model(**SMALL, characters="abc"), "abcabc")
    with pytest.raises(ValueError, match=r"^counts of 3 ids: the vocabulary has 10$"):
        save_model(tmp_path / "m", dataclasses.replace(file, mixtures=other.mixtures))
    with pytest.raises(ValueError, match=r"^mixtures are those of backward: the model reads otherwise$"):
        save_model(tmp_path / "m", dataclasses.replace(file, mixtures={"backward": file.mixtures["forward"]}))


def test_counts_that_look_back_less_are_never_saved_so_that_they_could_not_be_read(tmp_path: Path) -> None:
    file = FILES["one way"]()
    limited = dataclasses.replace(file, mixtures={"forward": file.mixtures["forward"].limited(2)})
    with pytest.raises(ValueError, match=r"^counts look back 2 ids of 4: only whole ones are saved$"):
        save_model(tmp_path / "m", limited)
    assert not (tmp_path / "m").exists()
