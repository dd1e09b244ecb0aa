"""The shape of a model, without torch: its settings, the name and shape of every array, the number of parameters."""

import math
from dataclasses import dataclass

from chargen.errors import SettingError
from chargen.settings import check_settings, setting

GATES = {"lstm": 4, "gru": 3}
"""Gates of a cell: its weights have so many times H rows."""
GATE_NUMBERS = {"lstm": {"input": 0, "forget": 1, "output": 3}, "gru": {"reset": 0, "update": 1}}
"""Those of them that are gates, from 0 to 1, by name, and their place; the other is what a cell may take up."""
STATES = {"lstm": 2, "gru": 1}
"""Vectors (H,) in the state of a cell: h, and c where there are two."""
LAYER_WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
"""Names of the parameters of a recurrent layer, torch's."""
MAX_NETWORKS = 64
"""Of one model."""
DIRECTIONS = ("forward", "backward")
CLOZE_SIZE = 128
"""The most hidden units that a cloze layer has."""
EMBEDDING_SIZE = 128
"""E by default."""


@dataclass(frozen=True)
class ModelConfig:
    """A recurrent language model over V characters: embedding, stacked recurrent layers, output layer."""

    cell: str = setting("gru", "kind of recurrent layer", choices=tuple(GATES))
    num_layers: int = setting(2, "recurrent layers, one on the other (L)", low=1, high=64)
    hidden_size: int = setting(256, "hidden units of a layer (H)", low=1, high=65536)
    embedding_size: int | None = setting(
        None, "numbers that stand for a character (E): 128, or H where weights are tied", low=1, high=65536
    )
    dropout: float = setting(0.1, "share of hidden units dropped between layers and on the output", low=0, below=1)
    input_dropout: float = setting(0.0, "share of numbers dropped on the input of the first layer", low=0, below=1)
    output_dropout: float | None = setting(None, "share dropped on the output, where not as dropout", low=0, below=1)
    bidirectional: bool = setting(False, "a second stack that reads backward: to write before a text, fill gaps, judge")
    tie_weights: bool = setting(False, "one table for embedding and output layer: best where characters are many")
    begin_symbols: int = setting(0, "", low=0)
    """How many ids, the last ones, begin a record: the state is reset before one is read. The vocabulary's number."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.tie_weights and self.embedding_size not in (None, self.hidden_size):
            raise SettingError(
                f"embedding_size is {self.embedding_size} and `hidden_size` {self.hidden_size}: tied weights need "
                "them equal; leave out `embedding_size`",
                "embedding_size",
            )

    @property
    def input_size(self) -> int:
        """Numbers that stand for a character (E)."""
        return self.hidden_size if self.tie_weights else self.embedding_size or EMBEDDING_SIZE

    @property
    def output_table(self) -> str:
        """The name of the array that holds the output layer's weights."""
        return "embedding.weight" if self.tie_weights else "output.weight"

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions it reads in: "forward", and "backward" where it is bidirectional."""
        return DIRECTIONS if self.bidirectional else DIRECTIONS[:1]

    @property
    def cloze_size(self) -> int:
        """Hidden units of the cloze layer (D)."""
        return min(self.hidden_size, CLOZE_SIZE)

    @property
    def state_size(self) -> int:
        """Numbers per row in a layer's state: H for GRU (h), 2 H for LSTM (h, then c)."""
        return STATES[self.cell] * self.hidden_size

    def layer_dropout(self, layer: int) -> float:
        """The dropout rate on the input of a layer; "layer" L is the output layer."""
        if layer == 0:
            return self.input_dropout
        if layer == self.num_layers and self.output_dropout is not None:
            return self.output_dropout
        return self.dropout


def parameter_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """The name and shape of every array of a model, in the order of its parameters.

    Gates are in PyTorch's order: LSTM input, forget, cell, output; GRU reset, update, new.

    Args:
        config: the model's shape.
        vocabulary_size: V.
    """
    rows = GATES[config.cell] * config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary_size, config.input_size)}
    for direction in config.directions:
        for layer in range(config.num_layers):
            inputs = config.hidden_size if layer else config.input_size
            layer_shapes = (rows, inputs), (rows, config.hidden_size), (rows,), (rows,)
            for name, shape in zip(LAYER_WEIGHTS, layer_shapes, strict=True):
                shapes[f"{direction}_layers.{layer}.{name}"] = shape
        if direction == "forward":  # their place in one-way files
            if not config.tie_weights:
                shapes["output.weight"] = (vocabulary_size, config.hidden_size)
            shapes["output.bias"] = (vocabulary_size,)
    if config.bidirectional:
        shapes["cloze.left.weight"] = (config.cloze_size, config.hidden_size)
        shapes["cloze.right.weight"] = (config.cloze_size, config.hidden_size)
        shapes["cloze.right.bias"] = (config.cloze_size,)
        shapes["cloze.output.weight"] = (vocabulary_size, config.cloze_size)
        shapes["cloze.output.bias"] = (vocabulary_size,)
    return shapes


def check_direction(config: ModelConfig, direction: str) -> None:
    """Check that a model reads in a direction.

    Args:
        config: the model's shape.
        direction: "forward" or "backward".

    Raises:
        SettingError: it is no direction, or not one that the model reads in.
    """
    if direction not in DIRECTIONS:
        raise SettingError(f"direction is {direction!r}: it must be one of {', '.join(DIRECTIONS)}", "direction")
    if direction not in config.directions:
        require_bidirectional(config, f"reading {direction}")


def require_bidirectional(config: ModelConfig, what: str) -> None:
    """Check that a model is bidirectional.

    Args:
        config: the model's shape.
        what: what needs both directions, for the message.

    Raises:
        SettingError: the model reads forward only.
    """
    if not config.bidirectional:
        raise SettingError(
            f"{what} needs a model that reads both ways, and this one reads forward only; train one with "
            "`bidirectional=True`"
        )


def parameter_count(config: ModelConfig, vocabulary_size: int) -> int:
    """The number of a model's parameters.

    Args:
        config: the model's shape.
        vocabulary_size: V.
    """
    return sum(math.prod(shape) for shape in parameter_shapes(config, vocabulary_size).values())
