"""How notebooks show an engine, a template, a conversation and a receipt: as a table, and as text that says the same.

What models and users wrote is escaped: a prompt with a tag in it is shown, not run.
"""

from collections.abc import Mapping
from functools import singledispatch
from html import escape

from ._core import ChatSession, Engine, Receipt, Span, Template
from .errors import TemplateError
from ._receipts import summary

Rows = Mapping[str, str | list[Span]]
"""What is shown, by name: a text, or a prompt by who wrote which part of it."""

LONGEST = 500
"""Characters of a template's source that are shown."""

LAST = 20
"""Turns of a conversation that are shown."""

COLOURS = {None: "#80808030", "system": "#b060c040", "user": "#2f6fb050", "assistant": "#4aa04a50"}
"""The ground behind a part of a prompt, by its role; half transparent, for light and dark pages."""

EXAMPLE = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
EXAMPLE += [{"role": "user", "content": "How are you?"}]


def html(shown: object) -> str:
    """An object as an HTML table."""
    title, rows = described(shown)
    cells = "".join(
        f'<tr><th style="text-align:left;vertical-align:top">{escape(name)}</th>'
        f'<td style="text-align:left;white-space:pre-wrap">{cell(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table><caption style='caption-side:top;text-align:left'><b>{escape(title)}</b></caption>{cells}</table>"


def text(shown: object) -> str:
    """An object as lines of text."""
    title, rows = described(shown)
    width = max(map(len, rows), default=0)
    lines = (f"{name:<{width}}  {plain(value)}".replace("\n", "\n" + " " * (width + 2)) for name, value in rows.items())
    return "\n".join([title, *lines])


def bundle(shown: object) -> dict[str, str]:
    """Both, by their types: a front end takes what it can show."""
    return {"text/plain": text(shown), "text/html": html(shown)}


def cell(value: str | list[Span]) -> str:
    """A value as HTML."""
    if isinstance(value, str):
        return escape(value)
    colour = "<span style='background:{}' title='{}'>{}</span>".format
    return "".join(
        colour(COLOURS.get(span.role, "#c0803040"), escape(span.role or "template"), escape(span.text))
        for span in value
    )


def plain(value: str | list[Span]) -> str:
    """A value as text."""
    return value if isinstance(value, str) else "".join(span.text for span in value)


@singledispatch
def described(shown: object) -> tuple[str, Rows]:
    """A title and what is said below it."""
    raise TypeError(f"found {type(shown).__name__}, expected an Engine, a Template, a ChatSession or a Receipt")


@described.register
def of_engine(engine: Engine) -> tuple[str, Rows]:
    """An open model, or that it is closed."""
    if engine.closed:
        return f"Engine {engine.path.name}, closed", {}
    memory, cost = engine.memory, engine.per_token
    return f"Engine {engine.path.name}", {
        "model": f"{engine.arch}, {engine.n_vocab} tokens in the vocabulary, file of {size(memory['file'])}",
        "weights": f"{size(memory['packed_weights'])} packed, {size(memory['mapped_weights'])} where they lie in the "
        f"file, {size(memory['head_copy'])} copied",
        "a token": f"reads {size(cost['weight_bytes'])} of weights and {size(cost['kv_bytes'])} for each position "
        f"before it; {cost['ternary_macs'] / 1e6:.4g} M ternary multiply-adds",
        "arithmetic": f"act_quant {engine.act_quant}, ffn_act {engine.ffn_act}, kv_type {engine.kv_type}",
        "runs on": f"{engine.isa}, threads {engine.n_threads}, passes of up to {engine.n_batch}",
        "context": f"{engine.n_ctx} positions; {engine.cached_tokens} warm, {size(memory['kv_cache'])}",
    }


@described.register
def of_template(template: Template) -> tuple[str, Rows]:
    """A template, with a conversation that it renders."""
    rows: dict[str, str | list[Span]] = {"from": template.origin}
    if template.warning:
        rows["warning"] = template.warning
    rows["tokens"] = f"bos_token {template.bos_token!r}, eos_token {template.eos_token!r}"
    rows["ends at"] = ", ".join(map(repr, template.stop_sequences)) or "nothing but the model's own stop ids"
    try:
        rows["example"] = template.spans(EXAMPLE)
    except TemplateError as error:
        rows["example"] = f"refused: {error}"
    source = template.source
    rows["source"] = source if len(source) <= LONGEST else f"{source[:LONGEST]}… ({len(source)} characters in all)"
    return f"Template {template.name}", rows


@described.register
def of_chat(chat: ChatSession) -> tuple[str, Rows]:
    """The end of a conversation, with the sums of all."""
    metrics = chat.metrics
    # Rows have names of their own: a turn's is its number with its role.
    rows = {} if chat.system is None else {"system": chat.system}
    earlier = max(len(chat.history) - LAST, 0)
    if earlier:
        rows["earlier"] = f"{earlier} turns, in chat.history"
    for i, turn in enumerate(chat.history[earlier:], earlier):
        note = " (stopped)" * turn.cancelled + " (left the prompt)" * (i < chat.forgotten)
        rows[f"{i // 2 + 1} {turn.role}{note}"] = turn.text
    rows["tokens"] = (
        f"{metrics['prompt_tokens']:.0f} prompt ({metrics['cached_tokens']:.0f} reused), "
        f"{metrics['completion_tokens']:.0f} generated"
    )
    rows["rates"] = (
        f"prefill {metrics['prefill_tokens_per_second']:.1f} tokens/s, "
        f"decode {metrics['decode_tokens_per_second']:.1f} tokens/s"
    )
    return f"ChatSession, template {chat.template.name}", rows


@described.register
def of_receipt(receipt: Receipt) -> tuple[str, Rows]:
    """As `bitnet receipt show`; asks for the digest, for which the model's file is read once."""
    return "Receipt", summary(receipt)


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
