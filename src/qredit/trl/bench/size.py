"""The sizes of a benchmark: prompt, completion and rollouts, and the model that is trained."""

from dataclasses import dataclass

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from qredit.utils.errors import QreditError

ANSWER = 8
LARGEST = 1_000_000
SPECIAL = ("<pad>", "<end>", "<think>", "</think>")


@dataclass(frozen=True)
class Size:
    """Tokens of the prompt, tokens of each completion, rollouts of the group."""

    prompt: int
    completion: int
    m: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """`512/64/16`.

        Raises:
            QreditError: not three whole numbers up to `LARGEST`, a completion too short for an answer, fewer than two
                rollouts.
        """
        parts = text.strip().split("/")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            raise QreditError(
                f"a size is PROMPT/COMPLETION/ROLLOUTS in tokens and rollouts, such as 512/64/16, not {text}"
            )
        size = cls(*map(int, parts))
        if max(size.prompt, size.completion, size.m) > LARGEST:
            raise QreditError(f"size {text}: no number may be larger than {LARGEST:,}")
        if size.prompt < 2 or size.completion < ANSWER + 3 or size.m < 2:
            raise QreditError(f"size {text}: prompt ≥ 2, completion ≥ {ANSWER + 3} and at least 2 rollouts are needed")
        return size

    def __str__(self) -> str:
        return f"{self.prompt}/{self.completion}/{self.m}"


@dataclass(frozen=True)
class ModelShape:
    """A Qwen3-shaped model with random weights; the default has 6.9 million parameters."""

    vocabulary: int = 8000
    hidden: int = 256
    inner: int = 640
    layers: int = 4
    heads: int = 8
    key_heads: int = 4
    head: int = 32
    tied: bool = False

    def model(self, longest: int) -> Qwen3ForCausalLM:
        """The model, for sequences of at most `longest` tokens."""
        config = Qwen3Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            head_dim=self.head,
            tie_word_embeddings=self.tied,
            max_position_embeddings=longest,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
        return Qwen3ForCausalLM(config)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token for each word w4, w5, …"""
        words = [*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), self.vocabulary))]
        core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(
            tokenizer_object=core,
            eos_token="<end>",
            pad_token="<pad>",
            additional_special_tokens=["<think>", "</think>"],
        )

    def useful_flops(self, size: Size, frozen: bool = False) -> float:
        """Floating-point operations of a forward and backward pass over the tokens that must be computed.

        The prompt once and every completion token once through the layers, completion tokens through the head, causal
        attention to what each sees; a product of (a, b) and (b, c) is 2abc, and backward costs twice the forward, or
        once where weights have no gradient.

        Args:
            size: tokens of prompt and completion, and rollouts.
            frozen: weights have no gradient; what adapters cost is not counted.
        """
        linear = (
            self.layers * self.hidden * (2 * self.heads * self.head + 2 * self.key_heads * self.head + 3 * self.inner)
        )
        completions = size.m * size.completion
        seen = size.prompt**2 / 2 + completions * (size.prompt + size.completion / 2)
        attention = 4 * self.layers * self.heads * self.head * seen
        weights = 2 * linear * (size.prompt + completions) + 2 * self.vocabulary * self.hidden * completions
        return (2 if frozen else 3) * weights + 3 * attention


QWEN3_0_6B = ModelShape(
    vocabulary=151936, hidden=1024, inner=3072, layers=28, heads=16, key_heads=8, head=128, tied=True
)
