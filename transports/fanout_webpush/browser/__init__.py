"""A page on loopback that subscribes a real browser and has a real push sent to it. `serve` is its door; the rest of
the package does not use it. `index.html` and `sw.js` are a page and a service worker with all that they need, and may
be copied from.
"""

from fanout_webpush.browser.page import Page, serve

__all__ = ["Page", "serve"]
