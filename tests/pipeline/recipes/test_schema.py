"""Recipes: the shipped ones are valid, and an error names file, key and allowed values."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import RecipeError
from pipeline.recipes.files import RECIPES
from pipeline.recipes.loading import load_recipe, recipe_names
from pipeline.recipes.schema import Recipe

NAMES = recipe_names()
PROFILES = ("embedded", "full")


@pytest.fixture
def broken(tmp_path: Path) -> Any:
    """Return `broken(name, old, new)`, the directory of a copy of a shipped recipe with one text replaced."""

    def write(name: str, old: str, new: str) -> Path:
        text = (RECIPES / f"{name}.toml").read_text(encoding="utf-8")
        assert old in text
        (tmp_path / f"{name}.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
        shutil.copytree(RECIPES / "behaviour", tmp_path / "behaviour")
        return tmp_path

    return write


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("sample", [False, True])
def test_every_shipped_recipe_is_valid(name: str, profile: str, sample: bool) -> None:
    recipe = load_recipe(name, profile, sample=sample)
    assert (recipe.name, recipe.profile, recipe.sample) == (name, profile, sample)
    assert set(recipe.gate.floors) == set(recipe.metrics)


@pytest.mark.parametrize("name", NAMES)
def test_no_shipped_table_sets_an_unknown_profile(name: str) -> None:
    document = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    assert set(document["profiles"]) == set(PROFILES)


def test_full_klue_sts_has_klue_baseline_settings() -> None:
    recipe = load_recipe("klue-sts", "full")
    assert recipe.model.base == "klue/bert-base"
    assert recipe.model.objective == "cross-encoder"
    assert (recipe.train.learning_rate, recipe.train.epochs, recipe.train.batch_size) == (5e-5, 4, 32)
    assert (recipe.train.warmup, recipe.train.weight_decay, recipe.model.max_length) == (0.1, 0.0, 128)


def test_full_nsmc_has_the_settings_of_ratsnlp() -> None:
    recipe = load_recipe("nsmc", "full")
    assert recipe.model.base == "klue/bert-base"
    assert (recipe.train.learning_rate, recipe.train.epochs, recipe.train.batch_size) == (5e-5, 3, 32)
    assert (recipe.model.max_length, recipe.train.seed) == (128, 7)


def test_nsmc_has_the_promised_threshold() -> None:
    assert load_recipe("nsmc", "embedded").gate.floors["accuracy"] >= 0.86


def test_renamed_label_is_no_label_any_more() -> None:
    # The first model with the new meaning would be renamed, too, and be wrong everywhere.
    swapped = {"negative": "positive", "positive": "negative"}
    with pytest.raises(RecipeError, match=r"`renamed_labels` must not rename negative, positive, which `labels` still"):
        load_recipe("nsmc", "embedded", overrides={"renamed_labels": swapped})


def test_renamed_labels_lead_to_known_names() -> None:
    renamed = {"renamed_labels": {"bad": "negative"}}
    assert load_recipe("nsmc", "embedded", overrides=renamed).renamed_labels == {"bad": "negative"}
    with pytest.raises(RecipeError, match=r"`renamed_labels` must lead to names in `labels`, not to terrible"):
        load_recipe("nsmc", "embedded", overrides={"renamed_labels": {"bad": "terrible"}})


def test_a_recipe_cannot_be_changed() -> None:
    recipe = load_recipe("nsmc", "embedded")
    with pytest.raises(ValidationError):
        recipe.train.epochs = 2  # type: ignore[misc]


#: Recipe, replaced text, replacement, and the expected part of the error.
MISTAKES = {
    "unknown key": ("nsmc", "[export]\n", "[export]\nlatencyms = 3\n", ("export.latencyms", "latency_ms", "sentences")),
    "unknown table": ("nsmc", "[export]\n", "[exports]\nx = 1\n[export]\n", ("`exports`", "export, gate")),
    "unknown key deep down": ("nsmc", "int8 = {", "int8 = { bound = 1,", ("export.int8.bound", "changed_labels")),
    "missing share": ("nsmc", "int8 = { changed_labels = 0.005, ", "int8 = { ", ("int8.changed_labels` is missing",)),
    "floor of no metric": (
        "nsmc",
        "{ accuracy = 0.88,",
        "{ auc = 0.5, accuracy = 0.88,",
        ("floors.auc", "accuracy, f1"),
    ),
    "floor out of range": ("nsmc", "{ accuracy = 0.88,", "{ accuracy = 88.0,", ("floors.accuracy", "below 1", "88.0")),
    "floor not a number": ("nsmc", "{ accuracy = 0.88,", "{ accuracy = nan,", ("floors.accuracy", "finite")),
    "number too large": ("nsmc", "max_length = 128", "max_length = 1024", ("model.max_length", "512", "1024")),
    "number too small": ("nsmc", "epochs = 3", "epochs = 0", ("train.epochs", "greater than or equal to 1", "it is 0")),
    "infinite budget": ("nsmc", "latency_ms = 100.0", "latency_ms = inf", ("export.latency_ms", "finite")),
    "text for a number": ("nsmc", "epochs = 3", 'epochs = "3"', ("train.epochs", "valid integer", "'3'")),
    "truth for a number": ("nsmc", "epochs = 3", "epochs = true", ("train.epochs", "valid integer", "True")),
    "fraction for a whole": ("nsmc", "epochs = 3", "epochs = 2.5", ("train.epochs", "valid integer", "2.5")),
    "unknown kind": ("nsmc", '"classification"', '"ranking"', ("`kind`", "'classification' or 'regression'")),
    "unknown format": ("nsmc", 'format = "tsv"', 'format = "xls"', ("data.format", "'csv'", "'parquet'")),
    "suffix of no format": ("nsmc", 'format = "tsv"\n', "", ("`data.format` is missing",)),
    "labels missing": ("nsmc", 'labels = ["negative", "positive"]\n', "", ("`labels`", "at least two")),
    "labels alike": ("nsmc", '["negative", "positive"]', '["good", "good"]', ("`labels`", "different")),
    "score range missing": ("klue-sts", "score_range = [0.0, 5.0]\n", "", ("`score_range`", "needs")),
    "score range upside down": ("klue-sts", "[0.0, 5.0]", "[5.0, 0.0]", ("`score_range`", "lowest, highest")),
    "cut outside the range": ("klue-sts", "similar_at = 3.0", "similar_at = 7.0", ("similar_at", "between")),
    "one column for a pair": ("klue-sts", '"sentence1", "sentence2"', '"sentence1"', ("data.texts", "two columns")),
    "same column twice": ("klue-sts", '"sentence1", "sentence2"', '"sentence1", "sentence1"', ("data", "different")),
    "objective missing": ("klue-sts", 'objective = "cross-encoder"\n', "", ("model.objective", "bi-encoder")),
    "objective unknown": ("klue-sts", '"cross-encoder"', '"triplet"', ("model.objective", "'cross-encoder'")),
    "objective for one text": (
        "nsmc",
        "[train]\n",
        'objective = "bi-encoder"\n[train]\n',
        ("model.objective", "pairs"),
    ),
    "nothing left to train": ("nsmc", "gate_share = 0.06", "gate_share = 0.98", ("gate_share", "less than 1")),
    "name of another": ("nsmc", 'name = "nsmc"', 'name = "reviews"', ("`name`", "'nsmc'", "'reviews'")),
    "capability without a bound": ("nsmc", "emoji = 0.9\n", "", ("`gate.behaviour.emoji` is missing", "behaviour/")),
    "bound of no capability": ("nsmc", "emoji = 0.9\n", "emoji = 0.9\nirony = 0.5\n", ("gate.behaviour.irony",)),
    "bound out of range": ("nsmc", "emoji = 0.9\n", "emoji = 85.0\n", ("gate.behaviour.emoji", "less than or equal")),
    "behaviour missing": ("nsmc", "[gate.behaviour]\n", "[gate.x]\n", ("unknown key `gate.x`",)),
    "tests in the recipe": ("nsmc", "[export]\n", "[behaviour]\ntests = []\n[export]\n", ("unknown key `behaviour`",)),
    "profile in the file": ("nsmc", 'title = "', 'profile = "full"\ntitle = "', ("unknown key `profile`",)),
    "sample not a table": ("nsmc", 'title = "', 'profiles.full.sample = 3\ntitle = "', ("`sample` must be a table",)),
    "not TOML": ("nsmc", "epochs = 3", "epochs = = 3", ("is not TOML", "line")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_recipe_error_names_file_key_and_values(mistake: str, broken: Any) -> None:
    name, old, new, named = MISTAKES[mistake]
    directory = broken(name, old, new)
    if mistake == "sample not a table":
        path = directory / f"{name}.toml"
        path.write_text(path.read_text(encoding="utf-8").replace("[profiles.full]\n", "", 1), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, "full", directories=[directory])
    text = str(caught.value)
    assert f"{name}.toml" in text
    for part in named:
        assert part in text
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        # Of a table and its override for a profile, the line of the one that counts.
        ("[profiles.embedded.train]\nepochs = 1", "[profiles.embedded.train]\nepochs = 0", "epochs = 0"),
        ("int8 = {", "int8 = { bound = 1,", "int8 = { bound = 1,"),
        ('kind = "classification"', 'kind = "ranking"', 'kind = "ranking"'),
        # A missing key has the line of its table, also if the rule is about the whole recipe.
        ('format = "tsv"\n', "", "[data]"),
        ("[profiles.embedded.gate.behaviour]\n", "[profiles.embedded.gate.behaviour]\nx = 0.5\n", "x = 0.5"),
    ],
)
def test_recipe_error_names_the_line(broken: Any, old: str, new: str, at: str) -> None:
    directory: Path = broken("nsmc", old, new)
    line = (directory / "nsmc.toml").read_text(encoding="utf-8").partition(at)[0].count("\n") + 1
    with pytest.raises(RecipeError, match=rf"/nsmc\.toml line {line}: "):
        load_recipe("nsmc", "embedded", directories=[directory])


def test_behaviour_error_names_its_own_line(broken: Any) -> None:
    directory: Path = broken("nsmc", "", "")
    tests = directory / "behaviour" / "nsmc.toml"
    before = tests.read_text(encoding="utf-8")
    tests.write_text(f'{before}\n[[tests]]\ncapability = "x"\nname = "y"\nkind = "odd"\ncases = ["z"]\n', "utf-8")
    line = before.count("\n") + 5
    with pytest.raises(RecipeError, match=rf"behaviour/nsmc\.toml line {line}: `tests\.\d+\.kind`"):
        load_recipe("nsmc", "embedded", directories=[directory])


def test_override_error_names_no_line_of_the_file() -> None:
    with pytest.raises(RecipeError, match=r"^nsmc\.toml: `train\.epochs`"):
        load_recipe("nsmc", "embedded", overrides={"train.epochs": 1000})
    with pytest.raises(RecipeError, match=r"^nsmc\.toml: `source\.train\.url`"):
        load_recipe("nsmc", "embedded", overrides={"source.train": {"url": "x"}})


def test_every_mistake_is_named_at_once(broken: Any) -> None:
    directory = broken("nsmc", "epochs = 3\nlearning_rate = 5e-5", "epochs = 0\nlearning_rate = 5.0")
    with pytest.raises(RecipeError, match=r"train\.epochs.*train\.learning_rate"):
        load_recipe("nsmc", "full", directories=[directory])


def test_unknown_recipe_error_lists_known_recipes() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'imdb'; the recipes are: .*klue-sts.*nsmc"):
        load_recipe("imdb", "full")


def test_unknown_profile_error_lists_known_profiles() -> None:
    with pytest.raises(RecipeError, match=r"nsmc\.toml has no profile 'huge'; it has: embedded, full"):
        load_recipe("nsmc", "huge")


def test_recipe_without_profiles_is_the_same_in_each(broken: Any) -> None:
    directory: Path = broken("nsmc", "", "")
    text = (directory / "nsmc.toml").read_text(encoding="utf-8")
    (directory / "nsmc.toml").write_text(text[: text.index("[profiles.")], encoding="utf-8")
    full = load_recipe("nsmc", "full", directories=[directory])
    assert full == load_recipe("nsmc", "full")
    assert load_recipe("nsmc", "other", directories=[directory]).train == full.train


def test_bytes_that_are_no_text_are_not_toml(tmp_path: Path) -> None:
    (tmp_path / "nsmc.toml").write_bytes('title = "영화"'.encode("cp949"))
    with pytest.raises(RecipeError, match=r"nsmc\.toml is not TOML"):
        load_recipe("nsmc", "full", directories=[tmp_path])


def test_later_tables_win(broken: Any) -> None:
    directory = broken("nsmc", "[sample.data]\n", "[sample.train]\nbatch_size = 8\nseed = 12\n[sample.data]\n")
    plain = load_recipe("nsmc", "embedded", directories=[directory])
    full_sample = load_recipe("nsmc", "full", sample=True, directories=[directory])
    sample = load_recipe("nsmc", "embedded", sample=True, directories=[directory])
    chosen = load_recipe("nsmc", "embedded", sample=True, directories=[directory], overrides={"train.epochs": 2})
    assert plain.train.seed == 7
    assert full_sample.train.batch_size == 8
    assert sample.train.batch_size not in (8, plain.train.batch_size)
    assert sample.train.seed == 12
    assert chosen.train.epochs == 2
    assert chosen.train.seed == 12


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"train.epochs": 1000}, ("train.epochs", "100", "1000")),
        ({"train.epoch": 1}, ("train.epoch", "epochs")),
        ({"train.epochs.first": 1}, ("train.epochs", "valid integer")),
        ({"profile": "full"}, ("unknown key `profile`",)),
        ({"model.base": "scratch"}, ("model.base", "model.scratch")),
    ],
)
def test_a_wrong_override_is_named_too(overrides: dict[str, Any], named: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("nsmc", "full", overrides=overrides)
    for part in named:
        assert part in str(caught.value)


def test_heads_must_divide_the_hidden_size() -> None:
    with pytest.raises(RecipeError, match=r"model\.scratch.*hidden \(128\) must be a multiple of heads \(5\)"):
        load_recipe("nsmc", "embedded", overrides={"model.scratch.heads": 5})


#: The keys without a default.
LEAST = """
kind = "classification"
labels = ["정치", "경제", "사회"]

[data]
train = "news.csv"
texts = ["제목"]
label = "분야"
"""


def test_only_file_columns_kind_and_labels_are_required(tmp_path: Path) -> None:
    path = tmp_path / "news.toml"
    path.write_text(LEAST, encoding="utf-8")
    recipe = load_recipe("news", "embedded", directories=[tmp_path])
    assert (recipe.name, recipe.title, recipe.inputs, recipe.data.format) == ("news", "news", "text", "csv")
    assert (recipe.data.test, recipe.data.id, recipe.data.suite, recipe.model.base) == (None, None, None, "mini")
    assert recipe.gate.floors == {}
    for line in LEAST.strip().splitlines():
        if line.startswith(("train", "texts", "label", "kind")):
            path.write_text(LEAST.replace(f"{line}\n", ""), encoding="utf-8")
            with pytest.raises(RecipeError, match=r"/news\.toml( line \d+)?: .*`(data\.)?\w+`"):
                load_recipe("news", "embedded", directories=[tmp_path])


def test_score_in_the_middle_counts_as_positive_by_default(tmp_path: Path) -> None:
    scores = LEAST.replace('labels = ["정치", "경제", "사회"]', "score_range = [1.0, 5.0]")
    path = tmp_path / "stars.toml"
    path.write_text(scores.replace("classification", "regression"), encoding="utf-8")
    assert load_recipe("stars", "full", directories=[tmp_path]).similar_at == 3.0


def test_test_rows_leave_rows_to_train(tmp_path: Path) -> None:
    (tmp_path / "news.toml").write_text(f"{LEAST}test_share = 0.85\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"test_share must add up to less than 1"):
        load_recipe("news", "embedded", directories=[tmp_path])


def test_later_fields_are_dumped_only_if_set() -> None:
    data = load_recipe("nsmc", "embedded").data
    assert not {"test_share", "encoding", "delimiter"} & data.model_dump().keys()
    chosen = load_recipe("nsmc", "embedded", overrides={"data.encoding": "cp949"}).data
    assert chosen.model_dump()["encoding"] == "cp949"


def test_licence_is_in_no_dump() -> None:
    recipe = load_recipe("nsmc", "embedded")
    assert recipe.data.license == "cc0-1.0"
    assert "license" not in recipe.model_dump()["data"]


def test_new_recipe_needs_two_files_without_python(broken: Any) -> None:
    directory: Path = broken("nsmc", 'name = "nsmc"', 'name = "shop-reviews"')
    (directory / "nsmc.toml").rename(directory / "shop-reviews.toml")
    (directory / "behaviour" / "nsmc.toml").rename(directory / "behaviour" / "shop-reviews.toml")
    assert recipe_names([directory]) == ("shop-reviews",)
    recipe = load_recipe("shop-reviews", "embedded", directories=[directory])
    assert isinstance(recipe, Recipe)
    assert recipe.metrics == ("accuracy", "f1")
