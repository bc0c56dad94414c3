"""Programs judged by tests: what passes, what a program cannot do, and that none is run without the sandbox."""

import os
import platform
import subprocess
import time

import pytest

from qredit.rewards import parse_rewards, sandbox, unit_tests
from qredit.rewards.sandbox import Sandbox, SandboxLimits
from qredit.rewards.sandbox_worker import ARCHITECTURES, DENIED
from qredit.rewards.unit_tests import MOST_TESTS, extract_code, parse_tests, score_unit_tests
from qredit.tasks.base import Example
from qredit.utils.errors import QreditError


def can_be_had():
    """Whether there is one here. One that does not hold is no reason to leave its tests out."""
    try:
        Sandbox().check()
    except QreditError as error:
        if "does not hold" in str(error):
            raise
        return False
    return True


needs_sandbox = pytest.mark.skipif(not can_be_had(), reason="no sandbox on this machine: it refuses, see below")
SQUARE = "def square(x):\n    return x * x\n"


def value_of(code, expression="found", box=sandbox.SANDBOX):
    """What a program found, decoded; None where it was stopped."""
    (told,) = box.run(code, [{"value": expression}])
    return None if told is None else unit_tests.decode(unit_tests.json.loads(told))


# --- tests as they are written


def test_what_is_expected_never_enters_the_sandbox():
    made = parse_tests(
        ["assert f(2) == (4, 'secret')", {"input": "3\n", "output": "secret"}, "assert f(1)", "assert not f([2])"]
    )
    assert [test.asked for test in made] == [
        {"value": "f(2)"}, {"stdin": "3\n"}, {"value": "bool(f(1))"}, {"value": "bool(f([2]))"}
    ]  # fmt: skip
    assert [test.expected for test in made] == [(4, "secret"), "secret", True, False]


def test_tests_are_read_as_lists_json_and_rows_of_tables():
    written = parse_tests(["assert f(2) == 4", "f(3) == 9"])
    assert parse_tests('["assert f(2) == 4", "f(3) == 9"]') == written
    assert parse_tests([{"assert": "f(2) == 4", "input": None}, {"assert": "f(3) == 9", "output": None}]) == written
    assert parse_tests("assert f(2) == 4") == written[:1]


@pytest.mark.parametrize(
    "value",
    [
        [], "", "no json", 3, [3], ["import os"], ["assert f(1) == g(1)"], ["assert f(1) > 2"], ["assert f(1); g()"],
        ["assert (f(1) == 2) == g"], [{"input": "1"}], [{"input": "1", "output": 2}],
        [{"assert": "f(1) == 2", "input": "1", "output": "2"}], ["f(1) == 2"] * (MOST_TESTS + 1),
        [{"assert": "f(1) == 2", "weight": 0}], [{"input": "x" * 70000, "output": "1"}],
    ],
)  # fmt: skip
def test_tests_that_cannot_be_judged_outside_are_refused(value):
    with pytest.raises(QreditError):
        parse_tests(value)


def test_the_program_is_the_last_fenced_block_or_all():
    assert extract_code("First\n```python\na = 1\n```\nthen\n```\nb = 2\n```\n") == "b = 2\n"
    assert extract_code("c = 3") == "c = 3"


# --- scores


@needs_sandbox
def test_the_score_is_the_weighted_share_of_tests_that_pass():
    weighted = {"square(3) == 9": 0.35, "square(2) == 5": 0.5, "square(0) == 0": 0.15}
    tests = parse_tests([{"assert": text, "weight": weight} for text, weight in weighted.items()])
    assert score_unit_tests(f"```python\n{SQUARE}```", tests) == pytest.approx(0.5)
    assert score_unit_tests("", tests) == score_unit_tests("def square(:", tests) == 0
    heavy = ("square(3) == 9", 0.15), ("square(2) == 4", 0.15), ("square(2) == 5", 0.35), ("square(0) == 1", 0.35)
    tiers = parse_tests([{"assert": text, "weight": weight} for text, weight in heavy])
    assert score_unit_tests(SQUARE, tiers) == pytest.approx(0.30), "TAROT's weights, the easy ones passed"
    reads = parse_tests([{"input": "2 3\n", "output": "5"}, {"input": "1 1\n", "output": "2\nmore"}])
    assert score_unit_tests("a, b = map(int, input().split())\nprint(a + b)", reads) == 0.5


@needs_sandbox
@pytest.mark.parametrize(
    ("returned", "expected", "same"),
    [
        ("(1, 2)", "(1, 2)", True),
        ("[1, 2]", "(1, 2)", False),
        ("{1: 'a', None: {2}}", "{None: {2}, 1: 'a'}", True),
        ("1.0", "1", True),
        ("'1'", "1", False),
        ("b'x'", "b'x'", True),
        ("float('inf')", "1e999", True),
        ("10 ** 30", "1000000000000000000000000000000", True),
        ("object()", "1", False),
    ],
)
def test_values_are_equal_as_python_says_of_built_in_types(returned, expected, same):
    (test,) = parse_tests([f"assert f() == {expected}"])
    assert score_unit_tests(f"def f():\n    return {returned}", [test]) == same


@needs_sandbox
@pytest.mark.parametrize(
    "code",
    [
        "import os\nos._exit(0)",
        "import sys\nsys.exit(0)",
        "raise SystemExit",
        "print(9)",
        "class same(int):\n    def __eq__(self, other):\n        return True\ndef square(x):\n    return same()",
        "import builtins\nbuiltins.eval = lambda *given: 8",
        "import os\nos.write(3, b'true')\nos._exit(0)",
        "import os\nos.write(3, b'[\"int\", ')\nos._exit(0)",
        "import os\nos.write(3, b'[' * 60000)\nos._exit(0)",
        "import sys\nsys._getframe(1).f_locals['found'] = 9",
        "square = None",
    ],
)
def test_a_program_that_fakes_success_wins_nothing(code):
    assert score_unit_tests(code, parse_tests(["assert square(3) == 9", "assert square(2) == 4"])) == 0


# --- what a program cannot do

REFUSALS = """
def refused(call):
    try:
        call()
    except (OSError, RuntimeError, MemoryError, ValueError) as error:
        return type(error).__name__
"""


@needs_sandbox
@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("__import__('os').fork()", "PermissionError"),
        ("__import__('os').posix_spawn('/bin/sh', ['sh'], {})", "PermissionError"),
        ("__import__('threading').Thread(target=print).start()", "RuntimeError"),
        ("__import__('subprocess').run(['true'])", "PermissionError"),
        ("__import__('socket').create_connection(('127.0.0.1', 80))", "PermissionError"),
        ("__import__('os').kill(1, 9)", "PermissionError"),
        ("__import__('os').listdir('/etc')", "FileNotFoundError"),
        ("open('/proc/1/environ')", "FileNotFoundError"),
        ("open('/written', 'w')", "OSError|PermissionError"),
        ("open(__import__('json').__file__, 'a')", "OSError|PermissionError"),
        ("__import__('os').mkdir('/usr/x')", "OSError|PermissionError"),
        ("bytearray(2 ** 30)", "MemoryError"),
        ("open('/tmp/x', 'wb').write(bytes(2 ** 21))", "OSError"),
        ("__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, (-1, -1))", "ValueError"),
        ("[open('/tmp/x%d' % n, 'w') for n in range(40)] and open('/tmp/y', 'w')", "OSError"),
    ],
)
def test_what_a_program_must_not_do_is_refused(call, said):
    """As root of the machine a program runs as nobody, else as the user: so some errors have one of two names."""
    assert value_of(f"{REFUSALS}found = refused(lambda: {call})") in said.split("|")


CALLS = {  # clone, fork, vfork, clone3, execve, unshare, mount, shmget, memfd_create, socket, ptrace, kill, prlimit64
    # bpf and io_uring_setup
    "x86_64": (56, 57, 58, 435, 59, 272, 165, 29, 319, 41, 101, 62, 302, 321, 425),
    "aarch64": (220, 435, 221, 97, 40, 194, 279, 198, 117, 129, 261, 280, 425),
}


@needs_sandbox
def test_calls_of_the_kernel_below_python_are_refused_too():
    """By number, as a program would make them that reads a manual. 1 is EPERM."""
    numbers = CALLS[platform.machine()]
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(number):
    return libc.syscall(number, 0, 0, 0, 0, 0), ctypes.get_errno()
found = [call(number) for number in {numbers}]
"""
    assert value_of(code) == [(-1, 1)] * len(numbers)


IS_OPEN = """
import os
def is_open(n):
    try:
        os.fstat(n)
    except OSError:
        return False
    return True
"""


@needs_sandbox
def test_nothing_of_this_process_is_seen(monkeypatch):
    monkeypatch.setenv("SECRET", "seen")
    read, write = os.pipe()
    os.set_inheritable(read, True)
    box = Sandbox()
    code = (
        "import os\nfound = [dict(os.environ), os.listdir('/tmp'), [n for n in range(64) if is_open(n)], os.getppid()]"
    )
    assert value_of(IS_OPEN + code, box=box) == [{}, [], [0, 1, 2, 3], 1]
    box.close()
    for end in (read, write):
        os.close(end)


@needs_sandbox
def test_what_a_program_leaves_is_gone_when_the_next_one_runs():
    assert value_of("found = open('/tmp/left', 'w').write('x')") == 1
    assert value_of("import os\nfound = os.listdir('/tmp')") == []


@needs_sandbox
@pytest.mark.parametrize(
    "code",
    [
        "while True:\n    pass",
        "import time\ntime.sleep(60)",
        "print('x' * 10 ** 5)",
        "x = [0]\nwhile True:\n    x = [x, x]",
    ],
)
def test_a_program_that_overruns_is_stopped(code):
    box, start = Sandbox(SandboxLimits(seconds=1, memory=256 * 2**20)), time.monotonic()
    assert box.run(code, [{"stdin": ""}]) == [None]
    assert value_of("found = 1", box=box) == 1  # the next one runs
    box.close()
    assert time.monotonic() - start < 20


@needs_sandbox
def test_nothing_is_left_running_when_the_sandbox_is_killed():
    box = Sandbox()
    box.check()
    process = box._process
    box.close()
    process.wait(10)
    for _ in range(100):
        left = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, check=False).stdout
        if not left:
            break
        time.sleep(0.1)
    assert not left


# --- never without


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ("print('refused namespaces: Operation not permitted')",),
            r"cannot be had here \(namespaces: Operation not perm",
        ),
        (("raise SystemExit(1)",), r"cannot be had here \(it ended at once\)"),
    ],
)
def test_without_a_sandbox_no_program_is_run(monkeypatch, tmp_path, command, said):
    monkeypatch.setattr(sandbox, "_COMMAND", (sandbox.sys.executable, "-c", *command))
    box = Sandbox()
    with pytest.raises(QreditError, match=f"{said}.*no program is run without it"):
        box.check()
    with pytest.raises(QreditError, match="no program is run without it"):
        box.run(f"open({str(tmp_path / 'ran')!r}, 'w')", [{"value": "1"}])
    assert not (tmp_path / "ran").exists()


OPEN = """
import json, sys
sys.stdin.readline()
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps([json.dumps(["list", [["bool", "True"]] * 7 + [["bool", "False"]]])]), flush=True)
"""


def test_a_sandbox_that_does_not_hold_is_refused(monkeypatch):
    """One in which a program finds a way that it must not: here /proc."""
    monkeypatch.setattr(sandbox, "_COMMAND", (sandbox.sys.executable, "-c", OPEN))
    with pytest.raises(QreditError, match=r"does not hold here \(/proc\); no program is run without it"):
        Sandbox().check()
    monkeypatch.setattr(
        sandbox, "_COMMAND", (sandbox.sys.executable, "-c", OPEN.replace("json.dumps([json", "str([json"))
    )
    with pytest.raises(QreditError, match=r"does not hold here .*; no program is run without it"):
        Sandbox().check()
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(QreditError, match="only Linux has"):
        Sandbox().check()


def test_the_filter_names_each_call_once():
    for column, (_, _, capset, capget) in enumerate(ARCHITECTURES.values()):
        numbers = [pair[column] for pair in DENIED.values() if pair[column] is not None]
        assert len(set(numbers)) == len(numbers)
        assert not {capset, capget} & set(numbers)


# --- the reward


def rows(*tests):
    return [Example("Square?", None, id=str(n), columns={"tests": one}) for n, one in enumerate(tests)]


def test_rows_without_tests_are_refused_at_once():
    (reward,) = parse_rewards("unit_tests")
    with pytest.raises(QreditError, match="reads column 'tests', which row 0 lacks; has: none"):
        reward.check([Example("Square?", None, id="0")])
    with pytest.raises(
        QreditError, match=r"reward 'unit_tests', row 1: test 'assert f\(1\) > 2' cannot be read; write"
    ):
        reward.check(rows(["assert f(1) == 1"], ["assert f(1) > 2"]))


@needs_sandbox
def test_a_reward_reads_its_column_and_no_answer():
    (reward,) = parse_rewards("unit_tests")
    assert not reward.function.reads_gold
    found = reward.function(
        completions=["<think>x</think>" + SQUARE, "```python\ndef square(x): return 1\n```"],
        response=[SQUARE, "```python\ndef square(x): return 1\n```"],
        tests=[["assert square(2) == 4"]] * 2,
    )
    assert found == [1, 0]
    with pytest.raises(QreditError, match="needs a column 'tests'; there are: words"):
        reward.function(completions=[""], words=[1])
