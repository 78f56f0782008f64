"""How notebooks show an engine, a template, a conversation or a receipt: as an HTML table, and as text.

Text that models and users wrote is escaped: a tag in a prompt is shown, not interpreted.
"""

import sys
from collections.abc import Mapping
from functools import singledispatch
from html import escape

from ._core import ChatSession, Engine, Receipt, Span, Template, Tokenizer
from ._format import byte_size, escape_line, rate, token_counts, two_columns
from ._receipts import summary
from .errors import ModelError, TemplateError

Rows = Mapping[str, str | list[Span]]
"""What a view shows, by name: a text, or a prompt as spans, so that its parts can be coloured."""

SOURCE_CHARACTERS = 500
"""A longer template source is cut to this many characters."""

TURNS = 20
"""A longer conversation is cut to its last turns, this many."""

COLOURS = {None: "#80808030", "system": "#b060c040", "user": "#2f6fb050", "assistant": "#4aa04a50"}
"""Background of a prompt's part, by role; None is the template's own text. Half transparent, to suit dark pages too."""
OTHER_ROLE = "#c0803040"

EXAMPLE = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
EXAMPLE += [{"role": "user", "content": "How are you?"}]


def html(shown: object) -> str:
    """An object as an HTML table."""
    title, rows = described(shown)
    cells = "".join(
        f'<tr><th style="text-align:left;vertical-align:top">{escape(name)}</th>'
        f'<td style="text-align:left;white-space:pre-wrap">{html_cell(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table><caption style='caption-side:top;text-align:left'><b>{escape(title)}</b></caption>{cells}</table>"


def text(shown: object) -> str:
    """An object as lines of text: a title, then two columns."""
    title, rows = described(shown)
    title = escape_line(title)
    plain = {
        name: value if isinstance(value, str) else "".join(span.text for span in value) for name, value in rows.items()
    }
    return f"{title}\n{two_columns(plain, texts=plain)}" if plain else title


def bundle(shown: object) -> dict[str, str]:
    """Both forms by MIME type; the notebook takes the one it can show."""
    return {"text/plain": text(shown), "text/html": html(shown)}


def html_cell(value: str | list[Span]) -> str:
    """A value as HTML; the spans of a prompt are coloured by role."""
    if isinstance(value, str):
        return escape(value)
    coloured = "<span style='background:{}' title='{}'>{}</span>".format
    return "".join(
        coloured(COLOURS.get(span.role, OTHER_ROLE), escape(span.role or "template"), escape(span.text))
        for span in value
    )


@singledispatch
def described(shown: object) -> tuple[str, Rows]:
    """The title and the rows that describe an object."""
    raise TypeError(f"expected an Engine, a Template, a ChatSession or a Receipt, found {type(shown).__name__}")


@described.register
def of_engine(engine: Engine) -> tuple[str, Rows]:
    """Describe an engine: model, memory, cost of a token, settings."""
    if engine.closed:
        return f"Engine {engine.path.name}, closed", {}
    memory, cost = engine.memory, engine.per_token
    return f"Engine {engine.path.name}", {
        "model": f"{engine.arch}, {engine.n_vocab} tokens in the vocabulary, file of {byte_size(memory['file'])}",
        "weights": f"{byte_size(memory['packed_weights'])} packed, {byte_size(memory['mapped_weights'])} mapped from "
        f"the file, {byte_size(memory['head_copy'] + memory['head_upper'])} for the copy of the output head, "
        f"{byte_size(memory['neuron_copy'])} for the copy of the feed-forward networks",
        "process": f"{byte_size(memory['resident'])} in memory, {byte_size(memory['resident_file'])} of them pages of "
        "files, which the system drops when it needs memory",
        "per token": f"reads {byte_size(cost['weight_bytes'])} of weights, and of the KV cache "
        f"{byte_size(cost['kv_bytes'])} per earlier position; {cost['ternary_macs'] / 1e6:.4g} M ternary multiply-adds",
        "arithmetic": f"act_quant {engine.act_quant}, ffn_act {engine.ffn_act}, kv_type {engine.kv_type}, "
        f"lm_head {engine.lm_head}",
        "runs on": f"{engine.isa}, threads {engine.n_threads}, n_batch {engine.n_batch}, max_batch {engine.max_batch}",
        "context": f"{engine.n_ctx} positions; {engine.cached_tokens} in the prefix cache, "
        f"{byte_size(memory['kv_cache'])} of at most {byte_size(engine.cache_bytes)}",
    }


@described.register
def of_template(template: Template) -> tuple[str, Rows]:
    """Describe a template, with an example conversation that it renders."""
    rows: dict[str, str | list[Span]] = {"from": template.origin}
    if template.warning:
        rows["warning"] = template.warning
    rows["tokens"] = f"bos_token {template.bos_token!r}, eos_token {template.eos_token!r}"
    rows["stops at"] = ", ".join(map(repr, template.stop_sequences)) or "the model's own stop tokens only"
    try:
        rows["example"] = template.spans(EXAMPLE)
    except TemplateError as error:
        rows["example"] = f"refused: {error}"
    source = template.source
    if len(source) > SOURCE_CHARACTERS:
        source = f"{source[:SOURCE_CHARACTERS]}… ({len(source)} characters in all)"
    rows["source"] = source
    return f"Template {template.name}", rows


@described.register
def of_chat(chat: ChatSession) -> tuple[str, Rows]:
    """Describe a conversation: its last turns, and the sums over all of it."""
    metrics = chat.metrics
    rows = {} if chat.system is None else {"system": chat.system}
    earlier = max(len(chat.history) - TURNS, 0)
    if earlier:
        rows["earlier"] = f"{earlier} turns, in chat.history"
    for i, turn in enumerate(chat.history[earlier:], earlier):
        note = " (stopped)" * turn.cancelled + " (no longer in the prompt)" * (i < chat.forgotten)
        rows[f"{i // 2 + 1} {turn.role}{note}"] = turn.text  # with the number, no two rows have the same name
    rows["tokens"] = token_counts(metrics["prompt_tokens"], metrics["cached_tokens"], metrics["completion_tokens"])
    rows["rates"] = (
        f"prefill {rate(metrics['prefill_tokens_per_second'])}, decode {rate(metrics['decode_tokens_per_second'])}"
    )
    return f"ChatSession, template {chat.template.name}", rows


@described.register
def of_receipt(receipt: Receipt) -> tuple[str, Rows]:
    """Describe a receipt as `bitnet receipt show` does. The first digest of an engine reads the whole model file.

    If one of the notebook's variables is an open engine of the same model, or a conversation with one, the table also
    has the prompt and the answer as text.
    """
    return "Receipt", summary(receipt, _tokenizer_at_hand(receipt))


def _tokenizer_at_hand(receipt: Receipt) -> Tokenizer | None:
    """The tokenizer of an open engine in the notebook's variables that has this receipt's model file."""
    model = receipt.to_dict()["model_info"]
    wanted = tuple(model[name] for name in ("file", "bytes", "architecture", "vocab_size"))
    for value in list(vars(sys.modules["__main__"]).values()):
        engine = value.engine if isinstance(value, ChatSession) else value
        if not isinstance(engine, Engine) or engine.closed:
            continue
        if (engine.path.name, engine.memory["file"], engine.arch, engine.n_vocab) == wanted:
            try:
                return engine.tokenizer
            except ModelError:  # a file without a tokenizer
                return None
    return None
