"""What the CUDA driver says of the first GPU, as JSON on stdout.

`edgepin doctor` runs this in a process of its own, with a time limit: a broken driver may hang or end the process.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any


def probe() -> dict[str, Any]:
    """`name`, `capability`, `cuda` (the newest that the driver supports), `memory_mib`; or `error`."""
    from edgepin_kernels._cuda_driver import LIBRARY, CudaError, Driver

    try:
        driver = Driver()
        device = driver.device(0)
        major, minor = driver.compute_capability(device)
        version, memory = driver.version(), ctypes.c_size_t()
        code = ctypes.CDLL(LIBRARY).cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        return {
            "name": driver.device_name(device),
            "capability": f"sm_{major}{minor}",
            "cuda": f"{version // 1000}.{version % 1000 // 10}",
            "memory_mib": None if code else memory.value >> 20,
        }
    except CudaError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    print(json.dumps(probe()))
