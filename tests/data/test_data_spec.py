import pytest

from whydeep.core import InputError
from whydeep.data.spec import parse


def test_a_path_keeps_its_colons_and_spaces():
    spec = parse("csv:C:/my data/a=b&c.csv?target=is it?&drop=a,b")
    # The last ? begins the options, so a ? inside a value belongs to the path: it must be written %3F.
    assert spec.location == "C:/my data/a=b&c.csv?target=is it"
    spec = parse("csv:C:/my data/a=b&c.csv?target=is it%3F&drop=a,b%26c")
    assert (spec.kind, spec.location) == ("csv", "C:/my data/a=b&c.csv")
    assert spec.options == {"target": "is it?", "drop": "a,b&c"}


def test_a_path_with_a_question_mark_is_closed_by_another():
    with pytest.raises(InputError, match="close a path"):
        parse("folder:/data/what?now")
    assert parse("folder:/data/what?now?").location == "/data/what?now"


def test_options_without_a_location():
    assert parse("photos?patch=6").options == {"patch": "6"}
    assert parse("photos?patch=6").location == ""


def test_the_same_option_twice_is_refused():
    with pytest.raises(InputError, match="patch stands twice"):
        parse("photos?patch=6&patch=8")


@pytest.mark.parametrize("text", ["2.5", "six", "", "0"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(InputError, match="at least 1"):
        parse("a").__class__("a", "", {"n": text}).integer("n", 3)


@pytest.mark.parametrize("text", ["nan", "inf", "1,5"])
def test_what_is_no_finite_number_is_refused(text):
    with pytest.raises(InputError, match="a finite number"):
        parse(f"a?f={text}").number("f", 0.0)


def test_readings():
    spec = parse("a?n=3&f=1e-2&b=yes&c=one")
    assert spec.integer("n", 7) == 3
    assert spec.integer("m", 7) == 7
    assert spec.number("f", 1.0) == 0.01
    assert spec.flag("b", False) is True
    assert spec.flag("missing", True) is True
    assert spec.choice("c", ("one", "two"), "two") == "one"
    with pytest.raises(InputError, match="yes or no"):
        parse("a?b=true").flag("b", False)
