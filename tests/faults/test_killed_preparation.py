"""A process that is killed while it prepares a text leaves nothing that a later one trips over."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chargen.data import corpus_cache
from chargen.data.corpus import Corpus
from chargen.data.corpus_cache import KEYS, WORK_FOLDERS, list_entries, open_entry
from tests.texts import story

PREPARE = """
import sys
from chargen.data import source_index, text_files
from chargen.data.corpus import Corpus
source_index.MIN_AGE, text_files.BLOCK_SIZE = 0, 2_000
records, *sources = sys.argv[1:]
print("ready", flush=True)
print(Corpus.from_files(sources, records=records or None).key, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows kills in another way")
@pytest.mark.parametrize("records", ["", "line"])
@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_nothing_half_made(
    records: str, kills: int, tmp_path: Path, own_cache: Path
) -> None:
    texts, chance = [tmp_path / f"{number}.txt" for number in range(3)], random.Random(kills)
    for number, text in enumerate(texts):
        text.write_text(story(number, 1_000))
    command = [sys.executable, "-c", PREPARE, records, *map(str, texts)]

    def prepare(seconds: float) -> tuple[str | None, float]:
        """The key of the text, unless the process is killed after so many seconds; and how many it took."""
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            begun = time.monotonic()
            while process.poll() is None:
                if time.monotonic() - begun > seconds:
                    process.kill()
                time.sleep(0.001)
            return process.stdout.read().strip() or None, time.monotonic() - begun

    key, whole = prepare(60)
    killed = 0
    for _ in range(kills):
        corpus_cache.remove_entries(own_cache, list_entries(own_cache))
        killed += prepare(chance.uniform(0, whole))[0] is None
        for entry in own_cache.glob(KEYS):
            assert open_entry(entry, verify=True) is not None, "what has a key is whole"
    assert killed
    corpus_cache.remove_entries(own_cache, list_entries(own_cache))
    for abandoned in own_cache.glob(WORK_FOLDERS):
        os.utime(abandoned, (0, 0))
    corpus = Corpus.from_files(texts, records=records or None)
    assert corpus.key == key
    assert not list(own_cache.glob(WORK_FOLDERS))
    assert len(corpus.train) + len(corpus.valid) >= sum(len(text.read_text()) for text in texts)
