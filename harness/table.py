"""One tidy table of all evaluations, as Parquet, for whoever prefers pandas, R or SQL to our report.

A row is one evaluation of one network on one task. :data:`COLUMNS` says what its columns mean, once: the
file's column metadata and ``docs/rows.md`` are made from it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.measures import add_scores, plan_title, task_name
from harness.store import Store


@dataclasses.dataclass(frozen=True)
class Column:
    """What one column of the table holds."""

    type: str
    """Arrow's name of its type."""
    unit: str
    """Unit; empty where there is none."""
    meaning: str
    """What it says, and when it is null."""


COLUMNS = {
    "plan": Column("string", "", "First 12 digits of the SHA-256 of the plan"),
    "title": Column("string", "", "Title of the plan"),
    "family": Column("string", "", "Family of the tasks"),
    "version": Column("int64", "", "Version of the family"),
    "kind": Column("string", "", "Kind of experiment: leave_one_out, joint, dose or matrix"),
    "exploratory": Column("bool", "", "Whether the plan calls itself exploratory: no evidence"),
    "agent": Column("string", "", "Name of the learner"),
    "agent_version": Column("string", "", "Its version; null in plans that do not say"),
    "architecture": Column("string", "", "How its networks use what they are told; null without a choice"),
    "budget": Column("int64", "control steps", "B: what learning the task may take"),
    "run": Column("string", "", "Id of the run, unique in its plan"),
    "status": Column("string", "", "Of the run: started (it was cut off), finished, diverged or failed"),
    "phase": Column("string", "", "pretrain: on the source tasks; learn: what the plan measures"),
    "arm": Column(
        "string",
        "",
        "What the learner starts from: scratch, transfer, ...; of a dose sources=3 or steps=100000, of a "
        "matrix from=TASK; in a joint plan what it learns: separate (one task), joint or joint-wide (all)",
    ),
    "fold": Column(
        "int64",
        "",
        "Number of the task that is learned, or that a pretraining is for; -1 for runs on all "
        "tasks and for the sources of a matrix",
    ),
    "held_out": Column(
        "string",
        "",
        "Name of that task: its pretrainings were not on it, but for those of the arm ceiling; null where "
        "there is none, and in a joint plan, which holds nothing out",
    ),
    "seed": Column(
        "int64", "", "Number of the pretraining or of the run from scratch; no pairs across arms"
    ),
    "finetune": Column("int64", "", "Which of several fine-tunings of one pretraining; 0 if there is one"),
    "start": Column("string", "", "Run whose network this one starts from; null if it starts fresh"),
    "switches": Column(
        "string",
        "",
        "What of that network is not handed on as usual, such as freeze_trunk, with commas between; empty "
        "if all is; null in plans that do not say",
    ),
    "conditioning": Column(
        "string", "", "What the network is told of its tasks: descriptor, one_hot or none"
    ),
    "told": Column(
        "string",
        "",
        "Whose code it is told while it learns: own, of the task, or mean, of the tasks of the run that it "
        "starts from; null in plans that do not say",
    ),
    "task": Column(
        "string",
        "",
        "Name of the task evaluated on: pretrained networks on their sources and on held_out; one from "
        "scratch that others start from, at its end, also on the tasks that those hold out",
    ),
    "code": Column(
        "string",
        "",
        "Which code the network was told of that task: true (that which it learns with: see told), mean or "
        "wrong",
    ),
    "checkpoint": Column("int64", "", "Number of the evaluation within its run, from 0"),
    "steps": Column("int64", "control steps", "Trained so far, over all worlds of the run"),
    "episodes": Column("int64", "episodes", "Over which the means are taken"),
    "return_mean": Column("float64", "return", "Mean undiscounted return; null from a divergence on"),
    "return_std": Column("float64", "return", "Standard deviation of the episodes' returns"),
    "length_mean": Column("float64", "control steps", "Mean length of the episodes"),
    "success": Column("float64", "share", "Of episodes that succeed, 0 to 1"),
    "diverged": Column("bool", "", "Whether the network had diverged by this evaluation"),
    "score": Column(
        "float64",
        "",
        "g = (return_mean - random) / (reference - random) of the task: 0 is a random policy, 1 the "
        "well-trained reference; not clipped",
    ),
}
"""The columns, in their order."""


def evaluation_table(directory: str | os.PathLike[str]) -> pd.DataFrame:
    """All evaluations of one plan with what the plan says of them.

    Args:
        directory: the experiment's directory.

    Returns:
        The columns of :data:`COLUMNS`, one row per (run, checkpoint, task, code), in the store's order.

    Raises:
        StoreError: if the directory holds no readable plan or rows.
        ValueError: for a task without reference scores.
    """
    store = Store(directory)
    store.check_reported("version")
    plan = store.plan
    table = add_scores(store.evaluations(), plan["reference"]["scores"])
    runs = store.runs()
    planned = {run["id"]: run for run in plan["runs"]}
    of_run = [planned[run] for run in table["run"]]
    facts = {
        "plan": plan["sha256"][:12],
        "title": plan_title(plan),
        "family": plan["family"],
        "version": plan["version"],
        "kind": plan.get("kind", "leave_one_out"),
        "exploratory": plan["exploratory"],
        "agent": plan["learner"]["name"],
        "agent_version": plan["learner"].get("version"),
        "architecture": plan["learner"]["config"].get("architecture"),
        "switches": [_joined(run.get("switches")) for run in of_run],
        "conditioning": [run.get("conditioning") for run in of_run],
        "told": [run.get("told") for run in of_run],
        "budget": plan["budget"],
        "status": table["run"].map(runs.set_index("run")["status"]),
        "held_out": [
            None if fold < 0 or plan.get("kind") == "joint" else task_name(plan, fold)
            for fold in table["fold"]
        ],
    }
    return table.assign(**facts)[list(COLUMNS)]


def _joined(names: Sequence[str] | None) -> str | None:
    return None if names is None else ",".join(names)


def export_table(directories: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], out: Path) -> int:
    """Writes the evaluations of one or several plans as one Parquet file.

    Equal stores give equal bytes (with one version of pyarrow), in whatever order they are named.

    Args:
        directories: of the experiments.
        out: file to write; an older one is replaced.

    Returns:
        Number of rows written.

    Raises:
        StoreError: if a directory holds no readable plan or rows.
        ValueError: if no directory is given, or two hold the same plan.
        IsADirectoryError: if ``out`` is a directory.
    """
    if isinstance(directories, (str, os.PathLike)):
        directories = [directories]
    if not directories:
        raise ValueError("no directory of an experiment is given")
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a directory; name a file, such as {out / 'rows.parquet'}")
    found: dict[str, str | os.PathLike[str]] = {}
    for directory in directories:
        sha256 = Store(directory).plan["sha256"]
        if sha256 in found:
            raise ValueError(f"{found[sha256]} and {directory} hold the same plan; name one of them")
        found[sha256] = directory
    schema = pa.schema(
        [
            pa.field(name, pa.type_for_alias(c.type), metadata={"unit": c.unit, "meaning": c.meaning})
            for name, c in COLUMNS.items()
        ]
    )
    parts = [evaluation_table(found[sha256]) for sha256 in sorted(found)]
    # made column by column: pyarrow's own way from pandas adds pandas' version to the file, and its index
    table = pa.concat_tables(
        pa.table([pa.array(part[f.name], f.type, from_pandas=True) for f in schema], schema=schema)
        for part in parts
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.part")
    pq.write_table(table, unfinished, compression="zstd")
    os.replace(unfinished, out)
    return table.num_rows


def columns_page() -> str:
    """The page ``docs/rows.md``: what the columns mean."""
    rows = [f"| `{name}` | {c.type} | {c.unit} | {c.meaning} |" for name, c in COLUMNS.items()]
    return "\n".join(
        [
            "# The table of all evaluations",
            "",
            "<!-- made by `mtenvs table --columns > docs/rows.md`; edit harness/table.py -->",
            "",
            "`mtenvs table DIR... --out rows.parquet` writes all evaluations of one or several plans",
            "as one Parquet file. A row is one evaluation of one network on one task at one checkpoint;",
            "those of runs that are still under way are there too (see `status`). Unit and meaning of",
            "every column are in the file as well, as metadata of the column.",
            "[analysis.ipynb](analysis.ipynb) starts from such a file.",
            "",
            "| column | type | unit | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
