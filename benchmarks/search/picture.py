"""Pictures as SVG text: no library for drawing is needed."""

from collections.abc import Iterable
from typing import Any

from crossfold_operator.search import racing, racing_words

_COLOURS = ("#0b6e99", "#8a8a8a", "#7b4fa3", "#2e8540", "#b8860b", "#c0392b", "#e08a3c")
_MARKS = {"5x1": "circle", "5x3": "square", "10x1": "triangle", "10x3": "diamond"}


def results(report: dict[str, Any]) -> str:
    """Two panels: runs saved against good trials lost, by rule and design; and good trials lost against alpha."""
    return _document(980, 470, [*_trade_off(report), *_error(report)])


def _trade_off(report: dict[str, Any]) -> Iterable[str]:
    left, top, width, height = 70, 50, 480, 330
    rivals = list(next(iter(report["designs"].values()))["rivals"])
    rules = ["crossfold", *[rival for rival in rivals if rival != "no racing"]]

    def place(saved: float, lost: float) -> tuple[float, float]:
        # Square roots spread the small rates, which matter, and still show the large ones.
        return left + width * saved, top + height * (1 - lost**0.5)

    yield _text(left, top - 22, "Runs saved, and good trials lost for it (eight real tasks)", size=15)
    for lost in (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1):
        y = place(0, lost)[1]
        yield _line(left, y, left + width, y, "#dddddd" if lost != 0.05 else "#c0392b", dashed=lost == 0.05)
        yield _text(left - 8, y + 4, f"{100 * lost:g} %", anchor="end")
    for saved in (0, 0.2, 0.4, 0.6, 0.8, 1):
        x = place(saved, 0)[0]
        yield _line(x, top, x, top + height, "#eeeeee")
        yield _text(x, top + height + 18, f"{100 * saved:g} %", anchor="middle")
    yield _text(left + width / 2, top + height + 38, "planned runs that were not needed", anchor="middle")
    yield _text(left + width - 4, place(0, 0.05)[1] - 5, "alpha = 5 %", anchor="end", colour="#c0392b")
    for colour, rule in zip(_COLOURS[:1] + _COLOURS[2:], rules, strict=False):
        for design, figures in report["designs"].items():
            of = figures if rule == "crossfold" else figures["rivals"][rule]
            yield _mark(_MARKS[design], *place(of["saved_mean"], of["false_prune_mean"]), colour)
    for number, (colour, rule) in enumerate(zip(_COLOURS[:1] + _COLOURS[2:], rules, strict=False)):
        x, y = left + 160 * (number % 3), top + height + 60 + 18 * (number // 3)
        yield _mark("circle", x, y - 4, colour)
        yield _text(x + 10, y, rule)
    for number, (design, mark) in enumerate(_MARKS.items()):
        x = left + 120 * number
        yield _mark(mark, x, top + height + 92, "#555555")
        yield _text(x + 10, top + height + 96, design.replace("x", " folds, ") + " seeds")


def _error(report: dict[str, Any]) -> Iterable[str]:
    left, top, width, height, most = 640, 50, 310, 330, 0.2

    def place(alpha: float, lost: float) -> tuple[float, float]:
        return left + width * alpha / most, top + height * (1 - lost / most)

    yield _text(left, top - 22, "Crossfold: good trials lost, by alpha", size=15)
    for value in (0, 0.05, 0.1, 0.15, 0.2):
        x, y = place(value, value)
        yield _line(left, y, left + width, y, "#eeeeee")
        yield _line(x, top, x, top + height, "#eeeeee")
        yield _text(left - 8, y + 4, f"{100 * value:g} %", anchor="end")
        yield _text(x, top + height + 18, f"{100 * value:g} %", anchor="middle")
    yield _line(*place(0, 0), *place(most, most), "#c0392b", dashed=True)
    yield _text(*place(0.125, 0.15), "promised: at most alpha", anchor="end", colour="#c0392b")
    for alpha, of in report["alpha"].items():
        low, high = (place(float(alpha), bound)[1] for bound in of["false_prune_interval"])
        x, y = place(float(alpha), of["false_prune"])
        yield _line(x, low, x, high, _COLOURS[0])
        yield _mark("circle", x, y, _COLOURS[0])
    yield _text(left + width / 2, top + height + 38, "alpha", anchor="middle")
    yield _text(left, top + height + 64, "Trials exactly as good as the best one, all tasks and")
    yield _text(left, top + height + 80, "designs; bars: 95 % intervals.")


def _document(width: int, height: int, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="{width}" height="{height}" fill="white"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#222222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{text}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dash}/>'


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    shapes = {
        "square": ((-5, -5), (5, -5), (5, 5), (-5, 5)),
        "triangle": ((0, -6), (6, 5), (-6, 5)),
        "diamond": ((0, -7), (6, 0), (0, 7), (-6, 0)),
    }
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in shapes[kind])
    return f'<polygon points="{points}" fill="{colour}"/>'


COMPLETED = (
    (0.8085, 0.8503, 0.8101, 0.8104, 0.8470),
    (0.7858, 0.8096, 0.7558, 0.7430, 0.7939),
    (0.8394, 0.8409, 0.7862, 0.8012, 0.8476),
    (0.8302, 0.8541, 0.7993, 0.8102, 0.8540),
)
"""Scores of four complete trials by fold."""
WORSE = (0.8142, 0.8281, 0.7823, 0.7882, 0.8303)
BETTER = (0.8391, 0.8628, 0.8069, 0.8231, 0.8617)


def explained() -> str:
    """Two trials against the bar, look by look: what a person sees of racing."""
    completed: list[racing.CompletedTrial] = [
        {"number": number, "scores": [[score] for score in scores]} for number, scores in enumerate(COMPLETED)
    ]
    left, top, width, height, low, high = 70, 50, 620, 300, 0.77, 0.88

    def place(runs: float, score: float) -> tuple[float, float]:
        return left + width * runs / 5.3, top + height * (high - score) / (high - low)

    bar = sum(COMPLETED[3]) / 5
    parts = [_text(left, top - 22, "Two trials of five folds, predicted after every run", size=15)]
    for score in (0.78, 0.80, 0.82, 0.84, 0.86):
        y = place(0, score)[1]
        parts += [_line(left, y, left + width, y, "#eeeeee"), _text(left - 8, y + 4, f"{score:.2f}", anchor="end")]
    for runs in range(1, 6):
        parts.append(_text(place(runs, low)[0], top + height + 18, str(runs), anchor="middle"))
    parts.append(_text(left + width / 2, top + height + 38, "runs that have ended", anchor="middle"))
    parts.append(_line(*place(0, bar), *place(5.3, bar), "#c0392b", dashed=True))
    parts.append(_text(left + 4, place(0, bar)[1] - 6, f"the bar: {bar:.4f}, mean of the best trial", colour="#c0392b"))
    for scores, colour, name, offset in (
        (WORSE, _COLOURS[0], "trial 4", -0.06),
        (BETTER, _COLOURS[3], "trial 5", 0.06),
    ):
        for n in range(1, 5):
            look = racing.decide([(f, 0, scores[f]) for f in range(n)], completed, 5, 1, "maximize")
            if look.predicted is None or look.se is None:
                raise ValueError(racing_words.text(look))
            (x, y), reach = place(n + offset, look.predicted), 1.96 * look.se
            parts.append(_line(x, place(0, look.predicted - reach)[1], x, place(0, look.predicted + reach)[1], colour))
            parts.append(_mark("circle", x, y, colour))
            if look.prune:
                parts.append(
                    _text(x + 12, y + 20, f"{name}: pruned, three runs saved (p = {look.p:.2g})", colour=colour)
                )
                break
        else:
            mean = sum(scores) / 5
            x, y = place(5 + offset, mean)
            parts.append(_mark("diamond", x, y, colour))
            parts.append(_text(x, y - 14, f"{name}: complete, {mean:.4f}: the new bar", anchor="end", colour=colour))
    note = "Circles: predicted mean of the complete trial, with its 95 % range. Diamond: the mean itself."
    return _document(720, 430, [*parts, _text(left, top + height + 64, note)])
