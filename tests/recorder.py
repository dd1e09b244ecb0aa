"""Everything chargen computes and says, as one JSON file: recorded before a change of the code and after it, compared.

    python -m tests.recorder record before.json      in one checkout
    python -m tests.recorder record after.json       in another, on the same machine
    python -m tests.recorder compare before.json after.json

Only public names are used and only clocks are left out, so that what moves inside the package moves nothing here.
Recordings of two machines differ: weights and texts are promised to the bit on one.
"""

import argparse
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from safetensors import safe_open

import chargen
from chargen import Corpus, ModelConfig, Sampler, TrainConfig, Trainer, evaluate, fill, read_model, score

GOLDEN = Path(__file__).parent / "golden" / "0.1.0"
CLOCKS = {"seconds", "seconds_left", "chars_per_second", "train_seconds", "since_seconds", "eval_seconds"}
CLOCKS |= {"metrics_bytes", "sha256"}  # they contain clocks
MASKED = [
    (re.compile(r"\d+(\.\d+)? ?(ms|s|seconds?|minutes?|hours?)\b"), "CLOCK"),
    (re.compile(r"[\d,.]+[kM]? ?(characters|bytes) a second"), "SPEED"),
    (re.compile(r"[\d,.]+[kM]? ?(characters|chars|bytes|steps)/s"), "SPEED"),
    (re.compile(r"[\d:]+ left"), "CLOCK"),
    (re.compile(r"\d{4}-\d{2}-\d{2}([ T][\d:+]+)?"), "DATE"),
    (re.compile(r'"(seconds|modified|date)": [^,}]+'), "CLOCK"),
    (re.compile(r"torch \d[\w.+]*"), "TORCH"),
]
WORDS = ("the", "a", "of", "and", "in", "she", "he", "it", "was", "had", "on", "with", "sea", "house", "light", "never")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "greedy": {"temperature": 0.0},
    "cool": {"temperature": 0.6},
    "top_k": {"top_k": 4},
    "top_p": {"top_p": 0.7},
    "min_p": {"min_p": 0.1},
    "ban": {"ban": "e "},
    "no_repeat": {"no_repeat": 3},
    "stop": {"stop": ("a", "o")},
    "all": {"temperature": 1.3, "top_k": 9, "top_p": 0.95, "min_p": 0.02, "ban": "p", "no_repeat": 5, "stop": ("an ",)},
}

COMMANDS = (
    """
train novel.txt SMALL --out both --bidirectional
train texts SMALL --out one --cell lstm --test-fraction 0.1 --newline lf --normalize NFC --preview 0
train novel.txt SMALL --out bytes --unit byte --valid other.txt --preview 30
train raw.bin SMALL --out raw --unit byte --encoding raw
train names.txt SMALL --out names --min-count 10 --batching random
train novel.txt --preset small --steps 12 --out preset --batch-size 4 --seq-length 8
train novel.txt --epochs 0.5 --hidden-size 8 --out sized
""",
    """
train --resume both --steps 60 --quiet
train --resume one
train other.txt SMALL --init-from one --out from --hidden-size 16
export both both8.safetensors --quantize int8
export one one16.safetensors --quantize bf16
""",
    """
--help
--version
nothing
trian novel.txt
train
train missing.txt
train other.txt --out both
train novel.txt --hidden-size 0
train novel.txt --steps 5 --lr x
train texts --valid nowhere
train --resume nowhere
sample both --seed 1
sample both --seed 1 --length 50 --num 3
sample both --seed 1 --reverse --prime house
sample one --seed 2 --prime the --format jsonl --length 9
sample one --seed 2 -t 0 --length 40 --quantize int8
sample one --seed 2 --top-k 3 --top-p 0.9 --min-p 0.01 --no-repeat 6 --ban x --stop house --length 60
sample one --seed 2 --prime-file other.txt --length 9 --no-echo --adapt 1
sample raw --seed 1 --length 20
sample bytes --seed 1 --length 20 --prime é
sample one --prime é
sample one --prime é --unknown skip --seed 1
sample one --reverse
sample nowhere
sample novel.txt
sample one --length -1
sample one --temperature -1
sample names --seed 1 --length 30 --separator + --num 2
sample one --seed 1 --device nothing
fill both --before the --after light --max-length 6 --num 3 --seed 1
fill both letter.txt --length 4 --seed 1
fill both letter.txt --length 4 --seed 1 --format jsonl --no-echo
fill one --before a --after b --length 2
fill both --before a
fill both
eval both other.txt
eval both other.txt --json --direction backward
eval both novel.txt --part valid --dynamic --json
eval one texts --part test
eval bytes other.txt --precision bf16
eval one missing.txt
eval names other.txt --json
eval both other.txt --dynamic --tune novel.txt
score both other.txt --threshold 0.001
score both --text housse --json
score one --text zé --by forward
score raw raw.bin --json
score one
check both
check one --json
info both
info one --json
info raw
info novel.txt
export one
info both8.safetensors
sample both8.safetensors --seed 5 --length 80
eval one16.safetensors other.txt
""",
)
"""Those that make runs, those that change them, those that only read them: two at a time."""


def prose(seed: int, words: int) -> str:
    """Lines of drawn words."""
    drawn = np.random.default_rng(seed).integers(0, len(WORDS), words)
    return "".join(WORDS[index] + (".\n" if at % 9 == 8 else " ") for at, index in enumerate(drawn))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def plain(value: Any) -> Any:
    """As JSON has it; floats to the bit."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), digest(np.ascontiguousarray(value).tobytes())]
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items() if name not in CLOCKS}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return value.hex() if isinstance(value, float) else value


def stored(path: Path) -> Any:
    """What a file of arrays holds, without clocks."""
    with safe_open(path, "np") as file:
        metadata = {name: plain(json.loads(text)) for name, text in (file.metadata() or {}).items() if text[:1] in "{["}
        return {"about": metadata, "arrays": {name: plain(file.get_tensor(name)) for name in sorted(file.keys())}}


def trained(folder: Path) -> Iterator[tuple[str, Any]]:
    """Fifty steps of every kind of model; then twenty, a break, and thirty more."""
    texts = {"character": prose(1, 2500) + "éè\n", "byte": "的一是了 " * 300 + prose(2, 1200)}
    shapes = itertools.product(("lstm", "gru"), (False, True), ("fp32", "bf16"), (False, True))
    more: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
        ("bytes", {}, {}, {"unit": "byte"}),
        ("folded", {}, {}, {"min_count": 5}),
        ("random", {}, {"batching": "random"}, {}),
        ("random both ways", {"bidirectional": True}, {"batching": "random"}, {}),
        ("one layer", {"num_layers": 1, "cell": "lstm"}, {"clip_norm": 0.0, "schedule": "constant"}, {}),
        ("few rows", {"num_layers": 3}, {"batch_size": 3, "seq_length": 17}, {}),
        ("input dropout", {"input_dropout": 0.2, "output_dropout": 0.1, "bidirectional": True}, {}, {}),
        ("no dropout", {"dropout": 0.0, "cell": "lstm", "bidirectional": True}, {}, {}),
    ]
    cases = [
        (f"{cell} {'both ways' if both else 'one way'} {precision}{' tied' if tied else ''}",
         {"cell": cell, "bidirectional": both, "tie_weights": tied, "embedding_size": None if tied else 12},
         {"precision": precision}, {})
        for cell, both, precision, tied in shapes
    ] + more  # fmt: skip
    for number, (name, shape, method, text) in enumerate(cases):
        corpus = Corpus.from_text(texts[text.get("unit", "character")], test_fraction=0.05, **text)
        model = ModelConfig(**{"hidden_size": 24, "dropout": 0.15, **shape})
        training = {"steps": 50, "batch_size": 16, "seq_length": 24, "eval_every": 20, "log_every": 7, "warmup": 5}
        out = folder / f"trained {number}"
        trainer = Trainer(corpus, model, TrainConfig(**{**training, **method}), out)
        events = [plain(progress) for progress in trainer.run()]
        yield (
            f"train {name}",
            {
                "events": digest(json.dumps(events).encode()),
                "model": digest((out / "model.safetensors").read_bytes()),
                "metrics": [plain(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()],
                "state": stored(out / "state.safetensors"),
            },
        )


def written(folder: Path) -> Iterator[tuple[str, Any]]:
    """Texts and states of every option; with few and with many streams, forward and backward."""
    for path in sorted(GOLDEN.glob("*.safetensors")):
        model = read_model(path)
        for (name, options), direction, num in itertools.product(OPTIONS.items(), model.config.directions, (1, 2, 17)):
            sampler = Sampler(model, seed=11, num=num, direction=direction, **options)
            sampler.feed("an old ")
            samples = [plain(sample) for sample in sampler.generate_all(40)]
            sampler.save_state(folder / "state")
            yield (
                f"sample {path.stem} {name} {direction} {num}",
                {
                    "samples": digest(json.dumps(samples).encode()),
                    "first": samples[0],
                    "state": stored(folder / "state"),
                },
            )
        sampler = Sampler(model, seed=3, ban="ea")
        yield f"sample {path.stem} streamed, banned", "".join(sampler.stream(60)) + "|" + sampler.generate(20)
        ids = model.vocabulary.encode("a lid on an old game")
        yield f"position {path.stem}", [plain(np.asarray(part)) for part in _fed(model, ids)]
        for by in ["forward"] + ["backward", "cloze"] * model.config.bidirectional:
            yield f"score {path.stem} {by}", plain(score(path, "a lid on an old game", by=by, threshold=0.2))
        for direction in model.config.directions:
            yield f"evaluate {path.stem} {direction}", plain(evaluate(path, "a lid, a game" * 90, unknown="replace" if
                model.vocabulary.folded else "skip", direction=direction))  # fmt: skip
        if not model.config.bidirectional:
            continue
        for length, options in ((3, {}), ((0, 6), {"num": 5}), (40, {"num": 3}), (5, {"no_repeat": 4, "min_p": 0.02})):
            bounds = {"length": length} if isinstance(length, int) else {"min_length": 0, "max_length": length[1]}
            for before, after in (("a lid ", " game"), ("", "end"), ("fed in ", "")):
                yield (
                    f"fill {path.stem} {length} {before}_{after}",
                    plain(fill(model, before, after, seed=4, **bounds, **options)),
                )


def _fed(model: Any, ids: Any) -> Any:
    sampler = Sampler(model, seed=0)
    sampler.feed_ids(ids)
    logits, state = sampler.hidden_and_logits()
    return [logits, state]


def commands(folder: Path) -> Iterator[tuple[str, Any]]:
    """Output and exit code of every command, with good arguments and with bad ones."""
    (folder / "novel.txt").write_text(prose(3, 4000))
    (folder / "other.txt").write_text(prose(4, 300))
    (folder / "letter.txt").write_text("it was ___ the house\nand ___{3} light\n")
    (folder / "raw.bin").write_bytes(bytes(range(256)) * 12)
    (folder / "names.txt").write_text(
        "".join(sorted(f"{a}{b}n{c}\n" for a in "ABCDEFGH" for b in "aeiou" for c in "aeiy"))
    )
    os.makedirs(folder / "texts")
    for index in range(3):
        (folder / "texts" / f"{index}.txt").write_text(prose(5 + index, 700).rstrip() + "\n" * (index % 2))
    small = "--hidden-size 16 --batch-size 8 --seq-length 16 --steps 40 --eval-every 20 --seed 1"
    helps = [f"{name} --help" for name in ("train", "sample", "fill", "eval", "score", "check", "info", "export")]
    first, changing, reading = (part.replace("SMALL", small).strip().splitlines() for part in COMMANDS)
    with ThreadPoolExecutor(2) as pool:
        for batch in (first, changing, helps + reading):
            for command, result in zip(batch, pool.map(lambda each: _run(each, folder), batch), strict=True):
                yield f"chargen {command}", result
    for path in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*/model.safetensors")):
        if "trained" not in str(path):
            yield f"file {path.relative_to(folder)}", digest(path.read_bytes())


def _run(command: str, folder: Path) -> Any:
    package = Path(chargen.__file__).parent.parent
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(package), "CHARGEN_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "chargen", *command.split()], cwd=folder, env=environment, capture_output=True,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    result = {"exit": done.returncode}
    for name, output in (("stdout", done.stdout), ("stderr", done.stderr)):
        text = (
            output.decode("utf-8", "backslashreplace").replace(str(folder), "FOLDER").replace(str(package), "PACKAGE")
        )
        for pattern, instead in MASKED:
            text = pattern.sub(instead, text)
        result[name] = "\n".join(line for line in text.splitlines() if "compil" not in line)
    return result


def record() -> dict[str, Any]:
    recording: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ.setdefault("NUMBA_CACHE_DIR", str(Path.home() / ".cache" / "chargen" / "kernels"))
        os.environ["CHARGEN_CACHE"] = str(folder / "cache")
        for part in (trained, written, commands):
            for key, value in part(folder):
                recording[key] = value
                if sys.stderr.isatty():
                    print(f"\r{len(recording):5} {key:.70}\033[K", end="", file=sys.stderr)
    return recording


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Where two recordings differ, a line each."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before | after:
            place = f"{where} > {name}" if where else name
            if name not in before or name not in after:
                yield f"{place}: only {'after' if name in after else 'before'}"
            else:
                yield from differences(before[name], after[name], place)
    elif before != after:
        yield f"{where}:\n  - {str(before)[:2000]}\n  + {str(after)[:2000]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("record").add_argument("file", type=Path)
    comparing = actions.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.action == "record":
        arguments.file.write_text(json.dumps(record(), indent=1, ensure_ascii=False))
        return 0
    before, after = (json.loads(path.read_text()) for path in (arguments.before, arguments.after))
    lines = list(differences(before, after))
    print("\n".join(lines) or f"{len(before)} records, all equal")
    return bool(lines)


if __name__ == "__main__":
    raise SystemExit(main())
