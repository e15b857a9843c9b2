"""From stored rows to the report: planted speed-ups come back, and every edge says what it is."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from synthetic import BUDGET, CHECKPOINTS, FINE, TASKS, ramp, write

from harness import plots
from harness.report import analyse, flow, summary_table, warnings, words, write_report
from harness.report.analysis import SetResult
from harness.report.sections_costs import break_even
from harness.report.sections_curves import by_threshold, learning_curves, panel_title, profile, survival
from harness.report.sections_facts import counted
from harness.report.variations import variations
from harness.report.words import factor, no_verdict, short_ratio, times, verdict
from harness.statistics import Estimate, newcombe
from harness.store import StoreError

ROOT = Path(__file__).parents[1]
PLANTED = {0: 1.0, 1: 1.5, 2: 3.0, 3: 0.7}


def files(directory):
    return {p.name: p.read_bytes() for p in sorted((directory / "report").rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two folds with three seeds, one run missing, exploratory: like the quick start, half done."""
    directory = tmp_path_factory.mktemp("small") / "experiment"
    curves = {3: ramp(2.5, start=0.1), 7: ramp(1.3)}
    write(directory, curves, seeds=3, exploratory=True, skip=["scratch-7-1"])
    write_report(directory)
    return directory


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("planted")
    return analyse(write(directory, planted_curves(), seeds=8, checkpoints=FINE))


def planted_curves(change=lambda curve: curve):
    return {k: change(ramp(r, seed=k, plateau=0.9)) for k, r in PLANTED.items()}


def test_planted_speed_ups_come_back_within_their_intervals(planted):
    for result in planted.folds:
        e = result.log_ratio.exp()
        truth = PLANTED[result.measures.fold]
        assert e.low < truth < e.high
        assert e.high / e.low < 2  # and the intervals are worth having
        assert result.measures.estimable.all()
    suite = planted.headline.log_ratio.exp()
    truth = math.prod(PLANTED.values()) ** (1 / len(PLANTED))
    assert suite.low < truth < suite.high
    assert suite.high / suite.low < 1.25
    assert planted.folds[2].p < 0.001
    assert planted.folds[0].p > 0.05


def test_drawn_permutations_are_the_same_every_time(planted, tmp_path):
    again = analyse(write(tmp_path, planted_curves(), seeds=8, checkpoints=FINE, order=1))
    assert [f.p for f in again.folds] == [f.p for f in planted.folds]
    assert again.headline.p == planted.headline.p


def test_negative_transfer_is_marked_and_nothing_else_is(planted):
    assert [f.mark for f in planted.folds] == ["", "", "", "negative transfer"]
    assert planted.marks == []


def test_swapping_the_arms_negates_every_log_ratio(planted, tmp_path):
    def swapped(curve):
        return lambda steps, arm, seed: curve(
            steps, {"scratch": "transfer", "transfer": "scratch"}[arm], seed
        )

    other = analyse(write(tmp_path, planted_curves(swapped), seeds=8, checkpoints=FINE))
    for one, two in zip(planted.folds, other.folds, strict=True):
        assert one.log_ratio.value == pytest.approx(-two.log_ratio.value)
        assert one.p == pytest.approx(two.p, abs=0.05)  # 9,999 of 12,870 arrangements are drawn
    assert planted.headline.log_ratio.low == pytest.approx(-other.headline.log_ratio.high)


def test_every_number_that_arrivals_enter_follows_the_reading_of_the_plan(tmp_path):
    """Straight rises to 1 at τ, of which few checkpoints are seen: interpolated, T_θ = θ τ."""
    tau = {"scratch": [96_000, 104_000], "transfer": [32_000, 40_000]}
    grid = list(range(0, 280_000, 20_000))

    def rise(steps, arm, seed):
        return np.minimum(steps / tau[arm][seed], 1.0)

    plan = {"checkpoints": grid, "thresholds": [0.7, 0.8]}
    found = {}
    for reading in (None, "checkpoint", "interpolated"):
        said = {} if reading is None else {"arrivals": reading}
        write(tmp_path / str(reading), {0: rise}, seeds=2, break_even_threshold=0.8, **plan, **said)
        found[reading] = analyse(tmp_path / str(reading))
    old, dated, between = found.values()
    # a plan of before there was a choice is read as it was, and says the same in every word
    assert [f.log_ratio for f in old.folds] == [f.log_ratio for f in dated.folds]
    assert warnings(old) == warnings(dated)
    assert (old.interpolated, between.interpolated) == (False, True)
    # 0.7 and 0.8 of 96,000 and 104,000 are seen at 80,000 or 100,000; of 32,000 and 40,000 at 40,000
    assert old.arrivals[0, "scratch"].tolist() == [[80_000, 80_000], [80_000, 100_000]]
    assert old.arrivals[0, "transfer"].tolist() == [[40_000, 40_000]] * 2
    thetas = np.array([0.7, 0.8])
    took = {arm: np.multiply.outer(tau[arm], thetas) for arm in tau}
    # but where the line from 20,000 to 40,000 cuts the corner at 32,000, from a score of 0.625 to 1
    took["transfer"][0] = 20_000 + 20_000 * (thetas - 0.625) / 0.375
    for arm in took:
        np.testing.assert_allclose(between.arrivals[0, arm], took[arm])
    ratio = took["scratch"].mean() / took["transfer"].mean()
    assert between.folds[0].measures.speed_up == pytest.approx(ratio)
    assert between.headline.log_ratio.value == pytest.approx(math.log(ratio))
    assert f"speed-up over all folds: {factor(ratio)} [" in summary_table(tmp_path / "interpolated")

    def exhibit(section, name):
        return next(e for e in section.exhibits if e.name == name).data

    curves = by_threshold(between)
    levels = exhibit(curves, "speed_up_by_threshold")
    alone = [took["scratch"][:, i].mean() / took["transfer"][:, i].mean() for i in (0, 1)]
    assert levels[levels["task"] == TASKS[0]]["speed_up"].tolist() == pytest.approx(alone)
    steps = exhibit(curves, "times_by_threshold").set_index(["arm", "theta"])["steps"]
    assert steps["scratch", 0.8] == pytest.approx(80_000)
    # expected running times: with no failure, the mean
    reaching = profile(between)
    assert [f"{took[arm][:, 1].mean():,.0f}" in reaching.parts[2] for arm in took] == [True] * 2
    reached = exhibit(reaching, "runtime_profile").set_index(["arm", "steps"])["share"]
    # 0.7 at 67,200 and 72,800, 0.8 at 76,800 and 83,200
    assert reached["scratch", 75_000] == pytest.approx(0.5)
    assert reached["scratch", 80_000] == pytest.approx(0.75)
    assert reached["scratch", 85_000] == pytest.approx(1.0)
    left = exhibit(survival(between), "kaplan_meier").set_index(["arm", "steps"])
    # 0.7 at 24,000 and 28,000
    assert left.loc["transfer", "share"].loc[[20_000, 25_000, 30_000]].tolist() == [1.0, 0.5, 0.0]
    assert left.loc["transfer", "at_risk"].loc[[20_000, 25_000, 30_000]].tolist() == [2, 1, 0]
    saved = exhibit(break_even(between), "break_even").iloc[0]
    gain = took["scratch"][:, 1].mean() - took["transfer"][:, 1].mean()
    assert (saved["saving"], saved["uses"]) == pytest.approx((gain, 400_000 / gain))
    # what is reached in the end is the same
    for one, other in zip(old.folds[0].measures.success, between.folds[0].measures.success, strict=True):
        assert one.tolist() == other.tolist()
    rows = {v.label: v.log_ratio.value for v in variations(between)}
    assert rows["arrival dated to the checkpoint that shows it"] == old.headline.log_ratio.value
    assert rows["half the evaluation episodes"] == pytest.approx(math.log(ratio), abs=0.1)
    told = "dated to where the line from the score at the checkpoint before crosses θ"
    assert [told in counted(analysis).parts[0] for analysis in (old, dated, between)] == [
        False,
        False,
        True,
    ]


def test_results_of_before_arrivals_were_interpolated_stay_to_the_digit(tmp_path):
    stored = ROOT / "results" / "quick-dm-walker"
    assert "arrivals" not in json.loads((stored / "plan.json").read_text())
    for part in ("plan.json", "rows", "records"):
        source = stored / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / part)
    write_report(tmp_path)
    tables = [p.relative_to(stored) for p in (stored / "report/figures").glob("*.csv")]
    assert len(tables) >= 3
    for table in tables:
        pd.testing.assert_frame_equal(
            # half of the sixth digit, which is all that is written
            pd.read_csv(tmp_path / table),
            pd.read_csv(stored / table),
            rtol=5e-6,
            obj=str(table),
        )


def test_failing_runs_bring_a_warning_a_permutation_p_and_their_share(tmp_path):
    def fails(steps, arm, seed):
        return ramp(3.0)(steps, arm, seed) * (0.0 if arm == "transfer" and seed == 4 else 1.0)

    analysis = analyse(write(tmp_path, {0: fails}, seeds=6))
    fold = analysis.folds[0]
    assert fold.measures.success[1].tolist() == pytest.approx([5 / 6] * 15)
    assert fold.measures.speed_up < 2  # one failure in six costs more than half of the speed
    assert 0 < fold.p < 1
    assert any("mixed outcomes. From θ = 0.10 on some runs of transfer" in w for w in warnings(analysis))
    assert "6/6 arrive" in summary_table(tmp_path)
    assert "5/6 arrive" in summary_table(tmp_path)


def test_the_report_is_the_same_to_the_byte_whatever_the_place_and_order(small, tmp_path):
    before = files(small)
    write_report(small)
    assert files(small) == before
    copy = tmp_path / "elsewhere" / "under-another-name"
    shutil.copytree(small, copy)
    shutil.rmtree(copy / "report")
    # lines in another order, and directories made in another order
    for number, path in enumerate(sorted((copy / "runs").iterdir(), reverse=True)):
        if not (path / "rows.jsonl").exists():
            continue
        lines = (path / "rows.jsonl").read_text().splitlines(keepends=True)
        np.random.default_rng(number).shuffle(lines)
        path.rename(copy / "moved")
        path.mkdir()
        (path / "rows.jsonl").write_text("".join(lines))
        shutil.copy(copy / "moved" / "done.json", path)
        shutil.rmtree(copy / "moved")
    page = write_report(copy)
    assert page == copy / "report" / "index.html"
    assert files(copy) == before


def test_the_page_stands_alone_and_escapes_what_it_quotes(small):
    page = (small / "report/index.html").read_text()
    assert "<h1>Biped: synthetic &lt;learners&gt; <em>exploratory</em> <em>incomplete</em></h1>" in page
    assert "giant &lt;b&gt;&amp;" in page
    assert "<b>" not in page
    # nothing is loaded; links lead to places within the page, or to the figures' files beside it
    assert "http" not in page.replace("http-equiv", "")
    links = re.findall(r'(?:src|href|srcset|data|action)="([^#"][^"]*)"( download)?', page)
    assert {link for link, download in links if download} == {
        f"figures/{p.name}" for p in (small / "report/figures").iterdir()
    }
    assert all(download for _, download in links)
    assert page.count("<svg ") == len(list((small / "report/figures").glob("*.svg")))
    assert str(small.parent) not in page
    assert "<code>mtenvs report .</code>" in page
    # the difference of the shares that arrive, with Newcombe's interval
    assert "difference at θ=0.80 [95%]" in page
    first = analyse(small).folds[0].measures
    shares = (float(share[-1]) for share in first.success)
    gap = newcombe(next(shares), 3, next(shares), 3)
    assert words.difference(gap) in re.sub(r"<[^>]*>", "", page)
    assert gap.low < gap.value < gap.high


def test_figures_lie_beside_with_their_data(small):
    names = {p.stem for p in (small / "report/figures").glob("*.svg")}
    assert {"forest", "learning_curves", "kaplan_meier", "sensitivity", "comparability"} <= names
    assert names == {p.stem for p in (small / "report/figures").glob("*.csv")}
    forest = pd.read_csv(small / "report/figures/forest.csv").set_index("row")
    analysis = analyse(small)
    assert forest.loc["heavy-legs", "speed_up"] == pytest.approx(analysis.folds[0].measures.speed_up)
    assert forest.loc["mean of all folds", "low"] == pytest.approx(analysis.headline.log_ratio.exp().low)
    curves = pd.read_csv(small / "report/figures/learning_curves.csv")
    single = curves[(curves["task"] == "heavy-legs") & (curves["run"] == "scratch-3-0")]
    assert single["steps"].tolist() == CHECKPOINTS
    # what is drawn is what was stored
    expected = ramp(2.5, start=0.1)(np.array(CHECKPOINTS, float), "scratch", 0)
    np.testing.assert_allclose(single["score"], expected, rtol=5e-6)


def test_flow_counts_every_kind_of_run(tmp_path):
    write(tmp_path, {0: ramp(2.0), 1: ramp(2.0)}, seeds=3, skip=["scratch-0-0", "transfer-1-2"],
          diverge={"scratch-1-0": 9})  # fmt: skip
    (tmp_path / "runs/scratch-0-0").mkdir()
    (tmp_path / "runs/stranger").mkdir()
    done = tmp_path / "runs/scratch-0-1/done.json"
    done.write_text(json.dumps(json.loads(done.read_text()) | {"status": "failed"}))
    # finished, its trainer says, but a score is no number: the curves call that diverged, and so the flow
    strange = tmp_path / "runs/transfer-1-0/rows.jsonl"
    lines = [json.loads(line) for line in strange.read_text().splitlines()]
    strange.write_text("".join(json.dumps(r | {"return_mean": None} if r["checkpoint"] == 5 else r) + "\n"
                               for r in lines))  # fmt: skip
    rows = tmp_path / "runs/scratch-0-2/rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[2:]))
    analysis = analyse(tmp_path)
    total = flow(analysis).iloc[-1].to_dict()
    assert total == {
        "phase": "total", "arm": "", "planned": 18, "started": 17, "finished": 13, "diverged": 2,
        "failed": 1, "unfinished": 1, "missing": 1, "excluded": 1,
    }  # fmt: skip
    assert analysis.marks == ["exploratory", "incomplete", "rows changed", "unplanned runs"]
    assert analysis.damaged == {"scratch-0-2": f"2 of {len(CHECKPOINTS)} checkpoints are not in the store"}
    found = "\n".join(warnings(analysis))
    assert "stranger" in found
    assert "scratch-0-2 is left out" in found
    assert "1 of 3 runs of scratch diverged" in found
    # nothing of fold 0's baseline is left, which does not stop the other fold
    assert analysis.folds[0].log_ratio.reason == "no run of scratch is complete"
    assert len(analysis.headline.estimable) == 1


def test_rows_at_other_steps_than_planned_are_left_out(tmp_path):
    write(tmp_path, {0: ramp(2.0)}, seeds=3)
    path = tmp_path / "runs/transfer-0-1/rows.jsonl"
    path.write_text(path.read_text().replace('"steps": 1000,', '"steps": 1024,'))
    analysis = analyse(tmp_path)
    assert list(analysis.damaged) == ["transfer-0-1"]
    assert analysis.folds[0].measures.curves[1].runs == ("transfer-0-0", "transfer-0-2")


def test_a_single_seed_gets_no_interval_and_the_reason(tmp_path):
    write(tmp_path, {0: ramp(2.0), 1: ramp(2.0)}, seeds=1)
    page = write_report(tmp_path).read_text()
    assert "no interval: one seed in scratch on nominal" in page
    assert "With one run in an arm there is no permutation test" in page
    assert "nothing can be concluded" in page
    analysis = analyse(tmp_path)
    assert analysis.headline.log_ratio.value == pytest.approx(math.log(2), abs=0.4)
    assert math.isnan(analysis.headline.p)


def test_one_seed_on_one_task_leaves_the_profile_without_interval_for_that_reason(tmp_path):
    write(tmp_path, {0: ramp(2.0), 1: ramp(2.0)}, seeds=3, skip=["transfer-1-0", "transfer-1-2"])
    data = profile(analyse(tmp_path)).exhibits[0].data
    of_arm = dict(list(data.groupby("arm")))
    assert of_arm["transfer"]["low"].isna().all()
    assert set(of_arm["transfer"]["no_interval"]) == {"one seed"}
    # where all runs agree there is no spread, and the interval is the point
    exact = of_arm["scratch"][of_arm["scratch"]["no_interval"] == "zero variance"]
    assert len(exact)
    assert (exact["low"] == exact["share"]).all()
    assert (of_arm["scratch"]["low"] < of_arm["scratch"]["share"]).any()


def test_all_censored_is_not_estimable(tmp_path):
    write(tmp_path, {0: ramp(1.0, plateau=0.0, noise=0.0), 1: ramp(3.0)}, seeds=3)
    analysis = analyse(tmp_path)
    assert analysis.folds[0].log_ratio.reason.startswith("not estimable")
    assert len(analysis.headline.estimable) == 1
    assert any("reaches θ = 0.10 to 0.80 within" in w for w in warnings(analysis))
    page = write_report(tmp_path).read_text()
    assert "Not estimable for nominal: no run reaches any threshold" in page


def test_zero_variance_has_no_interval_and_adds_nothing_to_the_suite(tmp_path):
    write(tmp_path, {0: ramp(2.0, spread=0.0, noise=0.0), 1: ramp(2.0)}, seeds=4)
    analysis = analyse(tmp_path)
    exact, spread = (f.log_ratio for f in analysis.folds)
    assert exact.reason == "zero variance in both arms"
    assert analysis.folds[0].p == pytest.approx(2 / 70)
    assert analysis.headline.log_ratio.variance == pytest.approx(spread.variance / 4)
    assert any("within each arm all runs took equally long" in w for w in warnings(analysis))


def test_solved_folds_are_listed_and_left_out_of_acceleration(tmp_path):
    write(tmp_path, {0: ramp(8.0, start=0.7), 1: ramp(2.0, start=0.2)}, seeds=3, headline="not_yet_solved")
    analysis = analyse(tmp_path)
    assert [f.measures.solved for f in analysis.folds] == [True, False]
    assert [f.measures.task for f in analysis.headline.folds] == [TASKS[1]]
    assert len(analysis.sets["all_folds"].folds) == 2
    assert analysis.folds[0].jumpstart.low < 0.7 < analysis.folds[0].jumpstart.high
    assert analysis.folds[0].measures.limit == "at least"
    # and so does everything that is made of it
    planned = {v.label: v.limit for v in variations(analysis)}
    assert planned["all folds"] == analysis.sets["all_folds"].limit == "at least"
    assert planned["as planned"] == analysis.headline.limit
    assert any(
        w.startswith("nominal: many transfer runs arrive by the first checkpoint")
        for w in warnings(analysis)
    )
    table = summary_table(tmp_path)
    assert re.search(r"nominal +≥ .* solved at step 0", table)


def test_incompetent_pretraining_is_flagged(tmp_path):
    write(tmp_path, {0: ramp(2.0), 1: ramp(2.0)}, seeds=2, competence={1: 0.69})
    analysis = analyse(tmp_path)
    flagged = [w for w in warnings(analysis) if "hand-over" in w]
    assert len(flagged) == 1
    assert flagged[0].startswith("long-shins: at hand-over the pretrained networks of transfer score 0.69")


def test_warnings_say_when_no_verdict_is_possible(tmp_path):
    # 2 / C(10, 5) = 0.008 for one test of 5+5 runs, 0.063 for eight of them
    analysis = analyse(write(tmp_path, {k: ramp(3.0, seed=k) for k in range(8)}, seeds=5))
    assert {f.verdict for f in analysis.folds} == {"inconclusive"}
    assert min(f.bonferroni.low for f in analysis.folds) > 0
    (found,) = [w for w in warnings(analysis) if "verdict" in w]
    assert (
        "With 5+5 runs and 8 tests, adjusted after Holm, the permutation p cannot be less than 0.063"
        in found
    )
    assert "at least 6 runs in each arm are needed" in found
    assert no_verdict([(5, 5)]) == no_verdict([(6, 6)] * 8) == no_verdict([]) == ""
    assert "no number of runs is enough" in no_verdict([(20, 20)] * 272)


def test_the_verdict_claims_no_more_than_interval_and_tests():
    def of(low, high, p):
        return SetResult("all_folds", (), Estimate((low + high) / 2, low, high), p)

    assert verdict(of(math.log(2), math.log(8), 0.01), "transfer") == (
        "On these tasks learning from scratch takes about 4.00 times the steps that the pretrained network "
        "takes (95% interval 2.00 to 8.00)."
    )
    unsure = verdict(of(math.log(2), math.log(8), 0.1), "transfer", ["exploratory"])
    assert unsure.startswith("Exploratory: by the t interval alone, on these tasks learning from scratch")
    assert unsure.endswith("The permutation test does not confirm it: p = 0.100.")
    slower = Estimate(-math.log(4), -math.log(8), -math.log(2))
    assert times(slower, "at most") == ("about 4.00 times", ", or more (95% interval 2.00 to 8.00)")
    assert times(slower, "at least") == ("about 4.00 times", ", or fewer (95% interval 2.00 to 8.00)")
    assert times(of(0.1, 0.3, 0.01).log_ratio, "at least")[1].startswith(", or more (95%")


def test_numbers_keep_their_zeros_and_their_reasons():
    assert [factor(x) for x in (1.0, 2.4, 123.4, 999.7, 31.4159)] == ["1.00", "2.40", "123", "1000", "31.4"]
    assert short_ratio(Estimate(math.nan, reason="no task is estimable"), "") == "not estimable"
    assert short_ratio(Estimate(math.nan, reason="no run of scratch is complete"), "") == "no data"


def test_a_plan_of_which_nothing_is_trained_reports_that(tmp_path):
    write(tmp_path, {0: ramp(2.0)}, seeds=2, skip=[f"{a}-0-{s}" for a in ("scratch", "transfer", "pretrain")
                                                   for s in range(2)])  # fmt: skip
    page = write_report(tmp_path).read_text()
    assert "0 started" in page
    assert "No speed-up can be given: no task is estimable." in page
    assert "<em>incomplete</em>" in page
    assert "incomplete" in summary_table(tmp_path)


def test_wrong_directories_and_plans_are_refused(tmp_path):
    with pytest.raises(StoreError, match=r"no plan\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
    path = write(tmp_path / "edited", {0: ramp(2.0)}, seeds=1, exploratory=True) / "plan.json"
    path.write_text(path.read_text().replace('"exploratory": true', '"exploratory": false'))
    with pytest.raises(StoreError, match="was edited after it was frozen"):
        write_report(tmp_path / "edited")
    assert not (tmp_path / "edited/report").exists()
    write(tmp_path, {0: ramp(2.0)}, seeds=1, headline="best_folds")
    with pytest.raises(ValueError, match="unknown headline 'best_folds'"):
        analyse(tmp_path)


def test_the_summary_has_the_headline_and_a_row_per_fold(small):
    lines = summary_table(small).splitlines()
    assert lines[0] == "Biped: synthetic <learners> (exploratory, incomplete)"
    assert lines[1] == "Agent ppo."
    assert lines[2].startswith("speed-up over all folds: ")
    assert [line.split()[0] for line in lines[-2:]] == ["heavy-legs", "giant"]
    assert max(map(len, lines)) <= 130


@pytest.mark.parametrize(("steps", "text"), [(0, "0"), (999.8, "1k"), (1500, "1.5k"), (2_000_000, "2M")])
def test_steps_are_written_short(steps, text):
    assert plots.steps_text(steps) == text


@pytest.mark.parametrize("grid", [CHECKPOINTS, FINE])
def test_grids_of_the_synthetic_plans_are_as_the_protocol_asks(grid):
    assert grid[0] == 0
    assert grid[-3] == BUDGET


def test_the_mean_panel_is_over_tasks_with_both_arms(tmp_path, monkeypatch):
    titles, draw = [], plots.learning_curves
    monkeypatch.setattr(
        plots,
        "learning_curves",
        lambda panels, *rest: titles.extend(p.title for p in panels) or draw(panels, *rest),
    )
    curves = {0: ramp(2.0, seed=0), 1: ramp(2.0, seed=1), 2: ramp(2.0, seed=2)}
    write(tmp_path / "part", curves, seeds=3, skip=[f"scratch-2-{seed}" for seed in range(3)])
    part = learning_curves(analyse(tmp_path / "part")).exhibits[0].data
    assert titles[-1] == "mean of 2 tasks"
    write(tmp_path / "both", {k: curves[k] for k in (0, 1)}, seeds=3)
    both = learning_curves(analyse(tmp_path / "both")).exhibits[0].data
    means = [data[data["task"] == "mean of tasks"].reset_index(drop=True) for data in (part, both)]
    pd.testing.assert_frame_equal(*means)  # the third task's lone arm moves nothing
    # a band for the whole curve too, as the caption says
    moving = means[0][means[0]["high"] > means[0]["low"]]
    assert len(moving)
    assert (moving["high_simultaneous"] >= moving["high"]).all()
    titles.clear()
    write(
        tmp_path / "one", {0: curves[0], 1: curves[1]}, seeds=3, skip=[f"scratch-1-{s}" for s in range(3)]
    )
    learning_curves(analyse(tmp_path / "one"))
    assert not [title for title in titles if title.startswith("mean")]


def test_a_suite_of_one_task_is_no_tasks():
    ratio = Estimate(2.0, 1.5, 2.6)
    rows = [plots.ForestRow("suite", ratio, (n,), "2.0", suite=True) for n in (1, 11)]
    texts = [text.get_text() for text in plots.forest(rows).axes[0].texts]
    assert {"1 task", "11 tasks"} <= set(texts)


@pytest.mark.parametrize(
    ("counts", "said"), [([4, 4, 4, 4], "4"), ([4, 2], "4+2"), ([10, 10, 10, 5], "5 to 10")]
)
def test_a_panels_title_has_every_arms_runs_as_long_as_they_fit(counts, said):
    arms = {str(i): SimpleNamespace(count=count) for i, count in enumerate(counts)}
    analysis = SimpleNamespace(name=lambda fold: "walk", of_fold=lambda fold: arms)
    assert panel_title(analysis, 0) == f"walk (n = {said})"
