"""Writes the bodies of the published tasks as MJCF files, which load in any MuJoCo."""

from __future__ import annotations

from pathlib import Path

from mtenvs import registry


def export(directory: Path, family: str) -> list[Path]:
    """Writes ``<directory>/<Family>-v<version>/<number>-<name>.xml`` for every published task.

    Args:
        directory: where to write, for example ``assets/xml``; made if missing.
        family: name of the family.

    Returns:
        The files written, by task number. Other files in the directory are left alone.

    Raises:
        ValueError: for an unknown family.
    """
    definition = registry.get_family(family)
    folder = Path(directory) / definition.id.removeprefix("mt/")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for task in definition.tasks:
        path = folder / f"{task.number}-{task.name}.xml"
        path.write_text(registry.mjcf(definition, task), encoding="utf-8")
        paths.append(path)
    return paths
