"""Formulas on many elements at once: a Python function of numbers becomes machine code that works on vectors of 16.

A compiler makes vector code of a loop only where it can prove that its arrays do not overlap. Here a formula reads all
it needs before its results are written, so nothing has to be proved.
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
from chargen.kernels.jit import compiled, native

LANES = 16
SIZE = 32
"""Elements that a call of a fused formula works on: two vectors."""
_FLOATS, _INTS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)
_SHORTS, _INT64, _POINTER = ir.VectorType(ir.IntType(16), LANES), ir.IntType(64), ir.PointerType()
_FLAGS = ("contract", "nsz")
"""A product and a sum may become one instruction, and zeros may lose their sign; nothing else is allowed."""
BYTES = {"f": 4, "b": 2}
"""Bytes of an element: float32, or bits of bf16."""
_types: Any = types
Values = Any
"""A `Vector` or a NumPy array: formulas are functions of either."""


class BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's type of bf16 numbers, which llvmlite does not have."""

    def _to_string(self) -> str:
        return "bfloat"


class Vector:
    """Sixteen float32 numbers in machine code that is being generated, with the arithmetic of arrays.

    Args:
        builder: llvmlite's.
        value: a vector in LLVM.
    """

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def repeat(self, value: Any) -> "Vector":
        """Repeat a number sixteen times; return a vector as it is.

        Args:
            value: the number or the vector.
        """
        return value if isinstance(value, Vector) else Vector(self.builder, _FLOATS([np.float32(value)] * LANES))

    def _binary(self, name: str, left: Any, right: Any) -> "Vector":
        operation = getattr(self.builder, name)
        return Vector(self.builder, operation(self.repeat(left).value, self.repeat(right).value, flags=_FLAGS))

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
        """Limit the numbers to -limit to limit; a NaN stays a NaN.

        Args:
            limit: positive.
        """
        value = self.value
        for sign, comparison in ((-1, "<"), (1, ">")):
            bound = self.repeat(sign * limit).value
            value = self.builder.select(self.builder.fcmp_ordered(comparison, value, bound), bound, value)
        return Vector(self.builder, value)

    def exp(self, limit: float = 87) -> "Vector":
        """Compute e**x within 2 ulp.

        x = n ln 2 + r with whole n and |r| <= ln 2 / 2; e**r by its Taylor series, whose first omitted term is below
        6e-9.

        Args:
            limit: x is limited to -limit to limit; at most 87.
        """
        builder = self.builder
        x = self.clamp(limit)
        shifted = x * math.log2(math.e) + 1.5 * 2**23
        rounded = shifted - 1.5 * 2**23
        r = (x - rounded * 0.693359375) - rounded * -2.12194440e-4
        series = self.repeat(1 / math.factorial(7))
        for degree in range(6, -1, -1):
            series = series * r + 1 / math.factorial(degree)
        exponent = builder.add(builder.bitcast(shifted.value, _INTS), _INTS([127] * LANES))
        power = builder.shl(exponent, _INTS([23] * LANES))
        return series * Vector(builder, builder.bitcast(power, _FLOATS))

    def reciprocal(self) -> "Vector":
        """Compute 1 / x for x from 1 to 2**126, within 2 ulp."""
        if "+avx512f" not in llvm_features():
            return Vector(self.builder, self.builder.fdiv(self.repeat(1).value, self.value))
        # A division takes eight times as long as an estimate that Newton's method makes exact enough at once.
        mask = ir.IntType(16)
        function_type = ir.FunctionType(_FLOATS, [_FLOATS, _FLOATS, mask])
        function = declare(self.builder, "llvm.x86.avx512.rcp14.ps.512", function_type)
        near = Vector(self.builder, self.builder.call(function, [self.value, self.repeat(0).value, mask(2**LANES - 1)]))
        return near + near * (1 - self * near)


def declare(builder: Any, name: str, function_type: Any) -> Any:
    """Declare a function that LLVM knows.

    Args:
        builder: llvmlite's.
        name: of the function.
        function_type: LLVM's type of the function.

    Returns:
        The function, to be called.
    """
    return builder.module.globals.get(name) or ir.Function(builder.module, function_type, name)


def prefetch(builder: Any, pointer: Any) -> None:
    """Ask for the cache line at an address; the address may be that of no memory.

    Args:
        builder: llvmlite's.
        pointer: the address.
    """
    number = ir.IntType(32)
    function_type = ir.FunctionType(ir.VoidType(), [_POINTER, number, number, number])
    to_read, all_caches, data = number(0), number(3), number(1)
    builder.call(declare(builder, "llvm.prefetch.p0", function_type), [pointer, to_read, all_caches, data])


def exp(x: Values, limit: float = 87) -> Values:
    """Compute e**x.

    Args:
        x: the exponents.
        limit: x is limited to -limit to limit; at most 87.
    """
    return x.exp(limit) if isinstance(x, Vector) else np.exp(x.clip(-limit, limit))


def maximum(first: Values, second: Values) -> Values:
    """Compute the larger of two numbers; where the second is NaN, the first.

    Args:
        first: numbers.
        second: numbers.
    """
    if not isinstance(first, Vector):
        return np.fmax(first, second)
    larger = first.builder.fcmp_ordered(">", second.value, first.value)
    return Vector(first.builder, first.builder.select(larger, second.value, first.value))


def sigmoid(x: Values) -> Values:
    """Compute 1 / (1 + e**-x).

    Args:
        x: numbers.
    """
    return (1 + (0 - x).exp()).reciprocal() if isinstance(x, Vector) else 1 / (1 + np.exp(-x))


def tanh(x: Values) -> Values:
    """Compute the hyperbolic tangent, with an absolute error below 3e-7.

    Args:
        x: numbers.
    """
    return 1 - 2 * (1 + (2 * x).exp()).reciprocal() if isinstance(x, Vector) else np.tanh(x)


def load_vector(builder: Any, letter: str, address: Any) -> Vector:
    """Load sixteen numbers.

    Args:
        builder: llvmlite's.
        letter: "f" for float32, "b" for bits of bf16.
        address: an integer in LLVM.
    """
    pointer = builder.inttoptr(address, _POINTER)
    loaded = builder.load(pointer, typ=_FLOATS if letter == "f" else _SHORTS)
    loaded.align = BYTES[letter]
    return Vector(builder, widen(builder, loaded) if letter == "b" else loaded)


def store_vector(builder: Any, letter: str, vector: Vector, address: Any) -> None:
    """Store sixteen numbers.

    Args:
        builder: llvmlite's.
        letter: "f" for float32, "b" for bits of bf16, to which numbers are rounded.
        vector: the numbers.
        address: an integer in LLVM.
    """
    value = round_to_bf16(vector) if letter == "b" else vector.value
    builder.store(value, builder.inttoptr(address, _POINTER)).align = BYTES[letter]


def round_to_bf16(vector: Vector) -> Any:
    """Round to bits of bf16, to nearest, ties to even.

    Args:
        vector: the numbers.

    Returns:
        Sixteen 16-bit integers in LLVM.
    """
    builder = vector.builder
    if bf16_pairs():  # an instruction rounds, but takes subnormal numbers for zero
        function_type = ir.FunctionType(ir.VectorType(BFloat(), LANES), [_FLOATS])
        function = declare(builder, "llvm.x86.avx512bf16.cvtneps2bf16.512", function_type)
        return builder.bitcast(builder.call(function, [vector.value]), _SHORTS)
    return narrow(builder, vector.value)


def fuse(formula: Callable[..., Any], reads: Sequence[str], writes: Sequence[str]) -> Any:
    """Make a function for compiled code of a formula; a call computes 32 elements.

    The function is called with an array and a tuple of places, those that are read before those that are written. A
    place is the address of the first element; for a group of vectors, a pair of the first one's address and the bytes
    from each vector to the next.

    Args:
        formula: a function of the groups that are read, whose results are the groups that are written. A group of one
            vector is a `Vector`, another a tuple of them.
        reads: the groups that are read, each a letter for every vector: "f" for float32, "w" for the type of the
            array's elements, float32 or bits of bf16.
        writes: the groups that are written, described by the same letters.
    """

    def specialize(typing_context: Any, like: Any, places: Any) -> Any:
        groups = [group.replace("w", type_letter(like)) for group in (*reads, *writes)]
        strided = [isinstance(place, _types.BaseTuple) for place in places]

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            addresses = []
            for number, group in enumerate(groups):
                place = builder.extract_value(arguments[1], number)
                base, stride = (
                    (builder.extract_value(place, n) for n in (0, 1)) if strided[number] else (place, _INT64(0))
                )
                addresses.append([builder.add(base, builder.mul(stride, _INT64(index))) for index in range(len(group))])

            def vectors(number: int, offset: int) -> list[tuple[str, Any]]:
                """The letter and the address of each vector of a group, from an element on."""
                return [
                    (letter, builder.add(address, _INT64(offset * BYTES[letter])))
                    for letter, address in zip(groups[number], addresses[number], strict=True)
                ]

            for offset in range(0, SIZE, LANES):
                inputs = [
                    tuple(load_vector(builder, *vector) for vector in vectors(n, offset)) for n in range(len(reads))
                ]
                results = formula(*(group[0] if len(group) == 1 else group for group in inputs))
                for number, result in enumerate(results, len(reads)):
                    outputs = result if isinstance(result, tuple) else (result,)
                    for (letter, address), vector in zip(vectors(number, offset), outputs, strict=True):
                        store_vector(builder, letter, vector, address)
            return context.get_dummy_value()

        places = [_types.UniTuple(types.intp, 2) if pair else types.intp for pair in strided]
        return types.void(like, _types.BaseTuple.from_types(places)), generate

    return native(specialize)


def type_letter(array: Any) -> str:
    """Name the type of an array's elements: "f" for float32, "b" for bits of bf16.

    Args:
        array: numba's type of the array.
    """
    return "f" if array.dtype == types.float32 else "b"


@native
def is_float32(typing_context: Any, array: Any) -> Any:
    """Tell whether an array's elements are float32, as a constant.

    Args:
        typing_context: numba's.
        array: of float32, or of bits of bf16 in uint16.
    """
    result = type_letter(array) == "f"
    return types.boolean(array), lambda context, builder, signature, arguments: ir.IntType(1)(result)


@native
def itemsize(typing_context: Any, array: Any) -> Any:
    """Return the bytes of an array's element, as a constant.

    Args:
        typing_context: numba's.
        array: of any type.
    """
    return types.intp(array), lambda context, builder, signature, arguments: _INT64(array.dtype.bitwidth // 8)


@native
def address(typing_context: Any, array: Any, index: Any) -> Any:
    """Return the address of an array's element.

    Args:
        typing_context: numba's.
        array: contiguous.
        index: of the element in memory.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        offset = builder.mul(arguments[1], _INT64(array.dtype.bitwidth // 8))
        return builder.add(builder.ptrtoint(data, _INT64), offset)

    return types.intp(array, types.intp), generate


@native
def _fetch_line(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        prefetch(builder, builder.inttoptr(arguments[0], _POINTER))
        return context.get_dummy_value()

    return types.void(types.intp), generate


@compiled
def fetch(address: int, size: int) -> None:
    """Ask for memory that will be needed soon; it comes while something else is computed.

    Args:
        address: of the first byte.
        size: bytes.
    """
    for offset in range(0, size, 64):
        _fetch_line(address + offset)


def transpose_square(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose a square matrix.

    Blocks beside the diagonal are swapped: halves of the matrix, then halves of these, and so on.

    Args:
        builder: llvmlite's.
        rows: vectors in LLVM, each of as many numbers as there are rows, a power of two.

    Returns:
        The rows of the transpose.
    """
    size, lanes, rows = len(rows), ir.VectorType(ir.IntType(32), len(rows)), list(rows)
    side = size // 2
    while side:
        upper = lanes([lane if not lane & side else size + lane - side for lane in range(size)])
        lower = lanes([lane + side if not lane & side else size + lane for lane in range(size)])
        for row in range(size):
            if not row & side:
                pair = rows[row], rows[row + side]
                rows[row], rows[row + side] = (builder.shuffle_vector(*pair, mask) for mask in (upper, lower))
        side //= 2
    return rows


@native
def transpose(typing_context: Any, like: Any, source: Any, target: Any, row_stride: Any, count: Any) -> Any:
    """Transpose a block (32, 32).

    Args:
        typing_context: numba's.
        like: an array of the type of the elements.
        source: the address of the block.
        target: the address of the first row of the transpose.
        row_stride: bytes from one row of the transpose to the next.
        count: how many elements of each row of the transpose are stored.
    """
    size = BYTES[type_letter(like)]
    side = 64 // size  # the side of a square of which each row is a vector of 64 bytes

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, source, target, row_stride, count = arguments
        vector_type, mask_type = ir.VectorType(ir.IntType(8 * size), side), ir.VectorType(ir.IntType(1), side)
        index_type = ir.VectorType(_INT64, side)
        counts = builder.insert_element(ir.Constant(index_type, ir.Undefined), count, ir.IntType(32)(0))
        counts = builder.shuffle_vector(counts, counts, ir.VectorType(ir.IntType(32), side)([0] * side))
        store_type = ir.FunctionType(ir.VoidType(), [vector_type, _POINTER, ir.IntType(32), mask_type])
        function = declare(builder, f"llvm.masked.store.v{side}i{8 * size}.p0", store_type)
        for first, column in itertools.product(range(0, SIZE, side), repeat=2):
            rows = []
            for row in range(first, first + side):
                address = builder.add(source, _INT64((SIZE * row + column) * size))
                loaded = builder.load(builder.inttoptr(address, _POINTER), typ=vector_type)
                loaded.align = size
                rows.append(loaded)
            mask = builder.icmp_signed("<", index_type(list(range(first, first + side))), counts)
            for row, value in enumerate(transpose_square(builder, rows), column):
                address = builder.add(target, builder.add(builder.mul(row_stride, _INT64(row)), _INT64(first * size)))
                builder.call(function, [value, builder.inttoptr(address, _POINTER), ir.IntType(32)(size), mask])
        return context.get_dummy_value()

    return types.void(like, *[types.intp] * 4), generate
