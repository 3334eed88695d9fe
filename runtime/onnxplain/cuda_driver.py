"""The NVIDIA driver's library: whether it is there, and how much memory a GPU has free."""

import contextlib
import ctypes
from typing import Any

LIBRARIES = ("libcuda.so.1", "nvcuda.dll")


def load() -> Any | None:
    """The driver's library, or None where there is none."""
    for name in LIBRARIES:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    return None


def free_memory(number: int) -> int | None:
    """Bytes that are free on the GPU of this number, counted as onnxruntime does; None where the driver doesn't tell.

    It is asked in the GPU's primary context, which onnxruntime's sessions work in, too.
    """
    driver = load()
    with contextlib.suppress(AttributeError):  # a driver too old to have one of the calls
        device, context = ctypes.c_int(), ctypes.c_void_p()
        if driver is None or driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), number):
            return None
        if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
            return None
        try:
            return _free_in(driver, context)
        finally:
            driver.cuDevicePrimaryCtxRelease_v2(device)
    return None


def _free_in(driver: Any, context: ctypes.c_void_p) -> int | None:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if driver.cuCtxPushCurrent_v2(context):
        return None
    try:
        failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    return None if failed else free.value
