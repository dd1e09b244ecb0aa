"""What the default of `chargen sample` follows from: how many words are words, how much is new, how much is said twice.

python -m benchmarks.temperature MODEL TEXT [MODEL TEXT …]
"""

import re
import sys
from itertools import product

from chargen import Sampler
from chargen.data.reading import find_sources, read_text
from chargen.decoding.choose import SampleConfig

CHOICES = [*product((1.0, 0.9, 0.8, 0.7, 0.6, 0.5), (0.0,)), *product((1.0, 0.9, 0.8, 0.7), (0.05,)), (1.0, 0.1)]
NUM, LENGTH, RUN = 32, 2_000, 20


def figures(texts: list[str], words: set[str], runs: set[str]) -> str:
    """The share of words that the training part has, of runs that it has not, and different words in a thousand."""
    found = [re.findall(r"\w+", text)[1:-1] for text in texts]
    written = [word for text in found for word in text]
    known = sum(word in words for word in written) / len(written)
    new = [text[at : at + RUN] not in runs for text in texts for at in range(len(text) - RUN + 1)]
    different = sum(len(set(text)) for text in found) / sum(map(len, found))
    return f"{known:.1%} | {sum(new) / len(new):.1%} | {1000 * different:.0f}"


for path, name in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    text = "".join(read_text(find_sources([name])[0]))
    train, held_out = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    known_words = set(re.findall(r"\w+", train))
    known_runs = {train[at : at + RUN] for at in range(len(train) - RUN + 1)}
    step = max(1, (len(held_out) - LENGTH) // NUM)
    own = [held_out[at : at + LENGTH] for at in range(0, len(held_out) - LENGTH, step)]
    print(f"| {name}, held out | {figures(own, known_words, known_runs)} |")
    for temperature, min_p in CHOICES:
        sampler = Sampler.from_file(path, config=SampleConfig(temperature=temperature, min_p=min_p), num=NUM, seed=1)
        sampler.feed("\n")
        samples = [sample.text for sample in sampler.generate_all(LENGTH)]
        print(f"| {temperature:g}, min-p {min_p:g} | {figures(samples, known_words, known_runs)} |", flush=True)
