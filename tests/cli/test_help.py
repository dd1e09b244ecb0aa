"""What help says, and what is not loaded for it."""

import re
import subprocess
import sys

import pytest

from chargen import __version__
from chargen.cli.main import NAMES


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["train", "--help"], ["sample", "--help"], ["info", "MODEL"],
                  ["sample", "MODEL", "--length", "5"], ["sample", "nowhere"]],
)  # fmt: skip
def test_torch_is_absent_where_it_is_not_needed(arguments, model) -> None:
    program = (
        "import sys\nfrom chargen.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    assert 'torch' not in sys.modules, 'torch was loaded'\n"
    )
    words = [str(model) if word == "MODEL" else word for word in arguments]
    done = subprocess.run([sys.executable, "-W", "error", "-c", program, *words], capture_output=True, check=False)
    assert b"torch was loaded" not in done.stderr
    assert done.returncode == (4 if "nowhere" in words else 0), done.stderr


def test_help_names_every_option_of_the_interface(run) -> None:
    shown = run("train", "--help").out
    learn = """out valid test valid-fraction test-fraction cell num-layers hidden-size embedding-size dropout
        bidirectional batching batch-size seq-length steps epochs minutes lr schedule clip-norm precision device seed
        eval-every resume"""
    for name in learn.split():
        assert f"--{name}" in shown
    shown = run("sample", "--help").out
    for name in ("length", "prime", "temperature", "top-k", "top-p", "min-p", "seed", "num", "stop"):
        assert f"--{name}" in shown
    assert {"Learn:", "Write:", "Judge:", "Files:"} <= set(run("--help").out.split("\n"))


def test_help_says_of_what_the_log_probabilities_are(run) -> None:
    assert "log-probability of each character in nats, before temperature and filters" in " ".join(
        run("sample", "--help").out.split()
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_command_can_be_quiet_and_help_is_short(run, name) -> None:
    result = run(*name.split(), "-h")
    assert result.code == 0
    assert re.search("-q, --quiet +Tell nothing", result.out)
    for long, short in (("--temperature", "-t"), ("--num ", "-n")):
        assert (f"{short}, {long}" in result.out) == (re.search(f" {long}", result.out) is not None)
    assert run("-V").out == run("--version").out == f"chargen, version {__version__}\n"
