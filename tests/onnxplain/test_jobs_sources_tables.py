"""Parquet tables give their rows from wherever one begins, and a damaged part costs no more than its group."""

import json
import sys

import numpy as np
import pytest

from job_sources import CLASS_OF, archive, found, names, png, put
from onnxplain import ParameterError, PictureError
from onnxplain.jobs import Job, Output
from onnxplain.jobs.sources import find_source, tables


@pytest.fixture(scope="module")
def pa():
    pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    return pa


def table(pa, path, content, groups=4, **options):
    import pyarrow.parquet as pq

    pq.write_table(pa.table(content), path, row_group_size=groups, **options)
    return path


@pytest.mark.parametrize("first", [0, 1, 3, 4, 9, 10, 25, 30])
def test_rows_are_the_same_from_wherever_one_begins(pa, tmp_path, monkeypatch, first):
    monkeypatch.setattr(tables, "ROWS", 3)
    data = [png(number) for number in range(30)]
    for part, rows in enumerate((range(10), range(10, 10), range(10, 30))):
        content = {
            "image": pa.array([data[row] for row in rows], pa.binary()),
            "label": pa.array([row % 4 for row in rows]),
        }
        table(pa, tmp_path / f"{part}.parquet", content, groups=7)
    source = find_source(tmp_path, None, CLASS_OF, {})
    assert source.count == 30
    items = list(source.items(first))
    assert [item.content for item in items] == data[first:]
    assert [item.label for item in items] == [row % 4 for row in range(first, 30)]
    expected = [f"{tmp_path}/{0 if row < 10 else 2}.parquet/{row if row < 10 else row - 10}" for row in range(30)]
    assert names(items) == expected[first:]


def test_pictures_are_bytes_structs_or_paths(pa, tmp_path):
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": png(1), "path": "1.png"}, {"bytes": None, "path": "2.png"}, None, {"bytes": None, "path": None}]
    items = found(table(pa, tmp_path / "t.parquet", {"image": pa.array(rows, struct)}))
    missing = [f"{tmp_path}/t.parquet/{number}" for number in (2, 3)]
    assert names(items) == ["1.png", "2.png", *missing]
    assert [item.content for item in items[:2]] == [png(1), tmp_path / "2.png"]
    assert [item.content for item in items[2:]] == [f"{name}: there is no picture" for name in missing]
    paths = pa.array(["a.png", "b.png"]).dictionary_encode()
    assert [item.content for item in found(table(pa, tmp_path / "p.parquet", {"img": paths}))] == [
        tmp_path / "a.png",
        tmp_path / "b.png",
    ]
    assert len(found(table(pa, tmp_path / "l.pq", {"photo": pa.array([png()], pa.large_binary()), "n": [1]}))) == 1


def test_columns_are_told_and_what_is_wrong_with_them(pa, tmp_path):
    content = {"a": [png()], "b": [png()], "n": [1.0], "y": ["dog"], "id": [7]}
    path = table(pa, tmp_path / "t.parquet", content)
    (item,) = found(path, image="b", label="y")
    assert (item.label, item.name) == (1, "7")
    assert found(path, image="b", name="")[0].name == f"{path}/0"
    for columns, message in (
        ({}, "which column has the pictures"),
        ({"image": "c"}, "unknown column 'c'"),
        ({"image": "n"}, "holds double, no encoded pictures"),
        ({"image": "a", "label": "n2"}, "unknown column"),
        ({"picture": "a"}, "unknown column 'picture'"),
    ):
        with pytest.raises(ParameterError, match=message):
            found(path, **columns)
    with pytest.raises(ParameterError, match="labels= are for files"):
        found(path, "folders", image="a")
    with pytest.raises(ParameterError, match="no column 'b'"):
        found([path, table(pa, tmp_path / "u.parquet", {"a": [png()]})], image="b")
    with pytest.raises(ParameterError, match=r"t\.parquet is named twice"):
        found([path, path], image="b")
    put(tmp_path, "1.png")
    with pytest.raises(ParameterError, match=r"can't share a job"):
        found([path, tmp_path / "1.png"], image="b")


def test_a_column_of_names_has_no_name_twice(pa, tmp_path):
    path = table(pa, tmp_path / "t.parquet", {"image": [png()] * 3, "who": ["x", "y", "x"]})
    with pytest.raises(ParameterError, match=r"'x' stands at .*parquet/0 and at .*parquet/2"):
        found(path, name="who")


def test_the_description_changes_with_the_content(pa, tmp_path):
    def described(seed, **columns):
        path = table(pa, tmp_path / "t.parquet", {"image": [png(seed)], "label": [1]})
        return find_source(path, None, CLASS_OF, columns).describe()

    assert described(1) == described(1) == json.loads(json.dumps(described(1)))
    assert described(1) != described(2)
    assert described(1) != described(1, label="")

    def of_one_size(seed):
        path = table(pa, tmp_path / "t.parquet", {"image": [np.random.default_rng(seed).bytes(9000)] * 2}, groups=1)
        return find_source(path, None, CLASS_OF, {}).describe()

    assert of_one_size(1) == of_one_size(1)
    assert of_one_size(1) != of_one_size(2)


def test_damaged_tables_are_told_and_damaged_pages_cost_their_group(pa, tmp_path):
    data = [np.random.default_rng(row).bytes(3000) for row in range(12)]
    path = table(
        pa, tmp_path / "t.parquet", {"image": data}, compression="none", use_dictionary=False, write_page_checksum=True
    )
    whole = path.read_bytes()
    for wrong in (b"", b"PAR1", whole[:-9], whole[:200]):
        path.write_bytes(wrong)
        with pytest.raises(PictureError, match=r"t\.parquet: no Parquet file, or damaged"):
            found(path)
    at = whole.index(data[5]) + 100
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    items = found(path)
    assert [isinstance(item.content, str) for item in items] == [False] * 4 + [True] * 4 + [False] * 4
    assert items[5].content.startswith(f"{path}/5: this part of the file is damaged")
    with pytest.raises(PictureError, match="no such file"):
        found(tmp_path / "gone.parquet")


def test_without_pyarrow_the_command_to_install_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ParameterError, match=r'pip install "onnxplain\[parquet\]"'):
        found(tmp_path / "t.parquet")


@pytest.mark.parametrize("kind", ["archive", "table"])
def test_maps_are_the_same_wherever_the_pictures_lie(pa, folder, tmp_path, kind):
    files = [tmp_path / f"pics/{number}.png" for number in range(5)]
    put(tmp_path, *(f"pics/{file.name}" for file in files))
    data = [file.read_bytes() for file in files]
    if kind == "archive":
        given = archive(tmp_path / "s.tar", [(f"{number}.png", content) for number, content in enumerate(data)])
    else:
        given = table(pa, tmp_path / "t.parquet", {"image": data})
    for source, out in ((tmp_path / "pics", "files"), (given, kind)):
        Job(folder, source, tmp_path / out, output=Output(shard_size=3), device="cpu", workers=1).run()
    for shard in ("00000000", "00000001"):
        one, other = (tmp_path / out / "shards" / shard / "gradient.npy" for out in ("files", kind))
        assert one.read_bytes() == other.read_bytes()
