"""The loss on a text: every character once, in any number of rows, divided by exactly what was counted."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chargen import evaluate
from chargen.data.code_points import CODE_POINTS
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError, SettingError
from chargen.evaluation.loss import (
    WARMUP,
    evaluate_ids,
    loss_windows,
)
from chargen.model import device
from chargen.model.config import ModelConfig
from chargen.model.device import autocast, pick_device, pick_precision
from chargen.model.language_model import CharModel
from chargen.storage.model_file import build_model, save_model
from tests import naive
from tests.small_models import small_model

CHARACTERS = "abcdefgh "


def blind_model(vocabulary_size, biases=None):
    """A model that sees nothing: it gives each character the same probability everywhere."""
    model = CharModel(ModelConfig("gru", 1, 1, 1), vocabulary_size)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        if biases is not None:
            model.output.bias.copy_(torch.as_tensor(biases))
    return model


def costs_of(model):
    """What each id costs a blind model."""
    return -torch.log_softmax(model.output.bias.detach().double(), 0).numpy()


def some_ids(length, vocabulary_size, seed=0):
    return np.random.default_rng(seed).integers(0, vocabulary_size, length).astype(np.uint8)


@given(st.integers(2, 40), st.integers(2, 300), st.none() | st.integers(1, 9))
def test_equal_logits_cost_the_logarithm_of_the_vocabulary(size, length, rows):
    loss = evaluate_ids(blind_model(size), some_ids(length, size), rows=rows)
    assert loss.characters == length - 1
    assert loss.mean == pytest.approx(math.log(size), rel=1e-6)


@given(st.integers(2, 4000), st.none() | st.integers(1, 40), st.integers(0, 99))
def test_every_character_but_the_first_is_counted_exactly_once(length, rows, seed):
    model = blind_model(6, [0.0, 0.5, 1.1, 1.9, -2.3, 3.7])
    ids = some_ids(length, 6, seed)
    parts = list(loss_windows(model, ids, rows=rows))
    assert sum(part.characters for part in parts) == length - 1
    assert math.fsum(part.nats for part in parts) == pytest.approx(costs_of(model)[ids[1:]].sum(), rel=1e-6)


@given(st.integers(2, 120), st.integers(1, 30), st.sampled_from(["lstm", "gru"]))
def test_rows_agree_with_single_characters_where_all_context_is_read(length, rows, cell):
    """Shorter than the warm-up, so every row has read all that came before it."""
    model = build_model(small_model(cell))
    ids = some_ids(length, 10)
    loss = evaluate_ids(model, ids, rows=rows)
    assert loss.characters == length - 1
    assert loss.nats == pytest.approx(naive.costs(model, ids).sum(), rel=1e-5)


def test_one_row_agrees_with_one_character_at_a_time_over_many_windows():
    model, ids = build_model(small_model()), some_ids(1500, 10)
    assert evaluate_ids(model, ids, rows=1).nats == pytest.approx(naive.costs(model, ids).sum(), rel=1e-5)


def test_a_row_is_warmed_on_exactly_the_500_characters_before_it():
    model, ids = build_model(small_model()), some_ids(1201, 10)
    middle = 1 + 1200 // 2
    first = naive.costs(model, ids[:middle]).sum()
    second = naive.costs(model, ids[middle - WARMUP - 1 :])[WARMUP:].sum()
    assert evaluate_ids(model, ids, rows=2).nats == pytest.approx(first + second, rel=1e-6)
    assert WARMUP == 500


def rhymes(length):
    """A text with words, and with brackets that must be closed: something to carry."""
    draws = np.random.default_rng(1)
    words = ["abba ", "cede ", "face ", "(had) ", "(a bad bed) ", "egg ", "hag "]
    return "".join(words[pick] for pick in draws.integers(0, len(words), length // 3))[:length]


def test_rows_cost_less_than_a_thousandth_of_a_nat_on_a_trained_model():
    text = rhymes(20_000)
    vocabulary = Vocabulary("".join(sorted(set(text))))
    ids = vocabulary.encode(text)
    model = CharModel(ModelConfig("lstm", 1, 32, 8), len(vocabulary))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    batches = torch.from_numpy(ids.astype(np.int64)).reshape(20, -1)
    state = None
    for step in range(0, 930, 30):
        logits, state = model(batches[:, step : step + 30], state)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batches[:, step + 1 : step + 31].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = tuple(layer.detach() for layer in state)
    uncut = evaluate_ids(model, ids, rows=1)
    assert uncut.mean < 0.6 * math.log(len(vocabulary)), "not trained: the test shows nothing"
    for rows in (None, 8, 32):
        cut = evaluate_ids(model, ids, rows=rows)
        assert cut.characters == uncut.characters == len(text) - 1
        assert abs(cut.mean - uncut.mean) < 0.001


@given(st.integers(100, 6000), st.integers(10, 5000), st.none() | st.integers(1, 10))
def test_a_limit_scores_evenly_spaced_stretches(length, limit, rows):
    model = blind_model(200, np.random.default_rng(3).standard_normal(200))
    ids = some_ids(length, 200)
    loss = evaluate_ids(model, ids, limit=limit, rows=rows)
    total = length - 1
    used = rows or max(1, min(32, min(total, limit) // 1000))
    stretch = total if limit >= total else limit // used
    begins = [1 + row * total // used for row in range(used + 1)]
    scored = [place for begin, end in pairwise(begins) for place in range(begin, min(end, begin + stretch))]
    assert loss.characters == len(scored)
    assert loss.nats == pytest.approx(costs_of(model)[ids[scored]].sum(), rel=1e-6)
    assert loss.characters <= limit
    assert loss.characters > min(limit, total) - used


def test_a_limit_always_scores_the_same():
    model, ids = build_model(small_model()), some_ids(5000, 10)
    first, second = (evaluate_ids(model, ids, limit=2000) for _ in range(2))
    assert first == second
    assert first.characters == 2000
    assert evaluate_ids(model, ids, limit=10**9) == evaluate_ids(model, ids)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=2, max_size=60), st.none() | st.integers(1, 9))
def test_bytes_are_scored_but_characters_are_counted(text, rows):
    model = blind_model(256, np.random.default_rng(3).standard_normal(256))
    result = evaluate(model, Vocabulary(unit="byte"), text, rows=rows)
    counted = text[1:].encode()
    nats = costs_of(model)[list(counted)].sum()
    assert (result.characters, result.bytes) == (len(text) - 1, len(counted))
    assert result.nats == pytest.approx(nats, rel=1e-6)
    assert result.nats_per_character == pytest.approx(nats / (len(text) - 1), rel=1e-6)
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / len(counted), rel=1e-6)


def test_the_bytes_of_the_first_character_are_read_but_not_counted():
    model, text = build_model(small_model(unit="byte")), "字aé"
    costs = naive.costs(model, text.encode())
    assert evaluate(model, Vocabulary(unit="byte"), text).nats == pytest.approx(costs[2:].sum(), rel=1e-6)


@given(st.text("abcxyzé字", min_size=2, max_size=40))
def test_folded_and_unseen_characters_pay_for_their_place(text):
    vocabulary = Vocabulary("abc", folded="xyz")
    model = build_model(small_model(characters="abc", folded="xyz"))
    result = evaluate(model, vocabulary, text)
    folded = sum(character in "xyz" for character in text[1:])
    unseen = sum(character in "é字" for character in text[1:])
    nats = naive.costs(model, ["abc".find(character) % 4 for character in text]).sum()
    nats += folded * math.log(4) + unseen * (math.log(4) + math.log(CODE_POINTS - 6))
    assert (result.folded, result.unseen, result.skipped) == (folded, unseen, 0)
    assert result.characters == len(text) - 1
    assert result.bytes == len(text[1:].encode())
    assert result.nats == pytest.approx(nats, rel=1e-6)


@pytest.mark.parametrize("folded", ["x", "xyz", "".join(map(chr, range(0x400, 0x4C8)))])
@pytest.mark.parametrize("before", ["a", "cab", "bx", "b\ud800"])
def test_a_model_with_folding_is_a_proper_code(folded, before):
    """What a character costs in a place is the same for all of a kind, and all 1,114,112 together sum to one.

    Lone surrogates are among them, since a Python text may hold them.
    """
    file = small_model(characters="abc", folded=folded)
    model, vocabulary = build_model(file), file.vocabulary

    def nats(text):
        return evaluate(model, vocabulary, text, rows=1).nats

    rest = nats(f"a{before}")

    kinds = Counter()
    for character in map(chr, range(CODE_POINTS)):
        kinds[character if character in "abc" else "folded" if character in folded else "unseen"] += 1
    assert kinds == {"a": 1, "b": 1, "c": 1, "folded": len(folded), "unseen": CODE_POINTS - 3 - len(folded)}
    members = {
        "a": "a",
        "b": "b",
        "c": "c",
        "folded": folded[:: 1 + len(folded) // 20],
        "unseen": "é字😀\0\U0010ffff\udfff",
    }
    costs = {kind: [nats(f"a{before}{character}") - rest for character in some] for kind, some in members.items()}
    for some in costs.values():
        assert some == pytest.approx([some[0]] * len(some), abs=1e-5)
    assert sum(kinds[kind] * math.exp(-some[0]) for kind, some in costs.items()) == pytest.approx(1, abs=1e-5)
    # The training text has folded characters only: as little as can be is taken from them.
    symbol = naive.costs(model, [*vocabulary.encode("a" + before, "replace").tolist(), 3])[-1]
    assert costs["folded"][0] - symbol == pytest.approx(math.log(len(folded) + 1), abs=1e-5)


def test_unknown_characters_are_charged_only_where_there_is_a_symbol():
    plain, folded = small_model(characters=CHARACTERS), small_model(characters="abc", folded="xyz")
    left_out, alone = (evaluate(plain, text) for text in ("éaébcé字", "abc"))
    assert (left_out.skipped, left_out.unseen) == (4, 0)
    assert (left_out.characters, left_out.bytes, left_out.nats) == (alone.characters, alone.bytes, alone.nats)
    assert evaluate(folded, "aébx") == evaluate(folded, "aébx", unknown="replace")
    assert evaluate(folded, "aébx").unseen == 1
    skipped = evaluate(folded, "aébx", unknown="skip")
    assert (skipped.unseen, skipped.skipped, skipped.nats) == (0, 1, evaluate(folded, "abx").nats)
    with pytest.raises(DataError, match="unknown to the model: 'é'"):
        evaluate(folded, "aébx", unknown="error")
    with pytest.raises(DataError, match="no unknown symbol"):
        evaluate(plain, "aébc", unknown="replace")
    assert evaluate(small_model(unit="byte"), "ab\ud800c").skipped == 1
    with pytest.raises(DataError, match="at least 2 characters that the model knows, found 1; 3 unknown ones"):
        evaluate(plain, "éaéé")


def test_unknown_characters_stop_or_are_left_out_and_counted():
    model, vocabulary = build_model(small_model(characters=CHARACTERS)), Vocabulary("".join(sorted(CHARACTERS)))
    with pytest.raises(DataError, match=r"unknown to the model: 'é'"):
        evaluate(model, vocabulary, "abéc", unknown="error")
    skipped, plain = (evaluate(model, vocabulary, text, unknown="skip") for text in ("éaébcé字", "abc"))
    assert (skipped.skipped, plain.skipped) == (4, 0)
    assert (skipped.characters, skipped.bytes, skipped.nats) == (plain.characters, plain.bytes, plain.nats)


def test_the_figures_of_an_evaluation_agree():
    result = evaluate(blind_model(9), Vocabulary("".join(sorted(CHARACTERS))), "a bad bed")
    assert result.characters == result.bytes == 8
    assert result.nats_per_character == pytest.approx(math.log(9))
    assert result.bits_per_character == result.bits_per_byte == pytest.approx(math.log2(9))
    assert result.perplexity == pytest.approx(9)


@pytest.mark.parametrize("unit", ["character", "byte"])
@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_too_short_to_score_is_an_error_in_words(unit, text):
    file = small_model(unit=unit)
    with pytest.raises(DataError, match=f"at least 2 characters, found {len(text)} .*; give more text"):
        evaluate(build_model(file), file.vocabulary, text)


def test_one_character_of_many_bytes_is_too_short():
    with pytest.raises(DataError, match="at least 2 characters"):
        evaluate(blind_model(256), Vocabulary(unit="byte"), "字")
    with pytest.raises(DataError, match="at least 2 characters"):
        evaluate(blind_model(9), Vocabulary("".join(sorted(CHARACTERS))), "aéé", unknown="skip")


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_model_as_it_was(training):
    model, ids = build_model(small_model()).train(training), torch.from_numpy(some_ids(40, 10).astype(np.int64))
    model(ids[None])[0].square().sum().backward()
    before = {name: (weight.clone(), weight.grad.clone()) for name, weight in model.named_parameters()}
    place = torch.random.get_rng_state()
    evaluate_ids(model, some_ids(3000, 10))
    assert model.training is training
    assert torch.equal(torch.random.get_rng_state(), place)
    assert torch.is_grad_enabled()
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name][0])
        assert torch.equal(weight.grad, before[name][1])
        assert weight.requires_grad
    model(ids[None])[0].sum().backward()
    assert not torch.equal(model.output.bias.grad, before["output.bias"][1])


def test_dropout_never_acts_while_scoring():
    file = small_model()
    ids, heavy = some_ids(300, 10), CharModel(ModelConfig("lstm", 2, 12, 8, dropout=0.9, input_dropout=0.9), 10).train()
    heavy.load_state_dict(build_model(file).state_dict())
    assert evaluate_ids(heavy, ids) == evaluate_ids(build_model(file), ids)


def test_half_a_character_is_scored_as_unseen():
    file = small_model(characters="abc", folded="xyz")
    assert evaluate(build_model(file), file.vocabulary, "ab\ud800c").unseen == 1


def test_half_a_character_left_out_of_bytes_is_counted_as_skipped():
    file = small_model(unit="byte")
    assert evaluate(build_model(file), file.vocabulary, "ab\ud800c", unknown="skip").skipped == 1


def test_a_model_is_a_path_a_model_file_or_a_charmodel(tmp_path):
    file, text = small_model(characters=CHARACTERS), "a bad bed"
    save_model(tmp_path / "model.safetensors", file)
    expected = evaluate(build_model(file), file.vocabulary, text)
    for model in (file, tmp_path, str(tmp_path), tmp_path / "model.safetensors"):
        assert evaluate(model, text) == evaluate(model, text=text) == evaluate(model, text, device="cpu") == expected
    with pytest.raises(SettingError, match="device is 'tpu'"):
        evaluate(file, text, device="tpu")
    model = build_model(file)
    assert evaluate(model, text=text, vocabulary=file.vocabulary) == expected
    with pytest.raises(SettingError, match="give the vocabulary of this CharModel: it has 9 ids"):
        evaluate(model, text)
    with pytest.raises(SettingError, match="give the vocabulary of this CharModel: it has 9 ids"):
        evaluate(model, Vocabulary("ab"), text)
    with pytest.raises(SettingError, match="has its own vocabulary"):
        evaluate(file, file.vocabulary, text)
    with pytest.raises(SettingError, match="model is 5: it must be the path of a model file or a run folder"):
        evaluate(5, text)


@pytest.mark.parametrize("text", [b"a bad bed", ["a"], None, 5])
def test_what_is_no_text_is_named_as_such(text):
    file = small_model(characters=CHARACTERS)
    for arguments in ((file, text), (build_model(file), file.vocabulary, text)):
        with pytest.raises(SettingError, match=f"text is of type {type(text).__name__}: it must be a str"):
            evaluate(*arguments)


def test_an_evaluation_shows_itself_in_one_line():
    result = evaluate(small_model(characters="abc", folded="x"), "abc" * 500 + "xé")
    assert repr(result) == (
        f"Evaluation({result.nats_per_character:.4f} nats, {result.bits_per_character:.4f} bits per character, "
        f"{result.bits_per_byte:.4f} bits per byte, perplexity {result.perplexity:.4f}, on 1,501 characters, "
        "1 folded, 1 unseen)"
    )


def test_a_device_that_is_not_there_is_named():
    assert pick_device("cpu") == torch.device("cpu")
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(SettingError, match=rf"device is '{missing}': .* cpu"):
        pick_device(missing)


def test_bf16_costs_about_as_much_as_fp32(monkeypatch):
    model, ids = build_model(small_model(scale=1.0)), some_ids(600, 10)
    exact, rough = (evaluate_ids(model, ids, precision=precision) for precision in ("fp32", "bf16"))
    assert exact.characters == rough.characters
    assert 0 < abs(exact.mean - rough.mean) < 0.01
    assert pick_precision("bf16", torch.device("cpu")) == "bf16"
    for units, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(device, "amx", lambda: False)
        monkeypatch.setattr(device, "fast_bf16", lambda units=units: units)
        assert pick_precision("auto", torch.device("cpu")) == expected
    with autocast("fp32", torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")
