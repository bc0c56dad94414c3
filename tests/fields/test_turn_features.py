"""Features of turns that a function of the user's tells, and what is said of a function that cannot be used."""

from dataclasses import replace
from itertools import count

import pytest

from qredit.fields import redistributed_return, turn_features
from qredit.fields.parsing import parse_field
from qredit.rollouts.field_maker import find_read
from qredit.runs.fields import read_sources, select_read
from qredit.runs.options import TrainOptions
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Spoken, tools, two_turns
from tests.support.runs import length_reward, trainer

CALLS = count()


def features(before, said, observed):
    """How much was read before, and how much was found."""
    return [len(before), float(len(observed))]


def examples():
    return [("Who?", "search(Ann)", "Ann"), ("Who? search(Ann) Ann", "Ann", "")]


def raising(before, said, observed):
    return [1 / len(observed)]


def uneven(before, said, observed):
    return [1.0] * len(said)


def unsure(before, said, observed):
    return [float(next(CALLS))]


def infinite(before, said, observed):
    return [float("inf") if observed else 0.0]


def constant(before, said, observed):
    return [float(len(said)), 0.5]


def mute(before, said, observed):
    return []


def one_example():
    return examples()[:1]


def pairs():
    return [("a", "b"), ("c", "d")]


def made(function="features", shown="examples"):
    return turn_features(f"{__name__}:{function}", f"{__name__}:{shown}")


def test_each_token_has_the_numbers_of_its_turn():
    speech = Spoken()
    one = two_turns(speech)
    first, seen, second = one.segments
    one = replace(one, segments=(first, seen, replace(second, turn=1)))
    found = made().make([one], tools(speech)[0])
    # before the first turn "What?", before the second "What?\nabc\nde"; after the first "de", after the second nothing
    assert found == {"turn_feature@0": [[5.0] * 5 + [12.0] * 2], "turn_feature@1": [[2.0] * 5 + [0.0] * 2]}


@pytest.mark.parametrize(
    ("function", "shown", "fault"),
    [
        ("raising", "examples", "raising raises ZeroDivisionError: division by zero, on the turn 'Ann'"),
        ("uneven", "examples", "uneven gives 3 numbers, and 11 on the first, on the turn 'Ann'"),
        ("unsure", "examples", "unsure gives other numbers when it is asked again, on the turn 'search"),
        ("infinite", "examples", "infinite tells inf as number 0, on the turn 'search"),
        ("constant", "examples", "constant tells 0.5 as number 1 of every example turn; leave it out"),
        ("mute", "examples", "mute gives 0 numbers, on the turn 'search"),
        ("features", "one_example", "one_example must return two or more turns, each"),
        ("features", "pairs", "pairs must return two or more turns, each"),
        ("features", "raising", "raising raises TypeError"),
        ("missing", "examples", "cannot import '.*:missing'"),
    ],
)
def test_a_function_that_cannot_be_used_is_named(function, shown, fault):
    with pytest.raises(QreditError, match=fault) as caught:
        made(function, shown)
    assert "\n" not in str(caught.value)


def test_a_turn_on_which_it_fails_ends_the_run():
    speech = Spoken()
    maker = made()
    object.__setattr__(maker, "__dict__", {**vars(maker), "_tell": lambda *turn: [1.0]})
    with pytest.raises(QreditError, match=r":features gives 1 numbers, and 2 on the examples, on the turn 'abc"):
        maker.make([two_turns(speech)], tools(speech)[0])


def test_without_an_environment_a_rollout_is_one_turn(tmp_path):
    learner = redistributed_return(2, lr=0.01).make_learner("turn_reward")
    makers = {"learners": [learner], "fields": {"turn_feature@0": made()}}
    run = trainer(tmp_path, "mica()", reward_funcs=length_reward, max_steps=1, **makers)
    run.train()
    (micro,) = run._generation.microbatches
    assert micro.rows.batch.extra["turn_reward"].abs().max() == 0, "before its first step"
    found = learner.fill(micro.rows, None)["turn_reward"][micro.rows.batch.sampled]
    assert found.abs().min() > 0


TURNS = f"turn_feature@0=turn_features('{__name__}:features', '{__name__}:examples')"
FIT = "turn_reward=redistributed_return(2)"


def test_what_a_learner_reads_is_made_and_read():
    options = TrainOptions(objective="mica()", env="pocket-search", task="pocket-hotpot", field=(TURNS, FIT))
    assert select_read((TURNS, FIT), options) == (TURNS, FIT)
    assert select_read((TURNS,), options) == ()
    assert len(read_sources(options)) == 1
    fitted = redistributed_return(3)
    assert find_read({"turn_reward"}, {"turn_reward": fitted}) == {"turn_reward", *fitted.needs}
    assert find_read({"value"}, {"turn_reward": fitted}) == {"value"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((TURNS,), "field turn_feature@0: nothing reads 'turn_feature@0'; mica"),
        ((TURNS, "turn_reward=redistributed_return(1)"), "nothing reads 'turn_feature@1'; mica.* and makers read"),
    ],
)
def test_features_that_nobody_reads_are_refused(fields, words):
    with pytest.raises(QreditError, match=words):
        TrainOptions(objective="mica()", env="pocket-search", task="pocket-hotpot", field=fields)


def test_a_feature_that_is_not_told_is_named():
    with pytest.raises(QreditError, match="field turn_feature@2: turn_features makes turn_feature@0, turn_feature@1"):
        parse_field(TURNS.replace("@0", "@2"))
