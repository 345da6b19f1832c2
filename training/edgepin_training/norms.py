"""What an encoder is normalized by: `norm` of the configuration."""

from __future__ import annotations

from torch import nn

NORMS = ("batch", "group", "frozen")
CHANNELS_A_GROUP = 16
"""As in Wu and He 2018, table 3."""

_BatchNorms = (nn.BatchNorm1d, nn.BatchNorm2d)


class _Still1d(nn.BatchNorm1d):
    """Uses the statistics that it has, in training too, and never changes them. Weight and bias are still trained."""

    def train(self, mode: bool = True) -> _Still1d:
        return super().train(False)


class _Still2d(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> _Still2d:
        return super().train(False)


def with_norm(module: nn.Module, norm: str) -> nn.Module:
    """The module, with its batch normalizations replaced, in place where it contains them.

    `batch` leaves them. `group` makes each a group normalization (Wu and He 2018) of 16 channels a group, where those
    divide the channels, and of all channels together where there is one value of each; what is made of a row then depends on
    that row alone. `frozen` keeps the batch normalizations, but at the statistics that they have.
    """
    if norm == "batch":
        return module
    for name, child in module.named_children():
        setattr(module, name, with_norm(child, norm))
    if not isinstance(module, _BatchNorms):
        return module
    flat = isinstance(module, nn.BatchNorm1d)
    channels = module.num_features
    if norm == "group":
        groups = 1 if flat or channels % CHANNELS_A_GROUP else channels // CHANNELS_A_GROUP
        return nn.GroupNorm(groups, channels, eps=module.eps)
    still = (_Still1d if flat else _Still2d)(channels, eps=module.eps)
    still.load_state_dict(module.state_dict())
    return still.train()


def depends_on_the_batch(module: nn.Module) -> bool:
    """Whether a batch normalization in it takes its statistics from the batch, as the module stands."""
    return any(
        isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training for part in module.modules()
    )
