"""What is packed is read as if it were not, whoever packed it, and is never written twice."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from fuzzing import small_learner
from synthetic import ramp, write_planned

from baselines.checkpoint import FACTS, STRIPPED, TENSORS, read_facts
from baselines.learner import Start
from baselines.registry import load_policy, make_learner
from harness import cli
from harness.compare import compare, leaderboard
from harness.lock import lock_path, locked
from harness.pack import kept_networks, pack
from harness.parquet import MOST_UNPACKED, decoded, encoded
from harness.plan import PlanError, Preset, load_plan, make_plan
from harness.report import analyse, write_report
from harness.run import checkpoint_path, run_plan
from harness.status import status_of
from harness.store import RECORD_COLUMNS, RECORDS, ROW_COLUMNS, ROWS, Store, StoreError, UnpackableError
from harness.table import export_table
from mtenvs.vector_env import TaskVectorEnv

SETTINGS = Preset(
    folds=(3, 5), arms=("scratch", "transfer"), seeds=3, budget=8000, pretrain_budget=8000, checkpoints=4,
    episodes=2, first_episodes=100, cohort_runs=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def loose(tmp_path_factory):
    """A finished plan of several cohorts, with all the networks that a training leaves."""
    directory = tmp_path_factory.mktemp("pack") / "loose"
    plan = make_plan("Biped", SETTINGS, small_learner())
    curves = {fold: ramp(2.0, seed=fold, scratch_steps=5000) for fold in SETTINGS.folds}
    write_planned(directory, plan, curves)
    worlds = TaskVectorEnv("Biped", 1)
    for number, run_id in enumerate(kept_networks(plan, SETTINGS.seeds)):
        learner = make_learner("ppo", plan["learner"]["config"], worlds, [number])
        learner._adam.first += 1.0
        learner.save(0, checkpoint_path(directory, run_id))
    assert len(plan["cohorts"]) >= 5
    return directory


@pytest.fixture
def copy(loose, tmp_path):
    shutil.copytree(loose, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def packed(copy):
    pack(copy)
    return copy


def files(directory: Path, pattern: str = "**/*") -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in sorted(directory.glob(pattern))
        if p.is_file()
    }


def shards(directory: Path) -> dict[str, bytes]:
    return files(directory, f"{ROWS}/*") | files(directory, f"{RECORDS}/*")


def test_every_command_reads_what_is_packed_as_what_is_loose(loose, copy, tmp_path, capsys):
    found = pack(copy)
    plan = load_plan(copy)
    assert (found.new, found.before, found.left) == (len(plan["cohorts"]), 0, {})
    assert found.runs == len(plan["runs"])
    assert sorted(p.name for p in copy.iterdir()) == ["checkpoints", "plan.json", RECORDS, ROWS]
    one, other = Store(loose), Store(copy)
    assert one.evaluations().equals(other.evaluations())
    assert one.runs().equals(other.runs())
    assert one.records() == other.records()
    assert other.changed() == other.unknown() == []
    assert status_of(loose) == status_of(copy)
    export_table(loose, tmp_path / "loose.parquet")
    export_table(copy, tmp_path / "packed.parquet")
    assert (tmp_path / "loose.parquet").read_bytes() == (tmp_path / "packed.parquet").read_bytes()
    cli.main(["status", str(copy)])
    assert f"{len(plan['runs'])} finished" in capsys.readouterr().out
    another = make_plan("Biped", dataclasses.replace(SETTINGS, root_seed=1), small_learner())
    write_planned(tmp_path / "another", another, {3: ramp(1.5), 5: ramp(1.5, seed=1)})
    a, b = (compare([directory, tmp_path / "another"]).text() for directory in (loose, copy))
    assert a.split() == b.replace("copy", "loose").split()
    a, b = leaderboard(loose).table, leaderboard(copy).table
    assert a.drop(columns="plan").equals(b.drop(columns="plan"))
    for directory in (loose, copy):
        write_report(directory)
    assert files(loose / "report") == files(copy / "report")
    assert len(files(copy / "report")) > 10
    shutil.rmtree(loose / "report")


def test_rows_and_records_come_back_to_the_last_bit(loose, packed):
    store = Store(packed)
    for run_id, status in store.status().items():
        lines = (loose / "runs" / run_id / "rows.jsonl").read_text().splitlines()
        assert store.lines(run_id) == sorted(lines)
        assert status == "finished"
        assert store.record(run_id) == json.loads((loose / "runs" / run_id / "done.json").read_text())
        assert store.rows_sha256(run_id) == store.record(run_id)["rows_sha256"]


def test_packed_rows_are_small():
    """A cohort of the usual size, of numbers that nothing makes shorter."""
    rng = np.random.default_rng(0)
    rows = [
        {"run": f"learn-3-transfer-{run}-{rng.integers(16**9):010x}", "checkpoint": c, "steps": 12_544 * c,
         "task": "long-shins", "code": "true", "return_mean": rng.normal(), "return_std": rng.normal(),
         "length_mean": rng.integers(8000) / 16, "success": rng.integers(17) / 16, "episodes": 16,
         "diverged": False}
        for run in range(20) for c in range(22)
    ]  # fmt: skip
    content = encoded(rows, ROW_COLUMNS)
    assert len(content) < 28 * len(rows) < sum(len(json.dumps(row)) for row in rows) / 9
    assert encoded(rows, ROW_COLUMNS) == content


def test_a_cohort_is_written_once_whatever_comes_later(loose, copy, tmp_path):
    """An unfinished plan is packed as far as it is, and what was packed stays the same file."""
    plan = load_plan(copy)
    late = [cohort[0] for cohort in plan["cohorts"][-2:]]
    for run_id in late:
        shutil.rmtree(copy / "runs" / run_id)
    found = pack(copy)
    assert sorted(found.left) == [len(plan["cohorts"]) - 2, len(plan["cohorts"]) - 1]
    assert "1 of its" in found.left[len(plan["cohorts"]) - 1]
    assert {p.name for p in (copy / "runs").iterdir()} == {
        i for cohort in plan["cohorts"][-2:] for i in cohort if i not in late
    }
    assert Store(copy).status() == Store(loose).status() | dict.fromkeys(late, "missing")
    before = shards(copy)
    times = {name: (copy / name).stat().st_mtime_ns for name in before}
    for run_id in late:
        shutil.copytree(loose / "runs" / run_id, copy / "runs" / run_id)
    found = pack(copy)
    assert (found.new, found.left) == (2, {})
    assert {name: (copy / name).stat().st_mtime_ns for name in before} == times
    assert not (copy / "runs").exists()
    # and all are what packing at once gives, elsewhere, of lines in another order
    for path in loose.glob("runs/*/rows.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(reversed(lines)))
    there = files(loose)
    pack(loose, tmp_path / "out")
    assert shards(tmp_path / "out") == shards(copy)
    assert files(loose) == there
    assert (tmp_path / "out/plan.json").read_bytes() == (copy / "plan.json").read_bytes()
    assert pack(loose, tmp_path / "out").new == 0


def test_a_run_that_is_loose_and_packed_must_be_the_same(loose, packed):
    run_id = load_plan(packed)["runs"][0]["id"]
    shutil.copytree(loose / "runs" / run_id, packed / "runs" / run_id)
    assert Store(packed).evaluations().equals(Store(loose).evaluations())
    assert pack(packed).new == 0
    assert not (packed / "runs").exists()
    shutil.copytree(loose / "runs" / run_id, packed / "runs" / run_id)
    done = packed / "runs" / run_id / "done.json"
    done.write_text(json.dumps(json.loads(done.read_text()) | {"updates": 7}))
    with pytest.raises(StoreError, match=r"two results.*updates: 7 and 100"):
        Store(packed).runs()


@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_a_kill_while_loose_runs_are_removed_hides_no_row(loose, copy, monkeypatch, removed):
    """After each single file of the first runs that are removed."""
    unlink, gone = os.unlink, []

    def killed(path, *args, **more):
        if Path(path).name in ("rows.jsonl", "done.json"):
            if len(gone) == removed:
                raise KeyboardInterrupt
            gone.append(path)
        unlink(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(copy)
    assert len(gone) == removed
    check_whole(loose, copy)


@pytest.mark.parametrize("left", ["rows.jsonl", "done.json"])
def test_half_a_loose_run_beside_what_is_packed_hides_no_row(loose, packed, left):
    run_id = load_plan(packed)["runs"][0]["id"]
    (packed / "runs" / run_id).mkdir(parents=True)
    shutil.copy(loose / "runs" / run_id / left, packed / "runs" / run_id)
    check_whole(loose, packed)


def check_whole(loose, copy):
    """Nothing of a plan is lost, and packing it again leaves nothing loose."""
    one, other = Store(loose), Store(copy)
    assert one.evaluations().equals(other.evaluations())
    assert one.status() == other.status()
    for run_id in one.status():
        assert one.lines(run_id) == other.lines(run_id)
        assert one.rows_sha256(run_id) == other.rows_sha256(run_id)
    assert other.changed() == []
    assert pack(copy).left == {}
    assert not (copy / "runs").exists()


def test_what_cannot_be_removed_is_told(copy, monkeypatch):
    unlink = os.unlink

    def refused(path, *args, **more):
        if Path(path).name == "rows.jsonl":
            raise PermissionError(f"not allowed: {path}")
        unlink(path, *args, **more)

    monkeypatch.setattr(os, "unlink", refused)
    with pytest.raises(PermissionError, match="not allowed"):
        pack(copy)


def test_another_result_is_not_packed_over(loose, copy, tmp_path):
    pack(loose, tmp_path / "out")
    done = next(copy.glob("runs/*/done.json"))
    done.write_text(json.dumps(json.loads(done.read_text()) | {"updates": 7}))
    before = shards(tmp_path / "out")
    with pytest.raises(StoreError, match="another result"):
        pack(copy, tmp_path / "out")
    assert shards(tmp_path / "out") == before


def test_another_plan_is_not_packed_into(loose, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PlanError, match="not empty"):
        pack(loose, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def altered(directory: Path, number: int, change) -> None:
    """Writes other rows into a packed cohort."""
    path = Store(directory).shard(ROWS, number)
    table = decoded(path, ROW_COLUMNS)
    change(table)
    path.write_bytes(encoded(table, ROW_COLUMNS))


def test_a_packed_row_that_was_changed_is_noticed(packed, capsys):
    altered(packed, 2, lambda rows: rows[0].update(return_mean=1e3))
    (changed,) = Store(packed).changed()
    assert changed == Store(packed).cohorts[2][0]
    assert "rows changed" in analyse(packed).marks
    with pytest.raises(StoreError, match="not those that it was finished with"):
        pack(packed)
    with pytest.raises(SystemExit) as stop:
        cli.main(["pack", str(packed)])
    assert stop.value.code == 2
    assert changed in capsys.readouterr().err.replace("\n", "")


def test_rows_that_were_changed_before_are_not_packed(copy):
    path = next(copy.glob("runs/*/rows.jsonl"))
    path.write_text(path.read_text().replace("16", "17", 1))
    with pytest.raises(StoreError, match=path.parent.name):
        pack(copy)
    assert not (copy / ROWS).exists()


def test_rows_that_would_not_come_back_stay_as_they_are(copy):
    """Such as a whole number for a mean, which is the same number but not the same bytes."""
    store, run_id = Store(copy), load_plan(copy)["cohorts"][1][0]
    path = copy / "runs" / run_id / "rows.jsonl"
    path.write_text(path.read_text().replace('"length_mean": 400.0', '"length_mean": 400'))
    record = {k: v for k, v in store.record(run_id).items() if k != "rows_sha256"}
    store.finish(run_id, record)
    found = pack(copy)
    assert list(found.left) == [1]
    assert "would not come back" in found.left[1]
    assert path.is_file()
    assert not Store(copy).packed(1)
    assert Store(copy).changed() == []


@pytest.mark.parametrize("change", [{"code": None}, {"episodes": "many"}, {"task": 3}])
def test_rows_of_other_columns_or_kinds_are_left_and_told(copy, change):
    """Rows of plans of format 1 have no code; what else is written nobody knows."""
    store, run_id = Store(copy), load_plan(copy)["cohorts"][1][0]
    path = copy / "runs" / run_id / "rows.jsonl"
    rows = [json.loads(line) | change for line in path.read_text().splitlines()]
    rows = [{key: value for key, value in row.items() if (key, value) != ("code", None)} for row in rows]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    record = {k: v for k, v in store.record(run_id).items() if k != "rows_sha256"}
    store.finish(run_id, record)
    before = files(copy, f"runs/{run_id}/*")
    records = {i: store.record(i) for i in store.cohorts[1]}
    with pytest.raises(UnpackableError, match="cannot be packed as they are"):
        store.pack(1, records, {i: store.lines(i) for i in store.cohorts[1]})
    assert not (copy / ROWS).exists()
    if "code" in change:
        found = pack(copy)
        assert list(found.left) == [1]
        assert "a row has no code" in found.left[1]
        assert files(copy, f"runs/{run_id}/*") == before


def test_what_is_packed_is_on_the_disk_before_what_is_loose_is_removed(copy, monkeypatch):
    fsync, unlink, synced, checked = os.fsync, os.unlink, set(), []

    def force(file):
        synced.add(Path(os.readlink(f"/proc/self/fd/{file}")))
        fsync(file)

    def removed(path, *args, **more):
        if Path(path).name == "done.json":
            checked.append({copy, copy / ROWS, copy / RECORDS} <= synced)
        unlink(path, *args, **more)

    monkeypatch.setattr(os, "fsync", force)
    monkeypatch.setattr(os, "unlink", removed)
    pack(copy)
    assert checked
    assert all(checked)


def test_what_is_packed_is_not_begun_again(packed):
    store = Store(packed)
    run_id = store.cohorts[1][0]
    for call in (store.begin, store.discard):
        with pytest.raises(StoreError, match=r"0001.parquet and .*0001.parquet, with all"):
            call(run_id)


def test_training_goes_on_beside_what_is_packed(whole, tmp_path):
    """Only what is missing is trained, from networks that were published, and packed beside the others."""
    shutil.copytree(whole, tmp_path / "plan")
    directory = tmp_path / "plan"
    pack(directory)
    plan, before = load_plan(directory), shards(directory)
    learned = [n for n, cohort in enumerate(plan["cohorts"]) if cohort[0].startswith("learn")]
    assert 0 < len(learned) < len(plan["cohorts"])
    for number in learned:
        Store(directory).unpack(number)
    run_plan(directory)
    trained = {i for n in learned for i in plan["cohorts"][n]}
    assert {p.name for p in (directory / "runs").iterdir()} == trained
    pack(directory)
    after = shards(directory)
    assert {n: b for n, b in after.items() if n.startswith(ROWS)} == {
        n: b for n, b in before.items() if n.startswith(ROWS)
    }
    assert Store(directory).evaluations().equals(Store(whole).evaluations())


# --- networks --------------------------------------------------------------------------------------


def test_published_networks_are_few_and_play_as_before(loose, tmp_path):
    plan = load_plan(loose)
    found = pack(loose, tmp_path / "out", networks=1)
    kept = {p.name for p in (tmp_path / "out/checkpoints").iterdir()}
    handed_on = {r["id"] for r in plan["runs"] if r["phase"] == "pretrain" and r["seed"] == 0}
    fold = plan["runs"][0]["fold"]
    first = {r["id"] for r in plan["runs"] if (r["phase"], r["fold"], r["seed"]) == ("learn", fold, 0)}
    assert len(first) == len({r["arm"] for r in plan["runs"]}) < len(kept)
    assert kept == handed_on | first == {*kept_networks(plan, 1)}
    assert found.networks == len(kept)
    observations = np.random.default_rng(0).normal(size=(2, 300)).astype(np.float32)
    size = TaskVectorEnv("Biped", 1).observation_slices.size
    for run_id in sorted(kept)[:2]:
        old, new = (checkpoint_path(d, run_id) for d in (loose, tmp_path / "out"))
        acts = [load_policy(path, "Biped").act(observations[:, :size]) for path in (old, new)]
        np.testing.assert_array_equal(*acts)
        assert (new / TENSORS).stat().st_size < 0.6 * (old / TENSORS).stat().st_size
        assert read_facts(new)[STRIPPED] == "optimizer"
        learner = make_learner("ppo", plan["learner"]["config"], TaskVectorEnv("Biped", 1), [0])
        learner.load(0, new)
        with pytest.raises(ValueError, match="without its optimiser's state"):
            learner.load(0, new, Start(keep_optimizer=True))
        learner.load(0, old, Start(keep_optimizer=True))
    before = files(tmp_path / "out")
    assert pack(tmp_path / "out", networks=1).networks == len(kept)
    assert files(tmp_path / "out") == before


def test_networks_that_are_still_needed_stay_whole(copy):
    plan = load_plan(copy)
    (run,) = [
        r
        for r in plan["runs"]
        if (r["phase"], r["arm"], r["fold"], r["seed"]) == ("learn", "transfer", 3, 2)
    ]
    shutil.rmtree(copy / "runs" / run["id"])
    pack(copy, networks=0)
    kept = {p.name for p in (copy / "checkpoints").iterdir()}
    assert kept == {*kept_networks(plan, 0), run["start"]}
    assert STRIPPED not in read_facts(checkpoint_path(copy, run["start"]))
    with pytest.raises(ValueError, match="must not be negative"):
        pack(copy, networks=-1)


def test_networks_that_a_damaged_run_needs_stay_whole(copy):
    """Its rows are not all there, so that it will be trained again, from that network."""
    plan, store = load_plan(copy), Store(copy)
    run = next(r for r in plan["runs"] if (r["phase"], r["arm"], r["seed"]) == ("learn", "transfer", 2))
    record = {k: v for k, v in store.record(run["id"]).items() if k != "rows_sha256"}
    store.discard(run["id"])
    store.truncate(run["id"], 2)
    store.finish(run["id"], record)
    found = pack(copy, networks=0)
    assert [run["id"] in why for why in found.left.values()] == [True]
    assert STRIPPED not in read_facts(checkpoint_path(copy, run["start"]))


def test_networks_of_a_cohort_that_is_being_trained_are_left_alone(copy, tmp_path):
    plan, before = load_plan(copy), files(copy, "checkpoints/**/*")
    cohort = next(c for c in plan["cohorts"] if c[0].startswith("pretrain"))
    mine = {name: content for name, content in before.items() if Path(name).parts[1] in cohort}
    assert mine
    with locked(lock_path(copy, cohort)):
        pack(copy, tmp_path / "out", networks=3)
        pack(copy, networks=0)
    assert {Path(name).parts[1] for name in files(tmp_path / "out", "checkpoints/**/*")}.isdisjoint(cohort)
    after = files(copy, "checkpoints/**/*")
    assert {name: content for name, content in after.items() if Path(name).parts[1] in cohort} == mine
    assert len(after) < len(before)


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_a_kill_while_networks_are_thinned_out_loses_none(loose, copy, monkeypatch, renamed):
    rename, done = os.rename, []

    def killed(*names, **more):
        if len(done) == renamed:
            raise KeyboardInterrupt
        done.append(names)
        rename(*names, **more)

    with monkeypatch.context() as patch:
        patch.setattr("harness.pack.os.rename", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(copy, networks=1)
    kept = {*kept_networks(load_plan(copy), 1)}
    assert pack(copy, networks=1).networks == len(kept)
    assert {p.name for p in (copy / "checkpoints").iterdir()} == kept
    # what is stripped already is not written again
    times = [p.stat().st_mtime_ns for p in sorted(copy.glob("checkpoints/*/*"))]
    pack(copy, networks=1)
    assert [p.stat().st_mtime_ns for p in sorted(copy.glob("checkpoints/*/*"))] == times


def test_fewer_networks_later_leave_fewer(loose, tmp_path):
    plan = load_plan(loose)
    assert pack(loose, tmp_path / "out", networks=3).networks == len(kept_networks(plan, 3))
    assert pack(loose, tmp_path / "out", networks=1).networks == len(kept_networks(plan, 1))
    assert {p.name for p in (tmp_path / "out/checkpoints").iterdir()} == {*kept_networks(plan, 1)}


def test_moments_stay_where_the_plan_hands_them_on(tmp_path):
    directory = tmp_path / "plan"
    settings = dataclasses.replace(SETTINGS, keep_optimizer=True, folds=(3,))
    plan = make_plan("Biped", settings, small_learner())
    write_planned(directory, plan, {3: ramp(2.0, scratch_steps=5000)})
    worlds = TaskVectorEnv("Biped", 1)
    for run_id in kept_networks(plan, 1):
        make_learner("ppo", plan["learner"]["config"], worlds, [0]).save(
            0, checkpoint_path(directory, run_id)
        )
    pack(directory, networks=1)
    stripped = {p.name for p in (directory / "checkpoints").iterdir() if STRIPPED in read_facts(p)}
    assert stripped == {i for i in kept_networks(plan, 1) if i.startswith("learn")}


# --- strangers' files ------------------------------------------------------------------------------

RUN_OF_OTHERS = "pretrain-3-transfer-0-0000000000"


def rows_with(**changes):
    def change(rows):
        rows[0].update(changes)

    return change


ROWS_SPOILT = {
    "of another run": rows_with(run=RUN_OF_OTHERS),
    "a task that is no text": rows_with(task="a\nb"),
    "a formula": rows_with(task="=1+1"),
    "an unknown code": rows_with(code="none"),
    "no number of a checkpoint": rows_with(checkpoint=None),
    "too large a number": rows_with(steps=2**60),
    "not a number": rows_with(return_mean=float("nan")),
    "infinite": rows_with(return_mean=float("inf")),
    "no truth": rows_with(diverged=None),
    "a contradiction": lambda rows: rows.append({**rows[0], "return_mean": -5.0}),
}  # fmt: skip


@pytest.mark.parametrize("what", ROWS_SPOILT)
def test_packed_rows_are_checked_like_loose_ones(packed, what):
    altered(packed, 0, ROWS_SPOILT[what])
    with pytest.raises(StoreError, match=r"rows/0000.parquet, row \d+"):
        Store(packed).evaluations()


RECORDS_SPOILT = {
    "one is missing": lambda table: table.pop(),
    "one is there twice": lambda table: table.append(table[0]),
    "not complete": lambda table: table[0].update(status="failed"),
    "no hash": lambda table: table[0].update(rows_sha256=None),
    "negative time": lambda table: table[0].update(wall_seconds=-1.0),
    "no object": lambda table: table[0].update(more="[1]"),
    "no JSON": lambda table: table[0].update(more="{'a': 1}"),
    "nothing more": lambda table: table[0].update(more=None),
    "nested too deep": lambda table: table[0].update(more="[" * 60_000),
}


@pytest.mark.parametrize("what", RECORDS_SPOILT)
def test_packed_records_are_checked_like_loose_ones(packed, what):
    path = packed / RECORDS / "0000.parquet"
    table = decoded(path, RECORD_COLUMNS)
    RECORDS_SPOILT[what](table)
    path.write_bytes(encoded(table, RECORD_COLUMNS))
    with pytest.raises(StoreError, match=r"records/0000.parquet"):
        Store(packed).status()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("kind", [ROWS, RECORDS])
def test_files_that_are_no_such_tables_are_refused_and_run_nothing(packed, tmp_path, kind):
    path = packed / kind / "0001.parquet"
    right = path.read_bytes()
    columns = ROW_COLUMNS if kind == ROWS else RECORD_COLUMNS
    table = decoded(path, columns)
    other = {**columns, "extra": "int64"}
    swapped = dict(reversed(columns.items()))
    for content in (
        b"", b"PAR1", b"PAR1PAR1", right[:-20], right[20:], right[: len(right) // 2],
        pickle.dumps(Trap(tmp_path / "sprung")),
        encoded([{**row, "extra": 1} for row in table], other),
        encoded(table, swapped),
        encoded([{**row, "run": 1} for row in table], {**columns, "run": "int64"}),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(StoreError, match=rf"{kind}/0001.parquet cannot be read"):
            Store(packed).evaluations()
    assert not (tmp_path / "sprung").exists()
    path.unlink()
    if kind == ROWS:
        with pytest.raises(StoreError, match="is gone"):
            Store(packed).evaluations()
    else:  # rows that were being packed when that was killed
        assert {Store(packed).status()[i] for i in Store(packed).cohorts[1]} == {"missing"}


def test_what_is_larger_than_can_be_meant_is_not_unpacked(packed, monkeypatch):
    path = packed / ROWS / "0000.parquet"
    row = decoded(path, ROW_COLUMNS)[0]
    path.write_bytes(encoded([row] * 300_000, ROW_COLUMNS))
    assert path.stat().st_size < 12_000
    with pytest.raises(StoreError, match=r"it says that it holds 300,000 rows, .* at most \d{3} and"):
        Store(packed).evaluations()
    for name, most in (("MOST_ROWS", 1), ("MOST_UNPACKED", 100), ("MOST_BYTES", 1000), ("LONGEST_TEXT", 3)):
        with monkeypatch.context() as patch:
            patch.setattr(f"harness.parquet.{name}", most)
            with pytest.raises(StoreError, match=r"\d{4}\.parquet cannot be read: it"):
                Store(packed).evaluations()
    assert MOST_UNPACKED < 2**30


def test_a_text_that_many_rows_share_is_unpacked_once(tmp_path):
    """A file of some hundred bytes, whose rows would take a hundred megabytes each with its own text."""
    path, text = tmp_path / "long.parquet", "x" * 1000
    path.write_bytes(encoded([{"name": text}] * 100_000, {"name": "str"}))
    assert path.stat().st_size < 2000
    tracemalloc.start()
    rows = decoded(path, {"name": "str"})
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 100_000
    assert {row["name"] for row in rows} == {text}
    assert used < 50_000_000
    with pytest.raises(ValueError, match="a text of 70,000 bytes in name, more than 65,536"):
        encoded([{"name": 70_000 * "x"}], {"name": "str"})


def test_a_flipped_bit_is_noticed_or_changes_nothing(packed):
    usual = Store(packed).evaluations()
    noticed = 0
    rng = np.random.default_rng(0)
    for kind in (ROWS, RECORDS):
        path = packed / kind / "0000.parquet"
        content = path.read_bytes()
        for place in rng.choice(len(content), 60, replace=False):
            spoilt = bytearray(content)
            spoilt[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(spoilt))
            try:
                store = Store(packed)
                table, changed = store.evaluations(), store.changed()
            except StoreError:
                noticed += 1
                continue
            assert changed or table.equals(usual)
        path.write_bytes(content)
    assert noticed > 80


def test_nothing_is_packed_through_a_link(copy, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "0000.parquet").write_text("precious")
    for place, to in (
        (ROWS, victim),
        (RECORDS, victim),
        (f"{ROWS}/0000.parquet", victim / "0000.parquet"),
        (f"{ROWS}/0000.part", victim / "0000.parquet"),
        (f"{RECORDS}/0000.part", victim / "0000.parquet"),
        (f"{RECORDS}/0000.parquet", victim / "new"),
    ):
        for kind in (ROWS, RECORDS):
            shutil.rmtree(copy / kind, ignore_errors=True)
        (copy / place).parent.mkdir(exist_ok=True)
        (copy / place).symlink_to(to)
        with pytest.raises(StoreError):
            pack(copy)
        (copy / place).unlink()
        assert {p.name: p.read_text() for p in victim.iterdir()} == {"0000.parquet": "precious"}
    shutil.rmtree(copy / "checkpoints")
    (copy / "checkpoints").symlink_to(victim)
    (victim / load_plan(copy)["runs"][0]["id"]).mkdir()
    network = victim / load_plan(copy)["runs"][0]["id"]
    for name in (FACTS, TENSORS):
        (network / name).write_text("precious")
    with pytest.raises(StoreError, match="is a symbolic link"):
        pack(copy, networks=0)
    assert (network / FACTS).read_text() == "precious"


def test_what_is_packed_of_no_cohort_is_named(packed):
    shutil.copy(packed / ROWS / "0000.parquet", packed / ROWS / "9999.parquet")
    assert Store(packed).unknown() == [f"{ROWS}/9999.parquet"]
    assert "unplanned runs" in analyse(packed).marks


def test_the_command_says_what_it_did(copy, tmp_path, capsys):
    shutil.rmtree(copy / "runs" / load_plan(copy)["cohorts"][-1][0])
    cli.main(["pack", str(copy), "--out", str(tmp_path / "out"), "--networks", "1"])
    said = capsys.readouterr().out
    number = len(load_plan(copy)["cohorts"]) - 1
    assert f"batch {number} is not packed: 1 of its" in said
    assert f"packed {number} batches" in said
    assert "4 networks" in said
    assert (copy / "runs").is_dir()
