"""The store: what is written comes back, whatever is killed in between."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from harness.store import Store, StoreError

RUNS = [
    {
        "id": "p",
        "phase": "pretrain",
        "fold": 1,
        "arm": "transfer",
        "seed": 0,
        "tasks": [0],
        "steps": 8,
        "start": None,
    },
    {
        "id": "t",
        "phase": "learn",
        "fold": 1,
        "arm": "transfer",
        "seed": 0,
        "tasks": [1],
        "steps": 8,
        "start": "p",
    },
    {
        "id": "s",
        "phase": "learn",
        "fold": 1,
        "arm": "scratch",
        "seed": 0,
        "tasks": [1],
        "steps": 8,
        "start": None,
    },
]


def row(run="s", checkpoint=0, task="long", **changes):
    return {
        "run": run,
        "checkpoint": checkpoint,
        "steps": 100 * checkpoint,
        "task": task,
        "return_mean": 1.5,
        "return_std": 0.5,
        "length_mean": 20.0,
        "success": 0.25,
        "episodes": 16,
        "diverged": False,
    } | changes


@pytest.fixture
def store(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"runs": RUNS}))
    return Store(tmp_path)


def test_rows_come_back_with_what_the_plan_says_of_their_run(store):
    store.begin("t")
    store.begin("s")
    store.append([row("s", 1), row("t", 0), row("s", 0)])
    table = store.evaluations()
    assert table[["run", "checkpoint", "arm", "fold", "seed"]].values.tolist() == [
        ["t", 0, "transfer", 1, 0],
        ["s", 0, "scratch", 1, 0],
        ["s", 1, "scratch", 1, 0],
    ]
    assert table["start"].tolist()[0] == "p"
    assert table["return_mean"].tolist() == [1.5] * 3


def test_status_follows_the_life_of_a_run(store):
    assert store.status() == {"p": "missing", "t": "missing", "s": "missing"}
    for run_id, status in {"p": "failed", "t": "diverged", "s": "finished"}.items():
        store.begin(run_id)
        assert store.status()[run_id] == "started"
        store.finish(run_id, {"status": status, "steps": np.int64(8), "wall_seconds": 1.5})
        assert store.status()[run_id] == status
    runs = store.runs().set_index("run")
    assert runs.loc["s", "steps"] == 8
    assert runs.loc["s", "wall_seconds"] == 1.5
    assert math.isnan(runs.loc["s", "updates"])
    assert not list(store.directory.glob("runs/*/*.tmp"))


def test_begin_discards_a_killed_or_failed_attempt_but_never_a_result(store):
    store.begin("s")
    store.append([row("s", 0)])
    store.begin("s")
    assert store.evaluations().empty
    store.finish("s", {"status": "failed"})
    store.begin("s")
    assert store.status()["s"] == "started"
    store.append([row("s", 0)])
    store.finish("s", {"status": "finished"})
    with pytest.raises(StoreError, match="already finished"):
        store.begin("s")
    assert len(store.evaluations()) == 1


def test_torn_last_line_is_left_out_and_a_torn_inner_line_is_named(store):
    store.begin("s")
    store.append([row("s", 0), row("s", 1)])
    path = store.directory / "runs/s/rows.jsonl"
    whole = path.read_bytes()
    for cut in (1, 20, 100):
        path.write_bytes(whole[:-cut])
        assert store.evaluations()["checkpoint"].tolist() == [0]
    path.write_bytes(b'{"run": "s", "chec\n' + whole)
    with pytest.raises(StoreError, match=r"rows.jsonl, line 1"):
        store.evaluations()
    path.write_bytes(whole[:-5])
    store.finish("s", {"status": "finished"})
    with pytest.raises(StoreError, match="torn"):
        store.evaluations()


def test_of_two_equal_rows_one_counts_and_a_contradiction_is_refused(store):
    store.begin("s")
    store.append([row("s", 0, return_mean=1.0)])
    store.append([row("s", 0, return_mean=1.0), row("s", 0, task="short", return_mean=3.0)])
    assert store.evaluations()["return_mean"].tolist() == [1.0, 3.0]
    store.append([row("s", 0, return_mean=2.0)])
    with pytest.raises(StoreError, match="line 4, contradicts an earlier row of checkpoint 0, task 'long'"):
        store.evaluations()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("checkpoint", None, "checkpoint is None, no whole number"),
        ("checkpoint", 3.5, "checkpoint is 3.5, no whole number"),
        ("return_mean", "abc", "return_mean is 'abc', no number"),
        ("return_mean", True, "return_mean is True, no number"),
        ("return_mean", math.inf, "Infinity is no number"),
        ("task", ["long"], "task is .*, no text"),
        ("diverged", "no", "diverged is 'no', no true or false"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_line(store, column, value, message):
    store.begin("s")
    store.append([row("s", 0)])
    path = store.directory / "runs/s/rows.jsonl"
    path.write_text(path.read_text() + json.dumps(json.loads(path.read_text()) | {column: value}) + "\n")
    with pytest.raises(StoreError, match=f"rows.jsonl, line 2.*{message}"):
        store.evaluations()


def test_rows_that_were_changed_afterwards_are_found(store):
    store.begin("s")
    store.append([row("s", 0)])
    store.finish("s", {"status": "finished"})
    assert store.changed() == []
    path = store.directory / "runs/s/rows.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"return_mean": 1e3}) + "\n")
    assert store.changed() == ["s"]


def test_nan_is_stored_as_json_and_read_as_nan(store):
    store.begin("s")
    store.append([row("s", 0, return_mean=np.float32("nan"), diverged=np.bool_(True))])
    line = json.loads((store.directory / "runs/s/rows.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["return_mean"] is None
    table = store.evaluations()
    assert math.isnan(table["return_mean"][0])
    assert table["diverged"].dtype == bool
    assert table["diverged"][0]


def test_unknown_runs_are_reported_and_not_mixed_in(store):
    stranger = store.directory / "runs/stranger"
    stranger.mkdir(parents=True)
    (stranger / "rows.jsonl").write_text(json.dumps(row("stranger")) + "\n")
    assert store.unknown() == ["stranger"]
    assert store.evaluations().empty
    assert list(store.evaluations().columns)[:3] == ["run", "checkpoint", "steps"]
    with pytest.raises(StoreError, match="not in"):
        store.append([row("stranger")])


def test_wrong_use_is_refused_before_anything_is_written(store):
    store.begin("s")
    with pytest.raises(StoreError, match="missing; call begin"):
        store.append([row("s"), row("t")])
    bad = row("s")
    bad["succes"] = bad.pop("success")
    with pytest.raises(StoreError, match=r"missing: \['success'\], unknown: \['succes'\]"):
        store.append([row("s"), bad])
    with pytest.raises(StoreError, match="status 'done'"):
        store.finish("s", {"status": "done"})
    with pytest.raises(StoreError, match="begin"):
        store.finish("t", {"status": "finished"})
    assert store.evaluations().empty
    store.finish("s", {"status": "finished"})
    with pytest.raises(StoreError, match="is finished"):
        store.append([row("s")])


def test_a_directory_without_a_plan_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(StoreError, match="mtenvs plan"):
        Store(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(StoreError, match="no JSON"):
        Store(tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps({"runs": [RUNS[0], RUNS[0]]}))
    with pytest.raises(StoreError, match="twice"):
        Store(tmp_path)


@pytest.mark.parametrize("name", ["../../victim", "a/b", "a\\b", "..", ".", "", "a\nb", "a\0", "a" * 300])
def test_no_run_leads_out_of_the_directory(tmp_path, name):
    (tmp_path / "plan.json").write_text(json.dumps({"runs": [RUNS[0] | {"id": name}]}))
    with pytest.raises(StoreError, match=r"runs\[0\].id is .*; names have at most"):
        Store(tmp_path)
