"""What a sampler asks of its engine: few chunks, handed over in time, and nothing read twice."""

from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest

from chargen.decoding.numpy_engine import Chunk, NumpyEngine
from chargen.sampling import sampler as sampling
from chargen.sampling.sample import Character, Sample
from chargen.storage.model_file import ModelFile
from tests.sampling.written_ahead import model, new, place

pytestmark = pytest.mark.usefixtures("large_chunks")


class Counting(NumpyEngine):
    """Records its calls, on a clock of its own on which a time step takes a while."""

    def __init__(self, file: ModelFile, seconds: float = 0.0, direction: str = "forward") -> None:
        super().__init__(file.config, file.arrays, direction)
        self.asked: list[tuple[str, int]] = []
        self.seconds = seconds
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def read(self, ids: Any, counts: Any, logits: Any, state: Any) -> Any:
        self.asked.append(("read", int(counts.max())))
        return super().read(ids, counts, logits, state)

    def write(self, logits: Any, state: Any, uniforms: Any, *rest: Any, **named: Any) -> Chunk:
        self.asked.append(("write", uniforms.shape[1]))
        self.now += self.seconds * uniforms.shape[1]
        return super().write(logits, state, uniforms, *rest, **named)


def test_chunks_grow_up_to_the_largest() -> None:
    engine = Counting(model())
    assert len(list(new(engine=engine).stream(1100))) == 1100
    assert engine.asked == [("write", length) for length in (1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256, 77)]


@pytest.mark.parametrize(
    ("seconds", "sizes"), [(0.008, [1, 2, 4, 6, 6, 6, 5]), (0.02, [1, *[2] * 14, 1]), (1.0, [1] * 30)]
)
def test_text_is_handed_over_in_time(monkeypatch: pytest.MonkeyPatch, seconds: float, sizes: list[int]) -> None:
    monkeypatch.setattr(sampling, "CHUNK_SECONDS", 0.05)
    engine = Counting(model(), seconds)
    monkeypatch.setattr(sampling, "time", engine)
    assert len(list(new(engine=engine).stream(30))) == 30
    assert [size for _, size in engine.asked] == sizes


def test_what_is_wanted_whole_is_written_in_few_chunks() -> None:
    for num, direction in ((1, "forward"), (3, "backward")):
        engine = Counting(model(), direction=direction)
        samples = new(engine=engine, num=num, direction=direction).generate_all(500)
        assert [size for _, size in engine.asked] == [8, 256, 236]
        texts: list[list[Character]] = [[] for _ in range(num)]
        twin = new(engine=Counting(model(), direction=direction), num=num, direction=direction)
        for written in chain.from_iterable(twin.write(500)):
            texts[written.stream].append(written)
        assert [Sample.of(text, direction == "backward") for text in texts] == samples


def test_only_what_was_written_ahead_is_read_again(tmp_path: Path) -> None:
    engine = Counting(model())
    sampler = new(engine=engine)
    sampler.generate(20)
    place(sampler)
    sampler.save_state(tmp_path / "state")
    sampler.generate(7)
    assert {asked for asked, _ in engine.asked} == {"write"}
    list(islice(sampler.write(), 9))  # in chunks of 1, 2, 4 and 8
    engine.asked.clear()
    place(sampler)
    place(sampler)
    sampler.reseed(2)
    assert engine.asked == [("read", 2)]


def test_with_no_repeat_nothing_is_written_ahead() -> None:
    engine = Counting(model())
    new(engine=engine, no_repeat=4).generate(9)
    assert engine.asked == [("write", 1)] * 9


def test_an_interrupt_while_rewinding_loses_no_place() -> None:
    class Interrupted(NumpyEngine):
        def read(self, *given_: Any) -> Any:
            type(self).read = NumpyEngine.read
            raise KeyboardInterrupt

    file = model()
    sampler = new(engine=Interrupted(file.config, file.arrays))
    text = "".join(islice(sampler.stream(), 5))
    with pytest.raises(KeyboardInterrupt):
        sampler.feed("a")
    assert text + sampler.generate(15) == new().generate(20)
