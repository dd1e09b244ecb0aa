"""A training step that a GPU repeats by itself, as a CUDA graph: the host no longer starts its kernels one by one.

A step of recurrent layers is some thousand small kernels; starting them takes longer than running them.
"""

import weakref
from typing import Any, Protocol

import torch
from torch import Tensor

from chargen.model.dropout import DropoutKey, FixedMasks, Masks

Given = tuple[Tensor, Tensor, Tensor]
"""Inputs and targets (B, T), and which rows go on from the state before (B,), on the device."""
Figures = tuple[tuple[str, ...], Tensor, int]
"""Names of a step's losses; these losses and the norms of their gradients, on the device; and how many characters the
cloze layer has learned from.
"""
WARM = 2
"""Ways forward and back before a graph is captured, in which libraries set themselves up."""


class Learner(Protocol):
    """What a trainer does at a step."""

    device: torch.device
    optimizer: torch.optim.AdamW

    def step(self, given: dict[str, Given], noise: Masks) -> Figures:
        """Forward, loss, backward, clip, update."""

    def gradients(self, given: dict[str, Given], noise: Masks) -> Any:
        """The same without the update."""

    def make_places(self, rows: int) -> None:
        """Make what a step reads and writes before the first one."""


class CapturedStep:
    """`Trainer.step` without a cloze task, recorded once: calling it replays the graph on what it is given.

    Args:
        trainer: on a CUDA device. What its step reads and writes stays where it is in memory from now on: weights,
            moments, carried state, learning rate.
    """

    def __init__(self, trainer: Learner) -> None:
        self.trainer = weakref.proxy(trainer)
        self.rate = torch.zeros((), device=trainer.device)
        self.masks = FixedMasks()
        self.given: dict[str, Given] = {}
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, given: dict[str, Given], noise: DropoutKey) -> Figures:
        """Take a step."""
        if self.graph is None:
            self._prepare(given)
            self.graph = self._record()
        for direction, places in self.given.items():
            for place, values in zip(places, given[direction], strict=True):
                place.copy_(values)
        self.masks.redraw(noise)
        self.graph.replay()
        return self.names, self.figures.clone(), 0

    def _prepare(self, given: dict[str, Given]) -> None:
        """Places for all that changes from step to step."""
        for direction, (inputs, targets, kept) in given.items():
            self.given[direction] = inputs.clone(), targets.clone(), kept.clone()
            self.trainer.make_places(len(inputs))

    def _record(self) -> torch.cuda.CUDAGraph:
        aside: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                self.trainer.gradients(self.given, self.masks)
                self.trainer.optimizer.zero_grad(set_to_none=True)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.names, self.figures, _ = self.trainer.step(self.given, self.masks)
        return graph
