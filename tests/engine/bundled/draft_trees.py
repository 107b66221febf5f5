"""Trees of any shape, as the parents of their tokens."""

from hypothesis import strategies as st

TREES = st.lists(st.floats(0, 1), min_size=1, max_size=20).map(
    lambda shares: tuple(int(share * (place + 1)) - 1 if share < 1 else place - 1 for place, share in enumerate(shares))
)
