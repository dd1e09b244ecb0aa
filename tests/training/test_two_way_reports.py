"""What a run in two ways says of itself, in metrics and in the model file."""

import numpy as np
import pytest

from chargen import evaluate
from chargen.evaluation.loss import evaluate_ids
from chargen.model.config import DIRECTIONS, ModelConfig
from chargen.storage.model_file import load_model, read_model
from chargen.training.cloze_task import MARGIN, cloze_loss, even_windows
from chargen.training.trainer import Trainer
from tests import naive
from tests.runs import lines
from tests.two_ways import SMALL, TEXT, config, corpus, finish

TWO_WAY_KEYS = {f"{role}_{name}" for role in ("train", "valid") for name in ("loss_forward", "loss_backward", "cloze")}


def test_metrics_name_the_losses_of_both_directions_and_of_cloze(tmp_path):
    trainer = Trainer(corpus(), SMALL, config(schedule="constant"), tmp_path)
    steps, valid = [], {}
    for progress in trainer.run():
        if progress.doing == "training":
            steps.append(dict(progress.train_losses))
            if progress.step % 5 == 0:
                valid[progress.step] = (progress.valid_loss, dict(progress.valid_losses))
    found, last = [line for line in lines(tmp_path) if "final" not in line], 0
    assert [line["step"] for line in found] == [4, 5, 8, 10, 12]
    for line in found:
        assert line.keys() >= TWO_WAY_KEYS
        since = steps[last : line["step"]]
        for name in DIRECTIONS:
            assert line[f"train_loss_{name}"] == pytest.approx(np.mean([loss[name] for loss in since]), rel=1e-6)
        assert line["train_loss"] == pytest.approx((line["train_loss_forward"] + line["train_loss_backward"]) / 2)
        learned = [loss["cloze"] for loss in since if "cloze" in loss]
        assert line["train_cloze"] == (pytest.approx(np.mean(learned), rel=1e-6) if learned else None)
        if line["step"] % 5:
            assert [line[f"valid_{name}"] for name in ("loss", "loss_forward", "loss_backward", "cloze")] == [None] * 4
        else:
            loss, parts = valid[line["step"]]
            assert line["valid_loss"] == loss == pytest.approx((parts["forward"] + parts["backward"]) / 2)
            assert (line["valid_loss_forward"], line["valid_loss_backward"]) == (parts["forward"], parts["backward"])
            assert line["valid_cloze"] == parts["cloze"]
        last = line["step"]
    assert {line["train_cloze"] is None for line in found} == {True, False}
    assert set(valid) == {5, 10}


def test_validation_scores_both_directions_and_even_windows_between():
    trainer = Trainer(corpus(TEXT * 5, valid_fraction=0.4), SMALL, config(eval_every=1))
    ids = trainer.corpus.valid
    progress = next(progress for progress in trainer.run() if progress.doing == "training")
    expected = {name: evaluate_ids(trainer.model, ids, direction=name).mean for name in DIRECTIONS}
    (windows,) = even_windows(ids, len(ids) // 4)
    assert len(windows) == 3
    expected["cloze"] = np.mean(
        [cost for window in windows for cost in naive.cloze_costs(trainer.model, window, MARGIN)]
    )
    assert dict(progress.valid_losses) == pytest.approx(expected, abs=1e-5)
    assert progress.valid_loss == pytest.approx((expected["forward"] + expected["backward"]) / 2, abs=1e-5)


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_the_model_file_says_what_both_directions_score(unit, tmp_path):
    data = corpus(TEXT.replace("s", "ß"), unit=unit, valid_fraction=0.2, test_fraction=0.2)
    finish(Trainer(data, SMALL, config(), tmp_path))
    model, summary = load_model(tmp_path), read_model(tmp_path).training
    for role, ids in (("valid", data.valid), ("test", data.test)):
        for name in DIRECTIONS:
            loss = evaluate_ids(model, ids, vocabulary=data.vocabulary, direction=name)
            assert summary[f"{role}_loss_{name}"] == pytest.approx(loss.mean, abs=1e-5)
            assert summary[f"{role}_characters"] == loss.characters == data.vocabulary.count_characters(ids) - 1
        mean = (summary[f"{role}_loss_forward"] + summary[f"{role}_loss_backward"]) / 2
        assert summary[f"{role}_loss"] == pytest.approx(mean)
        (windows,) = even_windows(ids, len(ids) // 4)
        loss, _ = cloze_loss(model, windows)
        assert summary[f"{role}_cloze"] == pytest.approx(loss.item(), abs=1e-5)
    final = lines(tmp_path)[-1]
    assert final["final"] is True
    for name in ("loss", "loss_forward", "loss_backward", "cloze"):
        assert final[f"valid_{name}"] == summary[f"valid_{name}"]


def test_the_best_model_is_the_one_whose_mean_of_both_directions_is_least(tmp_path):
    """A learning rate that grows worse: the best weights are not the last."""
    data = corpus("ab" * 200 + "".join(np.random.default_rng(0).choice(list("abcdefgh"), 400)), valid_fraction=0.5)
    settings = config(steps=80, lr=0.05, schedule="constant", batch_size=4, seq_length=8)
    trainer = finish(Trainer(data, SMALL, settings, tmp_path))
    scored = {line["step"]: line for line in lines(tmp_path) if line["valid_loss"] is not None and "final" not in line}
    mean = {step: (line["valid_loss_forward"] + line["valid_loss_backward"]) / 2 for step, line in scored.items()}
    best = min(mean, key=mean.get)
    assert read_model(tmp_path).training["step"] == trainer.counters.best_step == best < 80
    assert trainer.summary["valid_loss"] == pytest.approx(mean[best], abs=1e-5)


def test_a_validation_part_too_short_for_cloze_has_no_cloze_loss(tmp_path):
    data = corpus(TEXT[:300])
    assert len(data.valid) < 33
    trainer = Trainer(data, SMALL, config(steps=5), tmp_path)
    *_, last = trainer.run()
    assert last.valid_losses.keys() == {"forward", "backward"}
    assert lines(tmp_path)[-1]["valid_cloze"] is None
    assert lines(tmp_path)[-1]["valid_loss_backward"] is not None
    assert "valid_cloze" not in trainer.summary


def test_a_one_way_run_names_no_directions(tmp_path):
    shape = ModelConfig(num_layers=1, hidden_size=6, embedding_size=4)
    trainer = Trainer(corpus(), shape, config(), tmp_path)
    for progress in trainer.run():
        assert dict(progress.train_losses) == dict(progress.valid_losses) == {}
    assert not any(line.keys() & TWO_WAY_KEYS for line in lines(tmp_path))
    assert not read_model(tmp_path).training.keys() & TWO_WAY_KEYS


def test_both_losses_of_folded_characters_are_those_of_evaluate(tmp_path):
    rare = "".join(chr(0x400 + number) + "abcabc" for number in range(100))
    data = corpus(rare, min_count=3, valid_fraction=0.2)
    trainer = finish(Trainer(data, SMALL, config(steps=3), tmp_path))
    text = rare[len(data.train) :]
    for name in DIRECTIONS:
        found = evaluate(load_model(tmp_path), data.vocabulary, text, direction=name)
        assert found.folded > 10
        assert trainer.summary[f"valid_loss_{name}"] == pytest.approx(found.nats_per_character, abs=1e-5)
