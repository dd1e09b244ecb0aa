"""How fast chargen is beside the plain PyTorch loop and beside the machine's limits, in one run.

    python -m benchmarks --out speed.json

Everything is interleaved and repeated, and medians are given, because machines are noisy: trust the ratios. Baselines:
(a) the plain training loop, `nn.LSTM` or `nn.GRU` in fp32; (b) the same under bf16 autocast; (c) the machine's
limit, measured in the same run: for training the peak of bf16 matrix products, at 6 floating-point operations for each
weight and character; for sampling the speed at which the same bytes are read by as many threads.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.common import LETTERS, machine
from benchmarks.sampling import sampling, start
from benchmarks.training import directions, memory, profile, records, training

SHAPES = ((2, 128), (2, 512), (3, 1024))
PARTS = {
    "sampling": sampling,  # first: training changes how the process gets memory
    "start": start,
    "training": training,
    "memory": memory,
    "directions": directions,
    "records": records,
    "profile": profile,
}
AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+popcnt",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""What holds chargen's kernels, and torch with both of its libraries, to the instructions of most laptops."""


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--repeats", default=5, show_default=True)
@click.option("--shape", "shapes", multiple=True, help="Only these, as 2x512.")
@click.option("--vocabulary", default=LETTERS, show_default=True, help="How many different characters.")
@click.option("--avx2", is_flag=True, help="Hold chargen and torch to processors without AVX-512 and AMX.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures to this JSON file.")
def main(
    parts: tuple[str, ...], repeats: int, shapes: tuple[str, ...], vocabulary: int, avx2: bool, out: Path | None
) -> None:
    """Measure PARTS; all of them without any."""
    if avx2 and not AVX2.items() <= os.environ.items():  # libraries read these when they are loaded
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], {**os.environ, **AVX2})
    figures: dict[str, Any] = {"machine": machine()}
    click.echo(json.dumps(figures["machine"]))
    sizes = [tuple(map(int, shape.split("x"))) for shape in shapes] or SHAPES
    for name, part in PARTS.items():
        if not parts or name in parts:
            figures[name] = part(sizes, repeats, vocabulary)
            if out:
                out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
