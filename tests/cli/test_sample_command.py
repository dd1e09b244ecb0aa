"""`chargen sample`: primes, seeds, lengths, what stands between samples, and states."""

import json
import re
from pathlib import Path

import pytest

from chargen.decoding.choose import WRITING_DEFAULTS
from chargen.sampling.rounding import MAX_LINE, MAX_WORD
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import FILE_NAME, read_model, save_model
from tests.commands import is_one_line
from tests.small_models import small_model


def test_samples_in_json_lines_carry_log_probabilities(run, model) -> None:
    result = run("sample", model, "--length", 30, "--num", 3, "--seed", 5, "--prime", "abc", "--format", "jsonl")
    samples = [json.loads(line) for line in result.out.splitlines()]
    assert [sample["sample"] for sample in samples] == [0, 1, 2]
    assert all(len(sample["text"]) == len(sample["log_probs"]) == 30 for sample in samples)
    assert all(sample["prime"] == "abc" and sample["seed"] == 5 for sample in samples)
    alone = run("sample", model, "--length", 30, "--seed", 5, "--prime", "abc", "--no-echo")
    assert alone.out == samples[0]["text"]


def test_the_prime_is_printed_first_and_not_counted(run, model, tmp_path) -> None:
    plain = run("sample", model, "--length", 20, "--seed", 1, "--prime", "abc")
    assert plain.out.startswith("abc")
    assert len(plain.out) == 23
    (tmp_path / "prime.txt").write_text("abc")
    assert run("sample", model, "--length", 20, "--seed", 1, "--prime-file", "prime.txt").out == plain.out
    skipped = run("sample", model, "--length", 20, "--seed", 1, "--prime", "aXbYc", "--unknown", "skip", "--no-echo")
    assert skipped.out == plain.out[3:]


def test_a_text_goes_on_tomorrow(run, model) -> None:
    whole = run("sample", model, "--length", 60, "--seed", 3, "--prime", "ab").out
    first = run("sample", model, "--length", 25, "--seed", 3, "--prime", "ab", "--state-out", "state").out
    second = run("sample", model, "--length", 35, "--state-in", "state").out
    assert first + second == whole


def test_a_seed_that_was_drawn_is_told(run, model) -> None:
    drawn = run("sample", model, "--length", 40)
    seed = re.search(r"seed (\d+)", drawn.err)[1]
    assert run("sample", model, "--length", 40, "--seed", seed).out == drawn.out
    assert (
        run("sample", model, "--length", 40, "--seed", 0).out == run("sample", model, "--length", 40, "--seed", 0).out
    )


def test_samples_in_a_pipe_can_be_told_from_text(run, model) -> None:
    arguments = ["sample", model, "--length", 40, "--seed", 5, "--prime", "abc"]
    lines = [json.loads(line)["text"] for line in run(*arguments, "--num", 3, "--format", "jsonl").out.splitlines()]
    several = run(*arguments, "--num", 3)
    assert several.out.split("\0") == ["abc" + text for text in lines]
    assert several.err == "", "headings would stand without their texts"
    assert run(*arguments, "--num", 3, "--separator", "\n===\n").out.split("\n===\n") == several.out.split("\0")
    assert run(*arguments, "--num", 3, "--separator", "").out == several.out.replace("\0", "")
    assert run(*arguments, "--separator", "|").out == "abc" + lines[0]
    refused = run(*arguments, "--separator", "|", "--format", "jsonl")
    assert (refused.code, refused.out) == (2, "")
    assert "--separator does nothing with --format jsonl" in refused.err


def test_a_separator_may_hold_escapes_as_shells_hand_them_over(run, model) -> None:
    arguments = ["sample", model, "--length", 9, "--seed", 5, "--num", 3]
    texts = run(*arguments).out.split("\0")
    for typed, written in ((r"\n---\n", "\n---\n"), (r"\t\0\\n\d", "\t\0\\n\\d"), ("\n", "\n")):
        assert run(*arguments, "--separator", typed).out == written.join(texts)
    fill_help, sample_help, train_help = (run(name, "--help").out for name in ("fill", "sample", "train"))
    for shown in (fill_help, sample_help, train_help):
        assert r"\n is a line end, \t a tab]" in " ".join(shown.split())


@pytest.mark.parametrize("options", [["--stop", r"\n\n"], ["--prime", r"a\n"]])
def test_a_literal_line_end_is_told_where_the_model_has_no_backslash(run, model, options) -> None:
    refused = run("sample", model, *options)
    assert refused.code in (2, 3)
    assert is_one_line(refused.err)
    assert r"write a line end as $'\n', in most shells" in refused.err


def test_a_literal_line_end_is_noted_where_the_model_has_backslashes(run, tmp_path) -> None:
    save_model("code/model.safetensors", small_model(characters="".join(sorted("abn\\ewli \n"))))
    arguments = ["sample", "code", "--length", 9, "--seed", 1]
    note = r"note: --stop has a backslash and n, not a line end, which is $'\n', in most shells" + "\n"
    assert note in run(*arguments, "--stop", r"\n\n").err
    assert run(*arguments, "--stop", r"\newline", "--stop", "\n").err == ""
    assert note.replace("--stop", "--ban") in run(*arguments, "--ban", r"\n").err


def test_a_text_that_nobody_gave_a_length_ends_with_a_line_or_a_word(run, model) -> None:
    text = run("sample", model, "--seed", 1).out
    assert 500 <= len(text) <= 500 + MAX_LINE + MAX_WORD
    assert text.endswith("\n")
    whole = run("sample", model, "--seed", 1, "--length", 1000).out
    assert text == whole[: whole.index("\n", 499) + 1]
    for length in (0, 1, 499, 500):
        assert run("sample", model, "--seed", 1, "--length", length).out == whole[:length]
    begun = run("sample", model, "--seed", 1, "--state-out", "state").out
    onward = run("sample", model, "--state-in", "state", "--length", 1000 - len(text)).out
    assert begun + onward == whole


def test_sample_is_cooler_than_a_sampler_and_says_so(run, model) -> None:
    text = run("sample", model, "--seed", 1, "--length", 200).out
    file = read_model(model)
    assert text == Sampler(file, seed=1, **WRITING_DEFAULTS).generate(200) != Sampler(file, seed=1).generate(200)
    warm = run("sample", model, "--seed", 1, "--length", 200, "--temperature", 1, "--min-p", 0).out
    assert warm == Sampler(file, seed=1).generate(200)
    assert f"default: {WRITING_DEFAULTS['temperature']:g}" in " ".join(run("sample", "--help").out.split())
    assert "[default: 1; at least 0]" in " ".join(run("fill", "--help").out.split())


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--stop", "aX"], 2, "--stop is 'aX', which is never written: the model does not have 'X' (U+0058)"),
        (["--stop", "ab", "--ban", "b"], 2, "--stop is 'ab', which is never written: --ban forbids 'b'"),
        (["--prime", "A\u00a0b"], 3, "write 'a' for 'A', ' ' for '\\xa0'; --unknown skip"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_written(run, model, options, code, words) -> None:
    refused = run("sample", model, *options)
    assert (refused.code, refused.out) == (code, "")
    assert is_one_line(refused.err)
    assert words in refused.err


def test_a_ban_that_does_nothing_is_told(run, model) -> None:
    plain = run("sample", model, "--seed", 1, "--length", 50, "--ban", "ab")
    assert plain.err == ""
    needless = run("sample", model, "--seed", 1, "--length", 50, "--ban", "aXb\u00a0")
    assert needless.out == plain.out
    words = "note: the model does not have 'X', '\\xa0': to ban that does nothing; write ' ' for '\\xa0'\n"
    assert needless.err == words


def test_stop_ends_the_text(run, model) -> None:
    text = run("sample", model, "--length", 500, "--seed", 1).out
    stopped = run("sample", model, "--length", 500, "--seed", 1, "--stop", text[100:104]).out
    assert stopped == text[: text.index(text[100:104]) + 4]


def test_a_prime_that_is_learned_shapes_what_follows(run, tmp_path, model) -> None:
    (tmp_path / "prime.txt").write_text("abc" * 300)
    words = "sample", "model", "--prime-file", "prime.txt", "--no-echo", "--length", 600, "--seed", 1
    plain, learned = run(*words).out, run(*words, "--adapt", 30).out
    assert learned == run(*words, "--adapt", 30).out
    assert sum(map(learned.count, "abc")) > sum(map(plain.count, "abc")) + 50
    assert run(*words, "--adapt", 0).out == plain


def test_a_prime_file_may_be_in_another_encoding(run, model, tmp_path) -> None:
    (tmp_path / "prime.txt").write_bytes("é".encode("latin-1"))
    assert run("sample", model, "--prime-file", "prime.txt", "--seed", 1).code == 3
    result = run("sample", model, "--prime-file", "prime.txt", "--encoding", "latin-1", "--seed", 1, "--length", 3)
    assert result.out.startswith("é")


def test_a_state_never_replaces_another_file(run, model, tmp_path) -> None:
    before = (model / FILE_NAME).read_bytes()
    for target in (model / FILE_NAME, tmp_path / "text.txt", "/dev/null"):
        refused = run("sample", model, "--length", 3, "--seed", 1, "--state-out", target)
        assert refused.code == 1
        assert "is not overwritten" in refused.err or "something else than a file" in refused.err
    assert (model / FILE_NAME).read_bytes() == before
    assert Path("/dev/null").is_char_device()
    for _ in range(2):
        assert run("sample", model, "--length", 3, "--seed", 1, "--state-out", "state").code == 0


@pytest.mark.parametrize("target", ["text.txt", "text.txt/state", "model", "model/model.safetensors", "/dev/null"])
def test_a_state_that_cannot_be_saved_is_refused_before_writing(run, model, target) -> None:
    refused = run("sample", model, "--length", 3, "--state-out", target)
    assert (refused.code, refused.out) == (1, "")
    assert is_one_line(refused.err)
    assert "choose another file" in refused.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text.txt", "text.txt is not a good sampler state file: it is a text\n"),
        ("model", "cannot read model: it is a folder\n"),
        ("model/model.safetensors", "it is a file of another kind, 'model'\n"),
        ("text.tx", "cannot read text.tx: No such file or directory; did you mean text.txt?\n"),
    ],
)
def test_what_is_no_state_is_called_what_it_is(run, model, name, words) -> None:
    refused = run("sample", model, "--length", 3, "--state-in", name)
    assert (refused.code, refused.out) == (4, "")
    assert is_one_line(refused.err)
    assert refused.err.endswith(words)


def test_what_was_written_before_a_dead_end_is_printed(run, model) -> None:
    result = run("sample", model, "--num", 2, "--length", 100, "--seed", 1, "--no-repeat", 1, "--format", "jsonl")
    assert result.code == 1
    assert len(result.out.splitlines()) == 2
    assert "forbid all" in result.err
