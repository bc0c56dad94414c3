"""What is assumed of verl 0.9.1, name by name, so that it fails here first when another version differs."""

import importlib
import inspect
from importlib.metadata import version

import pytest

from qredit.verl import launch
from tests.support.verl_cpu.environment import needs_verl

pytestmark = [needs_verl, pytest.mark.verl]
TRAINER = "verl.trainer.ppo.v1.trainer_base:PPOTrainer"
# What is called or overridden, with the parameters that are given or received.
NAMES = {
    "verl.trainer.main_ppo:run_ppo": ("config", "task_runner_class"),
    "verl.trainer.ppo.v1.trainer_base:register_trainer": ("name",),
    f"{TRAINER}.__init__": ("self", "config"),
    f"{TRAINER}._setup": ("self",),
    f"{TRAINER}._init_dataloader": ("self",),
    f"{TRAINER}._get_required_batch_multiple": ("self", "dp_size"),
    f"{TRAINER}._balance_batch": ("self", "batch", "metrics"),
    f"{TRAINER}._compute_old_log_prob": ("self", "batch", "metrics"),
    f"{TRAINER}._save_checkpoint": ("self",),
    f"{TRAINER}._load_checkpoint": ("self",),
    f"{TRAINER}._compute_advantage": ("self", "batch", "metrics"),
    f"{TRAINER}._update_actor": ("self", "batch", "metrics"),
    f"{TRAINER}._compute_ref_log_prob": ("self", "batch", "metrics"),
    f"{TRAINER}._init_resource_pool_mgr": ("self",),
    f"{TRAINER}._val_metrics_update": ("self", "data_sources", "sample_uids", "reward_extra_infos_dict"),
    "verl.workers.engine_workers:ActorRolloutRefWorker.set_loss_fn": ("self", "loss_fn"),
    "verl.workers.engine_workers:ActorRolloutRefWorker.compute_log_prob": ("self", "data"),
    "verl.workers.engine_workers:ActorRolloutRefWorker.update_actor": ("self", "data"),
    "verl.workers.engine_workers:ActorRolloutRefWorker.compute_ref_log_prob": ("self", "data"),
    "verl.workers.engine_workers:ActorRolloutRefWorker.load_checkpoint": ("self", "local_path", "del_local_after_load"),
    "verl.single_controller.base.decorator:register": ("dispatch_mode",),
    "verl.workers.utils.padding:no_padding_2_padding": ("tensor", "data"),
    "verl.workers.utils.padding:response_from_nested": ("tensor", "response_mask"),
    "verl.utils.tensordict_utils:get": ("tensordict", "key"),
    "verl.experimental.agent_loop.agent_loop:AgentLoopBase.__init__": ("self", "hf_model_type"),
    "verl.experimental.agent_loop.agent_loop:AgentLoopBase.run": ("self", "sampling_params"),
    "verl.workers.rollout.llm_server:LLMServerClient.generate": ("self", "request_id", "prompt_ids", "sampling_params"),
    "verl.utils.config:validate_config": ("config", "use_reference_policy", "use_critic"),
    "verl.trainer.ppo.utils:need_reference_policy": ("config",),
    "verl.trainer.ppo.utils:need_critic": ("config",),
    "verl.utils.device:auto_set_device": ("config",),
    "transfer_queue:kv_batch_get": ("keys", "partition_id", "select_fields"),
    "transfer_queue:kv_batch_put": ("keys", "partition_id", "fields"),
}
OPTIONS = (
    "trainer.use_v1",
    "trainer.v1.trainer_mode",
    "trainer.default_local_dir",
    "trainer.resume_mode",
    "trainer.resume_from_path",
    "trainer.save_freq",
    "trainer.max_actor_ckpt_to_keep",
    "trainer.del_local_ckpt_after_load",
    "actor_rollout_ref.actor.checkpoint.async_save",
    "actor_rollout_ref.actor.checkpoint.save_contents",
    "actor_rollout_ref.actor.checkpoint.load_contents",
    "actor_rollout_ref.actor.optim.lr",
    "algorithm.use_kl_in_reward",
    "algorithm.adv_estimator",
    "actor_rollout_ref.actor.use_kl_loss",
    "actor_rollout_ref.actor.entropy_coeff",
    "actor_rollout_ref.actor.shuffle",
    "actor_rollout_ref.actor.use_dynamic_bsz",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_epochs",
    "actor_rollout_ref.rollout.multi_turn.enable",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.rollout.response_length",
    "actor_rollout_ref.rollout.calculate_log_probs",
    "actor_rollout_ref.rollout.agent.default_agent_loop",
    "actor_rollout_ref.rollout.agent.agent_loop_config_path",
    "reward.reward_model.enable",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.model.tokenizer_path",
    "data.train_files",
    "data.val_files",
    "data.max_prompt_length",
    "data.train_batch_size",
    "data.max_response_length",
    "data.filter_overlong_prompts",
)


def found(name):
    module, _, path = name.partition(":")
    value = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    return value


def test_the_version_is_the_one_that_was_read():
    assert version("verl") == launch.VERSION


@pytest.mark.parametrize("name", NAMES)
def test_functions_take_what_they_are_given(name):
    there = inspect.signature(inspect.unwrap(found(name))).parameters
    assert set(NAMES[name]) <= set(there) or any(one.kind is one.VAR_KEYWORD for one in there.values())


def test_options_have_their_places(tmp_path):
    """Whatever is read or set of the configuration is there by default, so that a misspelt name is refused."""
    from omegaconf import OmegaConf

    file = tmp_path / "run.yaml"
    file.write_text("qredit: {objective: grpo()}\nactor_rollout_ref: {rollout: {name: vllm}}\n")
    config = launch.compose(str(file), [])
    missing = object()
    assert [name for name in OPTIONS if OmegaConf.select(config, name, default=missing) is missing] == []


def test_an_agent_loop_may_tell_what_ours_does():
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

    output = AgentLoopOutput(
        prompt_ids=[1],
        response_ids=[2, 3],
        response_mask=[1, 0],
        response_logprobs=[-0.5, 0.0],
        reward_score=1.0,
        num_turns=2,
        metrics=AgentLoopMetrics(),
        extra_fields={"text": "told"},
    )
    told = output.as_dict()
    assert told["rm_scores"].tolist() == [0.0, 1.0]
    assert told["extra_fields"]["text"] == "told"
    assert {"prompts", "responses", "response_mask", "rollout_log_probs"} <= set(told)


def test_our_worker_takes_the_place_of_verls():
    """It is put where verl names its own, and is asked what verl's workers are not."""
    from verl.single_controller.base.decorator import MAGIC_ATTR
    from verl.trainer.ppo.utils import Role

    from qredit.verl.worker import QreditWorker

    source = inspect.getsource(found(f"{TRAINER}._init_resource_pool_mgr"))
    assert "self.role_worker_mapping[role] = ray.remote(ActorRolloutRefWorker)" in source
    assert {"ActorRollout", "ActorRolloutRef"} <= set(Role.__members__)
    assert hasattr(QreditWorker.set_learning_rate_share, MAGIC_ATTR)


def test_a_reference_worker_comes_with_this_option():
    from omegaconf import OmegaConf
    from verl.trainer.ppo.utils import need_reference_policy

    for wanted in (True, False):
        actor = {"actor_rollout_ref": {"actor": {"use_kl_loss": wanted}}, "algorithm": {"use_kl_in_reward": False}}
        assert need_reference_policy(OmegaConf.create(actor)) == wanted


def test_filling_rows_are_marked():
    """`list_real` leaves out what verl adds to fill a batch up."""
    from verl.trainer.ppo import padding_utils

    from qredit.verl.queue import PADDING

    source = inspect.getsource(padding_utils.construct_minimal_padding_template)
    assert f"{PADDING}=True" in source
