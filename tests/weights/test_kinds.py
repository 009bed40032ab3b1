"""How packed weights treat every kind of tensor that a module can hold."""

from __future__ import annotations

from typing import Any

from diffusiongpt.weights import Weights

OTHER = "cpu:1"


def test_all_kinds_of_tensors_are_packed() -> None:
    """Integers, booleans, halves, complex numbers, empty tensors, odd strides: same values, types and shapes."""
    import torch

    module = torch.nn.Module()
    for at, dtype in enumerate((torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn)):
        module.register_parameter(f"weight{at}", torch.nn.Parameter(torch.randn(3, 5).to(dtype)))
    module.register_buffer("count", torch.tensor(7))
    module.register_buffer("mask", torch.tensor([True, False, True]))
    module.register_buffer("phase", torch.randn(3, dtype=torch.complex64), persistent=False)
    module.register_buffer("empty", torch.empty(0, 3))
    module.register_buffer("none", None)
    module.register_buffer("spread", torch.arange(3).expand(2, 3))
    module.register_buffer("turned", torch.randn(3, 5).t())
    convolution = torch.nn.Conv2d(8, 4, 3).to(memory_format=torch.channels_last)
    module.convolution = convolution
    wanted = {name: tensor.clone() for name, tensor in _tensors(module).items()}
    weights = Weights.pack(module)
    weights.bring(OTHER)
    for one in (module, weights.on(OTHER)):
        tensors = _tensors(one)
        assert {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} == {
            name: (tensor.dtype, tensor.shape) for name, tensor in wanted.items()
        }
        assert all(torch.equal(tensors[name].double(), wanted[name].double()) for name in wanted if name != "phase")
        assert torch.equal(tensors["phase"], wanted["phase"])
        assert all(tensor.data_ptr() % 64 == 0 for tensor in tensors.values())
        assert one.convolution.weight.is_contiguous(memory_format=torch.channels_last)
        assert one.turned.stride() == (1, 5)
        assert not any(tensor.requires_grad for tensor in tensors.values())
        assert "phase" not in one.state_dict()
        assert one.none is None
    weights.restore("cpu")
    weights.restore(OTHER)


def test_tensors_that_are_more_than_bytes_are_moved_by_torch() -> None:
    """A subclass or a sparse tensor stays outside the block, is counted, and is on a device while the rest is."""
    import torch

    class Marked(torch.Tensor):
        """Any subclass."""

    module = torch.nn.Linear(4, 4)
    module.scale = torch.nn.Parameter(torch.ones(8).as_subclass(Marked))
    module.same = module.scale
    module.register_buffer("few", torch.eye(4).to_sparse())
    weights = Weights.pack(module)
    assert weights.loose == 2
    assert weights.nbytes == 64 + 64 + 8 * 4 + 4 * 4 * 4
    weights.bring(OTHER)
    replica = weights.on(OTHER)
    assert isinstance(replica.scale, Marked)
    assert replica.same is replica.scale is not module.scale
    assert torch.equal(replica.few.to_dense(), torch.eye(4))
    assert replica.scale.data_ptr() != module.scale.data_ptr()
    replica.same = torch.nn.Parameter(torch.zeros(8))
    weights.restore(OTHER)
    assert replica.same is replica.scale
    weights.leave(OTHER)
    assert replica.scale is replica.few is None
    weights.bring(OTHER)
    assert replica.scale.tolist() == [1.0] * 8
    weights.leave("cpu")
    assert module.scale is None


def _tensors(module: Any) -> dict[str, Any]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
