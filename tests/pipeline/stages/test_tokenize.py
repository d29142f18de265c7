"""The tokenize stage: token ids, and the vocabulary."""

from __future__ import annotations

import shutil
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from pipeline.config_file import ROOT
from pipeline.data.splits import split_of
from pipeline.errors import BaseModelError, RefusedError
from pipeline.models.base_model import resolve_base
from pipeline.models.row_encoder import Encoder
from pipeline.models.tokenizer import WordCounter, learn_tokenizer, load_tokenizer
from pipeline.recipes.kinds.inputs import JoinedPair, SeparatePair, SingleText
from pipeline.recipes.kinds.task_kind import TaskKind
from pipeline.stages.tokenize import ENCODED_SPLITS, _check_unknown, tokenize
from pipeline.store.artifacts import Artifact, Store
from tests.support.gate_releases import republished
from tests.support.properties import given, settings
from tests.support.small_pipeline import Road, make_validated, open_road, save_base, small_recipe

pytestmark = pytest.mark.torch

REVIEWS = small_recipe("nsmc")
PAIRS = small_recipe("klue-sts")
WORDS = "정말 재미 있는 영화 였다 지루 했다 음악 배우 연기 이야기 결말 처음 마지막 눈물 웃음".split()  # noqa: SIM905
TOKENIZER = learn_tokenizer([" ".join(WORDS)] * 3, 500)


def encoder(max_length: int, inputs: type[TaskKind] = SingleText) -> Encoder:
    return Encoder(TOKENIZER, max_length, inputs.encodings)


def ids(*words: str) -> list[int]:
    return [TOKENIZER.convert_tokens_to_ids(word) for word in words]


def token_list(values: object) -> list[int]:
    return np.asarray(values).tolist()


# --- encoding ---


def test_a_row_becomes_its_tokens_without_padding() -> None:
    rows = pd.DataFrame({"id": ["a", "b"], "text": ["영화 음악", "배우"], "label": [1, 0], "source": ["x", "y"]})
    found = encoder(16).encode(rows).rows
    assert list(found.columns) == ["id", "label", "input_ids", "length"]
    assert token_list(found["input_ids"][0]) == ids("[CLS]", "영화", "음악", "[SEP]")
    assert token_list(found["input_ids"][1]) == ids("[CLS]", "배우", "[SEP]")
    assert found["length"].tolist() == [4, 3]


def test_long_text_is_truncated_and_keeps_sep() -> None:
    rows = pd.DataFrame({"text": [" ".join(WORDS), " ".join(WORDS[:6]), "영화"]})
    found = encoder(8).encode(rows)
    assert token_list(found.rows["input_ids"][0]) == ids("[CLS]", *WORDS[:6], "[SEP]")
    # A text of exactly the maximum length is not truncated.
    assert found.rows["length"].tolist() == [8, 8, 3]
    assert found.figures.truncated == pytest.approx(1 / 3)


def test_rows_of_one_length_stay_rows() -> None:
    found = encoder(8, JoinedPair).encode(pd.DataFrame({"text": ["영화", "배우"], "text_pair": ["음악", "결말"]}))
    assert [token_list(item) for item in found.rows["token_type_ids"]] == [[0, 0, 0, 1, 1]] * 2


def test_shares_are_counted_by_hand() -> None:
    # Five words, two of them with letters that no training text has.
    found = encoder(16).encode(pd.DataFrame({"text": ["영화 쀍 음악", "뛟", "배우"]})).figures
    assert found.unknown == pytest.approx(2 / 5)
    assert found.truncated == 0.0
    assert found.rows == 3
    assert found.mean_length == pytest.approx((5 + 3 + 3) / 3)


def test_a_cross_encoder_reads_both_texts_at_once() -> None:
    found = encoder(16, JoinedPair).encode(pd.DataFrame({"text": ["영화 음악"], "text_pair": ["배우"]})).rows
    assert token_list(found["input_ids"][0]) == ids("[CLS]", "영화", "음악", "[SEP]", "배우", "[SEP]")
    assert token_list(found["token_type_ids"][0]) == [0, 0, 0, 0, 1, 1]
    assert found["length"].tolist() == [6]


def test_a_cross_encoder_cuts_the_longer_text() -> None:
    rows = pd.DataFrame({"text": [" ".join(WORDS)], "text_pair": ["배우"]})
    found = encoder(8, JoinedPair).encode(rows).rows
    assert token_list(found["input_ids"][0]) == ids("[CLS]", *WORDS[:4], "[SEP]", "배우", "[SEP]")


def test_bi_encoder_encodes_separately_and_counts_longer() -> None:
    rows = pd.DataFrame({"text": ["영화", "배우 연기"], "text_pair": ["음악 결말 눈물", "웃음"]})
    found = encoder(16, SeparatePair).encode(rows).rows
    assert token_list(found["input_ids"][0]) == ids("[CLS]", "영화", "[SEP]")
    assert token_list(found["input_ids_pair"][0]) == ids("[CLS]", "음악", "결말", "눈물", "[SEP]")
    assert found["length"].tolist() == [5, 4]


# --- vocabulary ---


def test_hangul_is_not_taken_apart() -> None:
    tokens = set(TOKENIZER.get_vocab())
    assert "영화" in tokens
    assert not [token for token in tokens for letter in token if "\u1100" <= letter <= "\u11ff"]


def test_decomposed_text_has_the_tokens_of_composed_text() -> None:
    text = "정말 재미 있는 영화"
    apart = unicodedata.normalize("NFD", text)
    assert apart != text
    assert TOKENIZER.tokenize(apart) == TOKENIZER.tokenize(text)


def test_letters_are_lowered_and_accents_kept() -> None:
    tokenizer = learn_tokenizer(["cafe café Movie"] * 3, 500)
    assert tokenizer.tokenize("MOVIE Café") == ["movie", "café"]


def test_every_letter_is_known_before_letters_are_joined() -> None:
    letters = "".join(chr(code) for code in range(ord("가"), ord("가") + 80))
    tokenizer = learn_tokenizer([letters, letters[::-1]] * 3, 200)
    assert len(tokenizer) == 200
    assert tokenizer.unk_token_id not in tokenizer(" ".join(letters)).input_ids


def test_the_marks_come_first() -> None:
    assert TOKENIZER.convert_ids_to_tokens([0, 1, 2, 3, 4]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


LEARN = """
import hashlib, random
from pipeline.models.tokenizer import train_wordpiece
chance = random.Random(3)
letters = [chr(code) for code in range(ord("가"), ord("가") + 60)]
# Many pairs of letters are as frequent as others.
texts = [" ".join("".join(chance.choices(letters, k=3)) for _ in range(8)) for _ in range(40)]
vocabulary = train_wordpiece(texts, 300).get_vocab()
assert len(vocabulary) == 300
print(hashlib.sha256(repr(sorted(vocabulary.items())).encode()).hexdigest())
"""


@pytest.mark.slow
def test_vocabulary_is_equal_in_every_process() -> None:
    # The order in the library's hash tables differs only between processes.
    command = [sys.executable, "-c", LEARN]
    first, second = (subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout for _ in range(2))
    assert first == second


def test_the_rarest_letters_beyond_the_limit_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.models.tokenizer.LETTERS", 3)
    tokenizer = learn_tokenizer(["가나 가나 다가", "라"], 100)
    assert {token for token in tokenizer.get_vocab() if len(token) == 1} == {"가", "나", "다"}
    assert tokenizer.tokenize("가나 라") == ["가나", "[UNK]"]


@given(st.lists(st.text("가나다abé 12!", max_size=12), min_size=1), st.lists(st.text("가나다라abcé 12!?", max_size=12)))
@settings(max_examples=40)
def test_unknown_words_are_counted_before_learning_vocabulary(learnt: list[str], texts: list[str]) -> None:
    tokenizer, counter = learn_tokenizer(learnt, 60), WordCounter(None, learnt)
    found = [tokenizer(text, add_special_tokens=False) for text in texts]
    assert counter.count(texts) == [
        (len(set(item.word_ids())), item["input_ids"].count(tokenizer.unk_token_id)) for item in found
    ]


def test_base_model_words_are_counted_untruncated(tmp_path: Path, store: Store) -> None:
    TOKENIZER.backend_tokenizer.enable_truncation(8)
    TOKENIZER.save_pretrained(tmp_path)
    TOKENIZER.backend_tokenizer.no_truncation()
    save_base(tmp_path / "base", [" ".join(WORDS)])
    shutil.copy(tmp_path / "tokenizer.json", tmp_path / "base")
    base = resolve_base(str(tmp_path / "base"), store)
    assert WordCounter(base, []).count([" ".join([*WORDS, "쀍다", "영화뛟"]), ""]) == [(len(WORDS) + 2, 2), (0, 0)]


def test_a_tokenizer_survives_its_directory(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert (loaded.pad_token_id, loaded.unk_token_id) == (0, 1)
    assert loaded("정말 영화", "음악").input_ids == TOKENIZER("정말 영화", "음악").input_ids


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    # transformers would create a tokenizer for which every word is unknown.
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(BaseModelError, match="has no tokenizer"):
        load_tokenizer(tmp_path)


def test_sentencepiece_pieces_are_not_taken_for_wordpiece(tmp_path: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"▁{word}" for word in WORDS), "다", "요"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(
        BaseModelError, match=r"vocab\.txt lists the pieces of a SentencePiece model \(▁\.\.\.\).*KoBERT"
    ):
        load_tokenizer(tmp_path)
    # By default the accents are stripped, which takes Hangul apart.
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}', encoding="utf-8")
    # The sign itself may be a word of a WordPiece vocabulary.
    (tmp_path / "vocab.txt").write_text("\n".join([*pieces[:5], "▁", *WORDS]), encoding="utf-8")
    assert load_tokenizer(tmp_path).tokenize(WORDS[0]) == [WORDS[0]]


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BaseModelError, match="its tokenizer cannot be loaded"):
        load_tokenizer(tmp_path)


# --- the stage ---


def test_sides_are_whole_and_apart(reviews: Road) -> None:
    train = pd.read_parquet(reviews.validated.path / "train.parquet")
    parts = {
        name: pd.read_parquet(reviews.tokenized.path / f"{name}.parquet") for name in ("train", "validation", "gate")
    }
    assert sorted(pd.concat(parts.values())["id"]) == sorted(train["id"])
    texts = [set(train.set_index("id").loc[part["id"], "text"]) for part in parts.values()]
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]
    assert {name: reviews.tokenized.manifest.figures[name]["rows"] for name in parts} == {
        k: len(v) for k, v in parts.items()
    }


def test_stored_rows_are_truncated_and_unpadded(reviews: Road, pairs: Road) -> None:
    for road, columns in ((reviews, ["input_ids"]), (pairs, ["input_ids", "input_ids_pair"])):
        rows = pd.read_parquet(road.tokenized.path / "test.parquet")
        assert len(rows) == len(road.rows["test"])
        longest = np.max([[len(item) for item in rows[name]] for name in columns], axis=0)
        assert (rows["length"] == longest).all()
        assert rows["length"].max() <= road.recipe.model.max_length
        assert len(set(rows["length"])) > 1


def test_the_vocabulary_comes_from_the_training_side_alone(tmp_path: Path) -> None:
    road = open_road(REVIEWS, tmp_path / "home", train=300, test=40)
    rows = {name: table.copy() for name, table in road.rows.items()}
    words = {"train": "훈련쀍말", "validation": "검증쁇말", "gate": "관문뛟말"}

    def marked(text: str) -> str:
        # The new text may fall into another split: count up until it stays in its own.
        side = split_of((text,), REVIEWS.data)
        tries = (f"{text} {words[side]} {number}" for number in range(999))
        return next(new for new in tries if split_of((new,), REVIEWS.data) == side)

    rows["train"]["text"] = [marked(text) for text in rows["train"]["text"]]
    rows["test"]["text"] = rows["test"]["text"] + " 시험뚫말"
    tokenized = tokenize(road.job, make_validated(road.job, rows))
    letters = set("".join(load_tokenizer(tokenized.path / "tokenizer").get_vocab()))
    assert "쀍" in letters
    assert not letters & set("쁇뛟뚫")
    assert tokenized.manifest.figures["gate"]["unknown"] > tokenized.manifest.figures["train"]["unknown"] == 0.0


def test_only_what_changes_the_tokens_changes_the_key(reviews: Road) -> None:
    def again(**overrides: object) -> str:
        job = replace(reviews.job, recipe=small_recipe("nsmc", **overrides))
        return tokenize(job, reviews.validated).key

    same = {"gate__floors__accuracy": 0.1, "gate__margin": 0.5, "train__epochs": 9, "export__latency_ms": 1.0}
    assert again(**same) == reviews.tokenized.key
    assert again(model__max_length=31) != reviews.tokenized.key
    assert again(data__gate_share=0.2) != reviews.tokenized.key


def test_a_base_model_brings_its_own_tokenizer(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", [" ".join(WORDS)])
    road = open_road(small_recipe("nsmc", model__base=str(base)), tmp_path / "home", train=100, test=20)
    assert load_tokenizer(road.tokenized.path / "tokenizer").get_vocab() == load_tokenizer(base).get_vocab()
    assert road.tokenized.manifest.figures["base"]["base"] == str(base)
    assert len(road.tokenized.manifest.figures["base"]["revision"]) == 64


def test_vocabulary_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    # As SentencePiece marks words, and in Latin letters: nothing of a Korean review is known.
    base = save_base(tmp_path / "base", ["▁this ▁is ▁not ▁korean ▁at ▁all"])
    bound = small_recipe("nsmc", model__base=str(base), model__unknown_share=0.1)
    road = open_road(bound, tmp_path / "home", train=300, test=20)
    message = r"does not fit the texts: \[UNK\] stands for [\d.]+% of train, .* of test, .* allows 10\.0%"
    for _ in range(2):
        # Also if the tokens are reused.
        with pytest.raises(RefusedError, match=message):
            tokenize(road.job, road.validated)
    (made,) = road.job.store.refs("tokenize", "nsmc")
    figures = road.job.store.open(made).manifest.figures
    assert min(figures[name]["unknown"] for name in ENCODED_SPLITS) > 0.5


@pytest.mark.parametrize("split", ["train", "validation", "gate", "test"])
def test_unknown_share_is_bounded_in_every_split(reviews: Road, split: str) -> None:
    bound, known = small_recipe("nsmc", model__unknown_share=0.1), reviews.tokenized.manifest.figures

    def with_share(share: float) -> Artifact:
        changed = {name: {**known[name], "unknown": share if name == split else 0.0} for name in ENCODED_SPLITS}
        return republished(reviews.tokenized, figures=known | changed)

    _check_unknown(bound, with_share(0.1))
    with pytest.raises(RefusedError, match=rf"stands for 10\.0% of {split}, and model\.unknown_share allows 10\.0%"):
        _check_unknown(bound, with_share(0.1001))


def test_unsuitable_base_model_stops_tokenize(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", [" ".join(WORDS)], max_position_embeddings=16)
    road = open_road(small_recipe("nsmc", model__base=str(base)), tmp_path / "home", train=100, test=20)
    with pytest.raises(BaseModelError, match="takes at most 16 tokens"):
        _ = road.tokenized
    assert road.job.store.newest("tokenize", "nsmc") is None
