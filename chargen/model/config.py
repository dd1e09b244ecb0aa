"""The shape of a model, known without torch: settings, the name and shape of every array, the size."""

import math
from dataclasses import dataclass

from chargen.errors import SettingError
from chargen.settings import check_settings, setting

GATES = {"lstm": 4, "gru": 3}
STATES = {"lstm": 2, "gru": 1}


@dataclass(frozen=True)
class ModelConfig:
    """A recurrent language model over V characters: embedding, stacked recurrent layers, output layer."""

    cell: str = setting("lstm", "kind of recurrent layer", choices=tuple(GATES))
    num_layers: int = setting(2, "recurrent layers, one on the other (L)", low=1, high=64)
    hidden_size: int = setting(256, "units of a layer (H)", low=1, high=65536)
    embedding_size: int = setting(128, "numbers that stand for a character (E)", low=1, high=65536)
    dropout: float = setting(0.1, "share of units dropped between layers and on the output", low=0, below=1)
    input_dropout: float = setting(0.0, "share of units dropped on the input of the first layer", low=0, below=1)
    output_dropout: float | None = setting(None, "share dropped on the output, where not as --dropout", low=0, below=1)
    locked_dropout: bool = setting(False, "one dropout mask per row and layer for a whole window")
    bidirectional: bool = setting(False, "a second stack that reads backward")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.bidirectional:
            raise SettingError(
                "bidirectional models come with a later version: leave bidirectional out to train a one-way model",
                "bidirectional",
            )

    @property
    def state_size(self) -> int:
        """Numbers per row in a layer's state: H for GRU (h), 2 H for LSTM (h, then c)."""
        return STATES[self.cell] * self.hidden_size

    def layer_dropout(self, layer: int) -> float:
        """The dropout rate on what enters `layer`; layer L is the output."""
        if layer == 0:
            return self.input_dropout
        if layer == self.num_layers and self.output_dropout is not None:
            return self.output_dropout
        return self.dropout


def parameter_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array of a model, in the order of its state dict.

    Gate rows stand in PyTorch's order: LSTM input, forget, cell, output; GRU reset, update, new.
    """
    rows = GATES[config.cell] * config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary_size, config.embedding_size)}
    for layer in range(config.num_layers):
        inputs = config.hidden_size if layer else config.embedding_size
        name = f"forward_layers.{layer}"
        shapes[f"{name}.weight_ih_l0"] = (rows, inputs)
        shapes[f"{name}.weight_hh_l0"] = (rows, config.hidden_size)
        shapes[f"{name}.bias_ih_l0"] = (rows,)
        shapes[f"{name}.bias_hh_l0"] = (rows,)
    shapes["output.weight"] = (vocabulary_size, config.hidden_size)
    shapes["output.bias"] = (vocabulary_size,)
    return shapes


def parameter_count(config: ModelConfig, vocabulary_size: int) -> int:
    """How many numbers a model learns."""
    return sum(math.prod(shape) for shape in parameter_shapes(config, vocabulary_size).values())
