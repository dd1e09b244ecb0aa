"""`chargen corpus make`."""

import math
import signal
from pathlib import Path

import pytest

import chargen
from chargen.data.made_languages import LANGUAGES
from tests.cli.processes import command, wait_until
from tests.yardstick import HANG


@pytest.mark.parametrize("more", [[], ["--labelled"]])
@pytest.mark.parametrize("name", LANGUAGES)
def test_the_command_writes_what_the_call_makes(run, name: str, more: list[str]) -> None:
    made = chargen.make_corpus(name, num=5, seed=2, labelled=bool(more))
    done = run("corpus", "make", name, "--num", 5, "--seed", 2, *more)
    assert done.code == 0
    assert done.out == made.text
    nats, bits = made.nats_per_character, made.nats_per_string / math.log(2)
    assert f"{made.nats_per_string:.4f} nats, {bits:.4f} bits per {'good ' * bool(more)}string\n" in done.err
    assert f"{nats:.4f} nats, {nats / math.log(2):.4f} bits per character" in done.err
    saved = run("corpus", "make", name, "--num", 5, "--seed", 2, *more, "--out", "made.txt")
    assert saved.out == ""
    assert Path("made.txt").read_text() == made.text
    assert f"saved    made.txt: 5 strings, {len(made.text)} bytes" in saved.err


def test_a_file_stays_unless_it_may_be_replaced(run) -> None:
    before = Path("text.txt").read_text()
    refused = run("corpus", "make", "counter", "--out", "text.txt")
    assert refused.code == 3
    assert refused.err == "chargen: text.txt exists: choose another --out, or replace it with --overwrite\n"
    assert Path("text.txt").read_text() == before
    assert run("corpus", "make", "counter", "--out", "text.txt", "--overwrite").code == 0
    assert Path("text.txt").read_text() == chargen.make_corpus("counter").text


def test_a_signal_leaves_nothing_half_made(tmp_path: Path) -> None:
    process = command("corpus", "make", "counter", "--num", 2**32, "--out", "made.txt", cwd=tmp_path)
    wait_until(lambda: any(path.stat().st_size for path in tmp_path.iterdir()), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=HANG)
    assert (process.returncode, err) == (143, b"chargen: terminated\n")
    assert not any(tmp_path.iterdir())


def test_an_unknown_language_is_bad_data(run) -> None:
    done = run("corpus", "make", "bracket")
    assert (done.code, done.err) == (3, "chargen: there is no language 'bracket'; did you mean brackets?\n")
