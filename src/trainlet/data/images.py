"""Folders and zip files of images: which image belongs to which class and to which part.

Three layouts, tried in this order, a single folder around them being ignored:
    train/<class>/<image> and test/<class>/<image>
    labels.csv with columns path, label and, if it has one, split (train or test)
    <class>/<image>
Without a split, a seeded share of each class becomes the test part. Classes are numbered in the
order of classes.txt where there is one, else of their names.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from trainlet.data.resize import Size, decode
from trainlet.errors import DataError

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
PARTS = ("train", "test")
MAX_CLASSES = 65536  # a larger class number is a mistake, not a class
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


@dataclass(frozen=True)
class Tree:
    """Files and folders under `place` by their relative path ("train/cat/1.jpg"), and how to read one."""

    place: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    read: Callable[[str], bytes]

    @property
    def images(self) -> list[str]:
        return [f for f in self.files if PurePosixPath(f).suffix.lower() in SUFFIXES]

    def text(self, name: str) -> str | None:
        """Contents of a file at the top, None without it."""
        if name not in self.files:
            return None
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(f"{name} in {self.place} is not UTF-8 text") from None

    def below(self, folder: str) -> Tree:
        """The part under one folder."""
        cut = f"{folder}/"

        def inside(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(n.removeprefix(cut) for n in names if n.startswith(cut))

        return Tree(self.place, inside(self.files), inside(self.folders), lambda name: self.read(cut + name))


@dataclass(frozen=True)
class Listing:
    """Images and class numbers of both parts, the names of the classes, and how the parts were made."""

    paths: Mapping[str, list[str]]
    labels: Mapping[str, np.ndarray]
    class_names: tuple[str, ...]
    split: str


def open_tree(path: Path) -> Tree:
    """The files of a folder or a zip. Raises DataError when a zip is damaged."""
    tree = _folder(path) if path.is_dir() else _zip(path)
    while (top := _wrapper(tree)) is not None:
        tree = tree.below(top)
    return tree


def _wrapper(tree: Tree) -> str | None:
    """The single folder around everything, unless it is itself a class of images."""
    tops = {n.split("/")[0] for n in (*tree.files, *tree.folders)}
    top = next(iter(tops), "")
    wraps = f"{top}/labels.csv" in tree.files or any(n.count("/") > 1 for n in tree.files)
    return top if len(tops) == 1 and wraps else None


def _visible(name: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _folder(path: Path) -> Tree:
    names = sorted((p.relative_to(path).as_posix(), p.is_dir()) for p in path.rglob("*"))
    files = tuple(n for n, is_dir in names if not is_dir and _visible(n))
    folders = tuple(n for n, is_dir in names if is_dir and _visible(n))
    return Tree(str(path), files, folders, lambda name: (path / name).read_bytes())


def _zip(path: Path) -> Tree:
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED:
        raise DataError(f"{path} is not a complete zip file; copy or download it again") from None
    names = sorted(n for n in archive.namelist() if _visible(n))
    files = tuple(n for n in names if not n.endswith("/"))
    parents = {p.as_posix() for n in files for p in PurePosixPath(n).parents} - {"."}
    folders = tuple(sorted(parents | {n.rstrip("/") for n in names if n.endswith("/")}))

    def read(name: str) -> bytes:
        try:
            return archive.read(name)
        except DAMAGED:
            raise DataError(f"{name} in {path} is damaged; copy or download the zip again") from None

    return Tree(str(path), files, folders, read)


def list_images(tree: Tree, seed: int, test_share: float) -> Listing:
    """Who is in which class and part. Raises DataError where the layout is none of the three."""
    if not tree.images:
        raise DataError(f"{tree.place} holds no images ({', '.join(sorted(SUFFIXES))})")
    if set(PARTS) <= {f.split("/")[0] for f in tree.folders}:
        return _parts(tree)
    if (table := tree.text("labels.csv")) is not None:
        return _table(tree, table, seed, test_share)
    paths, owners = _classes(tree, tree.place)
    names = _class_names(tree, sorted(set(owners)))
    return _divide(paths, _number(owners, names), names, seed, test_share)


def _parts(tree: Tree) -> Listing:
    """train/<class>/<image>, test/<class>/<image>."""
    found = {part: _classes(tree.below(part), f"{part} in {tree.place}") for part in PARTS}
    names = _class_names(tree, sorted(set(found["train"][1])))
    if unknown := sorted(set(found["test"][1]) - set(names)):
        raise DataError(f"class {unknown[0]} is in test but not in train of {tree.place}")
    paths = {part: [f"{part}/{p}" for p in found[part][0]] for part in PARTS}
    labels = {part: _number(found[part][1], names) for part in PARTS}
    return Listing(paths, labels, names, "the folders train and test")


def _classes(tree: Tree, where: str) -> tuple[list[str], list[str]]:
    """Images and the class folder of each. Raises DataError where a folder is empty or an image in none."""
    images = tree.images
    owners = [image.split("/")[0] for image in images]
    if loose := [image for image in images if "/" not in image]:
        raise DataError(f"image {loose[0]} of {where} is in no class folder; put images into <class>/<image>")
    if empty := sorted({f.split("/")[0] for f in tree.folders} - set(owners)):
        raise DataError(f"class folder {empty[0]} of {where} holds no images; fill or remove it")
    return images, owners


def _class_names(tree: Tree, found: Sequence[str]) -> tuple[str, ...]:
    """Names in the order of classes.txt, else as found."""
    text = tree.text("classes.txt")
    if text is None:
        return tuple(found)
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(set(names)) < len(names):
        raise DataError(f"classes.txt in {tree.place} names a class twice")
    if missing := sorted(set(found) - set(names)):
        raise DataError(f"class {missing[0]} is not in classes.txt of {tree.place}")
    return names


def _number(owners: Sequence[str], names: Sequence[str]) -> np.ndarray:
    numbers = {name: i for i, name in enumerate(names)}
    return np.array([numbers[owner] for owner in owners], np.int32)


def _table(tree: Tree, text: str, seed: int, test_share: float) -> Listing:
    """labels.csv: path, label (a number or a name), and split if it has that column."""
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = set(rows[0]) if rows else set()
    if not {"path", "label"} <= columns:
        raise DataError(f"labels.csv in {tree.place} needs the columns path and label, and a row per image")
    known = set(tree.files)
    paths, owners, parts = [], [], []
    for line, row in enumerate(rows, start=2):
        path, label, part = row["path"] or "", row["label"] or "", row.get("split") or ""
        if path not in known:
            raise DataError(f"labels.csv line {line}: there is no file {path!r} in {tree.place}")
        if "split" in columns and part not in PARTS:
            raise DataError(f"labels.csv line {line}: split {part!r} is neither train nor test")
        paths.append(path)
        owners.append(label.strip())
        parts.append(part)
    labels, names = _csv_labels(tree, owners)
    if "split" not in columns:
        return _divide(paths, labels, names, seed, test_share)
    rows_of = {part: [i for i, p in enumerate(parts) if p == part] for part in PARTS}
    return Listing(
        {part: [paths[i] for i in rows_of[part]] for part in PARTS},
        {part: labels[rows_of[part]] for part in PARTS},
        names,
        "the column split of labels.csv",
    )


def _csv_labels(tree: Tree, owners: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers and names of a label column: all non-negative whole numbers, or all names."""
    if "" in owners:
        raise DataError(f"labels.csv line {owners.index('') + 2}: the label is empty")
    if not all(o.isascii() and o.isdigit() for o in owners):
        names = _class_names(tree, sorted(set(owners)))
        return _number(owners, names), names
    if large := [o for o in owners if int(o) >= MAX_CLASSES]:
        raise DataError(f"labels.csv has label {large[0]}, which is no class number below {MAX_CLASSES}")
    labels = np.array([int(o) for o in owners], np.int32)
    names = _class_names(tree, ())
    if names and labels.max() >= len(names):
        raise DataError(f"labels.csv has label {labels.max()}, classes.txt names {len(names)} classes")
    return labels, names or tuple(str(i) for i in range(labels.max() + 1))


def _divide(
    paths: Sequence[str], labels: np.ndarray, names: tuple[str, ...], seed: int, share: float
) -> Listing:
    """A seeded share of each class, at least one image of two or more, is the test part."""
    test: list[int] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(share * len(members))) if len(members) > 1 else 0
        test += np.random.default_rng((seed, int(label))).permutation(members)[:count].tolist()
    chosen = {"test": sorted(test), "train": sorted(set(range(len(paths))) - set(test))}
    return Listing(
        {part: [paths[i] for i in rows] for part, rows in chosen.items()},
        {part: labels[rows] for part, rows in chosen.items()},
        names,
        f"{share:.0%} of each class drawn for testing, seed {seed}",
    )


def read_images(tree: Tree, paths: Sequence[str], channels: int, size: Size, through: Size) -> np.ndarray:
    """uint8 (M, *size, channels). Raises DataError naming the image that cannot be read."""
    pixels = np.empty((len(paths), *size, channels), np.uint8)
    for i, path in enumerate(paths):
        pixels[i] = decode(tree.read(path), f"{path} in {tree.place}", channels, size, through)
    return pixels
