"""The language model: ids in, logits out. It never sees a character."""

from typing import Any

import torch
from torch import Tensor, nn

from chargen.errors import ArgumentError
from chargen.locks import Lock
from chargen.model.arguments import FLOATS, INTEGERS, check_tensor, read_floats, read_fresh, read_ids, read_state
from chargen.model.cloze import Cloze
from chargen.model.config import ModelConfig, check_direction, require_bidirectional
from chargen.model.dropout import Masks, drop
from chargen.model.layers import State, new_layer, run_embedded, run_layer, start_fresh, zero_state
from chargen.rng import MAX_SEED, Purpose, generator_seed
from chargen.settings import check_int

BACKWARD_MASKS = 1000
"""The first layer address of the backward stack's dropout masks; a stack has at most 64 layers."""

MAX_SIZE = 0x110000
"""The largest vocabulary: all code points of Unicode."""

_GENERATOR_LOCK = Lock()
"""Initial weights are drawn from torch's default generator, which all threads share."""


class CharModel(nn.Module):
    """Embedding, L one-layer recurrent modules, output layer; where bidirectional, a second stack and a cloze layer.

    A logit at position t depends on ids[:, : t + 1] and the state only, and rows never mix. Before a begin symbol, one
    of the last `config.begin_symbols` ids, the state is reset: no record sees another. The two stacks share the
    embedding and the output layer and nothing else: neither reads what the other has read. Embedding and output layer
    may share one table (Press and Wolf, "Using the output embedding to improve language models", 2017).

    Args:
        config: the model's shape.
        vocabulary_size: V.
        seed: fixes the initial weights, whatever the state of torch's default generator.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(config, ModelConfig):
            raise ArgumentError(f"config is of type {type(config).__name__}: it must be a ModelConfig")
        self.config = config
        self.vocabulary_size = vocabulary_size = check_int("vocabulary_size", vocabulary_size, 1, MAX_SIZE)
        with _GENERATOR_LOCK, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                generator_seed(check_int("seed", seed, 0, MAX_SEED), 0, 0, Purpose.INITIALIZE)
            )
            self.embedding = nn.Embedding(vocabulary_size, config.input_size)
            self.forward_layers = nn.ModuleList(new_layer(config, layer) for layer in range(config.num_layers))
            self.output = nn.Linear(config.hidden_size, vocabulary_size)
            if config.tie_weights:
                with torch.no_grad():  # logits then start as small as those of untied weights
                    self.embedding.weight.mul_(config.hidden_size**-0.5)
                self.output.weight = self.embedding.weight
            if config.bidirectional:
                self.backward_layers = nn.ModuleList(new_layer(config, layer) for layer in range(config.num_layers))
                self.cloze = Cloze(config, vocabulary_size)

    @property
    def first_begin(self) -> int:
        """The id from which on all are begin symbols; V where there are none."""
        return self.vocabulary_size - self.config.begin_symbols

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.output.weight.device

    def stack(self, direction: str) -> nn.ModuleList:
        """The recurrent layers of a direction.

        Args:
            direction: "forward", or "backward" where the model is bidirectional.

        Raises:
            SettingError: the model does not read in this direction.
        """
        check_direction(self.config, direction)
        return self.forward_layers if direction == "forward" else self.backward_layers

    def forward(
        self, ids: Tensor, state: State | None = None, masks: Masks | None = None, direction: str = "forward",
        fresh: Tensor | None = None,
    ) -> tuple[Tensor, State]:  # fmt: skip
        """Predict the character that follows each id in the direction of reading.

        Args:
            ids: (B, T), whole numbers from 0 to V - 1 in the order of reading: for "backward", the text's last
                character first. Ids on the host are checked there and then moved, so that nothing waits for a GPU.
            state: the state after the character read before them; None for an unknown context.
            masks: this step's dropout masks, or their address; None drops nothing.
            direction: "forward", or "backward" where the model is bidirectional.
            fresh: (B, T) bool on the host, true where the state is zero before an id; None where it never is.

        Returns:
            Logits (B, T, V) and the state after the last id.

        Raises:
            ArgumentError: ids or state do not fit the model.
            SettingError: the model does not read in this direction.
        """
        values, new_state = self.read(ids, state, masks, direction, fresh)
        return self.output(values), new_state

    def read(
        self, ids: Tensor, state: State | None = None, masks: Masks | None = None, direction: str = "forward",
        fresh: Tensor | None = None,
    ) -> tuple[Tensor, State]:  # fmt: skip
        """Compute the last layer's outputs, from which the output layer makes logits.

        Args:
            ids: (B, T), whole numbers from 0 to V - 1 in the order of reading: for "backward", the text's last
                character first.
            state: the state after the character read before them; None for an unknown context.
            masks: this step's dropout masks, or their address; None drops nothing.
            direction: "forward", or "backward" where the model is bidirectional.
            fresh: (B, T) bool on the host, true where the state is zero before an id; None where it never is.

        Returns:
            Outputs (B, T, H), after dropout, and the state after the last id.

        Raises:
            ArgumentError: ids or state do not fit the model.
            SettingError: the model does not read in this direction.
        """
        return self._read(ids, state, masks, direction, fresh)

    def read_layers(
        self, ids: Tensor, state: State | None = None, direction: str = "forward", fresh: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], State]:
        """Compute the outputs of every layer, that is the hidden states after each id.

        Args:
            ids: (B, T), whole numbers from 0 to V - 1 in the order of reading: for "backward", the text's last
                character first.
            state: the state after the character read before them; None for an unknown context.
            direction: "forward", or "backward" where the model is bidirectional.
            fresh: (B, T) bool on the host, true where the state is zero before an id; None where it never is.

        Returns:
            Outputs (B, T, H) of each layer, of which `read` returns the last, and the state after the last id.

        Raises:
            ArgumentError: ids or state do not fit the model.
            SettingError: the model does not read in this direction.
        """
        layers: list[Tensor] = []
        _, new_state = self._read(ids, state, None, direction, fresh, layers)
        return tuple(layers), new_state

    def _read(
        self, ids: Tensor, state: State | None, masks: Masks | None, direction: str, fresh: Tensor | None,
        layers: list[Tensor] | None = None,
    ) -> tuple[Tensor, State]:  # fmt: skip
        """Compute the last layer's outputs, after dropout, and put those of each layer into `layers`, where wanted."""
        config = self.config
        first_mask = 0 if direction == "forward" else BACKWARD_MASKS
        stack = self.stack(direction)
        check_tensor("ids", ids, INTEGERS, "B, T")
        host_ids = ids
        ids = read_ids("ids", ids, len(self.embedding.weight), self.device)
        state = zero_state(config, len(ids), self.device) if state is None else self._check_state(state, len(ids))
        state, fresh = start_fresh(state, read_fresh(self._add_borders(fresh, host_ids), ids.shape))
        new_state = []
        for layer, module in enumerate(stack):
            if layer == 0 and (masks is None or config.layer_dropout(0) == 0):
                values, layer_state = run_embedded(module, self.embedding, ids, state[0], fresh, checked=True)  # type: ignore[arg-type]
            else:
                values = self.embedding(ids) if layer == 0 else values
                values = drop(values, config.layer_dropout(layer), masks, first_mask + layer)
                values, layer_state = run_layer(module, values, state[layer], fresh, checked=True)  # type: ignore[arg-type]
            new_state.append(layer_state)
            if layers is not None:
                layers.append(values)
        output_layer = config.num_layers
        values = drop(values, config.layer_dropout(output_layer), masks, first_mask + output_layer)
        return values, tuple(new_state)

    def _add_borders(self, fresh: Tensor | None, ids: Tensor) -> Tensor | None:
        """Where states are fresh, begin symbols included: ids (B, T), best of the host, tell where those are."""
        if not self.config.begin_symbols:
            return fresh
        begins = ids.cpu().to(torch.int64) >= self.first_begin
        return begins if fresh is None else begins | fresh

    def _check_state(self, state: Any, rows: int) -> State:
        """Check a caller's state, and convert it to the types in which layers carry it."""
        config = self.config
        if isinstance(state, Tensor) and state.dim() == 3:
            state = tuple(state)
        if not isinstance(state, (tuple, list)) or len(state) != config.num_layers:
            actual = f"has {len(state)} parts" if isinstance(state, (tuple, list)) else "is no tuple of tensors"
            raise ArgumentError(f"state {actual}: needed are {config.num_layers}, one (B, S) for each layer")
        return tuple(
            read_state(f"state[{layer}]", layer_state, rows, config.state_size, self.output.weight)
            for layer, layer_state in enumerate(state)
        )

    def cloze_logits(self, left: Tensor, right: Tensor) -> Tensor:
        """Predict the character between two contexts (the cloze prediction) with a bidirectional model.

        Args:
            left: (..., H), what `read` returned for "forward" at the character before.
            right: (..., H), what `read` returned for "backward" at the character behind.

        Returns:
            Logits (..., V).

        Raises:
            ArgumentError: the two are no floats of this shape on the device of the weights.
            SettingError: the model reads forward only.
        """
        require_bidirectional(self.config, "predicting from both sides")
        weight = self.output.weight
        check_tensor("left", left, FLOATS, "..., H")
        shape = (*left.shape[:-1], self.config.hidden_size)
        left, right = (
            read_floats(name, values, "..., H", shape, weight) for name, values in (("left", left), ("right", right))
        )
        logits: Tensor = self.cloze(left, right, self.output(left) + self.output(right))
        return logits
