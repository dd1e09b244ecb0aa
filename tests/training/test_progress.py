"""What a run tells of itself: every figure once, at its step, and the same as in its files."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.data.corpus import Corpus
from chargen.model.config import ModelConfig
from chargen.training.config import TrainConfig
from chargen.training.progress import Progress
from chargen.training.trainer import Trainer
from tests.runs import lines

TEXT = "the quick brown föx jumps over the läzy dog. " * 20
EVENTS = settings(max_examples=12)


def model(*, bidirectional: bool = False) -> ModelConfig:
    return ModelConfig(num_layers=1, hidden_size=6, embedding_size=4, dropout=0.0, bidirectional=bidirectional)


def config(**chosen: Any) -> TrainConfig:
    usual = {"steps": 12, "batch_size": 4, "seq_length": 8, "precision": "fp32", "log_every": 3, "eval_every": 5}
    return TrainConfig(**{**usual, **chosen})


def validated(events: list[Progress]) -> list[tuple[int, float]]:
    return [(event.step, event.valid_loss) for event in events if event.valid_loss is not None]


@EVENTS
@given(data=st.data())
def test_validations_are_told_once_and_as_in_metrics(data: st.DataObject, tmp_path_factory) -> None:
    """One direction and both, characters and bytes, with and without parts, left anywhere and taken up again."""
    draw, folder = data.draw, tmp_path_factory.mktemp("run") / "run"
    corpus = Corpus.from_text(
        TEXT,
        unit=draw(st.sampled_from(["character", "byte"])),
        valid_fraction=draw(st.sampled_from([0.0, 0.1, 0.3])),
        test_fraction=draw(st.sampled_from([0.0, 0.2])),
    )
    intervals = {"eval_every": draw(st.integers(1, 9)), "log_every": draw(st.integers(1, 5))}
    train = config(steps=draw(st.integers(1, 12)), **intervals)
    trainer, events = Trainer(corpus, model(bidirectional=draw(st.booleans())), train, folder), []
    for place in draw(st.lists(st.integers(1, 40), max_size=2)):
        for _, event in zip(range(place), trainer.run(), strict=False):
            events.append(event)
        if trainer.counters.complete:
            break
        if draw(st.booleans()):
            trainer.save()
            trainer = Trainer.resume(folder, corpus)
    if not trainer.counters.complete:
        events.extend(trainer.run())
    found = lines(folder)
    assert validated(events) == [(line["step"], line["valid_loss"]) for line in found if line["valid_loss"] is not None]
    last, final = events[-1], found[-1]
    assert (last.step, last.valid_loss, last.test_loss) == (final["step"], final["valid_loss"], final.get("test_loss"))
    assert last.valid_loss == trainer.summary.get("valid_loss")
    assert last.test_loss == trainer.summary.get("test_loss")
    assert ("test_loss" in final) == (len(corpus.test) > 0)
    assert all(event.test_loss is None for event in events[:-1])
    for event in events:
        line = next((line for line in found[:: -1 if event is last else 1] if line["step"] == event.step), {})
        named = {name: line.get(f"valid_loss_{name}", line.get(f"valid_{name}")) for name in event.valid_losses}
        assert named == dict(event.valid_losses)
        assert bool(event.valid_losses) == (trainer.model_config.bidirectional and event.valid_loss is not None)


def test_a_short_run_ends_with_its_figures(tmp_path: Path) -> None:
    corpus = Corpus.from_text(TEXT, test_fraction=0.2)
    *before, last = Trainer(corpus, model(), config(eval_every=100), tmp_path).run()
    assert validated(before) == []
    assert last.doing == "finishing"
    assert (last.valid_loss, last.test_loss) == (lines(tmp_path)[-1]["valid_loss"], lines(tmp_path)[-1]["test_loss"])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("out", [None, "<i>run"])
def test_what_a_notebook_shows_is_a_line_or_a_table(
    bidirectional: bool, out: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = Corpus.from_text(TEXT, test_fraction=0.1)
    trainer = Trainer(corpus, model(bidirectional=bidirectional), config(minutes=3), out)
    shape = "model GRU 1 x 6" + ", both ways" * bidirectional
    place = f"in {out or 'memory only'}"
    assert (
        repr(trainer) == f"Trainer({shape}, text 720 characters, 29 different, step 0 of 12, minutes 0.0 of 3, {place})"
    )
    events = list(trainer.run())
    for event in events:
        assert repr(event).startswith(f"Progress(step {event.step}, epoch ")
        assert ("valid" in repr(event).replace("validating", "")) == (event.valid_loss is not None)
        assert f"{event.doing} {100 * event.share:.0f} %)" in repr(event)
    assert f", train {events[0].train_loss:.4f}, training" in repr(events[0])
    assert f", valid {events[-1].valid_loss:.4f}" in repr(events[-1])
    assert f", test {events[-1].test_loss:.4f}" in repr(events[-1])
    assert ("(forward " in repr(events[-1])) == bidirectional
    assert f"best {trainer.counters.best_loss:.4f} nats at step {trainer.counters.best_step}" in repr(trainer)
    for told in (trainer, events[-1]):
        assert len(repr(told)) < 250
        assert "\n" not in repr(told)
        assert re.fullmatch(r"<table>(<tr><th>\w+</th><td>[^<>]+</td></tr>)+</table>", told._repr_html_())


def test_a_runs_length_is_its_steps() -> None:
    corpus = Corpus.from_text(TEXT)
    assert len(Trainer(corpus, model(), config())) == 12
    assert len(Trainer(corpus, model(), config(steps=None, epochs=2.5))) == math.ceil(2.5 * 810 / 32)
    timed = Trainer(corpus, model(), config(steps=None, minutes=1))
    assert timed, "it is there, whatever its length"
    with pytest.raises(TypeError, match="not known beforehand"):
        len(timed)


def test_settings_show_what_is_not_as_by_default() -> None:
    assert repr(TrainConfig()) == "TrainConfig(minutes=5.0)"
    assert repr(config(lr=1e-3)) == (
        "TrainConfig(steps=12, batch_size=4, seq_length=8, lr=0.001, precision='fp32', eval_every=5, log_every=3)"
    )
    assert eval(repr(config(schedule="constant"))) == config(schedule="constant")


def test_the_speed_after_a_line_of_metrics_is_that_of_the_steps_before_it(tmp_path: Path) -> None:
    """Not that of the whole run, whose first step compiles."""
    trainer = Trainer(Corpus.from_text(TEXT), model(), config(eval_every=1000), tmp_path)
    trainer.budget.train_seconds = 1e6
    speeds = {event.step: event.chars_per_second for event in trainer.run() if event.doing == "training"}
    for line in lines(tmp_path)[1:-1]:
        assert speeds[line["step"]] == pytest.approx(line["chars_per_second"], abs=0.1)
