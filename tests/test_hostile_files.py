"""Image files that are damaged, enormous or not what their names say: one error each, and nothing but a decoder is started."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from zsadlib.datasets.folders import Sample, list_images
from zsadlib.datasets.images import load_image, load_mask


@pytest.fixture
def photograph():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


def _eps(path):
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"
    )


def _avif(path):
    path.write_bytes(b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf" + bytes(range(200)))


def _png_of(width, height):
    """A PNG that declares a size and holds next to nothing."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def _cut_short(path):
    Image.new("RGB", (99, 99), "grey").save(path, "PNG")
    path.write_bytes(path.read_bytes()[:-60])


def _forbidden(path):
    path.touch()
    path.chmod(0)


HOSTILE = {  # name -> (what is written to the path, words of the error)
    "script.png": (_eps, "it is no PNG, JPEG, BMP, TIFF or WEBP"),
    "avif.jpg": (_avif, "it is no PNG, JPEG"),
    "real-avif.jpg": (lambda p: Image.new("RGB", (8, 8)).save(p, "AVIF"), "it is no PNG, JPEG"),
    "gif.png": (lambda p: Image.new("RGB", (8, 8)).save(p, "GIF"), "it is no PNG, JPEG"),
    "text.jpg": (lambda p: p.write_text("not an image"), "it is no PNG, JPEG"),
    "bomb.png": (lambda p: p.write_bytes(_png_of(50_000, 50_000)), "more than 89 million pixels; make it smaller"),
    "large.png": (lambda p: p.write_bytes(_png_of(10_000, 10_000)), "more than 89 million pixels; make it smaller"),
    "folder.png": (lambda p: p.mkdir(), "it is a folder"),
    "empty.jpg": (lambda p: p.touch(), "it is empty"),
    "._a.jpg": (
        lambda p: p.write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + bytes(90)),
        "what macOS keeps beside",
    ),
    "cut.png": (_cut_short, "cannot be read as an image: "),
    "pipe.png": (os.mkfifo, "it is a pipe or a device"),
    "device.png": (lambda p: p.symlink_to("/dev/zero"), "it is a pipe or a device"),
    "gone.png": (lambda p: p.symlink_to(p.with_name("nowhere")), "does not exist"),
    "circle.png": (lambda p: p.symlink_to(p), "cannot be read as an image: Too many levels of symbolic links"),
    "nan.tiff": (lambda p: Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(p), "it holds NaN or infinity"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_file_is_one_sentence_that_names_it(name, tmp_path):
    make, words = HOSTILE[name]
    make(tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError) as caught:
            load_image(tmp_path / name)
    said = str(caught.value)
    assert said.startswith(str(tmp_path / name)) and words in said and "\n" not in said and "object at" not in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    _forbidden(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png cannot be read as an image: Permission denied$"):
        load_image(tmp_path / "a.png")


FAILURES = [
    MemoryError(), RuntimeError("codec\nfailed"), struct.error("unpack requires 4 bytes"), IndexError(), RecursionError("deep"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), PermissionError(13, "Permission denied"), AttributeError("x"),
]  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_however_a_decoder_fails_the_error_is_the_same_kind(failure, photograph, tmp_path, monkeypatch):
    def fail(self):
        raise failure

    photograph.save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail, raising=False)
    with pytest.raises(ValueError, match="a.png cannot be read as an image: .") as caught:
        load_image(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


def test_damaged_bytes_anywhere_end_in_an_image_or_in_a_sentence(photograph, tmp_path):
    rng, failed = np.random.default_rng(1), 0
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        file = io.BytesIO()
        photograph.save(file, kind, exif=Image.Exif())
        whole = np.frombuffer(file.getvalue(), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), 8)] = rng.integers(0, 256, 8)
            damaged[rng.integers(0, 64, 2)] = rng.integers(0, 256, 2)
            (tmp_path / "a.png").write_bytes(damaged[: rng.integers(len(whole) // 2, len(whole) + 1)])
            try:
                assert load_image(tmp_path / "a.png").mode == "RGB"
            except ValueError as error:
                failed += 1
                assert str(error).startswith(f"{tmp_path}/a.png ")
    assert failed > 100


def test_no_program_is_ever_started(tmp_path, monkeypatch):
    """Ghostscript would interpret what a stranger wrote: not even the loader of EPS files is reached."""
    trace = tmp_path / "trace"
    for name in ("gs", "gswin32c", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {trace}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it is looked for anew
    _eps(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image, pytest.raises(OSError):
        image.load()
    assert trace.exists()  # so it would have been
    trace.unlink()
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: trace.touch())
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: trace.touch())
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: trace.touch())
    with pytest.raises(ValueError, match="cannot be read"):
        load_image(tmp_path / "a.png")
    assert not trace.exists()


def test_a_bomb_takes_no_memory(tmp_path):
    (tmp_path / "bomb.png").write_bytes(_png_of(12_000, 12_000))  # 430 MB of pixels, of which Pillow would only warn
    code = (
        "import resource, sys; from zsadlib.datasets.images import load_image;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: load_image(sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "bomb.png"], capture_output=True, text=True, check=True
    )
    error, kilobytes = run.stdout.splitlines()
    assert "million pixels" in error and int(kilobytes) < 50_000 and run.stderr == ""


# ------------------------------------------------------------------------------------------- upright, and on white

TURNED = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
          5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
          8: np.rot90}  # fmt: skip
SAVED = {"a.png": {}, "a.webp": {"lossless": True}, "a.tiff": {}, "packed.tiff": {"compression": "tiff_lzw"}}


def _oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("name", SAVED)
def test_a_photograph_is_upright(name, orientation, photograph, tmp_path):
    photograph.save(tmp_path / name, exif=_oriented(orientation), **SAVED[name])
    expected = TURNED[orientation](np.asarray(photograph))
    assert np.array_equal(load_image(tmp_path / name), expected)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "packed.tiff"])
def test_a_16_bit_grey_is_upright_too(name, tmp_path):
    grey = np.random.default_rng(2).integers(0, 65536, (40, 60)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / name, exif=_oriented(6), **SAVED[name])
    expected = np.rint(np.rot90(grey, -1) / 257)
    assert np.array_equal(np.asarray(load_image(tmp_path / name))[..., 0], expected)


def test_a_phones_jpeg_of_several_pictures_is_read_and_upright(photograph, tmp_path):
    photograph.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[photograph], exif=_oriented(8), quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
        stored = np.asarray(image)
    assert np.array_equal(load_image(tmp_path / "a.jpg"), np.rot90(stored))


def test_damaged_exif_data_do_not_cost_the_photograph(photograph, tmp_path):
    photograph.save(tmp_path / "a.png", exif=b"Exif\x00\x00no TIFF header at all")
    assert np.array_equal(load_image(tmp_path / "a.png"), photograph)


def _see_through():
    """Red, half of it (by columns) transparent: as RGBA, LA, PA, and by one colour of P, RGB, L and a 16-bit grey."""
    clear = np.arange(8) < 4
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, np.where(clear, 0, 255)
    rgba[:, :4, 0] = 90  # a colour that nobody is meant to see
    picture = Image.fromarray(rgba)
    grey = Image.fromarray(np.where(clear, 90, 200).astype(np.uint8)[None].repeat(8, 0))
    deep = Image.fromarray(np.where(clear, 90, 65535).astype(np.uint16)[None].repeat(8, 0))
    indices = Image.fromarray((~clear).astype(np.uint8)[None].repeat(8, 0)).convert("P")
    indices.putpalette([90, 0, 0, 200, 0, 0])
    return {
        "RGBA.png": (picture, {}), "RGBA.webp": (picture, {"lossless": True}), "RGBA.tiff": (picture, {}),
        "LA.png": (picture.convert("LA"), {}), "P.png": (indices, {"transparency": 0}),
        "P-levels.png": (indices, {"transparency": bytes([0, 255])}),
        "RGB.png": (picture.convert("RGB"), {"transparency": (90, 0, 0)}), "L.png": (grey, {"transparency": 90}),
        "I16.png": (deep, {"transparency": 90}),
    }  # fmt: skip


@pytest.mark.parametrize("name", _see_through())
def test_what_is_transparent_lies_on_white_and_what_is_not_stays_as_it_is(name, tmp_path):
    picture, options = _see_through()[name]
    picture.save(tmp_path / name, **options)
    found = np.asarray(load_image(tmp_path / name))
    opaque = np.asarray(picture.convert("RGB")) if picture.mode != "I;16" else np.full((8, 8, 3), 255)
    assert (found[:, :4] == 255).all() and np.array_equal(found[:, 4:], opaque[:, 4:])
    assert name == "I16.png" or (found[:, 4:] < 255).any()


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 51)).save(tmp_path / "a.png")
    assert set(np.asarray(load_image(tmp_path / "a.png")).ravel()) == {204}


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "CMYK", "YCbCr", "RGBA"])
def test_without_orientation_and_transparency_no_pixel_changes(mode, photograph, tmp_path):
    picture = photograph.convert(mode)
    picture.save(tmp_path / "a.tiff")
    with Image.open(tmp_path / "a.tiff") as image:
        assert np.array_equal(load_image(tmp_path / "a.tiff"), image.convert("RGB"))


# ------------------------------------------------------------------------------------------------------------- masks


def test_the_transparency_of_a_mask_says_nothing(tmp_path):
    mask = np.zeros((8, 8, 4), np.uint8)
    mask[2:4] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found = load_mask(Sample(tmp_path / "a.png", "crack", tmp_path / "mask.png"), 8)
    assert np.array_equal(found, mask[..., 0] > 0)  # on white, nearly all of it would be a defect


@pytest.mark.parametrize("palette", [False, True])
def test_a_mask_is_turned_as_its_own_exif_data_say(palette, tmp_path):
    mask = Image.fromarray(np.tril(np.full((8, 8), 255, np.uint8), -3))
    mask.save(tmp_path / "mask.png", exif=_oriented(3))
    found = load_mask(Sample(tmp_path / "a.png", "crack", tmp_path / "mask.png", palette), 8)
    assert np.array_equal(found, np.asarray(mask)[::-1, ::-1] > 0)


@pytest.mark.parametrize("palette", [False, True])
def test_a_mask_that_cannot_be_read_is_one_sentence_too(palette, tmp_path):
    _eps(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="mask.png cannot be read as an image"):
        load_mask(Sample(tmp_path / "a.png", "crack", tmp_path / "mask.png", palette), 8)


def test_folders_and_hidden_files_are_no_pictures_of_a_set(photograph, tmp_path):
    photograph.save(tmp_path / "b.png")
    (tmp_path / "a.png").mkdir()
    (tmp_path / "._b.png").write_bytes(b"\x00\x05\x16\x07")
    assert [path.name for path in list_images(tmp_path)] == ["b.png"]
