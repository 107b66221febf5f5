"""Suffix decoding's continuations against the same vote taken token by token."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.bundled.speculation.suffix import TokenHistory

END = -1
TOKENS = st.lists(st.integers(-1, 3), min_size=3, max_size=40)


def voted(tokens: list[int], places: list[int], count: int, min_probability: float) -> tuple[list[int], float]:
    path: list[int] = []
    score, probability = 0.0, 1.0
    while len(path) < count:
        following = [tokens[p] if p < len(tokens) else path[p - len(tokens)] for p in places]
        token, votes = Counter(following).most_common(1)[0]
        probability *= votes / len(places)
        if token == END or probability < min_probability:
            break
        path.append(token)
        score += probability
        places = [p + 1 for p, other in zip(places, following, strict=True) if other == token]
    return path, score


@given(TOKENS, st.data(), st.integers(1, 20), st.sampled_from([0.1, 0.5, 0.9]))
def test_a_continuation_is_what_most_places_say_token_by_token(
    tokens: list[int], data: st.DataObject, count: int, min_probability: float
) -> None:
    places = data.draw(st.lists(st.integers(1, len(tokens) - 1), min_size=1, max_size=5, unique=True))
    found = TokenHistory(tokens).continuation(places, count, min_probability)
    path, score = voted(tokens, places, count, min_probability)
    assert found.token_ids == path
    assert abs(found.score - score) < 1e-9
