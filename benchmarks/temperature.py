"""Figures behind the default of `chargen sample`: how many words are known, how much is new, how much repeats.

python -m benchmarks.temperature MODEL TEXT [MODEL TEXT …]
"""

import re
import sys
from itertools import product

from chargen import Sampler
from chargen.data.reading import read_text
from chargen.data.sources import find_sources
from chargen.decoding.choose import SampleConfig

CHOICES = [*product((1.0, 0.9, 0.8, 0.7, 0.6, 0.5), (0.0,)), *product((1.0, 0.9, 0.8, 0.7), (0.05,)), (1.0, 0.1)]
NUM, LENGTH, RUN = 32, 2_000, 20
"""Samples of each choice, their characters, and characters in a row that count as new or copied."""


def figures(texts: list[str], words: set[str], runs: set[str]) -> str:
    """The share of words that the training part has, of runs that it has not, and different words in a thousand."""
    words_by_text = [re.findall(r"\w+", text)[1:-1] for text in texts]
    written = [word for text in words_by_text for word in text]
    known = sum(word in words for word in written) / len(written)
    new = [text[start : start + RUN] not in runs for text in texts for start in range(len(text) - RUN + 1)]
    different = sum(len(set(text)) for text in words_by_text) / sum(map(len, words_by_text))
    return f"{known:.1%} | {sum(new) / len(new):.1%} | {1000 * different:.0f}"


for path, name in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    text = "".join(read_text(find_sources([name])[0]))
    train, held_out = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    known_words = set(re.findall(r"\w+", train))
    known_runs = {train[start : start + RUN] for start in range(len(train) - RUN + 1)}
    stride = max(1, (len(held_out) - LENGTH) // NUM)
    excerpts = [held_out[start : start + LENGTH] for start in range(0, len(held_out) - LENGTH, stride)]
    print(f"| {name}, held out | {figures(excerpts, known_words, known_runs)} |")
    for temperature, min_p in CHOICES:
        sampler = Sampler.from_file(path, config=SampleConfig(temperature=temperature, min_p=min_p), num=NUM, seed=1)
        sampler.feed("\n")
        samples = [sample.text for sample in sampler.generate_all(LENGTH)]
        print(f"| {temperature:g}, min-p {min_p:g} | {figures(samples, known_words, known_runs)} |", flush=True)
