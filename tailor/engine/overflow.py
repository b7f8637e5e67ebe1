"""Keeps an overflow in one answer of vLLM out of all others, and reports it.

vLLM hands an answer's memory for keys and values on to the next one as it is, and its attention multiplies what lies behind the last token
by zero: NaN there stays NaN. It counts the NaN among an answer's logits, but for its statistics only.
"""

from collections.abc import Sequence
from typing import Any

# The stop reason of an answer that was ended here.
OVERFLOW = "overflow"


def clear_new_blocks() -> None:
    """Let vLLM zero each block of keys and values before an answer gets it, as it does for models with states.

    Call it in the process of the scheduler, before that is made.
    """
    from vllm.v1.kv_cache_interface import KVCacheConfig

    KVCacheConfig.needs_kv_cache_zeroing = property(lambda _: True)


def end_overflows(engine: Any) -> None:
    """End every answer of the engine whose logits have NaN, with the stop reason OVERFLOW. Needs VLLM_COMPUTE_NANS_IN_LOGITS."""
    from vllm.v1.engine import FinishReason

    processor = engine.output_processor
    process = processor.process_outputs

    def process_outputs(outputs: Sequence[Any], *arguments: Any, **options: Any) -> Any:
        overflows = [output for output in outputs if output.num_nans_in_logits]
        for output in overflows:
            output.finish_reason, output.stop_reason = FinishReason.ERROR, OVERFLOW
        processed = process(outputs, *arguments, **options)
        processed.reqs_to_abort.extend(output.request_id for output in overflows)
        return processed

    processor.process_outputs = process_outputs
