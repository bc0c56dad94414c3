"""One spelling for the characters that mean the same in an answer: full-width digits, minus signs, superscripts, √."""

import re
import unicodedata

_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙᵢ", "0123456789+-=()ni", strict=True))
_RUN = re.compile(f"([{''.join(_RAISED)}]+)|([{''.join(_LOWERED)}]+)")
_FRACTION_SIGN = re.compile("[¼½¾⅐-⅞↉]")
_LATEX = {
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": r"\div ", "±": r"\pm ", "√": r"\sqrt ",
    "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≡": r"\equiv ", "≈": r"\approx ",
    "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "∖": r"\setminus ",
    "°": r"^\circ ", "º": r"^\circ ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
}  # fmt: skip
_SIGN = re.compile("|".join(_LATEX))
# One Greek letter is a symbol; several in a row are a word.
_GREEK = re.compile(r"(?<![\u0370-\u03ff])[\u0370-\u03ff](?![\u0370-\u03ff])")
_DASHES = str.maketrans(dict.fromkeys("−‐‑‒–—﹣", "-") | dict.fromkeys("‘’ʼ", "'") | dict.fromkeys("“”", '"'))


def normalize_characters(text: str) -> str:
    """`text` with one spelling per character, for texts that stay words: NFKC, one minus, no invisible characters.

    Full-width "１２" becomes "12", a decomposed "é" the composed one. Not for mathematics: NFKC turns "x²" into "x2".
    """
    shown = "".join(_visible(character) for character in text.translate(_DASHES))
    return unicodedata.normalize("NFKC", shown).translate(_DASHES)


def convert_to_latex(text: str) -> str:
    r"""`text` with mathematical characters as LaTeX commands and the rest as in `normalize_characters`.

    "x²" becomes "x^{2}", "½" "\frac{1}{2}", "≤" "\le", a lone "π" "\pi".
    """
    text = _FRACTION_SIGN.sub(_as_fraction, text)
    text = _RUN.sub(_as_script, text)
    text = _SIGN.sub(lambda found: _LATEX[found[0]], text)
    return _GREEK.sub(_as_letter, normalize_characters(text))


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cf":
        return ""
    return " " if kind == "Cc" and character != "\n" else character


def _as_fraction(found: re.Match[str]) -> str:
    above, below = unicodedata.normalize("NFKC", found[0]).split("\u2044")
    return rf" \frac{{{above}}}{{{below}}} "


def _as_script(found: re.Match[str]) -> str:
    table, mark = (_RAISED, "^") if found[1] else (_LOWERED, "_")
    return f"{mark}{{{''.join(table[character] for character in found[0])}}}"


def _as_letter(found: re.Match[str]) -> str:
    name = unicodedata.name(found[0], "")
    words = name.split()
    if not name.startswith("GREEK") or "LETTER" not in words or "WITH" in words:
        return found[0]
    letter = words[-1].lower() if "SMALL" in words else words[-1].capitalize()
    return rf"\{'lambda' if letter == 'lamda' else 'Lambda' if letter == 'Lamda' else letter} "
