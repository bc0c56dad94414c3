"""Import paths of former versions: each leads to the module that took its place, with a DeprecationWarning.

They go with the next minor version.
"""

import importlib.util
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "attention_roles": "stats.attention_roles",
    "batch": "core.batch",
    "chain": "core.chain",
    "cli.asking": "cli.shared_options",
    "cli.lab_draw": "cli.lab_plots",
    "cli.options": "cli.parser",
    "device": "utils.device",
    "diagnostics": "control.diagnostics",
    "errors": "utils.errors",
    "evaluate": "evaluation.metrics",
    "groups": "stats.groups",
    "guide": "control",
    "importance": "core.importance",
    "imports": "utils.imports",
    "interval": "stats.interval",
    "lab.batches": "testing.batches",
    "lab.fields": "testing.fields",
    "lab.laws": "testing.laws",
    "lab.moments": "testing.moments",
    "lab.policy": "testing.policy",
    "lab.theory": "lab",
    "lab.transformer": "testing.transformer",
    "lifeline": "utils.parent_process",
    "masked": "stats.masked",
    "objective": "core.objective",
    "penalty": "penalties",
    "penalty.base": "core.penalty",
    "plain": "utils.sanitize",
    "power": "utils.formatting",
    "prefix": "shared_prefix",
    "probe.words": "probe.summary",
    "quiet": "runs.library_logging",
    "reduce": "core.reduce",
    "report.stretches": "utils.run_lengths",
    "report.words": "report.sentences",
    "rewards.base": "rewards.answer_scorer",
    "rewards.checked": "rewards.finite_rewards",
    "rewards.given": "rewards.reward_spec",
    "rewards.math_reading": "rewards.math_parsing",
    "rewards.math_same": "rewards.math_comparison",
    "rollout": "rollouts",
    "rollout.sample": "samplers.transformers",
    "run": "runs",
    "run.watch": "runs.progress_bars",
    "schedule": "core.schedule",
    "seed": "utils.seed",
    "segment": "stats.segment",
    "surrogate": "core.surrogate",
    "tasks.numbers": "tasks.number_text",
    "tasks.prompt": "tasks.prompt_text",
    "tasks.same": "tasks.normal_forms",
    "tasks.saved": "tasks.saved_datasets",
    "text": "objectives.parsing",
    "trl.attention": "engine.attention_maps",
    "trl.base_probability": "engine.base_probability",
    "trl.bench.measure": "trl.bench.timing",
    "trl.card": "trl.model_card",
    "trl.checkpoint": "engine.checkpoint",
    "trl.data": "trl.dataset_encoding",
    "trl.environment": "trl.environment_variables",
    "trl.guard": "callbacks.collapse_guard",
    "trl.guide": "callbacks.auto_q",
    "trl.logs": "trl.generation_metrics",
    "trl.look": "callbacks.initial_q",
    "trl.metrics_file": "callbacks.metrics_file",
    "trl.order": "trl.placeholder_loader",
    "trl.record": "callbacks.credit_recorder",
    "trl.reference": "engine.reference_model",
    "trl.refused": "trl.refused_settings",
    "trl.resume": "engine.resume",
    "trl.savable": "engine.savable",
    "trl.saving": "trl.checkpointing",
    "trl.step": "engine",
    "trl.step.passes": "engine.scorer",
    "trl.step.prepare": "trl.model_setup",
    "trl.step.rewarding": "trl.reward_calculator",
    "trl.step.whole_step": "engine.step_credit",
    "tsallis": "core.tsallis",
    "whole": "utils.atomic_files",
}
"""Former module or package → where it is now, both below `qredit`; the longest entry that fits a path counts."""


def path_now(name: str) -> str | None:
    """Where a module of a former path is now; None where the path is none of those."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        moved = MOVED.get(".".join(parts[1:length]))
        if parts[0] == "qredit" and moved is not None:
            return ".".join(["qredit", moved, *parts[length:]])
    return None


class FormerPaths:
    """Finds modules by their former paths. It has no base: importing importlib.abc would cost every start 20 ms.

    It must be asked first: below a package that was moved, Python would find the file and read it a second time.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        now = path_now(fullname)
        there = now is not None and importlib.util.find_spec(now) is not None
        return ModuleSpec(fullname, self, origin=now) if there else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        now = str(spec.origin)
        warnings.warn(f"{spec.name} is now {now}; the old path will be removed", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(now)
        spec.loader_state = module.__spec__  # importing writes its own spec over that of the module it is given
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state
