"""Each kernel against the formula that it stands for, and its derivative against differences."""

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from dpo_lib.fast import kernels


def normal(*shape, seed=0, dtype=torch.float64, grad=True):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_(grad)


def assert_same(ours, plain, *inputs, atol=1e-5):
    """Values and all gradients of two functions."""
    found, expected = ours(*inputs), plain(*inputs)
    assert_close(found, expected, atol=atol, rtol=1e-5)
    slope = normal(*expected.shape, seed=9, dtype=expected.dtype, grad=False)
    for one, other in zip(
        torch.autograd.grad(found, inputs, slope),
        torch.autograd.grad(expected, inputs, slope),
        strict=True,
    ):
        assert one.dtype == other.dtype
        assert_close(one, other, atol=atol, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_bias", [True, False])
def test_linear(dtype, with_bias):
    inputs = [normal(7, 5, dtype=dtype), normal(3, 5, seed=1, dtype=dtype)]
    inputs += [normal(3, seed=2, dtype=dtype)] * with_bias
    assert_same(kernels.linear, F.linear, *inputs)


def test_linear_in_bfloat16_leaves_the_weights_in_float32():
    x, weight = normal(7, 64, dtype=torch.bfloat16), normal(5, 64, seed=1, dtype=torch.float32)
    bias = normal(5, seed=2, dtype=torch.float32)
    out = kernels.linear(x, weight, bias)
    assert out.dtype == torch.bfloat16
    exact = F.linear(x.float(), weight, bias)
    assert 0 < (out - exact).abs().max() < 0.02 * exact.abs().max()
    out.sum().backward()
    assert weight.grad.dtype == bias.grad.dtype == torch.float32
    assert torch.equal(bias.grad, torch.full((5,), 7.0))
    assert_close(weight.grad, x.detach().float().sum(0).expand(5, -1), atol=0.1, rtol=0.01)


class Hidden:
    """A namespace of torch's operators that lacks some, or has others in their places."""

    def __init__(self, namespace, **changed):
        self.namespace, self.changed = namespace, changed

    def __getattr__(self, name):
        if self.changed.get(name, self) is None:
            raise AttributeError(name)
        return self.changed.get(name) or getattr(self.namespace, name)


@pytest.fixture
def ops(monkeypatch):
    """Change private operators of torch, and let the kernels look for them again."""

    def change(**changed):
        for name in ("mkldnn", "aten"):
            monkeypatch.setattr(torch.ops, name, Hidden(getattr(torch.ops, name), **changed))
        forget()

    def forget():
        kernels._onednn_product.cache_clear()
        kernels._onednn_is_wide.cache_clear()

    yield change
    monkeypatch.undo()
    forget()


def multiplied(*results):
    """An operator in the place of oneDNN's, and the calls of it with more than one number."""
    calls = []

    def linear(x, weight, bias, *options):
        if x.numel() > 1:
            calls.append(options)
        elif results:
            raise results[0]
        return F.linear(x, weight, bias)

    return linear, calls


def test_onednn_is_taken_where_it_can_use_wide_registers(ops):
    linear, calls = multiplied()
    ops(_linear_pointwise=linear, _is_mkldnn_bf16_supported=lambda: True)
    assert_same(kernels.linear, F.linear, normal(7, 5, dtype=torch.float32),
                normal(3, 5, seed=1, dtype=torch.float32))  # fmt: skip
    assert calls == [("none", [], "")] * 2  # forward, and the gradient of x


def test_onednn_is_asked_for_each_dtype_and_on_processors_alone(ops):
    plain, calls = multiplied()

    def linear(x, *given):
        if x.dtype == torch.bfloat16:
            raise RuntimeError("no primitive")
        return plain(x, *given)

    ops(_linear_pointwise=linear, _is_mkldnn_bf16_supported=lambda: True)
    for dtype, device in ((torch.bfloat16, "cpu"), (torch.float32, "meta")):
        x, weight = (normal(n, 5, dtype=dtype).to(device) for n in (7, 3))
        assert kernels.linear(x, weight).shape == (7, 3)
    assert not calls
    kernels.linear(normal(7, 5, dtype=torch.float32), normal(3, 5, dtype=torch.float32))
    assert len(calls) == 1


LACKS = {
    "the operator": {"_linear_pointwise": None},
    "the question": {"_is_mkldnn_bf16_supported": None},
    "AVX-512": {"_is_mkldnn_bf16_supported": lambda: False},
    "this dtype": {"_linear_pointwise": multiplied(RuntimeError("no primitive"))[0]},
    "these arguments": {"_linear_pointwise": multiplied(TypeError("takes 7"))[0]},
}


@pytest.mark.parametrize("lacks", [*LACKS, "dtype", "build", "switch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_without_onednn(monkeypatch, ops, lacks, dtype):
    linear, calls = multiplied()
    wide = {"_linear_pointwise": linear, "_is_mkldnn_bf16_supported": lambda: True}
    ops(**{**wide, **LACKS.get(lacks, {})})
    if lacks == "dtype":
        monkeypatch.setattr(kernels, "ONEDNN_TYPES", ())
    elif lacks == "build":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    elif lacks == "switch":
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    inputs = normal(7, 5, dtype=dtype), normal(3, 5, seed=1, dtype=dtype)
    assert_same(kernels.linear, F.linear, *inputs, atol=1e-5 if dtype == torch.float32 else 0.1)
    assert not calls


def test_glibc_is_told_to_keep_what_is_freed(monkeypatch):
    told = []
    library = SimpleNamespace(mallopt=lambda *given: told.append(given))
    monkeypatch.setattr(kernels.ctypes, "CDLL", {"libc.so.6": library}.__getitem__)
    kernels.keep_freed_memory()
    assert told == [(-1, 2**31 - 1), (-3, 2**25)]  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    for other in (SimpleNamespace(), OSError("no such library")):

        def load(name, other=other):
            if isinstance(other, OSError):
                raise other
            return other

        monkeypatch.setattr(kernels.ctypes, "CDLL", load)
        kernels.keep_freed_memory()  # nothing to tell it to
    assert len(told) == 2


def test_frozen_weights_get_no_gradient():
    x, weight = normal(7, 5), normal(3, 5, grad=False)
    kernels.linear(x, weight).sum().backward()
    assert weight.grad is None
    assert_close(x.grad, weight.sum(0).expand(7, -1))
    for learned in (True, False):
        x, scale = normal(7, 5, grad=not learned), normal(5, seed=1, grad=learned)
        (given,) = (part for part in (x, scale) if part.requires_grad)
        slopes = [
            torch.autograd.grad(norm.square().sum(), given)
            for norm in (kernels.rms_norm(x, scale, 0.1, x.dtype), F.rms_norm(x, (5,), scale, 0.1))
        ]
        assert_close(*slopes)


def test_rms_norm():
    epsilon = 0.01

    def plain(x, weight):
        return F.rms_norm(x, weight.shape, weight, epsilon)

    def ours(x, weight):
        return kernels.rms_norm(x, weight, epsilon, x.dtype)

    inputs = normal(7, 5), normal(5, seed=1)
    assert_same(ours, plain, *inputs, atol=1e-12)
    assert gradcheck(ours, inputs)
    rough = kernels.rms_norm(inputs[0], inputs[1], epsilon, torch.bfloat16)
    assert rough.dtype == torch.bfloat16
    assert_close(rough.double(), plain(*inputs), atol=0, rtol=0.01)
    slope = normal(7, 5, seed=2, dtype=torch.bfloat16, grad=False)
    assert_close(
        torch.autograd.grad(rough, inputs, slope),
        torch.autograd.grad(plain(*inputs), inputs, slope.double()),
    )


def test_swiglu():
    inputs = normal(7, 5), normal(7, 5, seed=1)
    assert_same(kernels.swiglu, lambda gate, up: F.silu(gate) * up, *inputs, atol=1e-12)
    assert gradcheck(kernels.swiglu, inputs)


def test_swiglu_without_the_operator_of_its_derivative(ops):
    ops(silu_backward=None)
    assert not hasattr(torch.ops.aten, "silu_backward")
    inputs = normal(7, 5), normal(7, 5, seed=1)
    assert_same(kernels.swiglu, lambda gate, up: F.silu(gate) * up, *inputs, atol=1e-12)


def test_rotate_turns_pairs_of_features():
    angle = normal(7, 1, 3, seed=3, grad=False)
    x = normal(7, 2, 6)

    def plain(x):
        turned = torch.complex(x[..., :3], x[..., 3:]) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([turned.real, turned.imag], dim=-1)

    def ours(x):
        return kernels.rotate(x, angle.cos().repeat(1, 1, 2), angle.sin().repeat(1, 1, 2))

    assert_same(ours, plain, x, atol=1e-12)
    assert gradcheck(ours, (x,))


@pytest.mark.parametrize("padding_idx", [None, 2])
def test_tied_embedding_adds_up_both_gradients(padding_idx):
    tokens = torch.tensor([1, 2, 4, 1])

    def ours(weight):
        embedded, head = kernels.tied_embedding(weight, tokens, padding_idx)
        return embedded @ head.T

    def plain(weight):
        return F.embedding(tokens, weight, padding_idx) @ weight.T

    assert_same(ours, plain, normal(6, 3), atol=1e-12)


@pytest.mark.parametrize("at_once", [10**6, 25])  # one chunk, and chunks of two rows
@pytest.mark.parametrize("with_bias", [True, False])
def test_edge_log_probs(monkeypatch, at_once, with_bias):
    monkeypatch.setattr(kernels, "LOGITS_AT_ONCE", at_once)
    rows, tokens = torch.tensor([0, 0, 1, 3, 4, 4, 4]), torch.tensor([1, 1, 0, 10, 3, 2, 5])

    def ours(hidden, head, bias=None):
        return kernels.edge_log_probs(hidden, head, bias, rows, tokens)

    def plain(hidden, head, bias=None):
        return F.linear(hidden, head, bias).log_softmax(dim=-1)[rows, tokens]

    inputs = [normal(5, 4), normal(11, 4, seed=1)] + [normal(11, seed=2)] * with_bias
    assert_same(ours, plain, *inputs, atol=1e-12)
    assert gradcheck(ours, inputs)


@pytest.mark.parametrize(("at_once", "chunks"), [(10**6, 1), (55, 1), (25, 3), (5, 5)])
def test_logits_are_made_twice_where_they_are_too_many_to_keep(monkeypatch, at_once, chunks):
    made, real = [], kernels._matmul
    monkeypatch.setattr(kernels, "LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(kernels, "_matmul", lambda *given: made.append(1) or real(*given))
    rows = torch.arange(5)
    out = kernels.edge_log_probs(normal(5, 4), normal(11, 4, seed=1), None, rows, rows)
    assert len(made) == chunks
    out.sum().backward()  # a product for the gradient of each chunk, and its logits
    assert len(made) == chunks + chunks * (1 if chunks == 1 else 2)


def test_an_output_layer_learns_from_fixed_rows():
    hidden, head, rows = normal(5, 4, grad=False), normal(11, 4, seed=1), torch.arange(5)
    ours = kernels.edge_log_probs(hidden, head, None, rows, rows)
    plain = F.linear(hidden, head).log_softmax(dim=-1)[rows, rows]
    assert_close(*(torch.autograd.grad(logps.sum(), head)[0] for logps in (ours, plain)))


def test_edge_log_probs_can_be_gone_through_twice():
    hidden, head = normal(5, 4), normal(11, 4, seed=1)
    rows = torch.arange(5)
    out = kernels.edge_log_probs(hidden, head, None, rows, rows)
    first = torch.autograd.grad(out.sum(), (hidden, head), retain_graph=True)
    again = torch.autograd.grad(out.sum(), (hidden, head))
    assert_close(first, again, atol=1e-12, rtol=0)
