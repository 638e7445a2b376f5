"""The images that a discriminator remembers."""

import random as python_random

import numpy as np
import torch
from test_nerco_training import golden, needs_golden

from fastllie.training.losses.pool import Pool


@needs_golden
def test_the_pool_gives_the_published_sequence():
    pool, shown, random = Pool(5), [], python_random.Random(7)
    for query in range(60):
        image = torch.full((1, 3, 1, 1), float(query))
        old = random.random() > 0.5 if len(pool.images) == 5 else False
        places = [random.randint(0, 4) if old else None]
        shown.append(int(pool.shown(image, places)[0, 0]))
        pool.keep(image, places)
    assert shown == golden("nerco_losses.npz")["out_image_pool_sequence"].tolist()


def test_a_pool_fills_and_then_shows_old_images_half_of_the_time():
    pool, random = Pool(4), np.random.default_rng(0)
    old = 0
    for step in range(300):
        images = torch.full((2, 1, 1, 1), float(step)) + torch.tensor([0.0, 0.5]).view(2, 1, 1, 1)
        places = pool.draws(random, 2)
        shown = pool.shown(images, places)
        if step < 2:
            assert shown is images
        known = [float(image) for image in pool.images]
        for image, new, place in zip(shown.flatten(), images.flatten(), places, strict=True):
            assert float(image) == float(new) if place is None else float(image) == known[place]
        old += sum(place is not None for place in places)
        pool.keep(images, places)
        assert len(pool.images) == min(4, 2 * step + 2)
        replaced = [place for place in places if place is not None]
        assert all(float(pool.images[place]) >= step for place in replaced)
    assert 0.42 < old / 600 < 0.58
    # more images than there is room for
    pool = Pool(3)
    places = pool.draws(random, 5)
    assert places == [None] * 5
    pool.keep(torch.arange(5.0).view(5, 1, 1, 1), places)
    assert [float(image) for image in pool.images] == [0, 1, 2]
    empty = Pool(0)
    assert empty.draws(random, 3) == [None] * 3
    empty.keep(torch.zeros(3, 1, 1, 1), [None] * 3)
    assert empty.images == []
