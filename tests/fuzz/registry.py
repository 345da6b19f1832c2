"""Every target, by name."""

from __future__ import annotations

from . import bundle_targets, capture_targets, device_targets, tool_targets
from .target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (capture_targets, bundle_targets, device_targets, tool_targets)
    for target in module.TARGETS
}
