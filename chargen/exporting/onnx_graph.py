"""The graph of a model in ONNX. Inside it, time comes first, as in ONNX's recurrent operators."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from chargen.model.config import LAYER_WEIGHTS, STATES
from chargen.storage.model_file import ModelFile
from chargen.storage.quantize import as_float32

GATE_ORDER = {"gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}
"""ONNX has update, reset, new, and input, output, forget, cell: their places in a model file."""


class Graph:
    """Nodes, weights, inputs and outputs, which `read` or `read_both` adds.

    Args:
        file: the model.
    """

    def __init__(self, file: ModelFile) -> None:
        self.config, self.arrays, self.size = file.config, file.arrays, len(file.vocabulary)
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self._names: set[str] = set()

    def read(self, direction: str) -> None:
        """Let it read ids (B, T) and a state (L, B, S) in one direction.

        Args:
            direction: "forward" or "backward".
        """
        state: list[int | str | None] = [self.config.num_layers, "batch", self.config.state_size]
        self.inputs = [_ids("ids", ["batch", "time"]), _floats("state", state)]
        values, after = self._add_stack(direction, self._add("Transpose", "ids", perm=[1, 0]), "state")
        self._add("Identity", after, name="next_state")
        self._add_logits(values, "logits")
        self.outputs = [_floats("logits", ["batch", "time", self.size]), _floats("next_state", state)]

    def read_both(self) -> None:
        """Let it read ids (B, T) in both directions, and predict each that has both neighbours."""
        self.inputs = [_ids("ids", ["batch", "time"])]
        ids = self._add("Transpose", "ids", perm=[1, 0])
        rows = self._add("Slice", self._add("Shape", ids), self._numbers(1), self._numbers(2))
        shape = self._add("Concat", self._numbers(self.config.num_layers), rows, self._numbers(1), axis=0)
        state = self._add("Expand", self._weight("zeros", np.zeros((1, 1, self.config.state_size), np.float32)), shape)
        forward, backward = (self._add_stack(direction, ids, state)[0] for direction in self.config.directions)
        left = self._add("Slice", forward, self._numbers(0), self._numbers(-2))
        right = self._add("Slice", backward, self._numbers(2), self._numbers(np.iinfo(np.int64).max))
        one_way = self._add("Add", self._add_logits(left, "forward_logits"), self._add_logits(right, "backward_logits"))
        sides = self._add_product(left, "cloze.left"), self._add_product(right, "cloze.right")
        hidden = self._add("Tanh", self._add("Add", *sides))
        correction = self._add_product(self._add("Transpose", hidden, perm=[1, 0, 2]), "cloze.output")
        self._add("Add", one_way, correction, name="cloze_logits")
        names = "forward_logits", "backward_logits", "cloze_logits"
        self.outputs = [_floats(name, ["batch", "inner_time", self.size]) for name in names]

    def _add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node of one output, and return its name."""
        return self._add_node(operator, inputs, 1, name, **attributes)[0]

    def _add_node(
        self, operator: str, inputs: Sequence[str], outputs: int, name: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node, and return the names of its outputs, which no other node has, in a loop neither."""
        self._names.add(name := name or f"{operator.lower()}_{len(self._names)}")
        names = [f"{name}_{number}" if number else name for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def _weight(self, name: str, array: NDArray[Any] | None = None) -> str:
        """Put an array into the file, once; without it, a weight of the model."""
        if name not in self._names:
            self._names.add(name)
            self.weights.append(
                numpy_helper.from_array(as_float32(self.arrays, name) if array is None else array, name)
            )
        return name

    def _numbers(self, *numbers: int) -> str:
        """Put whole numbers into the file."""
        name = "_".join(map(str, ("numbers", *numbers))).replace("-", "minus_")
        return self._weight(name, np.array(numbers, np.int64))

    def _add_product(self, values: str, layer: str, weight: str = "", name: str = "") -> str:
        """Add a linear layer of values (…, inputs)."""
        matrix = self._add("Transpose", self._weight(weight or f"{layer}.weight"), perm=[1, 0])
        product = self._add("MatMul", values, matrix)
        return product if layer == "cloze.left" else self._add("Add", product, self._weight(f"{layer}.bias"), name=name)

    def _add_logits(self, values: str, name: str) -> str:
        """Add the output layer (B, T, V) of values (T, B, H)."""
        rows = self._add("Transpose", values, perm=[1, 0, 2])
        return self._add_product(rows, "output", self.config.output_table, name)

    def _add_stack(self, direction: str, ids: str, state: str) -> tuple[str, str]:
        """Add the layers of a direction over ids (T, B); where begin symbols reset the state, as a loop over time.

        In a graph of one direction ids come in the order of reading, else in that of the text.
        """
        reverse = direction == "backward" and len(self.inputs) == 1
        if not self.config.begin_symbols:
            return self._add_layers(direction, ids, state, reverse)
        outer, self.nodes = self.nodes, []
        before, row = f"{direction}_state", f"{direction}_row"
        read_id = self._add("Unsqueeze", row, self._numbers(0))
        begins = self._add("GreaterOrEqual", read_id, self._numbers(self.size - self.config.begin_symbols))
        mask = self._add("Unsqueeze", begins, self._numbers(2))
        kept = self._add("Where", mask, self._weight("zero", np.zeros((), np.float32)), before)
        values, after = self._add_layers(direction, read_id, kept)
        values = self._add("Squeeze", values, self._numbers(0))
        sizes = [self.config.num_layers, None, self.config.state_size]
        body = helper.make_graph(
            self.nodes, f"{direction}_loop", [_floats(before, sizes), _ids(row, [None])],
            [_floats(after, sizes), _floats(values, [None, self.config.hidden_size])],
        )  # fmt: skip
        self.nodes = outer
        way = [int(reverse)]
        options = {"body": body, "num_scan_inputs": 1, "scan_input_directions": way, "scan_output_directions": way}
        after, values = self._add_node("Scan", [state, ids], 2, **options)
        return values, after

    def _add_layers(self, direction: str, ids: str, state: str, reverse: bool = False) -> tuple[str, str]:
        """Add embedding and layers: outputs (T, B, H) and the state (L, B, S) after them."""
        config, vectors = self.config, STATES[self.config.cell]
        options: dict[str, Any] = {"linear_before_reset": 1} if config.cell == "gru" else {}
        options |= {"hidden_size": config.hidden_size, "direction": "reverse" if reverse else "forward"}
        values = self._add("Gather", self._weight("embedding.weight"), ids)
        states = []
        for layer, before in enumerate(self._add_node("Split", [state], config.num_layers, axis=0)):
            parts = self._add_node("Split", [before], vectors, axis=2)
            inputs = [values, *self._layer_weights(f"{direction}_layers.{layer}"), "", *parts]
            outputs, *after = self._add_node(config.cell.upper(), inputs, 1 + vectors, **options)
            values = self._add("Squeeze", outputs, self._numbers(1))
            states.append(self._add("Concat", *after, axis=2))
        return values, self._add("Concat", *states, axis=0)

    def _layer_weights(self, layer: str) -> list[str]:
        """Put the weights of a layer into the file, gates in the order of ONNX."""
        order = GATE_ORDER[self.config.cell]
        stored = [np.split(as_float32(self.arrays, f"{layer}.{name}"), len(order)) for name in LAYER_WEIGHTS]
        inputs, recurrent, *biases = (np.concatenate([gates[place] for place in order])[None] for gates in stored)
        arrays = {"W": inputs, "R": recurrent, "B": np.concatenate(biases, axis=1)}
        return [self._weight(f"{layer}.{name}", array) for name, array in arrays.items()]


def _ids(name: str, shape: Sequence[int | str | None]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)


def _floats(name: str, shape: Sequence[int | str | None]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
