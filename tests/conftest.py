"""Fixtures that run a test once for every registered family or published task."""

from __future__ import annotations

import os

# before anything imports PyTorch: its threads wait by spinning, so that on a busy machine two of them
# make the small matrices of these tests ten times slower, not faster
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

import mtenvs

FAMILIES = [mtenvs.get_family(name) for name in mtenvs.families()]


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> mtenvs.Family:
    return request.param


@pytest.fixture(
    params=[task for family in FAMILIES for task in family.tasks],
    ids=lambda task: f"{task.family}-{task.number}-{task.name}",
)
def task(request: pytest.FixtureRequest) -> mtenvs.Task:
    return request.param


@pytest.fixture
def env_id(task: mtenvs.Task) -> str:
    return mtenvs.get_family(task.family).id
