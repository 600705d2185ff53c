# Copyright 2026 The DenseCLIP for Transformers authors.
# SPDX-License-Identifier: Apache-2.0
"""ADE20K: its classes, a folder of its form, and the download from a server on loopback."""

import contextlib
import hashlib
import io
import json
import shutil
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import PIL.Image
import pytest

from tests.test_training_data import as_mask, write_pair
from training.data.ade20k import FOLDER, download_ade20k
from training.data.files import read_ade20k_classes
from training.data.load import load_data
from training.data.transforms import read_mask


FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "ade20k.json").read_text())
TINY = {"training": 2, "validation": 1}


def write_tiny_ade20k(parent: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, count in TINY.items():
        for index in range(count):
            ids = generator.integers(0, 151, (8, 10))
            write_pair(parent / FOLDER, f"ADE_{split}_{index}", as_mask(ids), split=split)
    return parent / FOLDER


def test_classes_are_the_published_ones():
    names, palette = read_ade20k_classes()
    assert names == [name.strip() for name in FIXTURE["classes"]]
    assert [list(colour) for colour in palette] == FIXTURE["palette"]
    assert len(set(names)) == 150


def test_folder_is_taken_itself_or_by_its_parent(tmp_path):
    folder = write_tiny_ade20k(tmp_path)
    for data_dir in (folder, tmp_path):
        data = load_data("ade20k", data_dir=data_dir)
        assert (len(data.train), len(data.validation)) == (2, 1)
        assert data.reduce_labels and data.name == "ADE20K" and len(data.class_names) == len(data.palette) == 150
    # Raw: as the file has them.
    path = folder / "annotations/training/ADE_training_0.png"
    assert np.array_equal(read_mask(data.train[0]["annotation"]), np.asarray(PIL.Image.open(path)))


def test_other_numbers_of_images_are_warned_about(tmp_path, monkeypatch):
    write_tiny_ade20k(tmp_path)
    warnings = []
    monkeypatch.setattr("training.data.ade20k.logger.warning", warnings.append)
    load_data("ade20k", data_dir=tmp_path, splits=("validation",))
    assert len(warnings) == 1 and "has 1 validation images, where ADE20K has 2,000" in warnings[0]
    monkeypatch.setattr("training.data.ade20k.NUM_IMAGES", TINY)
    load_data("ade20k", data_dir=tmp_path)
    assert len(warnings) == 1


def test_ids_of_the_full_ade20k_are_refused(tmp_path):
    folder = write_tiny_ade20k(tmp_path)
    as_mask(np.full((8, 10), 151)).save(folder / "annotations/validation/ADE_validation_0.png")
    with pytest.raises(ValueError, match=r"ADE_validation_0\.png holds the id 151; with 150 classes .* \[1, 150\]"):
        load_data("ade20k", data_dir=tmp_path, splits=("validation",))


def test_wrong_folder_and_wrong_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match=f"neither images/ .* nor a folder {FOLDER}"):
        load_data("ade20k", data_dir=tmp_path)
    for option in ({"reduce_labels": False}, {"class_names_file": "names.txt"}):
        with pytest.raises(ValueError, match="ADE20K has its own classes"):
            load_data("ade20k", data_dir=tmp_path, **option)


# ------------------------------------------------------------------------------------------------------------ download


class Server(ThreadingHTTPServer):
    """Serves `content` under any path; closes the connection after `cut` bytes of a request, once for each entry."""

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.knows_ranges = content, True
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []  # of the requests so far
        self.url = f"http://127.0.0.1:{self.server_port}/{FOLDER}.zip"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        requested = self.headers.get("Range")
        self.server.ranges.append(requested)
        content, start = self.server.content, 0
        if requested is not None and self.server.knows_ranges:
            start = int(requested.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        self.wfile.write(content[start:] if cut is None else content[start : start + cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    # What arrives is written in pieces of this size, 10 MB otherwise.
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    folder = write_tiny_ade20k(tmp_path / "source")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.*")):
            file.write(path, path.relative_to(folder.parent))
        # Something that does not shrink, so that there is something to cut.
        file.writestr(f"{FOLDER}/noise", np.random.default_rng(0).bytes(200_000))
        file.writestr("../outside.txt", "must not leave the folder")
    with Server(archive.getvalue()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def download(server: Server, cache_dir: Path, num_images=TINY, sha1=None) -> Path:
    sha1 = hashlib.sha1(server.content).hexdigest() if sha1 is None else sha1
    return download_ade20k(cache_dir, server.url, sha1, num_images)


def assert_complete(folder: Path, cache_dir: Path) -> None:
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    assert len(files) == 3
    for file in files:
        source = cache_dir.parent / "source" / FOLDER / file
        assert (folder / file).read_bytes() == source.read_bytes()
    # Neither the archive nor anything temporary is left, and nothing lies beside.
    assert {path.name for path in folder.parent.iterdir()} <= {FOLDER, f"{FOLDER}.zip.lock"}
    assert not (cache_dir / "outside.txt").exists()


def test_archive_is_downloaded_once(server, tmp_path):
    cache_dir = tmp_path / "cache"
    assert_complete(download(server, cache_dir), cache_dir)
    assert server.ranges == [None]
    assert_complete(download(server, cache_dir), cache_dir)
    assert server.ranges == [None]


def test_connection_that_breaks_is_taken_up_again(server, tmp_path):
    server.cuts = [70_000]
    cache_dir = tmp_path / "cache"
    # huggingface_hub takes it up itself, or in its earlier releases when it is called again.
    with contextlib.suppress(Exception):
        download(server, cache_dir)
    assert_complete(download(server, cache_dir), cache_dir)
    assert server.ranges == [None, "bytes=70000-"]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_process_that_ended_is_taken_up_again(server, tmp_path, knows_ranges):
    server.knows_ranges = knows_ranges
    cache_dir = tmp_path / "cache"
    incomplete = cache_dir / "downloads" / f"{FOLDER}.zip.incomplete"
    incomplete.parent.mkdir(parents=True)
    incomplete.write_bytes(server.content[:50_000])
    assert_complete(download(server, cache_dir), cache_dir)
    assert server.ranges == ["bytes=50000-"]


def test_process_that_ended_after_the_last_byte_needs_no_server(server, tmp_path):
    cache_dir = tmp_path / "cache"
    incomplete = cache_dir / "downloads" / f"{FOLDER}.zip.incomplete"
    incomplete.parent.mkdir(parents=True)
    incomplete.write_bytes(server.content)
    assert_complete(download(server, cache_dir), cache_dir)
    assert server.ranges == []


def test_process_that_ended_while_unpacking_is_taken_up_again(server, tmp_path):
    cache_dir = tmp_path / "cache"
    downloads = cache_dir / "downloads"
    (downloads / f"{FOLDER}.incomplete" / FOLDER / "images" / "training").mkdir(parents=True)
    (downloads / f"{FOLDER}.incomplete" / FOLDER / "images" / "training" / "half.jpg").touch()
    (downloads / f"{FOLDER}.zip").write_bytes(server.content)
    assert_complete(download(server, cache_dir), cache_dir)
    assert server.ranges == []


def test_wrong_checksum_is_refused_and_nothing_is_left(server, tmp_path):
    with pytest.raises(ValueError, match="with the SHA-1 .* has to be 0000.*Try once more"):
        download(server, tmp_path / "cache", sha1="0" * 40)
    assert {path.name for path in (tmp_path / "cache" / "downloads").iterdir()} <= {f"{FOLDER}.zip.lock"}


def test_wrong_counts_are_refused_and_nothing_is_unpacked(server, tmp_path):
    with pytest.raises(ValueError, match=r"holds 1 files in .*/images/validation, and has to hold 2,000"):
        download(server, tmp_path / "cache", num_images={"training": 2, "validation": 2000})
    assert not (tmp_path / "cache" / "downloads" / FOLDER).exists()
    assert not (tmp_path / "cache" / "downloads" / f"{FOLDER}.incomplete").exists()


def test_data_set_without_a_folder_is_the_downloaded_one(server, tmp_path, monkeypatch):
    download(server, tmp_path / "cache")
    monkeypatch.setattr("training.data.ade20k.NUM_IMAGES", TINY)
    data = load_data("ade20k", cache_dir=tmp_path / "cache")
    assert (len(data.train), len(data.validation)) == (2, 1)
    assert data.train[0]["image"].size == (10, 8)
    assert server.ranges == [None]


# --------------------------------------------------------------------------------------------------- hostile archives


def add_members(server: Server, *members: tuple[str | zipfile.ZipInfo, bytes]) -> None:
    archive = io.BytesIO(server.content)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        for member, content in members:
            file.writestr(member, content)
    server.content = archive.getvalue()


def link(name: str, target: Path) -> tuple[zipfile.ZipInfo, bytes]:
    member = zipfile.ZipInfo(name)
    member.create_system = 3  # Unix
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member, str(target).encode()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archive_writes_nothing_outside_its_folder(server, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    add_members(
        server,
        *((f"{'../' * depth}escaped.txt", b"x") for depth in range(1, 6)),
        (f"{FOLDER}/images/../../../../escaped.txt", b"x"),
        ("..\\..\\escaped.txt", b"x"),
        (str(outside / "escaped.txt"), b"x"),
        (f"//{outside}/escaped.txt", b"x"),
        link(f"{FOLDER}/link.txt", outside / "escaped.txt"),
        # Were the first a link, the second would be written through it.
        link(f"{FOLDER}/door", outside),
        (f"{FOLDER}/door", b"x"),
    )
    cache_dir = tmp_path / "cache"
    folder = download(server, cache_dir)
    assert_complete(folder, cache_dir)
    assert list(outside.iterdir()) == []
    assert not [path for path in tmp_path.rglob("*escaped*") if not path.is_relative_to(folder)]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert (folder / "link.txt").read_text() == str(outside / "escaped.txt"), "a plain file"


def test_member_that_is_there_twice_is_no_further_image(server, tmp_path):
    with zipfile.ZipFile(io.BytesIO(server.content)) as archive:
        name = next(name for name in archive.namelist() if name.startswith(f"{FOLDER}/images/training/"))
    with pytest.warns(UserWarning, match="Duplicate name"):
        add_members(server, (name, b"another one"))
    with pytest.raises(ValueError, match="holds 2 files in .*/images/training, and has to hold 3"):
        download(server, tmp_path / "cache", num_images={"training": 3, "validation": 1})
    assert not (tmp_path / "cache" / "downloads" / FOLDER).exists()


def test_archive_that_swells_beyond_the_disk_is_not_begun(server, tmp_path, monkeypatch):
    add_members(server, (f"{FOLDER}/zeros", bytes(50 * 2**20)))
    assert len(server.content) < 2**20
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("training.data.ade20k.shutil.disk_usage", lambda path: usage._replace(free=50 * 2**20))
    with pytest.raises(OSError, match="holds 50 MB, and .* has 50 MB left. Make room"):
        download(server, tmp_path / "cache")
    downloads = tmp_path / "cache" / "downloads"
    assert {path.name for path in downloads.iterdir()} <= {f"{FOLDER}.zip", f"{FOLDER}.zip.lock"}
    # With room, the archive that is there is unpacked.
    monkeypatch.setattr("training.data.ade20k.shutil.disk_usage", lambda path: usage._replace(free=52 * 2**20))
    download(server, tmp_path / "cache")
    assert len(server.ranges) == 1


def test_member_gives_no_more_than_it_declares(server, tmp_path):
    add_members(server, (f"{FOLDER}/zeros", bytes(2**20)))
    # The size of the last entry of the central directory, and of its own header.
    content = bytearray(server.content)
    for signature, field in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = content.rindex(signature) + field
        assert content[place : place + 4] == (2**20).to_bytes(4, "little")
        content[place : place + 4] = (1000).to_bytes(4, "little")
    server.content = bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        download(server, tmp_path / "cache")
    assert not (tmp_path / "cache" / "downloads" / FOLDER).exists()
    assert all(path.stat().st_size <= 200_000 for path in tmp_path.rglob("zeros"))


def test_archive_that_lay_there_is_not_trusted(server, tmp_path):
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir(parents=True)
    with zipfile.ZipFile(downloads / f"{FOLDER}.zip", "w") as archive:
        archive.writestr(f"{FOLDER}/images/training/strange.png", b"x")
    assert_complete(download(server, tmp_path / "cache"), tmp_path / "cache")
    assert server.ranges == [None]
