"""Source selection on planted matrices whose transfer decays with distance, and what it must not see."""

import numpy as np
import pandas as pd
import pytest

from harness.selection import METHODS, choose, select_sources

TASKS = 9


def planted(seed, decay=1.0, quality=0.6, noise=0.05, tasks=TASKS):
    """log ratio = 1.5 + skill(source) - decay * distance + noise; skill linear in the descriptor."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (tasks, 2))
    names = [f"task-{k}" for k in range(tasks)]
    skill = quality * points @ rng.standard_normal(2)
    rows = [
        {
            "source": names[s],
            "target": names[t],
            "log_ratio": 1.5
            + skill[s]
            - decay * np.linalg.norm(points[s] - points[t])
            + noise * rng.standard_normal(),
        }
        for s in range(tasks)
        for t in range(tasks)
        if s != t
    ]
    return pd.DataFrame(rows), dict(zip(names, points.tolist(), strict=True))


@pytest.fixture(scope="module")
def results():
    tables = [
        select_sources(*planted(seed), most=5, draws=200).assign(matrix=seed).set_index(["method", "n"])
        for seed in range(6)
    ]
    return pd.concat(tables)


def test_the_model_beats_chance_on_average_and_the_oracle_bounds_all(results):
    mean = results.groupby(["method", "n"])["value"].mean().unstack("method")
    assert set(mean) == set(METHODS)
    # at five of eight sources chance is near the oracle too
    assert (mean["model"] > mean["random"] + 0.03).loc[:4].all()
    # which is no matter of the central start alone: it catches up on what chance leaves to the oracle
    left = (mean["oracle"] - mean["model"]) / (mean["oracle"] - mean["random"])
    assert left.loc[4] < 0.5
    for _, table in results.groupby("matrix"):
        values = table["value"].unstack("method")
        assert (values.le(values["oracle"] + 1e-12, axis=0)).all(axis=None)
        # more sources are never worse, and of the drawn orders the mean lies within their range
        assert (values.diff().dropna() >= -1e-12).all(axis=None)
        assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    drawn = results["high"] - results["low"] > 0
    assert set(results.index[drawn].get_level_values("method")) == {"random"}


def test_with_all_sources_every_method_is_the_oracle():
    table = select_sources(*planted(0, tasks=5), draws=20).set_index(["method", "n"])["value"].unstack("n")
    assert list(table.columns) == [1, 2, 3, 4]
    np.testing.assert_allclose(table[4], table.loc["oracle", 4])


def test_one_source_at_random_is_the_mean_of_the_matrix():
    matrix, descriptors = planted(1)
    table = select_sources(matrix, descriptors, most=1, draws=4000).set_index("method")
    assert table.loc["random", "value"] == pytest.approx(matrix["log_ratio"].mean(), abs=0.02)
    best = matrix.groupby("target")["log_ratio"].max().mean()
    assert table.loc["oracle", "value"] == pytest.approx(best)


def test_hand_computed_spread():
    # on a line the central task comes first, then the far end; the target itself is never a source
    descriptors = {"a": [0.0], "b": [1.0], "c": [2.0], "d": [5.0]}
    value = {(s, t): 10.0 * i + j for i, s in enumerate("abcd") for j, t in enumerate("abcd") if s != t}
    matrix = pd.DataFrame([{"source": s, "target": t, "score": v} for (s, t), v in value.items()])
    table = select_sources(matrix, descriptors, value="score", draws=1).set_index(["method", "n"])["value"]
    # targets a, b, c, d have the central tasks c (of b c d), c (of a c d), b (of a b d), b (of a b c)
    first = [value["c", "a"], value["c", "b"], value["b", "c"], value["b", "d"]]
    assert table["spread", 1] == pytest.approx(np.mean(first))
    # and then d, d, d and a, of equally far a and c the first
    second = [value["d", "a"], value["d", "b"], value["d", "c"], value["b", "d"]]
    assert table["spread", 2] == pytest.approx(np.mean(second))


def test_the_choice_reads_neither_the_target_nor_what_is_not_trained_yet():
    matrix, descriptors = planted(2)
    chosen = choose(matrix, descriptors, "task-4", 4)
    assert len(set(chosen)) == 4
    assert "task-4" not in chosen
    unseen = (
        (matrix["target"] == "task-4")
        | (matrix["source"] == "task-4")
        # the last choice is made before its row is seen
        | ~matrix["source"].isin(chosen[:-1])
    )
    changed = matrix.assign(log_ratio=matrix["log_ratio"].where(~unseen, 99.0))
    assert choose(changed, descriptors, "task-4", 4) == chosen
    # while what is seen does matter
    seen = matrix.assign(log_ratio=matrix["log_ratio"].where(unseen, -(matrix["log_ratio"] ** 2)))
    assert choose(seen, descriptors, "task-4", 4) != chosen


def test_rows_in_any_order_and_repeated_calls_give_the_same():
    matrix, descriptors = planted(3, tasks=6)
    table = select_sources(matrix, descriptors, draws=50)
    shuffled = matrix.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(table, select_sources(shuffled, descriptors, draws=50))
    own = pd.DataFrame([{"source": "task-1", "target": "task-1", "log_ratio": 50.0}])
    pd.testing.assert_frame_equal(table, select_sources(pd.concat([matrix, own]), descriptors, draws=50))


def test_equal_values_are_no_failure():
    matrix, descriptors = planted(0, tasks=4)
    table = select_sources(matrix.assign(log_ratio=0.25), descriptors, draws=5)
    np.testing.assert_allclose(table[["value", "low", "high"]], 0.25)


def test_wrong_input_is_refused_by_name():
    matrix, descriptors = planted(0, tasks=4)
    for changed, points, message in (
        (matrix.drop(columns="target"), descriptors, "no column target"),
        (matrix.iloc[1:], descriptors, "no finite log_ratio for task-0 -> task-1"),
        (matrix.assign(log_ratio=np.nan), descriptors, "task-3 -> task-2"),
        (pd.concat([matrix, matrix.iloc[:1]]), descriptors, "more than one row for task-0 -> task-1"),
        (matrix[matrix["target"] == "task-0"].iloc[:1], descriptors, "at least 3 tasks"),
        (matrix, {"task-0": [1.0]}, "no descriptor of task-1, task-2, task-3"),
        (matrix, descriptors | {"task-2": [1.0]}, "equally long"),
    ):
        with pytest.raises(ValueError, match=message):
            select_sources(changed, points)
    with pytest.raises(ValueError, match="most must be 1 to 3"):
        select_sources(matrix, descriptors, most=4)
    with pytest.raises(ValueError, match="draws must be positive"):
        select_sources(matrix, descriptors, draws=0)
    with pytest.raises(ValueError, match="unknown task 'task-9'; valid: task-0"):
        choose(matrix, descriptors, "task-9", 1)
    with pytest.raises(ValueError, match="n must be 1 to 3"):
        choose(matrix, descriptors, "task-0", 0)
