"""Choosing where to run, on machines that are pretended by replacing what onnxruntime and the system answer."""

import json
import warnings
from types import ModuleType

import numpy as np
import onnxruntime
import pytest

from onnxplain import DeviceError, Explainer, providers, runtime
from onnxplain.providers import CPU, CUDA, CUDA_OPTIONS, TRIAL_MODEL, Place, choose, options_of, place_of
from toy_bundle import write_toy_bundle


def pretend(monkeypatch, available=(CPU,), driver=True, trial=CUDA):
    """A machine whose onnxruntime has these providers, with or without driver, where the trial ran on `trial`."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(available))
    monkeypatch.setattr(providers, "has_driver", lambda: driver)

    def run_trial():
        if isinstance(trial, Exception):
            raise trial
        return trial

    monkeypatch.setattr(providers, "_try_cuda", run_trial)


GPU_BUILD = ("TensorrtExecutionProvider", CUDA, CPU)
OBSTACLES = [
    ({}, r"built without it; .*onnxplain\[gpu\]"),
    ({"available": GPU_BUILD, "driver": False}, "no NVIDIA driver"),
    ({"available": GPU_BUILD, "trial": CPU}, r"can't load its CUDA libraries.*cuda,cudnn"),
    ({"available": GPU_BUILD, "trial": RuntimeError("CUDA error 35\nat line 3")}, "failed: CUDA error 35$"),
]


@pytest.mark.parametrize(("machine", "message"), OBSTACLES)
def test_cuda_asked_for_and_absent_is_an_error_that_says_why(monkeypatch, machine, message):
    pretend(monkeypatch, **machine)
    with pytest.raises(DeviceError, match=message):
        choose("cuda")


@pytest.mark.parametrize("machine", [machine for machine, _ in OBSTACLES])
def test_auto_takes_the_cpu_where_cuda_does_not_truly_work(monkeypatch, machine, capfd):
    pretend(monkeypatch, **machine)
    assert choose("auto") == [CPU]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_cuda_is_taken_where_a_graph_ran_on_it(monkeypatch, device):
    pretend(monkeypatch, GPU_BUILD)
    assert [providers.name_of(provider) for provider in choose(device)] == [CUDA, CPU]


def test_cpu_asks_nothing_of_the_gpu(monkeypatch):
    pretend(monkeypatch, GPU_BUILD, trial=AssertionError("tried"))
    monkeypatch.setattr(providers, "has_driver", lambda: 1 / 0)
    assert choose("cpu") == [CPU]


def test_an_unknown_device_suggests_the_nearest():
    with pytest.raises(DeviceError, match="did you mean 'cuda'"):
        choose("cud")


def test_named_providers_are_taken_as_they_are(monkeypatch):
    pretend(monkeypatch, ("CoreMLExecutionProvider", CPU))
    named = [("CoreMLExecutionProvider", {"option": 1}), CPU]
    assert choose(providers=named) == named


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (CUDA, CUDA_OPTIONS),
        ((CUDA, {"device_id": 1}), {**CUDA_OPTIONS, "device_id": 1}),
        ((CUDA, {"use_tf32": "1", "prefer_nhwc": "1"}), {**CUDA_OPTIONS, "use_tf32": "1", "prefer_nhwc": "1"}),
    ],
)
def test_options_that_are_given_come_before_ours(monkeypatch, named, expected):
    pretend(monkeypatch, GPU_BUILD)
    assert choose(providers=[named, CPU]) == [(CUDA, expected), CPU]


def test_tf32_is_off_unless_asked_for(monkeypatch):
    pretend(monkeypatch, GPU_BUILD)
    for half in (False, True):  # half precision has no use of it, but without it no tensor cores
        for chosen in (choose("cuda", half=half), choose("auto", half=half), choose(providers=[CUDA], half=half)):
            assert options_of(chosen[0])["use_tf32"] == str(int(half))
        given = [(CUDA, {"use_tf32": "7"})]
        assert options_of(choose(providers=given, half=half)[0])["use_tf32"] == "7"


@pytest.mark.parametrize(("version", "said"), [("1.22.0", 1), ("1.26.4", 1), ("1.27.0", 0), ("2.0.0rc1", 0)])
def test_an_onnxruntime_that_lacks_operators_on_cuda_is_mentioned_once(monkeypatch, caplog, version, said):
    pretend(monkeypatch, GPU_BUILD)
    monkeypatch.setattr(onnxruntime, "__version__", version)
    providers._say_what_is_missing.cache_clear()
    for _ in range(2):
        assert providers.name_of(choose("cuda")[0]) == CUDA
    words = f"onnxruntime {version} has no CUDA kernels"
    assert [words in record.message for record in caplog.records] == [True] * said


def test_a_bundle_in_half_precision_takes_the_options_for_it(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("onnxplain.explainer.choose", lambda *_, half: asked.append(half) or [CPU])
    Explainer(write_toy_bundle(tmp_path / "single"))
    description = write_toy_bundle(tmp_path / "half") / "explainer.json"
    half = {**json.loads(description.read_text()), "arithmetic": {"precision": "float16", "scale": 1.0}}
    description.write_text(json.dumps(half))
    Explainer(tmp_path / "half")
    assert asked == [False, True]


@pytest.mark.parametrize(
    ("first", "place"),
    [
        (CUDA, Place(CUDA, "cuda", 0)),
        ((CUDA, {"device_id": "2", "use_tf32": "1"}), Place(CUDA, "cuda", 2)),
        ((CUDA, {"device_id": 1}), Place(CUDA, "cuda", 1)),
        (CPU, None),
        ((CPU, {}), None),
        ("TensorrtExecutionProvider", None),
    ],
)
def test_arrays_stay_on_the_device_that_was_asked_for(first, place):
    assert place_of([first, CPU]) == place
    assert place_of([CPU, CUDA]) is None


def test_a_device_without_a_number_is_refused():
    with pytest.raises(DeviceError, match="device_id='first' must be a number"):
        place_of([(CUDA, {"device_id": "first"}), CPU])


def test_what_works_beside_the_graphs_does_so_on_the_same_device():
    place = Place(CUDA, "cuda", 2)
    assert place.providers == [(CUDA, {**CUDA_OPTIONS, "device_id": "2"}), CPU]
    assert place.arena == "gpu:2"
    assert (Place(CPU, "cpu").providers, Place(CPU, "cpu").arena) == ([CPU], "cpu:0")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["CUDAExecutionProvder"], "unknown provider 'CUDAExecutionProvder'"),
        ([], "takes a list"),
        (CPU, "takes a list"),
        ([CUDA], "CUDAExecutionProvider was asked for, but no NVIDIA driver"),
        (["TensorrtExecutionProvider"], "no NVIDIA driver"),
    ],
)
def test_wrong_named_providers_are_an_error(monkeypatch, named, message):
    pretend(monkeypatch, GPU_BUILD, driver=False)
    with pytest.raises(DeviceError, match=message):
        choose(providers=named)


def test_a_session_that_fell_back_is_an_error(tmp_path):
    explainer = Explainer(write_toy_bundle(tmp_path), device="cpu")
    explainer._sessions._providers = [CUDA, CPU]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnxruntime's, about the provider that it lacks
        with pytest.raises(DeviceError, match=r"CUDAExecutionProvider was asked for, but .* on CPUExecutionProvider"):
            explainer.scores(np.zeros((1, 3, 8, 8)))


def test_the_trial_model_runs():
    session = onnxruntime.InferenceSession(TRIAL_MODEL, providers=[CPU])
    for value in (-2.0, 3.0):
        assert session.run(None, {"x": np.full((1, 1, 1, 1), value, np.float32)})[0].item() == max(0, value)


def test_the_real_trial_prints_nothing_and_says_cpu_where_there_is_no_cuda(capfd):
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the CPU build warns of a provider that it doesn't know
        assert providers._try_cuda() == CPU
    assert capfd.readouterr() == ("", "")


# The import guard.


def pretend_installed(monkeypatch, folder, *names):
    """A machine on whose module path these distributions lie, beside others."""
    for name in ("numpy-2.0", "onnxruntime_extensions-0.14", *names):
        (folder / f"{name}.dist-info").mkdir()
    monkeypatch.setattr("sys.path", [str(folder / "missing"), str(folder)])


def test_without_onnxruntime_the_error_is_one_line_with_the_command(monkeypatch):
    def missing(_):
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr(runtime.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r'^[^\n]*pip install "onnxplain\[cpu\]", or "onnxplain\[gpu\]"[^\n]*$'):
        runtime.load_onnxruntime()


def test_a_module_that_onnxruntime_itself_misses_is_not_blamed_on_onnxruntime(monkeypatch):
    def missing(_):
        raise ModuleNotFoundError("No module named 'flatbuffers'", name="flatbuffers")

    monkeypatch.setattr(runtime.importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="flatbuffers"):
        runtime.load_onnxruntime()


def test_both_distributions_warn_in_one_line_with_the_repair(monkeypatch, tmp_path):
    pretend_installed(monkeypatch, tmp_path, "onnxruntime-1.31.1", "onnxruntime_gpu-1.22.0")
    repair = "both installed.*pip uninstall -y onnxruntime onnxruntime-gpu &&"
    with pytest.warns(UserWarning, match=repair) as caught:
        assert runtime.load_onnxruntime() is onnxruntime
    assert "\n" not in str(caught[0].message)


def test_an_emptied_installation_is_an_error_with_the_repair(monkeypatch, tmp_path):
    pretend_installed(monkeypatch, tmp_path, "onnxruntime_gpu-1.22.0")
    monkeypatch.setattr(runtime.importlib, "import_module", lambda _: ModuleType("onnxruntime"))
    with pytest.raises(ImportError, match=r"empty.*--force-reinstall --no-deps onnxruntime-gpu"):
        runtime.load_onnxruntime()


def test_one_distribution_is_quiet(monkeypatch, tmp_path):
    pretend_installed(monkeypatch, tmp_path, "onnxruntime-1.31.1")
    assert runtime.load_onnxruntime() is onnxruntime
