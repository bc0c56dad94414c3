"""The tables of experiments: paired differences, and a line for each arm that was run."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import curricula
import optimizers
import part_effects
import pytest
import selection
import text_games
import tool_calls
from page import gap_cell, paired_difference
from pocket_models.tokenizer import build

from qredit.environments.calls import HERMES, ToolCall, detect_call_form
from qredit.environments.pocket import calculator
from qredit.environments.tool_environment import list_schemas
from qredit.environments.tools import make_tools
from qredit.evaluation.metrics import QuestionResult
from qredit.rollouts.trajectory import EndReason, Trajectory, TurnRecord
from qredit.stats.interval import Interval

EXPERIMENTS = Path(text_games.__file__).parent


def wins(*each, score=1.0, turns=4.0, **others):
    return {"p@1": sum(each) / len(each), "each": {"p@1": list(each)}, "score": score, "turns": turns, **others}


def test_a_paired_difference_leaves_out_how_hard_questions_are():
    hard, easy = wins(0.0, 0.5, 0.9), wins(0.1, 0.6, 1.0)
    gap = paired_difference([easy, easy], [hard, hard])
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_paired_difference_varies_over_seeds_and_questions():
    even = [wins(0.5, 0.5), wins(0.5, 0.5)]
    seeds = paired_difference([wins(0.5, 0.5), wins(1.0, 1.0)], even)
    asked = paired_difference([wins(0.5, 1.0), wins(0.5, 1.0)], even)
    for gap in (seeds, asked):
        assert (gap.value, gap.low, gap.high) == pytest.approx((0.25, 0.0, 0.5))


def test_a_difference_is_told_in_points():
    assert gap_cell(Interval(0.125, -0.02, 0.3)) == "+12.5 [-2.0, +30.0]"


def test_games_are_compared_on_seeds_that_both_arms_have():
    found = {
        ("untrained", 0): wins(0.0, 0.25, score=0.5, turns=6.0),
        ("grpo()", 0): wins(0.0, 0.5, curve=[0.5] * 20 + [1.0] * 5),
        ("gigpo()", 0): wins(0.25, 0.75, curve=[1.5] * 5),
        ("gigpo()", 1): wins(0.0, 0.0, score=0.0, turns=6.0, curve=[0.5] * 5),
    }
    assert text_games.write_table(found).split("\n") == [
        "| untrained | 1 | 12.5 |  | 0.50 | 6.00 |  |",
        "| `grpo()` | 1 | 25.0 |  | 1.00 | 4.00 | 1.00 |",
        "| `gigpo()` | 2 | 25.0 [0.0, 50.0] | +25.0 [+25.0, +25.0] | 0.50 [0.00, 1.00] | 5.00 [4.00, 6.00] "
        "| 1.00 [0.50, 1.50] |",
    ]


def test_curricula_are_compared_with_hard_prompts_alone():
    rule = curricula.Arm("stars", "grpo()", curricula.MIXED)
    found = {
        (curricula.Arm("stars", None), 0): wins(0.0, 0.0, curve=[]),
        (curricula.Arm("stars", "grpo()", alone=True), 0): wins(0.0, 0.5, curve=[0.0]),
        (rule, 0): wins(0.25, 0.75, curve=[0.0] * 10 + [0.5] * 10),
        (rule, 1): wins(0.0, 0.5, curve=[1.0]),
        (curricula.Arm("pocket", "grpo()"), 0): wins(1.0, curve=[1.0]),
    }
    assert curricula.write_table(found, "stars").split("\n") == [
        "| untrained |  | 1 | 0.0 |  |  |",
        "| `grpo()` | hard alone | 1 | 25.0 |  | 0.0 |",
        "| `grpo()` | `mix_easier(0.5)` | 2 | 37.5 [25.0, 50.0] | +25.0 [+25.0, +25.0] | 75.0 [50.0, 100.0] |",
    ]


def test_selection_is_compared_on_the_same_samples():
    rules = [*selection.RULES, "p@k"]
    one = {f"{text} {k}": {"each": [0.0, 0.5 if text == "majority()" else 1.0]} for text in rules for k in (4, 16)}
    found = {selection.Part("rules", "pocket-finqa", seed): one for seed in (0, 1)}
    lines = selection.write_rules(found).split("\n")
    assert len(lines) == 2 * len(rules)
    assert lines[0] == "| pocket-finqa | 4 | `majority()` | 25.0 [25.0, 25.0] | |"
    assert lines[1].endswith("`weighted_majority(mean_logp())` | 50.0 [50.0, 50.0] | +25.0 [+0.0, +50.0] |")
    assert lines[-1] == "| pocket-finqa | 16 | one of them right | 50.0 [50.0, 50.0] | |"


def test_fewer_samples_are_the_first_ones_of_a_file():
    one = QuestionResult(
        "a", "x", ("x", "y"), ("r", "s"), {"exact_match": (1.0, 0.0)}, 2, 0, (-1.0, None), (-2.0, -3.0)
    )
    assert selection.read_result(json.loads(json.dumps(asdict(one)))) == one
    assert selection.cut(one, 1) == replace(
        one, predictions=("x",), rationales=("r",), scores={"exact_match": (1.0,)}, mean_logp=(-1.0,),
        answer_logp=(-2.0,),
    )  # fmt: skip


def did(**counts):
    turns = (TurnRecord(counts=counts), TurnRecord())
    return Trajectory((1,), (), EndReason.ANSWER, turns=turns)


def test_calls_are_counted_for_each_episode():
    found = tool_calls.count_calls([did(tool_calls=2.0, malformed_calls=1.0), did(calls_not_run=1.0)])
    assert found == {
        "tool_calls": 1.0,
        "tool_errors": 0.0,
        "malformed_calls": 0.5,
        "calls_not_run": 0.5,
        "turns": 2.0,
    }


def test_calls_that_could_be_read_are_a_share_of_all():
    one = {"tool_calls": 0.75, "malformed_calls": 0.25, "turns": 2.0, "gold_logp": -3.0, "success": 0.125}
    silent = {**one, "tool_calls": 0.0, "malformed_calls": 0.0, "curve": [0.0, 0.25]}
    assert tool_calls.write_table({"untrained": one, "grpo()": silent}).split("\n") == [
        "| untrained | 0.75 | 75 | 2.00 | -3.00 | 12.5 |  |",
        "| `grpo()` | 0.00 | – | 2.00 | -3.00 | 12.5 | 12.5 |",
    ]


def test_the_chat_template_holds_tools_that_examples_call():
    tokenizer = build()
    tokenizer.chat_template = tool_calls.CHAT_TEMPLATE.read_text()
    assert detect_call_form(tokenizer) is HERMES
    turns = [{"role": role, "content": content} for role, content in tool_calls.EXAMPLES]
    schemas = list_schemas(make_tools([calculator]))
    text = tokenizer.apply_chat_template(turns, tools=schemas, tokenize=False, add_generation_prompt=True)
    assert "calculator(expression): Calculate with numbers" in text
    assert text.endswith("<|im_start|>assistant\n")
    assert text.count("<tool_response>") == text.count("<tool_call>") == 2
    said = [content for role, content in tool_calls.EXAMPLES if role == "assistant"]
    assert HERMES.find(said[0]) == [ToolCall("calculator", {"expression": "14 * 12 + 30"})]
    results = [content for role, content in tool_calls.EXAMPLES if role == "tool"]
    calls = [HERMES.find(one)[0] for one in said[::2]]
    assert [calculator(**call.arguments) for call in calls] == results


def test_schedules_take_the_rate_where_adam_ends_highest():
    slow, fast, other = optimizers.Job("AdamW", 3e-5), optimizers.Job("AdamW", 1e-4), optimizers.Job("SGD", 3e-4)
    found = {
        slow: {"p_hat": [-4.0, None, -2.0, -2.0, -2.0], "curve": [0.0] * 5},
        fast: {"p_hat": [-4.0, -1.0, -1.0, -3.1, -3.1], "curve": [0.0, 0.5, 0.5, 1.0, 0.0]},
        other: {"p_hat": [-1.0], "curve": [1.0]},
    }
    assert optimizers.choose_rate(found) == 3e-5
    assert optimizers.choose_rate({other: found[other]}) is None
    assert optimizers.write_rows(found).split("\n")[:2] == [
        "| AdamW | constant | 3e-05 | -4.00 → -2.00 | 0.0 |",
        "| AdamW | constant | 0.0001 | -4.00 → -2.40 | 50.0 |",
    ]


@pytest.mark.parametrize("script", sorted(EXPERIMENTS.glob("*.py")), ids=lambda path: path.stem)
def test_what_a_script_writes_has_one_place_on_its_page(script):
    text = script.read_text()
    of_its_own = re.findall(r'PAGE\b.*?Path\("(docs/[^"]+\.md)"\)', text)
    page = (EXPERIMENTS.parent / (of_its_own or ["docs/results.md"])[0]).read_text()
    names = re.findall(r'insert\(\s*PAGE,\s*"([^"]+)"', text)
    assert [page.count(f"<!-- {name} -->\n") for name in names] == [1] * len(names)


def test_a_part_is_told_beside_the_same_run_without_it(monkeypatch):
    cure, shrunk = (next(arm for arm in part_effects.PARTS if arm.system == name) for name in ("CURE", "Muon"))
    found = {
        (cure, 0): wins(0.5, 0.75),
        (cure.beside, 0): wins(0.25, 0.5),
        (cure, 1): wins(1.0, 1.0),  # without a run beside it
        (shrunk, 0): wins(0.25, 0.5),
        (shrunk.beside, 0): wins(0.5, 0.25),
    }
    lines = list(part_effects.write_rows(found))
    assert lines[0] == ("| CURE | `branch_at_entropy()` | `dapo()` | 1 | 62.5 | 37.5 | +25.0 [+25.0, +25.0] |")
    assert len(lines) == 2
    monkeypatch.setattr(part_effects, "read_small_results", lambda paths: found)
    told = part_effects.tell_part_effects()
    assert told["CURE"] == f"+25.0 [+25.0, +25.0] points (one seed; {part_effects.LINK})"
    assert told["Muon"].startswith("none seen: +0.0 [-25.0, +25.0] points")
