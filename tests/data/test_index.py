import numpy as np
import pytest

from neural_env.data.index import Index, index_bytes, index_from, joined


def index(policy, seeds=(2, 3)):
    e = len(seeds)
    return Index(
        episodes=np.arange(e),
        seeds=np.array(seeds),
        lengths=np.full(e, 2),
        returns=np.full(e, 0.1),
        terminated=np.ones(e, bool),
        policy_versions=np.zeros(e, np.int64),
        skills=np.full(e, np.nan),
        policies=np.zeros(e, np.int64),
        actions=np.arange(2 * e, dtype=np.int32),
        events=np.arange(2 * e, dtype=np.uint16),
        policy_names=(policy,),
    )


def test_an_index_survives_its_file_bit_for_bit():
    content = index_bytes(index("noop — ünïcode"))
    assert index_bytes(index_from(content)) == content == index_bytes(index("noop — ünïcode"))


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b"\xff" * 40, lambda b: b[:30]])
def test_a_damaged_index_is_refused(damage):
    with pytest.raises(ValueError, match="the index is damaged"):
        index_from(damage(index_bytes(index("a"))))


def test_joined_indices_keep_who_played_what():
    both = joined([index("a"), index("b", (4,)), index("a", (5,))])
    assert [both.policy_names[i] for i in both.policies] == ["a", "a", "b", "a"]
    assert both.seeds.tolist() == [2, 3, 4, 5] and len(both.actions) == 8


def test_no_indices_make_an_empty_one():
    nothing = joined([])
    assert len(nothing.seeds) == len(nothing.events) == 0 and not nothing.of("kill").any()
