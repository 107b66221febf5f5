"""`TrialFolder`: what one trial leaves on disk; `result.json` appears last, so a folder without it never counted.

Does not know how anything was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.config import EngineConfig, dump_engine_config
from optimizer.atomic_file import write_bytes, write_text
from optimizer.results import TrialResult
from workloads.records import RequestRecord, write_records


class TrialFolder:
    """`<study>/trials/NNNN/`, made on first use."""

    def __init__(self, study_dir: Path, number: int) -> None:
        self.path = study_dir / "trials" / f"{number:04d}"
        self.relative = f"trials/{number:04d}"

    @property
    def log_path(self) -> Path:
        return self.path / "engine.log"

    def begin(self, config: EngineConfig) -> None:
        """Write the config; whatever an interrupted run of the same number left is overwritten."""
        (self.path / "result.json").unlink(missing_ok=True)
        self.log_path.unlink(missing_ok=True)
        write_text(self.path / "config.yaml", dump_engine_config(config))

    def write_records(self, records: Sequence[RequestRecord]) -> None:
        write_records(self.path / "records.parquet", records)

    def write_steps(self, parquet: bytes | None) -> None:
        """The engine's step telemetry, warm-up included, where it has one."""
        if parquet is not None:
            write_bytes(self.path / "steps.parquet", parquet)

    def write_notes(self, notes: Sequence[str]) -> None:
        """What a reader of the numbers should know, a line each."""
        write_text(self.path / "notes.txt", "".join(f"{note}\n" for note in notes))

    def finish(self, result: TrialResult) -> None:
        write_text(self.path / "result.json", result.model_dump_json(indent=2))

    def result(self) -> TrialResult | None:
        """What `finish` wrote; None before it."""
        path = self.path / "result.json"
        return TrialResult.model_validate_json(path.read_text()) if path.exists() else None
