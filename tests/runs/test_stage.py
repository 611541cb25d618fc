import pytest

from ssldiff_jax.core import schema
from ssldiff_jax.runs import stage

TABLE = {
    "first": stage.Stage(lambda context: None, ("first",)),
    "second": stage.Stage(lambda context: None, ("second",), ("first",)),
    "third": stage.Stage(lambda context: None, ("third",), ("second",)),
}


def test_names_are_parsed():
    parse = lambda text: stage.parse_names(text, TABLE, "stages")
    assert parse("all") == ["first", "second", "third"]
    assert parse(" third, first ,") == ["third", "first"]
    assert parse("") == []


@pytest.mark.parametrize(("typo", "nearest"), [("frist", "first"), ("secnd", "second")])
def test_unknown_name_gets_the_nearest_hint(typo, nearest):
    with pytest.raises(schema.ConfigError) as caught:
        stage.parse_names(f"first,{typo}", TABLE, "stages")
    assert f"config.stages: {typo!r} is no stage; did you mean {nearest!r}?" == str(caught.value)


def test_name_like_none_lists_them_all():
    with pytest.raises(schema.ConfigError, match="known: first, second, third"):
        stage.parse_names("xyz", TABLE, "force")
