"""The loss in blocks is the loss: the same value and the same gradients, and never more than a block of logits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from chargen.errors import ArgumentError
from chargen.kernels import threads
from chargen.model import loss
from chargen.model.loss import cross_entropy, nats_per_target
from tests import naive


def layer(inputs, size):
    return nn.Linear(inputs, size)


def compare(values, output, targets, fixed=None, block=2**21, tolerance=1e-6):
    """Loss and gradients in blocks beside those of one product."""
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(loss.BLOCK, "cpu", block)
        for in_blocks in (True, False):
            values, output = values.detach().requires_grad_(), output
            output.zero_grad()
            result = (cross_entropy if in_blocks else naive.cross_entropy)(values, output, targets, fixed)
            (3 * result).backward()
            results.append([result.detach(), values.grad, output.weight.grad, output.bias.grad])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=1e-5)


@given(
    rows=st.integers(1, 5), positions=st.integers(1, 7), inputs=st.integers(1, 9), size=st.integers(1, 40),
    block=st.integers(1, 300), seed=st.integers(0, 9), scale=st.sampled_from([0.1, 1.0, 30.0]), has_fixed=st.booleans(),
)  # fmt: skip
def test_blocks_agree_with_one_product(rows, positions, inputs, size, block, seed, scale, has_fixed):
    torch.manual_seed(seed)
    fixed = (torch.randn(rows, positions, 4), torch.randn(size, 4), torch.randn(size)) if has_fixed else None
    targets = torch.randint(size, (rows, positions))
    tolerance = 2e-5 * max(scale, 1)  # rounding grows with the logits
    compare(scale * torch.randn(rows, positions, inputs), layer(inputs, size), targets, fixed, block, tolerance)


@given(
    rows=st.integers(1, 5), positions=st.integers(1, 7), size=st.integers(1, 40), block=st.integers(1, 300),
    seed=st.integers(0, 9), dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]),
    has_fixed=st.booleans(),
)  # fmt: skip
def test_targets_may_be_probabilities(rows, positions, size, block, seed, dtype, has_fixed):
    torch.manual_seed(seed)
    fixed = (torch.randn(rows, positions, 4), torch.randn(size, 4), torch.randn(size)) if has_fixed else None
    targets = torch.softmax(2 * torch.randn(rows, positions, size), 2).to(dtype)
    compare(torch.randn(rows, positions, 5), layer(5, size), targets, fixed, block, 2e-5)
    with torch.no_grad():
        values, output = torch.randn(rows, positions, 5), layer(5, size)
        expected = naive.cross_entropy(values, output, targets)
        torch.testing.assert_close(cross_entropy(values, output, targets), expected, atol=1e-5, rtol=1e-5)


def test_certain_probabilities_are_targets():
    torch.manual_seed(0)
    output, targets = layer(6, 9), torch.randint(9, (3, 4))
    values = [torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    losses = []
    for own, wanted in zip(values, (targets, functional.one_hot(targets, 9).half()), strict=True):
        losses.append(cross_entropy(own, output, wanted))
        losses[-1].backward()
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(values[0].grad, values[1].grad)


def test_probabilities_of_another_size_are_refused():
    with pytest.raises(ArgumentError, match="targets"):
        cross_entropy(torch.zeros(2, 3, 4), layer(4, 5), torch.zeros(2, 3, 6))
    with pytest.raises(ArgumentError, match="targets"):
        nats_per_target(torch.zeros(2, 3, 4), layer(4, 5), torch.zeros(2, 3, 5))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_large_logits_do_not_overflow(scale):
    output = layer(8, 50)
    values = scale * torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(1))
    result = cross_entropy(values.requires_grad_(), output, torch.zeros(3, 4, dtype=torch.long))
    result.backward()
    assert torch.isfinite(result)
    assert torch.isfinite(values.grad).all()


@pytest.mark.parametrize("grad", [True, False])
def test_a_value_that_is_not_finite_shows(grad):
    values = torch.zeros(2, 3, 4)
    values[1, 2, 0] = torch.nan
    with torch.set_grad_enabled(grad):
        assert not torch.isfinite(cross_entropy(values, layer(4, 5), torch.zeros(2, 3, dtype=torch.long)))


def test_costs_are_each_characters():
    torch.manual_seed(0)
    values, output, targets = torch.randn(11, 6), layer(6, 9), torch.randint(9, (11,))
    expected = functional.cross_entropy(output(values), targets, reduction="none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(loss.BLOCK, "cpu", 30)
        nats = nats_per_target(values, output, targets)
        torch.testing.assert_close(nats, expected.detach(), atol=1e-6, rtol=1e-6)
        with torch.inference_mode():
            torch.testing.assert_close(cross_entropy(values, output, targets), expected.mean(), atol=1e-6, rtol=1e-6)
    assert nats_per_target(values[:0], output, targets[:0]).shape == (0,)


def test_no_gradient_enters_what_is_fixed():
    values, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((5, 4), (7, 4), (7,)))
    output = layer(3, 7)
    cross_entropy(torch.randn(5, 3), output, torch.zeros(5, dtype=torch.long), (values, weight, bias)).backward()
    assert values.grad is weight.grad is bias.grad is None
    assert output.weight.grad is not None


def test_bf16_products_come_near():
    torch.manual_seed(0)
    values, output, targets = torch.randn(20, 50, 32), layer(32, 90), torch.randint(90, (20, 50))
    plain = cross_entropy(values, output, targets)
    with torch.autocast("cpu", torch.bfloat16):
        result = cross_entropy(values.requires_grad_(), output, targets)
    assert result.dtype == torch.float32
    assert abs(result.item() - plain.item()) < 2e-3
    result.backward()
    assert values.grad.dtype == torch.float32


def test_only_a_block_of_logits_is_alive(monkeypatch):
    sizes = []
    monkeypatch.setattr(loss, "available", lambda: False)
    monkeypatch.setitem(loss.BLOCK, "cpu", 1000)
    plain = loss._blocks

    def watched(*arguments):
        for part, logits in plain(*arguments):
            sizes.append(logits.numel())
            yield part, logits

    monkeypatch.setattr(loss, "_blocks", watched)
    values, output = torch.randn(500, 4, requires_grad=True), layer(4, 90)
    cross_entropy(values, output, torch.zeros(500, dtype=torch.long)).backward()
    nats_per_target(values, output, torch.zeros(500, dtype=torch.long))
    assert max(sizes) <= 1000
    assert sum(sizes) == 2 * 500 * 90
    assert min(sizes) > 0


@pytest.fixture
def pools():
    threads._pool.cache_clear()
    yield
    threads._pool.cache_clear()


BF16, FP32 = torch.bfloat16, torch.float32
every_kind = pytest.mark.parametrize("kind", [BF16, FP32], ids=["bf16", "fp32"])
kinds = st.sampled_from([BF16, FP32])


def error_of(kind):
    return 0.01 if kind == BF16 else 1e-5


def both(kind, rows, inputs, size, block, seed=0, scale=1.0):
    """Loss and gradients, compiled and plain."""
    generator = torch.Generator().manual_seed(seed)
    values = (scale * torch.randn(rows, inputs, generator=generator)).to(kind).requires_grad_()
    targets = torch.randint(size, (rows,), generator=generator)
    output = layer(inputs, size)
    results = []
    for compiled in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loss, "available", lambda compiled=compiled: compiled)
            patch.setitem(loss.BLOCK, "compiled", block)
            values.grad = None
            output.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == BF16):
                result = cross_entropy(values, output, targets)
            result.backward()
            results.append([result.detach(), values.grad.float(), output.weight.grad, output.bias.grad])
    return results


@given(kinds, st.integers(1, 100), st.integers(1, 20), st.integers(1, 100), st.integers(1, 9000), st.integers(0, 9))
def test_compiled_and_plain_losses_agree(kind, rows, inputs, size, block, seed):
    torch.manual_seed(seed)
    compiled, plain = both(kind, rows, inputs, size, block, seed)
    assert abs(compiled[0] - plain[0]) < 1e-5 * max(1, abs(plain[0]))
    for gradient, expected in zip(compiled[1:], plain[1:], strict=True):
        assert (gradient - expected).norm() <= error_of(kind) * expected.norm() + 1e-6
    torch.testing.assert_close(compiled[3], plain[3], atol=1e-6, rtol=1e-4)


@every_kind
def test_compiled_losses_of_large_logits(kind):
    compiled, plain = both(kind, 40, 8, 70, 9000, scale=1e4)
    torch.testing.assert_close(compiled[0], plain[0], rtol=1e-5, atol=0)
    assert (compiled[2] - plain[2]).norm() <= error_of(kind) * plain[2].norm()


def test_no_gradient_is_subnormal():
    """Products with such numbers take ten times as long."""
    values = torch.randn(4096, 8, requires_grad=True)
    output = layer(8, 40)
    with torch.no_grad():
        output.bias[7] = -1e4
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        plain = loss._to_gradient
        patch.setattr(
            loss, "_to_gradient", lambda logits, *rest: (plain(logits, *rest), seen.append(logits.clone()))[0]
        )
        cross_entropy(values, output, torch.zeros(4096, dtype=torch.long))
    (errors,) = seen
    assert errors.shape == (4096, 64)
    assert (errors.abs() >= torch.finfo(FP32).tiny).all()


@every_kind
def test_the_number_of_threads_changes_no_bit(monkeypatch, pools, kind):
    results = []
    monkeypatch.setattr(threads, "start_time", lambda number: 0.0)
    for number in (1, 2, 3):
        monkeypatch.setattr(threads, "threads", lambda number=number: number)
        threads._pool.cache_clear()
        torch.manual_seed(0)
        results.append(both(kind, 200, 8, 40, 90 * 64)[0])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@every_kind
def test_a_value_that_is_not_finite_shows_in_compiled_losses(value, kind):
    values = torch.zeros(40, 4, dtype=kind)
    values[33, 0] = value
    output = layer(4, 35)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == BF16):
        result = cross_entropy(values.requires_grad_(), output, torch.zeros(40, dtype=torch.long))
    assert not torch.isfinite(result)


def every_path(values, output, targets, fixed=None):
    """Every way to compute a loss: compiled, plainly, without gradients, each target's own."""

    def plainly():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loss, "available", lambda: False)
            return cross_entropy(values, output, targets, fixed)

    def without_gradients():
        with torch.no_grad():
            return cross_entropy(values, output, targets, fixed)

    yield lambda: cross_entropy(values, output, targets, fixed)
    yield plainly
    yield without_gradients
    yield lambda: nats_per_target(values, output, targets, fixed)


@pytest.mark.parametrize("rows", [2, 40])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda targets: targets + 7, lambda targets: targets - 1, lambda targets: torch.full_like(targets, -100),
        lambda targets: torch.full_like(targets, 10**8), lambda targets: targets[:-1], lambda targets: targets[:, :-1],
        lambda targets: targets.flatten(), lambda targets: targets[..., None], lambda targets: targets[:1],
        lambda targets: targets.float(), lambda targets: targets.bool(), lambda targets: targets.numpy(),
        lambda targets: targets.to("meta"), lambda targets: None,
    ],
)  # fmt: skip
def test_targets_that_do_not_fit_are_refused_alike_by_every_path(rows, wrong):
    values, output = torch.randn(rows, 3, 4), layer(4, 7)
    targets = torch.arange(rows * 3).reshape(rows, 3) % 7
    messages = set()
    for path in every_path(values, output, wrong(targets)):
        with pytest.raises(ArgumentError) as error:
            path()
        messages.add(str(error.value))
    assert len(messages) == 1
    assert messages.pop().startswith("targets ")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda values: values[..., :-1], lambda values: values.long(), lambda values: values[0, 0, 0],
        lambda values: values.numpy(), lambda values: values.to("meta"), lambda values: None,
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused(wrong):
    values, output, targets = torch.randn(9, 3, 4), layer(4, 7), torch.zeros(9, 3, dtype=torch.long)
    for path in every_path(wrong(values), output, targets):
        with pytest.raises(ArgumentError, match=r"^values "):
            path()


def test_an_output_layer_or_something_fixed_that_does_not_fit_is_refused():
    values, targets = torch.randn(9, 4), torch.zeros(9, dtype=torch.long)
    for output in (torch.nn.Linear(4, 7, bias=False), torch.nn.Identity(), None):
        with pytest.raises(ArgumentError, match=r"^output is"):
            cross_entropy(values, output, targets)
    fits = torch.zeros(9, 5), torch.zeros(7, 5), torch.zeros(7)
    cross_entropy(values, layer(4, 7), targets, fits)
    for place, shape in ((0, (8, 5)), (0, (9, 4)), (1, (6, 5)), (2, (8,)), (2, (7, 1))):
        fixed = [*fits[:place], torch.zeros(shape), *fits[place + 1 :]]
        for path in every_path(values, layer(4, 7), targets, tuple(fixed)):
            with pytest.raises(ArgumentError, match=r"^fixed "):
                path()
    with pytest.raises(ArgumentError, match=r"^fixed is"):
        cross_entropy(values, layer(4, 7), targets, fits[:2])


def test_the_mean_of_nothing_is_refused_by_every_path():
    values, output, targets = torch.randn(0, 3, 4), layer(4, 7), torch.zeros(0, 3, dtype=torch.long)
    for path in list(every_path(values, output, targets))[:3]:
        with pytest.raises(ArgumentError, match="no targets"):
            path()


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int64])
def test_targets_of_any_type_and_layout_cost_the_same(kind):
    values, output = torch.randn(9, 6, 4), layer(4, 7)
    targets = torch.arange(54).reshape(9, 6) % 7
    wide = torch.zeros(9, 12, dtype=kind)
    wide[:, ::2] = targets.to(kind)
    for other in (targets.to(kind), wide[:, ::2], targets.t().contiguous().t().to(kind)):
        assert cross_entropy(values, output, other).item() == cross_entropy(values, output, targets).item()
    flat = torch.zeros(108, dtype=torch.long)
    flat[::2] = targets.flatten()
    assert cross_entropy(values.flatten(0, 1), output, flat[::2]).item() == pytest.approx(
        cross_entropy(values, output, targets).item(), abs=1e-6
    )


def test_torchs_own_defaults_change_nothing():
    values, output, targets = torch.randn(40, 4), layer(4, 7), torch.zeros(40, dtype=torch.long)

    def gradients():
        leaves = values.clone().requires_grad_(), output.weight, output.bias
        result = cross_entropy(leaves[0], output, targets)
        return [result, *torch.autograd.grad(result, leaves)]

    expected = gradients()
    torch.set_default_dtype(torch.float64)
    try:
        assert all(map(torch.equal, gradients(), expected))
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert all(map(torch.equal, gradients(), expected))
