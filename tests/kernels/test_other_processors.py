"""Kernels on processors with fewer instructions than this one: compiled for them, they pass their tests here."""

import io
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from chargen.kernels import cpu_features
from tests.systems import ON_LINUX
from tests.yardstick import HANG

AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
PLAIN = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+sse2"}
MODULES = "test_activations", "test_bf16", "test_decode_matmul", "test_products", "test_simd"


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="instructions of x86 are masked")
@pytest.mark.parametrize("features", [AVX2, PLAIN], ids=["avx2", "plain"])
def test_kernels_pass_their_tests_on_an_older_processor(features: dict[str, str], tmp_path: Path) -> None:
    files = [str(Path(__file__).with_name(f"{name}.py")) for name in MODULES]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, **features, "CHARGEN_CACHE": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="instructions of x86 are masked")
def test_a_process_that_is_held_to_older_processors_multiplies_no_bf16() -> None:
    code = """
import torch
from chargen.kernels import cpu_features, fast_bf16
from chargen.model.device import pick_precision
assert not cpu_features.amx()
assert not cpu_features.bf16_pairs()
assert not fast_bf16()
assert pick_precision("auto", torch.device("cpu")) == "fp32"
"""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **AVX2}, check=True, timeout=HANG)


@ON_LINUX
@pytest.mark.parametrize(("features", "expected"), [(None, True), ("+avx2,+amx-bf16", True), ("+avx2,+fma", False)])
def test_tiles_are_used_where_the_processor_has_them_unless_machine_code_is_held(
    features: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor that says it has them, whose kernel gives leave."""
    monkeypatch.delenv("NUMBA_CPU_FEATURES", raising=False)
    if features is not None:
        monkeypatch.setenv("NUMBA_CPU_FEATURES", features)
    flags = f"flags\t: {' '.join(cpu_features.AMX_FLAGS)}\n"
    monkeypatch.setattr(cpu_features, "open", lambda path: io.StringIO(flags), raising=False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(syscall=lambda *words: 0))
    assert cpu_features.amx.__wrapped__() is expected
