"""Fixtures that run a test once for every registered family or published task."""

from __future__ import annotations

import gc
import os

# before anything imports PyTorch: its threads wait by spinning, so that on a busy machine two of them
# make the small matrices of these tests ten times slower, not faster
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing import register_profiles
from helpers import why_nothing_draws

import harness.plan
import mtenvs
from benchmarks.faults import planned
from harness.run import run_plan

register_profiles()
LONGEST = ("warp", "run", "faults", "ray", "gpu_check", "readme", "resume", "device_ppo")
"""Files whose tests take a minute or more together."""
FAMILIES = [mtenvs.get_family(name) for name in mtenvs.families()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, so that no process is left with one when the others are done."""
    first = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path.stem, len(first)))


@pytest.fixture(scope="module", autouse=True)
def what_a_file_leaves_is_freed() -> Iterator[None]:
    """Frees agents and worlds that only refer to each other.

    They are few objects, so Python seldom looks for them, but each reserves much memory: a process that
    has reserved more than the machine has cannot be forked any more, be it to call a program. What there
    was before, modules and tests by the hundred thousand objects, is not looked through each time.
    """
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> mtenvs.Family:
    return request.param


@pytest.fixture(
    params=[task for family in FAMILIES for task in family.tasks],
    ids=lambda task: f"{task.family}-{task.number}-{task.name}",
)
def task(request: pytest.FixtureRequest) -> mtenvs.Task:
    return request.param


@pytest.fixture(scope="session", autouse=True)
def every_task_has_a_score() -> Iterator[None]:
    """Gives a made-up reference score to tasks that are too new to have one: plans need one of each.

    That a task has a true one is a test of its own, in test_reference.py.
    """

    def load(family: str, version: int) -> dict[str, Any]:
        try:
            record = true(family, version)
        except FileNotFoundError:
            record = {"version": 0, "scores": {}}
        made_up = {"random": 1.0, "zero": 1.0, "reference": 400.0}
        names = [task.name for task in mtenvs.tasks(family)]
        return {**record, "scores": {**dict.fromkeys(names, made_up), **record["scores"]}}

    true = harness.plan.load_reference
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.plan, "load_reference", load)
        yield


@pytest.fixture(scope="session")
def gl() -> None:
    """What tests that draw need: ``helpers.needs_gl``."""
    if reason := why_nothing_draws():
        pytest.skip(reason)


@pytest.fixture
def env_id(task: mtenvs.Task) -> str:
    return mtenvs.get_family(task.family).id


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small plan that nothing happened to; nothing may be changed in it."""
    directory = planned(tmp_path_factory.mktemp("whole") / "plan")
    run_plan(directory)
    assert not (directory / "resume").exists()
    assert not (directory / "locks").exists()
    return directory
