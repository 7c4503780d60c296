"""How many tokens a prompt is: about, for choosing a model, and at most, for holding money."""

from __future__ import annotations

import math

from llmrouter_server import errors

IMAGE_TOKENS = 800
"""About what an image is: 765 for 1024 x 1024 pixels at gpt-4o."""
MAX_IMAGE_TOKENS = 60_000
"""More than an image is at any provider. The dearest documented: gpt-4o-mini in high detail, 2833 and 5667 for each of
at most 8 tiles (2048 x 768 pixels), 48,169 in all. https://platform.openai.com/docs/guides/images-vision"""
MESSAGE_TOKENS = 4
MAX_MESSAGE_TOKENS = 16
"""What the chat template writes around a message, its role included."""
MAX_TEMPLATE_TOKENS = 64
"""What the chat template writes around all messages."""

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_IMAGES = ("image_url", "input_image", "image")
_OF_AN_IMAGE = frozenset({"type", *_IMAGES, "source", "detail", "file_id"})
_OF_A_TEXT = frozenset({"type"})
_ATTACHMENTS = ("input_audio", "audio_url", "file", "input_file", "document", "video_url", "input_video", "video")
"""Parts whose tokens have another price, or no bound in the request: pages, seconds, something behind a name."""
_NOT_ASCII = bytes(range(0x80, 0x100))


class Prompt:
    """What a model reads of a request, gathered piece by piece."""

    def __init__(self) -> None:
        self.images = 0
        self.priced_apart: set[str] = set()
        self._messages = 0
        self._prose: list[str] = []
        self._forms: list[str] = []
        self._about = self._at_most = 0

    def add_messages(self, messages: list[object]) -> None:
        """Add the messages. INVALID_FIELD: the first one that is none."""
        self._messages += len(messages)
        for index, message in enumerate(messages):
            if not isinstance(message, dict):
                raise errors.invalid((f"messages[{index}]", "must be an object"))
            if not isinstance(message.get("role"), str):
                raise errors.invalid((f"messages[{index}].role", "must be a string"))
            for name, value in message.items():
                if name == "content":
                    self._add_content(f"messages[{index}].content", value)
                elif name == "role":
                    self._prose.extend(() if value in _ROLES else (value,))
                elif value is not None:
                    self._add_member(name, value)
            if message.get("audio") is not None:  # names an answer that was given before, however long it was
                self.priced_apart.add("audio")

    def add_form(self, text: str) -> None:
        """Add JSON that the model reads, such as the definition of a tool."""
        self._forms.append(text)

    def add_unread(self, size: int) -> None:
        """Add so many bytes that the model most likely does not read: they count for the bound alone."""
        self._at_most += size

    def tokens(self) -> tuple[int, int]:
        """Return about how many tokens the prompt is, and the most that it can be.

        About: 4 bytes of ASCII a token, 2.5 of any other text (UTF-8), and so much for each message and image. At most,
        for tokenizers that work on bytes: one for each byte. What is not prose may be written for the model as JSON,
        its own way, so quotes, line ends and runs of spaces come on top: for each piece, and for each sign of a piece
        that is JSON itself.
        """
        forms = "".join(self._forms)
        text = "".join(self._prose) + forms
        size = ascii_size = _size(text)
        if not text.isascii():
            ascii_size = len(_utf8(text).translate(None, _NOT_ASCII))
        about = self._about + self._messages * MESSAGE_TOKENS + self.images * IMAGE_TOKENS
        at_most = self._at_most + self._messages * MAX_MESSAGE_TOKENS + self.images * MAX_IMAGE_TOKENS
        return (
            about + math.ceil((5 * ascii_size + 8 * (size - ascii_size)) / 20),
            at_most + MAX_TEMPLATE_TOKENS + size + 6 * len(self._forms) + 2 * sum(map(forms.count, ",:{}[]")),
        )

    def _add_content(self, path: str, content: object) -> None:
        if isinstance(content, str):
            self._prose.append(content)
            return
        if content is None:
            return
        if not isinstance(content, list):
            raise errors.invalid((path, "must be a string, a list or null"))
        for index, part in enumerate(content):
            if isinstance(part, str):
                self._prose.append(part)
            elif isinstance(part, dict):
                self._add_part(part)
            else:
                raise errors.invalid((f"{path}[{index}]", "must be an object"))

    def _add_part(self, part: dict[str, object]) -> None:
        kind = part.get("type")
        if kind is None:  # some providers go by the name of the member alone
            kind = next((name for name in (*_IMAGES, *_ATTACHMENTS) if name in part), None)
        if kind in _ATTACHMENTS:
            self._add_attachment(str(kind), part)
            return
        is_image = kind in _IMAGES
        self.images += is_image
        for name, value in part.items():
            if name == "text" and isinstance(value, str):
                self._prose.append(value)
            elif name not in (_OF_AN_IMAGE if is_image else _OF_A_TEXT) and value is not None:
                self._add_member(name, value)

    def _add_attachment(self, kind: str, part: dict[str, object]) -> None:
        texts: list[str] = []
        _add_texts(part, texts)
        size = _size("".join(texts))
        self.priced_apart.add(kind)
        self._at_most += size
        self._about += min(IMAGE_TOKENS, size)

    def _add_member(self, name: str, value: object) -> None:
        self._forms.append(name)
        _add_texts(value, self._forms)


def _add_texts(value: object, texts: list[str]) -> None:
    """Add everything that a JSON value says, its names included."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        texts.append("{}")
        texts.extend(value)
        for child in value.values():
            _add_texts(child, texts)
    elif isinstance(value, list):
        texts.append("[]")
        for child in value:
            _add_texts(child, texts)
    else:
        texts.append(str(value))


def _size(text: str) -> int:
    """Return the text's bytes in UTF-8."""
    return len(text) if text.isascii() else len(_utf8(text))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
