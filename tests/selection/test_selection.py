"""Rules of selection: worked by hand, with a judge that is a function, and beside the majority of the same samples."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from qredit.evaluation.metrics import QuestionResult, score_majority
from qredit.rewards import get
from qredit.rewards.judge.endpoint import parse_word
from qredit.selection import best_of, gen_select, majority, pairwise, weighted_majority
from qredit.selection.judges.local import local
from qredit.selection.judges.protocol import Judge
from qredit.selection.outcome import evaluate_selection, make_ballot, read_samples
from qredit.selection.parsing import parse_selection
from qredit.selection.protocol import Choice, Game
from qredit.selection.scores import answer_logp, judge_score, mean_logp
from qredit.selection.scores.judge_score import parse_grade
from qredit.selection.scores.process_score import split_steps
from qredit.utils.errors import QreditError

GOLD = "yes"


def sampled(*predictions, mean=(), answer=(), rationales=()):
    """A question answered so; the gold answer is yes."""
    scores = {"exact_match": tuple(float(text == GOLD) for text in predictions)}
    told = rationales or ("",) * len(predictions)
    return QuestionResult("q", GOLD, predictions, told, scores, mean_logp=mean, answer_logp=answer)


def chances(rule, *results, seed=0):
    selected = rule.select([make_ballot(one, "Why?", "exact_match") for one in results], seed)
    return [choice.chances for choice in selected.choices]


@dataclass(frozen=True)
class Told(Judge):
    """A judge that is a function of what it is asked about; keeps nothing."""

    reply: object
    can_vary: bool = False

    @property
    def varies(self):
        return self.can_vary

    def ask(self, questions):
        return [self.reply(about) for _, about in questions]


def position(about, name):
    """Where an answer stands in what the judge reads; -1 where it does not."""
    return about.find(f"Answer: {name}\n")


def prefers(*ranked):
    """A judge that names the better of the two by this order, whichever stands first."""

    def reply(about):
        best = next(name for name in ranked if position(about, name) >= 0)
        first = position(about, best) < about.find("</solution_A>")
        return f"Both were read.\n{'A' if first else 'B'}."

    return Told(reply)


ALWAYS_FIRST = Told(lambda about: "A")
SILENT = Told(lambda about: None)
MUTTERS = Told(lambda about: "Hard to say.")


# --- majority, weighted and not


@pytest.mark.parametrize(
    "predictions", [("yes", "no", "yes"), ("no", "yes"), ("", " ", ""), ("", "yes"), ("a", "b", "b", "a", "yes")]
)
def test_majority_is_what_m_at_k_counts(predictions):
    one = sampled(*predictions)
    outcome = evaluate_selection("majority()", majority(), read_samples([one], ["Why?"], "exact_match"), 0)
    assert outcome.success.value == score_majority(predictions, one.scores["exact_match"], get("exact_match"))
    assert outcome.gain is None


def test_weighted_votes_by_hand():
    """no: e^-1 + e^-2 = .503; yes: e^-.5 = .607. At temperature 4: .779 + .607 = 1.385 against .882."""
    one = sampled("no", "no", "yes", mean=(-1.0, -2.0, -0.5))
    assert chances(weighted_majority(mean_logp()), one) == [(0, 0, 1)]
    assert chances(weighted_majority(mean_logp(), temperature=4.0), one) == [(1, 0, 0)]


def test_weights_too_small_for_a_number_still_vote():
    one = sampled("no", "yes", "yes", answer=(-2000.0, -2000.5, -2000.5))
    assert chances(weighted_majority(answer_logp()), one) == [(0, 1, 0)]  # 2 e^-.5 = 1.21 > 1


def test_samples_without_weight_do_not_vote():
    assert chances(weighted_majority(mean_logp()), sampled("no", "no", "yes", mean=(None, None, -9.0))) == [(0, 0, 1)]
    assert chances(weighted_majority(mean_logp()), sampled("no", "no", "yes")) == [(1, 0, 0)]


def test_votes_without_scores_are_the_majority():
    one = sampled("", "yes", "no")
    assert chances(weighted_majority(mean_logp()), one) == chances(majority(), one) == [(0, 0.5, 0.5)]


# --- best-of-N


def test_best_of_takes_the_highest_and_never_a_blank():
    one = sampled("", "no", "yes", "no", answer=(0.0, -3.0, -1.0, -2.0))
    assert chances(best_of(answer_logp()), one) == [(0, 0, 1, 0)]


def test_best_of_shares_a_tie_and_leaves_out_unscored():
    one = sampled("a", "b", "c", mean=(-1.0, None, -1.0))
    assert chances(best_of(mean_logp()), one) == [(0.5, 0, 0.5)]
    assert chances(best_of(mean_logp()), sampled("", "")) == [(0, 0)]
    assert chances(best_of(mean_logp()), sampled("a", "b", "")) == [(0.5, 0.5, 0)]


def test_best_of_by_a_judge_s_grade():
    judge = Told(lambda about: {"no": "I give 11", "yes": "Grade: 7", "b": "3/10, so 3"}[answered(about)])
    selected = best_of(judge_score(judge)).select([make_ballot(sampled("no", "yes", "b"), "Why?", "exact_match")], 0)
    assert selected.choices[0].chances == (0, 1, 0)
    assert selected.counts == {"asked": 3, "unanswered": 0, "unreadable": 1}


def answered(about):
    return about.split("Answer: ")[1].split("\n")[0]


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        *[("10", 10), ("8 or 9.", 9), ("7.5", None), ("-3", None), ("11", None), ("none", None), ("10, then 0", 0)],
        *[("Grade: 3/10", 3), ("I give it 2 out of 10.", 2), ("**Score: 0 / 10**", 0), ("10/10", 10), ("", None)],
        *[("a grade of 7.", 7), ("Final grade of 9/10", 9), ("(8)", 8), ("(7/10)", 7), ("7 points", 7), ("1 of 10", 1)],
        *[(r"\boxed{7}", 7), (r"\(7\)", 7), ("A slip. 9", 9), ("A slip.\n\n9", 9), ("Grade: 9", 9)],
        *[("0 (because 1+1=2)", None), ("7.5/10", None), ("7.5 out of 10", None), ("12 out of 10", None)],
    ],
)
def test_a_grade_is_the_number_that_a_reply_ends_with(reply, grade):
    assert parse_grade(reply) == grade


def test_steps_end_at_blank_lines():
    assert split_steps("one\ntwo\n \n three\n\n\n") == ["one\ntwo", "three"]
    assert split_steps(" \n\n ") == []


# --- a judge that compares


def test_both_orders_are_asked_and_must_agree():
    selected = pairwise(prefers("yes", "no")).select([make_ballot(sampled("no", "yes"), "Why?", "exact_match")], 0)
    assert selected.choices == (Choice((0, 1), (Game(0, 1, (1, 1)),)),)
    assert selected.counts == {"asked": 2, "unanswered": 0, "unreadable": 0}


def test_a_judge_of_the_first_place_decides_nothing():
    one = sampled("a", "yes", "c")
    selected = pairwise(ALWAYS_FIRST).select([make_ballot(one, "Why?", "exact_match")], 0)
    assert selected.choices[0].chances == pytest.approx((1 / 3,) * 3)
    assert all(game.is_swayed and game.winner is None for game in selected.choices[0].games)


def test_pairwise_counts_points_over_all_pairs():
    """c beats a and b, whatever its votes."""
    assert chances(pairwise(prefers("c", "a", "b")), sampled("a", "a", "b", "c")) == [(0, 0, 0, 1)]


def test_half_a_point_for_a_game_that_nobody_won():
    """a beats b, b beats c, c beats a, and every game of x is swayed: 1.5 points each."""

    def reply(about):
        letters = dict(zip((solution.split("\n")[0] for solution in about.split("Answer: ")[1:]), "AB", strict=True))
        beaten = {("a", "b"): "a", ("b", "c"): "b", ("a", "c"): "c"}.get(tuple(sorted(letters)))
        return letters.get(beaten, "A")

    assert chances(pairwise(Told(reply)), sampled("a", "b", "c", "x")) == [(0.25,) * 4]


def test_one_missing_reply_is_no_sway():
    first = Told(lambda about: "B" if position(about, "a") < position(about, "yes") else None)
    selected = pairwise(first).select([make_ballot(sampled("a", "yes"), "Why?", "exact_match")], 0)
    (game,) = selected.choices[0].games
    assert (game.verdicts, game.winner, game.is_swayed) == ((1, None), None, False)


@pytest.mark.parametrize(("judge", "name"), [(SILENT, "unanswered"), (MUTTERS, "unreadable")])
def test_replies_that_fail_are_counted_and_tie(judge, name):
    selected = pairwise(judge).select([make_ballot(sampled("a", "b"), "Why?", "exact_match")], 0)
    assert selected.choices[0].chances == (0.5, 0.5)
    assert selected.counts[name] == 2
    assert not selected.choices[0].games[0].is_swayed


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("A", "A"), ("So it is B.", "B"), ("A or B? **A**", "A"), ("option a", "A"), ("AB", None), ("", None)],
)
def test_a_verdict_is_the_last_word(reply, letter):
    assert parse_word(reply, ("A", "B")) == letter


# --- GenSelect


@pytest.mark.parametrize("seed", range(4))
def test_a_knockout_ends_with_the_best_of_any_pairing(seed):
    """Five samples: rounds of 2 games and a bye, 1 and a bye, 1: four games less those of equal answers."""
    one = sampled("d", "c", "yes", "b", "c")
    (found,) = chances(gen_select(prefers("yes", "b", "c", "d")), one, seed=seed)
    assert found == (0, 0, 1, 0, 0)


def test_a_swayed_game_is_drawn_by_lot():
    one = sampled("a", "yes")
    won = [chances(gen_select(ALWAYS_FIRST), one, seed=seed)[0].index(1) for seed in range(40)]
    assert 8 < sum(won) < 32  # the odds of less, 20 ± 12 of 40, are below 1e-3
    assert won == [chances(gen_select(ALWAYS_FIRST), one, seed=seed)[0].index(1) for seed in range(40)]


def test_games_of_one_answer_are_not_asked():
    selected = gen_select(SILENT).select([make_ballot(sampled("a", "a", "a"), "Why?", "exact_match")], 0)
    assert selected.choices == (Choice((1, 0, 0)),)
    assert selected.counts["asked"] == 0


def test_no_more_games_than_samples_may_go():
    """Five samples and four finalists: one game, then four judgements."""
    judge = Told(lambda about: "A" if "solution_A" in about else "yes" if answered(about) == "yes" else "no")
    one = sampled("a", "b", "c", "d", "yes")
    selected = gen_select(judge, finalists=4).select([make_ballot(one, "Why?", "exact_match")], 0)
    assert selected.counts["asked"] == 2 + 4
    assert len(selected.choices[0].games) == 1


def test_finalists_are_ranked_by_their_share_of_yes():
    """a is called right in 1 of 3, yes in 2 of 3, b never readably: -1."""
    replies = {"a": iter(["no", "yes", "no"]), "yes": iter(["yes", "no", "yes"]), "b": iter(["?", "", "maybe"])}
    judge = Told(lambda about: next(replies[answered(about)]), can_vary=True)
    selected = gen_select(judge, finalists=3, judgements=3).select(
        [make_ballot(sampled("a", "yes", "b"), "Why?", "exact_match")], 0
    )
    assert selected.choices[0].chances == (0, 1, 0)
    assert selected.counts == {"asked": 9, "unanswered": 0, "unreadable": 3}


# --- what a rule is worth


def test_a_gain_is_over_the_majority_of_the_same_samples():
    answered_ = [
        sampled("no", "no", "yes", mean=(-2.0, -2.0, -1.0)),
        sampled("yes", "yes", "no", mean=(-1.0, -2.0, -3.0)),
    ]
    found = evaluate_selection("b", best_of(mean_logp()), read_samples(answered_, ["Why?"] * 2, "exact_match"), 0)
    assert (found.success.value, found.gain.value) == (1.0, 0.5)


def test_what_is_told_of_a_judge():
    """The right answer wins the first game in both orders, the second is swayed, the third is of two wrong ones."""

    def reply(about):
        return "A" if "Answer: c\n" in about else prefers("yes", "no", "nay").reply(about)

    answered_ = [sampled("no", "yes"), sampled("c", "yes"), sampled("no", "nay")]
    judge = evaluate_selection(
        "p", pairwise(Told(reply)), read_samples(answered_, ["Why?"] * 3, "exact_match"), 0
    ).judge
    assert (judge.games, judge.swayed, judge.unread, judge.told.value) == (3, 1, 0, 1.0)
    assert judge.told.low < 0.5  # one decided game does not tell it from guessing


# --- what is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gen_selct()", "did you mean 'gen_select'"),
        ("gen_select()", "gen_select needs a judge"),
        ("pairwise(answer_logp())", "pairwise needs a judge"),
        ("best_of()", "best_of needs a score"),
        ("best_of(judge_score())", "judge_score needs a judge"),
        ("weighted_majority(mean_logp(), temperature=0)", "temperature must be above 0, got 0"),
        ("gen_select(local(model='m'), finalists=2, judgements=2)", "always says the same"),
        ("gen_select(endpoint(url='http://h', model='m', temperature=1.0), judgements=2)", "of one finalist"),
        ("endpoint(url='ftp://h', model='m')", "must be http"),
        ("mean_logp()", "is no rule"),
        ("best_of(process_score('m', over='sum'))", "unknown way to join step scores 'sum'"),
    ],
)
def test_a_rule_that_cannot_be_used_says_why(text, words):
    with pytest.raises(QreditError, match=words) as refused:
        parse_selection(text)
    assert "\n" not in str(refused.value)


def test_too_few_samples_for_a_rule_are_refused():
    with pytest.raises(QreditError, match="best_of needs k of at least 2, got 1"):
        best_of(mean_logp()).check_size(1)
    with pytest.raises(QreditError, match=r"finalists=3 of k=2 samples"):
        gen_select(SILENT, finalists=3).check_size(2)


def test_a_text_and_what_it_makes_are_one():
    assert parse_selection("weighted_majority(answer_logp(), temperature=0.5)") == weighted_majority(answer_logp(), 0.5)


class Characters:
    """A tokenizer of characters with a chat template that joins messages."""

    pad_token_id, chat_template = 0, "yes"

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(character) for character in text]}

    def apply_chat_template(self, messages, **switches):
        return [ord(character) for message in messages for character in message["content"]]


class Network:
    """Says B where the last character of a prompt is a digit, else A; its context is 12 tokens."""

    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=12))

    def __call__(self, ids):
        logits = torch.zeros(1, ids.shape[1], 128)
        logits[0, -1, ord("B" if chr(ids[0, -1]).isdigit() else "A")] = 1.0
        return SimpleNamespace(logits=logits)


def test_a_judge_on_this_machine_takes_the_likelier_word():
    judge = local("somewhere")
    judge.__dict__.update(_tokenizer=Characters(), _network=Network())
    told = judge.decide([("task", "about"), ("task", "1"), ("task", "too long")], ("A", "B"))
    assert told.words == ("A", "B", None)
    assert told.counts == {"asked": 3, "unanswered": 1, "unreadable": 0}
