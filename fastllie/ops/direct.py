"""The short way to an operator's implementation, where PyTorch's dispatcher would do nothing but call it.

The way through the dispatcher into Python and back costs the host more than our own work on a small image.
It is needed wherever somebody listens or something is wrapped: `torch.compile`, `torch.export`, `make_fx`,
`torch.jit.trace`, modes, subclasses of Tensor, `torch.func`, forward-mode AD, profilers, negative views and
other devices. So the dispatcher's own state is asked: the keys of each tensor and of the thread have to be
those of a plain tensor in a quiet thread, which a fresh thread tells at the first use. Everything else goes
to the operator of `torch.library`.

These names of torch are private. If one is missing or does not tell what it should, nothing goes the short
way, which costs time and nothing else; `why_not()` says so. What is not seen: kernels that others register
for our operators on plain tensors, and an `ExecutionTraceObserver` outside a profiler.
"""

from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad, profiler
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode, has_torch_function_variadic
from torch.utils._python_dispatch import TorchDispatchMode

# Whether a call of these tensors needs a gradient, None where the dispatcher has to serve it
Look = Callable[[Sequence[Tensor]], bool | None]


class Operator:
    """An operator of `torch.library`, called past the dispatcher where that comes to the same.

    Args:
        library: Where it is registered.
        schema: Of the operator; the tensors come first.
        implementation: For every device.
        fake: The implementation for fake tensors.
        differentiate: The formula of the gradient, as for `torch.library.register_autograd`.
        save: Its `setup_context`.
    """

    def __init__(
        self,
        library: torch.library.Library,
        schema: str,
        implementation: Callable[..., Any],
        fake: Callable[..., Any],
        differentiate: Callable[..., Any],
        save: Callable[..., None],
    ) -> None:
        name, signature = schema.split("(", 1)
        register(library, schema, implementation, fake)
        torch.library.register_autograd(f"fastllie::{name}", differentiate, setup_context=save, lib=library)
        self.registered = getattr(torch.ops.fastllie, name)
        self.implementation = implementation
        self.tensors = signature.split("->")[0].count("Tensor ")
        self._differentiable = _differentiable(name, implementation, differentiate, save)

    def __call__(self, *arguments: Any) -> Any:
        # what torch.compile writes down has to be the operator
        if is_dynamo_compiling():
            return self.registered(*arguments)
        gradient = look()(arguments[: self.tensors])
        if gradient is None:
            return self.registered(*arguments)
        return self._differentiable(*arguments) if gradient else self.implementation(*arguments)


def register(
    library: torch.library.Library, schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]
) -> None:
    """Define an operator with one implementation for every device, and one for fake tensors."""
    name = schema.split("(", 1)[0]
    library.define(schema)
    library.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastllie::{name}", fake, lib=library)


def _differentiable(
    name: str,
    implementation: Callable[..., Any],
    differentiate: Callable[..., Any],
    save: Callable[..., None],
) -> Callable[..., Any]:
    """The implementation as autograd knows it, of the same functions as the operator."""

    def forward(ctx, *inputs):  # type: ignore[no-untyped-def]
        output = implementation(*inputs)
        save(ctx, inputs, output)
        return output

    functions = {"forward": staticmethod(forward), "backward": staticmethod(differentiate)}
    made = type(f"fastllie_{name}", (torch.autograd.Function,), functions)
    # what `Function.apply` does first is for torch.func, which never comes here
    return super(torch.autograd.Function, made).apply  # type: ignore[misc]


_told: tuple[Look, str | None] | None = None


def why_not() -> str | None:
    """Why nothing goes the short way with this version of torch; None where plain calls do."""
    return (_told or _learn())[1]


def look() -> Look:
    """What tells of tensors whether they go the short way, and how."""
    return (_told or _learn())[0]


def _learn() -> tuple[Look, str | None]:
    global _told
    try:
        # these two are of all threads, so no thread is quiet now
        if profiler._is_profiler_enabled or forward_ad._current_level >= 0:
            return _nothing_is_plain, "a profiler or forward-mode AD is active"
        _told = in_quiet_thread(_look), None
    # whatever it is that a later version of torch has changed
    except Exception as error:
        _told = _nothing_is_plain, f"torch {torch.__version__}: {type(error).__name__}: {error}"
    return _told


def _nothing_is_plain(tensors: Sequence[Tensor]) -> bool | None:
    return None


def in_quiet_thread(function: Callable[[], Any]) -> Any:
    """The result of the function where no mode, transform or guard of the caller's thread is."""
    found: list[Any] = []
    raised: list[Exception] = []

    def run() -> None:
        try:
            found.append(function())
        except Exception as error:
            raised.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return found[0]


def _look() -> Look:
    """Called in a quiet thread: what is plain there is plain."""
    keys_of = torch._C._dispatch_keys
    included = torch._C._dispatch_tls_local_include_set
    is_excluded = torch._C._dispatch_tls_is_dispatch_key_excluded
    autograd = torch._C.DispatchKey.AutogradFunctionality
    enabled = torch.is_grad_enabled

    def keys(device: str) -> torch._C.DispatchKeySet:
        return keys_of(torch.empty(0, dtype=torch.float32, device=device))

    plain, quiet = keys("cpu"), included()
    # of GPUs, and of what inference has made, which autograd cannot save
    plain_elsewhere: set[int] = set()
    with torch.inference_mode():
        made_in_inference = {keys("cpu").raw_repr()}
        quiet_in_inference = included()

    def learn_cuda() -> None:
        plain_elsewhere.add(keys("cuda").raw_repr())
        with torch.inference_mode():
            made_in_inference.add(keys("cuda").raw_repr())

    def look(tensors: Sequence[Tensor]) -> bool | None:
        if (
            profiler._is_profiler_enabled
            or forward_ad._current_level >= 0
            or has_torch_function_variadic(*tensors)
            or (included() != quiet and included() != quiet_in_inference)
        ):
            return None
        needed, saved = False, True
        for tensor in tensors:
            found = keys_of(tensor)
            if found != plain and found.raw_repr() not in plain_elsewhere:
                saved = False
                if found.raw_repr() not in made_in_inference:
                    # a tensor on a GPU that is one has made torch ready for it
                    if not plain_elsewhere and tensor.is_cuda and torch.cuda.is_initialized():
                        in_quiet_thread(learn_cuda)
                        return look(tensors)
                    return None
            needed = needed or tensor.requires_grad
        if not (needed and enabled()):
            return False
        return True if saved and not is_excluded(autograd) else None

    _check(look)
    return look


def _check(look: Look) -> None:
    """Raise a RuntimeError unless what is known not to be plain is told from what is."""
    make = partial(torch.zeros, 1, device="cpu")
    plain, leaf = make(), make(requires_grad=True)
    seen = {
        "gradients": (look((plain,)), look((plain, leaf))) == (False, True),
        "a negative view": look((make(dtype=torch.complex64).conj().imag,)) is None,
        "other devices": look((plain, plain.to("meta"))) is None,
    }
    with torch._C._AutoDispatchBelowAutograd():
        seen["autograd switched off"] = look((plain, leaf)) is None
    with torch.no_grad():
        seen["no_grad"] = look((leaf,)) is False
    with torch.inference_mode():
        seen["inference"] = look((plain, make())) is False
    with TorchDispatchMode():
        seen["TorchDispatchMode"] = look((plain,)) is None
    with TorchFunctionMode():
        seen["TorchFunctionMode"] = look((plain,)) is None
    torch._C._functorch._vmap_increment_nesting(1, "error")
    try:
        seen["vmap"] = look((plain,)) is None
    finally:
        torch._C._functorch._vmap_decrement_nesting()
    unseen = [name for name, right in seen.items() if not right]
    if unseen:
        raise RuntimeError(f"its state does not tell {', '.join(unseen)}")
