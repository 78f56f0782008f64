"""What to write here in place of a name of another library (vLLM, llama-cpp-python, OpenAI, transformers, deepeval)."""

from difflib import get_close_matches

_SCHEMA = "json_schema= takes a JSON schema or a pydantic model; reply.parsed is the value"
_SAMPLER = "there is no such sampler; temperature, top_k, top_p and min_p choose"
_CPU = "the engine runs on the processor only; leave it out"
_TYPES = "the model file decides the types; leave it out"
_MEMORY = "weights are mapped from the file or packed in memory; leave it out"
_ALWAYS = "this is always so; leave it out"
_MESSAGES = "engine.chat(messages) takes a conversation"
_STREAM = "engine.stream(prompt), engine.chat_stream(messages) and chat.stream(text) stream"
_TEMPLATE = "engine.template is the chat template; engine.chat takes template="
_FIELDS = "a Completion has text, token_ids, finish_reason, prompt_tokens, completion_tokens, logprobs and receipt"
_SIZES = 'bitnet.inspect(path)["config"]'
_SCORE = "engine.score(context, continuations)"
_SPECIAL = "tokenizer.bos_token_id or eos_token_id, and tokenizer.id_to_token(id) for its text"

SAMPLING = {
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_length": "max_tokens, which does not count the prompt",
    "max_output_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "n_tokens": "max_tokens",
    "max_gen_toks": "max_tokens",
    "temp": "temperature",
    "repeat_penalty": "repetition_penalty",
    "repetition_context_size": "repeat_last_n",
    "penalty_last_n": "repeat_last_n",
    "frequency_penality": "frequency_penalty",
    "freq_penalty": "frequency_penalty",
    "pres_penalty": "presence_penalty",
    "stop_strings": "stop",
    "stop_sequences": "stop",
    "stop_words": "stop",
    "stopping_criteria": "stop or stop_token_ids",
    "until": "stop",
    "eos_token_id": "stop_token_ids",
    "stop_ids": "stop_token_ids",
    "ignore_eos_token": "ignore_eos",
    "random_seed": "seed",
    "sampling_seed": "seed",
    "top_logprobs": "logprobs=N, which reports the N most likely tokens at each position",
    "n_probs": "logprobs=N, which reports the N most likely tokens at each position",
    "logits_bias": "logit_bias",
    "sampling_params": "params",
    "sampling_parameters": "params",
    "generation_config": "params=SamplingParams(...)",
    "extra_body": "keywords, each by its name",
    "guided_json": "json_schema",
    "guided_choice": "choice",
    "choices": "choice",
    "guided_regex": "regex",
    "guided_grammar": "grammar",
}
"""Names of sampling parameters in other libraries, and the name here."""

NOT_SAMPLING = {
    "n": "give n= to engine.generate or engine.chat",
    "best_of": "give n= to engine.generate and choose",
    "num_return_sequences": "give n= to engine.generate",
    "num_samples": "give n= to engine.generate",
    "stream": _STREAM,
    "streamer": _STREAM,
    "stream_options": _STREAM,
    "tools": _MESSAGES + ", with tools=",
    "enable_thinking": _MESSAGES + ", with enable_thinking=",
    "thinking": _MESSAGES + ", with enable_thinking=",
    "think": _MESSAGES + ", with enable_thinking=",
    "documents": _MESSAGES + ', with chat_template_kwargs={"documents": ...}',
    "conversation": _MESSAGES,
    "prompts": "the prompts are the first argument: a list",
    "input_ids": "the ids are the first argument",
    "inputs": "the prompt is the first argument",
    "images": "the model reads text only",
    "raw": "engine.generate(prompt) is raw; engine.chat(messages) uses the chat template",
    "options": "give each as a keyword",
    "num_ctx": "Engine(path, n_ctx=...) sets the context",
    "n_ctx": "Engine(path, n_ctx=...) sets the context",
    "callback": _STREAM,
    "callbacks": _STREAM,
    "cache_prompt": "the longest cached prefix is always reused; leave it out",
    "return_dict_in_generate": "a Completion has text, token_ids, logprobs and more; leave it out",
    "padding": "prompts are never padded; leave it out",
    "truncation": "prompts are never truncated; leave it out",
    "add_special_tokens": "a text gets a BOS token if the model expects one; leave it out",
    "tokenize": "engine.template.encode(messages, engine.tokenizer) gives ids",
    "tool_choice": _MESSAGES + ", with tools= and tool_choice=",
    "parallel_tool_calls": _MESSAGES + ", with tools= and parallel_tool_calls=",
    "functions": _MESSAGES + ", with tools=",
    "messages": _MESSAGES,
    "history": "ChatSession(engine, messages=...) begins with a history",
    "system": "ChatSession(engine, system=...), or a message with the role 'system'",
    "system_prompt": "ChatSession(engine, system=...), or a message with the role 'system'",
    "prompt": "the prompt is the first argument",
    "template": _TEMPLATE,
    "chat_template": _TEMPLATE,
    "chat_template_kwargs": _MESSAGES + ", with chat_template_kwargs=",
    "continue_final_message": _MESSAGES + ", with continue_final_message=",
    "add_generation_prompt": _MESSAGES + ", with add_generation_prompt=",
    "guided_decoding": "give json_schema=, regex=, choice= or grammar=",
    "structured_outputs": "give json_schema=, regex=, choice= or grammar=",
    "response_format": _SCHEMA,
    "response_model": _SCHEMA,
    "format": _SCHEMA,
    "json": _SCHEMA,
    "logits_processors": "logits_processor= takes one function, which may call others",
    "bad_words": "logit_bias={id: float('-inf')} forbids a token",
    "bad_words_ids": "logit_bias={id: float('-inf')} forbids a token",
    "suppress_tokens": "logit_bias={id: float('-inf')} forbids a token",
    "allowed_token_ids": "logit_bias raises or forbids tokens",
    "prompt_logprobs": "engine.logprobs(prompt) gives those of a prompt",
    "echo": "the completion holds new text only; engine.logprobs(prompt) gives the prompt's log-probabilities",
    "return_full_text": "the completion holds new text only; leave it out",
    "include_stop_str_in_output": "a stop string is never part of the text; leave it out",
    "skip_special_tokens": "control tokens are never part of the text; engine.decode(ids, False) shows them",
    "spaces_between_special_tokens": "leave it out",
    "detokenize": _ALWAYS,
    "min_tokens": "there is no minimum; ignore_eos=True with max_tokens gives exactly so many tokens",
    "min_new_tokens": "there is no minimum; ignore_eos=True with max_tokens gives exactly so many tokens",
    "truncate_prompt_tokens": "prompts are never truncated; cut the ids yourself",
    "do_sample": "a temperature above 0 samples",
    "use_beam_search": "there is no beam search",
    "num_beams": "there is no beam search",
    "early_stopping": "there is no beam search",
    "length_penalty": "there is no beam search",
    "no_repeat_ngram_size": "use repetition_penalty",
    "typical_p": _SAMPLER,
    "tfs_z": _SAMPLER,
    "mirostat": _SAMPLER,
    "mirostat_mode": _SAMPLER,
    "mirostat_tau": _SAMPLER,
    "mirostat_eta": _SAMPLER,
    "dynatemp_range": _SAMPLER,
    "xtc_probability": _SAMPLER,
    "dry_multiplier": _SAMPLER,
    "top_a": _SAMPLER,
    "use_tqdm": "progress=True shows a bar",
    "batch_size": "leave it out",
    "request_id": "leave it out",
    "priority": "leave it out",
    "lora_request": "adapters are not supported",
    "model": "an Engine has one model: Engine(path)",
    "user": "leave it out",
    "timeout": "cancel the stream, or asyncio.wait_for(engine.achat(messages), seconds)",
    "pad_token_id": "prompts are never padded; leave it out",
    "attention_mask": "prompts are never padded; leave it out",
    "use_cache": _ALWAYS,
    "keep_alive": "leave it out",
    "progress": "it shows a bar over a list in engine.generate and engine.chat only",
}
"""Keywords of other libraries' calls that are no sampling parameters, and what to do instead."""

ENGINE = {
    "model": "give the path as the first argument: Engine('model.gguf')",
    "model_path": "give the path as the first argument: Engine('model.gguf')",
    "model_name": "give the path as the first argument: Engine('model.gguf')",
    "model_id": "Engine.from_pretrained('owner/name') opens a model of the Hugging Face Hub",
    "repo_id": "Engine.from_pretrained('owner/name') opens a model of the Hugging Face Hub",
    "pretrained_model_name_or_path": "Engine.from_pretrained('owner/name') opens a model of the Hugging Face Hub",
    "max_model_len": "did you mean n_ctx?",
    "max_seq_len": "did you mean n_ctx?",
    "context_length": "did you mean n_ctx?",
    "num_ctx": "did you mean n_ctx?",
    "ctx_size": "did you mean n_ctx?",
    "n_threads_batch": "n_threads counts for the prompt, too",
    "num_threads": "did you mean n_threads?",
    "threads": "did you mean n_threads?",
    "n_ubatch": "did you mean n_batch?",
    "batch_size": "did you mean n_batch?",
    "max_num_batched_tokens": "did you mean n_batch?",
    "max_num_seqs": "did you mean max_batch?",
    "n_parallel": "did you mean max_batch?",
    "n_seq_max": "did you mean max_batch?",
    "type_k": "did you mean kv_type?",
    "type_v": "did you mean kv_type?",
    "kv_cache_dtype": "did you mean kv_type?",
    "n_gpu_layers": _CPU,
    "gpu_layers": _CPU,
    "main_gpu": _CPU,
    "tensor_split": _CPU,
    "device": _CPU,
    "device_map": _CPU,
    "tensor_parallel_size": _CPU,
    "gpu_memory_utilization": _CPU,
    "enforce_eager": _CPU,
    "offload_kqv": _CPU,
    "dtype": _TYPES,
    "torch_dtype": _TYPES,
    "quantization": _TYPES,
    "load_in_8bit": _TYPES,
    "load_in_4bit": _TYPES,
    "trust_remote_code": "no code of a model is ever run; leave it out",
    "use_mmap": _MEMORY,
    "use_mlock": _MEMORY,
    "swap_space": _MEMORY,
    "flash_attn": "attention has one form, with the same bits everywhere; leave it out",
    "chat_format": "the model's own chat template is used; engine.chat and ChatSession take template=",
    "chat_handler": "the model's own chat template is used; engine.chat and ChatSession take template=",
    "chat_template": "the model's own chat template is used; engine.chat and ChatSession take template=",
    "tokenizer": "the model's own tokenizer is used; leave it out",
    "verbose": "the engine prints nothing; a completion's receipt says what was computed",
    "logits_all": "engine.logits(ids) gives all logits; leave it out",
    "embedding": "engine.embed(texts) gives embeddings; leave it out",
    "seed": "give seed= to generate or chat",
    "temperature": "give it to generate or chat, or to ChatSession",
    "max_tokens": "give it to generate or chat, or to ChatSession",
    "enable_prefix_caching": _ALWAYS,
    "lora_path": "adapters are not supported",
    "draft_model": "there are no draft models; speculate='lookup', a sampling parameter, guesses from the text itself",
    "speculative_config": "give speculate='lookup' to generate or chat",
    "prompt_lookup_num_tokens": "give speculate='lookup' to generate or chat",
}
"""Options of other libraries' models, and what to do instead."""

_CALLS = {
    "generate_text": "engine.generate(prompt)",
    "create_completion": "engine.generate(prompt)",
    "completions": "engine.generate(prompt)",
    "completion": "engine.generate(prompt)",
    "complete": "engine.generate(prompt)",
    "predict": "engine.generate(prompt)",
    "invoke": "engine.chat(messages) or engine.generate(prompt)",
    "ainvoke": "engine.achat(messages) or engine.agenerate(prompt)",
    "ask": "engine.chat(messages), or ChatSession(engine).send(text)",
    "create_chat_completion": "engine.chat(messages)",
    "chat_completion": "engine.chat(messages)",
    "responses": "engine.chat(messages)",
    "messages": "engine.chat(messages)",
    "generate_stream": "engine.stream(prompt)",
    "stream_generate": "engine.stream(prompt)",
    "stream_chat": "engine.chat_stream(messages)",
    "astream": "async for piece in engine.stream(prompt)",
    "batch": "engine.generate(list of prompts), or bitnet.batch for files",
    "tokenize": "engine.encode(text)",
    "detokenize": "engine.decode(ids)",
    "get_tokenizer": "engine.tokenizer",
    "apply_chat_template": "engine.template.render(messages) or engine.tokenizer.apply_chat_template(messages)",
    "chat_template": "engine.template",
    "get_num_tokens": "engine.count_tokens(text)",
    "embed_query": "engine.embed(text)",
    "embeddings": "engine.embed(texts)",
    "create_embedding": "engine.embed(texts)",
    "encode_text": "engine.embed(texts)",
    "forward": "engine.logits(ids)",
    "eval": "the weights never change, so there is nothing to switch; leave it out",
    "train": "the weights never change; there is no training",
    "loglikelihood": _SCORE,
    "loglikelihood_rolling": "engine.logprobs(text) or engine.perplexity(text)",
    "config": _SIZES,
    "n_embd": _SIZES,
    "n_layers": _SIZES,
    "hidden_size": _SIZES,
    "metadata": 'bitnet.inspect(path)["metadata"]',
    "num_parameters": _SIZES,
    "model": "engine.path",
    "model_path": "engine.path",
    "name": "engine.path",
    "context_length": "engine.n_ctx",
    "max_model_len": "engine.n_ctx",
    "vocab_size": "engine.n_vocab",
    "device": "the engine runs on the processor only",
    "to": "the engine runs on the processor only",
    "cuda": "the engine runs on the processor only",
    "half": "the model file decides the types",
    "reset": "a call does not depend on the one before; ChatSession.clear() begins a new conversation",
    "warmup": "engine.prefill(ids)",
    "shutdown": "engine.close()",
    "save_pretrained": "models are run as published; there is nothing to save",
    "bos_token_id": "engine.tokenizer.bos_token_id",
    "eos_token_id": "engine.tokenizer.eos_token_id",
    "get_logits": "engine.logits(ids)",
    "measure": "pytest's fixture bitnet_case, see `pytest --fixtures`",
}

ATTRIBUTES = {
    "Engine": _CALLS,
    "ChatSession": {
        "ask": "chat.send(text)",
        "chat": "chat.send(text)",
        "prompt": "chat.send(text)",
        "generate": "chat.send(text)",
        "complete": "chat.send(text)",
        "say": "chat.send(text)",
        "respond": "chat.send(text)",
        "invoke": "chat.send(text)",
        "astream": "async for piece in chat.stream(text)",
        "messages": "chat.history",
        "turns": "chat.history",
        "add_message": "chat.send(text), or ChatSession(engine, messages=...)",
        "append": "chat.send(text), or ChatSession(engine, messages=...)",
        "reset": "chat.clear()",
        "new_chat": "chat.clear()",
        "undo": "chat.rewind(1)",
        "retry": "chat.rewind(1), then chat.send(text)",
        "copy": "chat.fork()",
        "export": "chat.save(path) or chat.to_json()",
        "system_prompt": "chat.system",
        "tokens": 'chat.metrics["prompt_tokens"]',
        "model": "chat.engine",
    },
    "Completion": {
        "reasoning_content": "completion.reasoning",
        "thinking": "completion.reasoning",
        "choices": _FIELDS + "; n= gives a list of completions",
        "outputs": _FIELDS + "; n= gives a list of completions",
        "message": _FIELDS,
        "content": "completion.text",
        "generated_text": "completion.text",
        "response": "completion.text",
        "output": "completion.text",
        "completion": "completion.text",
        "output_text": "completion.text",
        "delta": "pieces of a stream have text",
        "usage": "completion.prompt_tokens and completion.completion_tokens",
        "ids": "completion.token_ids",
        "tokens": "completion.token_ids",
        "output_ids": "completion.token_ids",
        "sequences": "completion.token_ids",
        "stop_reason": "completion.finish_reason",
        "metrics": "completion.ttft, decode_seconds and receipt.seconds",
        "model_dump": "completion.to_dict()",
        "model_dump_json": "json.dumps(completion.to_dict())",
        "to_json": "json.dumps(completion.to_dict())",
        "json": "json.dumps(completion.to_dict())",
        "dict": "completion.to_dict()",
        "strip": "completion.text.strip()",
        "lower": "completion.text.lower()",
        "split": "completion.text.split()",
        "startswith": "completion.text.startswith(...)",
        "prompt_token_ids": 'completion.receipt.to_dict()["claim"]["prompt_ids"]',
        "prompt": "the prompt is not kept; the receipt has its ids",
    },
    "Stream": {
        "reasoning_content": "stream.reasoning",
        "choices": "each piece has text; stream.text is the text so far",
        "result": "read the stream to its end; stream.text is the text",
        "close": "stream.cancel()",
        "stop": "stream.cancel()",
        "abort": "stream.cancel()",
        "join": "''.join(piece.text for piece in stream), or stream.text",
        "strip": "stream.text.strip()",
        "usage": "stream.prompt_tokens and stream.completion_tokens",
    },
    "Tokenizer": {
        "from_pretrained": "Tokenizer(path) reads a GGUF file or tokenizer.json; Engine.from_pretrained(...).tokenizer",
        "from_file": "Tokenizer(path)",
        "batch_decode": "[tokenizer.decode(ids) for ids in batch]",
        "encode_batch": "[tokenizer.encode(text) for text in texts]",
        "batch_encode_plus": "[tokenizer.encode(text) for text in texts]",
        "encode_plus": "tokenizer.encode(text)",
        "tokenize": "[tokenizer.id_to_token(id) for id in tokenizer.encode(text)]",
        "convert_ids_to_tokens": "tokenizer.id_to_token(id)",
        "convert_tokens_to_ids": "tokenizer.token_to_id(token)",
        "convert_tokens_to_string": "tokenizer.decode(ids)",
        "detokenize": "tokenizer.decode(ids)",
        "get_vocab": "{tokenizer.id_to_token(id): id for id in range(tokenizer.vocab_size)}",
        "vocab": "{tokenizer.id_to_token(id): id for id in range(tokenizer.vocab_size)}",
        "get_vocab_size": "tokenizer.vocab_size",
        "n_vocab": "tokenizer.vocab_size",
        "eos_id": "tokenizer.eos_token_id",
        "bos_id": "tokenizer.bos_token_id",
        "eos_token": _SPECIAL,
        "bos_token": _SPECIAL,
        "pad_token": "prompts are never padded; see tokenizer.eos_token_id",
        "pad_token_id": "prompts are never padded; see tokenizer.eos_token_id",
        "unk_token": _SPECIAL,
        "all_special_ids": "tokenizer.stop_token_ids",
        "special_tokens_map": _SPECIAL,
        "chat_template": "Template.from_model(path).source, or engine.template.source",
        "add_special_tokens": "the vocabulary is the model's; it cannot be changed",
        "add_tokens": "the vocabulary is the model's; it cannot be changed",
        "padding_side": "prompts are never padded",
        "count": "len(tokenizer.encode(text))",
        "model_max_length": "engine.n_ctx",
    },
    "Template": {
        "format": "template.render(messages)",
        "apply_chat_template": "template.render(messages) or template.encode(messages, tokenizer)",
        "apply_template": "template.render(messages)",
        "template": "template.source",
        "jinja": "template.source",
        "tokenize": "template.encode(messages, tokenizer)",
        "stop": "template.stop_sequences",
    },
}
"""Attributes that other libraries' classes have, and what to write here."""

_SENTENCES = ("a ", "the ", "there ", "prompts ", "models ", "pieces ", "each ", "read ")
"""How those begin that are no expression to use."""

_MODEL = "Engine('model.gguf') opens a model: from bitnet import Engine"
_EVALUATION = "pytest's fixture bitnet_case asks a model and matches its answers: `pytest --fixtures` describes it"

MODULE = {
    "LLM": _MODEL,
    "Llama": _MODEL,
    "Model": _MODEL,
    "AutoModel": _MODEL,
    "AutoModelForCausalLM": _MODEL,
    "BitNet": _MODEL,
    "BitNetForCausalLM": _MODEL,
    "AsyncEngine": "Engine has achat, agenerate and streams for `async for`: from bitnet import Engine",
    "AsyncLLM": "Engine has achat, agenerate and streams for `async for`: from bitnet import Engine",
    "AsyncLLMEngine": "Engine has achat, agenerate and streams for `async for`: from bitnet import Engine",
    "LLMEngine": _MODEL,
    "OpenAI": _MODEL + "; engine.chat(messages) answers",
    "AsyncOpenAI": _MODEL + "; engine.achat(messages) answers",
    "Client": _MODEL + "; engine.chat(messages) answers",
    "load": _MODEL,
    "load_model": _MODEL,
    "open": _MODEL,
    "pipeline": _MODEL + "; engine.generate(prompt) continues a text",
    "generate": _MODEL + "; engine.generate(prompt) continues a text",
    "chat": _MODEL + "; engine.chat(messages) answers",
    "complete": _MODEL + "; engine.generate(prompt) continues a text",
    "AutoTokenizer": "Tokenizer(path) or engine.tokenizer: from bitnet import Tokenizer",
    "GenerationConfig": "from bitnet import SamplingParams",
    "SamplingParameters": "from bitnet import SamplingParams",
    "TextStreamer": "engine.stream(prompt) streams: from bitnet import Engine",
    "TextIteratorStreamer": "engine.stream(prompt) streams: from bitnet import Engine",
    "Chat": "from bitnet import ChatSession",
    "Conversation": "from bitnet import ChatSession",
    "Session": "from bitnet import ChatSession",
    "Message": "from bitnet import ChatTurn, or write a dict with role and content",
    "ChatMessage": "from bitnet import ChatTurn, or write a dict with role and content",
    "PromptTemplate": "from bitnet import Template",
    "ChatTemplate": "from bitnet import Template",
    "LLMTestCase": _EVALUATION,
    "assert_test": _EVALUATION,
    "evaluate": _EVALUATION + "; bitnet.lm_eval runs lm-evaluation-harness",
    "simple_evaluate": "bitnet.lm_eval runs lm-evaluation-harness: `python -m bitnet.lm_eval run --model bitnet`",
    "lm_eval": "import bitnet.lm_eval",
    "hf_hub_download": "Engine.from_pretrained('owner/name') downloads a model",
    "snapshot_download": "Engine.from_pretrained('owner/name') downloads a model",
    "Grammar": "give grammar=, a text in Lark's notation, to engine.generate or engine.chat",
    "LlamaGrammar": "give grammar=, a text in Lark's notation, to engine.generate or engine.chat",
}
"""Names that other packages export, and what to import or write here."""


def sampling_keyword(name: str) -> str:
    """The error for a keyword that is no sampling parameter."""
    from . import _core

    if name in SAMPLING:
        return f"{name} is not a sampling parameter; did you mean {SAMPLING[name]}?"
    if name in NOT_SAMPLING:
        return f"{name} is not a sampling parameter; {NOT_SAMPLING[name]}"
    known = [parameter[0] for parameter in _core._sampling_parameters()]
    return f"{name} is not a sampling parameter; {_closest(name, known, 'see help(bitnet.SamplingParams)')}"


def engine_keyword(name: str) -> str:
    """The error for an option that `Engine` does not take."""
    options = ["n_ctx", "n_threads", "isa", "kv_type", "act_quant", "ffn_act", "n_batch", "lm_head"]
    options += ["max_batch", "cache_bytes", "progress"]
    advice = ENGINE.get(name) or _closest(name, options, f"the options are {', '.join(options)}")
    return f"{name} is not an option of Engine; {advice}"


def attribute(kind: str, name: str) -> str:
    """The error for an attribute that a class does not have."""
    error = f"'bitnet.{kind}' object has no attribute '{name}'"
    if name.startswith("_"):
        return error
    advice = ATTRIBUTES.get(kind, {}).get(name)
    if advice is None:
        return error
    return f"{error}; {advice}" if advice.startswith(_SENTENCES) else f"{error}; use {advice}"


def item(kind: str) -> str:
    """The error for `object[...]` of a class without items."""
    return f"a {kind} has no items; {_FIELDS}, and to_dict()"


def module_attribute(name: str) -> str:
    """The error for a name that the package does not export."""
    error = f"module 'bitnet' has no attribute '{name}'"
    return f"{error}; {MODULE[name]}" if name in MODULE else error


def _closest(name: str, known: list[str], otherwise: str) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else otherwise
