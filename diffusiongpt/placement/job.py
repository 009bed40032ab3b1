"""What one picture by one expert takes, whole or by parts: memory on the device and the host, work, and copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from diffusiongpt.backends.diffusers import FEW_BITS, type_of_bits
from diffusiongpt.placement.costs import Cost
from diffusiongpt.weights import GROUP_SHARE

if TYPE_CHECKING:
    from diffusiongpt.flow import PlacementKind
    from diffusiongpt.zoo import Expert


WORKSPACE: Final = 600_000_000
"""Bytes that the CUDA context and the libraries' workspaces take on a device."""

ENCODE: Final = 500_000_000
"""Bytes of activations while a text encoder reads 512 tokens; .10 (T5-XXL) to .31 GB (Qwen3-8B) are measured."""

TILES: Final = 700_000_000
"""Bytes that decoding in tiles of 512 pixels reserves for each byte of the data type: 1.4 GB at 16 bits, 2.9 at
32 (InvokeAI issue 7674)."""

BLOCKS: Final = 2 * GROUP_SHARE
"""Share of a component that streaming keeps on the device: the group that computes and the one that comes."""

STREAM_STEP_S: Final = 0.2
"""Seconds that streaming adds to a step, on top of those of the link: hooks, and waiting for each group.
`benchmarks/gpu.py` on an H100: .17 for SDXL, .2 for FLUX.1."""

DEQUANTISE: Final = 2.5
"""How many times longer the host takes to issue a step with weights of 4 bits, which are made large layer by layer:
SDXL, `benchmarks/gpu.py` on an H100. Taken for 8 bits and for GGUF files too, which were not measured."""

UNPINNED: Final = 3.0
"""How many times longer copies take from host memory that is not pinned; 3 to 5 are measured."""

_ALWAYS_THERE: Final = 500_000_000
"""Bytes below which a component stays on the device while others come and go. Some pipelines read the statistics of
the autoencoder before they call it."""

_DENOISERS: Final = ("transformer", "unet", "prior", "decoder")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured here, as multiples of what is estimated.

    Attributes:
        activations: Memory beyond the weights.
        seconds: Time of denoising.
    """

    activations: float = 1.0
    seconds: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Need:
    """One way, with what it takes.

    Attributes:
        device: Bytes on the device, at most.
        host: Bytes on the host.
        weights: Bytes to read from disk.
        moved: Bytes that cross the link before and after the denoiser works.
        streamed: Bytes that cross it meanwhile, those of memory that is not pinned `UNPINNED` times.
        operations: Floating-point operations, at the full speed that is listed for a device.
        issuing: Seconds that the host takes to issue them.
        waiting: Seconds in which nothing computes and nothing comes.
    """

    kind: PlacementKind
    device: float
    host: float
    weights: float
    operations: float
    issuing: float
    waiting: float = 0.0
    moved: float = 0.0
    streamed: float = 0.0
    tiled: bool = False
    bits: int | None = None

    def computing(self, flops: float) -> float:
        """Seconds, where a device does that many operations a second."""
        return max(self.operations / flops, self.issuing)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One picture by one expert, and what each way to draw it takes.

    Attributes:
        expert: The expert.
        sizes: Component -> bytes in memory, at 16 bits unless it is packed.
        packed: Components whose weights have few bits already, and become numbers layer by layer.
        usual: Bytes of the denoiser of this architecture at 16 bits, where they are known.
        cost: What the architecture takes.
        pixels: Those of the picture.
        steps: Those of denoising.
        measured: What was measured on the device.
        measured_cpu: What was measured on the processor.
    """

    expert: Expert
    sizes: Mapping[str, int]
    cost: Cost
    pixels: int
    steps: int
    measured: Measured
    measured_cpu: Measured
    packed: frozenset[str] = frozenset()
    usual: int = 0

    @property
    def weights(self) -> int:
        """Bytes of all components."""
        return sum(self.sizes.values())

    @property
    def denoiser(self) -> int:
        """Bytes of what denoises, which is the largest component where none has a usual name."""
        named = [size for name, size in self.sizes.items() if name.startswith(_DENOISERS)]
        return max(named or self.sizes.values())

    @property
    def operations(self) -> float:
        """Floating-point operations of all steps: two for each parameter and token (Kaplan et al. 2020, 2.1)."""
        guided = self.expert.settings.guidance_scale
        evaluations = 1 if guided is not None and guided <= 1 else self.cost.evaluations
        tokens = self.pixels / self.cost.token**2
        # two bytes a parameter at 16 bits, so that its bytes are its two operations
        parameters = max(self.denoiser, self.usual if self._is_packed else 0)
        return parameters * tokens * self.steps * evaluations * self.measured.seconds / self.cost.share

    @property
    def _is_packed(self) -> bool:
        """Whether what denoises has few bits."""
        return any(name.startswith(_DENOISERS) for name in self.packed)

    @property
    def denoising(self) -> float:
        """Bytes that a denoising step takes beyond the weights."""
        return self.cost.denoise_gb * 1e9 * self.pixels / 1024**2 * self.measured.activations

    @property
    def encoding(self) -> float:
        """Bytes that reading the prompt takes: never more than the weights that read it."""
        return min(ENCODE, self.weights) * self.measured.activations

    def decoding(self, *, tiled: bool) -> float:
        """Bytes that decoding takes, with those by which an autoencoder in float32 grows."""
        width = 4 if self.cost.decode_type == "float32" else 2
        growth = self.sizes.get("vae", 0) * (width / 2 - 1)
        whole = self.pixels * self.cost.decode * width * self.measured.activations
        return growth + (min(whole, TILES * width) if tiled else whole)

    def work(self, *, tiled: bool) -> float:
        """The most that it takes beyond the weights, where all of them are on the device."""
        return max(self.encoding, self.denoising, self.decoding(tiled=tiled))

    def whole(self, *, tiled: bool) -> Need:
        """With everything on the device."""
        return self._need("whole", self.weights + self.work(tiled=tiled), moved=self.weights, tiled=tiled)

    def offload(self, *, tiled: bool) -> Need:
        """With one large component on the device at a time."""
        moved = self.weights * 2 if self.cost.evaluations > 1 else self.weights
        return self._need("offload", self._by_part(self.sizes, tiled=tiled), moved=moved, tiled=tiled)

    def quantised(self, *, tiled: bool, bits: int) -> Need:
        """With weights of fewer bits, which take turns as well."""
        share = FEW_BITS[type_of_bits(bits)].share
        large = {name for name, size in self.sizes.items() if size > _ALWAYS_THERE} - self.packed
        small = {name: size * (share if name in large else 1) for name, size in self.sizes.items()}
        job = replace(self, sizes=small)  # type: ignore[arg-type]  # fractions of bytes are rounded at the end
        offload = job.offload(tiled=tiled)
        # they come from disk as they are, and each is made small before the next one comes
        host = job.weights + max(self.sizes.values())
        issuing = offload.issuing if self._is_packed else DEQUANTISE * offload.issuing
        small_job = replace(offload, kind="quantised", bits=bits, host=host, weights=self.weights)
        return replace(small_job, operations=self.operations, issuing=issuing)

    def cpu(self) -> Need:
        """On the processor, in float32."""
        # all in float32: twice the bytes, but for an autoencoder that is float32 anyway
        decoding = 4 * self.pixels * self.cost.decode * self.measured.activations
        work = max(2 * self.encoding, 2 * self.denoising, decoding)
        plain = sum(size for name, size in self.sizes.items() if name not in self.packed)
        return self._need("cpu", 0.0, host=self.weights + plain + work)

    def stream(self, *, tiled: bool, pinned: bool) -> Need:
        """With two groups of a component's layers on the device; encoders work once, so the denoiser's way counts."""
        groups = {name: size * BLOCKS if size > _ALWAYS_THERE else size for name, size in self.sizes.items()}
        device = self._by_part(groups, tiled=tiled)
        streamed = self.denoiser * self.steps * (1.0 if pinned else UNPINNED)
        waiting = STREAM_STEP_S * self.steps
        return self._need("stream", device, moved=self.weights, streamed=streamed, waiting=waiting, tiled=tiled)

    def _by_part(self, sizes: Mapping[str, float], *, tiled: bool) -> float:
        """The most that is on the device at a time: what stays, and one component with what it works on."""
        stays = sum(size for size in sizes.values() if size <= _ALWAYS_THERE)
        peaks = [stays + self.decoding(tiled=tiled)]
        for name, size in sizes.items():
            comes = size if size > _ALWAYS_THERE else 0
            peaks.append(stays + comes + (self.denoising if name.startswith(_DENOISERS) else self.encoding))
        return max(peaks)

    def _need(self, kind: PlacementKind, device: float, *, host: float | None = None, **more: Any) -> Need:
        on_device = device + WORKSPACE if kind != "cpu" else 0.0
        on_host = self.weights if host is None else host
        return Need(
            kind=kind,
            device=on_device,
            host=on_host,
            weights=self.weights,
            operations=self.operations,
            issuing=self.cost.issue_s * self.steps * self.measured.seconds * (DEQUANTISE if self._is_packed else 1),
            **more,
        )
