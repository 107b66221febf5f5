"""`best.yaml`: the file a serving layer starts from, with its evidence; read back with its artifacts checked.

Does not know how an engine is started from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from engine.config import ConfigError, EngineConfig, parse_engine_config
from optimizer.results import ArtifactReference, Deployment, Provenance, StudyResult, TrialResult
from reports.deployment_comment import deployment_comment
from reports.errors import ReportError
from reports.whole_file import write_whole
from search_spaces.unique_keys import in_one_line, load_yaml
from workloads.estimate import Estimate

BEST = "best.yaml"

_ADAPTER = "adapter "  # of a role, before the name
_MADE = "quantized weights"


def write_best(study: StudyResult, directory: Path) -> Path:
    """Write the recommended config, its evidence and how to serve it to `best.yaml`.

    Raises:
        ReportError: the study recommends nothing.
    """
    deployment = make_deployment(study)
    path = directory / BEST
    return write_whole(path, f"{deployment_comment(study, portable(path))}\n{_to_yaml(deployment)}")


def make_deployment(study: StudyResult) -> Deployment:
    """The recommended trial as a Deployment, its paths relative to the working directory when they lie below it.

    Raises:
        ReportError: the study recommends nothing.
    """
    if study.recommendation is None:
        raise ReportError(f"study {study.name} recommends nothing: no trial gave a measurement. See its report")
    trial = study.trial(study.recommendation.trial)
    return Deployment(
        config=portable_config(trial.config),
        artifacts=tuple(_artifacts(trial)),
        provenance=trial.provenance,
        study=study.name,
        trial=trial.number,
        objective=study.objective,
        slos=study.slos,
        workload_name=study.workload_name,
        workload_fingerprint=study.workload_fingerprint,
        workload_file=None if study.workload_file is None else portable(Path(study.workload_file)),
        evidence=evidence(study, trial),
        verified=study.verification is not None and study.verification.holds,
        created_at=study.created_at,
        created_by=f"fireoptimizer {_version()}",
    )


def evidence(study: StudyResult, trial: TrialResult) -> dict[str, Estimate]:
    """What speaks for a trial: its estimates, those of the verification where there was one, quality and cost."""
    found = dict(trial.estimates)
    checked = study.verification if trial.number == _recommended(study) else None
    for comparison in checked.comparisons if checked else ():
        found[comparison.metric] = comparison.recommended
        found[f"{comparison.metric}_times_better"] = comparison.improvement
    quality = (checked.quality if checked else None) or trial.quality
    if quality:
        found["quality"] = quality.quality
    if trial.cost:
        found["usd_per_million_tokens"] = trial.cost.usd_per_million_tokens
    return found


def read_deployment(path: Path, *, verify: bool = False) -> Deployment:
    """Read `best.yaml`, or a bare engine config, with paths that hold from the working directory.

    Args:
        verify: also compare every artifact with its recorded hash; what a store keeps is the store's to find and check.

    Raises:
        ReportError: not a deployment, an artifact that is gone, or one that changed.
    """
    values = _load(path)
    deployment = (
        _parse(values, path) if "schema_version" in values else bare_deployment(_parse_config(values, str(path)))
    )
    found = _resolved(deployment, path)
    if verify:
        for artifact in found.artifacts:
            if artifact.made_of is None:
                _check_hash(artifact, path)
    return found


def artifact_sha256(folder: Path) -> str | None:
    """sha256 of model.safetensors, or of the shards' names and hashes; None where the folder holds no weights."""
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        return None
    hashes = [_file_sha256(shard) for shard in shards]
    if len(hashes) == 1:
        return hashes[0]
    listing = "".join(f"{shard.name}:{digest}\n" for shard, digest in zip(shards, hashes, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()


def portable(path: Path) -> str:
    """`path` from the working directory when it lies below it, else absolute."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def portable_config(config: EngineConfig) -> EngineConfig:
    """The config with the paths that exist relative to the working directory where they lie below it."""
    folders = {role: portable(Path(f)) if Path(f).exists() else f for role, f in _folders(config).items()}
    return _with_folders(config, folders)


def _recommended(study: StudyResult) -> int | None:
    return study.recommendation.trial if study.recommendation else None


def _version() -> str:
    try:
        return metadata.version("fireoptimizer")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders(config: EngineConfig) -> dict[str, str]:
    """Role to path of everything the config reads; a name on a model hub counts too."""
    speculation = config.speculative_config
    draft = {"draft": speculation.model} if speculation and speculation.model else {}
    adapters = {f"{_ADAPTER}{name}": folder for name, folder in config.lora_modules.items()}
    return {"model": config.model, **draft, **adapters}


def _artifacts(trial: TrialResult) -> Iterator[ArtifactReference]:
    hashes = {role: artifact_sha256(Path(folder)) for role, folder in _folders(trial.config).items()}
    paths = _folders(portable_config(trial.config))
    yield from (ArtifactReference(role=role, path=paths[role], sha256=found) for role, found in hashes.items() if found)
    if made := trial.weights:
        folder = portable(Path(made.folder))
        yield ArtifactReference(role=_MADE, path=folder, sha256=made.content_sha256, made_of=made.made_of)


def _with_folders(config: EngineConfig, folders: dict[str, str]) -> EngineConfig:
    speculation = config.speculative_config
    if speculation and "draft" in folders:
        speculation = speculation.model_copy(update={"model": folders["draft"]})
    adapters = {name: folders.get(f"{_ADAPTER}{name}", folder) for name, folder in config.lora_modules.items()}
    fields = {"model": folders["model"], "speculative_config": speculation, "lora_modules": adapters}
    return config.model_copy(update=fields)


def _to_yaml(deployment: Deployment) -> str:
    values = deployment.model_dump(mode="json", exclude_none=True)
    values["evidence"] = {name: _rounded(estimate) for name, estimate in values["evidence"].items()}
    return yaml.safe_dump(values, sort_keys=False, width=120, allow_unicode=True)


def _rounded(estimate: dict[str, Any]) -> dict[str, Any]:
    """Five significant digits: more than anyone measured, less than noise."""
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in estimate.items()}


def _load(path: Path) -> dict[str, Any]:
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}. Give the path of a best.yaml") from None
    except UnicodeDecodeError:
        raise ReportError(f"{path} is not text. Give the best.yaml that `fopt run` wrote") from None
    except yaml.YAMLError as error:
        raise ReportError(f"{path} is not YAML: {in_one_line(error)}. Correct the file") from None
    if not isinstance(values, dict):
        what = "holds nothing but comments" if values is None else "is not a mapping of fields"
        raise ReportError(f"{path} {what}. Give the best.yaml that `fopt run` wrote, or an engine config")
    return values


def _parse(values: dict[str, Any], path: Path) -> Deployment:
    version = values["schema_version"]
    if version != "deployment/1":
        raise ReportError(f"{path}: schema_version {version} is not known here. Use the fopt that wrote the file")
    config = _parse_config(values.get("config"), f"{path}: config")
    try:
        return Deployment.model_validate({**values, "config": config})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ReportError(f"{path}: {field}: {first['msg'].lower()}. Restore the file `fopt run` wrote") from None


def bare_deployment(config: EngineConfig) -> Deployment:
    """Of a hand-written engine config: nothing is known of it but itself."""
    return Deployment(
        config=config,
        artifacts=(),
        provenance=Provenance.PREDICTED,
        study="",
        trial=0,
        objective="",
        slos=(),
        workload_name="",
        workload_fingerprint="",
        evidence={},
        verified=False,
        created_at="",
        created_by="by hand",
    )


def _parse_config(values: object, where: str) -> EngineConfig:
    try:
        return parse_engine_config(values, where=where)
    except ConfigError as error:
        raise ReportError(str(error)) from None


def _resolved(deployment: Deployment, path: Path) -> Deployment:
    """Paths that hold from here; relative ones are tried from the working directory, then up from the file's folder."""
    hashed = {artifact.role for artifact in deployment.artifacts}
    folders = {}
    for role, written in _folders(deployment.config).items():
        found = _find(written, path)
        if found is None and role in hashed:
            raise ReportError(f"{path}: the {role} folder {written} is gone. Restore it or correct its path")
        folders[role] = found or written
    artifacts = tuple(a.model_copy(update={"path": folders.get(a.role, a.path)}) for a in deployment.artifacts)
    workload = deployment.workload_file and (_find(deployment.workload_file, path) or deployment.workload_file)
    found_there = {"config": _with_folders(deployment.config, folders), "artifacts": artifacts}
    return deployment.model_copy(update={**found_there, "workload_file": workload})


def _find(written: str, path: Path) -> str | None:
    if Path(written).exists():
        return written
    found = next((base / written for base in path.absolute().parents if (base / written).exists()), None)
    return portable(found) if found else None


def _check_hash(artifact: ArtifactReference, path: Path) -> None:
    if artifact_sha256(Path(artifact.path)) != artifact.sha256:
        raise ReportError(
            f"{path}: the weights of the {artifact.role} in {artifact.path} are not the ones that were measured "
            "(sha256 differs). Restore them, or run the study again"
        )
