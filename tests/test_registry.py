from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import mujoco
import mujoco_warp._src.types as warp_types
import numpy as np
import pytest
import warp
from helpers import differing_fields

import mtenvs
from mtenvs.backends.mujoco_batch import topology
from mtenvs.registry import TaskLike, as_task, get_families

PER_WORLD_EXEMPT = {
    # read by Warp's sleeping alone, which no family turns on (checked below)
    "dof_length",
}
FOR_THE_EYE = {"geom_rgba", "key_qpos"}  # colours, and poses for pictures
UNKNOWN_TO_WARP = {
    # inertia at qpos0, which the C compiler keeps for itself
    "dof_M0",
}


def test_families_are_found() -> None:
    assert {"Biped", "BipedSkills", "DMWalker", "Octopus"} <= set(mtenvs.families())


def test_ids_are_registered_once(family: mtenvs.Family) -> None:
    before = gym.registry[family.id]
    mtenvs.register()
    assert gym.registry[family.id] is before
    assert family.id == f"mt/{family.name}-v{family.version}"


def test_make_by_module_needs_no_import(tmp_path: Path) -> None:
    script = (
        "import gymnasium as gym\n"
        "env = gym.make('mtenvs:mt/Biped-v0', task=3)\n"
        "print(env.reset(seed=0)[1]['task'])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["3"]


# ---- the published list


def test_published_tasks_are_numbered_and_uniquely_named(family: mtenvs.Family) -> None:
    tasks = mtenvs.tasks(family.name)
    # a family that another package brought keeps to what that has, and a few of ours
    assert len(tasks) >= (6 if family.source else 8)
    assert [t.number for t in tasks] == list(range(len(tasks)))
    assert len({t.name for t in tasks}) == len(tasks)
    assert len({tuple(t.parameters.values()) for t in tasks}) == len(tasks)
    assert {t.family for t in tasks} == {family.name}


def test_published_tasks_lie_within_the_ranges(task: mtenvs.Task) -> None:
    for p in mtenvs.get_family(task.family).parameters:
        assert p.low <= task.parameters[p.name] <= p.high


def test_every_parameter_varies_in_the_published_tasks(family: mtenvs.Family) -> None:
    """In every fold, so that its training can tell what the parameter does."""
    for fold in mtenvs.leave_one_out(family.name):
        for p in family.parameters:
            values = {t.parameters[p.name] for t in fold.sources}
            assert len(values) >= 2, f"{p.name} without {fold.held_out.name}"
    if not family.source:
        for p in family.parameters:
            assert sum(t.parameters[p.name] != p.nominal for t in family.tasks) >= 3, p.name


def test_three_published_tasks_lie_beyond_the_box_of_the_others(family: mtenvs.Family) -> None:
    descriptors = np.array([family.descriptor(t) for t in family.tasks])
    beyond = []
    for i, own in enumerate(descriptors):
        others = np.delete(descriptors, i, axis=0)
        beyond.append(bool(((own < others.min(0)) | (own > others.max(0))).any()))
    assert sum(beyond) >= 3


# ---- resolving tasks


def test_a_task_resolves_from_every_form(task: mtenvs.Task) -> None:
    forms = [task.number, np.int64(task.number or 0), str(task.number), task.name, task, task.to_dict()]
    assert all(as_task(task.family, form) == task for form in forms)


def test_a_task_of_ones_own_has_no_number(family: mtenvs.Family) -> None:
    p = family.parameters[0]
    own = as_task(family, {"parameters": {p.name: p.low}})
    assert own.number is None
    assert own.parameters == family.complete({p.name: p.low})


def test_unknown_family_is_named_with_the_valid_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown family 'Bipde' \(did you mean 'Biped'\?\); valid: .*Biped"
    ):
        mtenvs.tasks("Bipde")
    with pytest.raises(ValueError, match=r"unknown family 'AllFamily' \(did you mean 'AllFamilies'\?\)"):
        get_families("AllFamily")
    with pytest.raises(ValueError, match=r"unknown family 'AllFamily' \(did you mean 'AllFamilies'\?\)"):
        mtenvs.tasks("AllFamily")
    for function in (mtenvs.leave_one_out, lambda name: mtenvs.model(name, 0)):
        with pytest.raises(ValueError, match=r"valid: ((?!AllFamilies).)*$"):
            function("AllFamilies")  # where one family is meant, the set is no choice


@pytest.mark.parametrize("number", [-1, 99])
def test_unknown_number_is_named_with_the_valid_ones(family: mtenvs.Family, number: int) -> None:
    valid = f"0 {family.tasks[0].name}, .*{family.tasks[-1].number} {family.tasks[-1].name}"
    with pytest.raises(
        ValueError, match=f"unknown task number {number}; valid tasks of '{family.name}': {valid}"
    ):
        as_task(family, number)


def test_unknown_name_is_named_with_the_valid_ones(family: mtenvs.Family) -> None:
    name = family.tasks[1].name
    with pytest.raises(
        ValueError, match=rf"unknown task '{name}x' \(did you mean '{name}'.*valid tasks of"
    ):
        as_task(family, f"{name}x")


@pytest.mark.parametrize("form", [3.0, True, None, [1]])
def test_what_is_no_task_is_a_type_error(family: mtenvs.Family, form: object) -> None:
    with pytest.raises(
        TypeError, match=r"a task is a number, a name, a Task or its dictionary, got .*valid tasks"
    ):
        as_task(family, form)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({}, "a task given as a dictionary needs 'parameters'"),
        ({"parameters": 3}, "a task given as a dictionary needs 'parameters', a dictionary; got .* 3}"),
        ({"parameters": {}, "colour": "red"}, "has no 'colour'; valid: family, name, parameters, number"),
        ({"parameter": {}}, r"has no 'parameter' \(did you mean 'parameters'\?\)"),
        ({"parameters": {}, "name": 3}, "a task's 'name' must be a text, got 3"),
        ({"parameters": {}, "name": ""}, "a task's 'name' must be a text, got ''"),
    ],
)
def test_a_dictionary_must_be_a_tasks(family: mtenvs.Family, form: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_task(family, form)


def test_a_task_of_another_family_is_refused(family: mtenvs.Family) -> None:
    with pytest.raises(ValueError, match=f"belongs to family 'Other', not to '{family.name}'"):
        as_task(family, mtenvs.Task("Other", "x", {}))


def test_a_false_claim_to_a_published_number_is_refused(family: mtenvs.Family) -> None:
    p = family.parameters[0]
    with pytest.raises(ValueError, match="claims the published number 0 but differs from it"):
        as_task(family, {"parameters": {p.name: p.high}, "number": 0})


def test_a_published_name_is_refused_for_another_task(family: mtenvs.Family) -> None:
    first, second = family.tasks[:2]
    with pytest.raises(ValueError, match=f"task '{first.name}' has the name of a published task of"):
        as_task(family, {"name": first.name, "parameters": second.parameters})
    again = as_task(family, {"name": first.name, "parameters": first.parameters})
    assert again.parameters == first.parameters


# ---- sampled tasks and folds


def test_sampled_tasks_are_determined_by_their_seed(family: mtenvs.Family) -> None:
    tasks = [mtenvs.sample_task(family.name, seed) for seed in range(200)]
    assert tasks == [mtenvs.sample_task(family.name, seed) for seed in range(200)]
    assert len({tuple(t.parameters.values()) for t in tasks}) == 200


def test_sampled_tasks_fill_the_ranges_and_are_never_published_ones(family: mtenvs.Family) -> None:
    tasks = [mtenvs.sample_task(family.name, seed) for seed in range(200)]
    published = [dict(t.parameters) for t in family.tasks]
    for t in tasks:
        assert t.number is None
        assert as_task(family, t) == t
        assert dict(t.parameters) not in published
    descriptors = np.array([family.descriptor(t) for t in tasks])
    assert (descriptors.min(0) < -0.9).all()
    assert (descriptors.max(0) > 0.9).all()


@pytest.mark.parametrize("seed", [-1, 0.5, True, None])
def test_sample_task_refuses_what_is_no_seed(family: mtenvs.Family, seed: object) -> None:
    with pytest.raises(ValueError, match=f"seed must be a non-negative integer, got {seed}"):
        mtenvs.sample_task(family.name, seed)  # type: ignore[arg-type]


def test_held_out_task_is_never_among_the_sources(family: mtenvs.Family) -> None:
    folds = mtenvs.leave_one_out(family.name)
    assert [f.number for f in folds] == list(range(len(family.tasks)))
    for fold in folds:
        assert fold.held_out == family.tasks[fold.number]
        assert len(fold.sources) == len(family.tasks) - 1
        assert dict(fold.held_out.parameters) not in [dict(t.parameters) for t in fold.sources]
        assert set(fold.sources) | {fold.held_out} == set(family.tasks)


# ---- models


def test_models_are_reproducible_and_ones_own(task: mtenvs.Task) -> None:
    a, b = (mtenvs.model(task.family, task) for _ in range(2))
    assert differing_fields([a, b]) == set()
    a.body_mass[:] *= 2.0
    assert differing_fields([b, mtenvs.model(task.family, task)]) == set()


def test_models_differ_only_in_fields_that_warp_varies_per_world(family: mtenvs.Family) -> None:
    """Within a topology, which is what one batch holds; all start around the same home."""
    tasks = [*family.tasks, *(mtenvs.sample_task(family.name, seed) for seed in range(32))]
    batches: dict[tuple[int, ...], list[mujoco.MjModel]] = {}
    for model in (mtenvs.model(family, t) for t in tasks):
        assert not model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_SLEEP
        batches.setdefault(topology(model), []).append(model)

    def per_world(annotations: dict, name: str) -> bool:
        declared = annotations[name]
        return isinstance(declared, warp.array) and declared.shape[0] == "*"

    known, options = warp_types.Model.__annotations__, warp_types.Option.__annotations__
    for models in batches.values():
        assert len({m.key("home").qpos.tobytes() for m in models}) == 1
        differing = differing_fields(models) - FOR_THE_EYE
        assert {f for f in differing if f not in known} <= UNKNOWN_TO_WARP
        shared = {f for f in differing if f in known and not per_world(known, f)}
        assert shared <= PER_WORLD_EXEMPT
        assert all(f in options and per_world(options, f) for f in differing_fields(models, "opt"))
    assert max(map(len, batches.values())) > 1


def test_the_comparison_of_models_sees_differences(family: mtenvs.Family) -> None:
    a, b = (mtenvs.model(family, 0) for _ in range(2))
    b.body_mass[-1] *= 1.001
    b.opt.density += 1.0
    assert (differing_fields([a, b]), differing_fields([a, b], "opt")) == ({"body_mass"}, {"density"})


def what_differs(family: mtenvs.Family, a: TaskLike, b: TaskLike) -> set[str]:
    """Fields of the compiled models and names of constants in which two tasks differ."""
    models = [mtenvs.model(family, t) for t in (a, b)]
    ours, theirs = (family.constants(as_task(family, t).parameters) for t in (a, b))
    assert set(ours) == set(theirs)
    # a bounding box is for the collision detector
    fields = differing_fields(models) - FOR_THE_EYE - {"geom_aabb", "geom_rbound"}
    return fields | differing_fields(models, "opt") | {name for name in ours if ours[name] != theirs[name]}


def test_every_parameter_reaches_the_model_or_the_constants(family: mtenvs.Family) -> None:
    for p in family.parameters:
        for value in {p.low, p.high} - {p.nominal}:
            assert what_differs(family, {"parameters": {}}, {"parameters": {p.name: value}}), (
                f"{p.name} = {value} reaches neither model nor constants"
            )


def test_two_tasks_are_never_the_same(family: mtenvs.Family) -> None:
    for a, b in itertools.combinations(family.tasks, 2):
        assert what_differs(family, a, b), f"{a.name} and {b.name}"


def test_mjcf_is_text_that_loads(task: mtenvs.Task) -> None:
    text = mtenvs.mjcf(task.family, task)
    assert text.startswith("<mujoco")
    assert mujoco.MjModel.from_xml_string(text).nq == mtenvs.model(task.family, task).nq


def test_models_have_home_camera_and_no_default_contacts(task: mtenvs.Task) -> None:
    model = mtenvs.model(task.family, task)
    assert model.key(0).name == "home"
    assert "side" in [model.camera(i).name for i in range(model.ncam)]
