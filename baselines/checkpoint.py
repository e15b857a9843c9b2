"""Checkpoints: tensors in safetensors, facts in JSON. Loading a stranger's file runs no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from mtenvs.spec import NotFiniteError

FORMAT = 1
TENSORS, FACTS = "tensors.safetensors", "learner.json"


def save_checkpoint(directory: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes a checkpoint; the facts come last and atomically, so that a torn one is never taken for whole.

    Args:
        directory: made if it is missing.
        tensors: by name.
        facts: JSON types; what a loader must find equal or wants to know.
    """
    directory.mkdir(parents=True, exist_ok=True)
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    safetensors.torch.save_file(whole, directory / f"{TENSORS}.part")
    os.replace(directory / f"{TENSORS}.part", directory / TENSORS)
    part = directory / f"{FACTS}.part"
    part.write_text(json.dumps({"format": FORMAT, **facts}, indent=1, sort_keys=True) + "\n")
    os.replace(part, directory / FACTS)


def read_facts(directory: Path) -> dict[str, Any]:
    """Reads what a checkpoint says of itself, and none of its tensors.

    Raises:
        FileNotFoundError: if there is no whole checkpoint.
        ValueError: if the file cannot be read.
    """
    if not (directory / FACTS).is_file() or not (directory / TENSORS).is_file():
        raise FileNotFoundError(f"no checkpoint in {directory}: it needs {FACTS} and {TENSORS}")
    try:
        facts = json.loads((directory / FACTS).read_bytes())
    except ValueError as error:  # no JSON, or no text
        raise ValueError(f"checkpoint {directory} is damaged: {FACTS}: {error}") from None
    if not isinstance(facts, dict):
        raise ValueError(f"checkpoint {directory} is damaged: {FACTS} holds no object")
    return facts


def load_checkpoint(
    directory: Path, expected: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a checkpoint.

    Args:
        directory: that :func:`save_checkpoint` wrote.
        expected: facts that must be equal.

    Raises:
        FileNotFoundError: if there is no whole checkpoint.
        ValueError: if a fact differs, naming it with both values, or a file cannot be read.
        NotFiniteError: which is a ValueError, if a number in it is not finite.
    """
    facts = read_facts(directory)
    try:
        tensors = safetensors.torch.load_file(directory / TENSORS)
    except safetensors.SafetensorError as error:
        raise ValueError(f"checkpoint {directory} is damaged: {error}") from None
    for name, value in {"format": FORMAT, **expected}.items():
        if facts.get(name) != value:
            raise ValueError(
                f"checkpoint {directory} has {name} = {facts.get(name)!r}, this learner needs {value!r}"
            )
    if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise NotFiniteError(f"checkpoint {directory} is damaged: not finite: {', '.join(bad)}")
    return tensors, facts
