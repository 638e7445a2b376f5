"""Operators past PyTorch's dispatcher: where it would do nothing else, and nowhere else."""

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch
from cases import curve_inputs, grid_curve_inputs, images
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from fastllie import ops
from fastllie.ops import direct, zero_reference


@dataclass(frozen=True)
class Case:
    """An operator of torch.library, the public function before it, and arguments of both."""

    name: str
    function: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]
    settings: tuple[Any, ...]

    def public(self, *tensors):
        return every(self.function(*(tensors or self.tensors)))

    def registered(self, *tensors):
        """What the public function returns, by the operator itself."""
        operator = getattr(torch.ops.fastllie, f"{self.name}_forward")
        found = every(operator(*(tensors or self.tensors), *self.settings))
        if self.name == "zero_reference":
            return every(found[0].unbind())
        return found[:1] if self.name == "smoothness" else found

    def leaves(self, needs=()):
        """New leaves of a graph, of which those that are needed require gradients."""
        needs = needs or (True,) * len(self.tensors)
        return [
            tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_(needed)
            for tensor, needed in zip(self.tensors, needs, strict=True)
        ]


def every(outputs):
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def case_of(name, dtype=torch.float32, layout="contiguous"):
    laid_out = {"dtypes": (dtype, dtype), "layout": layout}
    if name == "curve":
        inputs = curve_inputs(1, 3, 2, **laid_out)
        return Case(name, ops.apply_curve, (inputs.x, inputs.alpha), (8, False, "auto"))
    if name == "zero_reference":
        inputs = curve_inputs(1, 16, 17, steps=1, **laid_out)

        def losses(x, alpha):
            return ops.zero_reference_losses(x, alpha, steps=1)

        settings = (1, False, zero_reference.WELL_EXPOSED, "auto")
        return Case(name, losses, (inputs.x, inputs.alpha), settings)
    if name == "gridcurve":
        inputs = grid_curve_inputs(1, 3, 2, (2, 1, 2), **laid_out)

        # a trace has tensors in the place of the sizes that are asked for otherwise
        def curve(x, grid, guide):
            return ops.apply_grid_curve(x, grid, guide, size=(3, 2))

        settings = ((0, 0), (3, 2), 8, "auto")
        return Case(name, curve, (inputs.x, inputs.grid, inputs.guide), settings)
    tensors = tuple(images([(0.2, 0.5), (0.6, 0.9), (0.2, 0.4)], 1, 3, 4, dtype=dtype, layout=layout))
    if name == "illumination":
        return Case(name, ops.divide_illumination, tensors[:2], ("auto",))
    if name == "illuminate":
        return Case(name, ops.illuminate, tensors, ("auto",))
    return Case(name, ops.smoothness_loss, tensors[:2], (10.0, "ycbcr", "pixel", "auto"))


NAMES = ("curve", "illumination", "illuminate", "smoothness", "zero_reference", "gridcurve")


@pytest.fixture(params=NAMES)
def case(request):
    return case_of(request.param)


@contextmanager
def dispatched():
    """Our operators that are called through the dispatcher, by name, as long as this lasts."""
    called = []
    call = torch._ops.OpOverloadPacket.__call__

    def counted(self, /, *arguments, **options):
        if str(self).startswith("fastllie."):
            called.append(str(self).removeprefix("fastllie."))
        return call(self, *arguments, **options)

    with mock.patch.object(torch._ops.OpOverloadPacket, "__call__", counted):
        yield called


def same(got, wanted):
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert type(one) is type(other)
        if one is not None:
            assert one.dtype == other.dtype
            assert one.stride() == other.stride()
            assert torch.equal(one, other)


def outcome(function, *arguments):
    """What a call returns or raises, to be compared with another's."""
    try:
        return every(function(*arguments))
    except Exception as error:
        # all but the line that names the autograd.Function
        return type(error), str(error).split("GeneratedBackwardFor")[0].split("fastllie_")[0]


def expect_same_outcome(got, wanted):
    if isinstance(wanted[0], type):
        assert got == wanted
    else:
        same(got, wanted)


def weighted(outputs):
    """One number of all outputs, with a gradient of its own for every element."""
    return sum((out * torch.arange(1, out.numel() + 1).view_as(out)).sum() for out in outputs)


def gradients(function, case, needs=()):
    leaves = case.leaves(needs)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    return torch.autograd.grad(weighted(function(*leaves)), wanted)


def test_this_torch_has_the_short_way():
    assert direct.why_not() is None


# where the dispatcher would only call us


@pytest.mark.parametrize(
    "context",
    [
        nullcontext,
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.autograd.graph.save_on_cpu(),
    ],
    ids=["plain", "no_grad", "inference_mode", "autocast", "save_on_cpu"],
)
def test_plain_calls_go_the_short_way(case, context):
    wanted = case.registered()
    leaves = case.leaves()
    with context(), dispatched() as called:
        got = case.public()
        of_leaves = case.public(*leaves)
    assert not called
    same(got, wanted)
    same([out.detach() for out in of_leaves], wanted)
    graph = context is not torch.no_grad and context is not torch.inference_mode
    assert all(out.requires_grad is graph for out in of_leaves)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "cropped", "mixed"])
def test_gradients_are_those_of_the_operator(case, layout):
    case = case_of(case.name, layout=layout)
    count = len(case.tensors)
    for chosen in range(1, 2**count):
        needs = tuple(bool(chosen >> i & 1) for i in range(count))
        wanted = gradients(case.registered, case, needs)
        with dispatched() as called:
            got = gradients(case.public, case, needs)
        assert not called
        same(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_gradients_in_every_precision(case, dtype):
    case = case_of(case.name, dtype)
    wanted = gradients(case.registered, case)
    with dispatched() as called:
        got = gradients(case.public, case)
    assert not called
    same(got, wanted)


def test_parameters_are_plain(case):
    leaves = [torch.nn.Parameter(tensor) for tensor in case.tensors]
    with dispatched() as called:
        got = torch.autograd.grad(weighted(case.public(*leaves)), leaves)
    assert not called
    same(got, gradients(case.registered, case))


def test_a_graph_is_kept_that_is_asked_for_twice(case):
    leaves = case.leaves()
    value = weighted(case.public(*leaves))
    first = torch.autograd.grad(value, leaves, retain_graph=True)
    same(torch.autograd.grad(value, leaves), first)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value, leaves)


def test_gradients_are_differentiated_again(case):
    def twice(function):
        leaves = case.leaves()
        first = torch.autograd.grad(weighted(function(*leaves)), leaves, create_graph=True)
        return torch.autograd.grad(weighted(grad.square() for grad in first), leaves)

    with dispatched() as called:
        got = twice(case.public)
    assert set(called) == {f"{case.name}_backward"}
    same(got, twice(case.registered))


def test_gradgradcheck(case):
    small = case_of(case.name, torch.float64)
    # of maps and cells a few will do, and Zero-DCE's losses have patches of 16 x 16
    if case.name != "zero_reference":
        assert torch.autograd.gradcheck(small.public, small.leaves(), fast_mode=True)
    assert torch.autograd.gradgradcheck(small.public, small.leaves(), fast_mode=True)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(case, reentrant):
    leaves = case.leaves()
    weighted(checkpoint(case.public, *leaves, use_reentrant=reentrant)).backward()
    same([leaf.grad for leaf in leaves], gradients(case.registered, case))


def test_saved_tensors_that_hooks_replace(case):
    packed = []

    def pack(tensor):
        packed.append(tensor.shape)
        return tensor.numpy().copy() if not tensor.requires_grad else tensor.detach().numpy().copy()

    with torch.autograd.graph.saved_tensors_hooks(pack, torch.from_numpy), dispatched() as called:
        got = gradients(case.public, case)
    assert not called
    assert len(packed) >= len(case.tensors)
    same(got, gradients(case.registered, case))


def test_a_saved_tensor_that_has_changed(case):
    for function in (case.public, case.registered):
        leaves = case.leaves((False,) + (True,) * (len(case.tensors) - 1))
        value = weighted(function(*leaves))
        leaves[0].mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(value, leaves[1:])


# where the dispatcher does more


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.names.append(str(function))
        return function(*arguments, **(options or {}))


class SeenFunctions(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, arguments=(), options=None):
        self.names.append(str(function))
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("mode", [Seen, SeenFunctions])
def test_modes_see_the_operator(case, mode):
    wanted = case.registered()
    with mode() as seen:
        got = case.public()
        leaves = case.leaves()
        torch.autograd.grad(weighted(case.public(*leaves)), leaves)
    assert sum(f"fastllie.{case.name}_forward" in name for name in seen.names) == 2
    if mode is Seen:
        assert f"fastllie.{case.name}_backward_once.default" in seen.names
    same(got, wanted)


@pytest.mark.parametrize(
    "context",
    [
        lambda: FlopCounterMode(display=False),
        forward_ad.dual_level,
        torch.profiler.profile,
        torch.autograd.profiler.emit_itt,
        lambda: torch._C._AutoDispatchBelowAutograd(),
    ],
    ids=["flops", "dual_level", "profile", "emit_itt", "below_autograd"],
)
def test_who_else_listens(case, context):
    if context is torch.autograd.profiler.emit_itt and not torch.profiler.itt.is_available():
        pytest.skip("this torch has no ITT")
    leaves = case.leaves()
    wanted = outcome(case.registered, *leaves)
    with context(), dispatched() as called:
        got = outcome(case.public, *leaves)
    assert called == [f"{case.name}_forward"]
    same([out.detach() for out in got], [out.detach() for out in wanted])


def test_a_profiler_shows_the_operator(case):
    leaves = case.leaves()
    with torch.profiler.profile() as profile:
        torch.autograd.grad(weighted(case.public(*leaves)), leaves)
    shown = {event.key for event in profile.key_averages()}
    assert {f"fastllie::{case.name}_forward", f"fastllie::{case.name}_backward_once"} <= shown


def negative(tensor):
    """The same values, stored with the other sign."""
    made = torch.complex(torch.zeros_like(tensor), -tensor).conj().imag
    assert made.is_neg()
    return made


@pytest.mark.parametrize("place", range(3))
def test_negative_views(case, place):
    if place >= len(case.tensors):
        place = 0
    tensors = list(case.tensors)
    tensors[place] = negative(tensors[place])
    with dispatched() as called:
        got = case.public(*tensors)
    assert called == [f"{case.name}_forward"]
    for out, wanted in zip(got, case.registered(), strict=True):
        assert torch.equal(out, wanted)


def test_negative_gradients(case):
    leaves = case.leaves()
    outputs = case.public(*leaves)
    grads = [torch.rand_like(out) for out in outputs]
    wanted = torch.autograd.grad(outputs, leaves, grads, retain_graph=True)
    got = torch.autograd.grad(outputs, leaves, [negative(grad) for grad in grads])
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other)


class Wrapped(torch.Tensor):
    """A tensor that holds another one, and counts who unwraps it."""

    seen: ClassVar[list[str]] = []

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=inner.device
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        cls.seen.append(str(function))
        arguments, options = tree_map(
            lambda value: value.inner if isinstance(value, Wrapped) else value, (arguments, options or {})
        )
        found = function(*arguments, **options)
        return tree_map(lambda value: Wrapped(value) if isinstance(value, torch.Tensor) else value, found)


class Named(torch.Tensor):
    """A subclass that lets PyTorch do all."""


def test_subclasses(case):
    Wrapped.seen.clear()
    got = case.public(*map(Wrapped, case.tensors))
    assert f"fastllie.{case.name}_forward.default" in Wrapped.seen
    assert all(type(out) is Wrapped for out in got)
    same([out.inner for out in got], case.registered())
    with dispatched() as called:
        got = case.public(*(tensor.as_subclass(Named) for tensor in case.tensors))
    # once more by what serves its __torch_function__
    assert set(called) == {f"{case.name}_forward"}
    assert all(type(out) is Named for out in got)


def test_tensors_without_values(case):
    for place in ("meta", FakeTensorMode()):
        if place == "meta":
            tensors = [tensor.to("meta") for tensor in case.tensors]
        else:
            tensors = [place.from_tensor(tensor) for tensor in case.tensors]
        # outside of the mode, too, a fake tensor is one
        with dispatched() as called:
            got = case.public(*tensors)
        assert called == [f"{case.name}_forward"]
        assert [(out.shape, out.dtype) for out in got] == [(o.shape, o.dtype) for o in case.registered()]
        assert all(type(out) is type(tensors[0]) for out in got)
    with FakeTensorMode(allow_non_fake_inputs=True), dispatched() as called:
        case.public()
    assert called == [f"{case.name}_forward"]


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(case, mode):
    graph = make_fx(case.public, tracing_mode=mode)(*case.tensors)
    assert f"torch.ops.fastllie.{case.name}_forward.default" in graph.code
    same(graph(*case.tensors), case.registered())


def test_gradients_in_make_fx(case):
    def both(*leaves):
        return torch.autograd.grad(weighted(case.public(*leaves)), leaves)

    graph = make_fx(both)(*case.leaves())
    assert f"torch.ops.fastllie.{case.name}_backward_once.default" in graph.code
    same(graph(*case.leaves()), gradients(case.registered, case))


@pytest.mark.filterwarnings("ignore")
def test_traces(case):
    traced = torch.jit.trace(case.public, case.tensors)
    assert f"fastllie::{case.name}_forward" in str(traced.inlined_graph)
    same(traced(*case.tensors), case.registered())


def test_compile_in_one_graph(case):
    found = []

    def keep(graph, inputs):
        found.append(graph.code)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(case.public, fullgraph=True, backend=keep)
    same(compiled(*case.tensors), case.registered())
    assert f"fastllie.{case.name}_forward" in found[0]
    compiled = torch.compile(case.public, fullgraph=True, backend="aot_eager")
    same(gradients(compiled, case), gradients(case.registered, case))


@pytest.mark.parametrize("strict", [False, True])
def test_export(case, strict):
    class Module(torch.nn.Module):
        def forward(self, tensors):
            return case.public(*tensors)

    program = torch.export.export(Module(), (case.tensors,), strict=strict)
    assert f"fastllie.{case.name}_forward" in str(program.graph)
    same(program.module()(case.tensors), case.registered())


def _vmap(function, tensors):
    return torch.func.vmap(function)(*(torch.stack((tensor, tensor)) for tensor in tensors))


def _grad(function, tensors):
    count = tuple(range(len(tensors)))
    return torch.func.grad(lambda *given: weighted(function(*given)), count)(*tensors)


def _jvp(function, tensors):
    return torch.func.jvp(function, tensors, tensors)[0]


def _jacrev(function, tensors):
    return torch.func.jacrev(lambda *given: weighted(function(*given)))(*tensors)


def _functionalize(function, tensors):
    return torch.func.functionalize(function)(*tensors)


def _dual(function, tensors):
    with forward_ad.dual_level():
        return function(*(forward_ad.make_dual(tensor, tensor) for tensor in tensors))


def _dual_leaves(function, tensors):
    with forward_ad.dual_level():
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        return function(*(forward_ad.make_dual(leaf, leaf.detach()) for leaf in leaves))


def _batched_gradients(function, tensors):
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    out = function(*leaves)[0]
    grads = torch.stack((torch.ones_like(out), torch.full_like(out, 2)))
    return torch.autograd.grad(out, leaves, grads, is_grads_batched=True)


@pytest.mark.parametrize(
    "transform", [_vmap, _grad, _jvp, _jacrev, _functionalize, _dual, _dual_leaves, _batched_gradients]
)
def test_transforms_do_what_they_do_to_the_operator(case, transform):
    with dispatched() as called:
        got = outcome(transform, case.public, case.tensors)
    assert called
    expect_same_outcome(got, outcome(transform, case.registered, case.tensors))


def test_tensors_of_inference(case):
    with torch.inference_mode():
        made = [tensor.clone() for tensor in case.tensors]
    with dispatched() as called:
        got = case.public(*made)
    assert not called
    same(got, case.registered())
    leaf = made[1].clone().requires_grad_()
    tensors = [made[0], leaf, *made[2:]]
    expect_same_outcome(outcome(case.public, *tensors), outcome(case.registered, *tensors))


def test_zeros_that_are_none_of_memory(case):
    zeros = torch._efficientzerotensor(case.tensors[0].shape)
    tensors = (zeros, *case.tensors[1:])
    with dispatched() as called:
        got = outcome(case.public, *tensors)
    assert called == [f"{case.name}_forward"]
    expect_same_outcome(got, outcome(case.registered, *tensors))


# how the state is learned


@pytest.fixture
def untold(monkeypatch):
    """Nothing is known of torch yet."""
    monkeypatch.setattr(direct, "_told", None)


@pytest.mark.parametrize("context", [Seen, SeenFunctions, torch.inference_mode, FakeTensorMode])
def test_it_is_learned_in_any_state(context, untold, case):
    with context():
        assert direct.why_not() is None
    with dispatched() as called:
        case.public()
    assert not called


@pytest.mark.parametrize("context", [forward_ad.dual_level, torch.profiler.profile])
def test_what_is_of_all_threads_is_waited_for(context, untold):
    with context():
        assert "active" in direct.why_not()
    assert direct.why_not() is None


@pytest.mark.parametrize(
    ("name", "stand_in"),
    [
        ("_dispatch_keys", None),
        ("_dispatch_keys", lambda tensor: torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)),
        ("_dispatch_tls_local_include_set", lambda: torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)),
        ("_dispatch_tls_is_dispatch_key_excluded", lambda key: False),
    ],
    ids=["missing", "tensors", "thread", "autograd"],
)
def test_another_torch_has_the_dispatcher_serve(name, stand_in, untold, case, monkeypatch):
    if stand_in is None:
        monkeypatch.delattr(torch._C, name)
    else:
        monkeypatch.setattr(torch._C, name, stand_in)
    assert torch.__version__ in direct.why_not()
    with dispatched() as called:
        got = gradients(case.public, case)
    assert called == [f"{case.name}_forward", f"{case.name}_backward_once"]
    same(got, gradients(case.registered, case))


def test_what_may_stand_for_a_bool():
    case = case_of("curve")
    for tanh in (1, None, "yes"):
        got = outcome(lambda *given, tanh=tanh: ops.apply_curve(*given, tanh=tanh), *case.tensors)
        wanted = outcome(torch.ops.fastllie.curve_forward, *case.tensors, 8, tanh, "auto")
        expect_same_outcome(got, wanted)
