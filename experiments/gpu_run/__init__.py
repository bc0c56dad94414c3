"""What a step costs on a GPU beside TRL's, in one run of under nine minutes: `make gpu`, or at toy size `make gpu-dry`.

    python -m gpu_run --out FOLDER            checks, then measures; FOLDER/results.json grows as it goes
    python -m gpu_run --toy --out FOLDER      the same at toy size on the CPU: that it runs is all it shows
    python -m gpu_run --write RESULTS.json    puts the tables into docs/performance.md

All of it needs PYTHONPATH=src:experiments, and nothing from a network: models have random weights.
"""
