"""From a configuration and overrides to a run on verl: what `qredit verl` does, and verl's own main behind it."""

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qredit.engine.identified_state import read_state
from qredit.utils.errors import QreditError
from qredit.utils.sanitize import summarize_error
from qredit.verl.check_data import check_data
from qredit.verl.checkpoint import check_revertible, describe_own, find_resumed
from qredit.verl.settings import VerlSettings

VERSION = "0.9.1"
AGENT = "qredit"  # as agents.yaml calls it


def configure(file: str, overrides: Sequence[str]) -> tuple[Any, VerlSettings]:
    """The configuration of a run, whole, and what it says to qredit.

    Args:
        file: a YAML file of verl's options and of `qredit`; it need not name verl's defaults.
        overrides: Hydra's, such as trainer.total_epochs=2 or +qredit.objective=grpo().

    Raises:
        QreditError: whatever cannot be used, before Ray starts.
    """
    check_environment()
    config = compose(file, overrides)
    settings = VerlSettings.read(config.get("qredit"))
    check_config(config, settings)
    tokenizer = load_tokenizer(config.actor_rollout_ref.model)
    settings.make_budget(int(config.data.max_response_length), settings.format.make(tokenizer))
    check_data(config.data, settings, tokenizer)
    resumed = find_resumed(config.trainer)
    if resumed is not None:
        read_state(resumed, settings.make_objective(), describe_own(config.actor_rollout_ref.model, tokenizer))
    prepare(config, settings)
    return config, settings


def check_environment() -> None:
    """Refuse another verl than the one that this rests on, and TRL beside it.

    Raises:
        QreditError: names the version, or TRL.
    """
    found = version("verl")
    if found != VERSION:
        raise QreditError(f"qredit verl needs verl {VERSION}, and {found} is installed")
    if find_spec("trl") is not None:
        raise QreditError("verl does not start where this TRL is installed; give verl an environment without it")


def compose(file: str, overrides: Sequence[str]) -> Any:
    """verl's configuration with what the file and the overrides change in it.

    Raises:
        QreditError: no such file; whatever Hydra refuses.
    """
    import verl.trainer
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    path = Path(file).expanduser()
    if not path.is_file():
        raise QreditError(f"no config file {path}")
    defaults = Path(next(iter(verl.trainer.__path__))) / "config"
    try:
        given = OmegaConf.load(path)
        with TemporaryDirectory() as folder:
            whole = OmegaConf.merge({"defaults": ["ppo_trainer", "_self_"]}, {"qredit": {}}, given)
            OmegaConf.save(whole, Path(folder) / "run.yaml")
            with initialize_config_dir(folder, version_base=None):
                return hydra_compose("run", [f"hydra.searchpath=[file://{defaults}]", *map(quote, overrides)])
    except Exception as error:  # Hydra, OmegaConf and YAML have errors of their own kinds
        raise QreditError(f"{path}: {summarize_error(error)}") from None


def quote(override: str) -> str:
    """An override as Hydra reads it: the parentheses of an objective's text would be a function call to it."""
    name, _, text = override.partition("=")
    if name.lstrip("+") != "qredit.objective" or text[:1] in ("'", '"'):
        return override
    escaped = text.replace("'", "\\'")
    return f"{name}='{escaped}'"


def load_tokenizer(model: Any) -> Any:
    """The tokenizer of verl's model options.

    Raises:
        QreditError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    path = str(model.tokenizer_path or model.path)
    try:
        return AutoTokenizer.from_pretrained(Path(path).expanduser() if path.startswith("~") else path)
    except Exception as error:  # its files are the user's: the libraries below stumble over them in their own ways
        raise QreditError(f"no tokenizer for model '{path}': {summarize_error(error)}") from None


def check_config(config: Any, settings: VerlSettings) -> None:
    """Refuse options under which the objective would not be what is learned.

    Raises:
        QreditError: names the option and what it must be.
    """
    objective = settings.make_objective()
    fixed = {
        "trainer.use_v1": True,
        "algorithm.use_kl_in_reward": False,
        "actor_rollout_ref.actor.use_kl_loss": False,
        "actor_rollout_ref.actor.entropy_coeff": 0,
        "actor_rollout_ref.actor.shuffle": False,
        "actor_rollout_ref.rollout.multi_turn.enable": False,
        "reward.reward_model.enable": False,
    }
    from omegaconf import OmegaConf

    for name, wanted in fixed.items():
        value = OmegaConf.select(config, name)
        if value != wanted:
            raise QreditError(f"{name}={value} must be {wanted}: {objective} says what is learned")
    if settings.guard is not None:
        check_revertible(config)
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    if rollout.n < 2:
        raise QreditError(f"actor_rollout_ref.rollout.n, the rollouts of a prompt, must be at least 2, got {rollout.n}")
    if config.data.train_batch_size % actor.ppo_mini_batch_size:
        raise QreditError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size={actor.ppo_mini_batch_size} must divide the "
            f"data.train_batch_size={config.data.train_batch_size} prompts of a step"
        )
    if not actor.use_dynamic_bsz:
        # what a rollout makes is not a fixed number of rows: aliases, failed sessions
        raise QreditError(
            "actor_rollout_ref.actor.use_dynamic_bsz must be true: steps differ in how many rows they have"
        )


def prepare(config: Any, settings: VerlSettings) -> None:
    """Set in verl's configuration what a run of ours has to have."""
    from omegaconf import open_dict

    with open_dict(config):
        config.qredit.objective, config.qredit.objective_file = settings.text, None  # workers may not have the file
        config.trainer.v1.trainer_mode = "qredit"
        config.actor_rollout_ref.rollout.agent.default_agent_loop = AGENT
        config.actor_rollout_ref.rollout.agent.agent_loop_config_path = str(Path(__file__).with_name("agents.yaml"))
        config.actor_rollout_ref.rollout.calculate_log_probs = True
        config.algorithm.adv_estimator = "grpo"  # ours replaces it; of the others some want a critic
        # the name under which verl starts a reference worker; its KL is not added, since the loss is ours
        config.actor_rollout_ref.actor.use_kl_loss = settings.needs_reference
        config.data.filter_overlong_prompts = False  # prompts are rendered by our format, not by verl


def run(config: Any) -> None:
    """verl's own main, from where Hydra has done its part."""
    from verl.trainer.main_ppo import run_ppo
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    from qredit.verl.task_runner import QreditTaskRunner

    auto_set_device(config)
    validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    run_ppo(config, task_runner_class=QreditTaskRunner)
