"""Looks at a photograph: where they are, and how their scores and maps become one."""

import numpy as np
import pytest
import torch
from PIL import Image

from zsadlib import Inspector
from zsadlib.inspection import views
from zsadlib.models.aligner import to_map


@pytest.mark.parametrize("size", [(480, 480), (900, 300), (331, 1201)])
def test_crops_cover_the_photograph_and_stay_in_it(size):
    boxes = views.boxes(*size, "auto", 120)
    assert len(boxes) == 14 and boxes[0] == (0, 0, *size)
    for level in views.levels(boxes):
        seen = np.zeros(size[::-1], int)
        for left, top, right, bottom in level:
            assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
            seen[top:bottom, left:right] += 1
        assert seen.min() == 1 and (len(level) == 1 or seen.max() > 1)  # they overlap


def test_small_photographs_and_whole_views_have_one_look():
    assert len(views.boxes(179, 500, "auto", 120)) == 1 and len(views.boxes(180, 500, "auto", 120)) == 14
    assert len(views.boxes(4000, 3000, "whole", 120)) == 1 and len(views.boxes(500, 500, "auto", 518)) == 1


def test_one_look_keeps_its_score_and_map():
    patches = torch.rand(1, 225, generator=torch.Generator().manual_seed(0))
    assert views.join_scores(torch.tensor([0.123])) == torch.tensor(0.123)
    assert np.array_equal(views.join_maps(patches, [(0, 0, 50, 40)], 192), to_map(patches, 192)[0].numpy())


def test_joined_scores_are_the_mean_log_odds_of_the_whole_and_the_largest_of_each_level():
    scores = torch.rand(14, generator=torch.Generator().manual_seed(1)).double()
    odds = np.log(scores.numpy() / (1 - scores.numpy()))
    expected = (odds[0] + odds[1:5].max() + odds[5:].max()) / 3 - views.SHIFT
    assert float(views.join_scores(scores)) == pytest.approx(1 / (1 + np.exp(-expected)))
    shuffled = scores[[0, 3, 2, 4, 1, *reversed(range(5, 14))]]
    assert views.join_scores(shuffled) == pytest.approx(
        float(views.join_scores(scores))
    )  # where a crop lies does not matter
    certain = views.join_scores(torch.tensor([0.0] * 14)), views.join_scores(torch.tensor([1.0] * 14))
    assert 0 <= certain[0] < 1e-5 and 1 - 1e-4 < certain[1] <= 1


def test_a_joined_map_is_warm_where_a_crop_is():
    boxes = views.boxes(480, 480, "auto", 120)
    patches = torch.zeros(14, 225)
    patches[5] = 1.0  # the upper left of the 3 x 3 crops
    joined = views.join_maps(patches, boxes, 192)
    left, top, right, bottom = (round(v * 192 / 480) for v in boxes[5])
    assert joined[top : bottom // 2, left : right // 2].min() > 0.05 and joined[bottom + 1 :].max() == 0
    flat = views.join_maps(torch.full((14, 225), 0.4), boxes, 192)
    assert flat.shape == (192, 192) and np.allclose(flat, 0.4, atol=1e-5)


def test_a_small_defect_on_a_large_photograph_is_found_by_more_looks():
    rng = np.random.default_rng(0)
    ground = np.clip(rng.normal(128, 4, (600, 600, 3)), 0, 255).astype(np.uint8)
    spoiled = ground.copy()
    spoiled[400:416, 150:166] = (20, 15, 10)  # a thousandth of the picture
    pictures = [Image.fromarray(ground), Image.fromarray(spoiled)]
    one, many = (Inspector("steel sheet", bank="static", views=v)(pictures) for v in ("whole", "auto"))
    assert len(many.maps) == 2 and many.maps[1].shape == (192, 192)
    gap = [float(np.diff(np.log(r.table.image_score / (1 - r.table.image_score)))[0]) for r in (one, many)]
    assert gap[1] > gap[0] and gap[1] > 0.5
    row, column = np.unravel_index(many.maps[1].argmax(), (192, 192))
    assert abs(row - 408 * 192 / 600) < 16 and abs(column - 158 * 192 / 600) < 16
