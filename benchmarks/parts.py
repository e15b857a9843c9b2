"""The benchmarks by name, and how one is run; apart from ``__main__``, which a process cannot import."""

from __future__ import annotations

import importlib

from benchmarks.record import Store

# name to module and function; a name's first part selects all that begin with it
BENCHMARKS = {
    "environments.bare": "environments:bare",
    "environments.threads": "environments:threads",
    "environments.vectors": "environments:vectors",
    "environments.walker2d": "environments:walker2d",
    "training.peers": "training:peers",
    "training.runs": "training:runs",
    "architectures": "architectures:architectures",
    "scaling": "scaling:scaling",
    "curves": "curves:curves",
    "everything": "everything:everything",
    "warp_curves": "warp_curves:curves",
    "layout_pilot": "layout_pilot:pilot",
    "physics_study.speed": "physics_study:speed",
    "physics_study.training": "physics_study:training",
    "physics_study.closeness": "physics_study:closeness",
    "physics_study.summary": "physics_study:summarise",  # text and figure from what is stored
}


def run(name: str, store: Store) -> None:
    """Runs one benchmark."""
    module, function = BENCHMARKS[name].split(":")
    # imported where used: each needs other packages
    getattr(importlib.import_module(f"benchmarks.{module}"), function)(store)
