from __future__ import annotations

from lapha.agent import Seen, parse_step

QUESTION = "a farmer has 12 hens and each of them lays 3 eggs a day. how many eggs a day?"
FIRST = parse_step("The hens lay 12 times 3 eggs in all.\nThat is 36 eggs.</think>", 1)
SEEN = Seen((QUESTION,)).adding(FIRST, "the tool says thirty-six eggs, neither more nor less")


def echoes(text: str, seen: Seen = SEEN) -> bool:
    return seen.repeated_by(parse_step(text, 2))


def test_a_repeated_thought_is_an_echo():
    assert echoes("The hens lay 12 times 3 eggs in all.\nThat is 36 eggs.</think>")


def test_case_and_spacing_do_not_hide_an_echo():
    assert echoes("THE hens   lay 12 times 3 eggs in all.\n\nThat is\t36 eggs.</think>")


def test_reordered_lines_are_an_echo():
    assert echoes("That is 36 eggs.\nThe hens lay 12 times 3 eggs in all.</think>")


def test_the_questions_own_words_are_an_echo():
    assert echoes("A farmer has 12 hens and each of them lays 3 eggs a day.</think>")


def test_a_tools_words_are_an_echo():
    assert echoes("the tool says thirty-six eggs, neither more nor less</think>")


def test_one_new_line_makes_a_new_step():
    assert not echoes("The hens lay 12 times 3 eggs in all.\nThat is 36 eggs.\nSo the answer is 36.</think>")


def test_a_short_thought_may_recur():
    assert not echoes("That is 36 eggs.</think>")


def test_an_answer_after_a_repeated_thought_is_no_echo():
    assert not echoes("The hens lay 12 times 3 eggs in all.\nThat is 36 eggs.</think><answer>36</answer>")


def test_a_repeated_call_is_an_echo_if_it_brings_the_same():
    step = parse_step("a</think>\n```python\n12*3\n```", 1)
    again = parse_step(
        'b</think><tool_call>{"arguments": {"code": "12*3"}, "name": "execute_python_code"}</tool_call>', 2
    )
    seen = SEEN.adding(step, "36")
    assert seen.answered_alike(again, " 36\n")
    assert not seen.answered_alike(again, "37")
    assert not SEEN.answered_alike(again, "36")
    assert not seen.answered_alike(parse_step("b</think>\n```python\n12*4\n```", 2), "36")


def test_branches_do_not_see_each_other():
    SEEN.adding(parse_step("a thought that only a sibling has had so far</think>", 2))
    assert not echoes("a thought that only a sibling has had so far</think>")
