"""How near a batch job comes to the arithmetic it needs: `python tools/jobs_speed.py BUNDLE…`.

The pictures are JPEGs of 640 × 480 that it draws. A round times three things in turns: a bare loop of runs of the
method's graph over rows that are there already, in each way of using the cores that is tried (the fastest counts); the
processor time that decoding and preprocessing take in one process; and the whole job, its pages included. The share is
(bare loop + decoding) ÷ job, once with decoding spread over the cores and once as it is.
"""

import argparse
import itertools
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np

from onnxplain import Explainer
from onnxplain.jobs import Job, Output
from onnxplain.pictures import read_picture
from onnxplain.preprocessing import is_upright, prepare

LOADED = 64
"""Pictures whose rows are held for the bare loop; more would be the memory's speed."""
WAYS = tuple(itertools.product(("lanes", "threads"), (1, 2, 4, 8)))


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--method", default="gradient")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "onnxplain-jobs-speed")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    files = draw_pictures(arguments.work / f"pictures-{arguments.pictures}", arguments.pictures)
    print("| network | bare loop, ms | decoding, processor ms | job, ms | share, decoding spread | share |")
    print("|---|---|---|---|---|---|")
    for bundle in arguments.bundles:
        found = [measured(bundle, files, arguments.method, arguments.work) for _ in range(arguments.rounds)]
        bare, decoding, job = (statistics.median(values) * 1e3 for values in zip(*found, strict=True))
        cores = os.cpu_count() or 1
        spread = statistics.median((a + b / cores) / c for a, b, c in found)
        whole = statistics.median((a + b) / c for a, b, c in found)
        print(f"| {bundle.stem} | {bare:.2f} | {decoding:.2f} | {job:.2f} | {spread:.3f} | {whole:.3f} |", flush=True)
    return 0


def draw_pictures(folder: Path, count: int) -> list[Path]:
    """JPEG files of 640 × 480: coloured waves and blots with noise, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:05d}.jpg" for number in range(count)]
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:480, :640] / 100.0
    for file in files:
        if file.exists():
            continue
        colours = []
        for _ in range(3):
            a, b, c, d = random.uniform(0.3, 4, 4)
            colours.append(np.sin(a * rows + b * np.sin(c * columns)) + np.cos(d * columns * rows / 3))
        pixels = np.stack(colours, axis=-1) * 55 + 128 + random.normal(0, 6, (480, 640, 3))
        cv2.imwrite(str(file), np.clip(pixels, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return files


def measured(bundle: Path, files: list[Path], method: str, work: Path) -> tuple[float, float, float]:
    """Seconds a picture of the fastest bare loop, of decoding (processor time), and of a whole job."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    begun = time.perf_counter()
    summary = Job(bundle, files[0].parent, out, method, output=Output()).run()
    job = (time.perf_counter() - begun) / len(files)
    if summary["explained"] != len(files):
        raise SystemExit(f"{summary['failed']} pictures failed")
    shutil.rmtree(out)
    steps = Explainer(bundle, verify=False).bundle.steps
    begun = time.process_time()
    rows = np.stack([prepare(read_picture(file, is_upright(steps)), steps).rows for file in files[:LOADED]])
    decoding = (time.process_time() - begun) / LOADED
    return min(_bare(bundle, method, rows, *way) for way in WAYS), decoding, job


def _bare(bundle: Path, method: str, rows: np.ndarray, way: str, together: int) -> float:
    """Seconds a row of a loop of runs of so many rows: in lanes of one thread, or in one of all threads."""
    cores = os.cpu_count() or 1
    lanes, threads = (cores, 1) if way == "lanes" else (1, cores)
    explainer = Explainer(bundle, verify=False, threads=threads)
    graph = explainer.bundle.graphs[explainer.bundle.methods[method].graph]
    names = {entry.role: entry.name for entry in graph.inputs}

    def loop(count: int) -> None:
        for start in range(0, count, together):
            first = start % (LOADED - together + 1)
            feeds = {
                names["image"]: rows[first : first + together],
                names["target"]: np.full((together, 1), -1, np.int64),
            }
            explainer._sessions.run(graph, ("total", "norm", "scores"), feeds)

    loop(2 * together)
    count = 2 * LOADED // lanes
    lanes_of_work = [threading.Thread(target=loop, args=(count,)) for _ in range(lanes)]
    begun = time.perf_counter()
    for lane in lanes_of_work:
        lane.start()
    for lane in lanes_of_work:
        lane.join()
    return (time.perf_counter() - begun) / (count * lanes)


if __name__ == "__main__":
    raise SystemExit(main())
