"""A GPU's free memory, asked of a driver that is pretended: a small C library, or an object with the same functions."""

import ctypes
import shutil
import subprocess
import sys

import pytest

from onnxplain import cuda_driver

FREE, GPUS = 5 * 10**9, 2
CALLS = (
    "cuInit",
    "cuDeviceGet",
    "cuDevicePrimaryCtxRetain",
    "cuCtxPushCurrent_v2",
    "cuMemGetInfo_v2",
    "cuCtxPopCurrent_v2",
    "cuDevicePrimaryCtxRelease_v2",
)
# As the driver's own: contexts are retained and pushed before anything is asked, and memory is that of the pushed one.
SOURCE = """
#include <stddef.h>
#include <string.h>
static char failing[64];
int retained, pushed;
static int places[2] = {11, 12};
void fail(const char *name) { strncpy(failing, name, sizeof failing - 1); }
static int wrong(const char *name) { return strcmp(failing, name) == 0 ? 2 : 0; }
int cuInit(unsigned flags) { return flags ? 1 : wrong("cuInit"); }
int cuDeviceGet(int *device, int ordinal) {
    if (ordinal < 0 || ordinal >= 2) return 101;
    *device = ordinal + 40;
    return wrong("cuDeviceGet");
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    if (wrong("cuDevicePrimaryCtxRetain")) return 2;
    *context = &places[device - 40];
    ++retained;
    return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) { if (device < 40) return 101; --retained; return 0; }
int cuCtxPushCurrent_v2(void *context) {
    if (wrong("cuCtxPushCurrent_v2") || !retained) return 2;
    pushed = *(int *)context;
    return 0;
}
int cuCtxPopCurrent_v2(void **context) {
    if (!pushed) { retained = -1; return 201; }
    *context = &places[pushed - 11];
    pushed = 0;
    return 0;
}
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    if (!pushed || wrong("cuMemGetInfo_v2")) return 201;
    *free = 5000000000u + pushed - 11;
    *total = 80000000000u;
    return 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A compiled library with the driver's functions; `fail(name)` lets one of them fail."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform == "win32":
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(SOURCE)
    file = folder / "libcuda_pretended.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(file), str(folder / "driver.c")], check=True)
    return file


@pytest.fixture
def driver(library, monkeypatch):
    monkeypatch.setattr(cuda_driver, "LIBRARIES", ("not_there.so.1", str(library)))
    pretended = ctypes.CDLL(str(library))
    pretended.fail(b"")
    yield pretended
    counts = [ctypes.c_int.in_dll(pretended, name).value for name in ("retained", "pushed")]
    assert counts == [0, 0]


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("number", range(GPUS))
def test_the_driver_tells_what_is_free_on_the_gpu_of_a_number(number):
    assert cuda_driver.load() is not None
    assert cuda_driver.free_memory(number) == FREE + number


@pytest.mark.parametrize("call", CALLS[:5])
def test_where_a_call_fails_nothing_is_known_and_nothing_is_left_open(driver, call):
    driver.fail(call.encode())
    assert cuda_driver.free_memory(0) is None


@pytest.mark.usefixtures("driver")
def test_a_gpu_that_is_not_there_has_no_memory():
    assert cuda_driver.free_memory(GPUS) is None


@pytest.mark.parametrize("missing", CALLS)
def test_a_driver_that_lacks_a_call_tells_nothing(monkeypatch, missing):
    functions = {name: lambda *_: 0 for name in CALLS if name != missing}
    monkeypatch.setattr(
        cuda_driver, "load", lambda: type("Driver", (), {k: staticmethod(v) for k, v in functions.items()})
    )
    assert cuda_driver.free_memory(0) is None


def test_without_a_driver_nothing_is_known(monkeypatch):
    monkeypatch.setattr(cuda_driver, "LIBRARIES", ("not_there.so.1",))
    assert cuda_driver.load() is None
    assert cuda_driver.free_memory(0) is None
