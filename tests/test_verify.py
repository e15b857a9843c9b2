"""The coverage study, small: claims hold, controls fail, and every truth is what brute force finds."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest

from harness import statistics, verify
from harness.cli import main
from harness.populations import Discretised, OneTask, Shares, times
from harness.verify import COVERS, KEEPS_LEVEL, MUST_FAIL, Claim, Result, Scenario

PAGE = Path(__file__).parents[1] / "docs/coverage.md"
EVERY = verify.scenarios()
POPULATIONS = {scenario.population.name: scenario.population for scenario in EVERY}
COARSE = [p for p in POPULATIONS.values() if isinstance(p, Discretised)]


@pytest.fixture(scope="module")
def quick():
    return verify.study(quick=True)


def result(actual, bounds=COVERS, kind="coverage", trials=4000):
    claim = Claim("procedure", bounds, kind)
    scenario = Scenario("section", Shares(0.5), 10, verify.wilson, (claim,), trials=4000)
    return Result(scenario, claim, actual, trials)


def of(results, procedure):
    found = [r for r in results if r.claim.procedure == procedure]
    assert found
    return found


def test_what_is_claimed_holds_with_few_trials(quick):
    assert verify.broken(quick) == []
    assert len(quick) == sum(len(scenario.claims) for scenario in EVERY)


def test_the_negative_controls_are_seen_to_fail(quick):
    for procedure in (
        "naive bootstrap of runs (negative control)",
        "log_ratio of runs as if independent",
        "bootstrap of each task's column",
    ):
        mean = np.mean([r.actual for r in of(quick, procedure)])
        assert mean < 0.90
    failing = [
        r for r in of(quick, "log_ratio") if "of transfer runs at Y = B" in r.scenario.population.name
    ]
    assert failing[0].actual < 0.85


def test_the_same_seeds_give_the_same_results():
    scenario = EVERY[0]
    assert scenario.results(50) == scenario.results(50)


def test_scenarios_are_told_apart_by_their_draws():
    # equal keys would give two scenarios the same random numbers, and a page rows that look alike
    keys = [(s.section, s.population.name, s.n, [c.procedure for c in s.claims]) for s in EVERY]
    assert len({repr(key) for key in keys}) == len(EVERY)


@pytest.mark.parametrize("name", [n for n, p in POPULATIONS.items() if p not in COARSE])
def test_the_stated_truth_is_what_brute_force_finds(name):
    population = POPULATIONS[name]
    rng = np.random.default_rng(3)
    trials = 40
    data = population.draw(rng, trials, 1500)
    found = np.array([population.estimate(tuple(a[i] for a in data)) for i in range(trials)])
    # 40 large samples say how sure they are; logarithms of means are off by about cv² / 2n
    error = found.std(axis=0, ddof=1) / math.sqrt(trials)
    np.testing.assert_array_less(np.abs(found.mean(axis=0) - population.truth), 4.5 * error + 1e-3)
    assert np.max(error) < 0.1  # two shares that are drawn anew in every trial vary most


@pytest.mark.parametrize("population", COARSE, ids=lambda p: p.name)
def test_what_checkpoints_show_is_what_their_spacing_says(population):
    scratch, transfer = population.draw(np.random.default_rng(4), 1, 1500)
    estimate = statistics.log_ratio(scratch[0], transfer[0])
    # noise of the curves moves arrivals a little
    error = 4 * math.sqrt(estimate.variance) + 0.01
    assert estimate.value == pytest.approx(math.log(population.expected), abs=error)


def test_the_finer_the_checkpoints_the_nearer_the_planted_speed_up():
    expected = [Discretised(gap, 3.0).expected for gap in (10, 1000, 5000, 20_000, 40_000)]
    assert expected == sorted(expected, reverse=True)
    assert expected[0] == pytest.approx(3.0, rel=1e-3)
    # both mean times are half a gap later: (45,000 + 2,500) / (15,000 + 2,500)
    assert expected[2] == pytest.approx(47_500 / 17_500, rel=0.02)
    assert Discretised(5000, 1.0).expected == 1.0
    # the shipped grid draws 3 towards 1, and interpolation brings it back
    assert Discretised(None, 3.0).expected < 2.7
    assert Discretised(None, 3.0, True).expected == pytest.approx(3.0, rel=1e-3)
    # where runs do not rise straight between checkpoints, a little is left
    assert Discretised(None, 3.0, True, True).expected == pytest.approx(3.0, rel=0.03)


def test_found_biases_have_their_populations():
    found = verify.biases(runs=200)
    asked = [
        (b.population.ratio, b.population.gap, b.population.interpolate, b.population.curved) for b in found
    ]
    assert asked == [(ratio, *grid) for ratio in verify.PLANTED for grid in verify.GRIDS]
    for bias in found:
        assert bias.found == pytest.approx(bias.population.expected, abs=4.5 * bias.error + 0.02)


def test_verdicts_and_claims_by_hand():
    assert [result(a).verdict for a in (0.929, 0.93, 0.97, 0.971)] == [
        "NOT MET", "met", "met", "conservative"
    ]  # fmt: skip
    errors = [result(a, KEEPS_LEVEL, "error") for a in (0.071, 0.07, 0.03, 0.029)]
    assert [r.verdict for r in errors] == ["NOT MET", "met", "met", "conservative"]
    assert [r.holds for r in errors] == [False, True, True, True]
    assert [result(a).holds for a in (0.929, 0.93, 0.97, 0.971)] == [False, True, True, False]
    # three standard errors of 40 trials at .93 are .121
    assert [result(a, trials=40).holds for a in (0.80, 0.82)] == [False, True]
    # a control that covers is broken, with however few trials
    assert [result(a, MUST_FAIL, trials=40).holds for a in (0.90, 0.925)] == [True, False]
    assert result(0.9, trials=400).error == pytest.approx(0.015)


def test_times_have_the_mean_and_spread_they_are_asked_for():
    rng = np.random.default_rng(0)
    for spread in ("normal", "gamma", "lognormal"):
        drawn = times(rng, spread, 100.0, 0.3, (200_000,))
        assert drawn.mean() == pytest.approx(100, rel=0.005)
        assert drawn.std() == pytest.approx(30, rel=0.02)
    with pytest.raises(ValueError, match="unknown spread 'cauchy'; valid: lognormal, gamma, normal"):
        OneTask("cauchy", (0.1, 0.1)).draw(rng, 1, 3)


def test_the_page_says_plainly_what_is_not_met():
    broken = dataclasses.replace(result(0.95, MUST_FAIL), scenario=EVERY[0])
    missed = dataclasses.replace(result(0.5, verify.SHOWN), scenario=EVERY[0])
    good = dataclasses.replace(result(0.95), scenario=EVERY[0])
    page = verify.page([broken, missed, good], verify.biases(runs=20))
    assert "**1 of 2 claims hold.**" in page
    assert "**BROKEN: must fail: cover .90 or less**" in page
    assert "- `procedure` covers **.500** instead of .95" in page
    assert "| .950 ± .003 | met | must cover .93 to .97 |" in page
    assert {s.section for s in EVERY} == set(verify.ABOUT)


def test_the_published_table_is_of_these_scenarios_and_holds():
    page = PAGE.read_text()
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| .* ± ", line)]
    published = [(row[0].removeprefix("| "), row[1], row[2].split("`")[1]) for row in rows]
    assert published == [(s.population.name, str(s.n), c.procedure) for s in EVERY for c in s.claims]
    claims = sum(bool(c.bounds.text) for s in EVERY for c in s.claims)
    assert f"**{claims} of {claims} claims hold.**" in page
    assert "BROKEN" not in page
    # in the words of now
    assert [text for text in verify.ABOUT.values() if text not in page] == []


@pytest.mark.parametrize(("actual", "code"), [(0.8, None), (0.95, 1)])
def test_the_command_fails_where_the_control_does_not(actual, code, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verify, "study", lambda *args: [dataclasses.replace(control, actual=actual)])
    biases = verify.biases(runs=20)
    monkeypatch.setattr(verify, "biases", lambda *args: biases)
    control = dataclasses.replace(result(actual, MUST_FAIL), scenario=EVERY[0])
    words = ["verify", "--quick", "--out", str(tmp_path / "coverage.md")]
    if code is None:
        main(words)
    else:
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == code
        assert "must fail: cover .90 or less, but `procedure` covers **.950**" in capsys.readouterr().err
    assert "How often" in (tmp_path / "coverage.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "--trials", "0"], "trials must be positive, got 0"),
        (["verify", "--out", "nowhere/coverage.md"], "there is no directory nowhere"),
        (["verify"], "there is no directory docs"),
    ],
)
def test_bad_words_are_refused_before_anything_is_simulated(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
