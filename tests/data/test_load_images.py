from __future__ import annotations

import io
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.shared_files import shared
from trainlet.data import Dataset, load_data
from trainlet.errors import DataError
from trainlet.ir import Quant, Value

Image = pytest.importorskip("PIL.Image")
VALUE = Value("image", "s8", (1, 8, 12, 3), Quant(2 / 255, 0))
GREY = Value("image", "f32", (1, 8, 12, 1))


def picture(path: Path, value: int, size: tuple[int, int] = (12, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(path)


def split_folder(root: Path) -> Path:
    for part, count in (("train", 3), ("test", 1)):
        for number, name in enumerate(("cat", "dog")):
            for i in range(count):
                picture(root / part / name / f"{i}.png", 100 * number + i)
    return root


def class_folder(root: Path, counts: tuple[int, ...] = (10, 5, 1)) -> Path:
    for number, count in enumerate(counts):
        for i in range(count):
            picture(root / f"class{number}" / f"{i:02}.png", 50 * number + i)
    return root


def zipped(folder: Path, inside: str = "") -> Path:
    path = folder.parent / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{inside}{file.relative_to(folder).as_posix()}")
    return path


def load(path: Path, value: Value = VALUE, classes: int | None = 3, **more: object) -> Dataset:
    return load_data(path, input=value, classes=classes, **more)  # type: ignore[arg-type]


def test_train_and_test_folders(tmp_path: Path) -> None:
    data = load(split_folder(tmp_path / "d"))
    assert data.class_names == ("cat", "dog")
    assert data.y_train.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.y_test.tolist() == [0, 1]
    assert data.x_train[:][:, 0, 0, 0].tolist() == [v - 128 for v in (0, 1, 2, 100, 101, 102)]
    assert data.x_train.dtype == np.int8
    assert data.split == "the folders train and test"


@pytest.mark.parametrize("inside", ["", "wrapped/", "two/deep/"])
def test_zip_reads_like_its_folder(tmp_path: Path, inside: str) -> None:
    folder = split_folder(tmp_path / "d")
    a, b = load(folder), load(zipped(folder, inside))
    assert (a.x_train[:] == b.x_train[:]).all()
    assert (a.y_test == b.y_test).all()


def test_class_folders_are_divided_the_same_way_every_time(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "d")
    data, again, other = load(folder), load(zipped(folder)), load(folder, seed=1)
    assert np.bincount(data.y_test, minlength=3).tolist() == [2, 1, 0]
    assert np.bincount(data.y_train, minlength=3).tolist() == [8, 4, 1]
    assert (data.x_test[:] == again.x_test[:]).all()
    assert (data.x_test[:] != other.x_test[:]).any()
    assert data.split == "20% of each class drawn for testing, seed 0"
    pixels = np.concatenate([data.x_train[:][:, 0, 0, 0], data.x_test[:][:, 0, 0, 0]])
    assert len(set(pixels.tolist())) == 16  # no image is in both parts


def test_classes_file_gives_the_order(tmp_path: Path) -> None:
    folder = split_folder(tmp_path / "d")
    (folder / "classes.txt").write_text("dog\ncat\n")
    data = load(folder)
    assert data.class_names == ("dog", "cat")
    assert data.y_test.tolist() == [1, 0]
    (folder / "classes.txt").write_text("dog\n")
    with pytest.raises(DataError, match=r"class cat is not in classes.txt"):
        load(folder)
    (folder / "classes.txt").write_text("dog\ncat\ndog\n")
    with pytest.raises(DataError, match="names a class twice"):
        load(folder)


def labelled(root: Path, table: str) -> Path:
    for i in range(4):
        picture(root / "images" / f"{i}.png", i)
    (root / "labels.csv").write_text(table)
    return root


def test_labels_file_with_names_and_split(tmp_path: Path) -> None:
    rows = ["train,images/0.png,b", "train,images/1.png,a", "test,images/2.png,a", "train,images/3.png,b"]
    data = load(labelled(tmp_path / "d", "\n".join(["split,path,label", *rows])))
    assert data.class_names == ("a", "b")
    assert data.y_train.tolist() == [1, 0, 1]
    assert data.x_test[0][0, 0, 0] == 2 - 128
    assert data.split == "the column split of labels.csv"


def test_labels_file_with_numbers_and_no_split(tmp_path: Path) -> None:
    rows = "\n".join(f"images/{i}.png,{i % 2}" for i in range(4))
    data = load(labelled(tmp_path / "d", f"path,label\n{rows}\n"))
    assert data.class_names == ("0", "1")
    assert sorted(data.y_test.tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("file,class\n", "needs the columns path and label"),
        ("path,label\nimages/9.png,1\n", r"labels.csv line 2: there is no file 'images/9.png'"),
        ("path,label\nimages/0.png,\n", r"labels.csv line 2: the label is empty"),
        ("path,label,split\nimages/0.png,1,val\n", "split 'val' is neither train nor test"),
        ("path,label\nimages/0.png,99999999999\n", "label 99999999999, which is no class number"),
        ("path,label\nimages/0.png,7\n", "holds 8 classes, the network tells 3 apart"),
        ("path,label,split\nimages/0.png,1,train\n", "leaves no images to test"),
    ],
)
def test_labels_file_that_does_not_fit_is_refused(tmp_path: Path, table: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load(labelled(tmp_path / "d", table))


def test_images_are_converted_and_resized(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    for part in ("train", "test"):
        picture(folder / part / "a" / "grey.png", 90, (5, 7), "L")
        picture(folder / part / "a" / "clear.png", 40, (30, 30), "RGBA")
    assert load(folder).x_train[:].shape == (2, 8, 12, 3)
    grey = load(folder, GREY)
    np.testing.assert_allclose(grey.x_train[:][:, 0, 0, 0], np.array([40, 90]) / 255, rtol=1e-6)
    cut = load(folder, VALUE, size=(16, 16))
    assert cut.x_train.shape == (2, 8, 12, 3)


def test_rotation_flag_of_a_camera_is_honoured(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    image = Image.fromarray(np.tile(np.arange(8, dtype=np.uint8)[:, None, None] * 30, (1, 12, 3)))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for part in ("train", "test"):
        (folder / part / "a").mkdir(parents=True)
        image.save(folder / part / "a" / "i.png", exif=exif)
    assert load(folder).x_train[0][0, 0, 0] == 210 - 128


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    folder = split_folder(tmp_path / "d")
    stored = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3)).astype(np.uint8)
    Image.fromarray(noise).save(stored, "JPEG")
    (folder / "train" / "dog" / "broken.jpg").write_bytes(stored.getvalue()[:1000])
    with pytest.raises(DataError, match=r"image train/dog/broken.jpg in .* cannot be read"):
        load(folder)
    (folder / "train" / "dog" / "broken.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"image train/dog/broken.jpg in .* cannot be read"):
        load(zipped(folder))


@pytest.mark.parametrize("where", ["train/bird", "test/bird"])
def test_empty_class_folder_is_named(tmp_path: Path, where: str) -> None:
    folder = split_folder(tmp_path / "d")
    (folder / where).mkdir()
    for path in (folder, zipped(folder)):
        with pytest.raises(DataError, match="class folder bird of .* holds no images"):
            load(path)


def test_layouts_that_are_none_are_refused(tmp_path: Path) -> None:
    folder = split_folder(tmp_path / "d")
    picture(folder / "test" / "bird" / "0.png", 1)
    with pytest.raises(DataError, match="class bird is in test but not in train"):
        load(folder)
    shutil.rmtree(folder)
    picture(folder / "a.png", 1)
    with pytest.raises(DataError, match=r"image a.png of .* is in no class folder"):
        load(folder)
    (folder / "a.png").unlink()
    with pytest.raises(DataError, match="holds no images"):
        load(folder)


def test_truncated_and_damaged_zips_are_refused(tmp_path: Path) -> None:
    path = zipped(split_folder(tmp_path / "d"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is not a complete zip file"):
        load(path)
    at = whole.index(b"IDAT") + 6
    path.write_bytes(whole[:at] + b"\xff\xff\xff" + whole[at + 3 :])
    with pytest.raises(DataError, match=r"test/cat/0.png in .*data.zip is damaged"):
        load(path)


def test_networks_without_images_or_with_fewer_classes_are_refused(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "d")
    with pytest.raises(DataError, match="holds 3 classes, the network tells 2 apart"):
        load(folder, classes=2)
    with pytest.raises(DataError, match="takes no images"):
        load(folder, Value("series", "f32", (1, 50, 6)))
    with pytest.raises(DataError, match="takes 4 channels"):
        load(folder, Value("x", "f32", (1, 8, 8, 4)))
    with pytest.raises(DataError, match="test_share 1.5"):
        load(folder, test_share=1.5)


def test_missing_pillow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = split_folder(tmp_path / "d")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match="pip install pillow"):
        load(folder)


@pytest.mark.shared
@pytest.mark.slow
def test_caltech101_zip() -> None:
    value = Value("input", "s8", (1, 128, 128, 3), Quant(0.00784313725490196, 0))
    data = load_data(shared("data/caltech101/caltech101_128.zip"), input=value, classes=101)
    assert (len(data.y_train), len(data.y_test), len(data.class_names)) == (2914, 1010, 101)
    assert data.class_names[:3] == ("Faces", "Faces_easy", "Leopards")
