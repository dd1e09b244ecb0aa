"""What the guesses of a gap are made of."""

import numpy as np
import pytest
import torch

from chargen.decoding.choose import log_softmax
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.pick_engine import new_engine
from chargen.infill.lookahead import GUESSES, Lookahead
from chargen.infill.prefixes import Prefixes
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import ModelFile, build_model
from tests.infill.gaps import model, root_of


def look(file: ModelFile, before: str, gaps: list[str], after: str, length: int) -> tuple[Lookahead, Prefixes]:
    """A lookahead, and prefixes to propose ids for."""
    prefixes = [root_of(file, before + gap) for gap in gaps]
    joined = prefixes[0]
    for prefix in prefixes[1:]:
        joined = joined.join(prefix)
    ids = file.vocabulary.encode(after)
    ahead = Lookahead(file, ids, length, 7, new_engine(file, "cpu", "backward"))
    return ahead, joined


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_a_proposal_is_a_distribution_and_a_mean_match(unit: str) -> None:
    file = model("gru", unit, num_layers=2)
    ahead, prefixes = look(file, "ab", ["a", "b", "cd"], "cab", 6)
    assert ahead.horizon == 6
    for distance in range(6):
        guessed, match = ahead.propose(prefixes, distance)
        assert guessed.shape == (3, len(file.vocabulary))
        assert match.shape == (3,)
        assert np.exp(guessed).sum(axis=1) == pytest.approx(np.ones(3))
        assert np.isfinite(match).all()
        for row in range(3 if unit == "character" else 0):
            left = np.exp(log_softmax(prefixes.logits[row]))
            right = np.exp(log_softmax(ahead.logits[distance]))
            prior = file.counts / file.counts.sum()
            used = right if distance else right[:1]
            assert match[row] == pytest.approx(np.log((left * used / prior).sum(axis=1).mean()), abs=1e-5)


def test_next_to_the_text_behind_a_guess_is_the_cloze_prediction() -> None:
    file = model("lstm", num_layers=2)
    torch_model, encode = build_model(file), file.vocabulary.encode
    ahead, prefixes = look(file, "ab", ["", "c", "da"], "c ab", 4)
    guessed, _ = ahead.propose(prefixes, 0)
    with torch.inference_mode():
        behind = torch.from_numpy(encode("c ab")[::-1].astype(np.int64))[None]
        right = torch_model.read(behind, direction="backward")[0][:, -1]
        for row, gap in enumerate(["", "c", "da"]):
            left = torch_model.read(torch.from_numpy(encode("ab" + gap).astype(np.int64))[None])[0][:, -1]
            expected = torch.log_softmax(torch_model.cloze_logits(left, right), dim=-1)[0].numpy()
            assert np.abs(guessed[row] - expected).max() < 1e-4
    first = int(encode("c")[0])
    share = file.counts[first] / file.counts.sum()
    expected = log_softmax(prefixes.logits)[:, first] - np.log(share)
    assert ahead.log_match(prefixes.logits, first) == pytest.approx(expected)


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_guesses_are_what_the_backward_sampler_writes(unit: str) -> None:
    file = model("gru", unit, scale=1.0)
    ahead, _ = look(file, "", [""], "cab", 4)
    writer = Sampler(file, seed=7, num=GUESSES, direction="backward")
    writer.feed("cab")
    texts = [sample.text for sample in writer.generate_all(3)]
    engine = NumpyEngine(file.config, file.arrays, "backward")
    for guess in (0, 5, GUESSES - 1):
        for distance in range(4):
            logits, state = None, engine.start(1)
            for read_id in file.vocabulary.encode(texts[guess][3 - distance :] + "cab")[::-1]:
                logits, state = engine.step(np.array([read_id]), state)
            assert np.abs(ahead.logits[distance, guess] - logits[0]).max() < 1e-5
            assert np.abs(ahead.hidden[distance, guess] - state[-1][0, :8]).max() < 1e-5
