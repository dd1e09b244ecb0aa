"""Ids -> text, with the hidden state carried from call to call."""

import functools
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import checked
from chargen.data.reading import ReadingConfig, clean
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import SampleConfig, in_words
from chargen.decoding.numpy_engine import State, Stepper
from chargen.decoding.pick_engine import fresh, new_stepper
from chargen.errors import NOT_FINITE, ChargenError, SettingError, amount
from chargen.kernels import NOT_FINITE as NO_NUMBERS
from chargen.locks import Lock
from chargen.rng import MAX_SEED
from chargen.sampling.constraints import Constraints, fitted
from chargen.sampling.rounding import Rounding
from chargen.sampling.rule_table import RuleTable
from chargen.sampling.sample import Character, Sample
from chargen.sampling.sampler_state import SamplerState, check_state_path, load_state, max_header, save_state
from chargen.sampling.stream import TAIL, Stream, next_draws
from chargen.settings import check_int, make_settings
from chargen.storage.model_file import ModelFile, as_model_file

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

_P = ParamSpec("_P")
_R = TypeVar("_R")
MOST_TURNS = 256
HAND_OVER = 0.05
"""Seconds of writing after which text is handed over."""


def _in_turn(method: Callable[Concatenate["Sampler", _P], _R]) -> Callable[Concatenate["Sampler", _P], _R]:
    """A method that no two threads are in at the same time."""

    @functools.wraps(method)
    def alone(self: "Sampler", /, *arguments: _P.args, **named: _P.kwargs) -> _R:
        with self._turn:
            return method(self, *arguments, **named)

    return alone


class Sampler:
    """Writes text with a model, carrying its state: two calls write what one call would have written.

    Sample i is the same whatever `num` is, and the n-th character of a sample depends only on what was fed and
    written, the seed, i and n. Threads take turns: what `generate` returns is one piece of the text, and iterations in
    several threads share it out among them.

    What stands before all that is fed and written (backward: behind it) is the model's begin text, where it has one: a
    text begins a line. So log-probabilities are those of `score`, and a sampler that is fed a text stands where the one
    stood that wrote it.

    Args:
        model: the path of a model file or a run folder, what `read_model` returned, or a CharModel together with its
            `vocabulary`.
        config: how characters are chosen; or give its fields as keywords.
        num: how many samples are written side by side.
        seed: 0 to 2**64 - 1; drawn by the system where None. `Sampler.seed` tells it.
        device: "cpu" (NumPy), or a torch device such as "cuda"; wherever a CharModel is.
        direction: "backward" writes what comes before: text is fed and returned in reading order, but what is fed
            stands behind what is written next, so that generate(a + b) is the second text + the first.
        vocabulary, counts, reading, begin: only with a CharModel, which needs the vocabulary; the others are as in a
            ModelFile. Without begin, the first character of a text without a prime is drawn by counts, or uniformly
            without them; without `reading` texts are taken as they are.
        stepper: of this model and direction, to be shared by many samplers; instead of a device.
    """

    def __init__(
        self,
        model: Union[ModelFile, "CharModel", str, os.PathLike[str]],
        config: SampleConfig | None = None,
        *,
        num: int = 1,
        seed: int | None = None,
        device: str = "cpu",
        direction: str = "forward",
        vocabulary: Vocabulary | None = None,
        counts: NDArray[np.int64] | None = None,
        reading: ReadingConfig | None = None,
        begin: str | None = None,
        stepper: Stepper | None = None,
        **settings: Any,
    ) -> None:
        if config is not None and settings:
            raise SettingError(f"give {', '.join(settings)} in the config or beside it, not both")
        config = config or make_settings(SampleConfig, settings)
        self.num = check_int("num", num, 1, 1_000_000)
        self.seed = secrets.randbits(32) if seed is None else check_int("seed", seed, 0, MAX_SEED)
        if isinstance(model, (str, os.PathLike, ModelFile)) and (reading, begin) != (None, None):
            raise SettingError("a model file has its own reading and begin: give none")
        file = as_model_file(model, vocabulary, counts)
        vocabulary, reading = file.vocabulary, reading or file.reading
        begin = file.begin if begin is None else begin
        self.vocabulary, self.reading = vocabulary, reading
        self.config = fitted(config, vocabulary, reading)
        self._first_logits = np.log(np.maximum(file.counts, 1e-9)).astype(np.float32)
        self.direction = direction
        self._begin = self._in_order(vocabulary.encode(begin or ""))
        self.hidden_size = file.config.hidden_size
        self.arrays = file.arrays
        if stepper and (stepper.config, stepper.size) != (file.config, len(vocabulary)):
            raise SettingError("stepper is of another model: make one of this model's config and weights", "stepper")
        self.stepper = stepper or new_stepper(file.config, self.arrays, device, direction)
        self._rules = RuleTable(vocabulary, self.config.stop, self.config.no_repeat, direction == "backward")
        self._turn = Lock()
        self.reset()

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        config: SampleConfig | None = None,
        num: int = 1,
        seed: int | None = None,
        device: str = "cpu",
        direction: str = "forward",
        **settings: Any,
    ) -> "Sampler":
        """A sampler for a model file or a run folder. Raises ModelFileError, SettingError."""
        return cls(path, config, num=num, seed=seed, device=device, direction=direction, **settings)

    def __repr__(self) -> str:
        settings = {"num": self.num, "seed": self.seed, "direction": self.direction}
        words = in_words(self.stepper.config, self.vocabulary, settings, self.config)
        return f"Sampler({words}; {max(stream.draws for stream in self._streams):,} drawn)"

    @_in_turn
    def reset(self) -> None:
        """Forget everything fed and written: only the begin text has been read, and the first draw comes next."""
        self._ahead: _Chunk | None = None
        logits, state = fresh(self.stepper, self._first_logits, self._begin)
        self._logits = np.repeat(logits, self.num, axis=0)
        self._state = tuple(np.repeat(layer, self.num, axis=0) for layer in state)
        self._streams = self._new_streams()

    def _new_streams(self) -> list[Stream]:
        rules = self.config.ban, self.config.no_repeat, self.direction == "backward"
        return [Stream(Constraints(self.vocabulary, *rules), row) for row in range(self.num)]

    @_in_turn
    def reseed(self, seed: int) -> None:
        """Go on from here with another seed; state and number of draws stay."""
        self.seed = check_int("seed", seed, 0, MAX_SEED)
        self._rewind()

    def feed(self, text: str, unknown: str = "error") -> None:
        """Let every stream read `text` as if it had written it. It is not counted and not returned.

        Args:
            text: cleaned as the text that the model learned; see `chargen.clean` where it comes in pieces.
            unknown: what to do with a character that the model does not know: "error", "skip" or "replace".

        Raises DataError naming unknown characters, ChargenError where a stream has written only a part of a character's
        bytes; then nothing has been fed.
        """
        self.feed_ids(self.vocabulary.encode(clean(text, self.reading), unknown))

    @_in_turn
    def feed_ids(self, ids: NDArray[Any]) -> None:
        """The same with ids (N,), in the order of the text. Raises ArgumentError for what is none."""
        ids = self._in_order(checked("ids", ids, (None,), np.int64))
        if not len(ids):
            return
        if any(stream.partial for stream in self._streams):
            raise ChargenError("a sample is inside a character: let it write on before feeding more")
        self._rewind()
        # While no stream has written, all are alike: read once, then copy.
        rows = 1 if all(not stream.draws for stream in self._streams) else self.num
        given, counts = np.tile(ids, (rows, 1)), np.full(rows, len(ids))
        logits, state = self.stepper.read(
            given, counts, self._logits[:rows], tuple(part[:rows] for part in self._state)
        )
        self._logits = np.repeat(logits, self.num // rows, axis=0)
        self._state = tuple(np.repeat(layer, self.num // rows, axis=0) for layer in state)
        read_text = self._in_order(self.vocabulary.decode(self._in_order(ids)))
        for stream in self._streams:
            stream.allowed.read(read_text)
            stream.tail = ""

    def _in_order(self, text: Any) -> Any:
        """From the order of the text to that of reading, or back."""
        return text[::-1] if self.direction == "backward" else text

    def write(self, length: int | None = None, *, rounded: bool = False) -> Iterator[list[Character]]:
        """Let every stream write `length` characters, or without end; yield turns: at most one character a stream.

        A stop text ends what a stream writes in this call; the next call goes on after it. A turn is yielded once the
        model has read it, so the iteration can be left at any time and taken up by another call.

        Args:
            rounded: go on from there to the end of a line (backward: to its beginning), or, where none comes soon, of a
                word; a text that has neither just stops.

        Raises ChargenError where bans and no_repeat leave no character to write, or the model's numbers overflow.
        """
        length = None if length is None else check_int("length", length, 0)
        return self._write(length, Rounding.of(self.vocabulary, self.config.ban) if rounded else Rounding())

    def _write(self, length: int | None, rounding: Rounding) -> Iterator[list[Character]]:
        written = [0] * self.num
        active = list(range(self.num)) if length != 0 else []
        turns, seconds = 1, 0.0
        while active:
            left = turns if length is None else min(length + rounding.most - written[row] for row in active)
            with self._turn:
                begun = time.perf_counter()
                ahead = self._ahead = self._write_ahead(active, min(turns, left))
                seconds = (time.perf_counter() - begun + 1e-9) / len(ahead)
                turn = self._commit(ahead, 0)
            turns = max(1, min(2 * len(ahead), MOST_TURNS, int(HAND_OVER / seconds)))
            done: set[int] = set()
            for number in range(len(ahead)):
                with self._turn:
                    if number and self._ahead is not ahead:  # somebody else has used this sampler meanwhile
                        turns = 1  # and will again: what they take away need not be written first
                        break
                    turn = self._commit(ahead, number) if number else turn
                for one in turn:
                    written[one.stream] += 1
                    if one.stopped or (
                        length is not None and rounding.ends(one.character, written[one.stream] - length)
                    ):
                        done.add(one.stream)
                if turn:
                    yield turn
                if done:  # what was written ahead is not theirs
                    break
            active = [row for row in active if row not in done]

    def _write_ahead(self, rows: list[int], turns: int) -> "_Chunk":
        """Let rows write; what they wrote counts only as it is taken. Raises ChargenError where one cannot write."""
        self._rewind()
        streams = [self._streams[row] for row in rows]
        before = self._logits[rows], tuple(layer[rows] for layer in self._state)
        rules, which = self._rules.of(streams)
        turns = self._rules.turns or turns
        uniforms = next_draws(self.seed, streams, turns)
        chunk = self.stepper.write(*before, uniforms, rules, which, self.config, fits=True)
        # Where a row pauses or cannot write on, the others stop beside it: who writes in a turn must not depend on
        # chunks, and an error is told before any of them moves on.
        counts = chunk.counts.tolist()
        limit, first = min((count, row) for row, count in enumerate(counts))
        if limit == 0:
            raise ChargenError(self._why_not(rows[first], int(chunk.ids[first, 0])))
        self._set_rows(rows, chunk.logits, chunk.state)
        return _Chunk(
            rows, *before, chunk.ids[:, :limit], chunk.log_probs, np.minimum(counts, limit), whole=limit == max(counts)
        )

    def _set_rows(self, rows: list[int], logits: NDArray[Any], state: State) -> None:
        """Let rows stand elsewhere; the other rows stay as they are."""
        if len(rows) == self.num:
            self._logits, self._state = logits, state
            return
        self._logits = _with_rows(self._logits, rows, logits)
        self._state = tuple(_with_rows(old, rows, new) for old, new in zip(self._state, state, strict=True))

    def _why_not(self, row: int, code: int) -> str:
        if code == NO_NUMBERS:
            return NOT_FINITE
        return (
            f"sample {row}: ban and no_repeat {self.config.no_repeat} forbid all "
            f"{amount(len(self.vocabulary), 'id')} after {amount(self._streams[row].draws, 'draw')}; "
            "ban less, or raise no_repeat"
        )

    def _commit(self, ahead: "_Chunk", number: int) -> list[Character]:
        """Count what was written ahead in a turn as written."""
        ahead.taken = number + 1
        turn = []
        for at, row in enumerate(ahead.rows):
            if number < ahead.counts[at]:
                stream = self._streams[row]
                stream.draws += 1
                stream.log_prob += float(ahead.log_probs[at, number])
                if character := stream.finish(int(ahead.ids[at, number]), self.vocabulary):
                    stopped = stream.stops(character, self.config.stop)
                    turn.append(Character(row, character, stream.take_log_prob(), stopped))
        return turn

    def _rewind(self) -> None:
        """Stand where the text that was handed over ends: what was written ahead of it is forgotten."""
        ahead = self._ahead
        if ahead is not None and not (ahead.whole and ahead.taken == len(ahead)):
            counts = np.minimum(ahead.counts, ahead.taken)
            logits, state = self.stepper.read(ahead.ids, counts, ahead.logits, ahead.state)
            self._set_rows(ahead.rows, logits, state)
        self._ahead = None

    def stream(self, length: int | None = None) -> Iterator[str]:
        """The characters of a single sample, one by one, as they are written: backward, the text's last one first."""
        self._single("stream", "write")
        return (written.character for turn in self.write(length) for written in turn)

    def generate(self, length: int) -> str:
        """The next `length` characters of a single sample, or fewer where a stop text ends it."""
        self._single("generate", "generate_all")
        return self.generate_all(length)[0].text

    @_in_turn
    def generate_all(self, length: int) -> list[Sample]:
        """The next `length` characters of every sample."""
        length = check_int("length", length, 0)  # None would have no end
        if not (self.vocabulary.byte_mode or self.config.stop or self.config.no_repeat):
            return self._generate_plainly(length)
        texts: list[list[Character]] = [[] for _ in range(self.num)]
        for turn in self.write(length):
            for written in turn:
                texts[written.stream].append(written)
        return [Sample.of(text, self.direction == "backward") for text in texts]

    def _generate_plainly(self, length: int) -> list[Sample]:
        """The same where every id is a character and none asks for attention: chunk by chunk."""
        ids, log_probs = np.empty((self.num, length), np.int64), np.empty((self.num, length))
        turns, done = 8, 0
        while done < length:
            begun = time.perf_counter()
            ahead = self._ahead = self._write_ahead(list(range(self.num)), min(turns, length - done))
            ahead.taken = len(ahead)
            # Compiled code cannot be interrupted.
            turns = max(1, min(MOST_TURNS, int(10 * HAND_OVER * len(ahead) / (time.perf_counter() - begun + 1e-9))))
            last = ahead.ids[:, -TAIL:]
            ends = self.vocabulary.decode(last.ravel())
            for row, stream in enumerate(self._streams):
                stream.draws += len(ahead)
                stream.keep(ends[row * last.shape[1] : (row + 1) * last.shape[1]])
            ids[:, done : done + len(ahead)] = ahead.ids
            log_probs[:, done : done + len(ahead)] = ahead.log_probs[:, : len(ahead)]
            done += len(ahead)
        joined = self.vocabulary.decode(ids.ravel())
        texts = [joined[first : first + length] for first in range(0, self.num * length, max(length, 1))]
        return [
            Sample(self._in_order(text), tuple(self._in_order(values)), stopped=False)
            for text, values in zip(texts or [""] * self.num, log_probs.tolist(), strict=True)
        ]

    def _single(self, asked: str, instead: str) -> None:
        if self.num != 1:
            raise SettingError(f"{asked} is for one sample and this Sampler writes {self.num}: call {instead}", "num")

    @_in_turn
    def position(self) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Where every sample stands: the last layer's output (num, H) and the logits (num, V) of what comes next."""
        self._rewind()
        return self._state[-1][:, : self.hidden_size], self._logits

    def check_state_path(self, path: str | os.PathLike[str]) -> None:
        """Make sure that `save_state` can write to a path, before there is anything to save.

        Args:
            path: where the state would be written.

        Raises:
            ChargenError: `path` holds something else, or the disk refuses.
        """
        check_state_path(path, max_header(self.num, self.config.no_repeat))

    @_in_turn
    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Save where every stream stands, so that `load_state` lets the text go on as if nothing had happened.

        Args:
            path: where to write; another sampler state there is replaced.

        Raises:
            ChargenError: the disk refuses, or `path` holds something else.
        """
        self.check_state_path(path)
        self._rewind()
        state = SamplerState(self.seed, self._streams, self._logits, self._state)
        save_state(path, state, self.arrays, self.direction, self.config)

    @_in_turn
    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Go on where `save_state` left off: the streams, their seed and their draws. This sampler's config stays.

        Args:
            path: a file that `save_state` wrote.

        Raises:
            ModelFileError: the state is damaged or belongs to another model.
        """
        fresh_state = SamplerState(self.seed, self._new_streams(), self._logits, self._state)
        limit = max_header(self.num, self.config.no_repeat)
        loaded = load_state(path, fresh_state, self.arrays, self.direction, limit)
        self._ahead = None
        self.seed, self._streams, self._logits, self._state = loaded.seed, loaded.streams, loaded.logits, loaded.layers


@dataclass(eq=False)
class _Chunk:
    """What rows have written ahead of what was handed over, and where they stood before.

    Args:
        rows: which samples.
        logits, state: before.
        ids, log_probs: (R, T); counts: (R,), how many of them each row wrote.
        whole: whether they wrote nothing more.
        taken: how many turns have been handed over.
    """

    rows: list[int]
    logits: NDArray[Any]
    state: State
    ids: NDArray[np.int64]
    log_probs: NDArray[np.float64]
    counts: NDArray[np.int64]
    whole: bool
    taken: int = 0

    def __len__(self) -> int:
        return int(self.ids.shape[1])


def _with_rows(old: NDArray[Any], rows: list[int], new: NDArray[Any]) -> NDArray[Any]:
    changed = old.copy()
    changed[rows] = new
    return changed
