"""Every public function and class, called with what fits and with what does not.

Arguments fit at first, and then some are changed: in shape, type, layout, device or value, or into another thing. A
call may give an answer, the one that the reference gives; or refuse in one line. It happens in a process of its own,
since what compiled code would do to the interpreter could not be caught.
"""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import chargen
from chargen.decoding.numpy_engine import Chunk
from chargen.errors import ChargenError
from tests.api import calls, calls_of_models
from tests.api.calls import KINDS, Calls
from tests.api.odd_values import Odd, copied, finite, shown

CALLS = 10_000
"""Of the long test."""
FEW = 100
"""Of the short one."""
PARTS = 4
"""Processes that share them."""


def outcome(function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[str, Any]:
    """The outcome of a call: its answer, or the error that refused it."""
    try:
        return "answer", function(**arguments)
    except BaseException as error:  # KeyboardInterrupt too: nobody is there to press a key
        return "error", error


def complaint(actual: tuple[str, Any], reference: tuple[str, Any] | None, close: float) -> str:
    """What is wrong with an outcome; empty where nothing is."""
    kind, answer = actual
    if kind == "error":
        line = str(answer)
        if not isinstance(answer, (ChargenError, TypeError, ValueError)) or isinstance(answer, UnicodeError):
            return f"{type(answer).__name__}: {line[:300]}"
        if len(line.splitlines()) != 1 or len(line) > 600:
            return f"not one line: {type(answer).__name__}: {line[:300]!r}"
        if reference and reference[0] == "answer":
            return f"refused, though the reference gives an answer: {line}"
    elif reference:
        if reference[0] == "error":
            return f"an answer, though the reference refuses: {type(reference[1]).__name__}: {reference[1]}"
        return difference(answer, reference[1], close)
    return ""


def difference(actual: Any, expected: Any, close: float) -> str:
    """How an answer differs from the expected one; empty where it does not."""
    if isinstance(actual, Chunk):
        actual, expected = (
            (part.ids, part.counts, part.log_probs, part.logits, *part.state) for part in (actual, expected)
        )
    if isinstance(actual, (tuple, list)) and not all(isinstance(part, (str, float, int)) for part in actual):
        if len(actual) != len(expected):
            return f"{len(actual)} parts, not {len(expected)}"
        return next((words for pair in zip(actual, expected, strict=True) if (words := difference(*pair, close))), "")
    if expected is None:
        return ""
    if isinstance(actual, str) or actual is None:
        return "" if actual == expected else f"{actual!r}, not {expected!r}"
    if isinstance(actual, torch.Tensor):
        if actual.is_meta:
            return "" if actual.shape == expected.shape else f"shape {actual.shape}, not {expected.shape}"
        actual, expected = (part.detach().double().numpy() for part in (actual, expected))
    if isinstance(actual, list) and actual and isinstance(actual[0], str):
        return "" if actual == expected else f"{actual!r}, not {expected!r}"
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        return f"shape {actual.shape}, not {expected.shape}"
    size = np.maximum(1, np.abs(np.where(np.isfinite(expected), expected, 1)))
    if not np.allclose(actual / size, expected / size, rtol=0, atol=close, equal_nan=True):
        return f"{actual.ravel()[:4]}, not {expected.ravel()[:4]}"
    return ""


def main(first: int, last: int) -> int:
    """Make calls, and print what is wrong; the last line before a crash describes the call."""
    warnings.simplefilter("ignore")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, last):
            random = np.random.default_rng([19, number])
            kind = KINDS[number % len(KINDS)]
            torch.manual_seed(number)
            call = getattr(Calls(random, Path(folder)), kind)()
            odd, arguments = Odd(random), dict(call.arguments)
            free = [name for name in arguments if name not in call.fixed]
            for name in random.permutation(free)[: int(odd.pick([0, 1, 1, 1, 2]))]:
                arguments[name] = odd.change(arguments[name], name in call.small)
            description = f"{number} {kind}({', '.join(f'{name}={shown(value)}' for name, value in arguments.items())})"
            print(description, file=sys.stderr, flush=True)
            reference_arguments = {name: copied(value) for name, value in arguments.items()} if call.reference else {}
            with contextlib.redirect_stdout(io.StringIO()):
                actual = outcome(call.function, arguments)
                reference = outcome(call.reference, reference_arguments) if call.reference else None
            if reference and actual[0] == reference[0] == "answer" and not finite(arguments):
                reference = None  # what infinity makes of a sum depends on its order
            if wrong := complaint(actual, reference, call.close):
                bad += 1
                print(f"{description}\n    {wrong}", flush=True)
    return bad


def run(first: int, last: int, folder: Path, threads: int = 1) -> str:
    """What is wrong with some calls, made in a process of its own."""
    log = folder / f"calls-{first}"
    words = [sys.executable, "-X", "faulthandler", "-m", "tests.api.test_any_arguments", str(first), str(last)]
    path = os.pathsep.join(str(Path(file).parents[up]) for file, up in ((__file__, 2), (chargen.__file__, 1)))
    with log.open("w") as errors:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=errors, text=True, check=False,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
    if done.returncode not in (0, 1):
        end = log.read_text(errors="replace")[-3000:]
        return f"{done.stdout}\nended with {done.returncode} after\n{end}"
    return done.stdout


def test_a_hundred_calls_are_answered_rightly_or_refused_in_one_line(tmp_path: Path) -> None:
    assert run(0, FEW, tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_ten_thousand_calls_are_answered_rightly_or_refused_in_one_line(part: int, tmp_path: Path) -> None:
    first, last = (FEW + CALLS * number // PARTS for number in (part, part + 1))
    assert run(first, last, tmp_path, threads=1 + part % 2) == ""


def test_every_public_name_is_called() -> None:
    files = __file__, calls.__file__, calls_of_models.__file__
    source = "".join(Path(file).read_text("utf-8") for file in files)
    # The number of threads is the whole process's: tests/kernels/test_threads.py.
    for name in set(chargen.__all__) - {"__version__", "ModelFile", "ArgumentError", "set_threads"}:
        assert f"chargen.{name}" in source or f" {name}" in source, name


if __name__ == "__main__":
    sys.exit(min(1, main(*map(int, sys.argv[1:]))))
