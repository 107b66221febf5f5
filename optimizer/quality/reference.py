"""`Reference`: what the reference config itself answers, token by token, and its form on disk.

Does not know candidates. The texts are not kept, only token ids and scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optimizer.atomic_file import replacing
from optimizer.quality.divergence import TopLogprobs

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ReferenceAnswer:
    """One request's greedy answer by the reference."""

    request_id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    score: float | None  # of the request's checks; None without checks
    top: TopLogprobs | None  # at each position of the response; None where only the score is compared
    adapter: str | None = None  # the LoRA adapter that answered, where it was not the base model


@dataclass(frozen=True, kw_only=True)
class Reference:
    """In the order in which requests are used: the first ones are everybody's first look."""

    answers: tuple[ReferenceAnswer, ...]
    num_refused: int = 0  # requests the reference engine would not answer; they are in no comparison

    @property
    def is_scored(self) -> bool:
        """Whether the engine told how likely it finds tokens; some servers do not."""
        return any(answer.top is not None for answer in self.answers)

    @property
    def compares_checks(self) -> bool:
        """Whether checks can be compared: there are some, and the reference does not fail them all."""
        return sum(answer.score or 0.0 for answer in self.answers) > 0


def save_reference(path: Path, reference: Reference) -> None:
    """As one .npz file that appears whole or not at all."""
    with replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **_columns(reference))


def _columns(reference: Reference) -> dict[str, npt.NDArray[Any]]:
    answers = reference.answers
    tops = [answer.top for answer in answers]
    width = max((top.token_ids.shape[1] for top in tops if top is not None), default=1)
    return {
        "num_refused": np.array(reference.num_refused),
        "request_ids": np.array([answer.request_id for answer in answers], dtype=np.str_),
        "adapters": np.array([answer.adapter or "" for answer in answers], dtype=np.str_),
        "scores": np.array([np.nan if answer.score is None else answer.score for answer in answers], np.float64),
        **_ragged("prompt", [answer.prompt_ids for answer in answers]),
        **_ragged("response", [answer.response_ids for answer in answers]),
        "has_top": np.array([top is not None for top in tops], dtype=np.bool_),
        "top_ids": _stacked([top.token_ids for top in tops if top is not None], width, -1),
        "top_logprobs": _stacked([top.logprobs for top in tops if top is not None], width, -np.inf),
    }


def _ragged(name: str, rows: Sequence[Sequence[int]]) -> dict[str, npt.NDArray[Any]]:
    flat = np.array([token for row in rows for token in row], dtype=np.int32)
    return {f"{name}_ids": flat, f"{name}_ends": np.cumsum([len(row) for row in rows], dtype=np.int64)}


def _stacked(arrays: Sequence[npt.NDArray[Any]], width: int, filler: float) -> npt.NDArray[Any]:
    """All rows end to end, padded on the right to one width."""
    padded = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=filler) for a in arrays]
    return np.concatenate(padded) if padded else np.empty((0, width))


def load_reference(path: Path) -> Reference | None:
    """What `save_reference` wrote; None when there is no such file."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        columns = {name: file[name] for name in file.files}
    prompts, responses = (np.split(columns[f"{n}_ids"], columns[f"{n}_ends"][:-1]) for n in ("prompt", "response"))
    tops = _split_tops(columns, [len(response) for response in responses])
    adapters = columns.get("adapters", np.full(len(tops), ""))  # older files know none
    answers = tuple(
        ReferenceAnswer(
            request_id=str(request_id),
            prompt_ids=tuple(prompt.tolist()),
            response_ids=tuple(response.tolist()),
            score=None if np.isnan(score) else float(score),
            top=top,
            adapter=str(adapter) or None,
        )
        for request_id, adapter, prompt, response, score, top in zip(
            columns["request_ids"], adapters, prompts, responses, columns["scores"], tops, strict=True
        )
    )
    return Reference(answers=answers, num_refused=int(columns["num_refused"]))


def _split_tops(columns: dict[str, npt.NDArray[Any]], lengths: Sequence[int]) -> list[TopLogprobs | None]:
    tops: list[TopLogprobs | None] = []
    start = 0
    for has_top, length in zip(columns["has_top"], lengths, strict=True):
        end = start + length * bool(has_top)
        ids, logprobs = columns["top_ids"][start:end], columns["top_logprobs"][start:end]
        tops.append(TopLogprobs(token_ids=ids, logprobs=logprobs) if has_top else None)
        start = end
    return tops
