"""What the parity gate tries: pictures and texts of every kind that goes wrong in conversions."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
from PIL import ImageOps

from wanwu.samples import cat_photo

#: EXIF tag of the orientation, and the value for "turn by 90 degrees to see it upright".
_ORIENTATION, _ON_ITS_SIDE = 0x0112, 6

#: Some texts of one token and some that pass any maximum; the rest lie between.
TEXTS = {
    "one character": "猫",
    "two characters": "火锅",
    "a word": "高铁站",
    "a sentence": "一张清晨在湖边拍摄的、有许多人和一只白色小狗的照片",
    "over 20 tokens": "这是一张商品图：黑色真皮手提包，金属链条，正面有品牌标志，白色背景",
    "over the maximum": "万物识别私有化部署满足数据合规需求。" * 40,
    "Latin letters": "a photo of a CAT",
    "mixed": "iPhone 15 Pro 手机壳",
    "digits": "G1234次列车，2026年11月22日",
    "punctuation": "“引号”、（括号）！？…",
    "full-width": "ＡＢＣ　１２３",
    "traditional": "臺灣高鐵車站",
    "emoji": "一只🐱在睡觉",
    "a place": "寺庙",
    "an animal": "狗",
    "a vehicle": "摩托车",
}


def parity_pictures() -> dict[str, bytes]:
    """Give encoded pictures by the kind they stand for."""
    with PIL.Image.open(io.BytesIO(cat_photo())) as opened:
        cat = opened.convert("RGB")
    wide, tall = _part(cat, 16, 9), _part(cat, 9, 16)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    faded = wide.convert("RGBA")
    faded.putalpha(PIL.Image.linear_gradient("L").resize(faded.size))
    turned = PIL.Image.Exif()
    turned[_ORIENTATION] = _ON_ITS_SIDE
    return {
        "16:9": _encode(wide, "JPEG"),
        "9:16": _encode(tall, "JPEG"),
        "square": _encode(_part(cat, 1, 1), "PNG"),
        "tiny": _encode(cat.resize((7, 5)), "PNG"),
        "grayscale": _encode(cat.convert("L"), "PNG"),
        "RGBA": _encode(faded, "PNG"),
        "CMYK": _encode(tall.convert("CMYK"), "JPEG"),
        "EXIF-rotated": _encode(wide, "JPEG", exif=turned),
        "mirrored negative": _encode(ImageOps.invert(ImageOps.mirror(cat)), "PNG"),
        "noise": _encode(PIL.Image.fromarray(noise), "PNG"),
    }


def open_as_script(data: bytes) -> PIL.Image.Image:
    """Open a picture as a plain script does, except that it stands upright as people see it."""
    with PIL.Image.open(io.BytesIO(data)) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def _part(image: PIL.Image.Image, wide: int, high: int) -> PIL.Image.Image:
    """Cut the largest part of a shape out of a picture's middle."""
    unit = min(image.width / wide, image.height / high)
    size = (int(unit * wide), int(unit * high))
    return ImageOps.fit(image, size)


def _encode(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
