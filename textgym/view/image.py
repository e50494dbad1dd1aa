"""An episode as a picture of fixed size, for ``rgb_array`` rendering and videos.

Left out on purpose: fonts. Pillow's built-in one is drawn, so that a frame is the same on every machine and nothing is
downloaded; it has little beyond ASCII, and what it lacks is drawn as the box that Pillow draws.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Release
from textgym.tokenizer import TextTokenizer
from textgym.view.cells import Cell, cells, summary

try:
    from PIL import Image, ImageDraw, ImageFont
except ImportError as error:
    raise ImportError(
        "frames of render_mode 'rgb_array' are drawn with Pillow, which is not installed; run pip install 'textgym[render]'"
    ) from error

Colour = tuple[int, int, int]

# Greys have no hue, so whatever is coloured in a frame is a reward.
_PAPER: Colour = (250, 250, 250)
_LINE: Colour = (222, 222, 222)
_AGENT: Colour = (32, 32, 32)
_ENVIRONMENT: Colour = (128, 128, 128)
_PROMPT: Colour = (165, 165, 165)
_GAIN: tuple[Colour, Colour, Colour] = ((222, 243, 226), (118, 205, 137), (24, 112, 52))  # faintest, strongest, number
_LOSS: tuple[Colour, Colour, Colour] = ((252, 226, 223), (240, 142, 134), (172, 36, 28))

_MARKS = str.maketrans({"\t": "»  "})
# Line breaks, and words with the spaces before them, as byte-pair vocabularies cut text.
_ATOM = re.compile(r"\n|[^\S\n]*[^\s]+|[^\S\n]+")


@dataclass(frozen=True)
class _Piece:
    """Part of a cell that stands on one line."""

    text: str
    ink: Colour
    width: float
    """Pixels that it takes."""
    chip: Colour | None = None
    """Background; None where nothing was earned."""
    number: str = ""
    number_ink: Colour = _PAPER
    is_break: bool = False
    """A line break: drawn as a mark, and the line ends after it."""


@dataclass(frozen=True)
class _Look:
    """Fonts, and distances in pixels, that follow from the font size."""

    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    small: ImageFont.FreeTypeFont | ImageFont.ImageFont
    """For numbers, footer and the mark of hidden lines."""
    text_height: int
    number_height: int
    line_height: int
    """From one line of text to the next: the text, the numbers under it, air."""
    margin: int
    padding: int
    """Left and right of the text on a chip."""


def image_frame(
    episode: Episode,
    release: Release | None,
    tokenizer: TextTokenizer,
    *,
    width: int = 640,
    height: int = 360,
    font_size: int = 18,
) -> npt.NDArray[np.uint8]:
    """Draw prompt and response, and once released each token's reward and the return. Returns uint8 (height, width, 3).

    The prompt is light grey, what the environment wrote is grey, what the agent wrote is near black. A rewarded token
    stands on green, a penalised one on red, the stronger the nearer to the episode's largest, with the number under it. A
    text that is longer than the frame shows its newest lines.

    Args:
        episode: the finished episode, or the text so far.
        release: its release; None while the text is still growing.
        tokenizer: the tokenizer that the episode was written with.
        width: pixels, even.
        height: pixels, even.
        font_size: pixels of the text; everything else follows from it.

    Raises:
        ValueError: a size is too small or odd, or the release is of another episode.
    """
    look = _check_sizes(width, height, font_size)
    shown = cells(episode, release, tokenizer)
    lines = _wrap(_pieces(episode.prompt.text, shown, look, width - 2 * look.margin), look, width - 2 * look.margin)
    image = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(image)

    room = (height - _head(look) - _foot(look)) // look.line_height
    hidden = max(0, len(lines) - room)
    if hidden:
        mark = f"\u2026 earlier lines hidden: {hidden}"
        draw.text((look.margin, _head(look) // 2), mark, _PROMPT, look.small, anchor="lm")
    for row, line in enumerate(lines[hidden:]):
        x = float(look.margin)
        for piece in line:
            _draw_piece(draw, piece, round(x), _head(look) + row * look.line_height, look)
            x += piece.width

    count = f"{len(shown)} token{'' if len(shown) == 1 else 's'}"
    _draw_footer(draw, "" if release is None else summary(shown, release.criteria), count, image.size, look)
    return np.array(image, dtype=np.uint8)


@functools.lru_cache(maxsize=8)
def _look(font_size: int) -> _Look:
    small_size = max(8, round(0.66 * font_size))
    text_height, number_height = round(1.3 * font_size), round(1.2 * small_size)
    return _Look(
        font=ImageFont.load_default(size=font_size),
        small=ImageFont.load_default(size=small_size),
        text_height=text_height,
        number_height=number_height,
        line_height=text_height + number_height + max(2, font_size // 4),
        margin=round(1.2 * font_size),
        padding=max(1, font_size // 6),
    )


def _head(look: _Look) -> int:
    """Height above the first line: room for the mark of hidden lines."""
    return look.margin + look.number_height // 2


def _foot(look: _Look) -> int:
    """Height of the footer."""
    return 2 * look.number_height + 4


def _check_sizes(width: int, height: int, font_size: int) -> _Look:
    """Refuse a frame that has no room for one line, or that a video encoder would refuse; give the look of the rest."""
    if not isinstance(font_size, int) or not 8 <= font_size <= 96:
        raise ValueError(f"font_size is {font_size!r}; allowed are whole numbers 8..96, in pixels; the default is 18")
    look = _look(font_size)
    smallest = {"width": 2 * look.margin + 8 * font_size, "height": _head(look) + look.line_height + _foot(look)}
    for name, size in (("width", width), ("height", height)):
        least = smallest[name] + smallest[name] % 2
        if not isinstance(size, int) or size < least or size % 2:
            raise ValueError(
                f"{name} is {size!r}; allowed are even whole numbers of at least {least} pixels at font_size {font_size} "
                "(video encoders take no odd ones); give another size or a smaller font_size"
            )
    return look


def _pieces(prompt: str, shown: Sequence[Cell], look: _Look, room: float) -> list[_Piece]:
    """Cut the prompt and the cells into pieces of at most ``room`` pixels."""
    pieces = [_piece(part, _PROMPT, look) for part in _parts(prompt, look, room)]
    largest = max((abs(cell.reward or 0.0) for cell in shown), default=0.0)
    for cell in shown:
        ink = _AGENT if cell.by_agent else _ENVIRONMENT
        parts = _parts(cell.text, look, room)
        if not cell.reward:
            pieces += [_piece(part, ink, look) for part in parts]
            continue
        numbers = [""] * (len(parts) - 1) + [f"{cell.reward:+.3g}"]
        for part, number in zip(parts, numbers, strict=True):
            word = part.lstrip(" ") or part
            if word != part:  # the space before a word is its token's too, but chips read better apart
                pieces.append(_piece(part[: -len(word)], ink, look))
            pieces.append(_chip(_piece(word, ink, look), number, cell.reward / largest, look))
    return pieces


def _parts(text: str, look: _Look, room: float) -> list[str]:
    """Cut ``text`` where a line may break: at words, and inside of what is longer than a line."""
    parts: list[str] = []
    for atom in _ATOM.findall(text.translate(_MARKS)):
        width = look.font.getlength(atom)
        size = len(atom) if width <= room else max(1, int(len(atom) * room / width / 4))
        parts += [atom[at : at + size] for at in range(0, len(atom), size)]
    return parts


def _piece(part: str, ink: Colour, look: _Look) -> _Piece:
    if part == "\n":
        return _Piece("", ink, width=look.text_height / 2, is_break=True)
    return _Piece(part, ink, width=look.font.getlength(part))


def _chip(piece: _Piece, number: str, share: float, look: _Look) -> _Piece:
    """Put a piece on the colour of its reward; ``share`` is the reward by the episode's largest, in -1..1."""
    faint, strong, number_ink = _GAIN if share > 0 else _LOSS
    red, green, blue = (round(a + abs(share) * (b - a)) for a, b in zip(faint, strong, strict=True))
    return replace(
        piece,
        width=max(piece.width, look.small.getlength(number)) + 2 * look.padding,
        chip=(red, green, blue),
        number=number,
        number_ink=number_ink,
    )


def _words(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Group the pieces that a line should not break between: tokens are mostly parts of words."""
    words: list[list[_Piece]] = []
    last: _Piece | None = None
    for piece in pieces:
        if last is None or last.is_break or last.text[-1:].isspace() or piece.text[:1].isspace():
            words.append([])
        words[-1].append(piece)
        last = piece
    return words


def _wrap(pieces: Sequence[_Piece], look: _Look, room: float) -> list[list[_Piece]]:
    """Lay pieces on lines of at most ``room`` pixels."""
    lines: list[list[_Piece]] = [[]]
    left = room
    for word in _words(pieces):
        width = sum(piece.width for piece in word)
        if left < width <= room:
            lines.append([])
            left = room
            word[0] = _unindented(word[0], look)
        for piece in word:
            if left < piece.width and left < room:
                lines.append([])
                left = room
            lines[-1].append(piece)
            left -= piece.width
            if piece.is_break:
                lines.append([])
                left = room
    return lines if lines[-1] else lines[:-1]


def _unindented(piece: _Piece, look: _Look) -> _Piece:
    """Drop the spaces that a wrapped line would begin with, unless they were paid for."""
    if piece.chip or piece.is_break:
        return piece
    text = piece.text.lstrip()
    return replace(piece, text=text, width=look.font.getlength(text))


def _draw_piece(draw: ImageDraw.ImageDraw, piece: _Piece, x: int, y: int, look: _Look) -> None:
    """Draw one piece; (x, y) is the upper left corner of its text row, in pixels."""
    middle = x + piece.width / 2
    if piece.chip:
        box = (x + 1, y, x + round(piece.width) - 2, y + look.text_height + look.number_height)
        draw.rounded_rectangle(box, radius=look.padding + 1, fill=piece.chip)
    if piece.is_break:
        _draw_break(draw, round(middle), y + look.text_height // 2, piece.ink if piece.chip else _PROMPT, look)
    else:
        left = middle - look.font.getlength(piece.text) / 2
        draw.text((round(left), y), piece.text, piece.ink, look.font)
    if piece.number:
        left = middle - look.small.getlength(piece.number) / 2
        draw.text((round(left), y + look.text_height - 1), piece.number, piece.number_ink, look.small)


def _draw_break(draw: ImageDraw.ImageDraw, x: int, y: int, ink: Colour, look: _Look) -> None:
    """Draw a return arrow around (x, y): the built-in font has none."""
    arm = look.text_height // 6
    draw.line([(x + arm, y - arm), (x + arm, y + arm), (x - arm, y + arm)], ink)
    head = max(1, arm - 1)
    draw.line([(x - arm + head, y + arm - head), (x - arm, y + arm), (x - arm + head, y + arm + head)], ink)


def _draw_footer(draw: ImageDraw.ImageDraw, left: str, right: str, size: tuple[int, int], look: _Look) -> None:
    """Draw a line, ``left`` under it as far as it fits, and ``right``."""
    width, height = size
    top = height - _foot(look)
    draw.line([(look.margin, top), (width - look.margin, top)], _LINE)
    room = width - 3 * look.margin - look.small.getlength(right)
    if look.small.getlength(left) > room:
        while left and look.small.getlength(left + "\u2026") > room:
            left = left[:-1]
        left += "\u2026"
    middle = top + _foot(look) // 2
    draw.text((look.margin, middle), left, _AGENT, look.small, anchor="lm")
    draw.text((width - look.margin, middle), right, _PROMPT, look.small, anchor="rm")
