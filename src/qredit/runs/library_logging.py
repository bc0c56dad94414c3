"""Keeping the libraries' notices from burying our own lines."""

import logging
import os
import sys
import warnings

# What each library reads when it is imported. Those that a user has set are left as they are.
_VARIABLES = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def silence_libraries() -> None:
    """Silence notices and progress bars of the libraries below; their errors still come through as exceptions.

    Imports none of them: it sets what they read when they are imported, and tells those that already are.
    """
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # torch, which works without it
    logging.getLogger("qredit").setLevel(logging.ERROR)  # the commands tell these things themselves
    if "transformers" in sys.modules:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
    if "datasets" in sys.modules:
        import datasets

        datasets.disable_progress_bars()
