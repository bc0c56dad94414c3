"""What answers questions outside of training: the loaded model itself, or vLLM with its weights."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qredit.rollouts.format import TokenFormat
from qredit.rollouts.sampling_params import SamplingParams
from qredit.runs.options import TrainOptions
from qredit.samplers.protocol import Sampler
from qredit.samplers.transformers import make_sampler
from qredit.samplers.vllm.choice import open_engine
from qredit.samplers.vllm.sampler import VllmSampler, WeightSync
from qredit.samplers.vllm.settings import VllmSettings, refuse_unused
from qredit.samplers.vllm.version import check_vllm
from qredit.trl.vllm_sampling import check_not_quantized


def parse_vllm(options: TrainOptions) -> VllmSettings | None:
    """How vLLM is to be used; None where it is not. No model needs to be loaded.

    Raises:
        QreditError: it is missing or not supported; a value that cannot be, or one without effect.
    """
    given = options.training
    if not given.get("use_vllm"):
        refuse_unused(given)
        return None
    settings = VllmSettings.parse(given)
    if settings.mode == "colocate":
        check_vllm()
    return settings


def make_answer_sampler(
    network: PreTrainedModel,
    tokens: TokenFormat,
    settings: VllmSettings | None,
    longest: int,
    *,
    draw: SamplingParams = SamplingParams(),
    half: bool = False,
) -> Sampler:
    """A sampler of a loaded model.

    Args:
        network: the model, on the device that computes.
        tokens: the layout of a completion, as ids of its tokenizer.
        settings: how vLLM is used; None draws with transformers.
        longest: most tokens of a prompt and its completion.
        draw: temperature and truncation of the distribution.
        half: whether the policy computes in bf16.

    Raises:
        QreditError: a model, or a draw, that vLLM cannot serve.
    """
    tokenizer: PreTrainedTokenizerBase = tokens.tokenizer  # type: ignore[assignment]
    if settings is None:
        return make_sampler(network, int(tokenizer.pad_token_id), draw, half)
    check_not_quantized(network)
    engine = open_engine(
        network,
        tokenizer,
        settings,
        draw,
        device=torch.device(network.device),
        dtype="bfloat16" if half else "float32",
        length=longest,
    )
    sampler = VllmSampler(engine, WeightSync(engine, lambda: 0), draw)
    sampler.sync(network)
    return sampler
