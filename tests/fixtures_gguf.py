"""GGUF files of miniatures, written by the package `gguf` as its tools do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


def write_gguf(file: Path, tensors: Mapping[str, NDArray[object]], quantisation: str = "Q8_0") -> Path:
    """Write tensors: matrices whose rows are whole blocks in the quantisation, and all others as they are."""
    import gguf

    kind = gguf.GGMLQuantizationType[quantisation]
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(file, "flux")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_array("some.list", ["a", "b"])
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and tensor.shape[-1] % block == 0:
            writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
