"""The table of all evaluations: every row with its meaning, the same bytes for the same store."""

import json
import os
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from synthetic import CHECKPOINTS, TASKS, ramp, write
from synthetic_plans import SAC, leave_one_out, write_plan_and_rows

from harness.cli import main
from harness.store import Store, StoreError
from harness.table import COLUMNS, columns_page, evaluation_table, export_table

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "results/quickstart"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("planted") / "experiment"
    curves = {3: ramp(2.5), 7: ramp(1.3)}
    return write(directory, curves, seeds=2, version=0, diverge={"scratch-3-1": 9}, skip=["scratch-7-1"])


def exported(directories, out):
    assert export_table(directories, out) == pq.read_metadata(out).num_rows
    return out


def test_every_evaluation_is_there_with_its_score(planted, tmp_path):
    table = pd.read_parquet(exported(planted, tmp_path / "rows.parquet"))
    assert list(table) == list(COLUMNS)
    learning = 2 * 2 * 2 - 1
    assert table["run"].nunique() == learning + 4
    # one run stops at its ninth checkpoint, and pretrainings are evaluated once, on all tasks
    assert len(table) == learning * len(CHECKPOINTS) - (len(CHECKPOINTS) - 9) + 4 * len(TASKS)
    one = table[(table["arm"] == "transfer") & (table["phase"] == "learn") & (table["seed"] == 1)]
    one = one[one["held_out"] == TASKS[7]]
    assert one["steps"].tolist() == CHECKPOINTS
    np.testing.assert_allclose(one["score"], ramp(1.3)(np.array(CHECKPOINTS, float), "transfer", 1))
    assert set(one["task"]) == {TASKS[7]}
    assert set(one["start"]) == {"pretrain-7-1"}
    assert set(table.loc[table["run"] == "scratch-3-1", "status"]) == {"diverged"}
    assert table.loc[table["arm"] == "scratch", "start"].isna().all()
    assert set(table["agent"]) == {"ppo"}
    assert set(table["code"]) == {"true"}
    assert set(table["finetune"]) == {0}
    assert set(table["kind"]) == {"leave_one_out"}
    # this plan is of before these were frozen
    assert table[["agent_version", "architecture", "switches", "told"]].isna().all(axis=None)
    assert set(table["plan"]) == {Store(planted).plan["sha256"][:12]}


def test_agents_and_what_is_handed_on_tell_rows_apart(tmp_path):
    plan = leave_one_out(folds=(0,), seeds=1, arms=("scratch", "transfer"), learner=SAC, version=0)
    for run in plan["runs"]:
        given = run["start"] is not None
        run |= {"switches": ["freeze_trunk", "fresh_critic"] * given, "told": "mean" if given else "own"}
    table = pd.read_parquet(exported(write_plan_and_rows(tmp_path, plan), tmp_path / "rows.parquet"))
    named = table.groupby(["agent", "agent_version", "architecture", "conditioning", "switches", "told"])
    assert {key: set(rows["run"]) for key, rows in named} == {
        ("sb3:sac", "2", "film", "descriptor", "", "own"): {
            "learn-0-scratch-0-0",
            "pretrain-0-transfer-0",
        },
        ("sb3:sac", "2", "film", "descriptor", "freeze_trunk,fresh_critic", "mean"): {
            "learn-0-transfer-0-0"
        },
    }


def test_what_was_not_measured_is_null(tmp_path):
    directory = write(tmp_path / "store", {0: ramp(2.0)}, seeds=1, version=0)
    path = directory / "runs/scratch-0-0/rows.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["return_mean"] = None if line["checkpoint"] == 5 else line["return_mean"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = exported(directory, tmp_path / "rows.parquet")
    column = pq.read_table(out)["score"]
    assert column.null_count == 1
    # a NaN would make the mean of SQL NaN, a null is left out
    ((mean,),) = duckdb.sql(f"select avg(score) from '{out}' where run = 'scratch-0-0'").fetchall()
    scores = ramp(2.0)(np.array(CHECKPOINTS, float), "scratch", 0)
    assert mean == pytest.approx(np.delete(scores, 5).mean())


def test_a_joint_run_has_no_held_out_task(tmp_path):
    directory = write(tmp_path, {0: ramp(2.0)}, seeds=1, version=0)
    plan = json.loads((directory / "plan.json").read_text())
    # separate networks have the number of their task
    for run in plan["runs"]:
        run["fold"] = 0 if run["arm"] == "scratch" else -1
    (directory / "plan.json").write_text(json.dumps(plan | {"kind": "joint"}))
    table = evaluation_table(directory)
    assert table["held_out"].isna().all()
    assert set(table["kind"]) == {"joint"}


def test_types_units_and_meanings_are_in_the_file(planted, tmp_path):
    schema = pq.read_schema(exported(planted, tmp_path / "rows.parquet"))
    assert [str(t).replace("double", "float64") for t in schema.types] == [c.type for c in COLUMNS.values()]
    for name, column in COLUMNS.items():
        metadata = schema.field(name).metadata
        assert metadata[b"unit"].decode() == column.unit
        assert metadata[b"meaning"].decode() == column.meaning
    assert pq.read_metadata(tmp_path / "rows.parquet").row_group(0).column(0).compression == "ZSTD"


def test_the_documented_columns_are_those_of_the_code():
    assert (ROOT / "docs/rows.md").read_text() == columns_page()


def test_bytes_depend_on_the_store_alone(planted, tmp_path):
    first = exported([QUICKSTART, planted], tmp_path / "first.parquet").read_bytes()
    copy = tmp_path / "elsewhere"
    shutil.copytree(planted, copy)
    for path in (copy / "runs").glob("*/rows.jsonl"):
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    again = exported([copy, QUICKSTART], tmp_path / "deep" / "again.parquet")
    assert again.read_bytes() == first
    assert os.listdir(again.parent) == ["again.parquet"]


def test_duckdb_and_pandas_read_the_stored_quick_start(tmp_path):
    out = exported(QUICKSTART, tmp_path / "rows.parquet")
    table = pd.read_parquet(out)
    assert len(table) == len(Store(QUICKSTART).evaluations())
    query = f"""
        select held_out, arm, avg(score) as score from '{out}'
        where phase = 'learn' and steps = budget group by all order by all
    """
    ours = table[(table["phase"] == "learn") & (table["steps"] == table["budget"])]
    ours = ours.groupby(["held_out", "arm"], as_index=False)["score"].mean()
    pd.testing.assert_frame_equal(duckdb.sql(query).df(), ours, check_dtype=False)
    assert len(ours) == 4


def test_wrong_input_is_refused_by_name(planted, tmp_path):
    out = tmp_path / "rows.parquet"
    with pytest.raises(ValueError, match="hold the same plan"):
        export_table([planted, planted], out)
    with pytest.raises(ValueError, match="no directory"):
        export_table([], out)
    with pytest.raises(StoreError, match=r"no plan\.json"):
        export_table(tmp_path, out)
    with pytest.raises(IsADirectoryError, match=r"rows\.parquet"):
        export_table(planted, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_file_or_the_page(tmp_path, capsys):
    out = tmp_path / "rows.parquet"
    main(["table", str(QUICKSTART), "--out", str(out)])
    assert f"wrote {out}: 324 evaluations of 1 plan" in capsys.readouterr().out
    main(["table", "--columns"])
    assert capsys.readouterr().out == columns_page()
    for words in ([], ["--columns", str(QUICKSTART)]):
        with pytest.raises(SystemExit) as stop:
            main(["table", *words])
        assert stop.value.code == 2
        assert "directories" in capsys.readouterr().err
