import pytest

from builders.errors import UserError
from builders.review import Mark, check_set_names, description_id, marks_of, read_review

HEADER = "set_name,image_id,description_id,review,review_note,reviewed_at"
AT = "2026-01-02T03:04:05Z"


@pytest.fixture
def review(tmp_path):
    def write(*lines, header=HEADER, start="\ufeff", end="\r\n"):
        path = tmp_path / "review.csv"
        path.write_bytes((start + end.join([header, *lines]) + end).encode())
        return path

    return write


def test_marks_are_read_by_set_and_image(review):
    text = description_id("A papule.")
    lines = [
        f"one,a,{text},good,,{AT}",
        f'two,a,{text},wrong,"not ""red"", but\r\npink",{AT}',
        f"one,b,{text},,a note,{AT}",
    ]
    assert read_review(review(*lines)) == {
        "one": {"a": Mark(text, "good", "", AT), "b": Mark(text, "", "a note", AT)},
        "two": {"a": Mark(text, "wrong", 'not "red", but\r\npink', AT)},
    }


@pytest.mark.parametrize(("start", "end"), [("", "\n"), ("\ufeff", "\r\n"), ("", "\r\n")])
def test_what_a_spreadsheet_saves_is_read_too(review, start, end):
    assert read_review(review(f"one,a,t,unsure,é,{AT}", start=start, end=end))["one"]["a"].review_note == "é"


def test_two_exports_put_together_may_repeat_a_mark_but_not_contradict_it(review):
    assert len(read_review(review(f"one,a,t,good,,{AT}", "one,a,t,good,,2027-01-01T00:00:00Z"))["one"]) == 1
    with pytest.raises(UserError) as caught:
        read_review(review(f"one,a,t,good,,{AT}", "one,a,t,wrong,,2027-01-01T00:00:00Z"))
    assert str(caught.value).split("review.csv ")[1] == (
        "marks image a of the set 'one' twice: as 'good' (2026-01-02T03:04:05Z) and as 'wrong' (2027-01-01T00:00:00Z)\n"
        "  fix: keep one of the two rows"
    )


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["one,a,t,bad,,now"], {}, "{path}, row 2: unknown mark 'bad'; choose one of: good, unsure, wrong"),
        (["one,a,t,,,now"], {}, "{path}, row 2: unknown mark ''; choose one of: good, unsure, wrong"),
        (["one,a,t,good"], {}, "{path}, row 2: it has 4 cells and not 6"),
        ([], {}, "{path} holds no mark"),
        (
            ["one;a;t;good;;now"],
            {"header": HEADER.replace(",", ";")},
            "{path} is not a review: its first row is 'set_name;image_id;description_id;review;review_note;reviewed_at'"
            " and not 'set_name,image_id,description_id,review,review_note,reviewed_at'\n"
            "  fix: export the marks from the gallery; a spreadsheet has to save them with commas",
        ),
        (['one,a,t,"go'], {}, "{path} is not CSV: unexpected end of data"),
    ],
)
def test_what_is_no_review_is_refused(review, lines, options, message):
    path = review(*lines, **options)
    with pytest.raises(UserError) as caught:
        read_review(path)
    assert str(caught.value) == message.format(path=path)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        read_review(tmp_path / "none.csv")
    assert str(caught.value) == (
        f"no such file: {tmp_path}/none.csv\n  fix: export the marks from the gallery, and name that file"
    )
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"cannot read .*picture\.csv as a review: 'utf-8' codec can't decode"):
        read_review(tmp_path / "picture.csv")


def test_marks_fit_only_the_texts_they_were_made_of(review):
    texts = {"a": "A papule.", "b": "A plaque."}
    ids = {image_id: description_id(text) for image_id, text in texts.items()}
    reviews = read_review(review(f"one,a,{ids['a']},good,,{AT}", f"one,b,{ids['b']},wrong,,{AT}"))
    assert {image_id: mark.review for image_id, mark in marks_of(reviews, "one", texts).items()} == {
        "a": "good",
        "b": "wrong",
    }
    assert marks_of(reviews, "two", texts) == {}
    with pytest.raises(UserError) as caught:
        marks_of(reviews, "one", {**texts, "b": "A nodule."})
    assert str(caught.value) == (
        "1 marks are of texts that the set 'one' no longer has: b\n"
        "  fix: review them again in a new gallery, or remove those rows"
    )
    with pytest.raises(UserError) as caught:
        marks_of(reviews, "one", {"a": "A papule."})
    assert str(caught.value) == (
        "1 marks are of images that the set 'one' does not hold: b\n"
        "  fix: take the gallery of this dataset, or remove those rows"
    )


def test_marks_of_a_set_that_is_not_built_are_refused(review):
    reviews = read_review(review(f"one,a,t,good,,{AT}"))
    check_set_names(reviews, ["one", "two"])
    with pytest.raises(UserError) as caught:
        check_set_names(reviews, ["two"])
    assert str(caught.value) == (
        "the review is of the sets one, and the dataset has two\n"
        "  fix: build from the runs that were reviewed, or remove those rows"
    )
