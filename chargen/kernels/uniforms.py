"""The draws of many samples: the numbers that `chargen.rng.uniform` defines."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.jit import compiled
from chargen.rng import MULTIPLIERS, WEYL

_LOW, _32, _21, _11 = (np.uint64(number) for number in (0xFFFFFFFF, 32, 21, 11))
_MULTIPLIER_0, _MULTIPLIER_1, _WEYL_0, _WEYL_1 = (np.uint64(number) for number in MULTIPLIERS + WEYL)


@compiled
def uniforms(
    seed: np.uint64, index: NDArray[np.uint64], first: NDArray[np.uint64], purpose: np.uint64, out: NDArray[Any]
) -> None:
    """Fill in numbers in [0, 1) with 53 random bits.

    Args:
        seed: 0 to 2**64 - 1.
        index: (R,), the sample of each row, below 2**32.
        first: (R,), the number of each row's first draw.
        purpose: what the draws are for.
        out: (R, T), float64, filled.
    """
    for row in range(out.shape[0]):
        for draw in range(out.shape[1]):
            n = first[row] + np.uint64(draw)
            x0, x1, x2, x3 = n & _LOW, n >> _32, index[row], purpose
            key_0, key_1 = seed & _LOW, seed >> _32
            for _ in range(10):
                product_0, product_1 = _MULTIPLIER_0 * x0, _MULTIPLIER_1 * x2
                x0, x1, x2, x3 = (
                    (product_1 >> _32) ^ x1 ^ key_0,
                    product_1 & _LOW,
                    (product_0 >> _32) ^ x3 ^ key_1,
                    product_0 & _LOW,
                )
                key_0, key_1 = (key_0 + _WEYL_0) & _LOW, (key_1 + _WEYL_1) & _LOW
            out[row, draw] = np.float64((x0 << _21) ^ (x1 >> _11)) * 2.0**-53
