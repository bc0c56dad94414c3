"""The text form of fields: what is read, and what is said of what cannot be."""

from dataclasses import replace

import pytest

from qredit.fields import REGISTRY, behind_prompt, macros_by_length, planning_grams, truncated_answers
from qredit.fields.parsing import list_makers, parse_field, parse_fields, suggest_makers
from qredit.pocket import get_model_path
from qredit.rollouts.field_maker import FieldTools, RolloutMaker, make_fields
from qredit.runs.fields import check_all_read, check_fields, load_fields, locate_teachers, select_read
from qredit.runs.options import TrainOptions
from qredit.trl.checks import spread_makers
from qredit.trl.teachers import Hint
from qredit.utils.errors import QreditError
from tests.fields.rollouts import Spoken, rollout


def lengths(trajectories, tokenizer):
    """A field function of a user's."""
    return [float(len(one.ids)) for one in trajectories]


def make_lengths(factor):
    """A user's own maker of one."""
    return lambda trajectories, tokenizer: [factor * value for value in lengths(trajectories, tokenizer)]


HERE = f"{__name__}:lengths"


def test_makers_are_read_by_name():
    assert parse_field("macro=macros_by_length(3)") == ("macro", macros_by_length(3))
    assert parse_field(" logp@better = behind_prompt('{prompt} a=b: c.d') ") == (
        "logp@better",
        behind_prompt("{prompt} a=b: c.d"),
    )
    assert parse_field("better_logp=behind_prompt('{prompt}')")[0] == "logp@better"  # a former name


def test_own_functions_are_imported():
    name, made = parse_field(f"mood={HERE}")
    assert (name, made) == ("mood", lengths)
    _, made = parse_field(f"mood={__name__}.make_lengths(2)")
    one = rollout(Spoken(), "ab", "c")
    assert made([one], None) == [8.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("planning", "write NAME=maker"),
        ("=planning_grams()", "write NAME=maker"),
        ("planning=", "write NAME=maker"),
        ("planning=planing_grams()", "unknown maker of fields 'planing_grams'; did you mean 'planning_grams'"),
        ("planning=planning_grams", "'planning_grams' is not a call; write planning_grams()"),
        ("planning=planning_grams(size=3)", "unexpected keyword argument 'size'; it takes shortest, longest"),
        ("planning=planning_grams(shortest=0)", "shortest must be a whole number, at least 1, got 0"),
        ("planning=planning_grams(shortest=__import__('os'))", "unknown maker of fields '__import__'"),
        ("planning=(lambda: 1)()", "not a name or an import path"),
        ("planning=3", "a maker or a function .* is needed; got 3"),
        ("macro=planning_grams()", "field macro: planning_grams makes planning"),
        ("planning=behind_prompt('{prompt}')", "field planning: behind_prompt makes logp@NAME"),
        ("logp@a=behind_prompt('no place')", "must be a text that holds {prompt}"),
        ("logp@a=behind_prompt()", r"behind_prompt\(\) missing 1 required positional argument: 'template'"),
        ("mood=no_such_module:f", "cannot import 'no_such_module:f'"),
        ("mood=qredit.rollouts.field_maker:FieldTools", "FieldTools is a class; write a call of it"),
        ("budget=truncated_answers((4, 2))", "budgets must ascend"),
        ("budget=truncated_answers(8)", "budgets must be a list of numbers of tokens"),
        ("wrong_step=judge_wrong_steps()", "missing 2 required positional arguments: 'url' and 'model'"),
        ("wrong_step=judge_wrong_steps('ftp://x', 'm')", "must be http:// or https://"),
        ("wrong_step=judge_wrong_steps('http://x', 'm', critiques=3)", "are one and the same; give a temperature"),
        ("wrong_step=judge_wrong_steps('http://x', 'm', vote='all')", "unknown vote 'all'"),
        ("cluster=same_answers('exact')", "unknown reward 'exact'"),
        ("step_score=process_reward_model('x', good='+')", "give both or neither"),
        ("value=critic(lr=0)", "lr"),
        ("logp@a=teacher_model(3)", "path of teacher_model"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(text, words):
    with pytest.raises(QreditError, match=words) as caught:
        parse_field(text)
    assert "\n" not in str(caught.value)


def test_a_field_is_given_once():
    with pytest.raises(QreditError, match="field macro is given twice"):
        parse_fields(["macro=macros_by_length()", "macro=macros_by_punctuation()"])


def test_every_maker_is_told_of_where_its_field_is_missing():
    for name, kind in REGISTRY.items():
        for field in kind.fills:
            assert name in list_makers(f"{field}x" if field.endswith("@") else field)
            assert f"={name}(…)" in suggest_makers(field)
    assert suggest_makers("mood") == "--field mood=package.module:function"
    assert "--field budget=truncated_answers(…)" in suggest_makers("budget_reward@3")


def options(objective, *fields, **changes):
    return TrainOptions(objective=objective, field=fields, cpu=True, **changes)


@pytest.mark.parametrize(
    ("objective", "field", "words"),
    [
        ("grpo()", "planning=planning_grams()", "nothing reads 'planning'; grpo\\(\\) reads reward"),
        (
            "brpo(prior=(0.5, 0.5), length=8)",
            "budget=truncated_answers((1, 2, 3))",
            "field budget: nothing reads 'budget_reward@2'",
        ),
        ("grpo()", f"mood={HERE}", "field mood: nothing reads 'mood'"),
    ],
)
def test_a_maker_that_nobody_reads_is_refused(objective, field, words):
    with pytest.raises(QreditError, match=words):
        options(objective, field)


def test_one_turn_makers_are_refused_with_tools():
    fields = ("brpo(prior=(1,), length=8)", "budget=truncated_answers((2,))")
    with pytest.raises(QreditError, match="truncated_answers takes rollouts of one turn"):
        options(*fields, tools="calculator")


@pytest.mark.parametrize(
    ("objective", "fields", "words"),
    [
        ("hicra()", (), r"needs the batch field 'planning', .* --field planning=planning_grams\(…\)"),
        ("ma_rlhf()", ("macro=macros_by_length()",), r"needs the batch field 'value', .* --field value=critic\(…\)"),
        (
            "t_reg(strength=1)",
            ("logp@better=behind_prompt('{prompt}')",),
            r"'logp@worse' is needed, .* --field logp@worse=behind_prompt\(template\)",
        ),
        (
            "brpo(prior=(0.5, 0.5), length=8)",
            ("budget=truncated_answers((2,))",),
            r"'budget_reward@1', .* --field budget=truncated_answers\(…\)",
        ),
    ],
)
def test_a_field_without_a_maker_names_those_there_are(objective, fields, words):
    with pytest.raises(QreditError, match=words):
        check_fields(options(objective, *fields))


def test_makers_are_sorted_by_what_a_trainer_takes():
    objective = "grpo() | kl_to_reference(0.1, teacher='a') | amplify_planning()"
    made = load_fields(options(objective, "planning=planning_grams()", "logp@a=teacher_model('path')"))
    assert made.functions == {"planning": planning_grams()}
    assert (made.teachers, made.learners, made.reads_columns) == ({"a": "path"}, [], False)
    assert load_fields(options("hicra()", f"planning={HERE}")).reads_columns
    (learner,) = load_fields(options("ma_rlhf()", "value=critic()", "macro=macros_by_length()")).learners
    assert learner.fills == ("value",)


def test_a_teacher_is_found_as_the_model_of_a_run_is():
    hint = Hint(str)
    given = {"own": "pocket", "other": "some/id", "hint": hint, "hinted": replace(hint, model="pocket")}
    found = locate_teachers(given, TrainOptions(task="pocket-hotpot"))
    own = str(get_model_path("hotpot"))
    assert (found["own"], found["other"], found["hint"].model, found["hinted"].model) == (own, "some/id", None, own)
    for field in ("logp@a=teacher_model('./none')", "logp@a=behind_prompt('{prompt}', model='./none')"):
        with pytest.raises(QreditError, match="teachers: 'a': no model folder none"):
            check_fields(options("grpo() | kl_to_reference(0.1, teacher='a')", field))


def test_a_comparison_gives_each_run_what_it_reads():
    fields = ("planning=planning_grams()", "macro=macros_by_length()")
    runs = [options(objective) for objective in ("hicra()", "grpo()", "ma_rlhf")]  # a name alone is an objective, too
    runs = [replace(run, field=select_read(fields, run)) for run in runs]
    assert [run.field for run in runs] == [fields[:1], (), fields[1:]]
    check_all_read(fields, runs)
    with pytest.raises(QreditError, match="macros_by_length.*: none of hicra\\(\\), grpo\\(\\) reads it"):
        check_all_read(fields, runs[:2])


class pair(RolloutMaker):
    """Two fields at once; counts how often it is asked."""

    fills = ("left", "right")
    asked = 0

    def list_fields(self, name):
        return frozenset({"left", "right"})

    def make(self, trajectories, tools):
        self.asked += 1
        return {"right": [1] * len(trajectories), "left": [0] * len(trajectories)}


def test_a_maker_of_several_fields_is_asked_once():
    maker = pair()
    makers = spread_makers({"left": maker, "own": lengths})
    assert makers == {"left": maker, "right": maker, "own": lengths}
    one = rollout(Spoken(), "ab", "c")
    found = make_fields(makers, [one], FieldTools(None, lambda name, value: None))
    assert (found, maker.asked) == ({"left": [0], "right": [1], "own": [4.0]}, 1)
    with pytest.raises(QreditError, match="is made by two"):
        spread_makers({"left": maker, "right": lengths})


def test_two_budgets_make_three_fields():
    made = truncated_answers((2, 4))
    assert made.list_fields("budget") == {"budget", "budget_reward@0", "budget_reward@1"}
