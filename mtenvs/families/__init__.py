"""One file per family. Each defines ``FAMILY``; :mod:`mtenvs.registry` finds the files by itself."""
