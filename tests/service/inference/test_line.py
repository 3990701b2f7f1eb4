from dataclasses import dataclass

import pytest

from service.inference.line import Line
from service.inference.work import SHORT_S


@dataclass(eq=False)
class Item:
    name: str
    cost_s: float


def short(name: str) -> Item:
    return Item(name, SHORT_S)


def long(name: str) -> Item:
    return Item(name, 2 * SHORT_S)


def line_of(*items: Item) -> Line[Item]:
    line: Line[Item] = Line()
    for item in items:
        line.append(item)
    return line


def order(line: Line[Item]) -> str:
    return " ".join(line.pop().name for _ in range(line.length))


@pytest.mark.parametrize("make", [short, long])
def test_items_alike_come_in_the_order_in_which_they_came(make: type[Item]) -> None:
    assert order(line_of(*map(make, "abc"))) == "a b c"


def test_short_and_long_items_take_turns() -> None:
    line = line_of(long("A"), long("B"), short("a"), short("b"), short("c"))
    assert order(line) == "a A b B c"


def test_item_that_was_begun_is_finished_before_the_next_of_its_kind() -> None:
    first, second = long("A"), long("B")
    line = line_of(first, second)
    for _ in range(3):
        assert line.pop() is first
        line.put_back(first)
    assert order(line) == "A B"


def test_short_item_that_comes_during_a_long_one_is_next() -> None:
    begun = long("A")
    line = line_of(begun)
    assert line.pop() is begun
    line.append(short("a"))
    line.append(short("b"))
    line.put_back(begun)
    assert order(line) == "a A b"


def test_item_is_removed_once() -> None:
    here, there = short("a"), long("A")
    line = line_of(here, there)
    assert [line.remove(there), line.remove(there)] == [True, False]
    assert order(line) == "a"


def test_cleared_line_is_empty() -> None:
    line = line_of(short("a"), long("A"))
    line.clear()
    assert line.length == 0
    line.append(short("b"))
    assert order(line) == "b"
