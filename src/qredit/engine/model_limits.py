"""What a model can hold: token ids that have an embedding, and the tokens of its context."""

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from qredit.rollouts.tokenizer import vocabulary_size
from qredit.shared_prefix.support import unwrap_peft
from qredit.utils.errors import QreditError


def check_vocabulary(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose largest id has no row among the model's embeddings.

    Raises:
        QreditError: both numbers, and how to bring them together.
    """
    rows = unwrap_peft(model).get_input_embeddings().weight.shape[0]
    ids = vocabulary_size(tokenizer)  # type: ignore[arg-type]
    if ids > rows > 0:  # no rows where they are sharded
        raise QreditError(
            f"the tokenizer's ids go up to {ids - 1}, but the model has embeddings of {rows} tokens; give the "
            f"tokenizer of this model, or enlarge the model: model.resize_token_embeddings({ids}), then save it"
        )


def get_context_length(model: PreTrainedModel) -> int | None:
    """The model's context length in tokens; None is unlimited."""
    return read_context_length(model.config)


def read_context_length(config: PretrainedConfig) -> int | None:
    """The context length of a model with this configuration, in tokens; None is unlimited."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
