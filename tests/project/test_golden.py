"""Model files and sampler states that chargen 0.1.0 wrote: what it made of them stands in `golden/0.1.0/expected.json`.

Their weights are wild on purpose, so that hardly a draw is close: the texts are the same on every processor.
"""

import json
from pathlib import Path

import pytest

from chargen import Sampler, evaluate, fill, read_model, score

FOLDER = Path(__file__).parents[1] / "golden" / "0.1.0"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
TEXT = "an old game and a lid"
NATS = 2e-3


@pytest.fixture(params=EXPECTED)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_it_writes_the_same_text_from_the_start_and_from_a_state(name: str, tmp_path: Path) -> None:
    model = read_model(FOLDER / f"{name}.safetensors")
    sampler = Sampler(model, seed=12345, num=2, temperature=0.9, top_p=0.98)
    sampler.feed("an old game")
    assert [sample.text for sample in sampler.generate_all(16)] == EXPECTED[name]["texts"]
    stored = Sampler(model, seed=0, num=2, temperature=0.9, top_p=0.98)
    stored.load_state(FOLDER / f"{name}.state")
    for resumed in (sampler, stored):
        assert [sample.text for sample in resumed.generate_all(16)] == EXPECTED[name]["then"]


def test_it_judges_a_text_the_same(name: str) -> None:
    path = FOLDER / f"{name}.safetensors"
    for by in {"forward", "cloze"} & EXPECTED[name].keys():
        judged = [getattr(character, by) for character in score(path, TEXT, by=by)]
        assert judged == pytest.approx(EXPECTED[name][by], abs=NATS)
    assert evaluate(path, TEXT).nats == pytest.approx(EXPECTED[name]["nats"], abs=len(TEXT) * NATS)


@pytest.mark.parametrize("both_ways", [name for name in EXPECTED if "gap" in EXPECTED[name]])
def test_it_writes_what_comes_before_and_what_stands_between(both_ways: str) -> None:
    model = read_model(FOLDER / f"{both_ways}.safetensors")
    assert Sampler(model, seed=5, direction="backward").generate(16) == EXPECTED[both_ways]["before"]
    gaps = fill(model, "ab", "cd", length=3, seed=1, num=2).alternatives
    assert [gap.text for gap in gaps] == EXPECTED[both_ways]["gap"]
