"""OPSD: the policy learns from itself as it would write with the answer in its prompt."""

from qredit.core.chain import on_span
from qredit.core.field_names import HINT
from qredit.core.hint import HINT_TEMPLATE, hint
from qredit.core.objective import Objective
from qredit.core.reduce import mean_per_token
from qredit.core.surrogate import score_function
from qredit.credit.teacher_ratio import teacher_log_ratio
from qredit.objectives._method import method


@method("likelihood", "arXiv 2601.18734", "code")
def opsd(template: str = HINT_TEMPLATE, ratio_max: float = 2.0) -> Objective:
    """On-policy self-distillation from the gold answer as privileged context: neither reward nor likelihood is read.

        A_t = log p_T(o_t | x, y*, o_<t) - log p(o_t | x, o_<t),   loss = -mean over sampled tokens of A_t log p(o_t)

    with p_T the policy when the rollouts were made, behind a prompt that shows y*. In expectation the gradient is that
    of the reverse KL of each token, at the prefixes that the policy draws. Answers are sampled and learn as rationales
    do.

    Args:
        template: how the prompt is shown with the answer, with {prompt} and {answer} in it.
        ratio_max: where the importance ratio per token is cut, for rollouts of older weights.

    Zero where the two agree, on forced closing tokens and on text that a tool wrote. Known failures: the style drifts
    to that of a model that was told the answer, and what only the teacher can know is learned as if it were known
    (arXiv 2606.11709, 2608.01735). It leads no farther than to the model behind the hint: see how that answers first.
    As the policy moves, its teacher does. One that stays, as in the official code, is `teacher_log_ratio('told')` in
    the place of the stage here, and `--field "logp@told=behind_prompt(template, model=PATH)"`.

    Source: arXiv 2601.18734, compared with the official code, siyan-zhao/OPSD at 590ec26: `opsd_trainer.py`, its loss
    over sampled tokens (`use_tinker_loss`). Difference: its default is a Jensen-Shannon divergence over the whole
    vocabulary, with the initial weights as the teacher, at temperature 1.1. Its template shows a whole solution.
    """
    advantage = on_span("sampled", teacher_log_ratio(HINT))
    return Objective(advantage, score_function(ratio_max), mean_per_token(), proposal=hint(0.0, template))
