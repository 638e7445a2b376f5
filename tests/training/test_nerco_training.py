"""Training NeRCo: the published step, its pools, schedule and text loss; runs from photographs to weights."""

import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import picture, refused
from safetensors import safe_open
from safetensors.torch import load_file
from test_clip import clip_shapes
from test_parallel import free_port

import fastllie
from fastllie import cli
from fastllie.models.nerco import edge_map, edges, networks
from fastllie.training import losses, recipes
from fastllie.training.data import Batch
from fastllie.training.losses import clip, clip_towers
from fastllie.training.losses.adversarial import verdict
from fastllie.training.losses.clip import ClipReader, encode_text, text_loss
from fastllie.training.nerco import JUDGES, POOLS, NeRCoTask
from fastllie.training.parallel import join
from fastllie.training.recipes import NERCO_LOGITS, NERCO_PUBLISHED, NeRCoLossWeights, Synthesis
from fastllie.training.trainer import Hooks, Pace, fit

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "nerco"
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="../shared/golden/nerco is not beside the checkout"
)
NARROW = {
    "width": 2,
    "blocks": 1,
    "pre_blocks": 1,
    "mask_blocks": 1,
    "discriminator_width": 2,
    "discriminator_layers": 1,
    "size": 24,
    "squeeze": 32,
}
TINY = replace(NERCO_PUBLISHED, **NARROW, batch=2, steps=4, epochs=None, pool=2, precision="float32")


def golden(name):
    with np.load(GOLDEN / name) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def tolerances(name):
    cases = json.loads((GOLDEN / "manifest.json").read_text())["cases"]
    outputs = next(case["outputs"] for case in cases if case["file"] == name)
    return {key.removeprefix("out_"): value["tolerance"] for key, value in outputs.items()}


def agrees(got, name, arrays, allowed, times=1):
    wanted = arrays[f"out_{name}"].double()
    got = torch.as_tensor(got).detach().double().reshape(wanted.shape)
    limit = allowed[name]
    torch.testing.assert_close(
        got, wanted, atol=times * limit["atol"], rtol=limit["rtol"], msg=lambda told: f"{name}: {told}"
    )


@pytest.fixture(scope="module")
def drawn():
    """The script that draws the golden data's parameters."""
    spec = importlib.util.spec_from_file_location("nerco_det_init", GOLDEN / "nerco_det_init.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden_clip(drawn):
    return {
        key: torch.from_numpy(np.array(drawn.value("CLIP", key, tuple(shape), norm)))
        for key, (shape, norm) in clip_shapes().items()
    }


# --- the published losses


@needs_golden
def test_the_losses_are_the_published_ones():
    arrays, allowed = golden("nerco_losses.npz"), tolerances("nerco_losses.npz")
    for gan in recipes.GAN_MODES:
        for real, word in ((True, "real"), (False, "fake")):
            seen = arrays["in_pred"].clone().requires_grad_()
            loss = verdict(seen, real, gan)
            agrees(loss, f"{gan}_{word}", arrays, allowed)
            agrees(torch.autograd.grad(loss, seen)[0], f"{gan}_{word}_grad", arrays, allowed)
    image, text = (F.normalize(arrays[f"in_{name}_features"], dim=1) for name in ("image", "text"))
    logits = 100 * image @ text.t()
    agrees(logits, "logits", arrays, allowed)
    for bright, word in ((True, "high"), (False, "low")):
        agrees(text_loss(logits, bright=bright), f"text_loss_{word}", arrays, allowed)


@needs_golden
def test_the_rate_is_the_published_one():
    wanted = golden("nerco_losses.npz")["out_lr_per_epoch"].tolist()
    made = NeRCoTask(replace(TINY, epochs=300, steps=None, pool=0), 300 * 3, 3)
    for epoch, rate in enumerate(wanted):
        for place in (0, 2):
            made.steps_done = epoch * 3 + place
            assert made.learning_rate() == pytest.approx(rate, abs=1e-12)


@needs_golden
def test_tiny_clip_reads_as_the_published_one(golden_clip):
    arrays, allowed = golden("nerco_clip_tiny.npz"), tolerances("nerco_clip_tiny.npz")
    tower = clip_towers.tower_of(golden_clip, "the tiny CLIP")
    features = encode_text(golden_clip, clip._tokens(clip.PROMPTS))
    agrees(features, "text_features", arrays, allowed)
    reader = ClipReader(tower, features, 10.0, "official")
    images = torch.stack([arrays[f"in_u8_{side}"] for side in ("low", "normal")])
    images = (images.permute(0, 3, 1, 2).float() / 255 * 2 - 1).requires_grad_()
    agrees(reader.prepared(images)[..., :8, :8], "resized_patch_0_8", arrays, allowed)
    agrees(tower(reader.prepared(images)), "image_features", arrays, allowed)
    logits = reader(images)
    agrees(logits, "logits", arrays, allowed)
    loss = text_loss(logits, bright=True)
    agrees(loss, "loss_high", arrays, allowed)
    agrees(text_loss(logits, bright=False), "loss_low", arrays, allowed)
    agrees(torch.autograd.grad(loss, images)[0], "grad_loss_high_x", arrays, allowed)


@needs_golden
def test_a_whole_step_is_the_published_one(drawn, golden_clip, monkeypatch):
    arrays, allowed = golden("nerco_train_step.npz"), tolerances("nerco_train_step.npz")
    reader = ClipReader(
        clip_towers.tower_of(golden_clip, "the tiny CLIP"),
        encode_text(golden_clip, clip._tokens(clip.PROMPTS)),
        10.0,
        "official",
    )
    # the golden parameters follow: drawing others takes longer than the step
    monkeypatch.setattr(networks, "initialise", lambda network: None)
    recipe = replace(NERCO_PUBLISHED, precision="float32", text_loss="official")
    made = NeRCoTask(recipe, 300, 1, reader=reader)
    colour = tuple(
        torch.from_numpy(drawn.value("GradLayer", f"gray2RGB.{part}", (3,))) for part in ("weight", "bias")
    )
    monkeypatch.setattr(made, "edges", lambda image, kind: edge_map(image.detach(), colour=colour))
    nets = {"Pre": made.network.Pre, "H": made.network.H, "G_A": made.network.G_A, "G_B": made.darkener}
    nets |= dict(zip(("D_A", "D_B", "D_A_edge", "D_B_edge"), made.judges.values(), strict=True))
    for name, network in nets.items():
        drawn.fill(network, name)
    dark, normal = (
        (arrays[f"in_{side}_u8"].float() / 255).permute(2, 0, 1)[None].clone() for side in ("A", "B")
    )
    found = made.backward([Batch(dark, dark, normal)])
    # as the published code keeps them, some without their weights
    for name, ours, weight in (
        ("loss_G_A", "adversarial_normal", 1),
        ("loss_G_B", "adversarial_dark", 1),
        ("loss_G_A_edge", "edge_normal", 0.5),
        ("loss_G_B_edge", "edge_dark", 0.5),
        ("loss_cycle_A", "cycle_dark", 1),
        ("loss_cycle_B", "cycle_normal", 1),
        ("loss_idt_A", "identity_normal", 1),
        ("loss_idt_B", "identity_dark", 1),
        ("loss_PreConsis", "representation", 1),
        ("loss_H", "residual", 0.5),
        ("loss_D_A_CLIP", "text_normal", 0.5),
        ("loss_D_B_CLIP", "text_dark", 0.5),
        ("loss_G_total", "total", 1),
        ("loss_D_A", "normal_discriminator", 1),
        ("loss_D_B", "dark_discriminator", 1),
        ("loss_D_A_edge", "normal_edge_discriminator", 1),
        ("loss_D_B_edge", "dark_edge_discriminator", 1),
    ):
        agrees(found[ours] / weight, name, arrays, allowed)
    for name, network in nets.items():
        norms = [p.grad.double().norm() for p in network.parameters() if p.grad is not None]
        agrees(torch.stack(norms).norm(), f"gradnorm_{name}", arrays, allowed)
    for name in (name for name in allowed if name.startswith("grad_")):
        part, _, key = name.removeprefix("grad_").partition(".")
        # of this one a float32 has few bits: it counts the signs of differences that are nearly zero
        times = 20 if name == "grad_H.output.bias" else 1
        agrees(dict(nets[part].named_parameters())[key].grad, name, arrays, allowed, times)


# --- the task


def batch(seed=0, count=2, size=24):
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, size, size, generator=random) * 0.3
    return Batch(x, x, torch.rand(count, 3, size, size, generator=random))


def task(recipe=TINY, seed=0, **more):
    torch.manual_seed(seed)
    made = NeRCoTask(recipe, recipe.steps or 4, 2, **more)
    # far enough from the published start for every network to do something
    for network in made.networks():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                torch.nn.init.kaiming_normal_(parameter, a=0.2)
    return made


def same(mine, other, **limits):
    for a, b in zip(mine.networks(), other.networks(), strict=True):
        for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
            if limits:
                torch.testing.assert_close(x, y, msg=lambda told, name=name: f"{name}: {told}", **limits)
            else:
                assert torch.equal(x, y), name


def plain_step(made, given, gan="lsgan"):
    """The losses of the published order, all graphs kept; returns the generators' and the discriminators'."""
    net, darken, judges = made.network, made.darkener, made.judges
    a, b = 2 * given.x - 1, 2 * given.normal - 1
    l1 = F.l1_loss

    def real(judge, image):
        return verdict(judges[judge](image), True, gan)

    def wrong(judge, true, fake):
        return (real(judge, true) + verdict(judges[judge](fake.detach()), False, gan)) / 2

    def enhance(*images):
        return net.G_A(torch.cat(images, 1))

    pre = net.Pre(a)
    h, mask = net.H(a)
    fake_b = net.G_A(torch.cat([a, pre], 1) * mask)
    fake_a = darken(b * mask)
    total = 10 * l1(darken(fake_b), a) + 10 * l1(enhance(fake_a, net.Pre(fake_a)), b)
    total = total + 5 * l1(enhance(b, b), b) + 5 * l1(darken(a), a)
    total = total + real("normal", fake_b) + real("dark", fake_a) + 2 * real("dark", pre) + 40 * l1(pre, a)
    total = total + (real("normal_edge", fake_b) + real("dark_edge", fake_a)) / 2
    residual = l1(fake_b, a + h) + l1(b, enhance(b - h, b - h)) + real("normal", a + h) + real("dark", b - h)
    total = total + (residual + l1(h, fake_b - a) + l1(fake_a, b - net.H(fake_a)[0])) / 2
    theirs = wrong("normal", b, fake_b) + wrong("dark", a, fake_a) + wrong("dark", a, pre)
    theirs = theirs + wrong("normal_edge", edge_map(b), edge_map(fake_b.detach()))
    return total, theirs + wrong("dark_edge", edge_map(a), edge_map(fake_a.detach()))


@pytest.mark.parametrize("gan", recipes.GAN_MODES)
def test_a_step_is_what_plain_updates_give(gan):
    recipe = replace(TINY, gan=gan, learning_rate=1e-3, pool=0)
    ours, plain = task(recipe), task(recipe)
    for made in (ours, plain):
        for network in made.networks():
            network.double()
    given = Batch(*(part.double() for part in batch()[:3]))
    total, theirs = plain_step(plain, given, gan)
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.999)) for net in plain.networks()]
    for net, loss in zip(plain.networks(), (total, theirs), strict=True):
        parameters = list(net.parameters())
        for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = grad
    found = ours.backward([given])
    torch.testing.assert_close(found["total"], total.detach())
    torch.testing.assert_close(sum(found[f"{name}_discriminator"] for name in JUDGES), theirs.detach())
    for mine, other in zip(ours.networks(), plain.networks(), strict=True):
        for (name, a), b in zip(mine.named_parameters(), other.parameters(), strict=True):
            # biases before a norm: rounding alone
            torch.testing.assert_close(
                a.grad, b.grad, atol=1e-9, rtol=1e-7, msg=lambda told, name=name: f"{name}: {told}"
            )
    for optimizer in (*optimizers, *ours.optimizers()):
        optimizer.step()
    moved = [float(p.detach().abs().sum()) for p in ours.network.parameters()]
    wanted = [float(p.detach().abs().sum()) for p in plain.network.parameters()]
    assert moved == pytest.approx(wanted, rel=1e-6, abs=1e-8)


def test_a_batch_weighs_its_images_and_comes_in_parts():
    whole, parts = task(), task()
    for step in range(3):
        given = batch(step)
        halves = [Batch(*(part[index : index + 1] for part in given[:3])) for index in (0, 1)]
        one, two = whole.step([given]), parts.step(halves)
        # from the second step on the pools, of two images each, show older ones
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-3, msg=name)
    assert {len(pool.images) for pool in parts.pools.values()} == {2}
    for name, pool in whole.pools.items():
        for mine, other in zip(pool.images, parts.pools[name].images, strict=True):
            torch.testing.assert_close(mine, other, atol=5e-3, rtol=0)


def test_losses_with_a_weight_of_zero_are_left_out_with_their_discriminators():
    few = NeRCoLossWeights(adversarial=0, adversarial_representation=0, edge=0)
    alone = replace(TINY, losses=few)
    made = task(alone)
    before = {name: value.clone() for name, value in made.judges.state_dict().items()}
    assert set(made.step([batch()])) == {
        *(f"{name}_{side}" for name in ("cycle", "identity") for side in ("normal", "dark")),
        *("representation", "residual", "total", "gradient"),
    }
    assert all(torch.equal(value, before[name]) for name, value in made.judges.state_dict().items())
    made = task(replace(TINY, losses=NeRCoLossWeights(cycle=0, identity=0, representation=0, residual=0)))
    found = made.step([batch()])
    assert set(found) == {"total", "gradient", *made.loss_names()}
    assert "cycle_dark" not in found
    with refused(ValueError, "all losses of nerco have weight zero"):
        # a text loss weighs nothing where none is asked for
        task(replace(TINY, losses=NeRCoLossWeights(0, 0, 0, 0, 0, 0, 0, 1)))


def test_our_losses_are_added_by_their_weights():
    dark = batch()
    plain, ours = (
        task(replace(TINY, losses=NeRCoLossWeights(**more)))
        for more in (
            {},
            {"chroma": 60.0, "contrast": 10.0, "overshoot": 20.0, "dimness": 10.0, "gain_smoothness": 5.0},
        )
    )
    with torch.no_grad():
        enhanced = (ours.scene(2 * dark.x - 1, 2 * dark.normal - 1)[0].enhanced + 1) / 2
        wanted = {
            "chroma": 60 * losses.chroma_consistency(enhanced, dark.x),
            "contrast": 10 * losses.contrast_consistency(enhanced, dark.x),
            "overshoot": 20 * losses.overshoot(enhanced, dark.x),
            "dimness": 10 * losses.dimness(enhanced),
            "gain_smoothness": 5 * losses.gain_smoothness(enhanced, dark.x),
        }
        found, before = ours.losses_of(dark), plain.losses_of(dark)
    assert set(found) - set(before) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
    for name, value in before.items():
        torch.testing.assert_close(found[name], value)
    # and they reach the generator
    first, second = plain.step([dark]), ours.step([dark])
    torch.testing.assert_close(second["total"], first["total"] + sum(wanted.values()))
    assert float(second["gradient"]) != float(first["gradient"])


def test_in_logits_both_generators_start_from_their_image():
    given = batch()
    dark, normal = 2 * given.x - 1, 2 * given.normal - 1
    made = task(replace(TINY, in_logits=True, precision="float32"))
    for generator in (made.network.G_A, made.darkener):
        for parameter in generator.model[generator.last].parameters():
            torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        scene = made.scene(dark, normal)[0]
        found = made.losses_of(given)
    nearly = 1 - 1 / 255
    torch.testing.assert_close(scene.enhanced, dark.clamp(-nearly, nearly), atol=1e-5, rtol=0)
    torch.testing.assert_close(scene.darkened, normal.clamp(-nearly, nearly), atol=1e-5, rtol=0)
    for name in ("identity_dark", "identity_normal", "cycle_dark", "cycle_normal"):
        assert float(found[name]) < 10 / 255
    assert made.metadata()["in_logits"] == "True"
    made.step([given])
    assert all(bool(torch.isfinite(value).all()) for value in made.network.parameters())


def test_the_cast_is_of_the_trained_network():
    given = batch()
    made, plain = (task(replace(TINY, keep_cast=kept, precision="float32")) for kept in (True, False))
    first, second = (one.step([given]) for one in (made, plain))
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert made.metadata() == {"coordinates": "published", "in_logits": "False", "keep_cast": "True"}
    assert made.network.keep_cast


def test_the_discriminators_learn():
    made = task(replace(TINY, steps=12, learning_rate=1e-2, discriminator_rate=2.0, pool=4, batch=1))
    found = [made.step([batch(step, 1)]) for step in range(12)]
    ends = [
        sum(float(one[f"{name}_discriminator"]) for one in part for name in JUDGES)
        for part in (found[:3], found[-3:])
    ]
    assert ends[1] < 0.8 * ends[0]
    assert set(found[0]) == {"total", "gradient", *made.loss_names()}
    assert all(float(one["gradient"]) > 0 for one in found)


def test_validation_gives_the_generators_losses_and_moves_nothing():
    made = task()
    made.step([batch()])
    before = {name: len(pool.images) for name, pool in made.pools.items()}
    with made.averaged(), torch.no_grad():
        found = made.losses_of(batch(1))
    assert list(found) == [name for name in made.loss_names() if not name.endswith("discriminator")]
    assert before == {name: len(pool.images) for name, pool in made.pools.items()}
    assert not any(value.requires_grad for value in found.values())


@pytest.mark.parametrize("edge", recipes.EDGES)
def test_every_edge_reaches_the_discriminators(edge):
    made = task(replace(TINY, edge=edge, losses=NeRCoLossWeights(residual=0, cycle=0, identity=0)))
    image = 2 * batch().normal - 1
    assert torch.equal(made.edges(image, "normal"), edge_map(image, edge))
    made.step([batch()])
    assert made.pools["enhanced_edge"].images[0].min() > 0


def test_random_colours_are_drawn_for_each_map_and_each_step():
    made = task(replace(TINY, official_random_color=True))
    image = 2 * batch().normal - 1
    drawn = {kind: made.colour(image, kind) for kind in ("normal", "enhanced", "dark", "darkened")}
    values = torch.stack([torch.cat(colour) for colour in drawn.values()])
    assert values.abs().max() <= 1
    assert len({tuple(row.tolist()) for row in values}) == 4
    assert torch.equal(made.edges(image, "dark"), edge_map(image, colour=drawn["dark"]))
    again = made.colour(image, "dark")
    assert all(torch.equal(*pair) for pair in zip(again, drawn["dark"], strict=True))
    made.steps_done = 1
    assert not torch.equal(made.colour(image, "dark")[0], drawn["dark"][0])
    made.step([batch()])


def test_a_continued_run_gives_the_same_bits(tmp_path):
    class Source:
        steps_per_epoch, photographs = 2, 4

        def batch(self, step, part=0, parts=1):
            return batch(step)

        def size(self, step):
            return 2

        def names(self, step):
            return ["a", "b"]

    recipe = replace(TINY, official_random_color=True, steps=6, average=0.9)
    whole = task(recipe)
    fit(whole, Source(), 6)
    hooks = Hooks(checkpoint=tmp_path / "state.ckpt")
    fit(task(recipe), Source(), 3, pace=Pace(3), hooks=hooks)
    rest = task(recipe, seed=5)
    fit(rest, Source(), 6, pace=Pace(3), hooks=hooks)
    same(whole, rest)
    assert all(torch.equal(value, rest.average[name]) for name, value in whole.average.items())
    for name in POOLS:
        pairs = zip(whole.pools[name].images, rest.pools[name].images, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def _rank(rank, world, place, output):
    torch.set_num_threads(1)
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": place}
    os.environ.update(places, RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    parallel = join("cpu")
    try:
        made = task(parallel=parallel)
        for step in range(3):
            given = batch(step, 3)
            cut = slice(3 * rank // world, 3 * (rank + 1) // world)
            values = made.step([Batch(*(part[cut] for part in given[:3]))], 3)
    finally:
        parallel.close()
    pools = {name: torch.stack(pool.images) for name, pool in made.pools.items()}
    torch.save({"result": made.result(), "pools": pools, "values": values}, output / f"{rank}.pt")


def test_two_processes_remember_the_same_images_as_one(tmp_path):
    torch.multiprocessing.spawn(_rank, (2, str(free_port()), tmp_path), 2)
    alone = task()
    for step in range(3):
        given = batch(step, 3)
        parts = [Batch(*(part[cut] for part in given[:3])) for cut in (slice(0, 1), slice(1, 3))]
        values = alone.step(parts, 3)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(second["result"][name], value) for name, value in first["result"].items())
    for name, pool in alone.pools.items():
        assert torch.equal(first["pools"][name], second["pools"][name])
        # gradients of several groups of losses are summed in another order
        torch.testing.assert_close(first["pools"][name], torch.stack(pool.images), atol=5e-3, rtol=0)
    for name, value in values.items():
        if name != "gradient":
            torch.testing.assert_close(first["values"][name], value, atol=1e-4, rtol=2e-3, msg=name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precisions_stay_near_each_other(precision):
    found = task(replace(TINY, precision=precision)).step([batch()])
    exact = task(replace(TINY, precision="float32")).step([batch()])
    for name, value in exact.items():
        limit = 0.3 if name == "gradient" else 0.06
        assert abs(float(found[name]) - float(value)) <= limit * abs(float(value)) + 0.01, name


def test_a_short_run_is_not_slowed_to_nothing():
    for passes, wanted in ((1, [1.0]), (2, [1.0, 0.0]), (3, [1.0, 0.5, 0.0])):
        made = NeRCoTask(replace(TINY, pool=0), passes * 2, 2)
        rates = []
        for number in range(passes):
            made.steps_done = 2 * number
            rates.append(made.learning_rate() / TINY.learning_rate)
        assert rates == pytest.approx(wanted)
    made = NeRCoTask(replace(TINY, decay="schedule", schedule="cosine"), 10, 2)
    made.steps_done = 5
    assert made.learning_rate() == pytest.approx(TINY.learning_rate / 2)


def test_recipes_refuse_what_no_run_can_have():
    for changes, part in (
        ({"gan": "hinge"}, "gan must be one of"),
        ({"edge": "canny"}, "edge must be one of"),
        ({"text_loss": "words"}, "text_loss must be one of"),
        ({"coordinates": "polar"}, "coordinates must be one of"),
        ({"decay": "never"}, "decay must be one of"),
        ({"stored_as": "float8"}, "stored_as must be one of"),
        ({"clip_preprocess": "none"}, "clip_preprocess must be one of"),
        ({"size": 66}, "multiple of 4"),
        ({"size": 20}, "at least 24"),
        ({"size": 64, "squeeze": 32}, "crops of 64 do not fit"),
        ({"pool": -1}, "pool"),
        ({"discriminator_rate": 0.0}, "discriminator_rate"),
        ({"compile": True}, "compile"),
    ):
        with refused(ValueError, part):
            replace(NERCO_PUBLISHED, **changes)
    with refused(ValueError, "photographs of normal light"):
        task().step([batch()._replace(normal=None)])
    with refused(ValueError, "one shape"):
        task().step([batch()._replace(normal=torch.rand(2, 3, 48, 32))])
    with refused(ValueError, "cuda_graph"):
        task(replace(TINY, cuda_graph=True))
    # the recipes import no networks, so their tables are copies
    assert recipes.EDGES == edges.EDGES
    assert recipes.COORDINATES == networks.COORDINATES
    assert NERCO_LOGITS.synthesis is not None


# --- the text loss


def gradients(recipe, reader=None):
    made = task(recipe, reader=reader)
    found = made.backward([batch()])
    return found, torch.cat([p.grad.flatten() for p in made.networks()[0].parameters()])


def test_the_published_text_loss_trains_nothing_and_ours_does(clip_file):
    recipe = replace(TINY, clip_weights=str(clip_file))
    _, without = gradients(recipe)
    told, official = gradients(replace(recipe, text_loss="official"))
    named, with_clip = gradients(replace(recipe, text_loss="clip"))
    assert torch.equal(without, official)
    assert (with_clip - without).norm() > 1e-3 * without.norm()
    for found in (told, named):
        assert {"text_normal", "text_dark"} <= found.keys()
        assert 0 < float(found["text_normal"]) < 1


def test_gradients_of_a_reader_are_those_of_the_whole_graph():
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(3))

    def reader(images):
        return images.mean((2, 3)) @ weight.t()

    recipe = replace(TINY, text_loss="clip", losses=NeRCoLossWeights(0, 0, 0, 0, 0, 0, 0, 2.0))
    made, plain = task(recipe, reader=reader), task(recipe, reader=reader)
    given = batch()
    found = made.backward([given])
    assert made.loss_names() == ["text_normal", "text_dark"]
    a, b = 2 * given.x - 1, 2 * given.normal - 1
    net, darken = plain.network, plain.darkener
    mask = net.H(a)[1]
    fake_b, fake_a = net.G_A(torch.cat([a, net.Pre(a)], 1) * mask), darken(b * mask)
    back = net.G_A(torch.cat([fake_a, net.Pre(fake_a)], 1))
    total = text_loss(reader(fake_b), bright=True) + text_loss(reader(back), bright=True)
    total = total + text_loss(reader(fake_a), bright=False) + text_loss(reader(darken(fake_b)), bright=False)
    (2 * total).backward()
    torch.testing.assert_close(found["total"], 2 * total.detach())
    for (name, p), q in zip(
        made.networks()[0].named_parameters(), plain.networks()[0].parameters(), strict=True
    ):
        if q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-3, msg=name)


# --- whole runs


def test_two_folders_make_weights_that_enhance(sides, tmp_path, clip_file):
    low, normal = sides
    settings = {**NARROW, "coordinates": "absolute", "text_loss": "clip", "clip_weights": str(clip_file)}
    result = fastllie.train(
        "nerco",
        low=low,
        normal=normal,
        output=tmp_path / "run",
        epochs=1,
        every=2,
        log_every=1,
        **settings,
    )
    assert result.steps == 3
    # a discriminator that learns makes a total mean something else in every step
    assert result.best is None
    line = json.loads(result.log.read_text().splitlines()[-1])["values"]
    assert {"cycle_dark", "residual", "text_normal", "dark_edge_discriminator"} <= line.keys()
    image = np.full((20, 37, 3), 30, np.uint8)
    assert fastllie.enhance(image, "nerco", weights=result.weights).shape == image.shape
    with safe_open(result.weights, "pt") as file:
        told = json.loads(file.metadata()["recipe"])
        assert {key.split(".")[0] for key in file.keys()} == {"Pre", "H", "G_A"}  # noqa: SIM118
    assert told["width"] == 2
    assert told["clip_weights"] == "tiny.safetensors"
    tuned = fastllie.finetune(
        "nerco",
        (low, normal),
        weights=result.weights,
        output=tmp_path / "tuned",
        paired=False,
        steps=1,
        **{name: NARROW[name] for name in ("discriminator_width", "discriminator_layers", "size", "squeeze")},
    )
    first, second = load_file(result.weights), load_file(tuned.weights)
    assert first.keys() == second.keys()
    with safe_open(tuned.weights, "pt") as file:
        assert file.metadata()["coordinates"] == "absolute"
    moved = max(float((value - second[key]).abs().max()) for key, value in first.items())
    assert 0 < moved < 1e-3
    with refused(ValueError, "width is 2 in the weights"):
        fastllie.finetune(
            "nerco", (low, normal), weights=result.weights, output=tmp_path / "x", paired=False, width=3
        )


def test_the_command_line_trains_on_two_sides(sides, tmp_path):
    low, normal = sides
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in NARROW.items()]
    command = ["nerco", str(low), "--normal", str(normal), "--steps", "2", "--validation", "none"]
    more = ["--losses.identity=2", "--edge", "sobel", "--batch", "2"]
    assert cli.main(["train", *command, "-o", str(tmp_path / "run"), *flags, *more]) == 0
    again = ["train", "--config", str(tmp_path / "run" / "config.toml"), "-o", str(tmp_path / "again")]
    assert cli.main(again) == 0
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("run", "again"))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_synthetic_frames_are_scored_by_what_they_should_become(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(8):
        picture(index, (40, 36), 255).save(folder / f"{index}.png")
    result = fastllie.train(
        "nerco",
        folder,
        output=tmp_path / "run",
        steps=2,
        batch=2,
        validation=0.5,
        stored_as="float16",
        synthesis={"zoom": 1.0},
        **NARROW,
    )
    assert result.best is not None
    assert '"PSNR"' in (tmp_path / "run" / "validation.jsonl").read_text()
    kinds = {value.dtype for value in load_file(result.weights).values()}
    assert kinds == {torch.float16}
    dark = np.full((24, 24, 3), 40, np.uint8)
    assert fastllie.enhance(dark, "nerco", weights=result.weights).shape == dark.shape
    assert isinstance(NERCO_LOGITS.synthesis, Synthesis)


def test_a_reader_of_ones_own_reads(sides, tmp_path):
    low, normal = sides
    seen = []

    def reader(images):
        seen.append(images.requires_grad)
        level = images.mean((1, 2, 3))
        return torch.stack([-level, level], 1)

    settings = {"low": low, "normal": normal, "output": tmp_path / "run", "steps": 1, **NARROW}
    fastllie.train("nerco", **settings, text_loss="clip", reader=reader)
    assert seen[:4] == [True] * 4
    with refused(ValueError, "a reader is for the text loss of nerco"):
        fastllie.train("nerco", **settings, reader=reader)


def test_what_is_missing_is_told_before_the_photographs_are_read(sides, tmp_path, monkeypatch):
    low, normal = sides
    monkeypatch.delenv(clip.VARIABLE, raising=False)
    with refused(FileNotFoundError, "the text loss needs the weights of CLIP"):
        fastllie.train("nerco", low=tmp_path / "no", normal=normal, output=tmp_path / "x", text_loss="clip")
    with refused(ValueError, "both sides"):
        fastllie.train("nerco", low, output=tmp_path / "x", **NARROW)
