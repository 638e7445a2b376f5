"""Weights that change and layers that are touched count at once, in every method; torch.func, exporters."""

import contextlib
import copy
import io
import pickle
import warnings

import pytest
import torch
from helpers import random_network
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from fastllie import methods
from fastllie.models import NeRCo
from fastllie.models.network import Built
from fastllie.ops import default_backend

METHODS = sorted(methods.METHODS)
X = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0)) * 0.4


def convolution(network):
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


def by_layers(network, x=X):
    """What training's forward gives in this mode: with gradients every method runs its modules."""
    with torch.enable_grad():
        return network(x.clone().requires_grad_()).detach()


@pytest.fixture(params=METHODS)
def network(request):
    network = random_network(request.param)
    with torch.no_grad():
        # whatever is kept of the weights is kept now
        network(X)
    return network


# --- weights


def halved(network):
    for parameter in network.parameters():
        parameter.data.mul_(0.5)


def copied(network):
    for parameter in network.parameters():
        parameter.data.copy_(parameter.data * 0.7)


def averaged(network):
    for parameter in network.parameters():
        parameter.data.lerp_(torch.full_like(parameter, 0.05), 0.3)


def through_numpy(network):
    for parameter in network.parameters():
        parameter.detach().numpy()[...] *= 0.8


def set_anew(network):
    for parameter in network.parameters():
        parameter.set_(parameter * 0.6)


def other_data(network):
    for parameter in network.parameters():
        parameter.data = parameter.data * 0.6


def one_value(network):
    # the last of many: a glance at a few would miss it
    list(network.parameters())[-1].data.view(-1)[-1] += 0.5


def in_inference_mode(network):
    with torch.inference_mode():
        for parameter in network.parameters():
            parameter.mul_(0.5)


def loaded(network):
    network.load_state_dict({key: value * 0.5 for key, value in network.state_dict().items()})


def loaded_in_place_of_the_old(network):
    state = {key: value * 0.5 for key, value in network.state_dict().items()}
    network.load_state_dict(state, assign=True)


CHANGES = [
    halved,
    copied,
    averaged,
    through_numpy,
    set_anew,
    other_data,
    one_value,
    in_inference_mode,
    loaded,
    loaded_in_place_of_the_old,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_count_at_once(network, change):
    with torch.no_grad():
        before = network(X)
        change(network)
        got = network(X)
    twin = random_network(next(name for name in METHODS if type(network) is methods.model_class(name)))
    twin.load_state_dict(network.state_dict())
    with torch.no_grad():
        want = twin(X)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    torch.testing.assert_close(got, by_layers(network), rtol=0, atol=5e-5)
    assert (got - before).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["enlightengan", "sci"])
def test_changed_statistics_count_at_once(method):
    network = random_network(method)
    with torch.no_grad():
        before = network(X)
        for name, statistic in network.named_buffers():
            if name.endswith("running_mean"):
                statistic.data.add_(0.3)
        got = network(X)
    torch.testing.assert_close(got, by_layers(network), rtol=0, atol=5e-5)
    assert (got - before).abs().max() > 1e-3


def test_weights_are_packed_once_while_they_stay(monkeypatch):
    if default_backend("cpu") == "torch":
        pytest.skip("the compiled kernels are not here")
    network, packed = random_network("zerodce"), []
    real = network._packing.get
    monkeypatch.setattr(network._packing, "get", lambda *given: packed.append(real(*given)) or packed[-1])
    with torch.no_grad():
        for _ in range(3):
            network(X)
    assert len(packed) == 3
    assert packed[0] is packed[1] is packed[2]
    # not looked at, once somebody has promised
    network.settle()
    network.conv1.weight.data.mul_(2)
    with torch.no_grad():
        network(X)
    assert packed[3] is packed[0]
    assert not copy.deepcopy(network)._packing.settled
    assert not pickle.loads(pickle.dumps(network))._packing.settled


# --- layers


def forward_hook(layer):
    layer.register_forward_hook(lambda module, given, result: result * 0.5)


def forward_pre_hook(layer):
    layer.register_forward_pre_hook(lambda module, given: (given[0] * 0.5,))


def hook_with_keywords(layer):
    layer.register_forward_hook(lambda module, given, how, result: result + 0.1, with_kwargs=True)


def own_forward(layer):
    real = layer.forward
    layer.forward = lambda x: real(x) * 0.5


def another_class(layer):
    kind = type(layer)
    layer.__class__ = type("Adapted", (kind,), {"forward": lambda self, x: kind.forward(self, x) * 0.5})


def parametrized(layer):
    class Doubled(nn.Module):
        def forward(self, weight):
            return weight * 2

    parametrize.register_parametrization(layer, "weight", Doubled())


def weight_norm(layer):
    parametrizations.weight_norm(layer)
    layer.parametrizations.weight.original0.data.mul_(2)


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(layer)
    layer.weight_g.data.mul_(2)


def spectral_norm(layer):
    parametrizations.spectral_norm(layer.eval())


def pruned(layer):
    prune.random_unstructured(layer, "weight", 0.5)


def another_padding(layer):
    layer.padding_mode = "circular"


def without_bias(layer):
    layer.register_parameter("bias", None)


TOUCHES = [
    forward_hook,
    forward_pre_hook,
    hook_with_keywords,
    own_forward,
    another_class,
    parametrized,
    weight_norm,
    old_weight_norm,
    spectral_norm,
    pruned,
]


@pytest.mark.parametrize("touch", [*TOUCHES, without_bias])
def test_touched_layers_count(network, touch):
    with torch.no_grad():
        before = network(X)
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d) and not (touch is without_bias and module.bias is None):
            touch(module)
    network.eval()
    with torch.no_grad():
        got = network(X)
    assert torch.equal(got, by_layers(network))
    # an instance norm takes away what is added or multiplied before it, and a bias
    if not isinstance(network, NeRCo):
        assert (got - before).abs().max() > 1e-4


@pytest.mark.parametrize("touch", TOUCHES)
def test_layers_of_the_pixels_of_nerco_count(touch):
    """They run as convolutions, in training too, as long as nobody has touched them."""
    network = random_network("nerco", coordinates="absolute")
    mlp = network.Pre.mlp
    features = torch.randn(2, mlp.width, 37, 5)
    want = mlp(features).detach()
    linear = [module for module in mlp.modules() if isinstance(module, nn.Linear)]
    hook = linear[1].register_forward_hook(lambda module, given, result: None)
    torch.testing.assert_close(mlp(features).detach(), want, rtol=0, atol=1e-5)
    hook.remove()
    touch(linear[1])
    with torch.no_grad():
        got = mlp(features)
    assert (got - want).abs().max() > 1e-6
    torch.testing.assert_close(mlp(features).detach(), got, rtol=0, atol=1e-6)


def test_hooks_see_every_call(network):
    calls = []
    hooks = [
        module.register_forward_hook(lambda *_: calls.append(1))
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d))
    ]
    with torch.no_grad():
        network(X[:1])
    without = len(calls)
    by_layers(network, X[:1])
    assert without == len(calls) - without > 0
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        network(X[:1])
    # and none that is gone keeps the network from its fast path
    assert network.as_built()
    assert len(calls) == 2 * without


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook"])
def test_hooks_on_all_modules(network, kind):
    seen = []
    register = getattr(nn.modules.module, f"register_module_{kind}")
    hook = register(lambda module, *_: seen.append(type(module)))
    try:
        assert not network.as_built()
        with torch.no_grad():
            network(X[:1])
    finally:
        hook.remove()
    if kind != "full_backward_hook":
        assert nn.Conv2d in {base for module in seen for base in module.__mro__}
    assert network.as_built()


def test_hooks_on_the_blocks_between():
    """Where the house itself calls the parts of a block."""
    sci, nerco = random_network("sci"), random_network("nerco")
    for network, block in ((sci, sci.enhance), (nerco, nerco.H), (nerco, nerco.Pre.mlp)):
        with torch.no_grad():
            before = network(X)
            calls = []
            hook = block.register_forward_hook(lambda *_, calls=calls: calls.append(1))
            torch.testing.assert_close(network(X), before, rtol=0, atol=1e-5)
            hook.remove()
        assert len(calls) == 1
        calls.clear()


def test_a_replaced_layer_counts(network):
    layer = convolution(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if child is layer:
                setattr(module, name, nn.Sequential(child, nn.Tanh()))
    with torch.no_grad():
        got = network(X)
    torch.testing.assert_close(got, by_layers(network), rtol=0, atol=5e-5)
    assert not network.as_built()


def test_settings_of_layers_count():
    network = random_network("zerodce", padding="zeros")
    with torch.no_grad():
        before = network(X)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                another_padding(module)
        got = network(X)
    assert torch.equal(got, by_layers(network))
    assert (got - before).abs().max() > 1e-4
    network = random_network("enlightengan")
    network.bn1_1.eps = 0.5
    with torch.no_grad():
        assert torch.equal(network(X), by_layers(network))
        network.bn1_1.eps = 1e-5
        assert network.as_built()
        # one norm in training mode among others in evaluation
        network.bn1_1.train()
        assert not network.as_built()


@pytest.mark.parametrize(
    ("method", "options"),
    [("zerodce++", {"scale": 3}), ("enlightengan", {"align_corners": True}), ("nerco", {"in_logits": False})],
)
def test_options_may_change(method, options):
    network, other = random_network(method), random_network(method, **options)
    for name, value in options.items():
        setattr(network, name, value)
    assert network.as_built()
    with torch.no_grad():
        assert torch.equal(network(X), other(X))


def test_a_subclass_runs_its_own_layers(network):
    kind = type(network)
    inverted = type("Mine", (kind,), {"forward": lambda self, x: 1 - kind.forward(self, x)})
    with torch.no_grad():
        want = 1 - network(X)
        network.__class__ = inverted
        assert not network.as_built()
        torch.testing.assert_close(network(X), want, rtol=0, atol=5e-5)


def test_copies_are_as_built(network):
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), network.double().float()):
        assert twin.as_built()
    assert network.to(memory_format=torch.channels_last).requires_grad_(False).train().eval().as_built()


def test_what_is_described_is_all_there_is():
    """A layer with a further buffer, child, or attribute is not as it was."""
    for touch in (
        lambda layer: layer.register_buffer("observed", torch.zeros(1)),
        lambda layer: layer.add_module("observer", nn.Identity()),
        lambda layer: setattr(layer, "qconfig", object()),
        lambda layer: setattr(layer, "weight", nn.Parameter(torch.zeros(32, 3, 5, 5))),
    ):
        layer = nn.Conv2d(3, 32, 3)
        built = Built.of(layer)
        assert built.holds(layer, True)
        touch(layer)
        assert not built.holds(layer, True)


def test_a_class_that_was_changed_is_not_as_built(monkeypatch):
    network = random_network("zerodce")
    real = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: real(self, x) * 0.5)
    with torch.no_grad():
        assert torch.equal(network(X), by_layers(network))


# --- torch.func, exporters, compilers


@pytest.mark.parametrize("gradients", [False, True])
def test_vmap(network, gradients):
    images = torch.stack([X, X.flip(0), X * 0.5])
    with torch.set_grad_enabled(gradients):
        got = torch.func.vmap(network)(images)
        want = torch.stack([network(x) for x in images])
    torch.testing.assert_close(got.detach(), want.detach(), rtol=0, atol=2e-5)
    with torch.no_grad():
        single = torch.func.vmap(lambda image: network(image[None])[0])(X)
        torch.testing.assert_close(single, network(X), rtol=0, atol=2e-5)


def test_vmap_over_weights(network):
    state = dict(network.named_parameters())
    stacked = {name: torch.stack([value, value * 0.9]) for name, value in state.items()}
    with torch.no_grad():
        got = torch.func.vmap(lambda weights: torch.func.functional_call(network, weights, (X,)))(stacked)
        for place in range(2):
            weights = {name: value[place] for name, value in stacked.items()}
            want = torch.func.functional_call(network, weights, (X,))
            torch.testing.assert_close(got[place], want, rtol=0, atol=2e-5)


def test_derivatives_of_each_image(network):
    got = torch.func.vmap(torch.func.grad(lambda image: network(image[None]).sum()))(X)
    x = X.clone().requires_grad_()
    (want,) = torch.autograd.grad(network(x).sum(), x)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dynamo", [True, False])
def test_onnx_by_torchs_own_exporters(tmp_path, method, dynamo):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    options = {"scale": 3} if method == "zerodce++" else {}
    network, path = random_network(method, **options), tmp_path / "mine.onnx"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (X,), path, dynamo=dynamo)
    session = onnxruntime.InferenceSession(path)
    (got,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), network(X), rtol=0, atol=2e-5)


def test_compiled_with_hooks(network):
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            forward_hook(module)
    with torch.no_grad():
        got = torch.compile(network, backend="eager")(X)
        torch.testing.assert_close(got, network(X), rtol=0, atol=5e-5)


def test_plain_is_the_network_in_standard_operators(network):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Ours(TorchDispatchMode):
        called = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            self.called += function.namespace == "fastllie"
            return function(*arguments, **(keywords or {}))

    with torch.no_grad(), Ours() as ours:
        got = network.plain()(X)
        assert ours.called == 0
        torch.testing.assert_close(got, network(X), rtol=0, atol=2e-5)
