import itertools
import pathlib
import types

import numpy as np
import pytest

from ssldiff_jax.data import crops, plan
from ssldiff_jax.slides import tissue

SQUARE = np.arange(9).reshape(3, 3)
CASES = plan.HoldoutConfig("case", 0.25, r"TCGA-\w{2}-\w{4}")


def table(*, records=7, num_crops=64, seed=0, dihedral=True):
    config = crops.CropConfig(
        patch_px=16, num_crops=num_crops, context_px=4, dihedral=dihedral, condition_on="patch"
    )
    return crops.CropTable(records, 40, config, seed)


def fake_slide(name, shape=(1000, 500)):
    return types.SimpleNamespace(path=pathlib.Path(name), shape_at=lambda mpp: shape)


def all_tissue(height, width):
    return tissue.TissueMask(np.ones((height, width), bool), 1.0)


def test_there_are_eight_distinct_orientations():
    seen = {crops.orient(SQUARE, i).tobytes() for i in range(8)}
    assert len(seen) == 8
    np.testing.assert_array_equal(crops.orient(SQUARE, 0), SQUARE)


def test_orientations_form_a_group_with_inverses():
    def number_of(image):
        return next(i for i in range(8) if np.array_equal(crops.orient(SQUARE, i), image))

    product = np.zeros((8, 8), int)
    for a, b in itertools.product(range(8), repeat=2):
        product[a, b] = number_of(crops.orient(crops.orient(SQUARE, a), b))
    for row in (*product, *product.T):
        assert sorted(row) == list(range(8))
    assert (product != product.T).any()  # the dihedral group of the square does not commute


def test_orientations_are_quarter_turns_and_then_mirrored():
    image = np.random.default_rng(1).integers(0, 256, (5, 5, 3), np.uint8)
    for i in range(8):
        turned = np.rot90(image, i % 4)
        np.testing.assert_array_equal(crops.orient(image, i), turned[:, ::-1] if i > 3 else turned)


def test_an_orientation_is_written_where_it_is_asked_for():
    batch = np.zeros((8, *SQUARE.shape), SQUARE.dtype)
    for i in range(8):
        assert crops.orient(SQUARE, i, batch[i]) is not SQUARE
        np.testing.assert_array_equal(batch[i], crops.orient(SQUARE, i))
        assert np.count_nonzero(batch[i + 1 :]) == 0


def test_orientation_keeps_channels_apart():
    image = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    for i in range(8):
        turned = crops.orient(image, i)
        assert turned.flags["C_CONTIGUOUS"]
        for channel in range(3):
            np.testing.assert_array_equal(
                turned[..., channel], crops.orient(image[..., channel], i)
            )


def test_few_crops_are_spread_over_all_records_and_one_each_keeps_their_order():
    drawn = {table(records=500, num_crops=64)[i].record for i in range(64)}
    assert len(drawn) == 64
    assert max(drawn) > 400
    whole = table(records=50, num_crops=0)
    assert [whole[i].record for i in range(len(whole))] == list(range(50))


def test_crop_is_a_function_of_its_index_alone():
    forwards = [table()[i] for i in range(64)]
    backwards = [table()[i] for i in reversed(range(64))][::-1]
    assert forwards == backwards
    assert [table(num_crops=1000)[i] for i in range(64)] == forwards
    assert [table(seed=1)[i] for i in range(64)] != forwards


def test_crops_lie_inside_their_record_and_cover_records_and_orientations():
    found = [table(num_crops=500)[i] for i in range(500)]
    epochs = np.array([crop.record for crop in found[:497]]).reshape(71, 7)
    assert (np.sort(epochs) == np.arange(7)).all()
    assert {crop.orientation for crop in found} == set(range(8))
    for places in ([crop.top for crop in found], [crop.left for crop in found]):
        assert (min(places), max(places)) == (0, 40 - 24)
    record = np.zeros((40, 40, 3), np.uint8)
    assert all(crop.cut(record, 24).shape == (24, 24, 3) for crop in found)


def test_without_dihedral_no_crop_is_turned():
    assert {table(dihedral=False)[i].orientation for i in range(64)} == {0}


def test_no_number_of_crops_means_one_for_each_record():
    assert len(table(num_crops=0)) == 7
    assert len(table(num_crops=12)) == 12


def test_record_smaller_than_a_crop_is_refused():
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"record_px=23, crop=24"):
        crops.sample_crop(generator, 0, 23, 24, True)
    assert crops.sample_crop(generator, 0, 24, 24, True).top == 0


def test_case_split_is_stable_and_never_splits_a_case():
    def split(cases, slides_per_case):
        found = {}
        for case, number in itertools.product(cases, range(slides_per_case)):
            slide = fake_slide(f"TCGA-A1-{case:04d}-01Z-{number}.svs")
            (part,) = plan.parts(slide, CASES, 0.5)
            found.setdefault(case, set()).add(part)
        return found

    few, many = split(range(400), 1), split(range(500), 3)
    assert all(len(parts) == 1 for parts in many.values())
    assert all(many[case] == parts for case, parts in few.items())
    held_out = np.mean([parts == {"test"} for parts in many.values()])
    # Five standard deviations of a binomial of 500.
    assert abs(held_out - 0.25) < 5 * (0.25 * 0.75 / 500) ** 0.5


def test_growing_the_fraction_only_adds_held_out_cases():
    names = [f"case-{i}" for i in range(200)]
    few, many = ({n for n in names if plan.is_held_out(n, f)} for f in (0.1, 0.4))
    assert few < many


def test_slide_without_a_case_in_its_name_is_its_own_case():
    assert plan.case_of("/a/TCGA-A1-A0SB-01Z.svs", CASES.case_regex) == "TCGA-A1-A0SB"
    assert plan.case_of("a/my slide.svs", CASES.case_regex) == "my slide"
    assert plan.case_of("TCGA-A1-A0SB/tile_7.jpg", CASES.case_regex) == "TCGA-A1-A0SB"


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0])
def test_fraction_outside_the_unit_interval_is_refused(fraction):
    with pytest.raises(ValueError, match=f"fraction={fraction}"):
        plan.HoldoutConfig("area", fraction, "")


@pytest.mark.parametrize("size", [997, 1000, 1013])
@pytest.mark.parametrize("by", ["area", "columns"])
def test_no_train_square_reaches_the_held_out_part(size, by):
    shape = (size, 530) if by == "area" else (530, size)
    parts = plan.parts(fake_slide("a.svs", shape), plan.HoldoutConfig(by, 0.3, ""), 0.5)
    along = "rows" if by == "area" else "cols"
    train, test = (getattr(parts[name], along) for name in ("train", "test"))
    assert (train[0], test[1]) == (0, size)
    assert train[1] == test[0] == pytest.approx(0.7 * size, abs=1)
    config = plan.RecordConfig(
        record_px=64, stride_px=48, min_tissue=0.5, jpeg_quality=95, scales=()
    )
    inside = {}
    for name, part in parts.items():
        squares = plan.squares(0, part, all_tissue(*shape), config, 1.0)
        covered = np.zeros(shape, int)
        for s in squares:
            covered[s.top : s.top + s.height, s.left : s.left + s.width] += 1
        own = np.zeros(shape, bool)
        own[slice(*part.rows), slice(*part.cols)] = True
        # To the very border, and not beyond.
        np.testing.assert_array_equal(covered > 0, own)
        assert len(set(squares)) == len(squares)
        inside[name] = own
    assert not (inside["train"] & inside["test"]).any()
    assert (inside["train"] | inside["test"]).all()


@pytest.mark.parametrize("scale", [2.0, 3.0, 1.7])
def test_a_coarser_part_holds_no_pixel_of_another(scale):
    part = plan.Part((0, 701), (701, 1013)).scaled(scale)
    for (first, last), (a, b) in ((part.rows, (0, 701)), (part.cols, (701, 1013))):
        assert a <= first * scale
        assert last * scale <= b
        # As much as there is room for.
        assert (first - 1) * scale < a
        assert (last + 1) * scale > b


def test_squares_need_tissue_and_room():
    mask = np.zeros((128, 128), bool)
    mask[:, :64] = True
    config = plan.RecordConfig(64, 32, min_tissue=0.5, jpeg_quality=95, scales=())
    found = plan.squares(
        3, plan.Part((0, 128), (0, 128)), tissue.TissueMask(mask, 1.0), config, 1.0
    )
    assert {s.left for s in found} == {0, 32}  # at 64 there is none, at 32 exactly half
    assert {s.slide for s in found} == {3}
    assert plan.squares(0, plan.Part((0, 63), (0, 128)), all_tissue(128, 128), config, 1.0) == []
