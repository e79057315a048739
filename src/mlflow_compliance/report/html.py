"""x"""
from __future__ import annotations
class HtmlReport:
    def __init__(self, config: object) -> None: ...
