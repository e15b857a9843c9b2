"""What machines and people do to a plan in training: it stops in words, and goes on to the same rows."""

import contextlib
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness.run
import mtenvs
from benchmarks.faults import (
    begun,
    can_mount,
    interruptions,
    make_read_only,
    planned,
    resize,
    rows,
    show,
    small_disk,
    start,
    take_away,
)
from harness.__main__ import INTERRUPTED
from harness.cli import main
from harness.lock import holder, locked
from harness.plan import load_plan
from harness.run import TrainingError, run_plan
from harness.status import status_of
from harness.store import Store

mounts = pytest.mark.skipif(not can_mount(), reason="file systems can be mounted by root on Linux only")


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """How a command ended, and what it said in one line."""
    text, _ = process.communicate(timeout=120)
    assert "Traceback" not in text, text
    return process.returncode, " ".join(text.split())


def wait_for(what: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Waits until something is there, as long as a command runs."""
    until = time.monotonic() + 60
    while not what():
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        assert time.monotonic() < until
        time.sleep(0.02)


def saved(directory: Path) -> bool:
    """Whether a training has been saved."""
    return any(directory.glob("resume/*/?/learner.json"))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that does not end within a test."""
    return planned(tmp_path_factory.mktemp("long") / "plan", rollouts=4000)


# -------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells what is imported on Linux only")
@pytest.mark.parametrize("imported", ["numpy", "torch"])
def test_a_command_that_still_begins_ends_at_once(tmp_path: Path, imported: str) -> None:
    """Imports take seconds, and what is imported may catch an exception that is raised in its midst."""
    with listening():
        process = start("run", tmp_path / "nowhere", output=subprocess.PIPE)
    wait_for(lambda: f"/{imported}/" in Path(f"/proc/{process.pid}/maps").read_text(), process)
    process.send_signal(signal.SIGINT)
    before = time.monotonic()
    text = process.communicate()[0]
    assert time.monotonic() - before < 4.0
    assert (process.returncode, text) == (INTERRUPTED, "")


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Lets what is started hear Ctrl-C, though these tests may run in the background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "processes"),
    [
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow),
        (signal.SIGINT, 2),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_ends_within_seconds_and_says_how_to_go_on(
    long: Path, tmp_path: Path, processes: int, number: signal.Signals
) -> None:
    """Terminals and clusters send it to all processes of the command."""
    directory = begun(long, tmp_path / "plan")
    agent = ["--processes", processes, "--save-every", 10_000]
    process = start("run", directory, *agent, output=subprocess.PIPE)
    wait_for(lambda: holder(directory / "locks" / load_plan(directory)["cohorts"][0][0]), process)
    time.sleep(1.0)
    before = time.monotonic()
    os.killpg(process.pid, number)
    code, text = ended(process)
    assert time.monotonic() - before < 5.0
    assert code == 130
    options = f"--processes {processes} --save-every 10000"
    assert text.endswith(f"as they were last saved. Go on with: mtenvs run {directory} {options}")
    assert set(Store(directory).status().values()) <= {"started", "missing"}
    # what was trained is saved, although it was not time for it
    assert saved(directory)
    assert holder(directory / "locks" / load_plan(directory)["cohorts"][0][0]) is None


def test_what_was_stopped_goes_on_to_the_same_rows(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = begun(whole, tmp_path / "plan")
    told, before = itertools.count(), signal.getsignal(signal.SIGINT)

    def progress(steps: int) -> None:
        if next(told) == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_plan(directory, progress=progress)
    assert next(told) == 3  # at once, not after the next rollout
    assert saved(directory)
    assert signal.getsignal(signal.SIGINT) is before
    # what is saved counts, although no run has ended: three rollouts of each of two runs
    found = status_of(directory)
    assert found.runs == {"started": 2, "missing": 4}
    assert found.steps - found.steps_left == 3 * 2 * 32 * (len(mtenvs.tasks("Biped")) - 1)
    assert 0.0 < found.hours_left < 1.0
    run_plan(directory)
    assert rows(directory) == rows(whole)
    assert interruptions(directory) == 2


class Slow(harness.run._Cohort):
    """Does not look whether it is to stop."""

    def _steps(self, *args: object) -> int:
        signal.raise_signal(signal.SIGINT)
        time.sleep(60)
        return 0


def test_who_does_not_stop_is_interrupted(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = begun(whole, tmp_path / "plan")
    monkeypatch.setattr(harness.run, "_Cohort", Slow)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_plan(directory)
    assert 1.5 < time.monotonic() - before < 5.0
    assert "failed" not in Store(directory).status().values()


def test_an_agent_that_does_not_stop_is_ended(long: Path, tmp_path: Path) -> None:
    """It is in a process of its own, and looks for nothing."""
    directory = begun(long, tmp_path / "plan")
    code = textwrap.dedent(f"""
        import time
        import harness.run
        from harness.cli import main
        def deaf(*args):
            print("deaf", flush=True)
            time.sleep(100)
        harness.run._train_cohort = deaf
        if __name__ == "__main__":
            main(["run", {str(directory)!r}, "--processes", "2"])
    """)
    script = tmp_path / "deaf.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "1000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert any(line == "deaf\n" for line in process.stdout)
    before = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    ended_with, text = ended(process)
    assert time.monotonic() - before < 5.0
    assert ended_with == 130
    assert "Go on with: mtenvs run" in text


# --------------------------------------------------------------------------------------- disks


@mounts
def test_a_disk_that_is_full_stops_the_command(whole: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 400) as disk:
        directory = begun(whole, disk / "plan")
        sizes = [400, 900, 50_000]
        stops = 0
        for size in sizes:
            resize(disk, size)
            process = start("run", directory, "--save-every", 0, "--processes", 1, output=subprocess.PIPE)
            code, text = ended(process)
            if code == 0:
                break
            stops += 1
            assert code == 2
            assert "No space left on device" in text
            assert (
                "what was stored is whole. When there is a disk to store on, go on with: mtenvs run" in text
            )
            assert "failed" not in Store(directory).status().values()
        assert stops == 2
        assert rows(directory) == rows(whole)


@mounts
def test_a_disk_that_is_read_only_is_not_trained_on(whole: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 400) as disk:
        directory = begun(whole, disk / "plan")
        make_read_only(disk)
        code, text = ended(start("run", directory, output=subprocess.PIPE))
        assert code == 2
        assert "Read-only file system" in text
        # and one can still see how far it is
        assert status_of(directory).runs == {"missing": 6}


@mounts
def test_a_disk_that_vanishes_stops_the_command(whole: Path, long: Path, tmp_path: Path) -> None:
    directory = begun(long, tmp_path / "disk" / "plan")
    seen = tmp_path / "seen"
    show(directory.parent, seen)
    process = start("run", seen / "plan", "--save-every", 0.2, "--processes", 1, output=subprocess.PIPE)
    try:
        wait_for(lambda: saved(directory), process)
    finally:
        take_away(seen)
    code, text = ended(process)
    assert code == 2
    assert "the experiment's directory is gone" in text
    assert "failed" not in Store(directory).status().values()
    assert list(seen.iterdir()) == []  # nothing was written beside it
    assert saved(directory)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("where", ["begin", "append", "finish"])
def test_a_store_that_cannot_be_written_fails_no_run(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    directory = begun(whole, tmp_path / "plan")

    def broken(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(harness.run._Cohort, "_steps", lambda *args: 0)
    with monkeypatch.context() as patch:
        patch.setattr(Store, where, broken)
        with pytest.raises(OSError) as stop:
            run_plan(directory)
    assert stop.value.errno == number
    assert "failed" not in Store(directory).status().values()


def test_an_agents_own_missing_file_is_its_runs_failure(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = begun(whole, tmp_path / "plan")

    def missing(*args: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "none", "weights.bin")

    monkeypatch.setattr(harness.run._Cohort, "_steps", missing)
    with pytest.raises(TrainingError, match=r"weights\.bin"):
        run_plan(directory)
    assert "failed" in Store(directory).status().values()


def test_a_clock_that_jumps_back_changes_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = begun(whole, tmp_path / "plan")
    now = itertools.count(2_000_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: next(now))
    monkeypatch.setattr(time, "time_ns", lambda: next(now) * 10**9)
    run_plan(directory, save_every=0.0)
    assert rows(directory) == rows(whole)
    assert all(json.loads(p.read_text())["wall_seconds"] > 0 for p in directory.glob("runs/*/done.json"))


# --------------------------------------------------------------------------- several processes, locks

LOGGING = """
import os, sys
import harness.run
from harness.cli import main

class Logging(harness.run._Cohort):
    def train(self, progress):
        with open({log!r}, "a") as file:
            file.write(f"{{self.runs[0]['id']}} {{os.getpid()}}\\n")
        super().train(progress)

harness.run._Cohort = Logging
harness.run.BUSY_SECONDS = 0.2
main(["run", {directory!r}, "--processes", "1", "--save-every", "0"])
"""


def test_two_processes_share_a_plan(tmp_path: Path) -> None:
    alone = planned(tmp_path / "alone", rollouts=2, cohort_runs=1)
    run_plan(alone)
    directory, log = begun(alone, tmp_path / "plan"), tmp_path / "log"
    text = LOGGING.format(log=str(log), directory=str(directory))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    both = [
        subprocess.Popen([sys.executable, "-c", text], env=environment, stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert rows(directory) == rows(alone)
    # each once, and both processes had some
    trained = [line.split() for line in log.read_text().splitlines()]
    assert sorted(i for i, _ in trained) == sorted(cohort[0] for cohort in load_plan(alone)["cohorts"])
    assert {int(process) for _, process in trained} == {process.pid for process in both}
    assert not (directory / "locks").exists()


@contextlib.contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A lock that another process has."""
    text = f"""
        import sys
        from pathlib import Path
        from harness.lock import locked
        with locked(Path({str(path)!r})) as mine:
            print(mine, flush=True)
            sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "True\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_lock_has_one_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "one"
    assert holder(path) is None
    with held(path) as process:
        assert holder(path).startswith(f"process {process.pid} on ")
        with locked(path) as mine:
            assert not mine
        assert path.exists()
        process.kill()
        process.wait()
        # its file is still there, and means nothing
        assert path.exists()
        assert holder(path) is None
        with locked(path) as mine:
            assert mine
            with locked(path) as twice:
                assert not twice
    assert not path.exists()
    assert not path.parent.exists()


def test_a_cohort_that_another_process_trains_is_waited_for(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = begun(whole, tmp_path / "plan")
    first = load_plan(directory)["cohorts"][0][0]
    monkeypatch.setattr(harness.run, "BUSY_SECONDS", 0.1)
    sleeps, told = itertools.count(), []
    own = time.sleep
    with held(directory / "locks" / first) as process:

        def sleep(seconds: float) -> None:
            assert seconds <= 0.1
            assert not any(directory.glob("runs/*"))  # what starts from it waits too
            if next(sleeps) == 5:
                process.kill()
                process.wait()
            own(seconds)

        monkeypatch.setattr(harness.run.time, "sleep", sleep)
        run_plan(directory, tell=told.append)
    assert next(sleeps) >= 6
    # once, although it was asked for again and again
    assert [text.startswith(f"process {process.pid} on ") for text in told] == [True]
    assert rows(directory) == rows(whole)


# -------------------------------------------------------------------------------------- status


def status_words(directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    main(["status", str(directory)])
    return " ".join(capsys.readouterr().out.split())


def test_status_of_a_plan_before_in_the_midst_and_after(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = begun(whole, tmp_path / "plan")
    text = status_words(directory, capsys)
    assert "6 runs" in text
    assert "6 not begun" in text
    assert "0% of the steps" in text
    assert f"nobody trains it now; go on with: mtenvs run {directory}" in text

    plan = load_plan(directory)
    (pretrained,) = [c for c in plan["cohorts"] if c[0].startswith("pretrain")]
    (learned,) = [c for c in plan["cohorts"] if c != pretrained]
    store = Store(directory)
    for run_id in pretrained:
        store.begin(run_id)
        store.finish(run_id, {"status": "finished", "steps": 1000, "wall_seconds": 3.6})
    store.begin(learned[0])
    store.finish(learned[0], {"status": "failed", "error": "Traceback\n  somewhere\nValueError: so what"})
    with held(directory / "locks" / learned[0]) as process:
        text = status_words(directory, capsys)
        assert f"process {process.pid} on " in text
        assert f"trains 4 runs, the first {learned[0]}" in text
    assert "2 finished" in text
    assert "1 failed" in text
    assert "3 not begun" in text
    assert f"{learned[0]} failed: ValueError: so what" in text
    steps = {run["id"]: run["steps"] for run in plan["runs"]}
    left = sum(steps[i] for i in learned)
    found = status_of(directory)
    assert found.steps_left == left
    assert found.hours_left == pytest.approx(left * 7.2 / 2000 / 3600)
    assert f"{1 - left / sum(steps.values()):.0%} of the steps, about" in text

    text = status_words(whole, capsys)
    assert "6 finished" in text
    assert f"report it with: mtenvs report {whole}" in text


def test_status_of_what_is_no_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["status", str(tmp_path)])
    assert stop.value.code == 2
    assert "no plan" in capsys.readouterr().err
