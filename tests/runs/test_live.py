"""A run watched while it goes: sparklines, the lines of the view, and the view on terminals, in pipes, when quiet."""

import io
import math
import re
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console, Group

from qredit.cli import main
from qredit.runs.live import LiveView
from qredit.runs.live_metrics import SHOWN_STEPS, LiveMetrics
from qredit.runs.sparkline import draw_sparkline
from tests.support.folders import SHORT, data_file, flags, model_folder

STEP = {"reward": 0.25, "p_hat/log10_q50": -3.0, "q": 0.75, "time/sample": 0.2, "time/score": 0.1, "time/update": 0.3}


# --- the sparkline


@pytest.mark.parametrize(
    ("values", "low", "high", "drawn"),
    [
        ([0, 1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1], 0.0, 1.0, "▁▂▃▄▅▆▇█"),
        ([0.07, 0.08, 0.5, 0.92, 0.93], 0.0, 1.0, "▁▂▅▇█"),  # 7·0.5 = 3.5 is the fifth level
        ([0.5, 0.6], 0.0, 1.0, "▅▅"),  # a scale that is given is not stretched to the values
        ([-14.0, -7.0, 0.0], -14.0, 0.0, "▁▅█"),
        ([-1.0, 2.0], 0.0, 1.0, "▁█"),
        ([0.0, None, math.nan, -math.inf, math.inf, 1.0], 0.0, 1.0, "▁····█"),
        ([3.0, 3.0], 3.0, 3.0, "▁▁"),
        ([-math.inf, None], math.nan, math.nan, "··"),
        ([], 0.0, 1.0, ""),
    ],
)
def test_a_sparkline_has_one_block_for_each_value(values, low, high, drawn):
    assert draw_sparkline(values, low, high) == drawn


# --- the lines


def readings(*steps, micro_batches=1):
    found = LiveMetrics()
    for logs in steps:
        found = found.after(logs, micro_batches)
    return found


def curves(*steps, width=100):
    return [line.plain for line in readings(*steps).curves(width)]


def test_success_is_drawn_from_0_to_1_and_p_between_its_ends():
    shown = curves({"reward": 0.0, "p_hat/log10_q50": -14.0}, {"reward": 0.125, "p_hat/log10_q50": -2.5})
    assert [line.split() for line in shown] == [
        ["success", "12.5%", "0%", "to", "100%", "▁▂"],
        ["log10", "p̂", "-2.5", "-14.0", "to", "-2.5", "▁█"],
    ]
    assert curves({"reward": 0.0, "p_hat/log10_q50": -0.01})[1].split() == [
        "log10",
        "p̂",
        "0.0",
        "0.0",
        "to",
        "0.0",
        "▁",
    ]


def test_numbers_that_are_missing_or_not_finite_leave_gaps():
    steps = [(None, -math.inf), (math.nan, None), (0.5, -4.0), (None, math.nan), (1.0, -2.0), (None, -math.inf)]
    success, likelihood = curves(*({"reward": r, "p_hat/log10_q50": p} for r, p in steps))
    assert success.split()[1:] == ["·", "0%", "to", "100%", "··▅·█·"]
    assert likelihood.split()[2:] == ["-inf", "-4.0", "to", "-2.0", "··▁·█·"]
    assert curves({"reward": 0.0, "p_hat/log10_q50": -math.inf})[1].split() == ["log10", "p̂", "-inf", "·"]


def test_without_a_likelihood_there_is_no_line_of_it():
    assert [line.split()[0] for line in curves({"reward": 0.0}, {"reward": 1.0})] == ["success"]
    assert readings({"reward": 0.5}).facts() == []
    assert readings({"train_runtime": 3.0}) == LiveMetrics()


def test_text_among_the_metrics_is_no_number():
    found = readings({"reward": "high", "p_hat/log10_q50": "low", "q": "held", "time/sample": True})
    assert [line.plain.split() for line in found.curves(100)] == [["success", "·", "0%", "to", "100%", "·"]]
    assert (found.facts(), found.summary()) == ([], "success ·")


def test_a_reward_that_is_no_share_is_shown_as_it_is():
    assert [line.split() for line in curves({"reward": -1.5}, {"reward": 2.0})] == [
        ["reward", "2", "-1.5", "to", "2", "▁█"]
    ]
    assert readings({"reward": 2.0}).summary() == "reward 2"


def test_the_last_steps_are_drawn_and_only_they_set_the_scale():
    steps = [{"reward": 0.0, "p_hat/log10_q50": float(-step)} for step in range(SHOWN_STEPS + 2, 0, -1)]
    success, likelihood = curves(*steps, width=200)
    assert success.split()[-1] == "▁" * SHOWN_STEPS
    assert likelihood.split()[3:6] == [f"-{SHOWN_STEPS}.0", "to", "-1.0"]


def test_seconds_are_those_of_a_step_not_of_a_micro_batch():
    (line,) = readings(STEP, micro_batches=4).facts()
    assert line.plain == "q 0.75   2.40 s a step: sample 0.80, score 0.40, update 1.20"
    (line,) = readings({"reward": 0.0, "q": 1 / 3, "time/sample": 12.3, "time/score": None}).facts()
    assert line.plain == "q 0.333   12 s a step: sample 12"
    (line,) = readings({"reward": 0.0, "time/update": 0.25}).facts()
    assert line.plain == "0.25 s a step: update 0.25"


MUTE = {"reward": 0.0, "loss": 0.0, "grad_norm": 0.0, "frac_reward_zero_std": 1.0}


@pytest.mark.parametrize(
    ("logs", "said"),
    [
        (MUTE, "loss 0: all rewards in every group are 0, so that an objective of rewards has nothing to learn from; "),
        ({**MUTE, "reward": 1.0}, "loss 0: all rewards in every group are equal, so that"),
        ({**MUTE, "loss": 0.1}, "gradient 0: all rewards in every group are 0"),  # a penalty that is constant
        ({**MUTE, "p_hat/log10_q50": -400.0}, "loss 0: the gold answers are so unlikely that every coefficient is 0"),
        ({**MUTE, "frac_reward_zero_std": 0.5}, "loss 0: no rollout of this step carries a coefficient"),
    ],
)
def test_a_step_without_a_gradient_says_why(logs, said):
    assert readings(STEP, logs).facts()[-1].plain.startswith(said)


@pytest.mark.parametrize("change", [{"grad_norm": 0.3}, {"grad_norm": None}, {"grad_norm": math.nan}])
def test_a_loss_of_0_with_a_gradient_is_nothing_to_explain(change):
    """Advantages sum to 0 within a group: the loss of GRPO on fresh rollouts is 0 while it learns."""
    assert readings({**MUTE, **change}).silence == ""
    assert readings(MUTE, {**MUTE, **change}).silence == ""


@pytest.mark.parametrize(
    ("logs", "said"),
    [
        ({"reward": 0.125, "p_hat/log10_q50": -2.25}, "success 12.5%  p̂ 0.00562"),
        ({"reward": None, "p_hat/log10_q50": -math.inf}, "success ·  p̂ 0"),
        ({"reward": 1.0, "p_hat/log10_q50": -0.01}, "success 100.0%  p̂ 0.977"),
        ({"reward": 1.0}, "success 100.0%"),
    ],
)
def test_the_summary_is_of_the_last_step(logs, said):
    assert readings({"reward": 0.5}, logs).summary() == said


@pytest.mark.parametrize("width", [20, 40, 60, 100])
def test_curves_keep_to_the_width_and_to_one_line_each(width):
    console = Console(file=io.StringIO(), width=width)
    steps = [{"reward": step / 60, "p_hat/log10_q50": -300.0 + step} for step in range(60)]
    console.print(Group(*readings(*steps).curves(width)))
    shown = console.file.getvalue().splitlines()
    assert len(shown) == 2
    assert all(cell_len(line) <= width for line in shown)
    if width >= 40:
        assert shown[0].endswith("█")  # the newest step is never cut off
        assert "-260.0 to -241.0"[-6:] in shown[1]


# --- the view


def console(width=100, **settings):
    return Console(file=io.StringIO(), width=width, highlight=False, emoji=False, **settings)


def terminal(width=100):
    return console(width, force_terminal=True, force_interactive=True, color_system=None)


class Run:
    """A simulated run: callbacks are called as the trainer calls them; a step takes `seconds` of its own clock."""

    def __init__(self, shown, title="garl(q=0.75)", steps=20, seconds=0.0, history=(), done=0):
        self.now, self.seconds = 0.0, seconds
        self.view = LiveView(shown, title, clock=lambda: self.now)
        self.args = SimpleNamespace(gradient_accumulation_steps=1)
        self.state = SimpleNamespace(
            is_world_process_zero=True, max_steps=steps, global_step=done, log_history=list(history)
        )

    def begin(self):
        self.view.on_train_begin(self.args, self.state, None)

    def step(self, **logs):
        self.now += self.seconds
        self.state.global_step += 1
        self.view.on_step_end(self.args, self.state, None)
        self.view.on_log(self.args, self.state, None, logs={**STEP, **logs})

    def seen(self):
        """What the view shows at this moment."""
        paper = console(self.view.console.width)
        paper.print(self.view.live.get_renderable())
        return paper.file.getvalue()


def test_a_terminal_shows_bar_curves_and_facts_and_keeps_curves():
    run = Run(terminal())
    with run.view:
        run.begin()
        run.step(reward=0.0, **{"p_hat/log10_q50": -14.0})
        run.step()
        bar, success, likelihood, facts = run.seen().splitlines()
        assert bar.startswith("garl(q=0.75) ━")
        assert "2/20" in bar
        assert "eta" in bar
        assert success.split() == ["success", "25.0%", "0%", "to", "100%", "▁▃"]
        assert likelihood.split() == ["log10", "p̂", "-3.0", "-14.0", "to", "-3.0", "▁█"]
        assert facts.strip() == "q 0.75   0.60 s a step: sample 0.20, score 0.10, update 0.30"
    assert [line.split()[0] for line in run.seen().splitlines()] == ["garl(q=0.75)", "success", "log10"]
    assert run.view.console.file.getvalue().rstrip("\x1b[?25h\n").endswith("▁█")


def test_a_note_is_one_line_of_plain_text_and_last_one_counts():
    run = Run(terminal(), title="mine.stages[red](q=0.5)")
    with run.view:
        run.begin()
        run.step()
        before = run.seen()
        run.view.note("first")
        run.view.note("q 0.75 → 0.5:\n[bold]half[/bold] succeed\x1b[2J")
        assert run.seen() == before + "q 0.75 → 0.5: [bold]half[/bold] succeed\\x1b[2J\n"
        assert before.startswith("mine.stages[red](q=0.5) ━")


@pytest.mark.parametrize("width", [40, 60])
def test_a_title_too_long_for_its_line_stands_above_the_bar(width):
    run = Run(
        terminal(width),
        title="dapo() | kl_covariance(share=0.002) | entropy_bonus(0.001) | one_more()",
        steps=1000,
        done=499,
    )
    with run.view:
        run.begin()
        run.step()
        run.view.note("a note that is longer than the narrow terminal is wide, " * 3)
        shown = run.seen().splitlines()
    assert shown[0].startswith("dapo() | kl_covariance(share=0.002)")
    assert shown[0].endswith("…")
    assert "500/1000" in shown[1]
    assert "eta" in shown[1]
    assert "━" in shown[1]
    assert all(cell_len(line) <= width for line in shown)
    assert shown[-1].endswith("…")


@pytest.mark.parametrize("shown", [terminal, console])
def test_a_run_that_learns_nothing_says_so_wherever_it_is_shown(shown):
    run = Run(shown(), title="grpo()", seconds=100.0)
    with run.view:
        run.begin()
        run.step(**MUTE, **{"p_hat/log10_q50": None})
        run.step(**MUTE, **{"p_hat/log10_q50": None})
        during = run.seen() + run.view.console.file.getvalue()
    assert "loss 0: all rewards in every group are 0" in during
    if not run.view.redrawn:
        assert "loss 0: all rewards" in run.view.console.file.getvalue().splitlines()[-2]  # under the bar that stays


def test_a_resumed_run_goes_on_with_its_curves():
    run = Run(terminal(), done=2, history=[{**STEP, "reward": 0.0}, {**STEP, "reward": 1.0}, {"train_runtime": 1.0}])
    with run.view:
        run.begin()
        run.step(reward=0.0)
        bar, success, *_ = run.seen().splitlines()
    assert "3/20" in bar
    assert success.split()[-1] == "▁█▁"


@pytest.mark.parametrize("settings", [{}, {"force_terminal": True, "force_interactive": True}])
def test_a_quiet_console_shows_nothing_and_swallows_nothing(settings, capsys):
    run = Run(console(quiet=True, **settings), seconds=1000.0)
    with run.view:
        run.begin()
        run.view.note("a note")
        for _ in range(20):
            run.step()
        print("said by another")  # noqa: T201
    assert run.view.console.file.getvalue() == ""
    assert capsys.readouterr().out == "said by another\n"


def test_processes_but_the_first_show_nothing():
    run = Run(console(), seconds=1000.0)
    run.state.is_world_process_zero = False
    with run.view:
        run.begin()
        run.step()
    assert run.view.console.file.getvalue() == ""


def test_a_terminal_gets_no_lines_beside_the_view():
    run = Run(terminal(), seconds=1000.0)
    with run.view:
        run.begin()
        for _ in range(20):
            run.step()
    assert "step 2 of 20" not in run.view.console.file.getvalue()


def piped(steps, seconds, **settings):
    run = Run(console(), steps=steps, seconds=seconds, **settings)
    with run.view:
        run.begin()
        for _ in range(steps):
            run.step()
    return run.view.console.file.getvalue().splitlines()


def test_a_short_run_in_a_pipe_is_the_bar_at_its_end():
    (line,) = piped(steps=1000, seconds=0.05)
    assert line.startswith("garl(q=0.75) ━")
    assert "1000/1000" in line
    assert "success 25.0%  p̂ 1.0e-3" in line


def test_a_long_run_in_a_pipe_has_a_line_for_each_tenth():
    *lines, end = piped(steps=1000, seconds=60.0)
    assert [line.split(", ")[0] for line in lines] == [
        f"garl(q=0.75): step {step} of 1000" for step in range(100, 1001, 100)
    ]
    assert all(line.endswith("success 25.0%  p̂ 1.0e-3") for line in lines)
    assert "\x1b" not in "".join(lines)
    assert "1000/1000" in end


def test_lines_in_a_pipe_are_a_minute_apart_at_least():
    assert len(piped(steps=10, seconds=31.0)) == 5 + 1  # every second tenth, and the bar


def test_notes_in_a_pipe_stand_in_the_lines_there_are():
    run = Run(console(width=60), steps=20, seconds=40.0)  # lines are longer, and stay whole
    with run.view:
        run.begin()
        for step in range(5):
            run.view.note(f"note {step} [b]")
            run.step()
    first, second, _bar, last = run.view.console.file.getvalue().splitlines()
    assert first.endswith("p̂ 1.0e-3, note 1 [b]")
    assert second.endswith("p̂ 1.0e-3, note 3 [b]")
    assert last == "note 4 [b]"


def test_training_that_never_began_shows_nothing():
    shown = console()
    with pytest.raises(RuntimeError), LiveView(shown, "grpo()"):
        raise RuntimeError
    assert shown.file.getvalue() == ""


def test_a_run_of_the_command_line_is_shown_on_standard_error(tmp_path, capsys):
    chosen = {"task": "jsonl", "data": data_file(tmp_path / "train.jsonl"), "model": model_folder(tmp_path / "model")}
    capsys.readouterr()  # what saving the model said
    assert main(["train", "--cpu", *flags(**chosen, **SHORT, output=tmp_path / "run")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("garl(q=0.75) ━")
    assert "2/2" in line
    assert re.search(r"success 0\.0%  p̂ \d\.\de-\d", line)
