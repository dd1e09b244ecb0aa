"""Counts in a model file: their arrays, and the numbers that say of which shapes these are."""

from collections.abc import Mapping
from typing import Any

from chargen.arguments import Arrays
from chargen.counting.context_tree import ContextTree, array_lengths
from chargen.counting.mixture import Mixture, cell_count
from chargen.data.vocabulary import Vocabulary
from chargen.errors import ModelFileError, amount
from chargen.model.config import ModelConfig


def check_mixture(mixture: Mixture, vocabulary: Vocabulary) -> None:
    """Check that a mixture is whole, and that its tree is one of a text of this vocabulary.

    Args:
        mixture: the mixture.
        vocabulary: the model's.

    Raises:
        ValueError: it is not.
    """
    tree = mixture.tree
    if (tree.size, tree.predictable) != _tree_sizes(vocabulary):
        raise ValueError(f"counts of {amount(tree.size, 'id')}: the vocabulary has {len(vocabulary):,}")
    if mixture.longest < tree.order - 1:
        looks_back = f"{amount(mixture.longest, 'id')} of {tree.order - 1}"
        raise ValueError(f"counts look back {looks_back}: only whole ones are saved")


def _tree_sizes(vocabulary: Vocabulary) -> tuple[int, int]:
    """How many ids a tree has, and how many of them it predicts."""
    size = len(vocabulary)
    return size, size if vocabulary.end_id is None else vocabulary.end_id + 1


def mixture_shapes(described: Any, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every array of mixtures.

    Args:
        described: what a file's description says of them.
        config: of the model.

    Raises:
        ModelFileError: where that is not what it could be.
    """
    if not isinstance(described, dict) or not set(described) <= set(config.directions):
        raise ModelFileError("its counts are not those of its directions")
    shapes: dict[str, tuple[int, ...]] = {}
    for direction, numbers in described.items():
        order, contexts, predictions = (numbers[name] for name in ("order", "contexts", "predictions"))
        if not all(type(number) is int and 0 < number < 2**31 for number in (order, contexts, predictions)):
            raise ModelFileError(f"its {direction} counts have sizes that are none")
        lengths = array_lengths(contexts, predictions)
        shapes |= {f"{direction}_{name}": (length,) for name, length in lengths.items()}
        shapes[f"{direction}_mixture"] = cell_count(order), 2
    return shapes


def take_mixtures(arrays: Arrays, described: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Mixture]:
    """Take the arrays of mixtures out of those of a file.

    Args:
        arrays: all arrays of the file by name, which become fewer.
        described: what its description says of mixtures.
        vocabulary: the model's.

    Raises:
        ValueError: they do not fit together.
    """
    mixtures = {}
    for direction, numbers in described.items():
        parts = {name: arrays.pop(f"{direction}_{name}") for name in array_lengths(0, 0)}
        tree = ContextTree(_tree_sizes(vocabulary)[0], numbers["order"], _tree_sizes(vocabulary)[1], **parts)
        mixtures[direction] = Mixture(tree, arrays.pop(f"{direction}_mixture"))
    return mixtures
