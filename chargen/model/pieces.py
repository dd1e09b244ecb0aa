"""Rows cut where their state is fresh: pieces are independent, and torch's layers run them as one packed sequence."""

import numpy as np
import torch
from torch import Tensor

from chargen.model.device import to_device


class Pieces:
    """The pieces of rows between fresh states; the longest come first.

    torch's layers cannot reset a state inside a window. They can run sequences of several lengths at once, packed time
    by time (`torch.nn.utils.rnn.PackedSequence`): a piece is such a sequence, and its state starts from zero, or from
    that of the row where the row goes on.

    Args:
        fresh: (B, T) bool on the host, true where the state is zero before a character; T > 0.
        device: of the tensors that are packed.
    """

    def __init__(self, fresh: Tensor, device: torch.device) -> None:
        flags = fresh.numpy(force=True)
        self.rows, length = flags.shape
        cuts = flags.copy()
        cuts[:, 0] = True
        first = np.flatnonzero(cuts)
        sizes = np.diff(first, append=flags.size)
        order = np.argsort(-sizes, kind="stable")
        first, sizes = first[order], sizes[order]
        times = np.arange(sizes[0])[:, None]
        places = (first + times)[times < sizes]
        # A piece that goes on from its row's state begins where the row does; the others begin from a line of zeros.
        goes_on = (first % length == 0) & ~flags.ravel()[first]
        is_last = (first + sizes) % length == 0
        last = np.empty(self.rows, np.int64)
        last[(first // length)[is_last]] = np.flatnonzero(is_last)
        self.batch_sizes = torch.from_numpy(np.count_nonzero(times < sizes, axis=1))
        index = places, np.argsort(places), np.where(goes_on, first // length, self.rows), last
        self._places, self._unpacked, self._before, self._last = (to_device(part, device) for part in index)

    def pack(self, values: Tensor) -> Tensor:
        """Values (B, T, F) in the order in which a packed sequence has them, (B T, F)."""
        return values.flatten(0, 1)[self._places]

    def unpack(self, values: Tensor) -> Tensor:
        """Values (B T, F) of a packed sequence by row and time, (B, T, F)."""
        return values[self._unpacked].view(self.rows, -1, values.shape[1])

    def before(self, state: Tensor) -> Tensor:
        """The state before each piece, from that before each row (B, S)."""
        return torch.cat([state, state.new_zeros(1, state.shape[1])])[self._before]

    def after(self, states: Tensor) -> Tensor:
        """The state (B, S) after each row, from that after each piece."""
        return states[self._last]
