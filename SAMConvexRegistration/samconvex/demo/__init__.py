"""The demo's images and figures."""
