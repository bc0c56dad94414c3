"""The text form of rules: what `qredit sft --keep-tokens` takes.

    entropy_sft(keep=0.8, gamma=0.8)
    my_package.rules.rare(most=3)      a call of one's own that makes a `TokenRule`

Expressions are read by the rules of `qredit.objectives.parsing`: nothing is evaluated.
"""

from functools import cache

from qredit.data.token_rules import REGISTRY
from qredit.data.token_rules.protocol import TokenRule
from qredit.objectives.parsing import read_kind


@cache  # options are looked at several times
def parse_token_rule(text: str) -> TokenRule:
    """The rule that a text stands for.

    Raises:
        QreditError: an unknown rule (with the nearest), a wrong argument, a call of something else.
    """
    return read_kind(text, REGISTRY, "keep_tokens", "rule of tokens", TokenRule)  # type: ignore[no-any-return]
