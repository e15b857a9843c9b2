"""Backends step and reset the worlds of one topology and fill the State."""
