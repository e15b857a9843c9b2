"""A plan that a Ray cluster trains ends with the rows that it would have had at home, whatever is lost."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import harness.shipping as shipping
from baselines.checkpoint import FACTS, TENSORS
from benchmarks.faults import ROOT, begun, planned, rows
from harness.cli import main
from harness.run import TrainingError, Where, run_command, run_plan
from harness.shipping import Delivery, End, Receiver
from harness.store import Store, StoreError
from harness.workers import Workers
from mtenvs.spec import MissingPackageError

pytest.importorskip("ray", reason="needs the extra ray")
from ray.cluster_utils import Cluster

from harness import ray_workers
from harness.ray_workers import ClusterError, RayWorkers

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that was trained at home: three cohorts, of which two can be trained at the same time."""
    directory = planned(tmp_path_factory.mktemp("whole") / "plan", cohort_runs=2)
    run_plan(directory)
    return directory


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that trains nothing."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield found
    found.shutdown()


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Any]:
    """One more machine, as far as Ray can tell, of a core."""
    found = cluster.add_node(num_cpus=1)
    yield found
    cluster.remove_node(found)


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[list[Any]]:
    """Two of them."""
    found = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    yield found
    for node in found:
        cluster.remove_node(node)


def networks(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.glob("checkpoints/**/*"))
        if path.is_file()
    }


def records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(directory.glob("runs/*/done.json"))]


def assert_same(directory: Path, whole: Path) -> None:
    assert rows(directory) == rows(whole)
    assert networks(directory) == networks(whole)
    assert {record["status"] for record in records(directory)} == {"finished"}
    assert not Store(directory).changed()
    assert not (directory / "resume").exists()
    assert not (directory / "locks").exists()


# --------------------------------------------------------------------------------- a real cluster


def test_a_cluster_ends_with_the_same_store(whole: Path, tmp_path: Path, cluster, nodes) -> None:
    directory = begun(whole, tmp_path / "plan")
    steps: list[int] = []
    run_plan(directory, executor="ray", address=cluster.address, progress=steps.append)
    assert_same(directory, whole)
    assert [record["interruptions"] for record in records(directory)] == [0] * 6
    assert sum(steps) == sum(record["steps"] for record in records(directory))


def test_a_node_that_is_lost_costs_no_row(
    whole: Path, tmp_path: Path, cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = begun(whole, tmp_path / "plan")
    node = cluster.add_node(num_cpus=1)
    take, told, steps, bookmarks = Receiver.take, [], [], []

    def take_and_kill(receiver: Receiver, delivery: Delivery) -> None:
        nonlocal node
        take(receiver, delivery)
        if delivery.bookmark and delivery.end is None:
            bookmarks.append(delivery)
            if len(bookmarks) == 1:
                cluster.remove_node(node, allow_graceful=False)
                node = cluster.add_node(num_cpus=1)

    monkeypatch.setattr(Receiver, "take", take_and_kill)
    monkeypatch.setattr(ray_workers, "SEND_SECONDS", 0.05)
    try:
        run_plan(
            directory,
            progress=steps.append,
            save_every=0.0,
            executor="ray",
            address=cluster.address,
            tell=told.append,
        )
    finally:
        cluster.remove_node(node)
    assert_same(directory, whole)
    assert len(bookmarks) > 1
    assert len(told) == 1
    assert told[0].endswith("its node was lost; it goes on from where it was last saved")
    # both runs of the cohort went on, and what was trained twice is counted once
    assert sum(record["interruptions"] for record in records(directory)) == 2
    assert sum(steps) == sum(record["steps"] for record in records(directory))


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on(whole: Path, tmp_path: Path, cluster, nodes) -> None:
    directory = begun(whole, tmp_path / "plan")
    words = ["run", str(directory), "--save-every", "0", "--executor", "ray", "--address", cluster.address]
    with subprocess.Popen(
        [sys.executable, "-m", "harness", *words],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not any(directory.glob(f"resume/*/*/{FACTS}")):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    run_plan(directory, executor="ray", address=cluster.address)
    assert_same(directory, whole)
    assert sum(record["interruptions"] for record in records(directory)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_ended_saves_what_was_trained(
    whole: Path, tmp_path: Path, cluster, number
) -> None:
    directory = planned(tmp_path / "plan", rollouts=400, cohort_runs=2)
    node = cluster.add_node(num_cpus=1)
    words = ["run", str(directory), "--executor", "ray", "--address", cluster.address]
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "harness", *words],
            env=ENVIRONMENT | {"COLUMNS": "1000"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            deadline = time.monotonic() + 90
            while not any(directory.glob("locks/*")):  # its task has begun
                assert process.poll() is None, process.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(4.0)  # of training, much less than there is between two bookmarks
            assert not any(directory.glob(f"resume/*/*/{FACTS}"))
            began = time.monotonic()
            process.send_signal(number)
            said = process.communicate(timeout=30)[0]
            took = time.monotonic() - began
    finally:
        cluster.remove_node(node)
    assert process.returncode == 130, said
    assert took < 5.0
    assert "Go on with: mtenvs run" in said
    assert "failed" not in said
    assert "Traceback" not in said
    assert any(directory.glob(f"resume/*/*/{FACTS}"))
    assert not (directory / "locks").exists()
    assert "failed" not in Store(directory).status().values()


@pytest.mark.slow
def test_a_cluster_and_this_machine_share_a_plan(whole: Path, tmp_path: Path, cluster, nodes) -> None:
    directory = begun(whole, tmp_path / "plan")
    words = ["run", str(directory), "--processes", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "harness", *words], env=ENVIRONMENT, stdout=subprocess.PIPE
    ) as process:
        run_plan(directory, executor="ray", address=cluster.address)
        assert process.wait(60) == 0
    assert_same(directory, whole)


def test_what_kills_its_process_is_given_up(
    whole: Path, tmp_path: Path, cluster, node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "RETRIES", 0)
    directory = begun(whole, tmp_path / "plan")
    cohort = Store(directory).plan["cohorts"][0]
    told: list[str] = []

    def dies(directory: Path, *rest: Any) -> bool:
        os._exit(3)

    with RayWorkers(directory, 1, address=cluster.address, tell=told.append) as workers:
        future = workers.submit(dies, directory, cohort, "ppo", Where())
        assert workers.wait([future], None) == {future}
        with pytest.raises(TrainingError, match="ended, by agent ppo or by force, 1 time in a row"):
            future.result()
    assert not told
    status = Store(directory).status()
    assert {status[run_id] for run_id in cohort} == {"failed"}


def test_a_node_of_another_version_is_refused(
    whole: Path, tmp_path: Path, cluster, node, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = begun(whole, tmp_path / "plan")
    here = shipping.versions()
    monkeypatch.setattr(ray_workers, "versions", lambda: {**here, "mujoco": "9.9"})
    with pytest.raises(ClusterError, match=rf"on node .*: it has mujoco {here['mujoco']}, not 9\.9, so"):
        run_plan(directory, executor="ray", address=cluster.address)
    assert set(Store(directory).status().values()) == {"missing"}


def test_a_cluster_without_a_gpu_is_refused_one(whole: Path, tmp_path: Path, cluster) -> None:
    directory = begun(whole, tmp_path / "plan")
    with pytest.raises(ClusterError, match="no node of the cluster has a GPU for the device 'cuda'"):
        run_plan(directory, device="cuda", executor="ray", address=cluster.address)


def test_a_cluster_that_trains_nothing_is_refused(whole: Path, tmp_path: Path, cluster) -> None:
    directory = begun(whole, tmp_path / "plan")
    with pytest.raises(ClusterError, match="no node of the cluster has a free core"):
        run_plan(directory, executor="ray", address=cluster.address)


# -------------------------------------------------------------------------------- no cluster at all


def test_an_address_that_nobody_answers_at_is_told(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = begun(whole, tmp_path / "plan")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(SystemExit) as ended:
            main(["run", str(directory), "--executor", "ray", "--address", address])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"mtenvs: no Ray cluster answers at '{address}': ")
    assert "Connection refused. Start one with 'ray start --head'" in said


@pytest.mark.parametrize("address", ["nonsense", "ray://127.0.0.1:10001"])
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at|address of Ray's client"):
        ray_workers._connect(address)


def test_what_answers_but_is_no_cluster_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "ANSWER_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ClusterError, match="no answer within 2 s"):
            ray_workers._connect(address)


def test_ray_that_is_missing_is_told(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, "harness.ray_workers")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *of: (name != "ray" and find(name, *of)) or None
    )
    with pytest.raises(MissingPackageError, match=r"--executor ray needs Ray.*pip install 'mtenvs\[ray\]'"):
        run_plan(whole, executor="ray")


def test_an_address_needs_its_executor(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", str(whole), "--address", "auto"])
    said = "mtenvs: --address auto is that of a Ray cluster: add --executor ray\n"
    assert capsys.readouterr().err == said


def test_how_to_go_on_says_where(whole: Path) -> None:
    said = run_command(whole, "cuda", None, "ray", "auto")
    assert said == f"mtenvs run {whole} --device cuda --executor ray --address auto"


def test_an_executor_that_is_none(whole: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown executor 'rya' \(did you mean 'ray'\?\)"):
        run_plan(whole, executor="rya")


# --------------------------------------------------------------------------- what comes from a node


@pytest.fixture
def receiver(whole: Path, tmp_path: Path) -> Receiver:
    """Of the first cohort of a plan of which nothing is trained."""
    store = Store(begun(whole, tmp_path / "plan"))
    return Receiver(store, store.plan["cohorts"][0])


def everything(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def row(run_id: str, **changes: Any) -> bytes:
    """A row of a run, as it is stored."""
    found = {"run": run_id, "checkpoint": 0, "steps": 0, "task": "Biped-v1", "code": "true"}
    found |= dict.fromkeys(("return_mean", "return_std", "length_mean", "success"), 0.5)
    return (json.dumps({**found, "episodes": 2, "diverged": False, **changes}) + "\n").encode()


def mark(content: bytes, **changes: Any) -> bytes:
    """A mark of completion of these rows."""
    return json.dumps(
        {"status": "finished", "rows_sha256": hashlib.sha256(content[:-1]).hexdigest(), **changes}
    ).encode()


DEEP = 100_000
HOSTILE = {
    "rows of another cohort's run": lambda own, other: Delivery(rows={other: (0, b"{}\n")}),
    "rows of no run": lambda own, other: Delivery(rows={"../../evil": (0, b"{}\n")}),
    "rows after what is not there": lambda own, other: Delivery(rows={own: (10, b"{}\n")}),
    "rows before the beginning": lambda own, other: Delivery(rows={own: (-1, b"{}\n")}),
    "another cohort's network": lambda own, other: Delivery(checkpoints={other: {FACTS: b""}}),
    "a network of no run": lambda own, other: Delivery(checkpoints={"../evil": {FACTS: b""}}),
    "a parent": lambda own, other: Delivery(checkpoints={own: {"../evil": b""}}),
    "a parent within": lambda own, other: Delivery(checkpoints={own: {"a/../../../evil": b""}}),
    "a root": lambda own, other: Delivery(checkpoints={own: {"/tmp/evil": b""}}),
    "no name": lambda own, other: Delivery(checkpoints={own: {"": b""}}),
    "a hidden file": lambda own, other: Delivery(checkpoints={own: {".bashrc": b""}}),
    "a backslash": lambda own, other: Delivery(checkpoints={own: {"..\\evil": b""}}),
    "a null": lambda own, other: Delivery(checkpoints={own: {"a\0b": b""}}),
    "too deep": lambda own, other: Delivery(checkpoints={own: {"a/b/c/d/e": b""}}),
    "another file of a bookmark": lambda own, other: Delivery(bookmark={FACTS: b"{}", "evil": b""}),
    "a bookmark without a number": lambda own, other: Delivery(bookmark={FACTS: b"{}", TENSORS: b""}),
    "a bookmark's number of words": lambda own, other: Delivery(
        bookmark={FACTS: b'{"number": "../../evil"}', TENSORS: b""}
    ),
    "a bookmark that is no object": lambda own, other: Delivery(bookmark={FACTS: b"[]", TENSORS: b""}),
    "another cohort's mark": lambda own, other: Delivery(done={other: b"{}"}),
    "a mark that is no object": lambda own, other: Delivery(done={own: b"7"}),
    "a mark that is no JSON": lambda own, other: Delivery(done={own: b"{"}),
    "a mark of other rows": lambda own, other: Delivery(
        rows={own: (0, row(own))}, done={own: b'{"status": "finished", "rows_sha256": "0"}'}
    ),
    "a mark that no reader takes": lambda own, other: Delivery(
        rows={own: (0, row(own))}, done={own: mark(row(own), steps="many")}
    ),
    "a mark of no status": lambda own, other: Delivery(
        rows={own: (0, row(own))}, done={own: mark(row(own), status=["finished"])}
    ),
    "a mark nested too deep": lambda own, other: Delivery(done={own: b"[" * DEEP + b"]" * DEEP}),
    "a mark nested too deep to be written": lambda own, other: Delivery(
        rows={own: (0, row(own))},
        done={own: mark(row(own), x=json.loads("[" * 100 + "]" * 100))},
    ),
    "a mark of an infinite number": lambda own, other: Delivery(done={own: b'{"steps": Infinity}'}),
    "a bookmark of an infinite number": lambda own, other: Delivery(
        bookmark={FACTS: b'{"number": Infinity}', TENSORS: b""}
    ),
    "a bookmark nested too deep": lambda own, other: Delivery(
        bookmark={FACTS: b"[" * DEEP + b"]" * DEEP, TENSORS: b""}
    ),
    "rows that are none": lambda own, other: Delivery(rows={own: (0, b"{}\n")}),
    "rows that are no JSON": lambda own, other: Delivery(rows={own: (0, b"{\n")}),
    "rows nested too deep": lambda own, other: Delivery(rows={own: (0, b"[" * DEEP + b"\n")}),
    "rows that are no text": lambda own, other: Delivery(rows={own: (0, b"\xff\n")}),
    "a torn row": lambda own, other: Delivery(rows={own: (0, row(own)[:-1])}),
    "a row of another run": lambda own, other: Delivery(rows={own: (0, row(other))}),
    "a row of another code": lambda own, other: Delivery(rows={own: (0, row(own, code="evil"))}),
    "a row of a number of words": lambda own, other: Delivery(rows={own: (0, row(own, steps="many"))}),
    "rows that contradict each other": lambda own, other: Delivery(
        rows={own: (0, row(own) + row(own, success=1.0))}
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_cohort_leaves_is_refused(receiver: Receiver, tmp_path: Path, what: str) -> None:
    cohorts = Store(tmp_path / "plan").plan["cohorts"]
    before = everything(tmp_path)
    with pytest.raises(StoreError):
        receiver.take(HOSTILE[what](cohorts[0][0], cohorts[1][0]))
    new = {path for path in everything(tmp_path) if path not in before}
    # at most rows that came with what was refused
    assert new <= {str(tmp_path / "plan" / "runs" / cohorts[0][0] / "rows.jsonl")}
    assert not list(tmp_path.rglob("*evil*"))
    assert not Path("/tmp/evil").exists()
    assert "finished" not in Store(tmp_path / "plan").status().values()


def test_what_a_node_sends_makes_the_same_store(whole: Path, tmp_path: Path) -> None:
    """A cohort is copied, in steps, from one directory to another; an earlier attempt had other rows."""
    first, second = begun(whole, tmp_path / "first"), begun(whole, tmp_path / "second")
    cohort = Store(whole).plan["cohorts"][0]
    receiver = Receiver(Store(second), cohort)

    def train(progress: Any) -> bool:
        for run_id in cohort:
            run = first / "runs" / run_id
            run.mkdir(parents=True)
            progress(0)
            time.sleep(0.2)
            lines = (whole / "runs" / run_id / "rows.jsonl").read_bytes()
            (run / "rows.jsonl").write_bytes(row(run_id, success=0.25))
            progress(1)
            time.sleep(0.2)
            (run / "rows.jsonl").write_bytes(lines[: lines.index(b"\n") + 1])
            progress(2)
            time.sleep(0.2)
            (run / "rows.jsonl").write_bytes(lines)
            shutil.copytree(whole / "checkpoints" / run_id, first / "checkpoints" / run_id)
            shutil.copy(whole / "runs" / run_id / "done.json", run)
        return True

    came = list(shipping.deliveries(train, first, cohort, 0.05))
    assert came[0] == Delivery(rows={cohort[0]: (0, b"")})  # begun, without rows
    for delivery in came:
        receiver.take(delivery)
    assert sum(delivery.steps for delivery in came) == 3 * len(cohort)
    assert [delivery.end for delivery in came][-1] == End(True)
    assert everything(first).keys() == {path.replace("second", "first") for path in everything(second)}
    assert rows(second) == rows(first) == {i: text for i, text in rows(whole).items() if i in cohort}
    assert networks(second) == networks(first)
    for run_id in cohort:
        path = Path("runs") / run_id / "done.json"
        assert (second / path).read_bytes() == (whole / path).read_bytes()


def test_a_network_of_files_that_no_store_takes_fails_its_run_alone(whole: Path, tmp_path: Path) -> None:
    """The others of its cohort arrive; what is wrong is told by the node, not found out here."""
    first, second = begun(whole, tmp_path / "first"), begun(whole, tmp_path / "second")
    cohort = Store(whole).plan["cohorts"][0]

    def train(progress: Any) -> bool:
        for run_id in cohort:
            shutil.copytree(whole / "runs" / run_id, first / "runs" / run_id)
            shutil.copytree(whole / "checkpoints" / run_id, first / "checkpoints" / run_id)
        (first / "checkpoints" / cohort[0] / "my network.zip").write_bytes(b"")
        return True

    *_, last = shipping.deliveries(train, first, cohort, 0.05)
    assert last.end is not None
    assert (last.end.trained, last.end.kind) == (False, "TrainingError")
    assert f"a file 'my network.zip' with the network of run {cohort[0]}" in last.end.why
    Receiver(Store(second), cohort).take(last)
    status = Store(second).status()
    assert [status[run_id] for run_id in cohort] == ["started"] + ["finished"] * (len(cohort) - 1)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "denied"), FileNotFoundError(2, "gone"), OSError(28)]
)
def test_all_errors_of_a_nodes_disk_are_of_one_kind(whole: Path, tmp_path: Path, error: OSError) -> None:
    directory = begun(whole, tmp_path / "plan")

    def train(progress: Any) -> bool:
        raise error

    *_, last = shipping.deliveries(train, directory, Store(whole).plan["cohorts"][0], 0.05)
    assert last.end is not None
    assert last.end.kind == "OSError"


def test_what_a_node_sent_last_is_stored_before_it_stops_the_command(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = RayWorkers(begun(whole, tmp_path / "plan"), 1)
    cohort = Store(whole).plan["cohorts"][0]
    receiver = Receiver(Store(tmp_path / "plan"), cohort)
    job = ray_workers._Job(run_plan, cohort, "ppo", Where(), None, Future(), receiver, mine=True)
    sent = Delivery(rows={cohort[0]: (0, row(cohort[0]))}, end=End(False, "OSError", "on node x: full"))
    job.stream = iter([sent])
    monkeypatch.setattr(ray_workers.ray, "get", lambda found: found)
    with pytest.raises(ClusterError, match="on node x: full"):
        workers._read(job)
    assert rows(tmp_path / "plan") == {cohort[0]: row(cohort[0])}


def test_a_lock_that_is_a_link_is_not_taken(whole: Path, tmp_path: Path) -> None:
    workers = RayWorkers(begun(whole, tmp_path / "plan"), 1)
    cohort = Store(whole).plan["cohorts"][0]
    receiver = Receiver(Store(tmp_path / "plan"), cohort)
    job = ray_workers._Job(run_plan, cohort, "ppo", Where(), None, Future(), receiver)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "plan" / "locks").mkdir()
    (tmp_path / "plan" / "locks" / cohort[0]).symlink_to(precious)
    with pytest.raises(StoreError, match="is a symbolic link"):
        workers._take_lock(job)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("what", ["link", "file", "open to others"])
def test_a_scratch_directory_that_is_not_ours_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    base = ray_workers._scratch_base()
    assert base.stat().st_mode & 0o777 == 0o700
    with ray_workers._scratch(base) as directory:
        assert directory.parent == ray_workers._scratch_base() == base
    assert base.is_dir()  # others may be about to use it
    assert not list(base.iterdir())
    base.rmdir()
    if what == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        base.symlink_to(tmp_path / "elsewhere")
    elif what == "file":
        base.touch(mode=0o600)
    else:
        base.mkdir()
        base.chmod(0o777)
    with pytest.raises(PermissionError, match="is no directory of this user alone"):
        ray_workers._scratch_base()


def test_both_kinds_of_workers_have_one_interface() -> None:
    """What run_plan calls."""
    for name in ("submit", "wait", "exit_code", "threads", "__enter__", "__exit__"):
        assert callable(getattr(Workers, name))
        assert callable(getattr(RayWorkers, name))
