"""Finds the families, registers their Gymnasium ids, and answers questions about tasks.

A family is one file in :mod:`mtenvs.families` that defines ``FAMILY``. Nothing is compiled here
until a model is asked for.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np

from mtenvs import families as families_package
from mtenvs.spec import (
    ALL_FAMILIES,
    Family,
    FamilySet,
    Fold,
    MissingPackageError,
    Task,
    did_you_mean,
    published_list,
)

TaskLike = int | str | Task | Mapping[str, Any]
"""A published number (as text too) or name, a :class:`Task`, or the dictionary form of one."""

ENTRY_POINTS: dict[str, Any] = {
    "entry_point": "mtenvs.env:TaskEnv",
    "vector_entry_point": "mtenvs.make:make_vector_env",
}
"""What makes the environments of every ``mt/*`` id."""


@functools.cache
def _families() -> dict[str, Family]:
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(families_package.__path__):
        path = f"{families_package.__name__}.{module.name}"
        family = getattr(importlib.import_module(path), "FAMILY", None)
        if not isinstance(family, Family):
            raise ImportError(f"{path} defines no FAMILY: every file there is one family")
        if family.name in found:
            raise ImportError(f"{path} defines a second family of the name {family.name!r}")
        found[family.name] = family
    return found


def families() -> tuple[str, ...]:
    """Names of all families, for example ``("Biped",)``."""
    return tuple(_families())


def get_family(family: str | Family) -> Family:
    """Returns a family by name.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(family, Family):
        return family
    known = _families()
    if not isinstance(family, str) or family not in known:
        raise _unknown_family(family, known)
    return known[family]


def _unknown_family(family: Any, valid: Iterable[str]) -> ValueError:
    valid = list(valid)
    return ValueError(f"unknown family {family!r}{did_you_mean(family, valid)}; valid: {', '.join(valid)}")


def get_families(families: str | Sequence[str] | Family | FamilySet) -> Family | FamilySet:
    """Returns a family by name, or a set of families by their names.

    Args:
        families: a name, ``"AllFamilies"`` for the set of all, or several names for a set of these.

    Raises:
        MissingPackageError: for the set of all, where a package that one of them needs is missing.
        ValueError: for an unknown name, a name twice, or none.
    """
    if isinstance(families, FamilySet):
        return families
    if isinstance(families, str) and families == ALL_FAMILIES:
        whole = everything()
        for family in whole.families:
            # not left out silently: the layout, and so the networks, would differ from machine to machine
            if family.source and importlib.util.find_spec(family.source) is None:
                names = [f.name for f in whole.families if f is not family]
                raise MissingPackageError(
                    f"{ALL_FAMILIES} has the family {family.name!r}, whose bodies come from "
                    f"{family.source}, which is not installed; install it, or name the families: "
                    f"family={names}"
                )
        return whole
    if isinstance(families, str) and families not in _families():
        raise _unknown_family(families, (*_families(), ALL_FAMILIES))
    if isinstance(families, (str, Family)):
        return get_family(families)
    if not isinstance(families, Iterable):
        raise _unknown_family(families, (*_families(), ALL_FAMILIES))
    chosen = tuple(get_family(family) for family in families)
    names = [family.name for family in chosen]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"a set of families needs different names, at least one; got {names}")
    return FamilySet("+".join(names), chosen)


def everything() -> FamilySet:
    """The set of all families, installed or not what some of their bodies come from."""
    return FamilySet(ALL_FAMILIES, tuple(_families().values()))


def check_id(made_as: str | None, families: Family | FamilySet) -> None:
    """Refuses to make under one id what has another, whose time limit, for one, is not the same.

    Args:
        made_as: the id that was asked for; ``None`` if nobody asked for one.
        families: what is to be made.

    Raises:
        ValueError: if the id of ``families`` is another.
    """
    if made_as is not None and made_as != families.id:
        raise ValueError(
            f"{made_as!r} cannot make {families.name!r}, whose id is {families.id!r}: use that id, or "
            "leave out family="
        )


def check_keywords(unknown: Iterable[str], function: Callable[..., Any], refused: str) -> None:
    """Refuses keywords that a function gathered because it does not know them.

    Args:
        unknown: the keywords.
        function: whose signature has the known ones.
        refused: one of these that is there only to be refused, with an advice of its own.

    Raises:
        TypeError: if there are any, naming the valid ones.
    """
    if unknown := list(unknown):
        # the time limit gymnasium.make takes itself, gymnasium.make_vec does not
        known = {**inspect.signature(function).parameters, "max_episode_steps": None}
        valid = [name for name in known if name not in ("self", "made_as", "unknown", refused)]
        # in Python's own words: TorchRL looks for them when it tries out what an environment takes
        raise TypeError(
            f"{function.__qualname__}() got an unexpected keyword argument {unknown[0]!r}"
            f"{did_you_mean(unknown[0], valid)}; valid: {', '.join(valid)}"
        )


def tasks(family: str) -> tuple[Task, ...]:
    """The published tasks of a family, by number; of ``"AllFamilies"``, those of every family in turn.

    Raises:
        ValueError: for an unknown family.
    """
    return everything().tasks if family == ALL_FAMILIES else get_families(family).tasks


def as_task(family: str | Family | FamilySet, task: TaskLike) -> Task:
    """Resolves whatever users may type for a task, and checks it.

    Args:
        family: name of the family, or the family, or a set of families.
        task: see :data:`TaskLike`; a number may be text, as on a command line. In a set, a number counts
            through the families in turn, and a name is ``"Biped/long-shins"`` or ``"Biped/3"``.

    Raises:
        TypeError: if ``task`` is of none of those kinds.
        ValueError: for an unknown number, name or parameter, a value outside its range, a task of
            another family, or a task that claims a published number or name but differs from it.
    """
    if isinstance(task, str) and task.isdecimal():
        task = int(task)
    if isinstance(family, FamilySet):
        return _as_task_of_set(family, task)
    family = get_family(family)
    published = family.tasks
    valid = f"valid tasks of {family.name!r}: {published_list(published)}"
    if isinstance(task, (int, np.integer)) and not isinstance(task, bool):
        if not 0 <= task < len(published):
            raise ValueError(f"unknown task number {int(task)}; {valid}")
        return published[int(task)]
    if isinstance(task, str):
        for candidate in published:
            if candidate.name == task:
                return candidate
        raise ValueError(f"unknown task {task!r}{did_you_mean(task, [t.name for t in published])}; {valid}")
    if isinstance(task, Mapping):
        keys = [field.name for field in dataclasses.fields(Task)]
        for key in task:
            if key not in keys:
                raise ValueError(
                    f"a task given as a dictionary has no {key!r}{did_you_mean(key, keys)}; "
                    f"valid: {', '.join(keys)}"
                )
        if not isinstance(task.get("parameters"), Mapping):
            raise ValueError(
                f"a task given as a dictionary needs 'parameters', a dictionary; got {dict(task)!r}"
            )
        task = Task(
            task.get("family", family.name),
            task.get("name", "custom"),
            dict(task["parameters"]),
            task.get("number"),
        )
    if not isinstance(task, Task):
        raise TypeError(
            f"a task is a number, a name, a Task or its dictionary, got {task!r} of type "
            f"{type(task).__name__}; {valid}"
        )
    if task.family != family.name:
        raise ValueError(f"task {task.name!r} belongs to family {task.family!r}, not to {family.name!r}")
    if not (isinstance(task.name, str) and task.name):
        raise ValueError(f"a task's 'name' must be a text, got {task.name!r}")
    task = Task(family.name, task.name, family.complete(task.parameters), task.number)
    if task.number is not None and as_task(family, task.number) != task:
        raise ValueError(
            f"task {task.name!r} claims the published number {task.number} but differs from it; "
            "set number=None for a task of your own"
        )
    for other in published:
        if other.name == task.name and other.parameters != task.parameters:
            raise ValueError(
                f"task {task.name!r} has the name of a published task of {family.name!r} but differs from "
                "it; give a task of your own another name"
            )
    return task


def _as_task_of_set(families: FamilySet, task: TaskLike) -> Task:
    # the set's own, which need not be the registered ones of these names
    own = {family.name: family for family in families.families}
    names = list(own)
    if isinstance(task, str):
        family, _, name = task.partition("/")
        if family not in names or not name:
            raise ValueError(
                f"a task of several families is written FAMILY/TASK, for example "
                f"'{names[0]}/{families.families[0].tasks[0].name}'; got {task!r}, the families are "
                f"{', '.join(names)}"
            )
        return as_task(own[family], name)
    if isinstance(task, (int, np.integer)) and not isinstance(task, bool):
        if not 0 <= task < len(families.tasks):
            raise ValueError(
                f"unknown task number {int(task)}; {families.name!r} has 0 to {len(families.tasks) - 1}, "
                f"through {', '.join(names)} in turn"
            )
        return families.tasks[int(task)]
    if isinstance(task, Mapping):
        if task.get("family") not in names:
            raise ValueError(
                f"a task of several families needs its 'family', one of {', '.join(names)}; "
                f"got {dict(task)!r}"
            )
        return as_task(own[task["family"]], task)
    if isinstance(task, Task):
        return as_task(families.of(task), task)
    raise TypeError(f"a task is a number, a name, a Task or its dictionary, got {task!r}")


def sample_task(family: str, seed: int) -> Task:
    """Draws a task uniformly in descriptor space; the same seed gives the same task.

    Args:
        family: name of the family.
        seed: any non-negative integer; 0 is a seed like the others.

    Raises:
        ValueError: for an unknown family or a negative seed.
    """
    definition = get_family(family)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed!r}")
    # keyed by the family's name too, so that equal seeds do not give equal draws across families
    rng = np.random.default_rng([zlib.crc32(definition.name.encode()), int(seed)])
    values = {p.name: p.draw(float(rng.random())) for p in definition.parameters}
    return Task(definition.name, f"sampled-{int(seed)}", values)


def leave_one_out(family: str) -> tuple[Fold, ...]:
    """All turns of the leave-one-out rotation over the published tasks.

    Raises:
        ValueError: for an unknown family.
    """
    published = get_family(family).tasks
    return tuple(
        Fold(task.number, task, tuple(t for t in published if t != task))
        for task in published
        if task.number is not None
    )


def model(family: str | Family, task: TaskLike) -> mujoco.MjModel:
    """Compiles a task's body; every call returns a model of its own.

    Raises:
        ValueError: for an unknown family or task.
    """
    return _build(family, task).compile()


def mjcf(family: str | Family, task: TaskLike) -> str:
    """Returns a task's body as MJCF, which loads in any MuJoCo.

    Raises:
        ValueError: for an unknown family or task.
    """
    spec = _build(family, task)
    spec.compile()
    return spec.to_xml()


def _build(family: str | Family, task: TaskLike) -> mujoco.MjSpec:
    family = get_family(family)
    return family.build(as_task(family, task).parameters)


def register() -> None:
    """Registers every family's id with Gymnasium; idempotent."""
    for family in _families().values():
        if family.id not in gymnasium.registry:
            gymnasium.register(
                id=family.id,
                **ENTRY_POINTS,
                max_episode_steps=family.episode_steps,
                kwargs={"family": family.name, "made_as": family.id},
            )
    whole = everything()
    if whole.id not in gymnasium.registry:
        # episodes of unlike lengths: the environment counts them itself
        kwargs = {"family": whole.name, "made_as": whole.id}
        gymnasium.register(id=whole.id, **ENTRY_POINTS, kwargs=kwargs)


def ids() -> tuple[str, ...]:
    """All registered ids whose environments are ours, for example ``("mt/Biped-v0",)``."""
    ours = ENTRY_POINTS["vector_entry_point"]
    return tuple(name for name, spec in gymnasium.registry.items() if spec.vector_entry_point == ours)
