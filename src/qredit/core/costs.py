"""What an objective costs beyond log-probabilities and rewards, in words."""

from qredit.core.chain import Scope, field_kinds
from qredit.core.field_names import ANSWER_AT_TURNS, DIVERGENCES, HINT, LOGP_PREFIX, STATE_PREFIXES, list_teachers
from qredit.core.objective import Objective


def list_costs(objective: Objective) -> list[str]:
    """What a step costs beyond the forward and backward pass that log-probabilities and rewards take."""
    read = field_kinds(objective.needs)
    teachers = {name for told in (LOGP_PREFIX, *STATE_PREFIXES) for name in list_teachers(objective.needs, told)}
    maps = {"attention_influence", "attention_locality"}
    at_turns = bool(ANSWER_AT_TURNS & read)
    costs = {
        "a forward pass of a second model, held in memory, for each generation": bool(teachers - {HINT})
        or "base_probability" in read,
        "a forward pass of the policy behind the prompt that shows the answer, for each generation": HINT in teachers,
        "a forward pass over each episode with the answer at every turn, for each generation": at_turns,
        "attention maps of every rollout, computed the slow way, for each generation": bool(maps & read),
        "the last layer's state at every token": "hidden" in read and "prediction_error" not in read,
        "last-layer states and prediction errors of every token": "prediction_error" in read,
        "a second model's distribution over the vocabulary at every token": bool(DIVERGENCES & read),
        "a sort of the vocabulary at every token": "nucleus_entropy" in read,
        "a scoring pass over the whole optimiser step before the first backward pass": objective.scope is Scope.BATCH,
        "a scoring pass over the whole generation before its first update": objective.scope is Scope.GENERATION,
        "a scoring pass over all rows before those drawn are differentiated": objective.draws
        and objective.scope < Scope.BATCH,
    }
    return [words for words, paid in costs.items() if paid]
