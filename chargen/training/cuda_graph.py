"""A training step that a GPU repeats by itself, as a CUDA graph: the host no longer starts its kernels one by one.

A step of recurrent layers is some thousand small kernels; starting them takes longer than running them.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from chargen.data.batches import Batch
from chargen.model.dropout import FixedMasks
from chargen.model.layers import start_fresh, zero_state
from chargen.training.loss_parts import Counts, count_tensor
from chargen.training.train_step import Minibatch, StepReport, TrainState, TrainStep

WARMUP = 2
"""Forward and backward passes before a graph is captured, in which libraries set themselves up."""


class CapturedStep:
    """A `TrainStep` recorded once and replayed at each call.

    Steps at which the cloze layer learns, or a state is reset inside a window, are made plainly.

    Args:
        step: what to record. What it reads and writes stays where it is in memory from then on: weights, moments,
            carried state, learning rate. So a captured step has one state.
        device: a CUDA device.
    """

    def __init__(self, step: TrainStep, device: torch.device) -> None:
        self.step = step
        self.lr = torch.zeros((), device=device)
        self.masks = FixedMasks()
        self.minibatches: dict[str, Minibatch] = {}
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, state: TrainState, batches: Mapping[str, Batch], lr: float) -> StepReport:
        """Make an optimizer step: replay the graph, or learn plainly what it does not hold."""
        self.lr.fill_(lr)
        for group in state.optimizer.param_groups:
            group["lr"] = self.lr
        minibatches, key = self.step.minibatches(state, batches), self.step.dropout_key(state)
        counts = self.step.counts(batches)
        resets_inside = any(fresh is not None and fresh.numpy()[:, 1:].any() for _, _, fresh, _ in minibatches.values())
        if resets_inside or self.step.learns_cloze(state):
            report = self.step.learn(state, minibatches, key, counts)
        else:
            if self.graph is None:
                self._make_places(state, minibatches)
                self.graph = self._record(state, counts)
            before = self._fill_places(state, minibatches)
            self.masks.redraw(key)
            self.graph.replay()
            all_counts = torch.stack([count_tensor(counts[name]) for name in self.recorded.names])
            report = replace(self.recorded, figures=self.recorded.figures.clone(), counts=all_counts)
            finite = torch.isfinite(report.figures).all()
            for place, layer in before:  # a step that is not finite resets no state either
                place.copy_(torch.where(finite, place, layer))
        state.step += 1
        return replace(report, lr=lr)

    def _make_places(self, state: TrainState, minibatches: Mapping[str, Minibatch]) -> None:
        """Make what a step reads and writes: minibatches, the carried state, AdamW's moments."""
        for direction, (inputs, targets, *_) in minibatches.items():
            self.minibatches[direction] = inputs.clone(), targets.clone(), None, None
            state.hidden.setdefault(direction, zero_state(state.model.config, len(inputs), state.model.device))
        for weight in state.model.parameters():
            if not state.optimizer.state[weight]:
                moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
                state.optimizer.state[weight] = {"step": torch.zeros((), device=weight.device), **moments}

    def _fill_places(self, state: TrainState, minibatches: Mapping[str, Minibatch]) -> list[tuple[Tensor, Tensor]]:
        """Put minibatches into their places and reset states; return the places of those, and what they held before."""
        before = []
        for direction, (inputs, targets, fresh, _) in minibatches.items():
            input_place, target_place, *_ = self.minibatches[direction]
            input_place.copy_(inputs)
            target_place.copy_(targets)
            carried = state.hidden[direction]
            if fresh is not None and fresh.numpy()[:, 0].any():
                before += [(place, place.clone()) for place in carried]
                for place, layer in zip(carried, start_fresh(carried, fresh)[0], strict=True):
                    place.copy_(layer)
        return before

    def _record(self, state: TrainState, counts: Mapping[str, Counts]) -> torch.cuda.CUDAGraph:
        aside: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARMUP):
                self.step.gradients(state, self.minibatches, self.masks, counts)
                state.optimizer.zero_grad(set_to_none=True)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._learn(state, counts)
        return graph

    def _learn(self, state: TrainState, counts: Mapping[str, Counts]) -> None:
        """The step itself, on the places; its figures lie in a place too."""
        self.recorded = self.step.learn(state, self.minibatches, self.masks, counts, cloze=False)
