"""Maps in Parquet: what other tools read, and that nothing of it can be altered unnoticed."""

import json
import os
import sys

import numpy as np
import pytest

from onnxplain import OutputError, ParameterError
from onnxplain.jobs import Job, Output, parquet, shards, storage, verify

pq = pytest.importorskip("pyarrow.parquet")
METHODS = ["gradient", "integrated_gradients"]
PICTURES = [np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8) for seed in range(7)]
GIVEN = [*PICTURES[:4], None, *PICTURES[4:]]  # the fifth can't be explained


def run(folder, out, **output):
    Job(folder, GIVEN, out, METHODS, output=Output(shard_size=3, **output), device="cpu", workers=1).run()
    return out


@pytest.fixture(scope="module")
def outs(folder, tmp_path_factory):
    """Jobs by format and type."""
    made = {}

    def make(form="parquet", dtype="float32"):
        if (form, dtype) not in made:
            made[form, dtype] = run(folder, tmp_path_factory.mktemp("out") / "out", format=form, dtype=dtype)
        return made[form, dtype]

    return make


def expected(out):
    """The lines of a job's index, and its maps as they are in .npy files, by method."""
    lines, maps = [], {method: [] for method in METHODS}
    for shard in sorted((out / "shards").iterdir()):
        for line in shards.lines(shard / "index.jsonl"):
            lines.append(line)
            for method in METHODS:
                stored = np.load(shard / f"{method}.npy")[line["row"]].astype(np.float32)
                maps[method].append(stored * np.float32(line.get(f"{method}.scale", 1)))
    return lines, {method: np.stack(found) for method, found in maps.items()}


def tables(out):
    return sorted((out / "shards").glob(f"*/{parquet.FILE}"))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pyarrow_gives_the_index_and_the_maps_in_their_shape(outs, dtype):
    lines, maps = expected(outs("npy", dtype))
    found = [pq.read_table(path) for path in tables(outs("parquet", dtype))]
    assert len(found) == 3
    for method in METHODS:
        tensors = np.concatenate([one[method].combine_chunks().to_numpy_ndarray() for one in found])
        assert tensors.dtype == np.float32
        np.testing.assert_array_equal(tensors, maps[method])
    columns = [name for name in lines[0] if not name.endswith(".scale")]
    assert found[0].column_names == [*columns, *METHODS]
    assert [row for one in found for row in one.select(columns).to_pylist()] == [
        {name: line[name] for name in columns} for line in lines
    ]
    assert all(one.schema.equals(found[0].schema, check_metadata=True) for one in found)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pandas_and_duckdb_open_all_shards_at_once(outs, dtype):
    lines, maps = expected(outs("npy", dtype))
    pandas, duckdb = pytest.importorskip("pandas"), pytest.importorskip("duckdb")
    out = outs("parquet", dtype)
    frame = pandas.concat([pandas.read_parquet(path) for path in tables(out)])
    assert frame["number"].tolist() == [line["number"] for line in lines] == [0, 1, 2, 3, 5, 6, 7]
    np.testing.assert_array_equal(np.stack(frame["gradient"]).reshape(maps["gradient"].shape), maps["gradient"])
    query = f"""select number, gradient, "gradient.sha256" from '{out}/shards/*/{parquet.FILE}' order by number"""
    rows = duckdb.sql(query).fetchall()
    assert [(number, sha256) for number, _, sha256 in rows] == [
        (line["number"], line["gradient.sha256"]) for line in lines
    ]
    tensors = np.array([row for _, row, _ in rows], np.float32).reshape(maps["gradient"].shape)
    np.testing.assert_array_equal(tensors, maps["gradient"])


def test_the_bytes_are_the_same_each_time(folder, outs, tmp_path):
    again = run(folder, tmp_path / "out", format="parquet")
    for one, other in zip(tables(outs()), tables(again), strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert not list(again.rglob("*.npy"))
    assert verify(again) == []


def test_a_bit_flip_anywhere_is_found_and_repaired(folder, tmp_path):
    out = run(folder, tmp_path / "out", format="parquet")
    path = tables(out)[1]
    whole = path.read_bytes()
    for at in np.random.default_rng(0).choice(len(whole), 60, replace=False):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << int(at) % 8]) + whole[at + 1 :])
        assert shards.damage(path.parent, 1) == f"{path} was altered"
    for wrong in (whole[:-1], whole + b"\0", b""):
        path.write_bytes(wrong)
        assert shards.damage(path.parent, 1) == f"{path} was altered"
    run(folder, out, format="parquet")
    assert path.read_bytes() == whole
    path.unlink()
    assert "No such file" in str(shards.damage(path.parent, 1))


# The file by itself.


def written(folder, count, shape=(2, 3), **about):
    """A shard's folder with the maps of one method, row i of which is full of i; the lines of its index."""
    values = np.arange(count, dtype=np.float32)[:, None, None] * np.ones(shape, np.float32)
    file = shards.MapFile(folder / "m.npy", shape, "float32")
    file.put(0, values)
    file.close()
    lines = [{"number": 10 + row, "row": row, "name": f"{row}", "label": None, **about} for row in range(0, count, 2)]
    return lines, {"m": {"file": "m.npy", "shape": list(shape), "dtype": "float32"}}


def test_row_groups_are_bounded(tmp_path, monkeypatch):
    lines, maps = written(tmp_path, 20)
    monkeypatch.setattr(parquet, "GROUP", 3 * 24)
    about = parquet.write_maps(tmp_path, lines, maps)
    data = (tmp_path / parquet.FILE).read_bytes()
    assert about == {"bytes": len(data), "sha256": shards.digest(data)}
    assert not (tmp_path / "m.npy").exists()
    metadata = pq.read_metadata(tmp_path / parquet.FILE)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [3, 3, 3, 1]
    tensors = pq.read_table(tmp_path / parquet.FILE)["m"].combine_chunks()
    np.testing.assert_array_equal(np.asarray(tensors.to_numpy_ndarray())[:, 0, 0], np.arange(0, 20, 2))


def test_columns_have_their_types_where_all_values_are_missing(tmp_path):
    lines, maps = written(tmp_path, 3, true_label=None, right=None, box=None, **{"m.centre": None, "m.positive": None})
    parquet.write_maps(tmp_path, lines, maps)
    schema = pq.read_schema(tmp_path / parquet.FILE)
    types = {name: str(schema.field(name).type) for name in schema.names if name != "m"}
    assert types == {
        "number": "int64",
        "row": "int64",
        "name": "string",
        "label": "int64",
        "true_label": "string",
        "right": "bool",
        "box": "list<element: int64>",
        "m.centre": "list<element: double>",
        "m.positive": "double",
    }
    assert json.loads(schema.metadata[b"onnxplain"])["maps"] == {"m": [2, 3]}


def test_names_that_are_no_text_are_written_as_in_the_index(tmp_path):
    lines, maps = written(tmp_path, 1)
    parquet.write_maps(tmp_path, [{**lines[0], "name": os.fsdecode(b"caf\xe9")}], maps)
    assert pq.read_table(tmp_path / parquet.FILE)["name"].to_pylist() == ["caf\\udce9"]


def test_a_disk_that_fails_ends_with_its_error(tmp_path, monkeypatch):
    lines, maps = written(tmp_path, 20)

    class Failing:
        left = 0

        def __getattr__(self, name):
            return getattr(os, name)

        def write(self, handle, data):
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device")
            return os.write(handle, data[: max(1, len(data) // 2)])  # short writes, too

    system = Failing()
    monkeypatch.setattr(storage, "system", system)
    parquet_bytes = None
    for calls in (*range(0, 40, 3), 10_000):
        system.left = calls
        if calls < 40:
            with pytest.raises(OutputError, match=r"can't write .*maps\.parquet: No space left"):
                parquet.write_maps(tmp_path, lines, maps)
            assert (tmp_path / "m.npy").exists()
        else:
            parquet.write_maps(tmp_path, lines, maps)
            parquet_bytes = (tmp_path / parquet.FILE).read_bytes()
    monkeypatch.undo()
    lines, maps = written(tmp_path, 20)
    parquet.write_maps(tmp_path, lines, maps)
    assert (tmp_path / parquet.FILE).read_bytes() == parquet_bytes


def test_without_pyarrow_the_command_to_install_it_is_told_at_once(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ParameterError, match=r'pip install "onnxplain\[parquet\]"'):
        run(folder, tmp_path / "out", format="parquet")
    assert not (tmp_path / "out").exists()
