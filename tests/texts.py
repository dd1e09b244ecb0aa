"""Texts to learn from, and the parts that a corpus makes of them."""

import random

from chargen.data.corpus import Corpus


def story(seed: int, lines: int = 300) -> str:
    """Some text that repeats nothing of any length."""
    chance = random.Random(seed)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(1, 9))) for _ in range(2000)]
    return "".join(" ".join(chance.choices(words, k=9)).capitalize() + ".\n" for _ in range(lines))


def names(seed: int, count: int = 1520) -> list[str]:
    chance = random.Random(seed)
    distinct: set[str] = set()
    while len(distinct) < count:
        name = chance.choice("ABCDEFGHIJKLMNOPQRSTUVWYZ") + "".join(
            chance.choices("aeioulnrst", k=chance.randint(2, 8))
        )
        distinct.add(name if chance.random() < 0.9 else f"de {name}")
    return sorted(distinct, key=str.casefold)


def parts(corpus: Corpus) -> tuple[str, str, str]:
    train, valid, test = (corpus.vocabulary.decode(part) for part in (corpus.train, corpus.valid, corpus.test))
    return train, valid, test
