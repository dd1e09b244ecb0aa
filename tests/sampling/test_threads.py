"""Samplers in threads: each writes its own text, and of one that is shared each call writes a piece of the text."""

import copy
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from chargen.decoding.pick_engine import new_engine
from chargen.decoding.torch_engine import TorchEngine
from chargen.errors import ChargenError
from chargen.kernels import available, threads
from chargen.model import language_model
from chargen.model.config import ModelConfig
from chargen.model.language_model import CharModel
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import build_model
from tests.small_models import small_model
from tests.yardstick import HANG

THREADS = 4
PIECES = 12


@pytest.fixture(autouse=True)
def busy_interpreter() -> Iterator[None]:
    """Let threads change places as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def at_once(*works: Callable[[], object]) -> list[object]:
    """What they return when all begin at the same moment."""
    barrier = threading.Barrier(len(works))

    def begin(work: Callable[[], object]) -> object:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begin, works))


def test_models_that_are_made_in_threads_have_the_weights_of_their_seed() -> None:
    def first_weights(seed: int) -> list[bytes]:
        network = CharModel(ModelConfig(hidden_size=64), 50, seed)
        return [weight.detach().numpy().tobytes() for weight in network.parameters()]

    alone = [first_weights(seed) for seed in range(THREADS)]
    for _ in range(10):
        assert at_once(*(lambda seed=seed: first_weights(seed) for seed in range(THREADS))) == alone


@pytest.mark.parametrize("settings", [{}, {"stop": ("ab",)}, {"no_repeat": 4}, {"num": 3}])
def test_two_samplers_in_two_threads_write_what_they_write_alone(settings: dict[str, Any]) -> None:
    def write(seed: int) -> object:
        return Sampler(model, seed=seed, **settings).generate_all(400)

    model = small_model()
    alone = [write(seed) for seed in range(THREADS)]
    assert at_once(*(lambda seed=seed: write(seed) for seed in range(THREADS))) == alone


@pytest.mark.parametrize("shared", ["compiled", "torch"])
def test_samplers_that_share_a_engine_write_what_they_write_alone(shared: str) -> None:
    if shared == "compiled" and not available():
        pytest.skip("needs numba")
    file = small_model()
    engine = new_engine(file, "cpu") if shared == "compiled" else TorchEngine(build_model(file))

    def write(seed: int) -> str:
        return Sampler(file, seed=seed, engine=engine).generate(300)

    alone = [write(seed) for seed in range(THREADS)]
    assert at_once(*(lambda seed=seed: write(seed) for seed in range(THREADS))) == alone


@pytest.mark.parametrize("stop", [(), ("ab",)])
def test_a_sampler_used_from_threads_writes_whole_pieces_of_one_text(stop: tuple[str, ...]) -> None:
    def pieces(sampler: Sampler) -> list[str]:
        return [sampler.generate(50) for _ in range(PIECES)]

    alone = Sampler(small_model(), seed=5, stop=stop)
    expected = [alone.generate(50) for _ in range(PIECES * THREADS)]
    shared = Sampler(small_model(), seed=5, stop=stop)
    texts = at_once(*[lambda: pieces(shared)] * THREADS)
    assert sorted(piece for written in texts for piece in written) == sorted(expected)
    order = [[expected.index(piece) for piece in written] for written in texts if len(set(expected)) == len(expected)]
    assert all(places == sorted(places) for places in order)


def test_iterating_in_two_threads_at_once_is_an_error() -> None:
    shared = Sampler(small_model(), seed=5)
    ours, theirs = shared.stream(), shared.stream()
    text = next(ours)
    text += str(at_once(lambda: next(theirs))[0])  # where the first one was left for good
    with pytest.raises(ChargenError, match="another thread iterates over this Sampler") as raised:
        next(ours)
    assert "\n" not in str(raised.value)
    text += str(at_once(lambda: next(theirs))[0])
    assert text + shared.generate(7) == Sampler(small_model(), seed=5).generate(10)


def test_an_iteration_may_change_threads_between_calls_of_others() -> None:
    shared = Sampler(small_model(), seed=5)
    characters = shared.stream()
    text = next(characters)
    for _ in range(5):
        text += str(at_once(lambda: next(characters))[0]) + str(at_once(lambda: shared.generate(3))[0])
        text += next(characters)
    assert text == Sampler(small_model(), seed=5).generate(26)


def test_calls_and_an_iteration_in_two_threads_share_a_text_out() -> None:
    shared, expected = Sampler(small_model(), seed=5), Sampler(small_model(), seed=5).generate(1000)
    streamed, pieces = at_once(
        lambda: "".join(shared.stream(500)), lambda: [shared.generate(50) for _ in range(10)]
    )  # fmt: skip
    assert isinstance(streamed, str)
    assert isinstance(pieces, list)
    assert all(piece in expected for piece in pieces)
    assert sorted(streamed + "".join(pieces)) == sorted(expected)


def test_one_iteration_in_two_threads_refuses_or_shares_the_text_out() -> None:
    sampler = Sampler(small_model(), seed=5)
    characters = sampler.stream(3000)

    def take() -> list[str]:
        taken = []
        try:
            for character in characters:
                taken += [character]
        except ValueError as error:
            assert "already executing" in str(error)  # noqa: PT017
        return taken

    texts = at_once(take, take)
    expected = Sampler(small_model(), seed=5).generate(3000)
    assert sorted(expected) == sorted(character for written in texts for character in written)


def test_threads_that_feed_and_write_end_where_one_thread_could() -> None:
    shared = Sampler(small_model(), seed=5)

    def feed() -> None:
        for _ in range(100):
            shared.feed("abc")

    at_once(feed, lambda: [shared.generate(1) for _ in range(100)], feed)
    logits = shared.hidden_and_logits()[1]
    assert np.isfinite(logits).all()
    before = logits.copy()
    assert len(shared.generate(20)) == 20
    assert not np.array_equal(shared.hidden_and_logits()[1], before)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("device", ["numpy", "torch"])
def test_a_copy_of_a_sampler_goes_on_by_itself(copied: Callable[[Sampler], Sampler], device: str) -> None:
    file = small_model()
    engine = TorchEngine(build_model(file)) if device == "torch" else None
    sampler = Sampler(file, seed=5, engine=engine)
    sampler.feed("abc")
    branch = copied(sampler)
    with sampler._lock:
        assert at_once(lambda: branch.generate(50)) == [Sampler.generate(sampler, 50)]


FORKED = {
    "a team": lambda: threads.TEAM_LOCK,
    "first weights": lambda: language_model._GENERATOR_LOCK,
    "a sampler": lambda: Sampler(small_model())._lock,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("what", FORKED)
def test_a_child_process_goes_on_though_its_parent_held_a_lock(what: str) -> None:
    lock, begun, end = FORKED[what](), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            begun.set()
            end.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(HANG)
        with lock:
            os._exit(0)
    end.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
