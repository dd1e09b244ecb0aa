"""Ids -> text, with the hidden state carried from call to call."""

import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import check_array, check_range, choose_config
from chargen.data.reading import clean
from chargen.data.reading_config import ReadingConfig
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import SampleConfig, summarize
from chargen.decoding.numpy_engine import Engine, State
from chargen.decoding.pick_engine import new_engine
from chargen.errors import ChargenError, SettingError
from chargen.locks import Lock
from chargen.rng import check_seed
from chargen.sampling.chunks import ChunkWriter, Pending, explain_stuck, replace_rows
from chargen.sampling.constraints import Constraints, fit_config
from chargen.sampling.processors import LogitsProcessor, check_processors
from chargen.sampling.rounding import Rounding
from chargen.sampling.rule_table import RuleTable
from chargen.sampling.sample import Character, Sample
from chargen.sampling.sampler_state import SamplerState, check_state_path, load_state, save_state
from chargen.sampling.start import Label, encode_text, read_start
from chargen.sampling.stream import MIN_TAIL, Stream
from chargen.settings import check_int
from chargen.storage.model_file import AnyModel, ModelFile, as_model_file

MAX_CHUNK = 256
"""Ids that a stream writes ahead at most."""
MAX_FIRST = 2**31
"""The largest number of a first sample: samples have addresses below 2**32."""
CHUNK_SECONDS = 0.05
"""Seconds that the writing of a chunk should take, so that text comes steadily."""


class Sampler:
    """Writes text with a model, carrying its state: two calls write what one call would have written.

    Sample i is the same whatever `num` is, and the n-th character of a sample depends only on what was fed and
    written, the seed, i and n. Threads may share a sampler: what `generate` returns is a contiguous
    piece of the text. Only one thread at a time may iterate.

    A fresh sampler has read the model's begin text, where the model has one: a text begins a line (backward: ends one).
    So log-probabilities are those of `score`, and a sampler that is fed a text has the state of the one that wrote it.
    With a model of records it has read a begin symbol, and a sample is one record: its end symbol stops it as a stop
    text does, and nothing more is written until `reset`.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel
            together with its `vocabulary`.
        config: how characters are chosen; or give its fields as keywords.
        num: how many samples are written side by side.
        first: the number of the first of them, counted from 1: parts of one result may be written apart. Within a
            sampler they count from 0 all the same; a saved state has numbers of its own.
        seed: 0 to 2**64 - 1; drawn by the system where None. `Sampler.seed` tells it.
        device: "cpu" (compiled; NumPy without numba), "cuda" or "mps"; a CharModel is copied there.
        direction: "backward" writes what comes before: text is fed and returned in reading order, but what is fed
            stands behind what is written next, so that generate(a + b) is the second text + the first.
        vocabulary: only with a CharModel, which needs it.
        counts: only with a CharModel: the first character of a text without prime and begin text is drawn by these
            counts of ids (V,), or uniformly without them.
        reading: only with a CharModel: how texts are cleaned; without it they are taken as they are.
        begin: only with a CharModel: the text that a fresh sampler has read; or "" with any model: nothing, so that the
            text goes on from anywhere.
        label: of the records; or several labels with their weights. None: what the model learned without labels.
        engine: of this model and direction, to be shared by many samplers; instead of a device.
        logits_processors: functions (ids, logits) -> logits, applied in turn before bans, temperature and filters.
            `ids` (N,) int64 is what the sample has read and written, the begin text included, in the order of reading;
            `logits` (V,) float32 is a copy; -inf forbids an id. They are called for every id, and slow writing down.
            Log-probabilities stay the model's own. A saved state holds neither the processors nor the ids: after
            `load_state`, `ids` begins with what is read or written next.
        **settings: fields of `config`.

    Raises:
        SettingError: a setting is out of its range or contradicts another.
        ModelFileError: the model file is missing or damaged.
        ArgumentError: `logits_processors` is no list of functions.
    """

    def __init__(
        self,
        model: AnyModel,
        config: SampleConfig | None = None,
        *,
        num: int = 1,
        first: int = 1,
        seed: int | None = None,
        device: str = "cpu",
        direction: str = "forward",
        vocabulary: Vocabulary | None = None,
        counts: NDArray[np.int64] | None = None,
        reading: ReadingConfig | None = None,
        begin: str | None = None,
        label: Label = None,
        engine: Engine | None = None,
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Any,
    ) -> None:
        config = choose_config(SampleConfig, config, settings)
        self.num = check_int("num", num, 1, 1_000_000)
        self.first = check_int("first", first, 1, MAX_FIRST)
        self.seed = check_seed(seed)
        if isinstance(model, (str, os.PathLike, ModelFile)) and (reading is not None or begin):
            raise SettingError("a model file has its own reading and begin: give none")
        self.model = as_model_file(model, vocabulary, counts)
        self.vocabulary, self.reading = self.model.vocabulary, reading or self.model.reading
        self.config = fit_config(config, self.vocabulary, self.reading)
        self.logits_processors = check_processors(logits_processors)
        self.direction, self._backward = direction, direction == "backward"
        if engine and (engine.config, engine.size) != (self.model.config, len(self.vocabulary)):
            raise SettingError("engine is of another model: make one of this model's config and weights", "engine")
        self.engine = (engine or new_engine(self.model, device, direction)).limited(self.config.counts_max_copy)
        self._start = read_start(self.engine, self.model, label, begin, backward=self._backward)
        id_by_id = bool(self.config.no_repeat or self.logits_processors)
        rule_table = RuleTable(self.vocabulary, self.config.stop, id_by_id, self._backward)
        self.writer = ChunkWriter(self.engine, self.config, rule_table, self.logits_processors)
        self._lock = Lock()
        self._iteration: list[int] = []
        """Of the iteration that wrote last: the thread in which it did."""
        self.reset()

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **arguments: Any) -> "Sampler":
        """Make a sampler for a model file or a run folder.

        Args:
            path: of the file or the folder, or the name of a model that comes with chargen.
            **arguments: of the class, such as `num`, `seed`, `direction`, `temperature`.

        Returns:
            The sampler, which has read the model's begin text.

        Raises:
            ModelFileError: the file is missing or damaged.
            SettingError: a setting is out of its range or contradicts another.
        """
        return cls(path, **arguments)

    def __repr__(self) -> str:
        own = {"num": self.num, "seed": self.seed, "direction": self.direction}
        summary = summarize(self.engine.config, self.vocabulary, own, self.config)
        return f"Sampler({summary}; {max(stream.draws for stream in self._streams):,} drawn)"

    def reset(self) -> None:
        """Forget everything fed and written: only the begin text has been read, and the first draw comes next."""
        with self._lock:
            self._pending: Pending | None = None
            self._logits = np.repeat(self._start.logits, self.num, axis=0)
            self._state = tuple(np.repeat(layer, self.num, axis=0) for layer in self._start.state)
            self._streams = self._new_streams()
            for stream in self._streams:
                stream.ids = self._start.ids

    def _new_streams(self) -> list[Stream]:
        rules = self.vocabulary, self.config.ban, self.config.no_repeat, self._backward
        streams = [Stream(Constraints(*rules), self.first - 1 + row) for row in range(self.num)]
        for stream in streams:
            stream.keeps_ids = bool(self.logits_processors)
        return streams

    def reseed(self, seed: int) -> None:
        """Go on from here with another seed; state and number of draws stay.

        Args:
            seed: 0 to 2**64 - 1.

        Raises:
            SettingError: the seed is out of its range.
        """
        seed = check_int("seed", seed, 0)
        with self._lock:
            self._rewind()
            self.seed = seed

    def feed(self, text: str, unknown: str = "error") -> None:
        """Let every stream read `text` as if it had written it. It is not counted and not returned.

        Args:
            text: cleaned here as the text that the model learned; a text in pieces goes through `chargen.clean` first.
            unknown: what to do with a character that the model does not know: "error", "skip" or "replace".

        Raises:
            DataError: the model does not know some characters, which are named; nothing has been fed.
            ChargenError: a stream is inside a character, or its record has ended; nothing has been fed.
        """
        self.feed_ids(encode_text(clean(text, self.reading), self.vocabulary, unknown))

    def feed_ids(self, ids: NDArray[Any]) -> None:
        """Let every stream read ids as if it had written them.

        Args:
            ids: (N,), in the order of the text, none of them a begin symbol.

        Raises:
            ArgumentError: `ids` are no whole numbers, or not those of this model.
            ChargenError: a stream is inside a character, or its record has ended; nothing has been fed.
        """
        ids = self._flip_if_backward(check_array("ids", ids, (None,), np.int64))
        check_range("ids", ids, 0, len(self.vocabulary) - self.vocabulary.begin_symbols)
        with self._lock:
            if len(ids) and any(stream.partial for stream in self._streams):
                raise ChargenError("a sample is inside a character: let it write on before feeding more")
            if len(ids) and any(stream.ended for stream in self._streams):
                raise ChargenError("a record has ended: call `reset` before feeding the next")
            self._rewind()
            self._read(ids)
            text = self._flip_if_backward(self.vocabulary.decode(self._flip_if_backward(ids)))
            for stream in self._streams if len(ids) else ():
                stream.read(ids, text)

    def _read(self, ids: NDArray[Any]) -> None:
        """Let every stream read ids (N,), in the order of reading."""
        if not len(ids):
            return
        # While no stream has written, all are equal: one reads, the others get a copy.
        rows = 1 if all(not stream.draws for stream in self._streams) else self.num
        before = self._logits[:rows], tuple(layer[:rows] for layer in self._state)
        logits, state = self.engine.read(np.tile(ids, (rows, 1)), np.full(rows, len(ids)), *before)
        copies = self.num // rows
        state = tuple(np.repeat(layer, copies, axis=0) for layer in state)
        self._advance(list(range(self.num)), np.repeat(logits, copies, axis=0), state)

    def _advance(self, rows: list[int], logits: NDArray[np.float32], state: State) -> None:
        """Let rows stand behind ids that they have read or written; nothing is left pending."""
        if len(rows) < self.num:
            logits = replace_rows(self._logits, rows, logits)
            state = tuple(replace_rows(old, rows, new) for old, new in zip(self._state, state, strict=True))
        self._logits, self._state, self._pending = logits, state, None

    def _rewind(self) -> None:
        """Advance to the end of the text that has been handed over; what was written ahead of it is forgotten."""
        if (pending := self._pending) is None:
            return
        written = pending.written
        if pending.committed == written.counts.max():
            self._advance(pending.rows, written.logits, written.state)
        else:
            counts = np.minimum(written.counts, pending.committed)
            self._advance(pending.rows, *self.engine.read(written.ids, counts, *self._position_of(pending.rows)))

    def _position_of(self, rows: list[int]) -> tuple[NDArray[np.float32], State]:
        """Logits and state of rows, before what is pending."""
        return self._logits[rows], tuple(layer[rows] for layer in self._state)

    def _flip_if_backward(self, values: Any) -> Any:
        """Turn the order of the text into the model's order of reading, or back."""
        return values[::-1] if self._backward else values

    def write(self, length: int | None = None, *, rounded: bool = False) -> Iterator[list[Character]]:
        """Let every stream write; at most one character a stream comes at a time.

        A stop text ends what a stream writes in this call; the next call goes on after it. The end symbol of a record
        comes as an empty character. Characters are yielded once the model has read them, so the iteration can be left
        at any time and taken up by another call, but not by another thread while this one goes on.

        Args:
            length: characters for each stream; None is without end.
            rounded: go on from there to the end of a line (backward: to its beginning), or, where none comes soon, of a
                word; a text that has neither just stops.

        Returns:
            An iterator over lists of characters, each from another stream.

        Raises:
            ChargenError: bans, no_repeat and processors leave no character to write, the model's numbers overflow, or
                two threads iterate at once.
        """
        limit = math.inf if length is None else check_int("length", length, 0)
        rounding = Rounding.of(self.vocabulary, self.config.ban) if rounded else Rounding()
        return self._iterate(self._steps(limit, rounding))

    def _iterate(self, steps: Iterator[list[Character]]) -> Iterator[list[Character]]:
        """Hand steps over, each made while no other thread uses the sampler."""
        iteration: list[int] = []
        while True:
            here = [threading.get_ident()]
            with self._lock:
                if iteration and self._iteration is not iteration and self._iteration != here:
                    raise ChargenError(
                        "another thread iterates over this Sampler, too: call generate, or give each thread a Sampler"
                    )
                iteration[:] = here
                self._iteration = iteration
                characters = next(steps, None)
            if characters is None:
                return
            yield characters

    def _steps(self, length: float, rounding: Rounding) -> Iterator[list[Character]]:
        """Characters that come together, in lists; between two of them, other calls may use the sampler."""
        written = [0] * self.num
        active = [row for row, stream in enumerate(self._streams) if not stream.ended and length]
        size = 1
        while active:
            size = int(min(size, *(length + rounding.max_excess - written[row] for row in active)))
            pending = self._write_ahead(active, size)
            size = max(1, min(2 * pending.length, MAX_CHUNK, int(CHUNK_SECONDS / pending.seconds)))
            ended: set[int] = set()
            for column in range(pending.length):
                if self._pending is not pending:  # another call has used this sampler meanwhile
                    size = 1  # and will again: a longer chunk would be thrown away
                    break
                characters = self._commit(pending, column)
                for character in characters:
                    row = character.stream
                    written[row] += 1
                    if character.stopped or rounding.ends(character.character, written[row] - length):
                        ended.add(row)
                if characters:
                    yield characters
                if ended:  # the rest of the chunk is not part of their text
                    break
            active = [row for row in active if row not in ended]

    def _write_ahead(self, rows: list[int], size: int) -> Pending:
        """Let rows write up to `size` ids each, which count only once they are committed."""
        start = time.perf_counter()
        self._rewind()
        streams = [self._streams[row] for row in rows]
        written = self.writer.write(self.seed, streams, *self._position_of(rows), size)
        # Where a row stops or cannot write on, the chunk ends for all: which characters come together must not depend
        # on the size of chunks, and an error must come before any row moves on.
        length, first = min((count, index) for index, count in enumerate(written.counts.tolist()))
        if length == 0:
            raise ChargenError(explain_stuck(streams[first], int(written.ids[first, 0])))
        self._pending = Pending(rows, written, length, (time.perf_counter() - start + 1e-9) / length)
        return self._pending

    def _commit(self, pending: Pending, column: int) -> list[Character]:
        """Count a column of ids that were written ahead as written; return the characters that they complete."""
        pending.committed = column + 1
        characters = []
        for index, row in enumerate(pending.rows):
            drawn, log_prob = (values[index, column] for values in (pending.written.ids, pending.written.log_probs))
            if character := self._streams[row].write(int(drawn), float(log_prob), self.config.stop):
                characters.append(character if character.stream == row else replace(character, stream=row))
        return characters

    def stream(self, length: int | None = None) -> Iterator[str]:
        """Yield the characters of a single sample as they are written: backward, the text's last one first.

        Args:
            length: in characters; None is without end.

        Returns:
            An iterator over single characters.

        Raises:
            SettingError: this sampler writes several samples.
            ChargenError: bans, no_repeat and processors leave no character to write, or the model's numbers overflow.
        """
        self._check_single("stream", "write")
        written = (character.character for characters in self.write(length) for character in characters)
        return filter(None, written)

    def generate(self, length: int) -> str:
        """Write the next characters of a single sample.

        Args:
            length: in characters.

        Returns:
            The text, shorter where a stop text or the end symbol ends it.

        Raises:
            SettingError: this sampler writes several samples.
            ChargenError: bans, no_repeat and processors leave no character to write, or the model's numbers overflow.
        """
        self._check_single("generate", "generate_all")
        return self.generate_all(length)[0].text

    def generate_all(self, length: int) -> list[Sample]:
        """Write the next characters of every sample.

        Args:
            length: of each, in characters.

        Returns:
            What each stream has written in this call, shorter where a stop text or the end symbol ended it.

        Raises:
            ChargenError: bans, no_repeat and processors leave no character to write, or the model's numbers overflow.
        """
        length = check_int("length", length, 0)  # None would have no end
        with self._lock:
            if not (self.vocabulary.byte_mode or self.writer.rule_table.may_stop or self.writer.rule_table.max_ids):
                return self._generate_in_chunks(length)
            texts: list[list[Character]] = [[] for _ in range(self.num)]
            for characters in self._steps(length, Rounding()):
                for character in characters:
                    texts[character.stream].append(character)
            return [Sample.of(text, self._backward) for text in texts]

    def _generate_in_chunks(self, length: int) -> list[Sample]:
        """Commit whole chunks: for models whose ids are characters, where no stop text and no run is looked for."""
        ids, log_probs = np.empty((self.num, length), np.int64), np.empty((self.num, length))
        size, written = 8, 0
        while written < length:
            pending = self._write_ahead(list(range(self.num)), min(size, length - written))
            new = pending.committed = pending.length
            # Compiled code cannot be interrupted.
            size = max(1, min(MAX_CHUNK, int(10 * CHUNK_SECONDS / pending.seconds)))
            ids[:, written : written + new] = pending.written.ids[:, :new]
            log_probs[:, written : written + new] = pending.written.log_probs[:, :new]
            last = pending.written.ids[:, max(0, new - MIN_TAIL) : new]
            tails = self.vocabulary.decode(last.ravel())
            for row, stream in enumerate(self._streams):
                stream.draws += new
                stream.extend_tail(tails[row * last.shape[1] : (row + 1) * last.shape[1]])
            written += new
        joined = self.vocabulary.decode(ids.ravel())
        texts = (joined[row * length : (row + 1) * length] for row in range(self.num))
        return [
            Sample(self._flip_if_backward(text), tuple(self._flip_if_backward(values)), stopped=False)
            for text, values in zip(texts, log_probs.tolist(), strict=True)
        ]

    def _check_single(self, method: str, alternative: str) -> None:
        if self.num != 1:
            raise SettingError(
                f"{method} is for one sample and this Sampler writes {self.num}: call {alternative}", "num"
            )

    @property
    def ahead(self) -> int:
        """Ids that are written and not handed over yet: an iteration hands them over without writing more."""
        return 0 if self._pending is None else self._pending.length - self._pending.committed

    def hidden_and_logits(self) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """What every sample goes on from.

        Returns:
            The last layer's output (num, H), and the logits (num, V) of what comes next.
        """
        with self._lock:
            self._rewind()
            return self._state[self.engine.top][:, : self.model.config.hidden_size], self._logits

    def check_state_path(self, path: str | os.PathLike[str]) -> None:
        """Make sure that `save_state` can write to a path, before there is anything to save.

        Args:
            path: where the state would be written.

        Raises:
            ChargenError: `path` holds something else, or the disk refuses.
        """
        check_state_path(path, self.snapshot())

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Save where every stream stands, so that `load_state` lets the text go on as if nothing had happened.

        Args:
            path: where to write; another sampler state there is replaced.

        Raises:
            ChargenError: the disk refuses, or `path` holds something else.
        """
        with self._lock:
            save_state(path, self.snapshot())

    def load_state(self, path: str | os.PathLike[str], *, pick: int | None = None) -> None:
        """Go on where `save_state` left off: the streams, their seed and their draws. This sampler's config stays.

        Args:
            path: a file that `save_state` wrote.
            pick: with a sampler of one sample: which of the file's samples goes on, counted from 1, as it would among
                the others.

        Raises:
            ModelFileError: the state is damaged or belongs to another model, or has another number of samples.
            SettingError: the file has no such sample, or this sampler writes several.
        """
        if pick is not None:
            check_int("pick", pick, 1)
            if self.num != 1:
                raise SettingError(f"num is {self.num}: `pick` goes on from one sample; leave out `num`", "num")
        with self._lock:
            self.restore(load_state(path, replace(self.snapshot(), streams=self._new_streams()), pick))

    def restore(self, state: SamplerState) -> None:
        """Go on from where a sampler of this model and direction stood. This sampler's config stays.

        Args:
            state: of as many samples; its streams become the sampler's own.
        """
        with self._lock:
            self.seed, self._streams = state.seed, state.streams
            self._advance(list(range(self.num)), state.logits, state.layers)

    def snapshot(self) -> SamplerState:
        """Tell where every stream stands; the streams are the sampler's own."""
        with self._lock:
            self._rewind()
            streams, logits, layers = self._streams, self._logits, self._state
            return SamplerState(self.model.all_arrays, self.direction, self.config, self.seed, streams, logits, layers)
