"""Lists that come page by page, as something to iterate over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from llmrouter.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

ItemT = TypeVar("ItemT")
PageT = TypeVar("PageT")


class Pages(Generic[ItemT, PageT]):
    """All items of a list. A page is asked for when its first item is; iterating again asks again."""

    def __init__(
        self,
        fetch: Callable[[str], PageT],
        page_token: str,
        items: Callable[[PageT], Iterable[ItemT]],
        following: Callable[[PageT], str],
    ) -> None:
        self._fetch, self._page_token, self._items, self._following = fetch, page_token, items, following

    def __iter__(self) -> Iterator[ItemT]:
        for page in self.pages():
            yield from self._items(page)

    def pages(self) -> Iterator[PageT]:
        """Return the server's answers one by one, each with the `next_page_token` to go on from later."""
        token = self._page_token
        while True:
            page = self._fetch(token)
            yield page
            before, token = token, self._following(page)
            if not token:
                return
            _require_progress(before, token)


class AsyncPages(Generic[ItemT, PageT]):
    """All items of a list. A page is asked for when its first item is; iterating again asks again."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[PageT]],
        page_token: str,
        items: Callable[[PageT], Iterable[ItemT]],
        following: Callable[[PageT], str],
    ) -> None:
        self._fetch, self._page_token, self._items, self._following = fetch, page_token, items, following

    async def __aiter__(self) -> AsyncIterator[ItemT]:
        async for page in self.pages():
            for item in self._items(page):
                yield item

    async def pages(self) -> AsyncIterator[PageT]:
        """Return the server's answers one by one, each with the `next_page_token` to go on from later."""
        token = self._page_token
        while True:
            page = await self._fetch(token)
            yield page
            before, token = token, self._following(page)
            if not token:
                return
            _require_progress(before, token)


def _require_progress(before: str, token: str) -> None:
    if token == before:
        raise InternalError("the server named the same page again; going on would never end")
