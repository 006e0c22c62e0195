"""One line of the report: a figure, its comparison, and notes that help to judge it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Row"]


class Row(NamedTuple):
    """`ratio` compares with the row named in `against`: the median of the rounds' ratios, `spread` their least and
    greatest.

    `client_cpu` and `gateway_cpu` are microseconds for each counted unit; 0 where unknown. `cores` names the processes
    that share a core. Rows of one `figure` make one picture; those with an `x` a line in it, named by `series`, the
    others bars.
    """

    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float = 0.0
    note: str = ""
    spread: tuple[float, float] = (0.0, 0.0)
    client_cpu: float = 0.0
    gateway_cpu: float = 0.0
    cores: str = ""
    figure: str = ""
    series: str = ""
    x: float = 0.0

    def __str__(self) -> str:
        text = f"{self.name:<52} {number(self.value):>10} {self.unit}"
        if self.against:
            text += f"  {self.compared}"
        about = [part for part in (self.cpu, self.cores, self.note) if part]
        return text + (f"  ({'; '.join(about)})" if about else "")

    @property
    def compared(self) -> str:
        """The ratio in words, with its spread."""
        if not self.against:
            return ""
        least, greatest = self.spread
        spread = f" [{least:.2f} to {greatest:.2f}]" if greatest and least != greatest else ""
        return f"{self.ratio:.2f} x {self.against}{spread}"

    @property
    def cpu(self) -> str:
        """The client's CPU and the gateway's."""
        client = 0.0 if self.unit.startswith("us of CPU") else self.client_cpu  # which is the figure itself
        parts = [("client", client), ("gateway", self.gateway_cpu)]
        return ", ".join(f"{who} {number(each)} us of CPU" for who, each in parts if each)


def number(value: float) -> str:
    """With three digits that mean something, or whole."""
    if not value:
        return "0"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"
