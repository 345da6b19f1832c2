import numpy as np
import numpy.typing as npt

def available_kernels() -> list[str]: ...

class Plan:
    def __init__(
        self,
        *,
        kernel: str,
        threads: int,
        frame_length: int,
        hop_length: int,
        fft_length: int,
        frame_lead: int,
        padding: str,
        remove_dc: bool,
        preemphasis: float,
        preemphasis_over_utterance: bool,
        window: npt.NDArray[np.float64],
        int16_scale: float,
        float_scale: float,
        mel_firsts: npt.NDArray[np.int32],
        mel_counts: npt.NDArray[np.int32],
        mel_weights: npt.NDArray[np.float32],
        log: str,
        add_floor: bool,
        floor: float,
        log_of_floor: float,
        dynamic_range: float,
        output_offset: float,
        output_scale: float,
        normalize: str,
        std_guard: float,
    ) -> None: ...
    @property
    def kernel(self) -> str: ...
    def largest(self, pcm: npt.NDArray[np.generic]) -> float: ...
    def run(self, pcm: npt.NDArray[np.generic], out: npt.NDArray[np.float32]) -> None: ...
