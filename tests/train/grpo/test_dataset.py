"""The order in which clips come, and what a table of them refuses."""

from functools import partial

import pytest

from tests.support import samples
from vqa.errors import UsageError
from vqa.train.grpo.dataset import Example, OneSetSampler, as_dataset
from vqa.types import Views


def example(place: int, *, dataset: str = "a", opinion: float | None = None) -> Example:
    opinion = 1.5 + 0.25 * place if opinion is None else opinion
    return Example(
        clip_id=f"clip{place}",
        dataset=dataset,
        opinion=opinion,
        load=partial(samples.random_views, f"clip{place}", seed=place),
    )


def test_a_batch_holds_one_data_set_and_each_clip_k_times() -> None:
    names = ["a"] * 7 + ["b"] * 5
    sampler = OneSetSampler(names, clips=3, k=4, repeats=2, seed=0)
    order = list(sampler)
    assert len(order) == len(sampler) == 3 * 3 * 4 * 2
    batches = [order[i : i + 12] for i in range(0, len(order), 12)]
    for batch in batches:
        assert len({names[place] for place in batch}) == 1
        assert [batch[i : i + 4].count(batch[i]) for i in range(0, 12, 4)] == [4, 4, 4]
    assert batches[0::2] == batches[1::2]  # the same answers serve twice
    assert {names[batch[0]] for batch in batches} == {"a", "b"}


def test_epochs_differ_and_repeat_by_seed() -> None:
    def epochs(seed: int) -> list[list[int]]:
        sampler = OneSetSampler(["a"] * 9, clips=3, k=1, repeats=1, seed=seed)
        return [list(sampler), list(sampler)]

    first, second = epochs(0)
    assert first != second and sorted(first) == sorted(second) == list(range(9))
    assert epochs(0) == [first, second] != epochs(1)
    resumed = OneSetSampler(["a"] * 9, clips=3, k=1, repeats=1, seed=0)
    resumed.set_epoch(1)
    assert list(resumed) == second


def test_setting_up_loads_nothing() -> None:
    def must_not(_: str) -> Views:
        raise RuntimeError("loaded")

    some = [
        Example(clip_id=name, dataset="a", opinion=opinion, load=partial(must_not, name))
        for name, opinion in (("x", 2.0), ("y", 3.0))
    ]
    rows = as_dataset(some)[:]
    assert rows["place"] == [0, 1] and rows["clip_id"] == ["x", "y"] and rows["opinion"] == [2.0, 3.0]


def test_what_cannot_teach_is_refused() -> None:
    with pytest.raises(UsageError, match="'a' has 2 clips, a batch 3"):
        OneSetSampler(["a", "a"], clips=3, k=2, repeats=1, seed=0)
    with pytest.raises(UsageError, match=r"clip clip0: the opinion 91\.2 is not on 1-5"):
        as_dataset([example(0, opinion=91.2)])
    with pytest.raises(UsageError, match="'b': all opinions are 3"):
        same = [example(1, dataset="b", opinion=3.0), example(2, dataset="b", opinion=3.0)]
        as_dataset([example(0), example(3), *same])
