"""One character further: `(ids, state) -> (logits, state)`, in NumPy on the CPU or in torch on a GPU.

The NumPy stepper is the reference: every row is computed alone, by the same operations in the same order, so that its
logits do not depend on how many rows there are.
"""

from typing import TYPE_CHECKING, Any, Protocol, Union

import numpy as np
from numpy.typing import NDArray

from chargen.model.config import ModelConfig, check_direction
from chargen.storage.model_file import ModelFile, new_model

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

Arrays = dict[str, NDArray[Any]]
State = tuple[NDArray[np.float32], ...]
"""One array (R, S) per layer, as in the torch model."""


class Stepper(Protocol):
    """What a sampler needs of a model."""

    def start(self, rows: int) -> State:
        """The state of an unknown context."""

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """Ids (R,) and the state before them -> logits (R, V) for what follows, and the state after them."""


class NumpyStepper:
    """The model's equations, one row at a time, in float32.

    LSTM: i, f, o = sigmoid, g = tanh of W_ih x + b_ih + W_hh h + b_hh; c' = f c + i g; h' = o tanh c'.
    GRU: r, z = sigmoid; n = tanh(W_in x + b_in + r (W_hn h + b_hn)); h' = (1 - z) n + z h. Both as in PyTorch.

    Args:
        config: the model's shape.
        arrays: its weights by name; float32, or bf16 bits in uint16.
        direction: which of its stacks; ids come in the order of its reading.
    """

    def __init__(self, config: ModelConfig, arrays: dict[str, NDArray[Any]], direction: str = "forward") -> None:
        check_direction(config, direction)
        self.config = config
        self.embedding = as_float32(arrays["embedding.weight"])
        self.output = as_float32(arrays["output.weight"]), as_float32(arrays["output.bias"])
        self.layers = [
            tuple(
                as_float32(arrays[f"{direction}_layers.{layer}.{part}_l0"])
                for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            for layer in range(config.num_layers)
        ]
        self._step_layer = _lstm if config.cell == "lstm" else _gru

    def start(self, rows: int) -> State:
        """Zeros, one array (R, S) per layer."""
        return tuple(np.zeros((rows, self.config.state_size), np.float32) for _ in self.layers)

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """Ids (R,) -> logits (R, V) and the new state."""
        after = tuple(np.empty_like(layer) for layer in state)
        weight, bias = self.output
        logits = np.empty((len(ids), len(bias)), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # the sampler looks at the logits
            for row, one in enumerate(ids):
                values = self.embedding[one]
                for layer, weights in enumerate(self.layers):
                    after[layer][row] = self._step_layer(values, state[layer][row], *weights)
                    values = after[layer][row, : self.config.hidden_size]
                logits[row] = weight @ values + bias
        return logits, after


Vector = NDArray[np.float32]


def _sigmoid(values: Vector) -> Vector:
    half: Vector = np.tanh(np.float32(0.5) * values)  # never overflows, as exp would
    return np.float32(0.5) * (np.float32(1) + half)


def _lstm(x: Vector, state: Vector, weight_ih: Vector, weight_hh: Vector, bias_ih: Vector, bias_hh: Vector) -> Vector:
    size = len(state) // 2
    gates = weight_ih @ x + bias_ih + weight_hh @ state[:size] + bias_hh
    enter, forget, leave = (_sigmoid(gates[at * size : (at + 1) * size]) for at in (0, 1, 3))
    cell = forget * state[size:] + enter * np.tanh(gates[2 * size : 3 * size])
    return np.concatenate([leave * np.tanh(cell), cell])


def _gru(x: Vector, state: Vector, weight_ih: Vector, weight_hh: Vector, bias_ih: Vector, bias_hh: Vector) -> Vector:
    size = len(state)
    inputs, carried = weight_ih @ x + bias_ih, weight_hh @ state + bias_hh
    reset, update = (_sigmoid(inputs[at : at + size] + carried[at : at + size]) for at in (0, size))
    new = np.tanh(inputs[2 * size :] + reset * carried[2 * size :])
    after: Vector = (np.float32(1) - update) * new + update * state
    return after


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """Stored weights as float32: they may be bf16 bits in uint16."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(array, np.float32)


class TorchStepper:
    """The torch model, one character at a time, all rows at once; for a GPU. State and logits cross as NumPy."""

    def __init__(self, model: "CharModel", direction: str = "forward") -> None:
        check_direction(model.config, direction)
        self.model = model
        self.direction = direction

    def start(self, rows: int) -> State:
        """Zeros, one array (R, S) per layer."""
        config = self.model.config
        return tuple(np.zeros((rows, config.state_size), np.float32) for _ in range(config.num_layers))

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """Ids (R,) -> logits (R, V) and the new state."""
        import torch

        device = self.model.device
        with torch.inference_mode():
            given = torch.from_numpy(ids.astype(np.int64))[:, None].to(device)
            carried = tuple(torch.from_numpy(layer).to(device) for layer in state)
            logits, after = self.model(given, carried, direction=self.direction)
        return logits[:, 0].float().cpu().numpy(), tuple(layer.cpu().numpy() for layer in after)


def arrays_of(model: Union[ModelFile, "CharModel"]) -> Arrays:
    """A model's weights; a CharModel's are copied, so that training on does not change a sampler's text halfway."""
    if isinstance(model, ModelFile):
        return model.arrays
    return {name: weight.detach().cpu().float().numpy().copy() for name, weight in model.state_dict().items()}


def new_stepper(config: ModelConfig, arrays: Arrays, device: str, direction: str = "forward") -> Stepper:
    """A stepper of one direction: NumPy for the CPU, torch for every other device.

    Raises SettingError where the device or the direction is not there.
    """
    if device == "cpu":
        return NumpyStepper(config, arrays, direction)
    from chargen.model.device import pick_device

    size = len(arrays["output.bias"])
    return TorchStepper(new_model(config, size, arrays, str(pick_device(device))), direction)
