"""The tree of steps: what a simulation is worth, how that is backed up, which step is grown next."""

import itertools
import math

import pytest

from qredit.search.tree import Node, back_up, rate_child, select_leaf, value_simulation


def chain(*names):
    """The root and nodes below each other."""
    nodes = [Node()]
    for name in names:
        nodes.append(add(nodes[-1], name))
    return nodes


def add(parent, name, **changes):
    parent.expanded = True
    return parent.children.setdefault((name,), Node((name,), str(name), parent, **changes))


def test_the_worked_example_to_the_printed_digits():
    root, above, start = chain(1, 2)
    back_up(start, value_simulation([True, True, False], right=True))
    assert [f"{node.value:.3f}"[1:] for node in (start, above, root)] == [".778", ".700", ".630"]


def test_a_simulation_without_steps_is_worth_its_answer():
    assert (value_simulation([], right=True), value_simulation([], right=False)) == (1.0, -1.0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_its_value_is_the_sum_over_steps(count):
    sign = {True: 1, False: -1, None: 0}
    for verdicts in itertools.product(sign, repeat=count):
        for right in (True, False):
            value = (1 / count) * (1 if right else -1)
            for i in range(count):
                value += (1 / count) * sign[verdicts[i]] * (count - i) / count
            assert value_simulation(verdicts, right) == pytest.approx(value)


def test_values_add_up_and_only_ancestors_are_visited():
    root, above, start = chain(1, 2)
    other = add(root, 3)
    back_up(start, 1.0)
    back_up(start, 0.5)
    back_up(above, -1.0)
    assert [node.value for node in (start, above, root)] == pytest.approx([1.5, 0.9 * 1.5 - 1, 0.81 * 1.5 - 0.9])
    assert [node.visits for node in (start, above, root, other)] == [0, 2, 3, 0]
    assert other.value == 0


def test_a_child_is_rated_by_its_sum_and_its_visits():
    root, child = chain(1)
    root.visits, child.visits, child.value = 3, 1, 0.5
    bonus = 1.414 * math.sqrt(math.log(4) / 2)
    assert rate_child(child, root, 1.414, 1) == pytest.approx(0.5 + bonus)
    assert rate_child(child, root, 1.414, -1) == pytest.approx(-0.5 + bonus)


def test_the_best_child_is_gone_down_to_a_leaf():
    root = Node()
    good, bad = add(root, 1), add(root, 2)
    below = add(good, 3)
    good.value, bad.value = 2.0, -2.0
    assert select_leaf(root, 0.0, 1) is below
    assert select_leaf(root, 0.0, -1) is bad
    root.visits, good.visits = 99, 99
    assert select_leaf(root, 100.0, 1) is bad


def test_what_cannot_grow_is_passed_by():
    root = Node()
    full, ended, other = add(root, 1, can_grow=False), add(root, 2), add(root, 3)
    ended.expanded, full.value, ended.value = True, 9.0, 9.0
    assert select_leaf(root, 1.0, 1) is other
    other.expanded = True
    assert not root.is_open


def test_a_path_holds_the_steps_without_the_root():
    root, above, start = chain(1, 2)
    assert (root.path, start.path, start.prefix) == ([], [above, start], (1, 2))
