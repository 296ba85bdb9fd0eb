"""The browser of the page's own tests."""

from tests.page.conftest import browser

__all__ = ["browser"]
