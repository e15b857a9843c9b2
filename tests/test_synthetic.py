"""End to end (PROTOCOL §9): learners of known speed through plan, store, analysis and report, and back."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from synthetic import fails, ramp, stalls, write_planned

from baselines.registry import describe_learner
from harness import measures
from harness.plan import PRESETS, Preset, make_plan
from harness.populations import BUDGET, Discretised
from harness.report import analyse, warnings, words, write_report
from harness.report.sections_opening import headline
from harness.report.variations import resolution, variations
from harness.schema import AT_CHECKPOINT

PLANTED = {0: 1.0, 1: 1.5, 2: 3.0, 3: 0.7}
SEEDS = 6
SCRATCH = 100_000
"""Steps that a run from scratch takes to score 1, so that T_θ is θ times as many."""
STALLED, FAILED = 5, 6
"""Folds whose transfer runs stall at 0.6, and of whose transfer runs two never learn."""
PLATEAU = 7
"""Fold on which nobody scores above 0.52."""


def learners(fold, speed_up, **options):
    # so equal that chance moves a fold by a few hundredths
    return ramp(speed_up, seed=fold, spread=0.05, noise=0.005, scratch_steps=SCRATCH, **options)


READINGS = [
    pytest.param(reading, marks=[pytest.mark.slow] if reading == AT_CHECKPOINT else [])
    for reading in measures.READINGS
]
"""That of old results takes as long again."""


@pytest.fixture(scope="module", params=READINGS)
def experiment(request, tmp_path_factory):
    """Directory, plan and analysis of all eight folds; checkpoints about every 2,500 steps."""
    learner = dataclasses.asdict(describe_learner("ppo", "Biped")) | {"rollout": 1}
    preset = Preset(
        arms=("scratch", "transfer"), seeds=SEEDS, budget=200_000, checkpoints=80, arrivals=request.param
    )
    plan = make_plan("Biped", preset, learner)
    curves = {fold: learners(fold, ratio, plateau=0.95) for fold, ratio in PLANTED.items()}
    curves[4] = learners(4, 3.0, start=0.3)
    curves[STALLED] = stalls(learners(STALLED, 3.0), "transfer", 0.6)
    curves[FAILED] = fails(learners(FAILED, 3.0), "transfer", (2, 5))
    curves[PLATEAU] = learners(PLATEAU, 1.5, plateau=0.52)
    directory = write_planned(tmp_path_factory.mktemp("synthetic") / "experiment", plan, curves)
    return directory, plan, analyse(directory)


def late(plan):
    """By how many steps arrivals are dated too late on average: half a gap, or interpolated not at all."""
    return 0 if measures.interpolates(plan) else np.diff(plan["checkpoints"])[-1] / 2


def dated(plan, first, last=0.8, steps=SCRATCH, beyond=0):
    """Ȳ of learners that take ``steps`` to score 1, over θ from ``first`` to ``last``, by hand.

    ``beyond`` more thresholds count with the budget.
    """
    grid = [theta for theta in plan["thresholds"] if first - 1e-9 <= theta <= last + 1e-9]
    arrived = sum(theta * steps + late(plan) for theta in grid)
    return (arrived + beyond * plan["budget"]) / (len(grid) + beyond)


def test_planted_speed_ups_come_back(experiment):
    _, plan, analysis = experiment
    for fold, planted in PLANTED.items():
        result = analysis.folds[fold]
        estimate = result.log_ratio.exp()
        assert estimate.value == pytest.approx(planted, rel=0.1)
        seen = dated(plan, 0.1) / dated(plan, 0.1, steps=SCRATCH / planted)
        assert result.log_ratio.value == pytest.approx(
            math.log(seen), abs=4 * math.sqrt(result.log_ratio.variance)
        )
        assert estimate.high / estimate.low < 1.2
        assert result.measures.estimable.all()
        assert (result.p < 0.01) == (planted != 1.0)
        assert result.negative == (planted < 1)


@pytest.fixture(scope="module", params=READINGS)
def standard(request, tmp_path_factory):
    """Analysis on the grid of checkpoints that the preset ``standard`` and its learner really have."""
    learner = dataclasses.asdict(describe_learner("ppo", "Biped"))
    preset = dataclasses.replace(
        PRESETS["standard"],
        arms=("scratch", "transfer"),
        seeds=SEEDS,
        folds=(0, 2, 3),
        arrivals=request.param,
    )
    plan = make_plan("Biped", preset, learner)
    curves = {
        fold: ramp(PLANTED[fold], seed=fold, spread=0.02, noise=0.005, scratch_steps=plan["budget"] / 2)
        for fold in plan["folds"]
    }
    # the coverage study's curves are seen at the same checkpoints
    scaled = np.array(plan["checkpoints"]) / plan["budget"]
    np.testing.assert_allclose(Discretised(None, 3.0).steps / BUDGET, scaled)
    return analyse(write_planned(tmp_path_factory.mktemp("standard") / "experiment", plan, curves))


def test_on_the_real_grid_the_interpolated_reading_comes_back_and_the_other_is_said(standard):
    def interpolated(folds):
        seen = resolution(folds)
        return seen.planned if standard.interpolated else seen.other

    truth = math.prod(PLANTED[fold] for fold in (0, 2, 3)) ** (1 / 3)
    seen = resolution(standard.headline.folds)
    assert seen.planned == pytest.approx(standard.headline.log_ratio.exp().value)
    assert interpolated(standard.headline.folds) == pytest.approx(truth, rel=0.03)
    assert seen.low < truth < seen.high
    for fold in standard.folds:
        planted, alone = PLANTED[fold.measures.fold], resolution([fold])
        assert interpolated([fold]) == pytest.approx(planted, rel=0.04)
        assert alone.low < planted < alone.high
    # dated to checkpoints it is drawn towards 1, more than the interval allows for
    fast = standard.folds[1].log_ratio.exp()
    assert (fast.low < 3 < fast.high) == standard.interpolated
    other = "checkpoint" if standard.interpolated else "interpolated"
    row = next(v for v in variations(standard) if v.label == measures.READINGS[other])
    assert math.exp(row.log_ratio.value) == pytest.approx(seen.other)
    said = words.between_checkpoints(standard)
    assert said.startswith(
        "Arrivals are interpolated" if standard.interpolated else "Speed-ups are read at"
    )
    assert f"this one is {words.factor(seen.other)} instead of {words.factor(seen.planned)}" in said
    assert said in headline(standard).parts[-1]
    shift = resolution([standard.folds[1]]).shift
    assert any(f"single tasks change by a factor of up to {shift:.2f}" in w for w in warnings(standard))


def test_a_head_start_is_part_of_the_speed_up_and_shows_as_jumpstart(experiment):
    _, plan, analysis = experiment
    result = analysis.folds[4]
    assert result.jumpstart.value == pytest.approx(0.3, abs=0.01)
    # what is there at step 0 is seen at the first checkpoint, the rest at (θ - 0.3) / 3
    grid = [theta for theta in plan["thresholds"] if theta > 0.3 + 1e-9]
    there = len(plan["thresholds"]) - len(grid)
    later = sum((theta - 0.3) * SCRATCH / 3 + late(plan) for theta in grid)
    transfer = (there * plan["checkpoints"][1] + later) / len(plan["thresholds"])
    assert result.measures.speed_up == pytest.approx(dated(plan, 0.1) / transfer, rel=0.1)


def test_an_arm_that_stalls_counts_with_the_budget_above_its_plateau(experiment):
    _, plan, analysis = experiment
    result = analysis.folds[STALLED]
    # at 0.60 itself noise decides, which is capped with the score: a third of a threshold at most
    low = dated(plan, 0.1) / dated(plan, 0.1, 0.55, SCRATCH / 3, beyond=5)
    high = dated(plan, 0.1) / dated(plan, 0.1, 0.60, SCRATCH / 3, beyond=4)
    assert low * 0.95 < result.measures.speed_up < high * 1.05
    assert result.measures.speed_up < 1  # although it learns three times as fast
    assert result.measures.success[1][-1] == 0
    assert result.measures.success[0][-1] == 1


def test_failing_runs_come_back_as_the_mixture_that_they_are(experiment):
    _, plan, analysis = experiment
    result = analysis.folds[FAILED]
    arrived = dated(plan, 0.1, steps=SCRATCH / 3)
    truth = dated(plan, 0.1) / (2 / SEEDS * plan["budget"] + (1 - 2 / SEEDS) * arrived)
    assert result.measures.speed_up == pytest.approx(truth, rel=0.1)
    assert result.measures.success[1].tolist() == pytest.approx([1 - 2 / SEEDS] * len(plan["thresholds"]))
    assert any(w.startswith(f"{result.measures.task}: mixed outcomes") for w in warnings(analysis))


def test_above_a_common_plateau_nothing_is_estimable_and_below_it_all_is(experiment):
    _, plan, analysis = experiment
    result = analysis.folds[PLATEAU]
    grid = np.array(plan["thresholds"])
    assert grid[result.measures.estimable].max() == pytest.approx(0.5)
    seen = dated(plan, 0.1, 0.5) / dated(plan, 0.1, 0.5, SCRATCH / 1.5)
    assert result.measures.speed_up == pytest.approx(seen, rel=0.1)


def test_the_suite_is_the_geometric_mean_and_stands_in_the_report(experiment):
    directory, _, analysis = experiment
    suite = analysis.headline.log_ratio
    assert suite.value == pytest.approx(np.mean([math.log(f.measures.speed_up) for f in analysis.folds]))
    assert analysis.marks == []
    text = re.sub(r"<[^>]*>", "", write_report(directory).read_text())
    for estimate in [suite, *(analysis.folds[fold].log_ratio for fold in PLANTED)]:
        assert words.ratio(estimate) in text
