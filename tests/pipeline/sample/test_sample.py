"""The shipped sample: the same everywhere, in the real formats, and no easier than it should be."""

import csv
import io
import json
import os
import re
import unicodedata
from collections import Counter
from hashlib import sha256

import pytest

from pipeline.errors import DataError
from pipeline.sample import generate, is_sample, write_sample
from pipeline.sample.korean import Dice, Predicate, attach, conjugate
from pipeline.sample.pairs import pair_frames
from pipeline.sample.reviews import review_frames, review_phrases

NSMC_TRAIN, NSMC_TEST = "nsmc/ratings_train.txt", "nsmc/ratings_test.txt"
STS_TRAIN, STS_DEV = "klue-sts/klue-sts-v1.1_train.json", "klue-sts/klue-sts-v1.1_dev.json"

# When these change on purpose and no phrase has, raise generate.VERSION: samples on disk are found by it.
PINNED = {
    NSMC_TRAIN: "0ad591fe72472f45e4aba8c93e781236064ad2269e0c9174bf5a3854a7f48e59",
    NSMC_TEST: "8e789752978e6fc14555f42161de104c2c794868cad26f5cadbb2167cf55ae83",
    STS_TRAIN: "3cbe1d2a8353ffab64c7e3b1c89f04315b23155a766c96068df29fe5739efabf",
    STS_DEV: "4223a072a736998f5ccde893643ec91efd4ff7df5660840760956bbf7116bd67",
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("data") / "sample")


def reviews(sample, name):
    text = (sample / name).read_bytes().decode()
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))


def pairs(sample, name):
    return json.loads((sample / name).read_text(encoding="utf-8"))


def bare(frame):
    """A frame's own letters: what is left without its slots, spaces and signs."""
    return "".join(re.findall(r"\w", re.sub(r"\{[^}]*\}", "", frame)))


def digests(directory):
    return {name: sha256((directory / name).read_bytes()).hexdigest() for name in PINNED}


# --- writing ---


def test_same_seed_gives_the_same_bytes_everywhere(sample):
    assert digests(sample) == PINNED


def test_another_seed_gives_other_files(sample, tmp_path):
    other = digests(write_sample(tmp_path, seed=8))
    assert all(other[name] != digest for name, digest in PINNED.items())


def test_card_says_what_the_sample_is(sample):
    card = json.loads((sample / "SAMPLE.json").read_text(encoding="utf-8"))
    assert card["note"] == ("This is Saebyeok's shipped sample, generated from templates; it is not NSMC or KLUE-STS.")
    assert (card["seed"], card["version"], card["files"]) == (7, generate.VERSION, PINNED)


def test_is_sample_knows_the_sample_only(sample, tmp_path):
    assert is_sample(sample)
    assert not is_sample(tmp_path)
    (tmp_path / "SAMPLE.json").write_text("[]")
    assert not is_sample(tmp_path)
    (tmp_path / "SAMPLE.json").write_text("{half a fi")
    assert not is_sample(tmp_path)


def test_second_call_writes_nothing(sample, monkeypatch):
    monkeypatch.setattr(generate, "build_sample", lambda seed: pytest.fail("built again"))
    assert write_sample(sample) == sample


def test_a_file_in_its_place_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="file is a file; name a directory"):
        write_sample(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_missing_file_is_written_again(tmp_path):
    write_sample(tmp_path)
    (tmp_path / STS_DEV).unlink()
    assert digests(write_sample(tmp_path)) == PINNED


def test_new_seed_replaces_the_old_sample(tmp_path):
    write_sample(tmp_path, seed=8)
    assert digests(write_sample(tmp_path)) == PINNED


@pytest.mark.parametrize("survivors", [0, 1, 3])
@pytest.mark.parametrize("before", [None, 8])
def test_killed_write_is_finished_by_the_next(tmp_path, monkeypatch, before, survivors):
    if before is not None:
        write_sample(tmp_path, seed=before)
    whole, written = generate.replace_file, []

    def die_after(path, content):
        if len(written) == survivors:
            raise KeyboardInterrupt
        written.append(path)
        whole(path, content)

    monkeypatch.setattr(generate, "replace_file", die_after)
    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path)
    monkeypatch.setattr(generate, "replace_file", whole)
    assert digests(write_sample(tmp_path)) == PINNED


def test_failed_write_leaves_nothing_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_sample(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("sampled", [False, True])
def test_data_of_someone_else_is_never_overwritten(tmp_path, sampled):
    if sampled:
        write_sample(tmp_path)
    theirs = tmp_path / NSMC_TRAIN
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("id\tdocument\tlabel\n1\t진짜 리뷰\t1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"ratings_train\.txt is not from Saebyeok's sample"):
        write_sample(tmp_path)
    assert "진짜 리뷰" in theirs.read_text(encoding="utf-8")


# --- reviews ---


@pytest.mark.parametrize(("name", "count"), [(NSMC_TRAIN, 4000), (NSMC_TEST, 1000)])
def test_reviews_are_in_nsmc_format(sample, name, count):
    raw = (sample / name).read_bytes()
    assert raw.startswith(b"id\tdocument\tlabel\n")
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    assert all(line.count("\t") == 2 for line in raw.decode().splitlines())
    rows = reviews(sample, name)
    assert len(rows) == count
    assert {row["label"] for row in rows} == {"0", "1"}
    assert all(row["id"].isdecimal() and row["document"].strip() for row in rows)
    assert 0.47 < sum(row["label"] == "1" for row in rows) / count < 0.53


def test_review_ids_are_unique_across_sides(sample):
    ids = [row["id"] for name in (NSMC_TRAIN, NSMC_TEST) for row in reviews(sample, name)]
    assert len(set(ids)) == len(ids)


def test_no_review_is_there_twice(sample):
    texts = [row["document"] for name in (NSMC_TRAIN, NSMC_TEST) for row in reviews(sample, name)]
    assert len(set(texts)) == len(texts)


def test_reviews_run_from_a_word_to_a_paragraph(sample):
    lengths = sorted(len(row["document"]) for row in reviews(sample, NSMC_TRAIN))
    assert lengths[0] <= 3
    assert 100 < lengths[-1] <= 120
    assert 15 < lengths[len(lengths) // 2] < 35


def test_review_frames_stay_on_their_side():
    train, test = review_frames("train"), review_frames("test")
    assert len(train) >= 40
    assert len(test) >= 15
    assert len({*train, *test}) == len(train) + len(test)
    assert not {bare(frame) for frame in train} & {bare(frame) for frame in test}, "the same frame but for its slots"


def test_there_are_phrases_enough():
    def leaves(value):
        return [value] if isinstance(value, str) else [leaf for inner in inside(value) for leaf in leaves(inner)]

    def inside(value):
        return value.values() if isinstance(value, dict) else value

    phrases = {name: part for name, part in review_phrases().items() if name not in ("frames", "ambiguous", "typos")}
    assert len(set(leaves(phrases))) >= 250


def test_last_letter_hardly_tells_the_label(sample):
    """Endings and laughter are drawn alike for both labels."""
    train, test = reviews(sample, NSMC_TRAIN), reviews(sample, NSMC_TEST)
    votes: dict[str, Counter[str]] = {}
    for row in train:
        votes.setdefault(row["document"][-1], Counter())[row["label"]] += 1
    guesses = [votes.get(row["document"][-1], Counter("1")).most_common(1)[0][0] for row in test]
    right = sum(guess == row["label"] for guess, row in zip(guesses, test, strict=True))
    assert right / len(test) < 0.62


def test_one_label_for_all_is_right_half_the_time(sample):
    common = Counter(row["label"] for row in reviews(sample, NSMC_TRAIN)).most_common(1)[0][0]
    test = reviews(sample, NSMC_TEST)
    assert 0.45 < sum(row["label"] == common for row in test) / len(test) < 0.55


# --- pairs ---


@pytest.mark.parametrize(("name", "count", "guid"), [(STS_TRAIN, 3000, "train"), (STS_DEV, 600, "dev")])
def test_pairs_are_in_klue_sts_format(sample, name, count, guid):
    rows = pairs(sample, name)
    assert [row["guid"] for row in rows] == [f"sample-sts-v1_{guid}_{place:05d}" for place in range(count)]
    for row in rows:
        assert list(row) == ["guid", "source", "sentence1", "sentence2", "labels"]
        assert row["source"].startswith("sample-")
        labels = row["labels"]
        assert 0 <= labels["real-label"] <= 5
        assert labels["label"] == round(labels["real-label"], 1)
        assert labels["binary-label"] == (labels["real-label"] >= 3)
        assert type(labels["binary-label"]) is int


@pytest.mark.parametrize("name", [STS_TRAIN, STS_DEV])
def test_scores_spread_over_the_whole_range(sample, name):
    scores = [row["labels"]["real-label"] for row in pairs(sample, name)]
    assert (min(scores), max(scores)) == (0, 5)
    bands = Counter(min(4, int(score)) for score in scores)
    assert all(bands[band] > 0.1 * len(scores) for band in range(5))
    assert 0.4 < sum(score >= 3 for score in scores) / len(scores) < 0.6


def test_no_pair_is_there_twice_and_no_sentence_on_both_sides(sample):
    train, dev = pairs(sample, STS_TRAIN), pairs(sample, STS_DEV)
    for rows in (train, dev):
        both = [frozenset((row["sentence1"], row["sentence2"])) for row in rows]
        assert len(set(both)) == len(rows)
        assert all(len(pair) == 2 for pair in both)
    sentences = [{row[key] for row in rows for key in ("sentence1", "sentence2")} for rows in (train, dev)]
    assert not sentences[0] & sentences[1]


def test_pair_wordings_stay_on_their_side():
    train, dev = pair_frames("train"), pair_frames("test")
    assert len({*train, *dev}) == len(train) + len(dev)
    assert not {bare(frame) for frame in train} & {bare(frame) for frame in dev}


# --- the language ---


@pytest.mark.parametrize("name", PINNED)
def test_hangul_is_composed_and_slots_are_filled(sample, name):
    text = (sample / name).read_text(encoding="utf-8")
    assert unicodedata.is_normalized("NFC", text)
    if name.startswith("nsmc"):
        assert not set("{}|") & set(text)
    assert not re.search(r"\{[a-z]+|\{\+", text)


@pytest.mark.parametrize(
    ("noun", "particle", "whole"),
    [
        ("영화", "은", "영화는"),
        ("작품", "은", "작품은"),
        ("OST", "이", "OST가"),
        ("결말", "을", "결말을"),
        ("9호선", "으로", "9호선으로"),
        ("내일", "으로", "내일로"),
        ("부산", "에", "부산에"),
        ("공포", "", "공포"),
    ],
)
def test_particles_follow_the_last_sound(noun, particle, whole):
    assert attach(noun, particle) == whole


def test_rieul_falls_before_nieun():
    hard = Predicate.parse("힘들|힘든|힘들었")
    written = {conjugate(hard, "끝", Dice(seed)) for seed in range(200)}
    assert {"힘드네요", "힘들더라", "힘들었다", "힘들다"} <= written
    assert "힘들네요" not in written
