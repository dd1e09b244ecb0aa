"""What samplers are fed and how their texts are cut, for hypothesis to choose from."""

from hypothesis import strategies as st

from chargen.rng import MAX_SEED

primes = st.text("abcdefgh \n", max_size=8)
seeds = st.integers(0, MAX_SEED)
cuts = st.lists(st.integers(0, 9), min_size=1, max_size=5)
