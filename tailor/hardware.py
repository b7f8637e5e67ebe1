"""Capabilities of this machine. Torch is loaded by the call, not by the import."""


def computes_in_bf16() -> bool:
    """True if the processor that runs models multiplies bf16 matrices in hardware.

    An x86 processor without AVX-512 or an older GPU emulates bf16, many times slower than f32.
    """
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
