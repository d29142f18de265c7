"""Number of CUDA devices, from the driver itself, without importing torch or ONNX Runtime."""

from __future__ import annotations

import ctypes


def cuda_devices() -> int:
    """Return the number of CUDA devices that the driver finds; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    works = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if works else 0
