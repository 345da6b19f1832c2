"""Mixed precision: the encoders in 16 bits, the losses and the weights in 32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgepin._errors import UsageError

PRECISIONS = ("fp32", "bf16", "fp16")
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def encode(encoder: nn.Module, items: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """`encoder(items)`, computed in `precision`: identity and pin, float32 unit vectors (N, 256)."""
    if precision == "fp32":
        identity, pin = encoder(items)
        return identity, pin
    with torch.autocast(items.device.type, _TYPES[precision]):
        identity, pin = encoder(items)
    # Rounded to 8 bits, a vector is a unit no more.
    return functional.normalize(identity.float(), dim=1), functional.normalize(pin.float(), dim=1)


def gradient_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """What keeps gradients in float16's range (Micikevicius et al. 2018, section 3.2); it does nothing for the others.

    Raises UsageError for float16 without a GPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("fp16 is for GPUs", hint='on a processor take precision = "bf16", or "fp32"')
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
