"""The report's page in a real browser: the viewer draws, hostile text stays text, nothing is asked for."""

import json
import re
import shutil
import subprocess

import pytest

from qredit.report.write import write_report
from tests.report.test_report import Page, entry, hostile_run, made_run, record, record_of_turns

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser, google-chrome or chrome on the path"),
]
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--enable-logging=stderr")


def opened(path, view="", *flags):
    """The page as the browser has it after its script ran, and what the browser's console said."""
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={path.parent / 'profile'}", *flags, "--dump-dom", f"file://{path}{view}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return Page(done.stdout), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def with_class(page, name):
    return [attributes for _, attributes in page.elements if name in attributes.get("class", "").split()]


@pytest.fixture
def folder(tmp_path):
    metrics = [entry(step, reward=step / 10) for step in range(1, 6)]
    return made_run(tmp_path / "made", metrics, credit=[record("first"), record("second", step=2)])


def test_the_viewer_shows_the_tokens_with_their_coefficients(folder, tmp_path):
    page, console = opened(write_report([folder], tmp_path / "r.html"), "#credit?record=1&beside=3")
    assert console == []
    tokens = with_class(page, "token")
    assert len(tokens) == 2 * 2 * 4  # columns × rollouts × tokens
    assert tokens[0]["data-told"] == "“second” · id 5 · rationale · garl(q=1.0): credit = 0.25"
    assert tokens[0]["style"] == "background-color: rgba(0, 114, 178, 0.376);"
    assert tokens[3]["style"] == "background-color: rgba(213, 94, 0, 0.75);"
    assert "minus" in tokens[3]["class"]
    assert "⏎" in page.said
    assert "−0.5" in page.said
    assert "gold answer" in page.said
    assert "reward 0 · log w −1 nats (w = 0.3679) · Σ coefficient 0.25" in page.said


def test_turns_have_their_credit_and_observations_are_apart(tmp_path):
    folder = made_run(tmp_path / "made", credit=[record_of_turns()])
    page, console = opened(write_report([folder], tmp_path / "r.html"), "#credit?sort=3")
    assert console == []
    assert len(with_class(page, "turn")) == 2, "the other rollout has one turn, which needs no word"
    assert "turn 1 · Σ coefficient 0.5" in page.said
    assert "turn 2 · Σ coefficient −1" in page.said
    assert "2 turns · Σ coefficient" in page.said
    (observed,) = with_class(page, "observed")
    assert observed["data-told"] == "“⏎” · id 6 · observation · turn 1 · garl(q=1.0): credit = 0"
    assert "style" not in observed, "no coefficient, no colour"


def test_what_a_turn_says_behind_its_thinking_is_its_action(tmp_path):
    told = record_of_turns()
    told["rollouts"][0]["spans"] |= {"rationale": [[0, 2], [3, 4]], "close": [[0, 1], [3, 4]], "response": [[4, 5]]}
    told["rollouts"][0]["spans"]["answer"] = []
    page, console = opened(
        write_report([made_run(tmp_path / "made", credit=[told])], tmp_path / "r.html"), "#credit?sort=3"
    )
    assert console == []
    parts = [one["data-told"].split(" · ")[2] for one in with_class(page, "token") if " · turn " in one["data-told"]]
    assert parts == ["closing", "action", "observation", "closing", "sampled answer"]


@pytest.mark.parametrize(("sort", "first"), [(0, "reward 0"), (1, "reward 1"), (3, "reward 0")])
def test_rollouts_are_sorted_by_weight_or_reward(folder, tmp_path, sort, first):
    page, _ = opened(write_report([folder], tmp_path / "r.html"), f"#credit?sort={sort}")
    assert f"#1 · {first}" in page.said


def test_a_stage_can_be_chosen(folder, tmp_path):
    page, _ = opened(write_report([folder], tmp_path / "r.html"), "#credit?stage=0")
    assert with_class(page, "token")[0]["data-told"].endswith("rationale/amplified_likelihood(q=1.0) = 0.5")


def test_hostile_text_runs_nothing_in_the_browser(tmp_path):
    path = write_report([hostile_run(tmp_path / "made")], tmp_path / "r.html")
    page, console = opened(path, "#credit?beside=0,1,2,3,4,5")
    assert console == []
    assert "<title>qredit report: made</title>" in path.read_text()
    assert "qredit report: made" in page.said
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert with_class(page, "token")


def test_injected_script_would_be_refused_by_the_pages_policy(folder, tmp_path):
    """The policy holds by itself: a script put into the page, as a fault in escaping would, does not run."""
    path = write_report([folder], tmp_path / "r.html")
    path.write_text(path.read_text().replace("<footer>", "<script>document.title='owned'</script><footer>"))
    page, console = opened(path)
    assert "qredit report: made" in page.said
    assert any("Content Security Policy" in line for line in console)


def test_the_page_asks_the_network_for_nothing(folder, tmp_path):
    path, log = write_report([folder], tmp_path / "r.html"), tmp_path / "net.json"
    opened(path, "", f"--log-net-log={log}", "--disable-background-networking", "--disable-component-update")
    asked = set(re.findall(r'"url":"(\w+://[^"]*)', log.read_text()))
    assert json.dumps(sorted(url for url in asked if str(path) not in url and "made" in url)) == "[]"


def test_an_old_run_has_a_page_without_a_viewer(tmp_path):
    page, console = opened(write_report([made_run(tmp_path / "made")], tmp_path / "r.html"))
    assert console == []
    assert "None of these runs recorded credit" in page.said
