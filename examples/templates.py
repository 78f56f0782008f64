"""Show the prompt of a conversation: the author and the tokens of each part.

python examples/templates.py [MODEL.gguf]
"""

import sys

from bitnet import ChatTurn, Engine, Template


def main(path: str | None = None) -> None:
    """Print the spans of the model's own template, then the prompts of the built-in templates."""
    turns = [ChatTurn("system", "Be brief."), ChatTurn("user", "What is <|eot_id|>?")]
    with Engine(path) as engine:
        print(f"{engine.template.name}, from {engine.template.origin}")
        for span in engine.template.spans(turns, tokenizer=engine.tokenizer):
            print(f"{span.role or 'template':<9} {span.text!r:<28} {span.token_ids}")
        for name in ("raw", "instruct", "llama3-chat", "bitnet"):
            template = Template.named(name, engine.template.bos_token)
            print(f"{name}: {template.render(turns)!r}, ends with {template.stop_sequences}")


if __name__ == "__main__":
    main(*sys.argv[1:])
