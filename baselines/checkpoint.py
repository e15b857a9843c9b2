"""Checkpoints: tensors in safetensors, facts in JSON. Loading a stranger's file runs no code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from mtenvs.spec import NotFiniteError

FORMAT = 1
TENSORS, FACTS = "tensors.safetensors", "learner.json"
LESSONS = "lessons.json"
OPTIMIZER = "optimizer."
"""Begins the names of tensors that are an optimiser's state."""
STRIPPED = "stripped"
"""Of the facts: what was left out of a checkpoint when it was copied; not in those that are whole."""
SEAL = "sha256"
"""Of the facts: a hash of all the others and of the tensors; not in checkpoints of before there was one."""


class DamagedError(ValueError):
    """A checkpoint is not what was written; the message names it and says what is wrong."""


def save_checkpoint(directory: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes a checkpoint; the facts come last and atomically, so that a torn one is never taken for whole.

    Args:
        directory: made if it is missing.
        tensors: by name.
        facts: JSON types; what a loader must find equal or wants to know.
    """
    directory.mkdir(parents=True, exist_ok=True)
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    # not by its save_file, which says of a full disk only in words that it is one
    content = safetensors.torch.save(whole)
    _write(directory / TENSORS, content)
    _write(directory / FACTS, _text(sealed({"format": FORMAT, **facts}, content)))


def _text(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all, also if the machine loses its power."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def sealed(facts: Mapping[str, Any], tensors: bytes) -> dict[str, Any]:
    """Facts with a hash of them and of the file of tensors, by which a flipped bit is noticed.

    It is no signature: who makes a checkpoint makes its seal.

    Args:
        facts: JSON types; a seal that they have already does not count.
        tensors: content of the file.
    """
    plain = json.loads(json.dumps({key: value for key, value in facts.items() if key != SEAL}))
    text = json.dumps(plain, sort_keys=True) + hashlib.sha256(tensors).hexdigest()
    return {**plain, SEAL: hashlib.sha256(text.encode()).hexdigest()}


@dataclasses.dataclass(frozen=True)
class Lessons:
    """What a checkpoint's network was taught, for those who play it: its learner does not know."""

    tasks: tuple[str, ...] = ()
    """Names of the tasks that it was trained on; empty if unknown."""
    code: tuple[float, ...] | None = None
    """What it was told of all of them in place of their own codes; ``None`` for their own."""

    def write(self, directory: Path) -> None:
        """Writes them beside a checkpoint."""
        _write(directory / LESSONS, _text({"format": FORMAT, **dataclasses.asdict(self)}))


def read_lessons(directory: Path) -> Lessons:
    """Reads what a checkpoint's network was taught; nothing is known where that was not written.

    Raises:
        ValueError: if the file cannot be read.
    """
    path = directory / LESSONS
    if not path.is_file():
        return Lessons()
    try:
        found = json.loads(path.read_bytes())
        tasks, code = tuple(found["tasks"]), found["code"]
        if unnamed := [task for task in tasks if not isinstance(task, str)]:
            raise ValueError(f"task {unnamed[0]!r} is no name")
        return Lessons(tasks, None if code is None else tuple(map(float, code)))
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise DamagedError(
            f"checkpoint {directory} is damaged: {LESSONS}: {type(error).__name__}: {error}"
        ) from None


_PLACE = "tensor:"
"""Begins the name that stands in the facts where a tensor was."""


def save_state(directory: Path, state: Any, facts: Mapping[str, Any]) -> None:
    """Writes all that a training's future depends on, as whole as :func:`save_checkpoint`.

    Args:
        directory: made if it is missing.
        state: dictionaries and lists, however deep, of tensors, arrays and JSON types.
        facts: JSON types.
    """
    tensors: dict[str, Tensor] = {}

    def apart(value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            return {key: apart(own, f"{path}.{key}") for key, own in value.items()}
        if isinstance(value, (list, tuple)):
            return [apart(own, f"{path}.{i}") for i, own in enumerate(value)]
        if isinstance(value, (Tensor, np.ndarray)):
            tensors[path] = torch.as_tensor(value)
            return _PLACE + path
        return value

    told = apart(state, "state")
    save_checkpoint(directory, tensors, {**facts, "state": told})


def load_state(directory: Path) -> tuple[Any, dict[str, Any]]:
    """Reads what :func:`save_state` wrote: the state, with tensors for arrays, and the facts.

    Raises:
        FileNotFoundError: if there is none, or it is not whole.
        ValueError: if it cannot be read.
    """
    facts = read_facts(directory)
    tensors = _read_tensors(directory, facts)

    def together(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: together(own) for key, own in value.items()}
        if isinstance(value, list):
            return [together(own) for own in value]
        if isinstance(value, str) and value.startswith(_PLACE):
            if (name := value.removeprefix(_PLACE)) not in tensors:
                raise DamagedError(f"checkpoint {directory} is damaged: it lacks {name}")
            return tensors[name]
        return value

    return together(facts.pop("state", None)), facts


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
    except (RecursionError, ValueError) as error:  # no JSON, or no text, or nested too deep
        raise DamagedError(f"checkpoint {directory} is damaged: {FACTS}: {error}") from None
    if not isinstance(facts, dict):
        raise DamagedError(f"checkpoint {directory} is damaged: {FACTS} holds no object")
    return facts


def _read_tensors(directory: Path, facts: Mapping[str, Any]) -> dict[str, Tensor]:
    """Reads the tensors that belong to some facts.

    Raises:
        ValueError: if they cannot be read, or if they or the facts are not those that were sealed.
    """
    content = (directory / TENSORS).read_bytes()
    if SEAL in facts and facts[SEAL] != sealed(facts, content)[SEAL]:
        raise DamagedError(f"checkpoint {directory} is damaged: its {SEAL} is not that of its content")
    try:
        # not of the content: that would give them in another order, in which what is drawn for them depends
        return safetensors.torch.load_file(directory / TENSORS)
    except (KeyError, safetensors.SafetensorError) as error:
        raise DamagedError(f"checkpoint {directory} is damaged: {TENSORS}: {error}") from None


def copy_checkpoint(directory: Path, to: Path, moments: bool = True) -> None:
    """Copies a checkpoint with what its network was taught, on request without its optimiser's state.

    Args:
        directory: of the checkpoint.
        to: directory to write, made if it is missing.
        moments: whether the optimiser's state is copied too. Where it is not, the facts say so, and whoever
            needs it refuses the copy (:func:`check_moments`).

    Raises:
        FileNotFoundError: if there is no whole checkpoint.
        DamagedError: if it is not what was written.
    """
    facts = read_facts(directory)
    tensors, lessons = _read_tensors(directory, facts), read_lessons(directory)
    kept = {name: t for name, t in tensors.items() if moments or not name.startswith(OPTIMIZER)}
    said = {STRIPPED: "optimizer"} if len(kept) < len(tensors) else {}
    save_checkpoint(to, kept, {**facts, **said})
    if (directory / LESSONS).is_file():
        lessons.write(to)


def check_moments(directory: Path, facts: Mapping[str, Any]) -> None:
    """Refuses a checkpoint from which the optimiser's state is needed and was left out.

    Raises:
        ValueError: if so.
    """
    if STRIPPED in facts:
        raise ValueError(
            f"checkpoint {directory} was published without its optimiser's state, which keep_optimizer "
            "hands on: train its run anew, or leave keep_optimizer out"
        )


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
    tensors = _read_tensors(directory, facts)
    for name, value in {"format": FORMAT, **expected}.items():
        if facts.get(name) != value:
            raise ValueError(
                f"checkpoint {directory} has {name} = {facts.get(name)!r}, this learner needs {value!r}"
            )
    if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise NotFiniteError(f"checkpoint {directory} is damaged: not finite: {', '.join(bad)}")
    return tensors, facts
