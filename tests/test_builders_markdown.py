import re

from hypothesis import given
from hypothesis import strategies as st

from builders.markdown import block, plain, table
from dataset_card.statistics import Spread, spread


@given(st.text())
def test_plain_text_is_one_line_without_html_or_an_open_pipe(text):
    shown = plain(text)
    assert len(shown.splitlines()) <= 1
    assert "<" not in shown
    assert ">" not in shown
    assert not re.search(r"(?<!\\)(\\\\)*\|", shown)


@given(st.text())
def test_no_text_closes_its_code_block(text):
    lines = block(text).split("\n")
    fence = lines[-1]
    assert lines[0] == f"{fence}text"
    assert not any(line.strip() == fence or line.strip().startswith(fence) for line in lines[1:-1])


def test_markup_links_and_directions_are_shown_not_obeyed():
    assert plain("**x** [a](b) `c` #1 @me") == r"\*\*x\*\* \[a\](b) \`c\` \#1 \@me"
    assert plain("see https://x.y and www.z.org") == r"see https\://x.y and www\.z.org"
    assert plain("\u202eabc\u2066\x00") == r"\\u202eabc\\u2066\\u0000"
    assert plain("a\nb\tc שלום") == "a b c שלום"


def test_a_table_writes_numbers_for_people():
    assert table(["Class", "Rows", "%"], [["a|b", 1405, 7.25], ["c", 3, 100.0]]) == (
        "| Class | Rows | % |\n| --- | ---: | ---: |\n| a\\|b | 1,405 | 7.2 |\n| c | 3 | 100.0 |"
    )


def test_a_spread_names_the_nearest_rank():
    assert spread(list(range(1, 101))) == Spread(1, 50.5, 50.5, 95, 100)
    assert spread([7]) == Spread(7, 7.0, 7.0, 7, 7)
    assert spread([]) == Spread(0, 0.0, 0.0, 0, 0)
