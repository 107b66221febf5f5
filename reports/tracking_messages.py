"""What the tracker tells its writer process: three messages of plain scalars, one JSON line each.

Does not know MLflow, and holds no prompt or response text: only names, numbers and paths of files.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StartStudy(_Message):
    """Find or create the parent run of a study."""

    kind: Literal["start"] = "start"
    experiment: str
    study: str
    params: dict[str, str]
    tags: dict[str, str]


class LogTrial(_Message):
    """Write one child run; `digest` names the result's content, so that the same result is written once."""

    kind: Literal["trial"] = "trial"
    number: int
    digest: str
    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    files: tuple[str, ...]
    started_ms: int
    ended_ms: int
    succeeded: bool


class FinishStudy(_Message):
    """Write what the study found to its parent run and close it."""

    kind: Literal["finish"] = "finish"
    metrics: dict[str, float]
    tags: dict[str, str]
    files: tuple[str, ...]
    succeeded: bool


class Answer(_Message):
    """The writer's reply to every message, and to being started; `error` is empty when all went well."""

    error: str = ""


Message = Annotated[StartStudy | LogTrial | FinishStudy, Field(discriminator="kind")]
MESSAGES: TypeAdapter[StartStudy | LogTrial | FinishStudy] = TypeAdapter(Message)
