"""Pocket models: base models small enough to ship, one for each pocket task."""

from qredit.pocket.models import get_model_name, get_model_path
from qredit.utils.former_names import former_names

__all__ = ["get_model_name", "get_model_path"]

__getattr__ = former_names(__name__, {"name_for": "get_model_name", "path": "get_model_path"})
