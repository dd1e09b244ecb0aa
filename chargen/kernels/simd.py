"""Formulas on many elements at once: a Python function of numbers becomes machine code that works on vectors of 16.

A compiler makes vectors of a plain loop only where it can prove that its arrays are apart. Here all that a formula
needs is read before its results are written, so nothing has to be proved, and nothing is written in between.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from chargen.kernels.bf16_ir import narrow, widen
from chargen.kernels.cpu_features import bf16_pairs, llvm_features
from chargen.kernels.jit import native

LANES = 16
SIZE = 32
"""Elements that `fuse` works on: two vectors."""
_FLOATS, _INTS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)
_SHORTS, _INT64, _POINTER = ir.VectorType(ir.IntType(16), LANES), ir.IntType(64), ir.PointerType()
_FUSED = ("contract", "nsz")
"""A product and a sum may be one instruction; nothing else is allowed."""
BYTES = {"f": 4, "b": 2}
_types: Any = types
Values = Any
"""A `Vector`, or a NumPy array: formulas are functions of either."""


class BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bf16, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"


class Vector:
    """Sixteen float32 while machine code is being generated; arithmetic as with arrays."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def of(self, value: Any) -> "Vector":
        """The same number sixteen times, or a vector as it is."""
        return value if isinstance(value, Vector) else Vector(self.builder, _FLOATS([np.float32(value)] * LANES))

    def _binary(self, name: str, left: Any, right: Any) -> "Vector":
        operation = getattr(self.builder, name)
        return Vector(self.builder, operation(self.of(left).value, self.of(right).value, flags=_FUSED))

    def __add__(self, other: Any) -> "Vector":
        return self._binary("fadd", self, other)

    def __sub__(self, other: Any) -> "Vector":
        return self._binary("fsub", self, other)

    def __mul__(self, other: Any) -> "Vector":
        return self._binary("fmul", self, other)

    def __rsub__(self, other: Any) -> "Vector":
        return self._binary("fsub", other, self)

    __radd__, __rmul__ = __add__, __mul__

    def clamp(self, limit: float) -> "Vector":
        """From -limit to limit; a NaN stays one."""
        value = self.value
        for sign, word in ((-1, "<"), (1, ">")):
            edge = self.of(sign * limit).value
            value = self.builder.select(self.builder.fcmp_ordered(word, value, edge), edge, value)
        return Vector(self.builder, value)

    def exp(self, limit: float = 87) -> "Vector":
        """As `decode_gates.exp`."""
        builder = self.builder
        x = self.clamp(limit)
        shifted = x * math.log2(math.e) + 1.5 * 2**23
        whole = shifted - 1.5 * 2**23
        r = (x - whole * 0.693359375) - whole * -2.12194440e-4
        series = self.of(1 / math.factorial(7))
        for degree in range(6, -1, -1):
            series = series * r + 1 / math.factorial(degree)
        exponent = builder.add(builder.bitcast(shifted.value, _INTS), _INTS([127] * LANES))
        power = builder.shl(exponent, _INTS([23] * LANES))
        return series * Vector(builder, builder.bitcast(power, _FLOATS))

    def reciprocal(self) -> "Vector":
        """1 / self for numbers from 1 to 2**126, within 2 units in the last place."""
        if "+avx512f" not in llvm_features():
            return Vector(self.builder, self.builder.fdiv(self.of(1).value, self.value))
        # A division takes eight times as long as an estimate, which one step of Newton's method makes exact enough.
        mask = ir.IntType(16)
        kind = ir.FunctionType(_FLOATS, [_FLOATS, _FLOATS, mask])
        function = declared(self.builder, "llvm.x86.avx512.rcp14.ps.512", kind)
        near = Vector(self.builder, self.builder.call(function, [self.value, self.of(0).value, mask(2**LANES - 1)]))
        return near + near * (1 - self * near)


def declared(builder: Any, name: str, kind: Any) -> Any:
    """A function that LLVM knows."""
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


def exp(x: Values, limit: float = 87) -> Values:
    """E**x, for x from -limit to limit, at most 87; beyond, what it is there."""
    return x.exp(limit) if isinstance(x, Vector) else np.exp(x.clip(-limit, limit))


def maximum(first: Values, second: Values) -> Values:
    """The larger ones; where either is no number, the other."""
    if not isinstance(first, Vector):
        return np.fmax(first, second)
    larger = first.builder.fcmp_ordered(">", second.value, first.value)
    return Vector(first.builder, first.builder.select(larger, second.value, first.value))


def sigmoid(x: Values) -> Values:
    """1 / (1 + e**-x)."""
    return (1 + (0 - x).exp()).reciprocal() if isinstance(x, Vector) else 1 / (1 + np.exp(-x))


def tanh(x: Values) -> Values:
    """The hyperbolic tangent, with an absolute error below 3e-7."""
    return 1 - 2 * (1 + (2 * x).exp()).reciprocal() if isinstance(x, Vector) else np.tanh(x)


def load_vector(builder: Any, kind: str, address: Any) -> Vector:
    """Sixteen numbers at an address: "f", float32, or "b", bf16."""
    pointer = builder.inttoptr(address, _POINTER)
    loaded = builder.load(pointer, typ=_FLOATS if kind == "f" else _SHORTS)
    loaded.align = BYTES[kind]
    return Vector(builder, widen(builder, loaded) if kind == "b" else loaded)


def store_vector(builder: Any, kind: str, vector: Vector, address: Any) -> None:
    """Store sixteen numbers at an address."""
    value = rounded(vector) if kind == "b" else vector.value
    builder.store(value, builder.inttoptr(address, _POINTER)).align = BYTES[kind]


def rounded(vector: Vector) -> Any:
    """Bits of bf16, rounded to nearest, ties to even."""
    builder = vector.builder
    if bf16_pairs():  # such a processor has an instruction for it, which takes the smallest numbers for zero
        kind = ir.FunctionType(ir.VectorType(BFloat(), LANES), [_FLOATS])
        function = declared(builder, "llvm.x86.avx512bf16.cvtneps2bf16.512", kind)
        return builder.bitcast(builder.call(function, [vector.value]), _SHORTS)
    return narrow(builder, vector.value)


def fuse(formula: Callable[..., Any], reads: Sequence[str], writes: Sequence[str]) -> Any:
    """Make a formula a function for compiled code: it works on 32 elements from each of some addresses on.

    It is called with an array and a tuple of places, first those of what is read, then those of what is written. A
    place is an address; for a group of several vectors, the address of the first and the bytes from one to the next.

    Args:
        formula: has an argument for each group that is read and a result for each that is written: a vector, or a tuple
            where a group has not just one.
        reads, writes: groups, each with a letter for every vector: "f" for float32, "w" for what the array holds,
            float32 or bits of bf16.
    """

    def run(typing_context: Any, like: Any, places: Any) -> Any:
        groups = [group.replace("w", letter(like)) for group in (*reads, *writes)]
        apart = [isinstance(place, _types.BaseTuple) for place in places]

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            addresses = []
            for at, group in enumerate(groups):
                place = builder.extract_value(arguments[1], at)
                begin, step = (
                    (builder.extract_value(place, part) for part in (0, 1)) if apart[at] else (place, _INT64(0))
                )
                addresses.append([builder.add(begin, builder.mul(step, _INT64(index))) for index in range(len(group))])

            def vectors(at: int, first: int) -> list[tuple[str, Any]]:
                """The kind and the address of each vector of a group."""
                return [
                    (kind, builder.add(address, _INT64(first * BYTES[kind])))
                    for kind, address in zip(groups[at], addresses[at], strict=True)
                ]

            for first in range(0, SIZE, LANES):
                values = [
                    tuple(load_vector(builder, *vector) for vector in vectors(at, first)) for at in range(len(reads))
                ]
                results = formula(*(group[0] if len(group) == 1 else group for group in values))
                for at, result in enumerate(results, len(reads)):
                    parts = result if isinstance(result, tuple) else (result,)
                    for (kind, address), part in zip(vectors(at, first), parts, strict=True):
                        store_vector(builder, kind, part, address)
            return context.get_dummy_value()

        places = [_types.UniTuple(types.intp, 2) if pair else types.intp for pair in apart]
        return types.void(like, _types.BaseTuple.from_types(places)), generate

    return native(run)


def letter(array: Any) -> str:
    """For the type of an array: "f" for float32, "b" for bits of bf16."""
    return "f" if array.dtype == types.float32 else "b"


@native
def is_float32(typing_context: Any, array: Any) -> Any:
    """Whether an array's elements are float32, as a constant."""
    known = letter(array) == "f"
    return types.boolean(array), lambda context, builder, signature, arguments: ir.IntType(1)(known)


@native
def itemsize(typing_context: Any, array: Any) -> Any:
    """Bytes of an array's elements, as a constant."""
    return types.intp(array), lambda context, builder, signature, arguments: _INT64(array.dtype.bitwidth // 8)


@native
def address(typing_context: Any, array: Any, index: Any) -> Any:
    """Where an element of an array is in memory, its elements counted as they lie there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        offset = builder.mul(arguments[1], _INT64(array.dtype.bitwidth // 8))
        return builder.add(builder.ptrtoint(data, _INT64), offset)

    return types.intp(array, types.intp), generate


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Rows of as many numbers each as there are rows, a power of two, transposed.

    Blocks beside the diagonal change places: halves of the matrix, then halves of these, and so on.
    """
    count, lanes, rows = len(rows), ir.VectorType(ir.IntType(32), len(rows)), list(rows)
    side = count // 2
    while side:
        upper = lanes([lane if not lane & side else count + lane - side for lane in range(count)])
        lower = lanes([lane + side if not lane & side else count + lane for lane in range(count)])
        for row in range(count):
            if not row & side:
                pair = rows[row], rows[row + side]
                rows[row], rows[row + side] = (builder.shuffle_vector(*pair, mask) for mask in (upper, lower))
        side //= 2
    return rows


@native
def transpose(typing_context: Any, like: Any, source: Any, target: Any, step: Any, count: Any) -> Any:
    """Elements (32, 32) at one address -> transposed at another, where rows begin `step` bytes apart; of each row the
    first `count`. `like` is an array that holds such elements.
    """
    size = BYTES[letter(like)]
    side = 64 // size  # of the squares that are transposed at once: vectors have 64 bytes

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, source, target, step, count = arguments
        kind, flags = ir.VectorType(ir.IntType(8 * size), side), ir.VectorType(ir.IntType(1), side)
        wide = ir.VectorType(_INT64, side)
        spread = builder.insert_element(ir.Constant(wide, ir.Undefined), count, ir.IntType(32)(0))
        spread = builder.shuffle_vector(spread, spread, ir.VectorType(ir.IntType(32), side)([0] * side))
        masked = ir.FunctionType(ir.VoidType(), [kind, _POINTER, ir.IntType(32), flags])
        function = declared(builder, f"llvm.masked.store.v{side}i{8 * size}.p0", masked)
        for first, column in itertools.product(range(0, SIZE, side), repeat=2):
            rows = []
            for row in range(first, first + side):
                at = builder.add(source, _INT64((SIZE * row + column) * size))
                loaded = builder.load(builder.inttoptr(at, _POINTER), typ=kind)
                loaded.align = size
                rows.append(loaded)
            mask = builder.icmp_signed("<", wide(list(range(first, first + side))), spread)
            for row, value in enumerate(transposed(builder, rows), column):
                at = builder.add(target, builder.add(builder.mul(step, _INT64(row)), _INT64(first * size)))
                builder.call(function, [value, builder.inttoptr(at, _POINTER), ir.IntType(32)(size), mask])
        return context.get_dummy_value()

    return types.void(like, *[types.intp] * 4), generate
