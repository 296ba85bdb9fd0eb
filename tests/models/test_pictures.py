"""Images that requests bring along, as vLLM is given them."""

from io import BytesIO

import pytest
from PIL import Image

pytest.importorskip("vllm")
from models.engines.vllm import _picture


def png(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.new("1", (width, height)).save(file, "png")
    return file.getvalue()


def test_an_image_is_unpacked_to_its_colours() -> None:
    picture = _picture(png(3, 2))
    assert (picture.mode, picture.size) == ("RGB", (3, 2))


@pytest.mark.parametrize(("image", "told"), [(b"no image", "not known"), (png(1 << 14, 1 << 12 | 1), "pixels")])
def test_what_is_no_image_or_too_large_is_told_without_unpacking_it(image: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        _picture(image)
