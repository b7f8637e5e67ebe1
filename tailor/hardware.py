"""What this machine computes with. Importing this module loads no torch; asking does."""


def computes_in_bf16() -> bool:
    """True where the processor that models run on multiplies bf16 matrices itself.

    An x86 processor without AVX-512, or an older GPU, only emulates it, many times slower than f32.
    """
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
