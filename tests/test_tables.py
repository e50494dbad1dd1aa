"""Records of episodes as ``datasets.Dataset``."""

import datasets
import pytest
from hypothesis import given, settings
from test_files import any_pairs, assert_same
from test_trainers import build_pair

from textgym.export import save_episodes
from textgym.export.files import FIELDS
from textgym.export.tables import COLUMNS, from_dataset, to_dataset


@settings(max_examples=25)
@given(any_pairs())
def test_a_dataset_gives_back_what_went_in(pairs):
    for before, after in zip(pairs, from_dataset(to_dataset(pairs)), strict=True):
        assert_same(before, after)


def test_a_dataset_has_a_typed_column_per_field_and_can_be_filtered():
    pairs = [build_pair([1.0, 0.1], criteria={"form": 2.5}), build_pair([-1.0])]
    dataset = to_dataset(pairs)
    assert tuple(dataset.column_names) == FIELDS
    assert dataset.features["token_rewards"].feature == datasets.Value("float32")
    assert dataset[0]["criteria"] == [{"name": "form", "value": 2.5}]
    kept = dataset.filter(lambda row: sum(row["token_rewards"]) > 0)
    assert len(kept) == 1
    assert_same(pairs[0], from_dataset(kept.with_format("numpy"))[0])


def test_a_saved_file_is_the_same_dataset(tmp_path):
    pairs = [build_pair([1.0, 0.1], group_id=1)]
    save_episodes(tmp_path / "e.parquet", pairs)
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "e.parquet"), cache_dir=str(tmp_path))
    assert loaded.features == to_dataset(pairs).features
    assert_same(pairs[0], from_dataset(loaded)[0])
    assert COLUMNS.names == loaded.column_names


def test_another_dataset_is_refused():
    with pytest.raises(ValueError, match="row 0 is no episode"):
        from_dataset(datasets.Dataset.from_list([{"prompt": "a"}]))
