"""Chunks: ids that streams write at once, by their rules and their draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.decoding.choose import SampleConfig
from chargen.decoding.numpy_engine import Chunk, Engine, State
from chargen.errors import NOT_FINITE_MESSAGE, amount
from chargen.kernels import NOT_FINITE, available
from chargen.rng import Purpose, uniform
from chargen.sampling.processors import LogitsProcessor, choose_ids
from chargen.sampling.rule_table import RuleTable
from chargen.sampling.stream import Stream


@dataclass(frozen=True, eq=False)
class ChunkWriter:
    """Writes chunks with one model, in one way.

    Args:
        engine: of the model.
        config: how ids are chosen.
        rule_table: of the streams that write.
        processors: of logits.
    """

    engine: Engine
    config: SampleConfig
    rule_table: RuleTable
    processors: Sequence[LogitsProcessor] = ()

    def write(self, seed: int, streams: list[Stream], logits: NDArray[np.float32], state: State, size: int) -> Chunk:
        """Let streams write ids; what they are does not depend on how they are cut into chunks.

        Args:
            seed: of all draws.
            streams: R streams, which do not change.
            logits: (R, V), for the next id of each.
            state: one (R, S) a layer.
            size: ids of each at most; one that stops, or comes where its rules are not known yet, writes fewer.

        Returns:
            What they wrote.
        """
        rules, mask_index = self.rule_table.rules_for(streams)
        uniforms = next_draws(seed, streams, self.rule_table.max_ids or size)
        if self.processors:
            histories = [stream.ids for stream in streams]
            choose_ids(self.processors, histories, logits, rules.masks, uniforms[:, 0], self.config)
        return self.engine.write(logits, state, uniforms, rules, mask_index, self.config, checked=True)


def next_draws(seed: int, streams: Sequence[Stream], count: int) -> NDArray[np.float64]:
    """The uniforms that streams draw their next ids with.

    Args:
        seed: of all draws.
        streams: R streams.
        count: T, draws of each.

    Returns:
        Numbers (R, T) from 0 to below 1.
    """
    index = np.array([stream.index for stream in streams], np.uint64)
    first = np.array([stream.draws for stream in streams], np.uint64)
    if not available():
        return uniform(seed, index[:, None], first[:, None] + np.arange(count, dtype=np.uint64), Purpose.SAMPLE)
    from chargen.kernels.uniforms import uniforms

    out = np.empty((len(streams), count))
    uniforms(np.uint64(seed), index, first, np.uint64(Purpose.SAMPLE), out)
    return out


def explain_stuck(stream: Stream, code: int) -> str:
    """Say why a stream cannot write on.

    Args:
        stream: the stream.
        code: what an engine put in the place of an id.

    Returns:
        The message of an error.
    """
    if code == NOT_FINITE:
        return NOT_FINITE_MESSAGE
    return (
        f"sample {stream.index}: `ban` and `no_repeat` forbid all "
        f"{amount(len(stream.constraints.vocabulary), 'id')} after {amount(stream.draws, 'draw')}; "
        "ban less, or raise `no_repeat`"
    )


@dataclass(eq=False)
class Pending:
    """Ids that rows have written ahead of the text that has been handed over.

    Args:
        rows: R samples.
        written: what each of them wrote.
        length: how many ids count: as many as the row with the fewest has written.
        seconds: that each of these took.
        committed: how many have been handed over.
    """

    rows: list[int]
    written: Chunk
    length: int
    seconds: float
    committed: int = 0


def replace_rows(old: NDArray[Any], rows: list[int], new: NDArray[Any]) -> NDArray[Any]:
    """Copy an array with some rows replaced.

    Args:
        old: (R, …).
        rows: numbers of K rows.
        new: (K, …).
    """
    changed = old.copy()
    changed[rows] = new
    return changed
