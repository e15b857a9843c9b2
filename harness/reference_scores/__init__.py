"""Reference scores: the versioned constants of ``g = (J - R_random) / (R_reference - R_random)``.

One JSON file per family version, made by ``mtenvs reference`` (:mod:`harness.reference`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent


def reference_path(family: str, version: int) -> Path:
    """Where a family version's reference scores are kept."""
    return DIRECTORY / f"{family}-v{version}.json"


def load_record(family: str, version: int) -> dict[str, Any]:
    """Reads all that ``mtenvs reference`` has written of a family version.

    Raises:
        FileNotFoundError: if the family version has none.
    """
    path = reference_path(family, version)
    if not path.is_file():
        raise FileNotFoundError(
            f"no reference scores for {family}-v{version}: make them with 'mtenvs reference {family}'"
        )
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def load_reference(family: str, version: int) -> dict[str, Any]:
    """Reads what a plan copies in: ``{"version": ..., "scores": {task: {"random", "zero", "reference"}}}``.

    Raises:
        FileNotFoundError: if the family version has none.
    """
    record = load_record(family, version)
    scores = {
        name: {kind: task[kind]["mean"] for kind in ("random", "zero", "reference")}
        for name, task in record["tasks"].items()
    }
    return {"version": record["version"], "scores": scores}
