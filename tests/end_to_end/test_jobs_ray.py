"""Jobs and batches on a real Ray of two workers on this machine."""

import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from onnxplain import Explainer, OutputError
from onnxplain.jobs import ExplainBatch, Job, Output
from toy_bundle import write_toy_bundle

ray = pytest.importorskip("ray", reason="Ray is not installed (extra [ray])")
COUNT, SIZE = 240, 20

# Ray's own modules use what is deprecated in newer Pythons, and leave sockets to the end of the process.
QUIET = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
pytestmark = [
    *(pytest.mark.filterwarnings(f"ignore::{kind}") for kind in QUIET),
    pytest.mark.usefixtures("cluster"),
]


@pytest.fixture(scope="module")
def cluster():
    """Ray, started here and ended here; its actors find the packages where this process does."""
    paths = [Path(__file__).parents[2] / name for name in ("runtime", "export")]
    before = os.environ.copy()
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, paths), before.get("PYTHONPATH", "")])
    place = tempfile.mkdtemp(prefix="ray")  # sockets need a short path, which pytest's folders haven't
    memory = 200 * 2**20
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=memory, _temp_dir=place)
    yield ray
    ray.shutdown()
    shutil.rmtree(place, ignore_errors=True)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy_bundle(tmp_path_factory.mktemp("toy") / "toy.explain")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    drawn = np.random.default_rng(5)
    for number in range(COUNT):
        cv2.imwrite(str(folder / f"{number:04d}.png"), drawn.integers(0, 256, (200, 200, 3), np.uint8))
    (folder / "0100.png").write_bytes(b"nothing")
    return folder


def job(folder, pictures, out, **options):
    return Job(folder, pictures, out, "smoothgrad", output=Output(shard_size=SIZE), lanes=2, device="cpu", **options)


def tree(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def writers(folder):
    """The processes of Ray's actors that have a file of this folder open."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and b"ray::ShardActor" in (entry / "cmdline").read_bytes():
                opened = [os.readlink(file) for file in (entry / "fd").iterdir()]
                if any(name.startswith(str(folder)) for name in opened):
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_shards_of_two_actors_one_of_which_is_killed_are_those_of_one_machine(folder, pictures, tmp_path):
    assert job(folder, pictures, tmp_path / "alone").run()["failed"] == 1
    killed = []

    def kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            if there := writers(tmp_path / "ray/shards"):  # it leaves an unfinished shard behind
                os.kill(there[0], signal.SIGKILL)
                killed.append(there[0])
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    summary = job(folder, pictures, tmp_path / "ray", engine="ray").run()
    thread.join()
    assert killed
    assert (summary["explained"], summary["failed"]) == (COUNT - 1, 1)
    whole = tree(tmp_path / "alone")
    assert set(tree(tmp_path / "ray")) == set(whole)
    assert tree(tmp_path / "ray") == whole


def test_an_error_in_an_actor_is_that_of_the_job(folder, pictures, tmp_path):
    with pytest.raises(OutputError, match="max_failures"):
        job(folder, pictures, tmp_path / "out", engine="ray", max_failures=0).run()


def test_ray_data_maps_batches(folder, pictures):
    files = sorted(pictures.glob("*.png"))[:12]
    drawn = [cv2.imread(str(file))[..., ::-1] for file in files]
    data = ray.data.from_items([{"image": picture, "number": number} for number, picture in enumerate(drawn)])
    made = data.map_batches(
        ExplainBatch, fn_constructor_args=(str(folder),), batch_size=5, concurrency=1, num_cpus=1
    ).take_all()
    made.sort(key=lambda row: row["number"])
    expected = Explainer(folder, device="cpu").explain(drawn)
    np.testing.assert_allclose(np.stack([row["attribution"] for row in made]), expected.attribution, atol=2e-6)
    assert [row["target"] for row in made] == expected.targets.tolist()
