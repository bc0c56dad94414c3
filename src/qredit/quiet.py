"""Keeping the libraries' notices from burying our own lines."""

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Silence notices and progress bars of the libraries below; their errors still come through as exceptions."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    import datasets
    import transformers

    logging.getLogger("qredit").setLevel(logging.ERROR)  # the commands tell these things themselves
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
