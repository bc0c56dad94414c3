"""Pocket models: base models small enough to ship, one for each pocket task."""

from qredit.pocket.models import name_for, path

__all__ = ["name_for", "path"]
