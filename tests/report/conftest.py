"""A browser for the page."""

from tests.support.browser import browser  # noqa: F401 (a fixture)
