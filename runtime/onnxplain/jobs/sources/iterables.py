"""Pictures that Python holds or makes: arrays, Pillow pictures, encoded bytes, paths, or mappings with one of these."""

from collections.abc import Iterator, Mapping
from typing import Any

from onnxplain.errors import OnnxplainError, ParameterError, PictureError
from onnxplain.jobs.items import Item
from onnxplain.jobs.sources.entries import Missing, content_of, hash_of_all, hash_of_item, is_pair, singles
from onnxplain.jobs.sources.finished import Finished
from onnxplain.jobs.sources.labels import COLUMNS, ClassOf, translation, true_class

IMAGES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp")
NAMES = ("name", "path", "id", "__key__")
"""What a mapping's keys, or a table's columns, with the picture and its name are called, if nothing else is said."""


class InMemory:
    """Any iterable of pictures, gone through in its own order; one with numbers (a list, a data set) from anywhere.

    An entry is a picture, a pair of picture and class, or a mapping with these; what comes in batches (of a loader) is
    taken apart. The pictures' numbers identify them: names may repeat.

    What makes sure that a job isn't continued with other pictures, once `recall` has told of the finished shards:
    - arrays, and lists of arrays, bytes and paths: `describe` has a hash of all of it (of a path's text);
    - a Hugging Face data set: `describe` has its own fingerprint;
    - anything else with numbers: `describe` has its length, and `items` compares the first and the last picture of
      each finished shard with what was explained;
    - what can only be gone through from its beginning, as a generator: `items` compares every picture of the finished
      shards, and an end before theirs, as that of a generator that is used up, is an error.
    A generator that gives the same pictures up to where the job was interrupted, and others from there on, can't be
    told from the right one.
    """

    def __init__(self, given: Any, columns: Mapping[str, str], class_of: ClassOf, labels: bool = True) -> None:
        self._given, self._columns, self._class_of, self._labels = given, columns, class_of, labels
        self._numbered = _is_numbered(given)
        self._translate = _own_classes(given, columns, class_of) if labels else None
        self._finished: Finished | None = None

    @property
    def count(self) -> int | None:
        """The number of pictures, where the iterable tells it."""
        return len(self._given) if self._numbered else None  # a loader's length is that of its batches

    def describe(self) -> dict[str, Any]:
        """Its kind and length, and a hash of its content where there is one to be had at little cost."""
        own = getattr(self._given, "_fingerprint", None)
        fingerprint = own if isinstance(own, str) else hash_of_all(self._given)
        columns = {**self._columns, **({} if self._labels else {"label": None})}
        kind = type(self._given).__name__
        return {"kind": kind, "pictures": self.count, "fingerprint": fingerprint, "columns": columns}

    def recall(self, finished: Finished) -> None:
        """Lets `items` compare its pictures with those of the shards that are finished."""
        self._finished = finished

    def items(self, first: int = 0) -> Iterator[Item]:
        """The pictures from that number on; ParameterError where they aren't those that were explained."""
        source = _undecoded(self._given, self._image_key())
        number = first if self._numbered else 0
        for item in self._numbered_items(source, first) if self._numbered else self._passed(source):
            self._compare(number, item)
            if number >= first:
                yield item
            number += 1
        if not number:
            raise PictureError("the source has no pictures")
        if self._finished is not None and number < self._finished.least and not self._numbered:
            raise ParameterError(
                f"the source ended after {number} pictures, of which {self._finished.least} were explained before; "
                "give it from its beginning (a generator can be gone through only once)"
            )

    def _numbered_items(self, source: Any, first: int) -> Iterator[Item]:
        if self._finished is not None:
            for number in self._finished.sample(first):
                self._compare(number, self._numbered_item(source, number))
        for number in range(first, len(source)):
            yield self._numbered_item(source, number)

    def _numbered_item(self, source: Any, number: int) -> Item:
        try:
            entry = source[number]
        except OnnxplainError:
            raise
        except Exception as error:  # a data set that can't give one picture, for whichever reason
            return Item(f"picture {number}", f"picture {number}: {type(error).__name__}: {error}")
        batch = singles(entry, self._image_key(entry))
        if batch is None:
            return self._item(number, entry)
        found = list(batch)
        if len(found) != 1:
            raise ParameterError(f"entry {number} holds {len(found)} pictures; give iter(…) of a list of batches")
        return self._item(number, found[0])

    def _passed(self, source: Any) -> Iterator[Item]:
        number = 0
        for entry in source:
            batch = singles(entry, self._image_key(entry))
            for single in [entry] if batch is None else batch:
                yield self._item(number, single)
                number += 1

    def _compare(self, number: int, item: Item) -> None:
        if self._finished is None:
            return
        if self._finished.most is not None and number >= self._finished.most:
            raise ParameterError(f"the source had {self._finished.most} pictures, and has more now")
        there = self._finished.sha256(number)
        now = None if there is None else hash_of_item(item)
        if now is not None and now != there:
            raise ParameterError(
                f"picture {number} ({item.name}) isn't the one that was explained before; give the same source, or "
                "choose another folder"
            )

    def _item(self, number: int, entry: Any) -> Item:
        label, name, picture = None, None, entry
        if isinstance(entry, Mapping):
            key = self._image_key(entry)
            if key not in entry:
                has = ", ".join(map(str, entry))
                raise ParameterError(f"picture {number} is a mapping without {key!r}; it has {has}")
            picture, label = entry[key], self._label_in(entry)
            names = [self._columns["name"]] if "name" in self._columns else NAMES
            name = next((str(entry[key]) for key in names if entry.get(key) is not None), None)
        elif is_pair(entry):
            picture, label = entry
        content, own_name = content_of(picture)
        name = name or own_name or f"picture {number}"
        if isinstance(content, Missing):
            content = f"{name}: {content}"
        return Item(name, content, self._class(name, label))

    def _label_in(self, entry: Mapping[Any, Any]) -> Any:
        names = [self._columns["label"]] if "label" in self._columns else COLUMNS
        return next((entry[key] for key in names if key in entry), None)

    def _class(self, name: str, label: Any) -> int | None:
        if not self._labels:
            return None
        return true_class(name, label if self._translate is None else self._translate(label), self._class_of)

    def _image_key(self, entry: Any = None) -> str:
        """Where the picture is in a mapping, or among a data set's columns."""
        if "image" in self._columns:
            return self._columns["image"]
        there = entry if isinstance(entry, Mapping) else getattr(self._given, "features", None) or ()
        return next((name for name in IMAGES if name in there), IMAGES[0])


def _is_numbered(given: Any) -> bool:
    """Whether an iterable gives its entries by number; torch's IterableDataset looks so, and does not."""
    streams = any(base.__name__ == "IterableDataset" for base in type(given).__mro__)
    return not streams and hasattr(given, "__getitem__") and hasattr(given, "__len__")


def _undecoded(given: Any, image: str) -> Any:
    """A Hugging Face data set with its pictures encoded, for the workers to decode; anything else as it is."""
    features = getattr(given, "features", None)
    if not isinstance(features, Mapping) or not callable(getattr(given, "cast_column", None)):
        return given
    feature: Any = features.get(image)
    own_way = (getattr(given, "format", None) or {}).get("type") or getattr(given, "_formatting", None)
    is_image = type(feature).__name__ == "Image" and getattr(feature, "decode", False)
    if not is_image or getattr(feature, "mode", None) or own_way:
        return given
    return given.cast_column(image, type(feature)(decode=False))


def _own_classes(given: Any, columns: Mapping[str, str], class_of: ClassOf) -> Any:
    """What translates a Hugging Face data set's classes into the network's; None where it has no names for them."""
    features = getattr(given, "features", None)
    if not isinstance(features, Mapping):
        return None
    names = [columns["label"]] if "label" in columns else COLUMNS
    label = next((name for name in names if name in features), None)
    known = getattr(features.get(label), "names", None)
    return translation(list(known), class_of) if known else None
