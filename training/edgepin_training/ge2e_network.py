"""The voice teacher as a torch module on any device, so that it labels voices that are made while the student trains.

The network and its features are those of `resemblyzer` (Apache-2.0), trained with GE2E (Wan et al. 2018): three layers of
LSTM over 40 mel bands of power, without a logarithm, of 1.6 s that were brought to -30 dBFS. `VoiceTeacher` is the
package itself, on a CPU; the two agree to float32's digits.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgepin._errors import EnvironmentFault, IntegrityError
from edgepin_kernels import LogMelSpec
from edgepin_kernels._reference import mel_filters

from .teachers import LEVEL, teacher_file

_SPEC = LogMelSpec(
    fft_length=400, num_mels=40, low_hz=0.0, mel_scale="slaney", triangles="hz", mel_norm="slaney", log="none"
)


class Ge2eNetwork(nn.Module):
    """Voices, float32 (N, 25440) at 16 kHz in any scale, 1.6 s each -> (N, 256) unit vectors, none below 0."""

    dimensions = 256

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        self.filters: Tensor
        self.window: Tensor
        self.register_buffer("filters", torch.from_numpy(mel_filters(_SPEC)).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(400), persistent=False)

    @classmethod
    def load(cls, path: Path | None = None) -> Ge2eNetwork:
        """With the weights of the installed `resemblyzer`, or of its file `pretrained.pt` at `path`.

        Raises:
            EnvironmentFault: neither is there.
            IntegrityError: the file is not that network's.
        """
        path = path or teacher_file("resemblyzer", "pretrained.pt")
        network = cls()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
            names = network.state_dict().keys()
            network.load_state_dict({name: value for name, value in state.items() if name in names})
        except OSError as error:
            raise EnvironmentFault(f"the voice teacher's {path} cannot be read: {error.strerror}") from error
        except (RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
            raise IntegrityError(f"{path} does not hold resemblyzer's network") from error
        return network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, voices: Tensor) -> Tensor:
        level = voices.square().mean(dim=1, keepdim=True).sqrt()
        scaled = voices * (LEVEL / level.clamp_min(1e-6))
        spectrum = torch.stft(
            scaled, 400, 160, window=self.window, center=True, pad_mode="constant", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        _, (hidden, _) = self.lstm(power.transpose(1, 2) @ self.filters)
        return functional.normalize(functional.relu(self.linear(hidden[-1])), dim=1)
