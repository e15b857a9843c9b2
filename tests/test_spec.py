from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from pathlib import Path

import numpy as np
import pytest

import mtenvs
from mtenvs.registry import as_task
from mtenvs.spec import Parameter, Task, did_you_mean, published_list


def test_version_is_that_of_the_package() -> None:
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    assert mtenvs.__version__ == tomllib.loads(pyproject.read_text())["project"]["version"]


def test_a_parameter_is_standardised_by_its_range() -> None:
    p = Parameter("mass", "kg", 2.0, 6.0, 3.0, "reason")
    assert [p.standardise(v) for v in (2.0, 4.0, 5.0, 6.0)] == [-1.0, 0.0, 0.5, 1.0]


def test_a_parameter_needs_its_nominal_value_inside_its_range() -> None:
    with pytest.raises(ValueError, match=r"'mass': nominal 7.0 lies outside \[2.0, 6.0\]"):
        Parameter("mass", "kg", 2.0, 6.0, 7.0, "reason")


def test_a_logarithmic_parameter_is_standardised_by_ratios() -> None:
    p = Parameter("density", "kg/m^3", 250.0, 4000.0, 1000.0, "reason", log=True)
    assert [p.standardise(v) for v in (250.0, 1000.0, 4000.0)] == pytest.approx([-1.0, 0.0, 1.0])
    assert p.restore(0.5) == pytest.approx(2000.0)
    assert p.draw(0.25) == pytest.approx(500.0)


def test_restore_is_the_inverse_and_never_leaves_the_range(family: mtenvs.Family) -> None:
    for p in family.parameters:
        # whole numbers come back whole, or complete() would refuse them
        values = range(int(p.low), int(p.high) + 1) if p.integer else np.linspace(p.low, p.high, 41)
        for value in values:
            again = p.restore(p.standardise(float(value)))
            assert again == value if p.integer else again == pytest.approx(value, rel=1e-12)
            assert p.low <= again <= p.high
            family.complete({p.name: again})
        assert (p.restore(-1.0), p.restore(1.0)) == pytest.approx((p.low, p.high))


def test_draws_fill_the_range(family: mtenvs.Family) -> None:
    almost = math.nextafter(1.0, 0.0)
    for p in family.parameters:
        assert p.draw(0.0) == pytest.approx(p.low)
        assert p.draw(almost) == pytest.approx(p.high)
        draws = [p.draw(u) for u in np.linspace(0.0, almost, 101)]
        assert draws == sorted(draws)
        for value in draws:
            family.complete({p.name: value})
        if not p.integer:  # uniform in what tells two tasks apart: by ratios where these matter
            assert p.standardise(p.draw(0.25)) == pytest.approx(-0.5)


def test_whole_numbers_are_equally_likely() -> None:
    p = Parameter("links", "1", 2, 9, 5, "reason", integer=True)
    drawn = [p.draw(u) for u in (np.arange(8000) + 0.5) / 8000]
    assert {n: drawn.count(n) for n in range(2, 10)} == dict.fromkeys(range(2, 10), 1000)
    assert [p.standardise(n) for n in (2, 9)] == [-1.0, 1.0]
    assert p.standardise(5) == pytest.approx(2 * 3 / 7 - 1)
    assert [p.draw(u) for u in (0.0, 0.124, 0.125, 0.999)] == [2, 2, 3, 9]
    assert [p.restore(s) for s in (-1.0, -0.9, -0.8, 0.0, 0.99, 1.0)] == [2, 2, 3, 6, 9, 9]  # the nearest


def test_a_sampled_task_has_whole_numbers_where_only_these_make_sense(family: mtenvs.Family) -> None:
    for p in family.parameters:
        if p.integer:
            drawn = {mtenvs.sample_task(family.name, seed).parameters[p.name] for seed in range(100)}
            assert drawn == set(range(int(p.low), int(p.high) + 1))


def test_complete_refuses_a_part_of_a_whole(family: mtenvs.Family) -> None:
    whole = [p for p in family.parameters if p.integer]
    for p in whole:
        for value in (p.low + 0.5, math.nextafter(p.high, 0.0)):
            with pytest.raises(ValueError, match=rf"'{p.name}'.* must be a whole number, got {value}"):
                family.complete({p.name: value})
        assert family.complete({p.name: int(p.high)})[p.name] == p.high
    assert whole or family.name != "Octopus"  # the test sees something


def test_every_parameter_is_documented(family: mtenvs.Family) -> None:
    names = [p.name for p in family.parameters]
    assert len(set(names)) == len(names)
    for p in family.parameters:
        assert p.unit
        assert p.reason
        assert p.low < p.high


def test_descriptor_and_distance_by_hand(family: mtenvs.Family) -> None:
    low = Task(family.name, "low", {p.name: p.low for p in family.parameters})
    high = Task(family.name, "high", {p.name: p.high for p in family.parameters})
    assert family.descriptor(low) == [-1.0] * len(family.parameters)
    assert family.descriptor(high) == [1.0] * len(family.parameters)
    assert family.distance(low, high) == pytest.approx(2.0 * len(family.parameters) ** 0.5)
    assert family.distance(low, low) == 0.0


def test_descriptor_does_not_depend_on_the_published_list(family: mtenvs.Family) -> None:
    name, values = next(iter(family.published.items()))
    alone = dataclasses.replace(family, published={name: values})
    assert alone.descriptor(alone.tasks[0]) == family.descriptor(family.tasks[0])


def test_complete_fills_in_nominal_values(family: mtenvs.Family) -> None:
    assert family.complete({}) == {p.name: p.nominal for p in family.parameters}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1", None])
def test_complete_refuses_what_is_no_number(family: mtenvs.Family, value: object) -> None:
    name = family.parameters[0].name
    with pytest.raises(ValueError, match=f"'{name}' of '{family.name}' must be a finite number, got"):
        family.complete({name: value})  # type: ignore[dict-item]


def test_complete_refuses_values_outside_the_range(family: mtenvs.Family) -> None:
    for p in family.parameters:
        for value in (p.low - 1e-6, p.high + 1e-6):
            with pytest.raises(ValueError, match=rf"'{p.name}'.*is {value}, outside its range \[{p.low}, "):
                family.complete({p.name: value})
        for value in (p.low, p.high):
            assert family.complete({p.name: value})[p.name] == value


def test_complete_names_unknown_parameters_and_the_known_ones(family: mtenvs.Family) -> None:
    first = family.parameters[0].name
    with pytest.raises(
        ValueError, match=rf"no parameter '{first}s' \(did you mean '{first}'.*it has {first}"
    ):
        family.complete({f"{first}s": 1.0})


def test_a_task_survives_json_and_hashing(task: mtenvs.Task) -> None:
    again = Task(**json.loads(json.dumps(task.to_dict())))
    assert again == task
    assert hash(again) == hash(task)
    assert len({again, task}) == 1


def test_why_a_task_is_there_is_no_part_of_it(family: mtenvs.Family) -> None:
    published = dataclasses.replace(family.tasks[0], why="Because.")
    plain = Task(family.name, published.name, published.parameters, 0)
    assert plain.why == ""
    assert (plain, hash(plain), repr(plain)) == (published, hash(published), repr(published))
    assert "why" not in published.to_dict()
    assert mtenvs.leave_one_out(family.name)[0].held_out.why == family.tasks[0].why
    # what dataclasses make of it is still a task
    assert as_task(family, dataclasses.asdict(published)) == published


def test_did_you_mean_and_published_list(family: mtenvs.Family) -> None:
    assert did_you_mean("nominel", ["nominal", "giant"]) == " (did you mean 'nominal'?)"
    assert did_you_mean("xyz", ["nominal", "giant"]) == ""
    assert published_list(family.tasks[:2]) == f"0 {family.tasks[0].name}, 1 {family.tasks[1].name}"
