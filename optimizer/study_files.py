"""What a study writes of its own: the question it answers, and each candidate it asked for.

Does not know results; those are `TrialFolder`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from optimizer.atomic_file import write_text
from optimizer.errors import OptimizerError
from search_spaces.parameter import Value


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Question(_File):
    """`study.json`: what was asked, and of what."""

    schema_version: Literal["study/1"] = "study/1"
    created_at: str  # ISO 8601
    objective: str
    slos: tuple[str, ...]
    space_name: str
    space_fingerprint: str
    base_fingerprint: str
    workload_fingerprint: str
    seed: int
    strategy: str

    def check_same(self, other: Question, directory: Path) -> None:
        """Raises OptimizerError when `other` cannot go on from here; the seed and the strategy may change."""
        wishes = {
            "objective": (self.objective, other.objective),
            "SLOs": ("; ".join(self.slos) or "none", "; ".join(other.slos) or "none"),
        }
        hidden = {
            "search space": self.space_fingerprint == other.space_fingerprint,
            "base config": self.base_fingerprint == other.base_fingerprint,
            "workload": self.workload_fingerprint == other.workload_fingerprint,
        }
        differing = [
            f"it has the {name} {mine}, not {theirs}" for name, (mine, theirs) in wishes.items() if mine != theirs
        ]
        differing += [f"it has another {name}" for name, same in hidden.items() if not same]
        if differing:
            what = " and ".join(differing)
            raise OptimizerError(
                f"the study in {directory} cannot be resumed: {what}. Ask the same again, or choose another --name"
            )


class Suggested(_File):
    """`suggestion.json` of one trial."""

    number: int
    assignment: dict[str, Value]
    origin: str

    def path(self, study_dir: Path) -> Path:
        return study_dir / "trials" / f"{self.number:04d}" / "suggestion.json"


def write_question(study_dir: Path, question: Question) -> None:
    write_text(study_dir / "study.json", question.model_dump_json(indent=2))


def read_question(study_dir: Path) -> Question | None:
    """None when the folder holds no study.

    Raises:
        OptimizerError: it is there and cannot be read.
    """
    path = study_dir / "study.json"
    if not path.exists():
        return None
    try:
        return Question.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        raise OptimizerError(f"{path} is not a study of this fopt. Choose another --name") from None


def suggested(study_dir: Path) -> list[Suggested]:
    """Every candidate asked for, by number."""
    paths = sorted(study_dir.glob("trials/*/suggestion.json"))
    return [Suggested.model_validate_json(path.read_text()) for path in paths]
