"""Claims of the token family."""

import math

import torch

from qredit.core.chain import on_span
from qredit.core.objective import Objective
from qredit.credit.attention_role import amplify_anchors, amplify_coupled_anchors, amplify_preplans
from qredit.credit.contrast import contrastive_reward
from qredit.credit.down_sample import (
    keep_top_entropy,
    keep_top_weighted_entropy,
    keep_widest_of_batch,
    keep_widest_of_group,
)
from qredit.credit.entropy_change import scale_by_entropy_change, scale_by_entropy_change_linearly
from qredit.credit.entropy_weight import scale_by_entropy_score
from qredit.credit.gradient_side import weigh_by_gradient_side
from qredit.credit.group import center_by_group, scale_by_group_std
from qredit.credit.group_tokens import divide_by_group_tokens
from qredit.credit.planning import amplify_planning
from qredit.credit.prefix_tree import add_tree_difference
from qredit.credit.reward import reward
from qredit.credit.token_influence import soften_by_influence, tilt_by_influence
from qredit.objectives import (
    agentic_aepo,
    attention_credit,
    d3s,
    delta,
    grpo,
    hicra,
    nthr,
    steer,
    t_reg,
    tempo,
    thr,
    top_entropy,
)
from qredit.testing.laws import StageSubject, Subject
from qredit.testing.laws.values import EQUAL_REWARDS, UNSCORED

# --- the formulas, token by token; rows are lists of (column, …) of what was sampled


def _members(batch, row):
    """The scored rows of a row's group."""
    return [n for n in range(len(batch.group)) if batch.group[n] == batch.group[row] and not batch.reward[n].isnan()]


def _advantage(batch, row, epsilon=1e-4, scaled=True):
    """(r - mean) / (std + epsilon) of the scored rows; 0 in a row that is not scored or whose group is equal."""
    rewards = [float(batch.reward[n]) for n in _members(batch, row)]
    if batch.reward[row].isnan() or len(set(rewards)) < 2:
        return 0.0
    mean = sum(rewards) / len(rewards)
    std = (sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)) ** 0.5
    return (float(batch.reward[row]) - mean) / (std + epsilon if scaled else 1.0)


def _places(batch, scored=True):
    """(row, column) of every sampled token, of scored rows only."""
    return [
        (int(row), int(column)) for row, column in batch.sampled.nonzero() if not (scored and batch.reward[row].isnan())
    ]


def _credit(batch, value_at):
    """(B, T) of value_at(row, column) on the sampled tokens of scored rows."""
    credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for row, column in _places(batch):
        credit[row, column] = value_at(row, column)
    return credit


def _steered(batch, weight_of):
    sizes = {}
    for row, column in _places(batch):
        p, old = (math.exp(float(values[row, column])) for values in (batch.logp, batch.sampler_logp))
        p = min(max(p, 1e-8), 1 - 1e-8)
        change = (
            _advantage(batch, row) / max(old, 1e-8) * p * (1 - p) * (math.log(p) + float(batch.entropy[row, column]))
        )
        sizes[row, column] = abs(change)
    return _credit(batch, lambda row, column: _advantage(batch, row) * weight_of(sizes[row, column], sizes.values()))


def _steer(batch):
    """λ = exp(-k |Ω|), k = -ln(0.8) / max(max |Ω|, 0.02)."""
    return _steered(batch, lambda own, every: math.exp(math.log(0.8) / max(max(every), 0.02) * own))


def _steer_linearly(batch):
    """λ from 1.2 at the smallest |Ω| to 0.8 at the largest."""
    return _steered(batch, lambda own, every: 1.2 - 0.4 * (own - min(every)) / (max(every) - min(every)))


def _hicra(batch):
    def value(row, column):
        advantage = _advantage(batch, row, scaled=False)
        return advantage + 0.2 * abs(advantage) * bool(batch.extra["planning"][row, column])

    return _credit(batch, value)


def _tempo(batch):
    """The walk by comparing every prefix with every other."""
    walks = [
        [int(token) for token, counts in zip(batch.ids[row], batch.sampled[row].cumprod(0), strict=True) if counts]
        for row in range(len(batch.group))
    ]

    def outlook(row, length):
        prefix = walks[row][:length]
        alike = [n for n in _members(batch, row) if len(walks[n]) >= length and walks[n][:length] == prefix]
        return sum(_advantage(batch, n, 1e-6) for n in alike) / len(alike)

    def value(row, column):
        walked = column < len(walks[row])
        turn = outlook(row, column + 1) - outlook(row, column) if walked else 0.0
        return _advantage(batch, row, 1e-6) + turn

    return _credit(batch, value)


def _head_gradient(batch, row, column):
    """e hᵀ, written out."""
    return torch.outer(batch.extra["prediction_error"][row, column], batch.extra["hidden"][row, column]).double()


def _influence(batch, per_token):
    """Of each token, the inner product with the sum of the right rows' gradients, and its row's group threshold."""
    scores, thresholds = {}, {}
    for row in range(len(batch.group)):
        tokens = {n: [c for r, c in _places(batch) if r == n] for n in _members(batch, row)}
        right = [n for n in tokens if float(batch.reward[n]) == 1]
        if not right or len(right) == len(tokens):
            continue
        bank = sum(_head_gradient(batch, n, c) / (len(tokens[n]) if per_token else 1) for n in right for c in tokens[n])
        score = {(n, c): float((_head_gradient(batch, n, c) * bank).sum()) for n in tokens for c in tokens[n]}
        thresholds[row] = min(sum(score[n, c] for c in tokens[n]) / len(tokens[n]) for n in right)
        scores |= {place: value for place, value in score.items() if place[0] == row}
    return scores, thresholds


def _thr(tilt):
    def credit(batch):
        scores, thresholds = _influence(batch, per_token=True)

        def value(row, column):
            if row not in thresholds:
                return _advantage(batch, row)
            influence = (2 * float(batch.reward[row]) - 1) * scores[row, column]
            dominant = abs(influence) > thresholds[row]
            return _advantage(batch, row) * dominant * (1 + math.copysign(tilt, tilt * influence))

        return _credit(batch, lambda row, column: _per_group_token(batch, row) * value(row, column))

    return credit


def _nthr(batch):
    scores, thresholds = _influence(batch, per_token=False)

    def value(row, column):
        alike = row in thresholds and float(batch.reward[row]) == 0 and scores[row, column] > thresholds[row]
        members = _members(batch, row)
        share = sum(float(batch.reward[n]) for n in members) / len(members)
        return _advantage(batch, row) * (2 * abs(share - 0.5) if alike else 1.0)

    return _credit(batch, lambda row, column: _per_group_token(batch, row) * value(row, column))


def _per_group_token(batch, row):
    """Rollouts over sampled tokens of the row's group."""
    members = batch.group == batch.group[row]
    return int(members.sum()) / int(batch.sampled[members].sum())


def _prompt_mean_loss(credit_of):
    """The mean over prompts, each weighed by its rollouts, of one mean over the group's tokens."""

    def loss(logp, batch):
        credit, total = credit_of(batch), torch.zeros((), dtype=torch.float64)
        for name in batch.group.unique():
            rows, mean = (batch.group == name).nonzero()[:, 0].tolist(), torch.zeros((), dtype=torch.float64)
            places = [(row, column) for row in rows for column in batch.sampled[row].nonzero()[:, 0].tolist()]
            for row, column in places:
                advantage = float(credit[row, column]) / _per_group_token(batch, row)
                ratio = (logp[row, column] - batch.sampler_logp[row, column]).exp()
                mean = mean - torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage) / len(places)
            total = total + mean * len(rows)
        return total / len(batch.group)

    return loss


def _delta_weights(batch):
    """λ of each sampled place: margins, their spread, centres once more, over vectors written out."""
    places = _places(batch, scored=False)
    proxy = {p: (1 - math.exp(float(batch.logp[p]))) * batch.extra["hidden"][p].double() for p in places}
    sides = {sign: [p for p in places if sign * _advantage(batch, p[0]) > 0] for sign in (1, -1)}
    size = {p: abs(_advantage(batch, p[0])) for p in places}

    def centre(side, share):
        total = sum(size[p] * share[p] for p in side)
        return sum(size[p] * share[p] * proxy[p] for p in side) / total

    def margins(share):
        own = {sign: centre(side, share) for sign, side in sides.items()}
        distance = lambda p, sign: float((proxy[p] - own[sign]).square().sum())  # noqa: E731
        return {p: distance(p, -sign) - distance(p, sign) for sign, side in sides.items() for p in side}

    first = margins(dict.fromkeys(places, 1.0))
    scale = {}
    for side in sides.values():
        mean = sum(first[p] for p in side) / len(side)
        scale |= dict.fromkeys(side, (sum((first[p] - mean) ** 2 for p in side) / len(side)) ** 0.5)
    share = {p: 1 / (1 + math.exp(-first[p] / scale[p])) for p in first}
    second = margins(share)
    weight = dict.fromkeys(places, 0.8) | {p: 0.8 + 0.4 / (1 + math.exp(-second[p] / scale[p])) for p in second}
    mean = sum(weight.values()) / len(weight)
    return {p: w / mean for p, w in weight.items()}


def delta_credit(batch):
    """A_i λ_t over the mean of λ."""
    weights = _delta_weights(batch)
    return _credit(batch, lambda row, column: _advantage(batch, row) * weights[row, column])


def _delta_loss(logp, batch):
    """The clipped surrogate of the weighted advantage, a mean over all sampled tokens."""
    credit, places = delta_credit(batch), _places(batch, scored=False)
    total = torch.zeros((), dtype=torch.float64)
    for row, column in places:
        advantage = float(credit[row, column])
        ratio = (logp[row, column] - batch.sampler_logp[row, column]).exp()
        total = total - torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
    return total / len(places)


def _quantile(values, level):
    values = sorted(values)
    place = level * (len(values) - 1)
    low = math.floor(place)
    return values[low] + (place - low) * (values[min(low + 1, len(values) - 1)] - values[low])


def _top_entropy(batch):
    bound = _quantile([float(batch.entropy[place]) for place in _places(batch)], 0.8)
    return _credit(batch, lambda row, column: _advantage(batch, row) * (float(batch.entropy[row, column]) >= bound))


def _widest(rows, count):
    """By trying every subset of (advantage, mean entropy, row): most variance, then highest sum, then entropies."""
    if count >= len(rows):
        return rows

    def rank(subset):
        values = [value for value, _, _ in subset]
        mean = sum(values) / count
        variance = sum((v - mean) ** 2 for v in values) / count
        return round(variance, 9), round(sum(values), 9), sum(entropy for _, entropy, _ in subset)

    return list(max(_subsets(rows, count), key=rank))


def _subsets(rows, count):
    if count == 0:
        yield ()
        return
    for place in range(len(rows) - count + 1):
        for rest in _subsets(rows[place + 1 :], count - 1):
            yield (rows[place], *rest)


def _chosen(batch, of_group, of_batch):
    def told(row):
        return _advantage(batch, row), float(batch.entropy[row, batch.sampled[row]].detach().mean()), row

    groups = {int(number): None for number in batch.group}
    stay = []
    for number in groups:
        rows = [row for row in range(len(batch.group)) if batch.group[row] == number and not batch.reward[row].isnan()]
        stay += _widest([told(row) for row in rows], of_group)
    return {row for _, _, row in _widest(stay, of_batch)}


def _d3s(batch):
    rows = _chosen(batch, 2, 4)
    key = {
        (row, column): abs(_advantage(batch, row)) * float(batch.entropy[row, column].detach())
        for row, column in _places(batch)
        if row in rows
    }
    bound = _quantile(key.values(), 0.5)
    return _credit(
        batch, lambda row, column: _advantage(batch, row) * ((row, column) in key and key[row, column] >= bound)
    )


def _d3s_loss(logp, batch):
    """Over the tokens of the rows that stay, those without a coefficient counted."""
    rows, credit = _chosen(batch, 2, 4), _d3s(batch)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row, column in _places(batch):
        if row in rows:
            ratio, advantage = (logp[row, column] - batch.sampler_logp[row, column]).exp(), float(credit[row, column])
            total = total - torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
            count += 1
    return total / count


def _agentic_aepo(batch):
    entropies = [float(batch.entropy[place].detach()) for place in _places(batch)]
    mean = sum(entropies) / len(entropies)
    std = (sum((h - mean) ** 2 for h in entropies) / (len(entropies) - 1)) ** 0.5

    def value(row, column):
        return _advantage(batch, row) * (1 + 0.2 * (float(batch.entropy[row, column].detach()) - mean) / std)

    return _credit(batch, value)


def _agentic_aepo_loss(logp, batch):
    """The clipped loss with ρ > 1 + ε replaced by (1 + ε) ρ / sg ρ, one mean over all tokens."""
    credit = _agentic_aepo(batch)
    total = torch.zeros((), dtype=torch.float64)
    for row, column in _places(batch):
        advantage = float(credit[row, column])
        ratio = (logp[row, column] - batch.sampler_logp[row, column]).exp()
        if advantage > 0 and float(ratio.detach()) > 1.2:
            ratio = 1.2 * ratio / ratio.detach()
        elif advantage < 0 and float(ratio.detach()) < 0.8:
            ratio = ratio.detach() * 0 + 0.8
        total = total - ratio * advantage
    return total / batch.sampled.sum()


def _t_reg(batch):
    credit = torch.zeros(batch.mask.shape, dtype=torch.float64)
    for row, column in _places(batch, scored=False):
        better, worse = (float(batch.extra[name][row, column]) for name in ("logp@better", "logp@worse"))
        credit[row, column] = _advantage(batch, row) + 0.1 * (1 / (1 + math.exp(worse - better)) - 0.5)
    return credit


def _by_role(bonus_of, positive_only=False):
    """γ = 1 + 0.5 · bonus, on advantages of both signs or on those that are not negative."""

    def credit(batch):
        bonus = {row: bonus_of(batch, row, [c for r, c in _places(batch) if r == row]) for row, _ in _places(batch)}

        def value(row, column):
            advantage = _advantage(batch, row)
            left = positive_only and advantage < 0
            return advantage if left else advantage * (1 + 0.5 * bonus[row].get(column, 0.0))

        return _credit(batch, value)

    return credit


def _top(scores):
    """The ⌈0.4 n⌉ columns with the largest scores."""
    return sorted(scores, key=lambda column: (-scores[column], column))[: math.ceil(0.4 * len(scores) - 1e-9)]


def _jump(batch, row, column):
    if column + 1 >= batch.mask.shape[1] or not batch.mask[row, column + 1]:
        return 0.0
    locality = batch.extra["attention_locality"]
    return abs(float(locality[row, column] - locality[row, column + 1]))


def _local(batch, row, columns):
    return dict.fromkeys(_top({column: _jump(batch, row, column) for column in columns}), 1.0)


def _anchor(batch, row, columns, horizon=100):
    influence = batch.extra[f"attention_influence@{horizon}"]
    return dict.fromkeys(_top({c: float(influence[row, c]) for c in columns}), 1.0)


anchor_credit = _by_role(_anchor)


def _early_anchor(batch, row, columns):
    return _anchor(batch, row, columns, horizon=50)


def _coupled(batch, row, columns):
    """Medians, half of the bonus handed back, a window of 2."""
    locality = {c: float(batch.extra["attention_locality"][row, c]) for c in columns}
    jump = {c: _jump(batch, row, c) for c in columns}
    bonus, introducers = _anchor(batch, row, columns), set()
    for column in list(bonus):
        before = [c for c in (column - 2, column - 1) if c in jump]
        if not before or locality[column] > _quantile(locality.values(), 0.5):
            continue
        introducer = max(before, key=lambda c: jump[c])
        if jump[introducer] >= _quantile(jump.values(), 0.5):
            bonus[column] -= 0.5
            introducers.add(introducer)
    for column in introducers:
        bonus[column] = bonus.get(column, 0.0) + 0.5
    return bonus


ZERO = (EQUAL_REWARDS, UNSCORED)
COUPLED = amplify_coupled_anchors(handed_back=0.5, locality_quantile=0.5, jump_quantile=0.5, window=2)
GRPO_CHAIN = reward() | center_by_group() | scale_by_group_std()

BATTERY: tuple[Subject, ...] = (
    Subject(steer(), reference=_steer, zero=ZERO),
    Subject(
        Objective(on_span("sampled", GRPO_CHAIN | scale_by_entropy_change_linearly())),
        reference=_steer_linearly,
        zero=ZERO,
    ),
    Subject(hicra(), reference=_hicra, zero=ZERO),
    Subject(tempo(), reference=_tempo, zero=ZERO),
    *(
        Subject(thr(tilt), reference=_thr(tilt), loss=_prompt_mean_loss(_thr(tilt)), zero=ZERO)
        for tilt in (0.1, -0.1, 0.0)
    ),
    Subject(nthr(), reference=_nthr, loss=_prompt_mean_loss(_nthr), zero=ZERO),
    Subject(delta(), reference=delta_credit, loss=_delta_loss, zero=ZERO),
    Subject(attention_credit(amplify_preplans()), reference=_by_role(_local), zero=ZERO),
    Subject(attention_credit(amplify_anchors()), reference=anchor_credit, zero=ZERO),
    Subject(
        attention_credit(amplify_anchors(both_signs=False, horizon=50)),
        reference=_by_role(_early_anchor, positive_only=True),
        zero=ZERO,
    ),
    Subject(attention_credit(COUPLED), reference=_by_role(_coupled), zero=ZERO),
    Subject(d3s(of_group=2, of_batch=4, tokens=0.5), reference=_d3s, loss=_d3s_loss, zero=ZERO),
    Subject(top_entropy(), reference=_top_entropy, zero=ZERO),
    Subject(
        Objective(on_span("sampled", GRPO_CHAIN | keep_top_entropy(1.0)), grpo().surrogate, grpo().reduction),
        unused=frozenset({"entropy"}),
        equals=((grpo(), lambda size: 1.0),),
    ),
    Subject(agentic_aepo(), reference=_agentic_aepo, loss=_agentic_aepo_loss, zero=ZERO),
    Subject(t_reg(0.1), reference=_t_reg),
    Subject(Objective(on_span("sampled", contrastive_reward()))),
)
STAGES: tuple[StageSubject, ...] = (
    StageSubject(scale_by_entropy_change()),
    StageSubject(scale_by_entropy_change_linearly(), linear=True),
    StageSubject(scale_by_entropy_score(), linear=True),
    StageSubject(keep_top_entropy(), linear=True),
    StageSubject(keep_top_weighted_entropy(0.2), linear=True),
    StageSubject(add_tree_difference(), linear=True),
    StageSubject(on_span("rationale", scale_by_entropy_score()), linear=True, span="rationale"),
    StageSubject(keep_widest_of_group(2)),
    StageSubject(keep_widest_of_batch(2)),
    StageSubject(amplify_planning()),
    StageSubject(amplify_preplans()),
    StageSubject(amplify_anchors()),
    StageSubject(COUPLED),
    StageSubject(tilt_by_influence()),
    StageSubject(soften_by_influence()),
    StageSubject(divide_by_group_tokens(), linear=True),
    StageSubject(weigh_by_gradient_side()),
)
