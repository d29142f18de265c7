"""Behavioural tests in TOML: error messages for invalid ones, and filled cases."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import RecipeError
from pipeline.recipes.behaviour import MOST_CASES, Behaviour, BehaviourTest
from pipeline.recipes.files import RECIPES
from pipeline.recipes.loading import load_recipe, recipe_names
from pipeline.recipes.schema import Recipe

NEGATIVE = """
[[tests]]
capability = "negation"
name = "praise that is denied"
kind = "minimum"
label = "negative"
cases = ["좋지 않다"]
"""
UNRELATED = """
[[tests]]
capability = "unrelated"
name = "nothing in common"
kind = "minimum"
score = [0.0, 2.0]
cases = [["비가 온다.", "빵이 맛있다."]]
"""
#: The capability of each test.
CAPABILITY = {"nsmc": "negation", "klue-sts": "unrelated"}


def load(directory: Path, name: str, text: str, *bounded: str) -> Recipe:
    """Return recipe `name` with `text` as its behavioural tests, and a bound for each capability of `bounded`."""
    # Without the bounds of the shipped recipe, whose capabilities are not tested here.
    lines = (RECIPES / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    shipped = tuple(f"{capability} = " for capability in load_recipe(name, "embedded").gate.behaviour)
    recipe = "\n".join(line for line in lines if not line.startswith(shipped))
    (directory / f"{name}.toml").write_text(recipe, encoding="utf-8")
    (directory / "behaviour").mkdir(exist_ok=True)
    (directory / "behaviour" / f"{name}.toml").write_text(text, encoding="utf-8")
    bounds = {f"gate.behaviour.{capability}": 0.5 for capability in bounded or (CAPABILITY[name],)}
    return load_recipe(name, "embedded", directories=[directory], overrides=bounds)


def refused(directory: Path, name: str, text: str, *bounded: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(directory, name, text, *bounded)
    return str(caught.value)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    recipe = load(tmp_path, "nsmc", NEGATIVE)
    (test,) = recipe.behaviour.tests
    assert (test.capability, test.kind, test.label, test.cases) == ("negation", "minimum", "negative", ("좋지 않다",))
    assert recipe.behaviour.capabilities == ("negation",)


def test_a_recipe_may_have_no_behavioural_tests(tmp_path: Path) -> None:
    recipe = load(tmp_path, "nsmc", NEGATIVE)
    shutil.rmtree(tmp_path / "behaviour")
    with pytest.raises(
        RecipeError, match=r"`gate.behaviour.negation`: behaviour/nsmc.toml has no test of this.*; it tests nothing"
    ):
        load_recipe("nsmc", "embedded", directories=[tmp_path], overrides={"gate.behaviour.negation": 0.5})
    bare = load_recipe("nsmc", "embedded", directories=[tmp_path])
    assert bare.behaviour == Behaviour()
    assert bare.gate.behaviour == {}
    assert bare.behaviour.digest != recipe.behaviour.digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('label = "negative"', 'label = "bad"', "`label` must be one of negative, positive, not 'bad'"),
        ('label = "negative"', "", "a test of kind minimum takes label, not nothing"),
        ('label = "negative"', 'label = "negative"\nby = 0.1', "takes label, not by, label"),
        ('label = "negative"', "score = [0.0, 1.0]", "takes label, not score"),
        ('label = "negative"', 'label = "negative"\nbound = 1', "unknown key `tests.0.bound`; allowed there: by, cap"),
        ('kind = "minimum"', 'kind = "maximum"', "'minimum', 'invariance' or 'direction' (it is 'maximum')"),
        ('cases = ["좋지 않다"]', "cases = []", "`tests.0.cases` "),
        ('cases = ["좋지 않다"]', "", "`tests.0.cases` is missing"),
        (
            'cases = ["좋지 않다"]',
            'cases = [["좋다", "나쁘다"]]',
            "a case of kind minimum is text, not ('좋다', '나쁘다')",
        ),
        ('["좋지 않다"]', '["{very} 나쁘다"]', "no words for {very}; add them to [words], which has: "),
        ('kind = "minimum"', 'kind = "invariance"', "a test of kind invariance takes nothing more, not label"),
        ('kind = "minimum"', 'kind = "direction"', "a test of kind direction takes by, label, not label"),
        (
            'kind = "minimum"\nlabel = "negative"',
            'kind = "invariance"',
            "a case of kind invariance is [text, text], not '좋지 않다'",
        ),
        (
            'kind = "minimum"\nlabel = "negative"\ncases = ["좋지 않다"]',
            'kind = "direction"\nlabel = "negative"\nby = 0\ncases = [["좋다", "안 좋다"]]',
            "`by` must be above 0 (up) or below 0 (down)",
        ),
    ],
)
def test_invalid_test_of_texts_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in NEGATIVE
    assert said in refused(tmp_path, "nsmc", NEGATIVE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("score = [0.0, 2.0]", 'label = "alike"', "a test of kind minimum takes score, not label"),
        ("score = [0.0, 2.0]", "score = [0.0]", "`tests.0.score.1` is missing"),
        ("score = [0.0, 2.0]", "score = [2.0, 0.0]", "`score` must be [lowest, highest], not [2.0, 0.0]"),
        (
            'cases = [["비가 온다.", "빵이 맛있다."]]',
            'cases = ["비가 온다."]',
            "a case of kind minimum is [text, text], not '비가 온다.'",
        ),
        (
            'kind = "minimum"\nscore = [0.0, 2.0]',
            'kind = "invariance"\nwithin = 0.2',
            "a case of kind invariance is [[text, text], [text, text]], not ('비가 온다.', '빵이 맛있다.')",
        ),
        ('kind = "minimum"\nscore = [0.0, 2.0]', 'kind = "invariance"', "takes within, not nothing"),
        ('kind = "minimum"\nscore = [0.0, 2.0]', 'kind = "invariance"\nwithin = 0', "`tests.0.within` "),
        ('kind = "minimum"\nscore = [0.0, 2.0]', 'kind = "direction"', "takes by, not nothing"),
    ],
)
def test_invalid_test_of_pairs_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in UNRELATED
    assert said in refused(tmp_path, "klue-sts", UNRELATED.replace(old, new))


def test_an_error_names_the_file_and_the_test(tmp_path: Path) -> None:
    said = refused(tmp_path, "nsmc", NEGATIVE.replace('cases = ["좋지 않다"]', 'cases = ["{very} 나쁘다"]'))
    missing = "no words for {very}; add them to [words], which has: none"
    assert said == f"{tmp_path}/behaviour/nsmc.toml: 'praise that is denied': {missing}"
    assert refused(tmp_path, "nsmc", "tests = [").startswith(f"{tmp_path}/behaviour/nsmc.toml is not TOML: ")


def test_two_tests_of_one_name_are_refused(tmp_path: Path) -> None:
    # A failed case is reported with the name of its test.
    assert "two tests have the name 'praise that is denied'" in refused(tmp_path, "nsmc", NEGATIVE + NEGATIVE)


def test_a_template_gone_wild_is_refused(tmp_path: Path) -> None:
    many = ", ".join(f'"{number}"' for number in range(15))
    words = f"[words]\na = [{many}]\nb = [{many}]\n"
    said = refused(tmp_path, "nsmc", words + NEGATIVE.replace("좋지 않다", "{a} {b} 않다"))
    assert (
        f"'praise that is denied' has 225 cases after its placeholders are filled, and at most {MOST_CASES} are allowed"
        in said
    )


def test_words_without_a_word_are_refused(tmp_path: Path) -> None:
    assert "`words.very` " in refused(tmp_path, "nsmc", "[words]\nvery = []\n" + NEGATIVE)


def test_bounds_without_test_or_reverse_are_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, "nsmc", NEGATIVE, "names")
    assert "`gate.behaviour.negation` is missing: behaviour/nsmc.toml tests this capability" in said
    said = refused(tmp_path, "nsmc", NEGATIVE, "negation", "names")
    assert "`gate.behaviour.names`: behaviour/nsmc.toml has no test of this capability; it tests negation" in said


def filled(words: dict[str, Any], *cases: Any, kind: str = "invariance") -> list[Any]:
    document = {"capability": "x", "name": "y", "kind": kind, "cases": cases}
    behaviour = Behaviour.model_validate({"words": words, "tests": [document]})
    return behaviour.questions(behaviour.tests[0])


def test_placeholder_is_filled_alike_on_both_sides() -> None:
    assert filled({"part": ["연기가", "음악이"]}, ["{part} 좋다", "{part} 안 좋다"]) == [
        (("연기가 좋다",), ("연기가 안 좋다",)),
        (("음악이 좋다",), ("음악이 안 좋다",)),
    ]


def test_two_names_are_filled_with_all_their_combinations() -> None:
    found = filled({"a": ["1", "2"], "b": ["3", "4"]}, "{a}{b}{a}", kind="minimum")
    assert found == [(("131",),), (("141",),), (("232",),), (("242",),)]


def test_word_with_braces_is_not_filled_again() -> None:
    found = filled({"a": ["{b}"], "b": ["no"]}, "{a} { } {}", kind="minimum")
    assert found == [(("{b} { } {}",),)]


def test_pairs_are_filled_too() -> None:
    found = filled({"s": ["비가 온다."]}, [["{s}", "눈이 온다."], ["눈이 온다.", "{s}"]])
    assert found == [(("비가 온다.", "눈이 온다."), ("눈이 온다.", "비가 온다."))]


def test_a_changed_word_or_case_is_another_digest() -> None:
    def digest(word: str, case: str) -> str:
        test = {"capability": "x", "name": "y", "kind": "minimum", "cases": [case]}
        return Behaviour.model_validate({"words": {"a": [word]}, "tests": [test]}).digest

    assert digest("가", "{a} 좋다") == digest("가", "{a} 좋다")
    assert len({digest("가", "{a} 좋다"), digest("나", "{a} 좋다"), digest("가", "{a} 싫다")}) == 3


def test_a_number_that_is_none_is_no_bound() -> None:
    with pytest.raises(ValidationError):
        BehaviourTest(capability="x", name="y", kind="direction", cases=("a",), by=float("nan"))


@pytest.mark.parametrize("name", recipe_names())
def test_what_ships_asks_enough_and_nothing_twice(name: str) -> None:
    recipe = load_recipe(name, "embedded")
    assert recipe.behaviour.tests
    asked = [
        (test.kind, test.label, question)
        for test in recipe.behaviour.tests
        for question in recipe.behaviour.questions(test)
    ]
    assert len(asked) == len(set(asked)) > 100
    for capability in recipe.behaviour.capabilities:
        tests = [test for test in recipe.behaviour.tests if test.capability == capability]
        assert sum(len(recipe.behaviour.questions(test)) for test in tests) >= 10
