"""Copies are near, other photographs and captions are not, and the lookup finds what comparing all pairs finds."""

import numpy as np
import pytest
from clipita_train.data.near_duplicates.groups import leaders
from clipita_train.data.near_duplicates.min_hash import BANDS, caption_signatures, near_signatures
from clipita_train.data.near_duplicates.perceptual_hash import NEAR_BITS, near_any, near_hashes, perceptual_hash
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.reference import skimage

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins", "hubble_deep_field", "immunohistochemistry")


def test_photographs_of_different_things_are_far_apart() -> None:
    hashes = np.array([perceptual_hash(getattr(skimage.data, name)()) for name in NAMES], np.uint64)
    distances = np.bitwise_count(hashes[:, None] ^ hashes)[~np.eye(len(NAMES), dtype=bool)]
    assert distances.min() > 3 * NEAR_BITS
    assert not near_any(hashes[:4], hashes[4:]).any()


def test_half_of_the_frequencies_lie_above_the_median_and_none_in_an_even_image() -> None:
    assert perceptual_hash(skimage.data.chelsea()).bit_count() == 31
    even = [perceptual_hash(Image.new("RGB", (300, 200), colour)) for colour in ("white", "teal", "black")]
    assert even == [0, 0, 0]


def test_what_is_transparent_is_laid_on_white() -> None:
    picture = Image.fromarray(skimage.data.coffee())
    ghost = picture.copy()
    ghost.putalpha(0)
    assert perceptual_hash(ghost) == perceptual_hash(Image.new("RGB", picture.size, "white"))


@pytest.mark.parametrize("bits", [0, 1, 4, 6])
@pytest.mark.parametrize("count", [0, 1, 2, 400])
def test_the_lookup_of_hashes_misses_no_pair(bits: int, count: int) -> None:
    rng = np.random.default_rng(bits)
    centres = rng.integers(0, 1 << 63, 40, np.uint64)
    flips = np.array(
        [sum(1 << int(b) for b in rng.choice(64, rng.integers(0, 9), replace=False)) for _ in range(count)]
    )
    hashes = np.unique(centres[rng.integers(0, 40, count)] ^ flips.astype(np.uint64))
    rng.shuffle(hashes)
    left, right = np.triu_indices(len(hashes), 1)
    near = np.bitwise_count(hashes[left] ^ hashes[right]) <= bits
    assert near_hashes(hashes, bits=bits).tolist() == np.stack([left, right], axis=1)[near].tolist()


def test_near_a_reference_is_at_most_so_many_bits_from_it() -> None:
    hashes = np.array([(1 << bits) - 1 for bits in range(9)], np.uint64)
    references = np.array([0, 0, 1 << 63], np.uint64)
    assert near_any(hashes, references).tolist() == [bits <= NEAR_BITS for bits in range(9)]
    assert not near_any(hashes, np.array([], np.uint64)).any()


CAPTION = "Due cani corrono sulla spiaggia con una palla rossa in bocca"


@pytest.mark.parametrize(
    ("other", "near"),
    [
        ("due cani corrono sulla spiaggia, con una palla rossa in bocca!", True),
        ("Due cani corrono sulla spiaggia con una palla rossa in bocca oggi", True),
        ("Due gatti corrono sul prato con una palla rossa", False),
        ("bocca in rossa palla una con spiaggia sulla corrono cani due", False),
        ("Un treno fermo alla stazione", False),
    ],
)
def test_captions_that_differ_in_little_have_near_signatures(other: str, near: bool) -> None:
    first, second = caption_signatures([CAPTION, other])
    assert ((first == second).mean() >= 0.8) == near


@pytest.mark.slow
def test_a_signature_estimates_the_jaccard_index() -> None:
    words = [f"parola{number}" for number in range(400)]
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(200):
        shared, left, right = np.split(rng.permutation(words), np.sort(rng.integers(1, 60, 2)).tolist())
        a, b = ({*map(str, shared), *map(str, own[:10])} for own in (left, right))
        # One word a caption would leave out the pairs of words, so that the index is of words alone.
        signatures = [np.min([caption_signatures([word])[0] for word in sorted(words)], axis=0) for words in (a, b)]
        errors.append((signatures[0] == signatures[1]).mean() - len(a & b) / len(a | b))
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.065  # sqrt(0.25 / 64) = 0.0625 at the most


def test_signatures_do_not_depend_on_what_else_is_in_the_batch() -> None:
    captions = [CAPTION, "", "...", "Un gatto", CAPTION]
    together = caption_signatures(captions)
    assert together.dtype == np.uint32
    assert together.tolist() == [caption_signatures([caption])[0].tolist() for caption in captions]
    assert together[1].tolist() == together[2].tolist()
    assert caption_signatures([]).shape == (0, together.shape[1])


def test_the_lookup_of_signatures_finds_what_shares_a_band() -> None:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 1 << 32, (60, 64), np.uint32)
    signatures = np.concatenate([base, np.where(rng.random((60, 64)) < 0.1, np.uint32(7), base)])
    agree = (signatures[:, None] == signatures).mean(-1) >= 0.8
    band = (signatures.reshape(120, 1, BANDS, -1) == signatures.reshape(1, 120, BANDS, -1)).all(-1).any(-1)
    expected = np.argwhere(np.triu(agree & band, 1))
    assert len(expected) > 50
    assert near_signatures(signatures).tolist() == expected.tolist()
    assert near_signatures(signatures[:0]).shape == (0, 2)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=60))
def test_everything_is_near_its_leader_and_leaders_are_not_near_one_another(drawn: list[tuple[int, int]]) -> None:
    pairs = {(min(pair), max(pair)) for pair in drawn if pair[0] != pair[1]}
    leader = leaders(20, np.array(sorted(pairs), np.int64).reshape(-1, 2))
    assert all(leader[j] == j or (leader[j], j) in pairs for j in range(20))
    assert all(leader[leader[j]] == leader[j] for j in range(20))
    assert not any(leader[i] == i and leader[j] == j for i, j in pairs)
